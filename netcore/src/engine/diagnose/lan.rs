//! The way to and from containers on a link of the host's (macvlan): whom one reaches there is for the
//! links' modes to say, and the host's own rules see nothing of it. The host itself is reached by a link of
//! its own beside theirs, or not at all.

use std::net::IpAddr;

use super::container::Container;
use super::journey::{From, To};
use super::packet::{Packet, Wire};
use super::walk::{Arrival, Sent, Walk, usable};
use super::world::{HOST, NOBODY, macvlan, name};
use super::{Cure, Halt};
use crate::engine::desired;
use crate::kernel::Inspect;
use crate::model::rules::Hook;
use crate::model::{Interface, InterfaceName, LinkKind, MacvlanConfig, MacvlanMode, Object, Place};
use crate::plan::drift;
use crate::store::Record;

impl<'w, K: Inspect> Walk<'w, K> {
    /// Whether frames get from the master to the container, and back; the master.
    pub(super) async fn is_on_lan(
        &mut self,
        container: &Container<'w, K>,
        config: &MacvlanConfig,
    ) -> Result<Wire, Halt> {
        let (at, inside) = (container.name(), &container.record.attachment.id.interface);
        let again = || Cure::Advice("have its runtime start the container anew, which attaches it again".to_owned());
        match container.scene.interface(inside.as_str()) {
            None => return Err(Halt::at(&at, format!("interface {inside} is missing"), again())),
            Some(found) if !found.up => {
                let command = container.command(&format!("ip link set {inside} up"));
                return Err(Halt::at(&at, format!("link {inside} is down"), command));
            }
            Some(_) => {}
        }
        let Some(master) = config.master.as_ref().filter(|_| !config.link_in_container) else {
            return Err(Halt::Lost(format!("{at}: the way over a master in the container is not followed")));
        };
        let is_master = |object: &Object| matches!(object, Object::Link(link) if link.name == *master);
        let Some(found) = self.world.scene.interface(master.as_str()) else {
            let missing = || Halt::at(HOST, format!("link {master}, which it is on, is missing"), again());
            return Err(self.world.drift(container.record, is_master).unwrap_or_else(missing));
        };
        if found.kind == "bridge" {
            return Err(Halt::Lost(format!("{at}: the way over {master}, a bridge, is not followed")));
        }
        let wire = wire(found);
        self.link(&wire)?;
        self.is_as_asked_for(container).await?;
        self.pass(&at, format!("{inside} is on {master} (mode {})", config.mode));
        Ok(wire)
    }

    /// Whether the container's link is the one that was asked for.
    async fn is_as_asked_for(&self, container: &Container<'w, K>) -> Result<(), Halt> {
        let wanted = desired(container.record)?.attachment;
        let is_link =
            |object: &Object| matches!(object, Object::Link(link) if matches!(link.kind, LinkKind::Macvlan(_)));
        let links: Vec<Object> = wanted.into_iter().filter(is_link).collect();
        let differs = drift(&links, &container.kernel.observe(&links).await?);
        let Some(found) = differs.first() else { return Ok(()) };
        let inside = &container.record.attachment.id.interface;
        let mode = found.differences.iter().any(|difference| difference.field == "mode");
        let cure = match (mode, macvlan(container.record)) {
            (true, Some(config)) => {
                container.command(&format!("ip link set {inside} type macvlan mode {}", config.mode))
            }
            _ => Cure::Advice("have its runtime start the container anew, which attaches it again".to_owned()),
        };
        Err(Halt::at(&container.name(), found.to_string(), cure))
    }

