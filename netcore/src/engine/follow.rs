//! Keeping what is known of the other nodes of an overlay, and the ways to them, as a source says it:
//! what an agent does. Snapshot first, kernel second, both under the lock that attaching takes; what
//! changed is added to the one and done to the other, and nothing is read again for it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::overlay::seen;
use super::{Engine, Repair, RepairOptions};
use crate::apply::apply_shared;
use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::{Kernel, Linux, Notice};
use crate::model::{LocalNode, Mac, Mode, Name, Network, Object, OverlayConfig, Peer, Place, State};
use crate::peers::{Change, Roll, Snapshot};
use crate::plan::{Step, reconcile};

/// Follows the nodes of one network for one node of it.
pub struct Follower<'a, K: Kernel = Linux> {
    engine: &'a Engine<K>,
    network: Network,
    node: Name,
    roll: Roll,
    /// What is on disk is what is believed, but for so many changes behind it.
    appended: Option<usize>,
    /// The network as it is on this node.
    located: Option<OverlayConfig>,
    wanted: Wanted,
}

/// What came of what a source said.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Who is another, or gone, or new.
    pub change: Change,
    /// What was done about it.
    pub steps: Vec<Step>,
}

/// What notices are held against.
#[derive(Debug, Default)]
struct Wanted {
    neighbours: HashMap<IpAddr, Option<Mac>>,
    entries: HashMap<Mac, IpAddr>,
    routes: HashMap<IpNetwork, Option<IpAddr>>,
}

/// How many changes follow a whole snapshot, at least, before it is written as a whole again.
const LEAST_APPENDED: usize = 64;

impl<K: Kernel> Engine<K> {
    /// Follows the nodes of `network`, an overlay, for its node `node`. Begins with what was good
    /// last.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `network` is no overlay or makes no sense, [`Error::Record`] when the
    /// last snapshot cannot be understood, [`Error::File`].
    pub fn follow(&self, network: &Network, node: Name) -> Result<Follower<'_, K>> {
        super::validate(network)?;
        let Mode::Overlay(config) = &network.mode else {
            return Err(Error::invalid("type", network.mode.name(), "overlay"));
        };
        let mut roll = Roll::new(config.clone(), node.clone());
        if let Some(last) = self.snapshots.load(&network.name)?
            && last.node == node
        {
            roll.replace(last.peers);
        }
        let (appended, located, wanted) = (None, None, Wanted::default());
        Ok(Follower { engine: self, network: network.clone(), node, roll, appended, located, wanted })
    }
}

