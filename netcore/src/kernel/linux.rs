//! The Linux kernel as a [`Kernel`]: which interface to it each kind of object goes through.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures::channel::oneshot::{Receiver, channel};
use ipnetwork::IpNetwork;

use super::batch::{self, Change};
use super::firewall::{Firewall, Rules};
use super::firewalld::Firewalld;
use super::netns::Netns;
use super::rtnl::Rtnl;
use super::seen::{self, Interfaces, Listing, MANY, Seen};
use super::{
    Kernel, address, binding, bound, forwarding, interfaces, link, listener, neighbour, route, settle, sysctl,
    underlay, wireguard,
};
use crate::error::{Error, Result};
use crate::model::{
    Address, Backend, Binding, FdbEntry, FirewallBackend, ForwardPort, InterfaceName, Link, Listener, Name,
    NamespaceId, Neighbour, Object, Phase, Place, PortMapping, Route, State, Sysctl, Underlay, WireguardPeer,
    ZoneBinding,
};

/// The Linux kernel, seen from the caller's namespace and, once one was
/// [entered](Kernel::enter), from a sandbox.
///
/// Sockets are opened when they are first needed and then kept. What the kernel does only after it has
/// answered is waited for on the Tokio runtime of the caller, which must have I/O and time enabled.
#[derive(Clone, Debug)]
pub struct Linux {
    host: Arc<Namespace>,
    sandbox: Option<Arc<Namespace>>,
    firewall: Arc<Firewall>,
    /// The interfaces found since a sandbox was entered, which is to say during this operation:
    /// each is a question to the kernel less. An index is not given again to another interface.
    known: Option<Arc<Mutex<Known>>>,
    firewalld: Arc<Firewalld>,
    /// The interfaces of the host, if somebody has begun to list them.
    listing: Option<Arc<Listing>>,
}

/// Interfaces by the names they were asked for.
type Known = HashMap<(Place, InterfaceName), Seen>;

/// A namespace and the connection to it.
#[derive(Debug)]
struct Namespace {
    /// The caller's own when `None`.
    netns: Option<Netns>,
    rtnl: Mutex<Option<Rtnl>>,
}

impl Namespace {
    fn new(netns: Option<Netns>) -> Arc<Self> {
        Arc::new(Self { netns, rtnl: Mutex::new(None) })
    }

    fn rtnl(&self) -> Result<Rtnl> {
        let mut kept = self.rtnl.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_ref() {
            Some(rtnl) => Ok(rtnl.clone()),
            None => Ok(kept.insert(Rtnl::open(self.netns.as_ref())?).clone()),
        }
    }
}

impl Linux {
    /// The kernel without a sandbox. Opens nothing yet.
    #[must_use]
    pub fn host() -> Self {
        Self {
            host: Namespace::new(None),
            sandbox: None,
            firewall: Arc::default(),
            firewalld: Arc::default(),
            known: None,
            listing: None,
        }
    }

    /// This kernel, but what was found out about the rule set is kept in `file` for whoever looks
    /// next, in this process or another.
    #[must_use]
    pub fn remembering(self, file: impl Into<PathBuf>) -> Self {
        Self { firewall: Arc::new(Firewall::remembering(file.into())), ..self }
    }

