//! Where packets go: routes, and the neighbours and forwarding entries that they lead to.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{InterfaceName, Mac, Place};

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it is.
    pub place: Place,
    /// The interface it leaves by.
    pub link: InterfaceName,
    /// The destination.
    pub destination: IpNetwork,
    /// The next hop; none for what is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The next hop is reached over the link even if no route says so (`RTNH_F_ONLINK`).
    #[serde(default)]
    pub onlink: bool,
    /// The path's MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The advertised TCP segment size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric; the family's default when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The table; main (254) when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope; universe with a gateway and link without one when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// The source address of what the host itself sends (`RTA_PREFSRC`); any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

impl Route {
    /// `RT_TABLE_MAIN` (linux/rtnetlink.h).
    pub const MAIN_TABLE: u32 = 254;

    /// The metric the kernel will report: IPv6 routes without one get 1024
    /// (`IP6_RT_PRIO_USER`), IPv4 routes 0.
    #[must_use]
    pub fn effective_metric(&self) -> u32 {
        match self.metric {
            Some(metric) if metric != 0 || self.destination.is_ipv4() => metric,
            _ if self.destination.is_ipv6() => 1024,
            _ => 0,
        }
    }
}

/// Whose MAC address an IP address has (`NUD_PERMANENT`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Where the interface is.
    pub place: Place,
    /// The interface.
    pub link: InterfaceName,
    /// The IP address.
    pub address: IpAddr,
    /// Its MAC address; none for one that is still looked for.
    pub mac: Option<Mac>,
    /// Whether it stays until it is removed.
    pub permanent: bool,
}

/// Behind which node a MAC address is: an entry of a tunnel's own forwarding table (`NTF_SELF`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// Where the tunnel is.
    pub place: Place,
    /// The tunnel.
    pub link: InterfaceName,
    /// The MAC address.
    pub mac: Mac,
    /// The node's address in the underlay.
    pub to: IpAddr,
}
