//! What there is in a namespace that a packet may meet: more than the objects we make, and whoever
//! made them.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use super::{Listener, Mac, Protocol, Rules};

/// Everything a packet may meet in one namespace.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Who listens.
    pub listeners: Vec<Listener>,
    /// Neighbours that are known, or known not to answer.
    pub neighbours: Vec<KnownNeighbour>,
    /// Its firewall rules.
    pub rules: Rules,
}

impl Scene {
    /// The interface called `name`.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface with that index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interface that has `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.addresses.iter().any(|own| own.ip() == address))
    }

    /// Whether `address` is the namespace's own.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.is_loopback()) || self.owner(address).is_some()
    }
}

/// A network interface, as a packet sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind it is (`IFLA_INFO_KIND`); empty for hardware.
    pub kind: String,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether there is a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The bridge it is a port of, by index.
    pub bridge: Option<u32>,
    /// Whether that bridge passes frames through it.
    pub forwards: bool,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
}

/// A neighbour the kernel has an opinion on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNeighbour {
    /// Over which interface, by index.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Whether it was set by hand (`NUD_PERMANENT`).
    pub permanent: bool,
    /// Whether it did not answer when it was looked for (`NUD_FAILED`).
    pub failed: bool,
}

/// A question to the routing of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuestion {
    /// Where to.
    pub to: IpAddr,
    /// Where from; the kernel's choice when `None`.
    pub from: Option<IpAddr>,
    /// The index of the interface it came by; none for what the namespace itself sends.
    pub came_by: Option<u32>,
}

/// What routing answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is for this namespace.
    Local,
    /// It leaves by the interface with that index.
    Out {
        /// The index.
        interface: u32,
        /// The next hop, unless the destination is on the link.
        gateway: Option<IpAddr>,
        /// The source address that the kernel would choose.
        source: Option<IpAddr>,
    },
    /// It goes nowhere.
    Refused(Refused),
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No route, one that says so, or a setting that is in the way.
    Unreachable,
    /// A route that forbids it.
    Prohibited,
}

/// A connection that is remembered, and where its packets are sent for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// By which protocol.
    pub protocol: Protocol,
    /// Who began it.
    pub client: SocketAddr,
    /// Whom the client sends to.
    pub asked: SocketAddr,
    /// Who gets it.
    pub answers: SocketAddr,
}
