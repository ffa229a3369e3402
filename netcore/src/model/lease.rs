//! What was promised to an attachment: by address management, or by whose namespace it shares.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::SharedNamespace;

/// Addresses, routes and name servers for one attachment, or a namespace that has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The addresses, in the order they were asked for.
    #[serde(default)]
    pub addresses: Vec<LeasedAddress>,
    /// Routes the container gets beside that of its subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// What the container's resolver should use.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// The namespace that is shared, in modes that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<SharedNamespace>,
}

impl Lease {
    /// A lease of nothing but a place in `namespace`.
    #[must_use]
    pub fn sharing(namespace: SharedNamespace) -> Self {
        Self { namespace: Some(namespace), ..Self::default() }
    }

    /// Whether there is an IPv6 address in it, or an IPv4 one.
    #[must_use]
    pub fn has(&self, v6: bool) -> bool {
        self.addresses.iter().any(|leased| leased.address.is_ipv6() == v6)
    }
}

/// One address with its prefix length, and the gateway of its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedAddress {
    /// Address and prefix length, `10.20.0.2/24`.
    pub address: IpNetwork,
    /// The subnet's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route as configurations and results write it (CNI spec 1.1.0, "ADD Success").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; the gateway of the address of the same family when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The path's MTU in bytes (`RTAX_MTU`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The advertised TCP segment size in bytes (`RTAX_ADVMSS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric; the lowest wins (`RTA_PRIORITY`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table (`RTA_TABLE`), main when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope (`rtm_scope`): 0 universe, 253 link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl RouteSpec {
    /// A route to `dst` by the default gateway.
    #[must_use]
    pub fn to(dst: IpNetwork) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

/// Resolver settings (CNI spec 1.1.0, "dns"; resolv.conf(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers, the preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search domains for short names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
