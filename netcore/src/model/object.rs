//! The kernel objects an attachment stands on, as values. Each kind says what identifies one of
//! its objects ([`Object::key`]) and in which order kinds are made ([`Phase`]); the rest is what
//! it should look like. The same values say what is wanted, what was seen, and what a plan does.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{
    Address, Admission, Backend, Barrier, Binding, Check, FdbEntry, ForwardPort, InterfaceName, Iptables, Link,
    LinkKind, Mac, Mark, NatRule, Neighbour, Protocol, PublicKey, Route, Source, Table, Variant, WireguardPeer,
    ZoneBinding,
};

/// Which of the two network namespaces an object lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The host's: the one the caller is in.
    Host,
    /// The container's.
    Sandbox,
}

/// Anything the kernel should hold for an attachment or for its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Object {
    /// A namespace file that is bound to a shared namespace.
    Binding(Binding),
    /// A network interface.
    Link(Link),
    /// An address on an interface.
    Address(Address),
    /// Whose MAC address an IP address has.
    Neighbour(Neighbour),
    /// Behind which node a MAC address is.
    Fdb(FdbEntry),
    /// Somebody at the other end of an encrypted tunnel.
    WireguardPeer(WireguardPeer),
    /// A route.
    Route(Route),
    /// A kernel setting.
    Sysctl(Sysctl),
    /// Something the firewall does for us.
    Nat(NatRule),
    /// The same, where iptables is what does it.
    Iptables(Iptables),
    /// What iptables' `FORWARD` lets pass for us.
    Admission(Admission),
    /// An interface's zone in firewalld.
    Zone(ZoneBinding),
    /// A published port in firewalld.
    ForwardPort(ForwardPort),
}

/// The order in which kinds of objects are made; removal runs it backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Which namespace the sandbox is.
    Namespaces,
    /// Interfaces.
    Links,
    /// Their addresses.
    Addresses,
    /// Routes over them, and the neighbours they lead to.
    Routes,
    /// Settings.
    Sysctls,
    /// The firewall, in one transaction.
    Firewall,
    /// What firewalld is asked for.
    Firewalld,
}

/// What identifies an object: two objects with the same key are the same one, perhaps in
/// different states.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A bound namespace file, by its path.
    Binding(PathBuf),
    /// An interface, by name.
    Link(Place, InterfaceName),
    /// An address on an interface.
    Address(Place, InterfaceName, IpNetwork),
    /// A route: interface, destination, table and metric. Two attachments of one container may
    /// each have a default route, by their own interface.
    Route(Place, InterfaceName, IpNetwork, u32, u32),
    /// A neighbour, by interface and IP address.
    Neighbour(Place, InterfaceName, IpAddr),
    /// A forwarding entry, by interface and MAC address.
    Fdb(Place, InterfaceName, Mac),
    /// A peer, by interface and public key.
    WireguardPeer(Place, InterfaceName, PublicKey),
    /// A setting, by its dotted name.
    Sysctl(Place, String),
    /// A table with its chains, rules and empty sets.
    Ruleset(Table),
    /// An element of the set of our bridges.
    Member(InterfaceName),
    /// An element of the set of pairs of links within one network.
    Within(InterfaceName, InterfaceName),
    /// An element of the set of the bridges behind a barrier.
    Barrier(InterfaceName, Barrier),
    /// An element of the set of hairpin subnets.
    Hairpin(IpNetwork),
    /// An element of the set of cluster ranges.
    Cluster(IpNetwork),
    /// An element of the set of masqueraded addresses.
    Masquerade(IpAddr),
    /// A published port: the host address, if one, the family, protocol and port.
    Publish(Option<IpAddr>, bool, Protocol, u16),
    /// An element of the set of ports of which something is checked.
    Guard(InterfaceName, Check),
    /// A source that is let pass at a checked port.
    Source(InterfaceName, Source),
    /// One of these as iptables has it, for IPv4 or IPv6.
    Iptables(Variant, bool, Box<Key>),
    /// A link that is let pass, for IPv4 or IPv6; or what comes to it from a range.
    Admission(InterfaceName, bool, Option<IpNetwork>),
    /// An interface in firewalld.
    Zone(InterfaceName),
    /// A published port in firewalld.
    ForwardPort(IpAddr, Protocol, u16, SocketAddr),
}