impl<K: Kernel> Follower<'_, K> {
    /// What is believed.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.roll.believed()
    }

    /// What is believed of `node`.
    #[must_use]
    pub fn peer(&self, node: &Name) -> Option<&Peer> {
        self.roll.get(node)
    }

    /// What is wrong with what is not.
    pub fn faults(&self) -> impl Iterator<Item = &Error> {
        self.roll.faults()
    }

    /// Takes `peers` as all there are, and looks at everything.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Kernel`].
    pub async fn hear_all(&mut self, peers: Vec<Peer>) -> Result<Heard> {
        let change = self.roll.replace(peers);
        let _lock = self.engine.snapshots.lock(&self.network.name)?;
        self.commit()?;
        self.locate().await?;
        let steps = self.open_all().await?;
        Ok(Heard { change, steps })
    }

    /// Takes each of `news` as what that node is now, which is nothing without a peer, and does what
    /// follows from it.
    ///
    /// # Errors
    /// As [`hear_all`](Self::hear_all).
    pub async fn hear(&mut self, news: Vec<(Name, Option<Peer>)>) -> Result<Heard> {
        let mut before: BTreeMap<Name, Option<Peer>> = BTreeMap::new();
        for (node, peer) in news {
            let change = self.roll.set(&node, peer);
            for was in change.gone {
                before.entry(was.node.clone()).or_insert(Some(was));
            }
            for came in change.come {
                before.entry(came.node).or_insert(None);
            }
        }
        let mut all = Change::default();
        for (node, was) in before {
            let now = self.roll.get(&node).cloned();
            if was != now {
                all.gone.extend(was);
                all.come.extend(now);
            }
        }
        if all.is_empty() {
            return Ok(Heard::default());
        }
        let _lock = self.engine.snapshots.lock(&self.network.name)?;
        self.note(&all)?;
        if all.concerns(&self.node) || self.located.is_none() {
            self.locate().await?;
            let steps = self.open_all().await?;
            return Ok(Heard { change: all, steps });
        }
        let Some(config) = self.located.clone() else { return Ok(Heard { change: all, steps: Vec::new() }) };
        let (was, now) = (driver::ways(&config, &all.gone), driver::ways(&config, &all.come));
        was.iter().for_each(|object| self.wanted.forget(object));
        now.iter().for_each(|object| self.wanted.expect(object));
        if !self.has_tunnel(&config).await? {
            return Ok(Heard { change: all, steps: Vec::new() });
        }
        let steps = reconcile(&now, &State(was))?;
        match apply_shared(&self.engine.kernel, &steps).await {
            Ok(()) => Ok(Heard { change: all, steps }),
            // It is not as it was left: somebody else was there.
            Err(_) => Ok(Heard { change: all, steps: self.open_all().await? }),
        }
    }

    /// Reads the source where that is a file, and looks at everything; with what is to be said about
    /// an edit that makes no sense.
    ///
    /// # Errors
    /// As [`hear_all`](Self::hear_all); the source's own fault while nothing was ever good.
    pub async fn reread(&mut self) -> Result<(Heard, Vec<String>)> {
        let Mode::Overlay(config) = &self.network.mode else { return Ok(Default::default()) };
        let current = self.engine.snapshots.current(&self.network.name, config)?;
        self.node.clone_from(&current.snapshot.node);
        let change = self.roll.replace(current.snapshot.peers);
        let _lock = self.engine.snapshots.lock(&self.network.name)?;
        self.locate().await?;
        let steps = self.open_all().await?;
        Ok((Heard { change, steps }, current.warnings))
    }

    /// Brings back what somebody broke: the tunnel and what stands on it by the records, and every
    /// way.
    ///
    /// # Errors
    /// As [`Engine::repair`].
    pub async fn mend(&mut self) -> Result<Repair> {
        let options = RepairOptions { network: Some(self.network.name.clone()), check: false };
        let report = self.engine.repair(&options).await?;
        let _lock = self.engine.snapshots.lock(&self.network.name)?;
        self.locate().await?;
        self.open_all().await?;
        Ok(report)
    }

    /// Whether `notice` says that something is not as it should be.
    #[must_use]
    pub fn minds(&self, notice: &Notice) -> bool {
        let wanted = &self.wanted;
        match notice {
            Notice::Link => true,
            Notice::Neighbour(address, mac) => wanted.neighbours.get(address).is_some_and(|wanted| wanted != mac),
            Notice::Entry(mac, to) => wanted.entries.get(mac).is_some_and(|wanted| Some(*wanted) != *to),
            Notice::Route(to, via) => wanted.routes.get(to).is_some_and(|wanted| Some(*wanted) != *via),
        }
    }

    fn commit(&mut self) -> Result<()> {
        let snapshot = Snapshot::new(self.node.clone(), self.roll.believed().cloned().collect());
        self.appended = None;
        self.engine.snapshots.commit(&self.network.name, &snapshot)?;
        self.appended = Some(0);
        Ok(())
    }

    /// Writes `change` down, behind what is there where that will do.
    fn note(&mut self, change: &Change) -> Result<()> {
        let most = LEAST_APPENDED.max(self.roll.len() / 4);
        if let Some(appended) = self.appended
            && appended < most
            && self.engine.snapshots.append(&self.network.name, change).is_ok()
        {
            self.appended = Some(appended + 1);
            return Ok(());
        }
        self.commit()
    }

    /// Finds out what the network is on this node, as far as that can be known.
    async fn locate(&mut self) -> Result<()> {
        self.located = None;
        let Some(own) = self.roll.get(&self.node).cloned() else { return Ok(()) };
        let Some(underlay) = self.engine.kernel.underlay(own.underlay).await? else { return Ok(()) };
        let encrypted = matches!(&self.network.mode, Mode::Overlay(config) if config.encryption.is_some());
        let key = if encrypted { Some(Box::new(self.engine.own_key(&self.network.name, &own)?)) } else { None };
        let local = LocalNode { node: own.node, subnets: own.subnets, underlay, key };
        if let Mode::Overlay(config) = driver::located(&self.network, local)?.mode {
            self.located = Some(config);
        }
        Ok(())
    }

    async fn has_tunnel(&self, config: &OverlayConfig) -> Result<bool> {
        let tunnel = Object::Link(driver::tunnel(config, &self.network));
        let there = self.engine.kernel.observe(&[tunnel]).await?;
        Ok(there.link(Place::Host, &config.device()).is_some())
    }

    /// Makes the ways to all other nodes what they should be, if anything is attached here.
    async fn open_all(&mut self) -> Result<Vec<Step>> {
        self.wanted = Wanted::default();
        let Some(config) = self.located.clone() else { return Ok(Vec::new()) };
        let peers: Vec<Peer> = self.roll.believed().cloned().collect();
        let ways = driver::ways(&config, &peers);
        ways.iter().for_each(|object| self.wanted.expect(object));
        if !self.has_tunnel(&config).await? {
            return Ok(Vec::new());
        }
        let kernel = &self.engine.kernel;
        let steps = reconcile(&ways, &seen(kernel, &config).await?)?;
        apply_shared(kernel, &steps).await?;
        Ok(steps)
    }
}

impl Wanted {
    fn expect(&mut self, object: &Object) {
        match object {
            Object::Neighbour(neighbour) => drop(self.neighbours.insert(neighbour.address, neighbour.mac)),
            Object::Fdb(entry) => drop(self.entries.insert(entry.mac, entry.to)),
            Object::Route(route) => drop(self.routes.insert(route.destination, route.gateway)),
            _ => {}
        }
    }

    fn forget(&mut self, object: &Object) {
        match object {
            Object::Neighbour(neighbour) => drop(self.neighbours.remove(&neighbour.address)),
            Object::Fdb(entry) => drop(self.entries.remove(&entry.mac)),
            Object::Route(route) => drop(self.routes.remove(&route.destination)),
            _ => {}
        }
    }
}
