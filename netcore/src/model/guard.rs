//! What a bridge port may send: which of our firewall tables watches it, what is looked at, and
//! the sources that are let pass.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Mac;

/// One of our two nftables tables, both called `netcore`, by its family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Published ports and masquerade.
    #[default]
    Inet,
    /// What containers may send.
    Bridge,
}

impl Table {
    /// Whether this is the table there has always been, which needs no mention.
    pub(super) fn is_inet(&self) -> bool {
        *self == Self::Inet
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet netcore",
            Self::Bridge => "bridge netcore",
        })
    }
}

/// What is looked at of what a port sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The MAC address a frame comes from, also as ARP tells it.
    Mac,
    /// The IP address a packet comes from, also as ARP and neighbour discovery tell it.
    Address,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac => "MAC",
            Self::Address => "address",
        })
    }
}

/// Where something that is let pass comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// This MAC address.
    Mac(Mac),
    /// This IP address.
    Address(IpAddr),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The link-local address that Linux gives an interface with this MAC address, unless it is told
/// otherwise (RFC 4291, appendix A).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_the_kernels() {
        let mac = "0a:58:0a:14:00:02".parse().unwrap();
        assert_eq!(link_local(mac).to_string(), "fe80::858:aff:fe14:2");
    }
}
