//! A node of an overlay, as the other nodes know it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Mac, Name, PublicKey, fingerprint};

/// One node: which part of the cluster's range its containers have, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name, the same for as long as it has its subnets.
    pub node: Name,
    /// Its containers' subnets: at most one of each family.
    pub subnets: Vec<IpNetwork>,
    /// Its address in the network that carries the overlay.
    pub underlay: IpAddr,
    /// The MAC address of its tunnel endpoint.
    pub mac: Mac,
    /// The network's number in the tunnel (RFC 7348, VNI).
    pub vni: u32,
    /// The UDP port it listens on.
    pub port: u16,
    /// Counts up with its registrations: of two that claim the same, the older one has it.
    #[serde(default)]
    pub generation: u64,
    /// Who it is in an encrypted overlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
}

impl Peer {
    /// The MAC address of `node`'s tunnel endpoint in the network `vni`: derived, so that it is
    /// the same after a restart and nobody has to be told. Locally administered and unicast.
    #[must_use]
    pub fn endpoint_mac(node: &Name, vni: u32) -> Mac {
        let [.., a, b, c, d, e, f] = fingerprint(format!("{vni}/{node}").as_bytes()).to_be_bytes();
        Mac([a & 0xfc | 0x02, b, c, d, e, f])
    }

    /// The node's address inside `subnet`, which its bridge carries: the first after the
    /// network's own.
    #[must_use]
    pub fn gateway(subnet: IpNetwork) -> IpAddr {
        match subnet.network() {
            IpAddr::V4(network) => IpAddr::V4(u32::from(network).saturating_add(1).into()),
            IpAddr::V6(network) => IpAddr::V6(u128::from(network).saturating_add(1).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_mac() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        assert_eq!(Peer::endpoint_mac(&a, 42).to_string(), "d6:d8:89:08:66:7f");
        assert_ne!(Peer::endpoint_mac(&a, 42), Peer::endpoint_mac(&b, 42));
        assert_ne!(Peer::endpoint_mac(&a, 42), Peer::endpoint_mac(&a, 43));
        assert!(Peer::endpoint_mac(&b, 1).is_unicast());
    }
}