impl Object {
    /// What identifies this object.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Binding(binding) => Key::Binding(binding.path.clone()),
            Self::Link(link) => Key::Link(link.place, link.name.clone()),
            Self::Address(address) => Key::Address(address.place, address.link.clone(), address.address),
            Self::Route(route) => Key::Route(
                route.place,
                route.link.clone(),
                route.destination,
                route.table.unwrap_or(Route::MAIN_TABLE),
                route.effective_metric(),
            ),
            Self::Neighbour(neighbour) => Key::Neighbour(neighbour.place, neighbour.link.clone(), neighbour.address),
            Self::Fdb(entry) => Key::Fdb(entry.place, entry.link.clone(), entry.mac),
            Self::WireguardPeer(peer) => Key::WireguardPeer(peer.place, peer.link.clone(), peer.key),
            Self::Sysctl(sysctl) => Key::Sysctl(sysctl.place, sysctl.name.clone()),
            Self::Nat(rule) => rule.key(),
            Self::Iptables(Iptables { variant, v6, rule }) => Key::Iptables(*variant, *v6, Box::new(rule.key())),
            Self::Admission(admission) => Key::Admission(admission.link.clone(), admission.v6, admission.from),
            Self::Zone(binding) => Key::Zone(binding.link.clone()),
            Self::ForwardPort(port) => Key::ForwardPort(port.destination, port.protocol, port.host_port, port.to),
        }
    }

    /// When this object is made.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Binding(_) => Phase::Namespaces,
            Self::Link(_) => Phase::Links,
            Self::Address(_) => Phase::Addresses,
            Self::Neighbour(_) | Self::Fdb(_) | Self::WireguardPeer(_) | Self::Route(_) => Phase::Routes,
            Self::Sysctl(_) => Phase::Sysctls,
            Self::Nat(_) | Self::Iptables(_) | Self::Admission(_) => Phase::Firewall,
            Self::Zone(_) | Self::ForwardPort(_) => Phase::Firewalld,
        }
    }

    /// Which namespace the object lives in; the firewall's are the host's.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Link(link) => Some(link.place),
            Self::Address(address) => Some(address.place),
            Self::Neighbour(neighbour) => Some(neighbour.place),
            Self::Fdb(entry) => Some(entry.place),
            Self::WireguardPeer(peer) => Some(peer.place),
            Self::Route(route) => Some(route.place),
            Self::Sysctl(sysctl) => Some(sysctl.place),
            Self::Binding(_)
            | Self::Nat(_)
            | Self::Iptables(_)
            | Self::Admission(_)
            | Self::Zone(_)
            | Self::ForwardPort(_) => None,
        }
    }

    /// What the firewall does for us by this object, whichever firewall it is.
    #[must_use]
    pub fn rule(&self) -> Option<&NatRule> {
        match self {
            Self::Nat(rule) | Self::Iptables(Iptables { rule, .. }) => Some(rule),
            _ => None,
        }
    }

    /// This object where `backend` is the firewall, in the families it is needed for. What
    /// containers may send is checked in bridges, which iptables does not see: that stays where
    /// it is.
    #[must_use]
    pub fn under(self, backend: Backend, families: &[bool]) -> Vec<Self> {
        if let Self::Zone(binding) = self {
            let families = if backend.is_nftables() { Vec::new() } else { families.to_vec() };
            return vec![Self::Zone(ZoneBinding { backend, families, ..binding })];
        }
        let (Backend::Iptables(variant), Self::Nat(rule)) = (backend, &self) else { return vec![self] };
        let of = |v6: bool| Self::Iptables(Iptables { variant, v6, rule: rule.clone() });
        match rule {
            NatRule::Guard { .. } | NatRule::Source { .. } | NatRule::Ruleset { table: Table::Bridge, .. } => {
                vec![self]
            }
            NatRule::Ruleset { .. } | NatRule::Member { .. } | NatRule::Within { .. } | NatRule::Barrier { .. } => {
                families.iter().map(|v6| of(*v6)).collect()
            }
            NatRule::Hairpin { subnet: range, .. } | NatRule::Cluster { range, .. } => vec![of(range.is_ipv6())],
            NatRule::Masquerade { source, .. } => vec![of(source.is_ipv6())],
            NatRule::Publish { to, .. } => vec![of(to.is_ipv6())],
        }
    }

    /// Whether the object is in the sandbox, or has an end there.
    #[must_use]
    pub fn reaches_into_sandbox(&self) -> bool {
        matches!(self, Self::Link(Link { kind: LinkKind::Veth(_), .. })) || self.place() == Some(Place::Sandbox)
    }

    /// The mark the object carries, if it carries one.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Link(link) => link.mark.as_ref(),
            Self::Nat(rule) | Self::Iptables(Iptables { rule, .. }) => rule.mark(),
            Self::Admission(admission) => Some(&admission.mark),
            Self::Zone(binding) => binding.mark.as_ref(),
            Self::ForwardPort(port) => Some(&port.mark),
            Self::Binding(_)
            | Self::Address(_)
            | Self::Neighbour(_)
            | Self::Fdb(_)
            | Self::WireguardPeer(_)
            | Self::Route(_)
            | Self::Sysctl(_) => None,
        }
    }
}

