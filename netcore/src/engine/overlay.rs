//! What an overlay needs beside what every network does: this node has to be found among its
//! peers before anything can be said about it, and the ways to the others follow the snapshot,
//! not the attachments.

use std::collections::BTreeSet;

use super::Engine;
use crate::apply::{apply_all, apply_shared};
use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Encryption, LocalNode, Mode, Name, Network, NodeKey, Object, OverlayConfig, Peer, State};
use crate::plan::{Step, reconcile, removal};
use crate::store::Lock;

impl<K: Kernel> Engine<K> {
    /// What the other nodes of the encrypted overlay `network` know this one by. Its key is made now
    /// if there is none yet; the private half stays in a file of this node.
    ///
    /// # Errors
    /// [`Error::Record`] when what is there is no key, or others may read it; [`Error::File`].
    pub fn node_key(&self, network: &Name) -> Result<NodeKey> {
        self.snapshots.key(network)
    }

    /// `network` as it is on this node, and what is to be said about how that was found out.
    /// Networks that are the same everywhere are what they are.
    ///
    /// # Errors
    /// [`Error::NoSubnet`] while this node has no part of it.
    pub(super) async fn locate(&self, network: &Network) -> Result<(Network, Vec<String>)> {
        let Mode::Overlay(config) = &network.mode else { return Ok((network.clone(), Vec::new())) };
        if config.encryption == Some(Encryption::Wireguard) && !self.kernel.has_wireguard()? {
            return Err(Error::no_wireguard());
        }
        let current = self.snapshots.current(&network.name, config)?;
        let missing = |reason: String| Error::NoSubnet { network: network.name.to_string(), reason };
        let Some(own) = current.snapshot.own() else {
            let node = &current.snapshot.node;
            return Err(missing(format!("node {node} has no subnet yet: no peer of that name is known")));
        };
        let Some(underlay) = self.kernel.underlay(own.underlay).await? else {
            let (node, address) = (&own.node, own.underlay);
            return Err(missing(format!("node {node} is at {address}, which no interface of this host has")));
        };
        let key = config.encryption.map(|_| self.own_key(&network.name, own)).transpose()?.map(Box::new);
        let local = LocalNode { node: own.node.clone(), subnets: own.subnets.clone(), underlay, key };
        Ok((driver::located(network, local)?, current.warnings))
    }

    /// This node's key, which the others have to know: what they are told has to be it.
    pub(super) fn own_key(&self, network: &Name, own: &Peer) -> Result<NodeKey> {
        let key = self.snapshots.key(network)?;
        if own.public_key == Some(key.public) {
            return Ok(key);
        }
        let told = own.public_key.map_or_else(|| "nothing".to_owned(), |told| told.to_string());
        let expected = format!("{}, which is this node's: tell every node", key.public);
        Err(Error::invalid(format!("peer {}: publicKey", own.node), told, expected))
    }

    /// The ways to the other nodes, by the last snapshot.
    pub(super) fn ways(&self, network: &Network) -> Result<Vec<Object>> {
        let Mode::Overlay(config) = &network.mode else { return Ok(Vec::new()) };
        let snapshot = self.snapshots.load(&network.name)?;
        Ok(snapshot.map_or_else(Vec::new, |snapshot| driver::ways(config, &snapshot.peers)))
    }

    /// Makes the ways to the other nodes what the last snapshot says.
    pub(super) async fn open_ways(&self, kernel: &K, network: &Network) -> Result<()> {
        if !matches!(network.mode, Mode::Overlay(_)) {
            return Ok(());
        }
        let _lock = self.snapshots.lock(&network.name)?;
        let steps = self.changed_ways(kernel, network).await?;
        apply_shared(kernel, &steps).await
    }

    /// What it takes to make the ways to the other nodes what the last snapshot says.
    pub(super) async fn changed_ways(&self, kernel: &K, network: &Network) -> Result<Vec<Step>> {
        let Mode::Overlay(config) = &network.mode else { return Ok(Vec::new()) };
        reconcile(&self.ways(network)?, &seen(kernel, config).await?)
    }

    /// Keeps what is known of the other nodes of `networks`, and is done about it, as it is. Names are
    /// locked in order, so that two that hold several never wait for each other.
    pub(super) fn hold_ways<'a>(&self, networks: impl Iterator<Item = &'a Network>) -> Result<Vec<Lock>> {
        let overlays = networks.filter(|network| matches!(network.mode, Mode::Overlay(_)));
        let names: BTreeSet<&Name> = overlays.map(|network| &network.name).collect();
        names.into_iter().map(|name| self.snapshots.lock(name)).collect()
    }

    /// Takes away what is left of the ways to the other nodes.
    pub(super) async fn close_ways(&self, network: &Network) -> Result<()> {
        let Mode::Overlay(config) = &network.mode else { return Ok(()) };
        let _lock = self.snapshots.lock(&network.name)?;
        let actual = seen(&self.kernel, config).await?;
        Error::from_list(apply_all(&self.kernel, &removal(&actual.0, &actual)).await)
    }
}

/// The ways that are there. Another overlay's routes may lead into the same range: they are over
/// another tunnel.
pub(super) async fn seen<K: Kernel>(kernel: &K, config: &OverlayConfig) -> Result<State> {
    let device = config.device();
    let underlay = config.local.as_ref().map(|local| &local.underlay.link);
    let mut actual = kernel.ways(&device, &config.cidr).await?;
    actual.0.retain(|object| match object {
        Object::Route(route) => route.link == device || Some(&route.link) == underlay,
        _ => true,
    });
    Ok(actual)
}
