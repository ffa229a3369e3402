//! What the firewall does for us, whichever firewall it is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Barrier, Check, InterfaceName, Key, Mark, Protocol, Source, Table};

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
