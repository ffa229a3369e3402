//! An overlay in a registry of keys and values, as far as it takes no registry to say it: which
//! keys there are, what is in them, who they make a peer, and what a node has to write to have a
//! subnet.
//!
//! ```text
//! PREFIX/subnets/10.244.1.0-24   "a": whose subnet that is. Written if nobody has it, and kept
//!                                until the node leaves.
//! PREFIX/nodes/a                 what the node says about itself: a record with a version
//! PREFIX/alive/a                 where its agent is at work; goes when that is gone for a while,
//!                                and nothing follows from it
//! ```

mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Name, OverlayConfig, Peer, fingerprint};

use keys::Key;
pub use keys::{Entry, Event, Keys};

/// The version of the record of a node.
const VERSION: u32 = 1;

/// What a node is by the registry.
#[derive(Debug)]
pub enum Said {
    /// Not there.
    Nothing,
    /// A peer.
    Peer(Peer),
    /// There, but it cannot be made out as what: it makes no sense, or nobody has what it says it has.
    Unreadable(Error),
    /// Without what it says it has: that is somebody else's.
    Dispossessed(Error),
}

/// What a node says about itself.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(flatten)]
    peer: Peer,
}

/// What is in the registry.
#[derive(Debug)]
pub struct Registry {
    keys: Keys,
    nodes: BTreeMap<Name, Entry>,
    subnets: BTreeMap<(IpAddr, u8), Reservation>,
}

