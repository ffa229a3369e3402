//! The settings of an overlay network.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{BridgeConfig, EtcdSource, InterfaceName, Isolation, Mac, Name, PublicKey};

/// The settings of an overlay: those of the bridge that its containers are on, and how the
/// bridges of the nodes find each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayConfig {
    /// The network's number in the tunnel (RFC 7348, VNI): 1 to 2^24 − 1.
    pub vni: u32,
    /// The UDP port of the tunnel; 4789 when absent (IANA "vxlan").
    #[serde(default = "OverlayConfig::default_port")]
    pub port: u16,
    /// The cluster's range, one of each family at most; every node's subnet is part of it. Written as
    /// one text or a list.
    #[serde(deserialize_with = "one_or_several")]
    pub cidr: Vec<IpNetwork>,
    /// Where it is written down which node has which subnet.
    pub source: PeerSource,
    /// How large the subnets are that nodes take out of a registry, as prefix lengths: one, or a list
    /// in the order of `cidr`. Without, 24 for IPv4 and 64 for IPv6.
    #[serde(default, deserialize_with = "one_or_several_lengths", skip_serializing_if = "Vec::is_empty")]
    pub subnet_len: Vec<u8>,
    /// Traffic that leaves the cluster's range gets the host's address.
    #[serde(default)]
    pub ip_masq: bool,
    /// The containers' MTU in bytes; 0 takes what the tunnel leaves of the underlay's.
    #[serde(default)]
    pub mtu: u32,
    /// What passes between nodes is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Nodes on the same segment are reached by plain routes, without the tunnel.
    #[serde(default)]
    pub direct_routing: bool,
    /// The bridge's interface name; derived from the network's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceName>,
    /// As for a bridge network.
    #[serde(default)]
    pub hairpin_mode: bool,
    /// As for a bridge network: containers of this node cannot reach one another.
    #[serde(default)]
    pub port_isolation: bool,
    /// As for a bridge network.
    #[serde(default, rename = "enabledad")]
    pub enable_dad: bool,
    /// As for a bridge network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// As for a bridge network; what comes by the tunnel is of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// As for a bridge network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// As for a bridge network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<String>,
    /// The bridge, the tunnel and the routes go with the node's last attachment.
    #[serde(default)]
    pub remove_empty_bridge: bool,
    /// Where reservations are kept; `/var/lib/cni/networks` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// This node's part, once it is known: filled in when a container is attached, whatever a
    /// configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalNode>,
}

/// How what passes between nodes is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// By WireGuard, which takes the place of VXLAN.
    Wireguard,
}

/// Where it is written down which node has which subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerSource {
    /// A TOML file that the administrator brings to every node.
    File(PathBuf),
    /// etcd, followed by the node's agent.
    Etcd(Box<EtcdSource>),
}

/// What this node is in an overlay: enough to say what its kernel should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalNode {
    /// Its name.
    pub node: Name,
    /// Its containers' subnets.
    pub subnets: Vec<IpNetwork>,
    /// The way to the other nodes.
    pub underlay: Underlay,
    /// Who it is, in an encrypted overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<NodeKey>>,
}

/// A node's own key, of which nothing secret is said here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    /// What others know it by.
    pub public: PublicKey,
    /// Where its private half is.
    pub file: PathBuf,
}

/// The interface of this host that carries the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// This host's address on it.
    pub address: IpAddr,
    /// The interface.
    pub link: InterfaceName,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// What is reached over it without a router.
    pub segment: IpNetwork,
}

impl OverlayConfig {
    /// The largest VNI (RFC 7348: 24 bits).
    pub const MAX_VNI: u32 = (1 << 24) - 1;

    fn default_port() -> u16 {
        4789
    }

    /// How large a node's subnet of the range at `position` of `cidr` is, as a prefix length.
    #[must_use]
    pub fn subnet_length(&self, position: usize) -> u8 {
        let v6 = self.cidr.get(position).is_some_and(IpNetwork::is_ipv6);
        self.subnet_len.get(position).copied().unwrap_or(if v6 { 64 } else { 24 })
    }

    /// The tunnel's interface name: one a VNI.
    #[must_use]
    pub fn device(&self) -> InterfaceName {
        match self.encryption {
            None => InterfaceName::for_vni(self.vni),
            Some(Encryption::Wireguard) => InterfaceName::for_encrypted_vni(self.vni),
        }
    }

    /// The settings of the bridge that this node's containers are on.
    #[must_use]
    pub fn bridge(&self, network: &Name) -> BridgeConfig {
        let name = self.bridge.clone().unwrap_or_else(|| InterfaceName::for_bridge_of(network));
        BridgeConfig {
            bridge: Some(name),
            is_default_gateway: true,
            ip_masq: self.ip_masq,
            mtu: self.effective_mtu().unwrap_or(self.mtu),
            hairpin_mode: self.hairpin_mode,
            port_isolation: self.port_isolation,
            enable_dad: self.enable_dad,
            isolation: self.isolation,
            internal: self.internal,
            firewall_backend: self.firewall_backend.clone(),
            mac: self.mac,
            remove_empty_bridge: self.remove_empty_bridge,
            ..BridgeConfig::default()
        }
    }

    /// The containers' MTU, once it is known.
    #[must_use]
    pub fn effective_mtu(&self) -> Option<u32> {
        let largest = self.local.as_ref()?.underlay.room(self.encryption);
        Some(if self.mtu == 0 { largest } else { self.mtu })
    }
}

impl Underlay {
    /// The largest packet that the tunnel carries, in bytes. Around it go an IPv4 (20) or an IPv6
    /// header (40), a UDP header (8), and an Ethernet (14) and a VXLAN header (8), or those of
    /// WireGuard (16) with its authentication tag (16).
    #[must_use]
    pub fn room(&self, encryption: Option<Encryption>) -> u32 {
        let carrier = if self.address.is_ipv6() { 40 } else { 20 };
        let tunnel = match encryption {
            None => 14 + 8,
            Some(Encryption::Wireguard) => 16 + 16,
        };
        self.mtu.saturating_sub(carrier + 8 + tunnel)
    }
}

/// One number, or a list of them.
fn one_or_several_lengths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a prefix length, or a list with one for each range of cidr")]
    enum Lengths {
        One(u8),
        Several(Vec<u8>),
    }
    Ok(match Lengths::deserialize(deserializer)? {
        Lengths::One(length) => vec![length],
        Lengths::Several(lengths) => lengths,
    })
}

/// One text, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNetwork>, D::Error> {
    struct Ranges;

    impl<'de> Visitor<'de> for Ranges {
        type Value = Vec<IpNetwork>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a range like \"10.244.0.0/16\", or a list with one of each family")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let range = if text.contains('/') { text.parse().ok() } else { None };
            range.map(|range| vec![range]).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut ranges = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                ranges.extend(Ranges.visit_str::<A::Error>(&text)?);
            }
            Ok(ranges)
        }
    }

    deserializer.deserialize_any(Ranges)
}