    /// The sandbox, if one was entered.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Netns> {
        self.sandbox.as_ref().and_then(|namespace| namespace.netns.as_ref())
    }

    /// The interfaces of the host, as they are being listed.
    pub(super) fn listing(&self) -> Option<&Listing> {
        self.listing.as_deref()
    }

    /// What changes of the rule set that are made through this are known by.
    pub(super) fn rule_set_port(&self) -> Result<u32> {
        self.firewall.port()
    }

    /// Whether firewalld runs, which is known when it has time to say so: seconds later, while it
    /// reloads. It is waited for beside the calling thread.
    pub(crate) fn firewalld_is_there(&self) -> Receiver<bool> {
        let (tell, told) = channel();
        let firewalld = Arc::clone(&self.firewalld);
        thread::spawn(move || {
            // Nobody may be interested any more.
            let _ = tell.send(firewalld.is_there());
        });
        told
    }

    /// The connection to `place`; none for a sandbox that was not entered.
    pub(super) fn at(&self, place: Place) -> Result<Option<Rtnl>> {
        match (place, &self.sandbox) {
            (Place::Host, _) => self.host.rtnl().map(Some),
            (Place::Sandbox, Some(sandbox)) => sandbox.rtnl().map(Some),
            (Place::Sandbox, None) => Ok(None),
        }
    }

    /// The connection to `place`, where something is to be made.
    pub(super) fn required(&self, place: Place) -> Result<Rtnl> {
        self.at(place)?.ok_or_else(no_sandbox)
    }

    /// The sandbox, where something is to be made.
    pub(super) fn required_sandbox(&self) -> Result<&Netns> {
        self.sandbox().ok_or_else(no_sandbox)
    }

    /// The interface `name` in `place` as it was found before during this operation.
    pub(super) fn known(&self, place: Place, name: &InterfaceName) -> Option<Seen> {
        let known = self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(place, name.clone())).cloned()
    }

    /// Keeps what was found by asking for `name` in `place`.
    pub(super) fn remember(&self, place: Place, name: &InterfaceName, seen: &Seen) {
        if let Some(known) = &self.known {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert((place, name.clone()), seen.clone());
        }
    }

    /// Forgets all interfaces: one is about to be changed or removed.
    pub(super) fn forget(&self) {
        if let Some(known) = &self.known {
            known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Closes the bridge to the outside, and then has firewalld let everything through to it.
    fn bind(&self, binding: &ZoneBinding) -> Result<()> {
        self.firewall.create(&Kinds::from(binding.barriers().as_slice()).rules)?;
        self.firewalld.bind(binding)
    }

    fn unbind(&self, binding: &ZoneBinding) -> Result<()> {
        self.firewalld.unbind(binding)?;
        self.firewall.remove(&Kinds::from(binding.barriers().as_slice()).rules)
    }

    fn is_closed(&self, binding: &ZoneBinding) -> Result<bool> {
        let barriers = binding.barriers();
        Ok(self.firewall.observe(&Kinds::from(barriers.as_slice()).rules)?.len() == barriers.len())
    }

    /// Which of `wanted` are there, on these interfaces.
    async fn look(&self, wanted: &[Object], interfaces: Interfaces) -> Result<State> {
        let kinds = Kinds::from(wanted);
        let mut seen = Vec::with_capacity(wanted.len());
        seen.extend(binding::observe(&kinds.bindings));
        let mut once = HashSet::new();
        for link in &kinds.links {
            for object in seen::link(self, &interfaces, link).await? {
                // A bridge may be asked for by several; the same interface may be in the way twice.
                if once.insert(object.key()) {
                    seen.push(object);
                }
            }
        }
        // What is not wanted itself, but what a wanted link stands on.
        let parents = seen::parents(self, &interfaces, &kinds.links).await?;
        seen.extend(parents);
        let (addresses, routes) = futures::future::try_join(
            address::observe(self, &interfaces, &kinds.addresses),
            route::observe(self, &interfaces, &kinds.routes),
        )
        .await?;
        seen.extend(addresses);
        seen.extend(neighbour::observe(self, &interfaces, &kinds.neighbours).await?);
        seen.extend(neighbour::observe_entries(self, &interfaces, &kinds.entries).await?);
        seen.extend(wireguard::observe_peers(&kinds.peers)?);
        seen.extend(routes);
        seen.extend(sysctl::observe(self, &kinds.settings)?);
        seen.extend(self.firewall.observe(&kinds.rules)?);
        seen.extend(self.firewalld.observe(&kinds.zones, |binding| self.is_closed(binding))?);
        seen.extend(self.firewalld.observe_ports(&kinds.forward_ports));
        Ok(State(seen))
    }

    async fn create_one(&self, object: &Object) -> Result<()> {
        match object {
            Object::Binding(binding) => binding::create(binding),
            Object::Link(link) => link::create(self, link).await,
            Object::Address(address) => address::create(self, address).await,
            Object::Neighbour(neighbour) => neighbour::create(self, neighbour).await,
            Object::Fdb(entry) => neighbour::create_entry(self, entry).await,
            Object::WireguardPeer(peer) => wireguard::create_peer(peer),
            Object::Route(route) => route::create(self, route).await,
            Object::Sysctl(setting) => sysctl::write(self, setting),
            // Made before, all in one transaction.
            Object::Nat(_) | Object::Iptables(_) | Object::Admission(_) => Ok(()),
            Object::Zone(binding) => self.bind(binding),
            Object::ForwardPort(port) => self.firewalld.forward(port),
        }
    }

    async fn remove_one(&self, object: &Object) -> Result<()> {
        match object {
            Object::Binding(binding) => binding::remove(binding),
            Object::Link(link) => link::remove(self, link).await,
            Object::Address(address) => address::remove(self, address).await,
            Object::Neighbour(neighbour) => neighbour::remove(self, neighbour).await,
            Object::Fdb(entry) => neighbour::remove_entry(self, entry).await,
            Object::WireguardPeer(peer) => wireguard::remove_peer(peer),
            Object::Route(route) => route::remove(self, route).await,
            // What it was before is not ours to know: others may rely on it by now.
            Object::Sysctl(_) => Ok(()),
            // Removed before, all in one transaction.
            Object::Nat(_) | Object::Iptables(_) | Object::Admission(_) => Ok(()),
            Object::Zone(binding) => self.unbind(binding),
            Object::ForwardPort(port) => self.firewalld.withdraw(port),
        }
    }
}

fn no_sandbox() -> Error {
    Error::Netns {
        path: "(none)".into(),
        reason: "is needed: something is to be made in the container, and none was entered".to_owned(),
        source: None,
    }
}

/// A list of objects by kind.
#[derive(Default)]
struct Kinds<'a> {
    bindings: Vec<&'a Binding>,
    links: Vec<&'a Link>,
    addresses: Vec<&'a Address>,
    neighbours: Vec<&'a Neighbour>,
    entries: Vec<&'a FdbEntry>,
    peers: Vec<&'a WireguardPeer>,
    routes: Vec<&'a Route>,
    settings: Vec<&'a Sysctl>,
    rules: Rules<'a>,
    zones: Vec<&'a ZoneBinding>,
    forward_ports: Vec<&'a ForwardPort>,
}

