//! Results until 0.2.0: one address a family, each with its routes, and no interfaces.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netcore::model::{Dns, RouteSpec};
use netcore::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Ip;
use crate::versions::Version;

/// What an attachment got.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Success {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<Address>,
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    dns: Dns,
}

#[derive(Debug, Serialize, Deserialize)]
struct Address {
    ip: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Route {
    dst: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

impl Success {
    /// The first address of each family.
    pub(super) fn of(success: &super::Success, version: Version) -> Result<Self> {
        let first = |v6: bool| {
            let ip = success.ips.iter().find(|ip| ip.address.is_ipv6() == v6)?;
            let routes = success.routes.iter().filter(|route| route.dst.is_ipv6() == v6);
            let routes = routes.map(|route| Route { dst: route.dst, gw: route.gw }).collect();
            Some(Address { ip: ip.address, gateway: ip.gateway, routes })
        };
        let legacy = Self { ip4: first(false), ip6: first(true), dns: success.dns.clone() };
        if legacy.ip4.is_none() && legacy.ip6.is_none() {
            let expected = "a version that can tell a result without an address: 0.3.0 or later";
            return Err(Error::invalid("cniVersion", version, expected));
        }
        Ok(legacy)
    }
}

impl From<Success> for super::Success {
    fn from(legacy: Success) -> Self {
        let mut success = Self { dns: legacy.dns, ..Self::default() };
        for Address { ip, gateway, routes } in [legacy.ip4, legacy.ip6].into_iter().flatten() {
            success.ips.push(Ip::new(ip, gateway, None));
            success.routes.extend(routes.into_iter().map(|Route { dst, gw }| RouteSpec { gw, ..RouteSpec::to(dst) }));
        }
        success
    }
}
