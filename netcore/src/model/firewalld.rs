//! What firewalld is asked for, on a host where it runs: it rejects what it does not know, and
//! nothing we accept changes its mind.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Backend, Barrier, InterfaceName, Mark, NatRule, Object, Protocol};

/// The zone that our bridges' interfaces are bound to. It is a packaged file, as is a policy that
/// lets everything through to it; what is to stay closed is kept off by our own table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneBinding {
    /// The interface.
    pub link: InterfaceName,
    /// The zone it is in until firewalld is reloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The zone it is in from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent: Option<String>,
    /// Whether our own table keeps off it what comes from outside.
    #[serde(default)]
    pub closed: bool,
    /// Where that is done.
    #[serde(default, skip_serializing_if = "Backend::is_nftables")]
    pub backend: Backend,
    /// In which families (IPv6 if `true`), if that makes a difference there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<bool>,
    /// Whose it is; nobody's if it is bound by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

impl ZoneBinding {
    /// The packaged zone (`/usr/lib/firewalld/zones/netcore.xml`).
    pub const ZONE: &'static str = "netcore";

    /// `link` in our zone, now and after a reload.
    #[must_use]
    pub fn of(link: InterfaceName, mark: Mark) -> Self {
        let zone = || Some(Self::ZONE.to_owned());
        let (backend, families) = (Backend::default(), Vec::new());
        Self { link, runtime: zone(), permanent: zone(), closed: true, backend, families, mark: Some(mark) }
    }

    /// What keeps off it what comes from outside.
    #[must_use]
    pub fn barriers(&self) -> Vec<Object> {
        let barrier = NatRule::Barrier { bridge: self.link.clone(), barrier: Barrier::Admitted, mark: Mark::of_host() };
        Object::Nat(barrier).under(self.backend, &self.families)
    }

    /// The zone of somebody else's choice that the interface is in.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&str> {
        [&self.runtime, &self.permanent].into_iter().flatten().map(String::as_str).find(|zone| *zone != Self::ZONE)
    }
}

impl fmt::Display for ZoneBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "firewalld zone {} of {}", Self::ZONE, self.link)
    }
}

/// A published port as a forward-port of firewalld. Where `StrictForwardPorts` is set it lets
/// through no other, by whomever they are translated; elsewhere there is nothing to ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardPort {
    /// The address of the host that it is on. firewalld translates what containers send there, as
    /// we do before it; what it lets through it goes by the port alone.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The host's port.
    pub host_port: u16,
    /// The container's address and port.
    pub to: SocketAddr,
    /// Whose it is.
    pub mark: Mark,
}

impl fmt::Display for ForwardPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "firewalld forward-port {}/{} → {}", self.host_port, self.protocol, self.to)
    }
}
