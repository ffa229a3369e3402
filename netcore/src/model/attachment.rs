//! One container's wish to be on a network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{AttachmentId, Mac, Target};

/// What is asked for: which container joins, where, and with which wishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Whose interface this is.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// The container's network namespace as a path (`/run/netns/NAME`, `/proc/PID/ns/net`).
    /// `None` when it is gone already, which only a detach accepts.
    pub netns: Option<PathBuf>,
    /// Host ports that lead to this container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortMapping>,
    /// Addresses asked for instead of the next free ones. The prefix length of a bare address
    /// (`/32`, `/128`) is taken from the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNetwork>,
    /// The MAC address asked for; otherwise one is derived from the first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Further names the container goes by on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What the runtime says about the container (pod name and namespace, for instance).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose namespace to share, instead of the network's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Target>,
}

impl Attachment {
    /// An attachment without wishes.
    #[must_use]
    pub fn new(id: AttachmentId, netns: Option<PathBuf>) -> Self {
        Self {
            id,
            netns,
            publish: Vec::new(),
            addresses: Vec::new(),
            mac: None,
            aliases: Vec::new(),
            labels: BTreeMap::new(),
            join: None,
        }
    }

    /// Publishes `container_port` on `host_port` of every host address, over TCP.
    #[must_use]
    pub fn publish(self, host_port: u16, container_port: u16) -> Self {
        self.publish_mapping(PortMapping::tcp(host_port, container_port))
    }

    /// Publishes as `mapping` says.
    #[must_use]
    pub fn publish_mapping(mut self, mapping: PortMapping) -> Self {
        self.publish.push(mapping);
        self
    }

    /// Asks for `address` instead of the next free one.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Asks for `mac`.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Asks for the namespace of `target`, on a network that shares namespaces.
    #[must_use]
    pub fn join(mut self, target: Target) -> Self {
        self.join = Some(target);
        self
    }
}

/// A transport protocol that has ports and that a port can be published for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The protocol number (IANA "Protocol Numbers").
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A protocol name that is none of [`Protocol`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a protocol with ports: tcp, udp or sctp")]
pub struct InvalidProtocol(pub String);

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(InvalidProtocol(text.to_owned())),
        }
    }
}

/// A published port, or a run of them: `count` ports from `host_port` on lead to as many from
/// `container_port` on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The first port on the host, 1 to 65535.
    pub host_port: u16,
    /// The first port in the container, 1 to 65535.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The one host address to publish on; on every address when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// How many consecutive ports, at least 1.
    #[serde(default = "one")]
    pub count: u16,
}

fn one() -> u16 {
    1
}

impl PortMapping {
    /// One TCP port on every host address.
    #[must_use]
    pub fn tcp(host_port: u16, container_port: u16) -> Self {
        Self { host_port, container_port, protocol: Protocol::Tcp, host_address: None, count: 1 }
    }

    /// The `(host, container)` port pairs this stands for.
    pub fn ports(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let (host, container) = (self.host_port, self.container_port);
        (0..self.count).map(move |offset| (host.saturating_add(offset), container.saturating_add(offset)))
    }

    /// The families of the addresses this publishes on, `true` for IPv6: those of the host
    /// address, both when there is none.
    #[must_use]
    pub fn families(&self) -> Vec<bool> {
        match self.host_address {
            Some(address) => vec![address.is_ipv6()],
            None => vec![false, true],
        }
    }

    /// Whether 127.0.0.1 on the host leads to the container.
    #[must_use]
    pub fn reaches_ipv4_loopback(&self) -> bool {
        match self.host_address {
            Some(IpAddr::V4(address)) => address.is_loopback() || address.is_unspecified(),
            Some(IpAddr::V6(_)) => false,
            None => true,
        }
    }

    /// Why this is not a publishable mapping, if it is not: the field, its value, and what
    /// would be accepted.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        if self.host_port == 0 {
            return Some(("hostPort", "0".to_owned(), "a port from 1 to 65535"));
        }
        if self.container_port == 0 {
            return Some(("containerPort", "0".to_owned(), "a port from 1 to 65535"));
        }
        if self.count == 0 {
            return Some(("range", "0".to_owned(), "at least 1 port"));
        }
        let beyond = |first: u16| u32::from(first) + u32::from(self.count) - 1 > u32::from(u16::MAX);
        if beyond(self.host_port) {
            return Some((
                "hostPort",
                format!("{}+{}", self.host_port, self.count),
                "a range that ends at or below 65535",
            ));
        }
        if beyond(self.container_port) {
            return Some((
                "containerPort",
                format!("{}+{}", self.container_port, self.count),
                "a range that ends at or below 65535",
            ));
        }
        None
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        let last = self.count.saturating_sub(1);
        if last == 0 {
            write!(f, "{}→{}/{}", self.host_port, self.container_port, self.protocol)
        } else {
            let (host, container) = (self.host_port, self.container_port);
            write!(f, "{host}-{}→{container}-{}/{}", host + last, container + last, self.protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_leave_the_port_space_are_named() {
        let mapping = PortMapping { count: 10, ..PortMapping::tcp(65530, 80) };
        let (field, value, _) = mapping.fault().unwrap();
        assert_eq!((field, value.as_str()), ("hostPort", "65530+10"));
        assert!(PortMapping { count: 6, ..PortMapping::tcp(65530, 80) }.fault().is_none());
        assert_eq!(PortMapping::tcp(0, 80).fault().unwrap().0, "hostPort");
        assert_eq!(PortMapping::tcp(80, 0).fault().unwrap().0, "containerPort");
    }

    #[test]
    fn a_mapping_reads_like_docker_ps() {
        assert_eq!(PortMapping::tcp(8080, 80).to_string(), "8080→80/tcp");
        let range =
            PortMapping { count: 3, host_address: Some("::1".parse().unwrap()), ..PortMapping::tcp(1000, 2000) };
        assert_eq!(range.to_string(), "[::1]:1000-1002→2000-2002/tcp");
        assert_eq!(range.ports().collect::<Vec<_>>(), [(1000, 2000), (1001, 2001), (1002, 2002)]);
    }
}