/// A setting under `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// In whose namespace.
    pub place: Place,
    /// The path below `/proc/sys` (`net/ipv4/ip_forward`): slashes, since interface names may
    /// contain dots.
    pub name: String,
    /// Its value, without the newline.
    pub value: String,
}

/// What was seen of the kernel: the objects that were looked for and are there, and those in
/// their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct State(pub Vec<Object>);

impl State {
    /// The objects by what identifies them, for more than a few look-ups.
    #[must_use]
    pub fn by_key(&self) -> HashMap<Key, &Object> {
        self.0.iter().map(|object| (object.key(), object)).collect()
    }

    /// The interface `name` in `place`, as it was seen.
    #[must_use]
    pub fn link(&self, place: Place, name: &InterfaceName) -> Option<&Link> {
        self.0.iter().find_map(|object| match object {
            Object::Link(link) if link.place == place && link.name == *name => Some(link),
            _ => None,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host",
            Self::Sandbox => "container",
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(binding) => binding.fmt(f),
            Self::Link(Link { name, kind: LinkKind::Veth(veth), .. }) => write!(f, "link {name} ↔ {}", veth.peer),
            Self::Link(Link { name, kind: LinkKind::Bridge(_), .. }) => write!(f, "bridge {name}"),
            Self::Link(Link { place, name, kind: LinkKind::Macvlan(macvlan), .. }) => {
                write!(f, "link {name} ({place}) on {}", macvlan.parent)
            }
            Self::Link(Link { name, kind: LinkKind::Vlan(vlan), .. }) => {
                write!(f, "VLAN {} of {} as {name}", vlan.id, vlan.parent)
            }
            Self::Link(Link { name, kind: LinkKind::Vxlan(vxlan), .. }) => {
                write!(f, "vxlan {name} (VNI {})", vxlan.vni)
            }
            Self::Link(Link { name, kind: LinkKind::Wireguard(wireguard), .. }) => {
                write!(f, "wireguard {name} (UDP port {})", wireguard.port)
            }
            Self::Link(Link { place, name, .. }) => write!(f, "link {name} ({place})"),
            Self::Address(Address { place, link, address, .. }) => write!(f, "address {address} on {link} ({place})"),
            Self::Route(route) => {
                write!(f, "route {}", route.destination)?;
                if let Some(gateway) = route.gateway {
                    write!(f, " via {gateway}")?;
                }
                write!(f, " dev {} ({})", route.link, route.place)
            }
            Self::Neighbour(Neighbour { place, link, address, .. }) => {
                write!(f, "neighbour {address} dev {link} ({place})")
            }
            Self::Fdb(FdbEntry { place, link, mac, to }) => write!(f, "fdb {mac} dev {link} dst {to} ({place})"),
            Self::WireguardPeer(peer) => peer.fmt(f),
            Self::Sysctl(sysctl) => write!(f, "sysctl {} ({})", sysctl.name.replace('/', "."), sysctl.place),
            Self::Nat(rule) => rule.fmt(f),
            Self::Iptables(rule) => rule.fmt(f),
            Self::Admission(admission) => admission.fmt(f),
            Self::Zone(binding) => binding.fmt(f),
            Self::ForwardPort(port) => port.fmt(f),
        }
    }
}