impl<'a> From<&'a [Object]> for Kinds<'a> {
    fn from(objects: &'a [Object]) -> Self {
        let mut kinds = Self::default();
        for object in objects {
            match object {
                Object::Binding(binding) => kinds.bindings.push(binding),
                Object::Link(link) => kinds.links.push(link),
                Object::Address(address) => kinds.addresses.push(address),
                Object::Neighbour(neighbour) => kinds.neighbours.push(neighbour),
                Object::Fdb(entry) => kinds.entries.push(entry),
                Object::WireguardPeer(peer) => kinds.peers.push(peer),
                Object::Route(route) => kinds.routes.push(route),
                Object::Sysctl(setting) => kinds.settings.push(setting),
                Object::Nat(rule) => kinds.rules.nft.push(rule),
                Object::Iptables(rule) => kinds.rules.iptables.push(rule),
                Object::Admission(admission) => kinds.rules.admissions.push(admission),
                Object::Zone(binding) => kinds.zones.push(binding),
                Object::ForwardPort(port) => kinds.forward_ports.push(port),
            }
        }
        kinds
    }
}

impl Kernel for Linux {
    async fn enter(&self, netns: Option<&Path>) -> Result<Self> {
        let sandbox = match netns {
            Some(path) => Some(Namespace::new(Some(Netns::open(path)?))),
            None => None,
        };
        Ok(Self { sandbox, known: Some(Arc::default()), ..self.clone() })
    }

    async fn survey(&self, attachments: usize) -> Result<Self> {
        let listing = if attachments < MANY { None } else { Listing::begin()?.map(Arc::new) };
        Ok(Self { listing, ..self.enter(None).await? })
    }

