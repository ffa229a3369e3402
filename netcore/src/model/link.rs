//! Network interfaces, as values: those we make, and those of others as far as they are looked at.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{InterfaceName, Mac, Macvlan, Mark, Place, PortVlans, Vlan, Vlans, Wireguard};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Where it is.
    pub place: Place,
    /// Its name.
    pub name: InterfaceName,
    /// What it is.
    #[serde(flatten)]
    pub kind: LinkKind,
    /// Our mark, kept as the interface's alias (`IFLA_IFALIAS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Its MAC address; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its MTU in bytes; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// The bridge it is a port of, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// What kind of interface a link is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "link", rename_all = "lowercase")]
pub enum LinkKind {
    /// The host's end of a pair whose other end is in the sandbox.
    Veth(Veth),
    /// A bridge.
    Bridge(Bridge),
    /// A link with a MAC address of its own on another one.
    Macvlan(Macvlan),
    /// One VLAN of another link (802.1Q).
    Vlan(Vlan),
    /// A tunnel to other nodes.
    Vxlan(Vxlan),
    /// An encrypted tunnel to other nodes.
    Wireguard(Wireguard),
    /// `lo`.
    Loopback,
    /// Something else, seen but never made by us; its kind as the kernel names it.
    Other {
        /// `IFLA_INFO_KIND`, or empty for hardware.
        name: String,
    },
}

/// The sandbox's end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veth {
    /// The name inside the sandbox.
    pub peer: InterfaceName,
    /// Its MAC address; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_mac: Option<Mac>,
    /// Its MTU in bytes; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_mtu: Option<u32>,
    /// Whether it is up.
    pub peer_up: bool,
    /// Whether it is born without duplicate address detection, so that its own link-local address
    /// can be used at once. Not looked at later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peer_skips_dad: bool,
}

/// What a bridge has beside what every link has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Promiscuous mode (`IFF_PROMISC`); either when `false`.
    #[serde(default)]
    pub promiscuous: bool,
    /// Ports hear only the VLANs they are in (`IFLA_BR_VLAN_FILTERING`); either when `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_filtering: bool,
    /// VLANs that the host itself is in by the bridge; it may be in others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<Vlans>,
}

/// What a VXLAN tunnel has beside what every link has (`IFLA_VXLAN_*`, linux/if_link.h). It never
/// learns: where a MAC address is, is said by a [`FdbEntry`](super::FdbEntry).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vxlan {
    /// The network's number in the tunnel.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The address of this host that packets leave from; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Whether it learns addresses from the packets it sees; never wanted.
    #[serde(default)]
    pub learning: bool,
}

/// How a link is a port of a bridge (`IFLA_BRPORT_*`, linux/if_link.h).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The bridge.
    pub bridge: InterfaceName,
    /// Frames may leave by the port they came in on (`IFLA_BRPORT_MODE`).
    #[serde(default)]
    pub hairpin: bool,
    /// No frames to or from other isolated ports (`IFLA_BRPORT_ISOLATED`).
    #[serde(default)]
    pub isolated: bool,
    /// The VLANs it is in; those the bridge gives it when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlans: Option<PortVlans>,
}

impl LinkKind {
    /// The kind as the kernel names it (`IFLA_INFO_KIND`).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Veth(_) => "veth",
            Self::Bridge(_) => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::Vlan(_) => "vlan",
            Self::Vxlan(_) => "vxlan",
            Self::Wireguard(_) => "wireguard",
            Self::Loopback => "loopback",
            Self::Other { name } => name,
        }
    }
}
