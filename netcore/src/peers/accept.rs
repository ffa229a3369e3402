//! What is believed of what nodes say about themselves. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::error::{Error, Result};
use crate::model::{Mac, Name, OverlayConfig, Peer, PublicKey};

/// Those of `peers` that can be believed, the oldest first, and what is wrong with each of the
/// others. `node` is this one's name. Of two that claim the same, the one of the lower generation
/// has it, or the one that is named first.
#[must_use]
pub fn accept(config: &OverlayConfig, node: &Name, mut peers: Vec<Peer>) -> (Vec<Peer>, Vec<Error>) {
    peers.sort_by_key(|peer| peer.generation);
    let own = peers.iter().find(|peer| peer.node == *node);
    let mut claims = Claims::beside(own);
    let mut faults = Vec::new();
    peers.retain(|peer| match alone(config, peer).and_then(|()| claims.make(peer)) {
        Ok(()) => true,
        Err(fault) => {
            faults.push(fault);
            false
        }
    });
    (peers, faults)
}

fn fault(peer: &Peer, key: &str, value: impl std::fmt::Display, expected: impl Into<String>) -> Error {
    Error::invalid(format!("peer {}: {key}", peer.node), value, expected)
}

/// Whether what `peer` says makes sense, whatever the others say.
pub(super) fn alone(config: &OverlayConfig, peer: &Peer) -> Result<()> {
    let ranges = || config.cidr.iter().map(IpNetwork::to_string).collect::<Vec<_>>().join(" or ");
    if peer.vni != config.vni {
        return Err(fault(peer, "vni", peer.vni, format!("the network's VNI {}", config.vni)));
    }
    if peer.port != config.port {
        return Err(fault(peer, "port", peer.port, format!("the network's UDP port {}", config.port)));
    }
    if !peer.mac.is_unicast() {
        return Err(fault(peer, "mac", peer.mac, "a unicast MAC address"));
    }
    let address = peer.underlay;
    let is_of_a_host = !(address.is_unspecified() || address.is_loopback() || address.is_multicast());
    if !is_of_a_host {
        return Err(fault(peer, "underlay", address, "an address that other nodes can send to"));
    }
    if config.cidr.iter().any(|range| range.contains(address)) {
        return Err(fault(
            peer,
            "underlay",
            address,
            format!("an address outside the overlay's own range {}", ranges()),
        ));
    }
    if config.encryption.is_some() && peer.public_key.is_none() {
        let expected = "its key; `netctl overlay key` on that node prints it";
        return Err(fault(peer, "publicKey", "nothing", expected));
    }
    if peer.subnets.is_empty() {
        return Err(fault(peer, "subnets", "nothing", "one subnet of the cluster's range for each family"));
    }
    for (position, subnet) in peer.subnets.iter().enumerate() {
        if subnet.ip() != subnet.network() {
            let expected = format!("a network address: {}/{}", subnet.network(), subnet.prefix());
            return Err(fault(peer, "subnets", subnet, expected));
        }
        if !config.cidr.iter().any(|range| range.contains(subnet.network()) && range.prefix() <= subnet.prefix()) {
            return Err(fault(peer, "subnets", subnet, format!("inside the cluster's range {}", ranges())));
        }
        let most = if subnet.is_ipv4() { 30 } else { 126 };
        if subnet.prefix() > most {
            let expected = format!("a subnet with room for containers: a prefix length of at most {most}");
            return Err(fault(peer, "subnets", subnet, expected));
        }
        if peer.subnets[..position].iter().any(|other| other.is_ipv6() == subnet.is_ipv6()) {
            return Err(fault(peer, "subnets", subnet, "the only one of its family: a node has one of each"));
        }
    }
    Ok(())
}

/// Who has what.
#[derive(Debug, Default)]
pub(super) struct Claims {
    own_family: Option<bool>,
    nodes: HashSet<Name>,
    underlays: HashMap<IpAddr, Name>,
    macs: HashMap<Mac, Name>,
    keys: HashMap<PublicKey, Name>,
    /// By first address; they do not overlap, so what could overlap is next to it.
    subnets: BTreeMap<IpAddr, (IpNetwork, Name)>,
}

impl Claims {
    /// None yet, beside what the node itself is, which decides about the underlay's family.
    pub(super) fn beside(own: Option<&Peer>) -> Self {
        Self { own_family: own.map(|own| own.underlay.is_ipv6()), ..Self::default() }
    }

    /// Enters what `peer` has, unless somebody has it.
    pub(super) fn make(&mut self, peer: &Peer) -> Result<()> {
        if self.nodes.contains(&peer.node) {
            return Err(fault(
                peer,
                "node",
                format!("{:?}", peer.node.as_str()),
                "named once: give each node a name of its own",
            ));
        }
        if let Some(v6) = self.own_family
            && peer.underlay.is_ipv6() != v6
        {
            let expected = format!("an {} address, as this node's is", if v6 { "IPv6" } else { "IPv4" });
            return Err(fault(peer, "underlay", peer.underlay, expected));
        }
        if let Some(holder) = self.underlays.get(&peer.underlay) {
            return Err(fault(peer, "underlay", peer.underlay, format!("free: node {holder} has it")));
        }
        if let Some(holder) = self.macs.get(&peer.mac) {
            return Err(fault(peer, "mac", peer.mac, format!("free: node {holder} has it; rename one of the two")));
        }
        if let Some((key, holder)) = peer.public_key.and_then(|key| Some((key, self.keys.get(&key)?))) {
            let expected = format!("its own: it is that of node {holder}; every node makes one for itself");
            return Err(fault(peer, "publicKey", key, expected));
        }
        for subnet in &peer.subnets {
            if let Some((other, holder)) = self.overlapping(subnet) {
                return Err(fault(peer, "subnets", subnet, format!("free: it overlaps {other} of node {holder}")));
            }
        }
        self.nodes.insert(peer.node.clone());
        self.underlays.insert(peer.underlay, peer.node.clone());
        self.macs.insert(peer.mac, peer.node.clone());
        self.keys.extend(peer.public_key.map(|key| (key, peer.node.clone())));
        for subnet in &peer.subnets {
            self.subnets.insert(subnet.network(), (*subnet, peer.node.clone()));
        }
        Ok(())
    }

    /// Strikes out what `peer` had, which is in here.
    pub(super) fn release(&mut self, peer: &Peer) {
        self.nodes.remove(&peer.node);
        self.underlays.remove(&peer.underlay);
        self.macs.remove(&peer.mac);
        if let Some(key) = &peer.public_key {
            self.keys.remove(key);
        }
        for subnet in &peer.subnets {
            self.subnets.remove(&subnet.network());
        }
    }

    fn overlapping(&self, subnet: &IpNetwork) -> Option<&(IpNetwork, Name)> {
        let before = self.subnets.range(..=subnet.network()).next_back();
        let within = self.subnets.range(subnet.network()..=subnet.broadcast()).next();
        let overlap =
            |other: &&(IpNetwork, Name)| other.0.contains(subnet.network()) || subnet.contains(other.0.network());
        before.into_iter().chain(within).map(|(_, claim)| claim).find(overlap)
    }
}