    /// What the container has sent, on the master: who gets it.
    pub(super) async fn sends_on_lan(
        &mut self,
        container: &Container<'w, K>,
        config: &MacvlanConfig,
        packet: &mut Packet,
        next_hop: IpAddr,
    ) -> Result<Sent<'w>, Halt> {
        let master = self.is_on_lan(container, config).await?;
        let to = packet.destination.ip();
        if let Some(other) = self.world.attached(next_hop).filter(|record| self.is_beside(record, config)) {
            if next_hop != to {
                return Err(container.misrouted(to, next_hop).await);
            }
            return Ok(Sent::Neighbour(other));
        }
        if let Some(own) = self.host_on_lan(container.record, config, next_hop)? {
            self.heard_by(master, packet)?;
            packet.came_by = Some(own);
            return Ok(Sent::Host);
        }
        let own = container.wire().map(|wire| wire.index);
        let is_silent = container
            .scene
            .neighbours
            .iter()
            .any(|neighbour| neighbour.failed && neighbour.address == next_hop && Some(neighbour.interface) == own);
        if is_silent {
            let advice = format!("see that {next_hop} is there and reachable over {}", master.name);
            return Err(Halt::at(&container.name(), format!("{next_hop} does not answer"), Cure::Advice(advice)));
        }
        if next_hop != to && (self.world.scene.is_local(to) || self.world.attached(to).is_some()) {
            return Err(Halt::Lost(format!("whether {next_hop} leads back to {to}, which is here, is not known")));
        }
        self.pass(HOST, format!("leaves by {} to {next_hop}, past the host's own rules", master.name));
        Ok(Sent::Beyond)
    }

    /// Whether the container of `record` is on the same master as one of `config`.
    fn is_beside(&self, record: &Record, config: &MacvlanConfig) -> bool {
        macvlan(record).is_some_and(|its| its.master == config.master && !its.link_in_container)
    }

    /// From one container on a master to another.
    pub(super) fn over_lan(&self, from: &Record, to: &Record) -> Result<(), Halt> {
        let (Some(one), Some(other)) = (macvlan(from), macvlan(to)) else { return Ok(()) };
        let master = one.master.as_ref().map_or("", InterfaceName::as_str);
        match (one.mode, other.mode) {
            (MacvlanMode::Bridge, MacvlanMode::Bridge) => Ok(()),
            (mode @ MacvlanMode::Private, _) | (_, mode @ MacvlanMode::Private) => {
                let by = format!("mode {mode} keeps containers on {master} from each other");
                let advice = "attach them to a network of mode bridge".to_owned();
                Err(Halt::at(HOST, by, Cure::Advice(advice)))
            }
            (one, other) => Err(Halt::Lost(format!(
                "whether the switch behind {master} sends frames back, as modes {one} and {other} need, is not known"
            ))),
        }
    }

    /// The interface by which the host hears what containers beside `record` send to `address`; nothing
    /// if that is not the host's.
    fn host_on_lan(&self, record: &Record, config: &MacvlanConfig, address: IpAddr) -> Result<Option<Wire>, Halt> {
        let scene = &self.world.scene;
        let owners: Vec<&Interface> =
            scene.interfaces.iter().filter(|found| found.addresses.iter().any(|own| own.ip() == address)).collect();
        if owners.is_empty() {
            return Ok(None);
        }
        let beside = InterfaceName::host_access(&record.network.name);
        if let Some(own) = owners.iter().find(|found| config.host_access && found.name == beside.as_str()) {
            return Ok(Some(wire(own)));
        }
        Err(self.no_host_access(record, config))
    }

    /// A master never hears what is sent on it from here.
    fn no_host_access(&self, record: &Record, config: &MacvlanConfig) -> Halt {
        let is_meant = |object: &Object| object.place() == Some(Place::Host);
        let master = config.master.as_ref().map_or("", InterfaceName::as_str);
        self.world.drift(record, is_meant).unwrap_or_else(|| {
            let by = format!("the host and its macvlan containers do not reach each other over {master}");
            let advice = "set \"hostAccess\": true in the network's configuration, and attach its containers again";
            Halt::at(HOST, by, Cure::Advice(advice.to_owned()))
        })
    }

    /// What leaves the host by `by` for the container of `record`, on its master.
    pub(super) fn host_reaches(&self, record: &Record, config: &MacvlanConfig, by: &Wire) -> Result<(), Halt> {
        let beside = InterfaceName::host_access(&record.network.name);
        if config.host_access && by.name == beside.as_str() {
            return Ok(());
        }
        match config.master.as_ref() {
            Some(master) if by.name != master.as_str() && !config.host_access => Err(Halt::Lost(format!(
                "{}: whether what leaves by {} comes back by {master} is not known",
                name(record),
                by.name
            ))),
            _ => Err(self.no_host_access(record, config)),
        }
    }

    /// Into a container on a link of the host's: from another one there, from the host by its own link beside
    /// theirs, or from outside, past the host.
    pub(super) async fn comes_from_lan(
        &mut self,
        container: &Container<'w, K>,
        packet: &mut Packet,
        from: Option<&Container<'w, K>>,
    ) -> Result<(), Halt> {
        let Some(config) = macvlan(container.record) else { return Ok(()) };
        let master = self.is_on_lan(container, config).await?;
        if let Some(from) = from {
            self.over_lan(from.record, container.record)?;
        }
        self.heard_by(master, packet)
    }

    /// What goes from one link on `master` to another is taken from there as if it had come from outside
    /// (drivers/net/macvlan.c, macvlan_queue_xmit).
    fn heard_by(&mut self, master: Wire, packet: &mut Packet) -> Result<(), Halt> {
        packet.came_by = Some(master);
        packet.leaves_by = None;
        self.hook(Hook::Ingress, packet).map(drop)
    }

    /// The answer to what has left past the host.
    pub(super) async fn answer_from_beyond(&mut self, answer: &mut Packet) -> Result<(), Halt> {
        let From::Container(record) = self.journey.from else { return Ok(()) };
        let container = Container::enter(self.world, record).await?;
        self.comes_from_lan(&container, answer, None).await?;
        self.enter_hooks(&container, answer)?;
        self.pass(&name(record), "the answer has arrived");
        Ok(())
    }

    /// Whether what the host sends by `by` gets to the container.
    pub(super) async fn delivers(&mut self, container: &Container<'w, K>, by: &Wire) -> Result<(), Halt> {
        match macvlan(container.record) {
            Some(config) => {
                self.host_reaches(container.record, config, by)?;
                self.is_on_lan(container, config).await.map(drop)
            }
            None => container.is_connected(self),
        }
    }

    /// The address that a container on a link knows the host by.
    pub(super) fn host_address_on_lan(&self, record: &Record, config: &MacvlanConfig) -> Result<IpAddr, Halt> {
        let beside = InterfaceName::host_access(&record.network.name);
        let links = [Some(&beside).filter(|_| config.host_access), config.master.as_ref()];
        let found = links.into_iter().flatten().filter_map(|link| self.world.scene.interface(link.as_str()));
        let mut own = found.filter_map(|interface| usable(interface, self.journey.v6));
        own.next().ok_or_else(|| {
            let advice = "name one of the host's addresses".to_owned();
            Halt::at(HOST, "has no address of that IP version there", Cure::Advice(advice))
        })
    }

    /// The container on a link of the host's that is sent to, if it is one.
    pub(super) fn meant_on_lan(&self) -> Option<&'w Record> {
        let record = match self.journey.to {
            To::Container(record) => Some(record),
            To::Address(address) => self.world.attached(address),
            _ => None,
        };
        record.filter(|record| macvlan(record).is_some())
    }

    /// From outside to the container of `record`, on its link.
    pub(super) async fn outside_sends_on_lan(
        &mut self,
        record: &'w Record,
        from: Option<IpAddr>,
    ) -> Result<(Packet, Arrival<'w, K>), Halt> {
        let to = match self.journey.to {
            To::Address(address) => address,
            _ => self.address_of(record)?,
        };
        let from = from.unwrap_or(NOBODY[usize::from(self.journey.v6)]);
        let mut packet = self.journey.packet(from, to, self.journey.flow.port);
        self.remember(&packet);
        let arrival = self.reach_container(record, &mut packet, None).await?;
        Ok((packet, arrival))
    }
}

fn wire(found: &Interface) -> Wire {
    Wire { index: found.index, name: found.name.clone() }
}
