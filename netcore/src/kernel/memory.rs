//! A kernel in memory, for tests of everything above the kernel: it holds objects, keeps the
//! rules that the engine relies on (a removed link takes its addresses and routes along, a host
//! port has one owner, no firewalld runs), and fails a chosen change, or kills its caller there.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

use super::Kernel;
use crate::error::{Error, Result};
use crate::model::{
    Backend, Binding, FirewallBackend, InterfaceName, Link, LinkKind, Listener, Name, NamespaceId, NatRule, Object,
    Phase, Place, PortMapping, State, Sysctl, Underlay, Variant, Vlan, fingerprint,
};

/// A kernel in memory. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    held: Arc<Mutex<Held>>,
    sandbox: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Held {
    /// Objects, each with the sandbox it was made in or for.
    objects: Vec<(Option<PathBuf>, Object)>,
    /// How many changes until the trap springs; `None` without a trap.
    until_trap: Option<usize>,
    trap: Trap,
    listeners: Vec<Listener>,
    /// Namespace files that were removed.
    gone: HashSet<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Trap {
    #[default]
    Fail,
    Kill,
}

impl Memory {
    /// An empty kernel.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next `changes` changes succeed; the one after fails, once.
    pub fn fail_after(&self, changes: usize) {
        let mut held = self.held();
        (held.until_trap, held.trap) = (Some(changes), Trap::Fail);
    }

    /// The next `changes` changes succeed; the one after panics before it changes anything, so
    /// that its caller ends where `kill -9` would have ended it.
    pub fn kill_after(&self, changes: usize) {
        let mut held = self.held();
        (held.until_trap, held.trap) = (Some(changes), Trap::Kill);
    }

    /// Takes the trap away, and says whether it was still set.
    pub fn disarm(&self) -> bool {
        self.held().until_trap.take().is_some()
    }

    /// Everything held, in the order it was made.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.held().objects.iter().map(|(_, object)| object.clone()).collect()
    }

    /// Puts `object` there as somebody else would.
    pub fn put(&self, object: Object) {
        let sandbox = self.sandbox_of(&object);
        self.held().objects.push((sandbox, object));
    }

    /// Takes away what is `object`'s equal, as somebody else would.
    pub fn take(&self, object: &Object) {
        self.held().objects.retain(|(_, held)| held != object);
    }

    /// Has somebody listen on the host.
    pub fn listen(&self, listener: Listener) {
        self.held().listeners.push(listener);
    }

    /// Removes the namespace file at `path`, and whatever was bound there.
    pub fn remove_file(&self, path: &Path) {
        let mut held = self.held();
        held.objects.retain(|(_, object)| !matches!(object, Object::Binding(binding) if binding.path == path));
        held.gone.insert(path.to_owned());
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox_of(&self, object: &Object) -> Option<PathBuf> {
        let in_sandbox = match object {
            Object::Link(Link { place, kind, .. }) => *place == Place::Sandbox || matches!(kind, LinkKind::Veth(_)),
            Object::Address(address) => address.place == Place::Sandbox,
            Object::Neighbour(neighbour) => neighbour.place == Place::Sandbox,
            Object::Fdb(entry) => entry.place == Place::Sandbox,
            Object::WireguardPeer(peer) => peer.place == Place::Sandbox,
            Object::Route(route) => route.place == Place::Sandbox,
            Object::Sysctl(sysctl) => sysctl.place == Place::Sandbox,
            Object::Binding(_)
            | Object::Nat(_)
            | Object::Iptables(_)
            | Object::Admission(_)
            | Object::Zone(_)
            | Object::ForwardPort(_) => false,
        };
        in_sandbox.then(|| self.sandbox.clone()).flatten()
    }

    /// Counts one change, and springs the trap when its time has come.
    fn change(&self, operation: &'static str, object: &Object) -> Result<MutexGuard<'_, Held>> {
        let mut held = self.held();
        match held.until_trap {
            Some(0) => {
                held.until_trap = None;
                match held.trap {
                    Trap::Fail => Err(Error::Kernel {
                        operation,
                        object: object.to_string(),
                        source: std::io::ErrorKind::Other.into(),
                        detail: Some("the test wanted this to fail".to_owned()),
                    }),
                    Trap::Kill => panic!("killed before it could {operation} {object}"),
                }
            }
            Some(left) => {
                held.until_trap = Some(left - 1);
                Ok(held)
            }
            None => Ok(held),
        }
    }
}

impl Held {
    fn bound(&self, path: &Path) -> Option<&Binding> {
        self.objects.iter().find_map(|(_, object)| match object {
            Object::Binding(binding) if binding.path == path => Some(binding),
            _ => None,
        })
    }

    fn position(&self, sandbox: Option<&Path>, object: &Object) -> Option<usize> {
        let key = object.key();
        // The host's end of a pair is found from anywhere.
        let host_link = matches!(object, Object::Link(Link { place: Place::Host, .. }));
        self.objects.iter().position(|(place, held)| held.key() == key && (host_link || place.as_deref() == sandbox))
    }

    /// The switch of all interfaces throws each one's own.
    fn switch_all(&mut self, object: &Object) {
        let Object::Sysctl(all) = object else { return };
        let family = match all.name.as_str() {
            "net/ipv4/ip_forward" => "ipv4",
            "net/ipv6/conf/all/forwarding" => "ipv6",
            _ => return,
        };
        for (_, held) in &mut self.objects {
            if let Object::Sysctl(one) = held
                && is_switch_of_one(&one.name, family)
            {
                one.value.clone_from(&all.value);
            }
        }
    }

    fn remove_dependents(&mut self, sandbox: Option<&Path>, place: Place, link: &InterfaceName) {
        self.objects.retain(|(held_in, object)| {
            let on = match object {
                Object::Address(address) => (address.place, &address.link),
                Object::Neighbour(neighbour) => (neighbour.place, &neighbour.link),
                Object::Fdb(entry) => (entry.place, &entry.link),
                Object::WireguardPeer(peer) => (peer.place, &peer.link),
                Object::Route(route) => (route.place, &route.link),
                _ => return true,
            };
            on != (place, link) || (place == Place::Sandbox && held_in.as_deref() != sandbox)
        });
    }
}

/// Whether a setting is an interface's own forwarding switch.
fn is_switch_of_one(name: &str, family: &str) -> bool {
    let interface = name.strip_prefix("net/").and_then(|rest| rest.strip_prefix(family)?.strip_prefix("/conf/"));
    interface.is_some_and(|rest| rest.ends_with("/forwarding") && !rest.starts_with("all/"))
}

/// What `object` stands on, or on what that will be made.
fn parents(object: &Object) -> Vec<(Place, InterfaceName)> {
    match object {
        Object::Link(Link { kind: LinkKind::Macvlan(macvlan), .. }) => {
            let vlan = Vlan::of_name(&macvlan.parent).map(|vlan| vlan.parent);
            vlan.into_iter().chain([macvlan.parent.clone()]).map(|name| (macvlan.parent_place, name)).collect()
        }
        Object::Link(Link { place, kind: LinkKind::Vlan(vlan), .. }) => vec![(*place, vlan.parent.clone())],
        _ => Vec::new(),
    }
}

impl Kernel for Memory {
    async fn enter(&self, netns: Option<&Path>) -> Result<Self> {
        if let Some(path) = netns {
            self.identify(netns)?;
            // Who enters a bound file is where it is bound to.
            let there = self.held().bound(path).map(|binding| binding.to.found_at.clone());
            return Ok(Self { held: self.held.clone(), sandbox: there.unwrap_or_else(|| netns.map(Path::to_owned)) });
        }
        Ok(Self { held: self.held.clone(), sandbox: None })
    }

    async fn observe(&self, wanted: &[Object]) -> Result<State> {
        let held = self.held();
        let mut seen: Vec<Object> = Vec::new();
        for object in wanted {
            let sandbox = self.sandbox_of(object);
            if let Some(position) = held.position(sandbox.as_deref(), object) {
                seen.push(held.objects[position].1.clone());
            }
            for (place, name) in parents(object) {
                let key = crate::model::Key::Link(place, name);
                let is_wanted = wanted.iter().any(|object| object.key() == key);
                let found = held.objects.iter().find(|(_, held)| held.key() == key).map(|(_, parent)| parent.clone());
                seen.extend(found.filter(|parent| !is_wanted && !seen.contains(parent)));
            }
            match object {
                // As where no firewalld runs: there is nothing to ask for.
                Object::Zone(_) | Object::ForwardPort(_) => seen.push(object.clone()),
                Object::Address(address) => seen.extend(held.objects.iter().filter_map(|(place, other)| match other {
                    Object::Address(other)
                        if (other.place, &other.link) == (address.place, &address.link)
                            && other.address != address.address
                            && *place == sandbox =>
                    {
                        Some(Object::Address(other.clone()))
                    }
                    _ => None,
                })),
                Object::Link(Link { kind: LinkKind::Veth(veth), .. }) => {
                    seen.extend(held.objects.iter().filter_map(|(place, other)| match other {
                        Object::Link(link)
                            if link.place == Place::Sandbox && link.name == veth.peer && *place == sandbox =>
                        {
                            Some(other.clone())
                        }
                        Object::Link(Link { name, kind: LinkKind::Veth(other), .. })
                            if other.peer == veth.peer
                                && *place == sandbox
                                && object.key() != crate::model::Key::Link(Place::Host, name.clone()) =>
                        {
                            Some(Object::Link(Link {
                                place: Place::Sandbox,
                                name: veth.peer.clone(),
                                kind: LinkKind::Other { name: "veth".to_owned() },
                                mark: None,
                                mac: other.peer_mac,
                                mtu: other.peer_mtu,
                                up: other.peer_up,
                                port: None,
                            }))
                        }
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        Ok(State(seen))
    }

    async fn create(&self, objects: &[Object]) -> Result<()> {
        let Some(first) = objects.first() else { return Ok(()) };
        if first.phase() != Phase::Firewall && objects.len() > 1 {
            // No transaction: each is made or not.
            for object in objects {
                Box::pin(self.create(std::slice::from_ref(object))).await?;
            }
            return Ok(());
        }
        let mut held = self.change("create", first)?;
        for object in objects {
            let sandbox = self.sandbox_of(object);
            match held.position(sandbox.as_deref(), object) {
                None => {}
                Some(position) if held.objects[position].1 == *object && first.phase() == Phase::Routes => continue,
                // Making the table again mends it.
                Some(position) if matches!(object.rule(), Some(NatRule::Ruleset { .. })) => {
                    held.objects[position].1 = object.clone();
                    continue;
                }
                Some(_)
                    if object.phase() == Phase::Firewall && !matches!(object.rule(), Some(NatRule::Publish { .. })) =>
                {
                    continue;
                }
                Some(_) => {
                    return Err(Error::Kernel {
                        operation: "create",
                        object: object.to_string(),
                        source: std::io::ErrorKind::AlreadyExists.into(),
                        detail: None,
                    });
                }
            }
            held.objects.push((sandbox, object.clone()));
        }
        Ok(())
    }

    async fn update(&self, was: &Object, object: &Object) -> Result<()> {
        let mut held = self.change("update", object)?;
        let sandbox = self.sandbox_of(object);
        let mut object = object.clone();
        if let Some(position) = held.position(sandbox.as_deref(), was) {
            // Who made a bridge does not change with its settings.
            if let (Object::Link(now), Object::Link(was)) = (&mut object, &held.objects[position].1) {
                now.mark.clone_from(&was.mark);
                now.mac = now.mac.or(was.mac);
            }
            held.objects[position].1 = object.clone();
        }
        held.switch_all(&object);
        Ok(())
    }

    async fn remove(&self, objects: &[Object]) -> Result<()> {
        let Some(first) = objects.first() else { return Ok(()) };
        if first.phase() != Phase::Firewall && objects.len() > 1 {
            let mut errors = Vec::new();
            for object in objects {
                errors.extend(Box::pin(self.remove(std::slice::from_ref(object))).await.err());
            }
            return Error::from_list(errors);
        }
        let mut held = self.change("remove", first)?;
        for object in objects {
            let mut sandbox = self.sandbox_of(object);
            // As the real one, it looks by itself whether an element of the firewall is its owner's.
            let is_owners = |position: &usize| {
                object.phase() != Phase::Firewall || held.objects[*position].1.mark() == object.mark()
            };
            if let Some(position) = held.position(sandbox.as_deref(), object).filter(is_owners) {
                sandbox = held.objects.remove(position).0;
            }
            if let Object::Link(link) = object {
                held.remove_dependents(sandbox.as_deref(), link.place, &link.name);
                if let LinkKind::Veth(veth) = &link.kind {
                    held.remove_dependents(sandbox.as_deref(), Place::Sandbox, &veth.peer);
                }
            }
        }
        Ok(())
    }

    async fn settle(&self, _objects: &[Object]) -> Result<()> {
        Ok(())
    }

    async fn default_link(&self, place: Place) -> Result<Option<InterfaceName>> {
        let held = self.held();
        let mut defaults = held.objects.iter().filter_map(|(_, object)| match object {
            Object::Route(route) if route.place == place && route.destination.prefix() == 0 => Some(route.link.clone()),
            _ => None,
        });
        Ok(defaults.next())
    }

    fn forwarding_switches(&self, ipv6: bool) -> Result<Vec<Sysctl>> {
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        let of_all = if ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" };
        let is_meant = |setting: &Sysctl| setting.name == of_all || is_switch_of_one(&setting.name, family);
        let held = self.held();
        let settings = held.objects.iter().filter_map(|(_, object)| match object {
            Object::Sysctl(setting) if setting.place == Place::Host && is_meant(setting) => Some(setting.clone()),
            _ => None,
        });
        Ok(settings.collect())
    }

    fn advertised_ways_out(&self) -> Result<Vec<Sysctl>> {
        Ok(Vec::new())
    }

    async fn host_addresses(&self, link: &InterfaceName) -> Result<Vec<IpAddr>> {
        let held = self.held();
        let addresses = held.objects.iter().filter_map(|(_, object)| match object {
            Object::Address(address) if address.place == Place::Host && address.link == *link => {
                Some(address.address.ip())
            }
            _ => None,
        });
        Ok(addresses.collect())
    }

    async fn ways(&self, device: &InterfaceName, ranges: &[IpNetwork]) -> Result<State> {
        let is_way = |object: &&Object| match object {
            Object::Neighbour(neighbour) => neighbour.link == *device,
            Object::Fdb(entry) => entry.link == *device,
            Object::WireguardPeer(peer) => peer.link == *device,
            Object::Route(route) => {
                let to = route.destination;
                let leads_into = |range: &IpNetwork| range.contains(to.network()) && range.prefix() <= to.prefix();
                route.place == Place::Host && ranges.iter().any(leads_into)
            }
            _ => false,
        };
        Ok(State(self.objects().iter().filter(is_way).cloned().collect()))
    }

    fn has_wireguard(&self) -> Result<bool> {
        Ok(true)
    }

    /// An address on an interface of which nothing else is known has an Ethernet's MTU.
    async fn underlay(&self, address: IpAddr) -> Result<Option<Underlay>> {
        let objects = self.objects();
        let holder = objects.iter().find_map(|object| match object {
            Object::Address(held) if held.place == Place::Host && held.address.ip() == address => Some(held),
            _ => None,
        });
        let Some(holder) = holder else { return Ok(None) };
        let mtu = State(objects.clone()).link(Place::Host, &holder.link).and_then(|link| link.mtu).unwrap_or(1500);
        let segment = IpNetwork::new(holder.address.network(), holder.address.prefix()).unwrap_or(holder.address);
        Ok(Some(Underlay { address, link: holder.link.clone(), mtu, segment }))
    }

    async fn marked(&self, network: &Name) -> Result<Vec<Object>> {
        let held = self.held();
        let marked = |object: &&Object| object.mark().is_some_and(|mark| mark.is_of(network));
        Ok(held.objects.iter().map(|(_, object)| object).filter(marked).cloned().collect())
    }

    fn identify(&self, netns: Option<&Path>) -> Result<NamespaceId> {
        let Some(path) = netns else { return Ok(NamespaceId { device: 0, inode: 1 }) };
        let held = self.held();
        if held.gone.contains(path) {
            return Err(Error::Netns { path: path.to_owned(), reason: "is gone".to_owned(), source: None });
        }
        let unbound = || NamespaceId { device: 0, inode: fingerprint(path.as_os_str().as_encoded_bytes()) };
        Ok(held.bound(path).map_or_else(unbound, |binding| binding.to.id))
    }

    async fn interfaces(&self, place: Place) -> Result<Vec<Object>> {
        let held = self.held();
        let sandbox = self.sandbox.as_ref().filter(|_| place == Place::Sandbox);
        // On the host's side of things, the sandbox is the host.
        let there = if sandbox.is_some() { Place::Sandbox } else { Place::Host };
        let mut links: Vec<Link> = Vec::new();
        for (made_in, object) in &held.objects {
            match object {
                Object::Link(Link { kind: LinkKind::Veth(veth), .. })
                    if made_in.as_ref() == sandbox && there == Place::Sandbox =>
                {
                    let kind = LinkKind::Other { name: "veth".to_owned() };
                    let name = veth.peer.clone();
                    let up = veth.peer_up;
                    links.push(Link { place, name, kind, mark: None, mac: veth.peer_mac, mtu: None, up, port: None });
                }
                Object::Link(Link { kind: LinkKind::Veth(_) | LinkKind::Loopback, .. }) => {}
                Object::Link(link) if link.place == there && made_in.as_ref() == sandbox => links.push(link.clone()),
                _ => {}
            }
        }
        let addresses = |link: &Link| {
            let on = |(made_in, object): &&(Option<PathBuf>, Object)| {
                matches!(object, Object::Address(address) if address.link == link.name && address.place == there)
                    && made_in.as_ref() == sandbox
            };
            held.objects.iter().filter(on).map(|(_, object)| object.clone()).collect::<Vec<_>>()
        };
        Ok(links.into_iter().flat_map(|link| [vec![Object::Link(link.clone())], addresses(&link)].concat()).collect())
    }

    fn backend(&self, asked: Option<FirewallBackend>) -> Result<Backend> {
        Ok(match asked {
            Some(FirewallBackend::Iptables) => Backend::Iptables(Variant::Nft),
            Some(FirewallBackend::Nftables) | None => Backend::Nftables,
        })
    }

    fn listener(&self, published: &[PortMapping]) -> Result<Option<Listener>> {
        let in_the_way = |listener: &&Listener| published.iter().any(|mapping| listener.is_in_the_way_of(mapping));
        Ok(self.held().listeners.iter().find(in_the_way).cloned())
    }
}
