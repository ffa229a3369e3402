//! The answer to ADD (CNI spec 1.1.0, "ADD Success"), in every version's shape. Inside, there is
//! one: the latest. From 0.3.0 on versions differ by fields only; what came before them is
//! another [shape](legacy) altogether.

mod legacy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use netcore::engine::Attached;
use netcore::model::{Dns, InterfaceName, Mac, Mode, RouteSpec};
use netcore::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decode::decode;
use crate::document::unknown_version;
use crate::failure::{Failure, UNDECODABLE};
use crate::versions::Version;

/// What an attachment got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Success {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ips: Vec<Ip>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RouteSpec>,
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub(crate) dns: Dns,
}

/// An interface; other plugins' may have MAC addresses and names that ours may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    /// In bytes; since 1.1.0, like the two at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// The container's namespace; empty on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) socket_path: String,
    #[serde(rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub(crate) pci_id: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ip {
    /// `"4"` or `"6"`, until 0.4.0. Written, never read: the address says the same.
    #[serde(rename = "version", skip_serializing_if = "Option::is_none", skip_deserializing)]
    family: Option<&'static str>,
    /// Which of the interfaces it is on. Negative for "none", which some plugins write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<i64>,
    pub(crate) address: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
}

impl Ip {
    pub(crate) fn new(address: IpNetwork, gateway: Option<IpAddr>, interface: Option<i64>) -> Self {
        Self { family: None, interface, address, gateway }
    }
}

impl Success {
    /// What `attached` is to the runtime.
    pub(crate) fn of(attached: Attached, mode: &Mode) -> Self {
        let is_loopback = matches!(mode, Mode::None(_));
        let told: Vec<_> =
            attached.interfaces.iter().map(|interface| (interface.name.clone(), interface.addresses.clone())).collect();
        let interfaces = attached.interfaces.into_iter().map(|interface| Interface {
            name: interface.name.to_string(),
            mac: match interface.mac {
                // The loopback interface has one that no other may have.
                None if is_loopback => Mac([0; 6]).to_string(),
                mac => mac.map(|mac| mac.to_string()).unwrap_or_default(),
            },
            mtu: interface.mtu,
            sandbox: interface.sandbox.map(path_text).unwrap_or_default(),
            ..Interface::default()
        });
        let interfaces: Vec<_> = interfaces.collect();
        let own = if is_loopback { "lo" } else { attached.id.interface.as_str() };
        let inside = interfaces.iter().position(|interface| !interface.sandbox.is_empty() && interface.name == own);
        let inside = inside.and_then(|position| i64::try_from(position).ok());
        let mut ips: Vec<_> =
            attached.addresses.into_iter().map(|leased| Ip::new(leased.address, leased.gateway, inside)).collect();
        ips.extend(shared(&told, attached.id.interface.as_str()));
        if is_loopback {
            // The kernel gives these to every loopback interface that is up.
            let v4 = IpNetwork::new(Ipv4Addr::LOCALHOST.into(), 8);
            let v6 = IpNetwork::new(Ipv6Addr::LOCALHOST.into(), 128);
            ips.extend([v4, v6].into_iter().flatten().map(|address| Ip::new(address, None, inside)));
        }
        Self { interfaces, ips, routes: attached.routes, dns: attached.dns }
    }

    /// What a chain got so far, with `own` added behind it.
    #[must_use]
    pub(crate) fn followed_by(mut self, own: Self) -> Self {
        let shift = i64::try_from(self.interfaces.len()).unwrap_or_default();
        self.interfaces.extend(own.interfaces);
        self.ips.extend(
            own.ips.into_iter().map(|ip| Ip { interface: ip.interface.map(|interface| interface + shift), ..ip }),
        );
        self.routes.extend(own.routes);
        self.dns.domain = self.dns.domain.or(own.dns.domain);
        add_new(&mut self.dns.nameservers, own.dns.nameservers);
        add_new(&mut self.dns.search, own.dns.search);
        add_new(&mut self.dns.options, own.dns.options);
        self
    }

    /// The container's interface `name`, as the last plugin of the chain left it.
    pub(crate) fn sandbox_interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().rfind(|interface| !interface.sandbox.is_empty() && interface.name == name)
    }

    /// Reads a result in any version's shape: its own, or `version` when it names none. `at` is
    /// how messages call it.
    ///
    /// # Errors
    /// A [`Failure`] of code 1 for a version we do not speak, 6 when the version is no text, 7
    /// when another field is not what it should be.
    pub(crate) fn parse(at: &str, value: &Value, version: Version) -> Result<Self, Failure> {
        let field = format!("{at}.cniVersion");
        let version = match value.get("cniVersion") {
            None => version,
            Some(Value::String(text)) if text.is_empty() => version,
            Some(Value::String(text)) => Version::parse(text).ok_or_else(|| unknown_version(&field, text))?,
            Some(_) => return Err(Failure::new(UNDECODABLE, format!("{field}: not a string like \"1.1.0\""))),
        };
        if version < Version::V0_3_0 {
            return Ok(decode::<legacy::Success>(at, value)?.into());
        }
        Ok(decode(at, value)?)
    }

    /// The result in the shape of `version`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when that shape cannot say it: until 0.2.0 there must be an address.
    pub(crate) fn to_json(&self, version: Version) -> Result<String> {
        let text = if version < Version::V0_3_0 {
            serde_json::to_string(&Versioned { version, success: &legacy::Success::of(self, version)? })
        } else {
            serde_json::to_string(&Versioned { version, success: &self.limited_to(version) })
        };
        text.map_err(|error| Error::invalid("result", error, "writable as JSON"))
    }

    /// Without what `version` does not know, and with what it insists on.
    fn limited_to(&self, version: Version) -> Self {
        let mut limited = self.clone();
        for ip in &mut limited.ips {
            let family = if ip.address.is_ipv4() { "4" } else { "6" };
            ip.family = (version < Version::V1_0_0).then_some(family);
        }
        if version < Version::V1_1_0 {
            for interface in &mut limited.interfaces {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, String::new(), String::new());
            }
            for route in &mut limited.routes {
                *route = RouteSpec { gw: route.gw, ..RouteSpec::to(route.dst) };
            }
        }
        limited
    }
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    #[serde(rename = "cniVersion")]
    version: Version,
    #[serde(flatten)]
    success: &'a T,
}

fn add_new(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// The addresses of the interfaces of a shared namespace. Runtimes look for the address of the
/// interface they asked for; where there is none of that name, the first address that leads to the
/// world is told without an interface, which means theirs.
fn shared(interfaces: &[(InterfaceName, Vec<IpNetwork>)], asked: &str) -> Vec<Ip> {
    let is_there = interfaces.iter().any(|(name, addresses)| name.as_str() == asked && !addresses.is_empty());
    let first = interfaces.iter().position(|(_, addresses)| !addresses.is_empty()).filter(|_| !is_there);
    let ips = interfaces.iter().enumerate().flat_map(|(position, (_, addresses))| {
        let interface = i64::try_from(position).ok().filter(|_| first != Some(position));
        addresses.iter().map(move |address| Ip::new(*address, None, interface))
    });
    ips.collect()
}

/// Paths reach us as UTF-8 and stay it.
fn path_text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