#[derive(Debug)]
struct Reservation {
    subnet: IpNetwork,
    holder: String,
    created: u64,
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, nodes: BTreeMap::new(), subnets: BTreeMap::new() }
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes `entries` as all there is.
    pub fn replace(&mut self, entries: Vec<Entry>) {
        self.nodes.clear();
        self.subnets.clear();
        for entry in entries {
            self.hear(Event::Put(entry));
        }
    }

    /// Takes `event` to have happened; the nodes that may be something else now.
    pub fn hear(&mut self, event: Event) -> BTreeSet<Name> {
        let mut concerned = BTreeSet::new();
        let (key, entry) = match event {
            Event::Put(entry) => (entry.key.clone(), Some(entry)),
            Event::Deleted(key) => (key, None),
        };
        match self.keys.parse(&key) {
            None => {}
            Some(Key::Node(node)) => {
                match entry {
                    Some(entry) => self.nodes.insert(node.clone(), entry),
                    None => self.nodes.remove(&node),
                };
                concerned.insert(node);
            }
            Some(Key::Subnet(subnet)) => {
                let place = (subnet.network(), subnet.prefix());
                let was = match entry {
                    Some(Entry { value, created, .. }) => {
                        let holder = String::from_utf8_lossy(&value).into_owned();
                        concerned.extend(holder.parse::<Name>().ok());
                        self.subnets.insert(place, Reservation { subnet, holder, created })
                    }
                    None => self.subnets.remove(&place),
                };
                concerned.extend(was.and_then(|was| was.holder.parse::<Name>().ok()));
            }
        }
        concerned
    }

    /// The nodes there is a record of.
    pub fn nodes(&self) -> impl Iterator<Item = &Name> {
        self.nodes.keys()
    }

    /// What `node` is. Of two that claim the same, the older reservation counts.
    #[must_use]
    pub fn said(&self, node: &Name) -> Said {
        let Some(entry) = self.nodes.get(node) else { return Said::Nothing };
        let fault = |reason: String| Error::Peers { origin: entry.key.clone(), reason };
        let mut peer = match read(node, &entry.value) {
            Ok(peer) => peer,
            Err(reason) => return Said::Unreadable(fault(reason)),
        };
        let mut generation = 0;
        for subnet in &peer.subnets {
            match self.subnets.get(&(subnet.network(), subnet.prefix())) {
                Some(reservation) if reservation.holder == node.as_str() => {
                    generation = generation.max(reservation.created);
                }
                Some(other) => return Said::Dispossessed(fault(format!("{subnet} is node {}'s", other.holder))),
                None => return Said::Unreadable(fault(format!("{subnet} is not reserved for it"))),
            }
        }
        peer.generation = generation;
        Said::Peer(peer)
    }

    /// Whose `subnet`, or a part of it, is.
    #[must_use]
    pub fn holder(&self, subnet: &IpNetwork) -> Option<&str> {
        self.overlapping(subnet).map(|reservation| reservation.holder.as_str())
    }

    /// What this node, which is to be the peer `wish` but for its subnets, has to write to be one.
    /// It stays what it is, or was when it had the subnets `before`, as far as these are free; and
    /// takes free ones otherwise. `alive` is where an agent of this name is at work.
    ///
    /// # Errors
    /// [`Error::Invalid`] when another node has this name, [`Error::PoolExhausted`].
    pub fn registration(
        &self,
        network: &Name,
        config: &OverlayConfig,
        wish: Peer,
        before: &[IpNetwork],
        alive: Option<&str>,
    ) -> Result<Registration> {
        let node = wish.node.clone();
        let entry = self.nodes.get(&node);
        let record = entry.and_then(|entry| read(&node, &entry.value).ok());
        if let Some(other) = record.as_ref().filter(|record| record.underlay != wish.underlay)
            && alive.is_some_and(|alive| alive == other.underlay.to_string())
        {
            let expected =
                format!("a name of its own: the node at {} has it; name this one with --node", other.underlay);
            return Err(Error::invalid("node", format!("{:?}", node.as_str()), expected));
        }
        let own = || self.subnets.values().filter(|one| one.holder == node.as_str()).map(|one| one.subnet);
        let recorded = record.iter().flat_map(|record| &record.subnets).copied();
        let preferred: Vec<IpNetwork> = recorded.chain(own()).chain(before.iter().copied()).collect();
        let mut subnets = Vec::new();
        for (position, range) in config.cidr.iter().enumerate() {
            let length = config.subnet_length(position);
            let fits = |subnet: &&IpNetwork| {
                let within = range.contains(subnet.network()) && subnet.is_ipv6() == range.is_ipv6();
                within && subnet.prefix() == length && self.is_free_for(&node, subnet)
            };
            let kept = preferred.iter().find(fits).copied();
            let subnet = kept.or_else(|| self.free(&node, *range, length)).ok_or_else(|| Error::PoolExhausted {
                network: network.to_string(),
                ranges: format!("{range}, in subnets of /{length}"),
            })?;
            subnets.push(subnet);
        }

        let peer = Peer { subnets, generation: 0, ..wish };
        let mut registration =
            Registration { peer, absent: Vec::new(), holds: Vec::new(), put: Vec::new(), delete: Vec::new() };
        for subnet in &registration.peer.subnets {
            let key = self.keys.subnet(subnet);
            if own().any(|own| own == *subnet) {
                registration.holds.push((key, node.as_str().into()));
            } else {
                registration.absent.push(key.clone());
                registration.put.push((key, node.as_str().into()));
            }
        }
        for subnet in own().filter(|own| !registration.peer.subnets.contains(own)) {
            let key = self.keys.subnet(&subnet);
            registration.holds.push((key.clone(), node.as_str().into()));
            registration.delete.push(key);
        }
        let key = self.keys.node(&node);
        let value = write(&registration.peer)?;
        match entry {
            Some(entry) if entry.value == value => {}
            Some(entry) => {
                registration.holds.push((key.clone(), entry.value.clone()));
                registration.put.push((key, value));
            }
            None => {
                registration.absent.push(key.clone());
                registration.put.push((key, value));
            }
        }
        Ok(registration)
    }

    /// What to write to take `node` out, with all it has; nothing when it is not there.
    #[must_use]
    pub fn withdrawal(&self, node: &Name) -> Vec<String> {
        let subnets = self.subnets.values().filter(|one| one.holder == node.as_str());
        let keys = subnets.map(|one| self.keys.subnet(&one.subnet));
        keys.chain(self.nodes.get(node).map(|entry| entry.key.clone())).collect()
    }

    fn is_free_for(&self, node: &Name, subnet: &IpNetwork) -> bool {
        self.overlapping(subnet).is_none_or(|other| other.holder == node.as_str() && other.subnet == *subnet)
    }

    /// A reservation of a part of `subnet`, or of more than it.
    fn overlapping(&self, subnet: &IpNetwork) -> Option<&Reservation> {
        let first = subnet.network();
        let before =
            self.subnets.range(..(first, 0)).rev().take_while(|(place, _)| place.0.is_ipv6() == first.is_ipv6());
        let around = before.map(|(_, one)| one).take(1).find(|one| one.subnet.contains(first));
        around.or_else(|| self.subnets.range((first, 0)..=(subnet.broadcast(), 128)).next().map(|(_, one)| one))
    }

    /// A part of `range` that nobody has. Every node begins to look somewhere else, so that many at
    /// once seldom want the same.
    fn free(&self, node: &Name, range: IpNetwork, length: u8) -> Option<IpNetwork> {
        let bits = if range.is_ipv4() { 32 } else { 128 };
        let count = 1_u128.checked_shl(u32::from(length - range.prefix())).unwrap_or(u128::MAX);
        let size = 1_u128.checked_shl(u32::from(bits - length)).unwrap_or(u128::MAX);
        let base = number(range.network());
        let start = u128::from(fingerprint(node.as_str().as_bytes())) % count;
        let mut passed = 0;
        while passed < count {
            let place = (start + passed) % count;
            let subnet = IpNetwork::new(address(base + place * size, range.is_ipv6()), length).ok()?;
            let Some(other) = self.overlapping(&subnet) else { return Some(subnet) };
            // A larger one is passed as a whole, up to the end of the range.
            let end = number(other.subnet.broadcast()).saturating_sub(base) / size;
            passed += (end.saturating_sub(place) + 1).min(count - place);
        }
        None
    }
}

/// What a node has to write to be a peer, all of it or nothing, and under which conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// What the node will be.
    pub peer: Peer,
    /// Keys that must not be there.
    pub absent: Vec<String>,
    /// Keys that must hold this.
    pub holds: Vec<(String, Vec<u8>)>,
    /// What to write.
    pub put: Vec<(String, Vec<u8>)>,
    /// What to remove.
    pub delete: Vec<String>,
}

impl Registration {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

fn read(node: &Name, value: &[u8]) -> std::result::Result<Peer, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("a record of version {version}; this program knows version {VERSION}"));
    }
    let Record { mut peer, .. } = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if peer.node != *node {
        return Err(format!("node {} is in it", peer.node));
    }
    peer.underlay = peer.underlay.to_canonical();
    Ok(peer)
}

fn write(peer: &Peer) -> Result<Vec<u8>> {
    let record = Record { version: VERSION, peer: peer.clone() };
    serde_json::to_vec(&record)
        .map_err(|error| Error::Peers { origin: format!("node {}", peer.node), reason: error.to_string() })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}