    async fn observe(&self, wanted: &[Object]) -> Result<State> {
        self.look(wanted, Interfaces::of(self, wanted).await?).await
    }

    async fn recall(&self, wanted: &[Object]) -> Result<State> {
        self.look(wanted, Interfaces::recalled(self, wanted).await?).await
    }
    async fn create(&self, objects: &[Object]) -> Result<()> {
        let rules = Kinds::from(objects).rules;
        if !rules.is_empty() {
            self.firewall.create(&rules)?;
        }
        for object in batch::carry_out(self, Change::Create, objects).await {
            self.create_one(object).await?;
        }
        Ok(())
    }

    async fn update(&self, was: &Object, object: &Object) -> Result<()> {
        match (was, object) {
            (Object::Link(was), Object::Link(link)) => link::update(self, was, link).await,
            // The prefix length is part of an address' key; there is nothing left to change.
            (Object::Address(_), Object::Address(_)) => Ok(()),
            (_, Object::Route(route)) => route::replace(self, route).await,
            (_, Object::Sysctl(setting)) => sysctl::write(self, setting),
            (was, rule) if rule.phase() == Phase::Firewall => self
                .firewall
                .update(&Kinds::from([was.clone()].as_slice()).rules, &Kinds::from([rule.clone()].as_slice()).rules),
            _ => self.create_one(object).await,
        }
    }

    async fn remove(&self, objects: &[Object]) -> Result<()> {
        let rules = Kinds::from(objects).rules;
        let mut errors = Vec::new();
        if !rules.is_empty() {
            errors.extend(self.firewall.remove(&rules).err());
        }
        for object in batch::carry_out(self, Change::Remove, objects).await {
            errors.extend(self.remove_one(object).await.err());
        }
        Error::from_list(errors)
    }

    async fn settle(&self, objects: &[Object]) -> Result<()> {
        settle::settle(self, objects).await
    }

    async fn default_link(&self, place: Place) -> Result<Option<InterfaceName>> {
        route::default_link(self, place).await
    }

    fn forwarding_switches(&self, ipv6: bool) -> Result<Vec<Sysctl>> {
        forwarding::switches(ipv6)
    }

    fn advertised_ways_out(&self) -> Result<Vec<Sysctl>> {
        forwarding::advertised_ways_out()
    }

    async fn host_addresses(&self, link: &InterfaceName) -> Result<Vec<IpAddr>> {
        address::of_host(self, link).await
    }

    async fn ways(&self, device: &InterfaceName, ranges: &[IpNetwork]) -> Result<State> {
        underlay::ways(self, device, ranges).await
    }

    async fn underlay(&self, address: IpAddr) -> Result<Option<Underlay>> {
        underlay::of_address(self, address).await
    }

    fn has_wireguard(&self) -> Result<bool> {
        wireguard::is_there()
    }

    async fn marked(&self, network: &Name) -> Result<Vec<Object>> {
        let mut marked = Vec::new();
        for place in [Place::Host, Place::Sandbox] {
            let Some(rtnl) = self.at(place)? else { continue };
            let links = seen::all(&rtnl).await.map_err(|refusal| refusal.error("list", "links"))?;
            let links = links.iter().filter_map(|seen| seen::marked(seen, place));
            let ours = links.filter(|link| link.mark.as_ref().is_some_and(|mark| mark.is_of(network)));
            marked.extend(ours.map(Object::Link));
        }
        marked.extend(self.firewall.marked(network)?);
        Ok(marked)
    }

    async fn left_behind(&self) -> Result<Vec<Object>> {
        bound::left_behind(self, &self.firewalld).await
    }

    fn identify(&self, netns: Option<&Path>) -> Result<NamespaceId> {
        binding::identify(netns)
    }

    async fn interfaces(&self, place: Place) -> Result<Vec<Object>> {
        interfaces::all(self, place).await
    }

    fn backend(&self, asked: Option<FirewallBackend>) -> Result<Backend> {
        self.firewall.backend(asked)
    }

    fn listener(&self, published: &[PortMapping]) -> Result<Option<Listener>> {
        listener::in_the_way(published)
    }
}
