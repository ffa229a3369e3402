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
    Admission, Backend, Barrier, Binding, Check, ForwardPort, InterfaceName, Iptables, Mac, Macvlan, Mark, PortVlans,
    Protocol, PublicKey, Source, Table, Variant, Vlan, Vlans, Wireguard, WireguardPeer, ZoneBinding,
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
/// learns: where a MAC address is, is said by a [`FdbEntry`].
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

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where the interface is.
    pub place: Place,
    /// The interface.
    pub link: InterfaceName,
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// Whether an IPv6 address goes through duplicate address detection before it is used
    /// (the opposite of `IFA_F_NODAD`).
    #[serde(default)]
    pub dad: bool,
    /// What becomes of other addresses on the interface.
    #[serde(default)]
    pub rivals: Rivals,
}

/// What becomes of addresses on the same interface that contradict a wanted one: any other IPv4
/// address, or an IPv6 one of an overlapping subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rivals {
    /// They stay.
    #[default]
    Allow,
    /// They are an error.
    Refuse,
    /// They are removed.
    Replace,
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

/// What the firewall does for us. One of these is one element of a set or map of our table, or
/// the table itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "nat", rename_all = "lowercase")]
pub enum NatRule {
    /// A table with its chains, rules and empty sets.
    Ruleset {
        /// Which of the two.
        #[serde(default, skip_serializing_if = "Table::is_inet")]
        table: Table,
        /// What is missing or altered of it; empty when wanted, and when intact.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        damage: Vec<String>,
    },
    /// A bridge of ours: traffic between our bridges is not masqueraded, and loopback publishing
    /// may leave by it.
    Member {
        /// The bridge.
        bridge: InterfaceName,
        /// Whose it is.
        mark: Mark,
    },
    /// What comes by the one link and leaves by the other stays within a network, and passes every
    /// barrier.
    Within {
        /// Where it comes from.
        from: InterfaceName,
        /// Where it goes.
        to: InterfaceName,
        /// Whose it is.
        mark: Mark,
    },
    /// A bridge is kept from somebody.
    Barrier {
        /// The bridge.
        bridge: InterfaceName,
        /// From whom.
        barrier: Barrier,
        /// Whose it is; several networks may share a bridge.
        mark: Mark,
    },
    /// Published traffic that comes from the subnet it goes to gets the host's address, so that
    /// the answer comes back through the host.
    Hairpin {
        /// The subnet.
        subnet: IpNetwork,
        /// Whose it is.
        mark: Mark,
    },
    /// Traffic within this range, which several hosts share, is not masqueraded.
    Cluster {
        /// The range.
        range: IpNetwork,
        /// Whose it is.
        mark: Mark,
    },
    /// Traffic from this address that leaves the host gets the host's address.
    Masquerade {
        /// The container's address.
        source: IpAddr,
        /// Whose it is.
        mark: Mark,
    },
    /// Traffic to this port of the host goes to a container.
    Publish {
        /// The one host address; every address of the family of `to` when `None`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_address: Option<IpAddr>,
        /// The protocol.
        protocol: Protocol,
        /// The host's port.
        host_port: u16,
        /// The container's address and port.
        to: SocketAddr,
        /// Whose it is.
        mark: Mark,
    },
    /// What this bridge port sends is dropped, unless it comes from a source that is let pass.
    Guard {
        /// The port.
        port: InterfaceName,
        /// What is looked at.
        check: Check,
        /// Whose it is.
        mark: Mark,
    },
    /// This bridge port may send from there.
    Source {
        /// The port.
        port: InterfaceName,
        /// What is let pass.
        source: Source,
        /// Whose it is.
        mark: Mark,
    },
}

impl NatRule {
    /// What identifies the rule among those of one firewall.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Ruleset { table, .. } => Key::Ruleset(*table),
            Self::Member { bridge, .. } => Key::Member(bridge.clone()),
            Self::Within { from, to, .. } => Key::Within(from.clone(), to.clone()),
            Self::Barrier { bridge, barrier, .. } => Key::Barrier(bridge.clone(), *barrier),
            Self::Hairpin { subnet, .. } => Key::Hairpin(*subnet),
            Self::Cluster { range, .. } => Key::Cluster(*range),
            Self::Masquerade { source, .. } => Key::Masquerade(*source),
            Self::Publish { host_address, protocol, host_port, to, .. } => {
                Key::Publish(*host_address, to.is_ipv6(), *protocol, *host_port)
            }
            Self::Guard { port, check, .. } => Key::Guard(port.clone(), *check),
            Self::Source { port, source, .. } => Key::Source(port.clone(), *source),
        }
    }

    /// Whether networks have it in common: it does its work whoever's mark it carries.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Member { .. }
                | Self::Within { .. }
                | Self::Barrier { .. }
                | Self::Hairpin { .. }
                | Self::Cluster { .. }
        )
    }

    /// The mark on the element; the table itself has none.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        match self {
            Self::Ruleset { .. } => None,
            Self::Member { mark, .. }
            | Self::Within { mark, .. }
            | Self::Barrier { mark, .. }
            | Self::Hairpin { mark, .. }
            | Self::Cluster { mark, .. }
            | Self::Masquerade { mark, .. }
            | Self::Publish { mark, .. }
            | Self::Guard { mark, .. }
            | Self::Source { mark, .. } => Some(mark),
        }
    }
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

impl fmt::Display for NatRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ruleset { table, .. } => write!(f, "firewall table {table}"),
            Self::Member { bridge, .. } => write!(f, "firewall member {bridge}"),
            Self::Within { from, to, .. } if from == to => write!(f, "traffic within {from}"),
            Self::Within { from, to, .. } => write!(f, "traffic from {from} to {to}"),
            Self::Barrier { bridge, barrier, .. } => write!(f, "{barrier} of {bridge}"),
            Self::Hairpin { subnet, .. } => write!(f, "hairpin {subnet}"),
            Self::Cluster { range, .. } => write!(f, "cluster {range}"),
            Self::Masquerade { source, .. } => write!(f, "masquerade {source}"),
            Self::Publish { host_address, protocol, host_port, to, .. } => {
                f.write_str("publish ")?;
                if let Some(address) = host_address {
                    write!(f, "{} → {to}/{protocol}", SocketAddr::new(*address, *host_port))
                } else {
                    write!(f, "{host_port}/{protocol} → {to}")
                }
            }
            Self::Guard { port, check, .. } => write!(f, "{check} check of {port}"),
            Self::Source { port, source, .. } => write!(f, "source {source} of {port}"),
        }
    }
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
