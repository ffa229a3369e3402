//! The nodes of an overlay as their registry names them one after the other, and those that are
//! believed. What one node says is looked at against what the others have, not against what all
//! of them say again: the work does not grow with the number of nodes.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::accept::{Claims, accept, alone};
use crate::error::Error;
use crate::model::{Name, OverlayConfig, Peer};

/// Who there is.
#[derive(Debug)]
pub struct Roll {
    config: OverlayConfig,
    node: Name,
    /// What every node says.
    said: BTreeMap<Name, Peer>,
    /// What is believed of it.
    believed: BTreeMap<Name, Peer>,
    /// What is wrong with the rest.
    refused: BTreeMap<Name, Error>,
    /// Whether one of them is refused for what another has: it may come into it later.
    contested: bool,
    claims: Claims,
}

/// What is believed now and was not, and the other way around. A node that changed is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// As they were.
    pub gone: Vec<Peer>,
    /// As they are.
    pub come: Vec<Peer>,
}

impl Change {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }

    /// Whether it is about `node`.
    #[must_use]
    pub fn concerns(&self, node: &Name) -> bool {
        self.gone.iter().chain(&self.come).any(|peer| peer.node == *node)
    }
}

impl Roll {
    /// An empty one, for the node `node`.
    #[must_use]
    pub fn new(config: OverlayConfig, node: Name) -> Self {
        let (said, believed, refused) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { config, node, said, believed, refused, contested: false, claims: Claims::default() }
    }

    /// Takes `peers` as what all nodes say.
    pub fn replace(&mut self, peers: impl IntoIterator<Item = Peer>) -> Change {
        self.said = peers.into_iter().map(|peer| (peer.node.clone(), peer)).collect();
        self.consider_all()
    }

    /// Takes `peer` as what `node` says, which is nothing any more without one.
    pub fn set(&mut self, node: &Name, peer: Option<Peer>) -> Change {
        let was = match &peer {
            Some(peer) => self.said.insert(node.clone(), peer.clone()),
            None => self.said.remove(node),
        };
        if was == peer {
            return Change::default();
        }
        // What this node is decides about all others.
        if self.contested || *node == self.node {
            return self.consider_all();
        }
        self.refused.remove(node);
        let mut change = Change::default();
        if let Some(was) = self.believed.remove(node) {
            self.claims.release(&was);
            change.gone.push(was);
        }
        let Some(peer) = peer else { return change };
        if let Err(fault) = alone(&self.config, &peer) {
            self.refused.insert(node.clone(), fault);
        } else if self.claims.make(&peer).is_ok() {
            self.believed.insert(node.clone(), peer.clone());
            change.come.push(peer);
        } else {
            self.believed.extend(change.gone.into_iter().map(|was| (was.node.clone(), was)));
            return self.consider_all();
        }
        change
    }

    /// What is believed, by node.
    pub fn believed(&self) -> impl Iterator<Item = &Peer> {
        self.believed.values()
    }

    /// How many are believed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.believed.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.believed.is_empty()
    }

    /// What is believed of `node`.
    #[must_use]
    pub fn get(&self, node: &Name) -> Option<&Peer> {
        self.believed.get(node)
    }

    /// What is wrong with what is not.
    pub fn faults(&self) -> impl Iterator<Item = &Error> {
        self.refused.values()
    }

    fn consider_all(&mut self) -> Change {
        let (believed, _) = accept(&self.config, &self.node, self.said.values().cloned().collect());
        let believed: BTreeMap<Name, Peer> = believed.into_iter().map(|peer| (peer.node.clone(), peer)).collect();
        self.claims = Claims::beside(self.said.get(&self.node));
        for peer in believed.values() {
            // Nothing contradicts, or it would not be believed.
            let _ = self.claims.make(peer);
        }
        self.refused.clear();
        self.contested = false;
        for (node, peer) in self.said.iter().filter(|(node, _)| !believed.contains_key(*node)) {
            let by_itself = alone(&self.config, peer);
            self.contested |= by_itself.is_ok();
            if let Err(fault) = by_itself.and_then(|()| self.claims.make(peer)) {
                self.refused.insert(node.clone(), fault);
            }
        }
        let differs = |one: &BTreeMap<Name, Peer>, other: &BTreeMap<Name, Peer>| -> Vec<Peer> {
            one.values().filter(|peer| other.get(&peer.node) != Some(*peer)).cloned().collect()
        };
        let change = Change { gone: differs(&self.believed, &believed), come: differs(&believed, &self.believed) };
        self.believed = believed;
        change
    }
}
