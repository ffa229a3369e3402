//! A network as its user describes it: a name, a mode with the mode's settings, and how it
//! hands out addresses. The settings of a mode are the keys of its CNI configuration, so that a
//! configuration, a record on disk and a value in a program are the same thing.

use serde::{Deserialize, Serialize};

use super::{
    Dns, IngressPolicy, InterfaceName, IpamConfig, Isolation, Mac, MacvlanConfig, Name, OverlayConfig, Target,
};

/// A network that containers attach to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's name.
    pub name: Name,
    /// What kind of network it is.
    pub mode: Mode,
    /// Who hands out addresses; without it attachments have none (layer 2 only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamConfig>,
    /// Resolver settings for the containers; those of the lease when empty.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// The kinds of network, by the names users know them under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Mode {
    /// A Linux bridge on the host, and a veth pair for each container.
    Bridge(BridgeConfig),
    /// A share of a link of the host's for each container.
    Macvlan(MacvlanConfig),
    /// Nothing but the container's own loopback.
    None(NoneConfig),
    /// The host's own namespace.
    Host(HostConfig),
    /// Another container's namespace.
    Container(ContainerConfig),
    /// A bridge on every node, and a tunnel between them.
    Overlay(OverlayConfig),
}

impl Mode {
    /// The mode's name, which is also its plugin's.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bridge(_) => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::None(_) => "none",
            Self::Host(_) => "host",
            Self::Container(_) => "container",
            Self::Overlay(_) => "overlay",
        }
    }
}

impl From<BridgeConfig> for Mode {
    fn from(config: BridgeConfig) -> Self {
        Self::Bridge(config)
    }
}

impl From<MacvlanConfig> for Mode {
    fn from(config: MacvlanConfig) -> Self {
        Self::Macvlan(config)
    }
}

impl From<OverlayConfig> for Mode {
    fn from(config: OverlayConfig) -> Self {
        Self::Overlay(config)
    }
}

impl From<NoneConfig> for Mode {
    fn from(config: NoneConfig) -> Self {
        Self::None(config)
    }
}

impl From<HostConfig> for Mode {
    fn from(config: HostConfig) -> Self {
        Self::Host(config)
    }
}

impl From<ContainerConfig> for Mode {
    fn from(config: ContainerConfig) -> Self {
        Self::Container(config)
    }
}

/// The settings of a bridge network: the reference `bridge` plugin's keys with the same meaning
/// and defaults, and a few of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BridgeConfig {
    /// The bridge's interface name; `cni0` when absent.
    pub bridge: Option<InterfaceName>,
    /// The bridge carries the gateway addresses, and the host forwards.
    pub is_gateway: bool,
    /// As `is_gateway`, and containers get a default route by it.
    pub is_default_gateway: bool,
    /// An address on the bridge that contradicts the configuration is replaced instead of refused.
    pub force_address: bool,
    /// Traffic that leaves the host gets the host's address.
    pub ip_masq: bool,
    /// Which firewall does that: `nftables`, `iptables`, or ours to choose when absent.
    pub ip_masq_backend: Option<String>,
    /// As `ip_masq_backend`, for all that the firewall does; beats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall_backend: Option<String>,
    /// Who reaches the containers; everybody when absent. Of this and `ingress_policy` the stricter
    /// holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The reference `firewall` plugin's key: `same-bridge` is `isolation` from other networks,
    /// `isolated` that and `port_isolation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_policy: Option<IngressPolicy>,
    /// There is no way out of the network, nor into it: containers reach each other and the host.
    /// They get no default route, and no ports are published.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// MTU of the container's link in bytes; 0 takes the kernel's default.
    pub mtu: u32,
    /// A frame may leave by the bridge port it came in on, so that a container reaches its own
    /// published ports.
    pub hairpin_mode: bool,
    /// The bridge is promiscuous. Excludes `hairpin_mode`.
    pub promisc_mode: bool,
    /// Containers of the bridge cannot reach one another, only the host and beyond.
    pub port_isolation: bool,
    /// The VLAN the containers are in, and the gateway with them; 0 for none.
    pub vlan: u16,
    /// VLANs that containers send and get with their tags. Excludes `vlan`.
    pub vlan_trunk: Vec<VlanTrunk>,
    /// Containers in `vlan` or `vlan_trunk` stay in the VLAN the bridge gives every port as well;
    /// they do when absent.
    pub preserve_default_vlan: Option<bool>,
    /// A container may send only from its own MAC address.
    #[serde(rename = "macspoofchk")]
    pub mac_spoof_check: bool,
    /// A container may send only from its own IP addresses, ARP and neighbour discovery included.
    #[serde(rename = "ipspoofchk")]
    pub ip_spoof_check: bool,
    /// The container's interface is left down, without addresses.
    pub disable_container_interface: bool,
    /// IPv6 addresses go through duplicate address detection (RFC 4862).
    #[serde(rename = "enabledad")]
    pub enable_dad: bool,
    /// The container's MAC address.
    pub mac: Option<Mac>,
    /// The bridge is removed with its last attachment, if we made it.
    pub remove_empty_bridge: bool,
}

impl BridgeConfig {
    /// Whether the bridge is the containers' gateway.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        self.is_gateway || self.is_default_gateway
    }

    /// Who reaches the containers.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        let asked = self.isolation.unwrap_or_default();
        asked.max(self.ingress_policy.unwrap_or_default().isolation())
    }

    /// Whether containers of the bridge cannot reach one another.
    #[must_use]
    pub fn isolates_ports(&self) -> bool {
        self.port_isolation || self.ingress_policy == Some(IngressPolicy::Isolated)
    }

    /// The firewall that was asked for, and the key it was asked for by.
    #[must_use]
    pub fn backend(&self) -> Option<(&'static str, &str)> {
        let keys = [("firewallBackend", &self.firewall_backend), ("ipMasqBackend", &self.ip_masq_backend)];
        let mut named = keys.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        named.find(|(_, value)| !value.is_empty())
    }

    /// The bridge's interface name.
    #[must_use]
    pub fn bridge(&self) -> InterfaceName {
        self.bridge.clone().unwrap_or_else(InterfaceName::default_bridge)
    }
}

/// Some VLANs of a trunk: one, or all from one to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VlanTrunk {
    /// A single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
    /// The first of several.
    #[serde(rename = "minID", skip_serializing_if = "Option::is_none")]
    pub min_id: Option<u16>,
    /// The last of several.
    #[serde(rename = "maxID", skip_serializing_if = "Option::is_none")]
    pub max_id: Option<u16>,
}

/// The settings of `none`: there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoneConfig {}

/// The settings of `host`: there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostConfig {}

/// The settings of `container`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Whose namespace is shared, unless an attachment asks for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Target>,
}
