//! A flow from its beginning to its end, and its answer's way back.

use std::net::{IpAddr, SocketAddr};

use super::container::Container;
use super::journey::{From, Journey, To};
use super::packet::{Packet, Wire};
use super::world::{HOST, NOBODY, World, addresses, macvlan, name};
use super::{Cure, Halt, Passed};
use crate::kernel::Inspect;
use crate::model::rules::Hook;
use crate::model::{Interface, Listener, NatRule, Object, Place, Protocol, RouteQuestion, Table, Way};
use crate::store::Record;

/// One flow, on its way.
pub(super) struct Walk<'w, K> {
    pub(super) world: &'w World<K>,
    pub(super) journey: &'w Journey<'w>,
    pub(super) passed: Vec<Passed>,
    pub(super) doubts: Vec<String>,
    /// What the host has translated: the addresses of the first packet before and after.
    pub(super) translated: Option<(Packet, Packet)>,
}

/// What becomes of what a container has sent.
pub(super) enum Sent<'w> {
    /// It has come to the host's routing.
    Host,
    /// A neighbour gets it, whom nobody routes to.
    Neighbour(&'w Record),
    /// It has left past the host.
    Beyond,
}

/// Where a packet has come to.
pub(super) enum Arrival<'w, K> {
    /// A program on the host has it.
    Host,
    /// It has left the host by this interface.
    Outside(Wire),
    /// It has left past the host, and so comes the answer.
    Beyond,
    /// A program in a container has it.
    Container(Box<Container<'w, K>>),
}

impl<'w, K: Inspect> Walk<'w, K> {
    pub(super) fn new(world: &'w World<K>, journey: &'w Journey<'w>) -> Self {
        Self { world, journey, passed: Vec::new(), doubts: Vec::new(), translated: None }
    }

    /// Follows the first packet, and then the answer.
    pub(super) async fn follow(&mut self) -> Result<(), Halt> {
        let mut packet;
        let arrival;
        match self.journey.from {
            From::Host => {
                let (to, port) = self.destination(None)?;
                packet = self.journey.packet(to, to, port);
                packet.source = SocketAddr::new(self.source_for(to).await?, packet.source.port());
                self.remember(&packet);
                arrival = self.host_sends(&mut packet).await?;
            }
            From::Outside(address) if let Some(record) = self.meant_on_lan() => {
                (packet, arrival) = self.outside_sends_on_lan(record, address).await?;
            }
            From::Outside(address) => {
                let (mut wire, next_hop) = self.uplink(address).await?;
                let (to, port) = self.destination(Some(&wire))?;
                // What is sent to an address of a link comes by that link, wherever answers go.
                if let Some(own) =
                    self.world.scene.owner(to).filter(|own| !["bridge", "loopback"].contains(&own.kind.as_str()))
                {
                    wire = self.wire(own.index);
                }
                packet = self.journey.packet(address.unwrap_or(next_hop), to, port);
                packet.came_by = Some(wire);
                self.remember(&packet);
                arrival = self.host_receives(&mut packet).await?;
            }
            From::Container(record) => {
                let container = Container::enter(self.world, record).await?;
                let (to, port) = self.destination_from(record).await?;
                let own = container.address(to.is_ipv6())?;
                packet = self.journey.packet(own, to, port);
                self.remember(&packet);
                arrival = match self.container_sends(&container, &mut packet).await? {
                    Sent::Neighbour(record) => self.reach_container(record, &mut packet, Some(&container)).await?,
                    Sent::Host => self.host_receives(&mut packet).await?,
                    Sent::Beyond => Arrival::Beyond,
                };
            }
        }
        self.follow_answer(packet, arrival).await
    }

    pub(super) async fn follow_answer(&mut self, packet: Packet, arrival: Arrival<'w, K>) -> Result<(), Halt> {
        if let Some((_, after)) = &mut self.translated {
            *after = packet.clone();
        }
        let mut answer = packet.answer();
        let out = match arrival {
            Arrival::Host => {
                let out = self.route_out(&mut answer).await?;
                self.hook(Hook::Output, &mut answer)?;
                self.leave_translated(&mut answer)?;
                Some(out)
            }
            Arrival::Outside(wire) => {
                answer.came_by = Some(wire);
                self.host_passes(&mut answer).await?
            }
            Arrival::Beyond => return self.answer_from_beyond(&mut answer).await,
            Arrival::Container(container) => match self.container_sends(&container, &mut answer).await? {
                // It never came to the host's routing, and neither does the answer.
                Sent::Neighbour(_) | Sent::Beyond if !packet.dnat => return Ok(()),
                Sent::Neighbour(_) | Sent::Beyond => return Err(self.around_host(container.record, &packet)),
                Sent::Host => self.host_passes(&mut answer).await?,
            },
        };
        let Some((wire, next_hop)) = out else {
            self.pass(HOST, "the answer is for the host itself");
            return Ok(());
        };
        let receiver = match self.journey.from {
            From::Container(record) => Some(record),
            _ => None,
        };
        match receiver {
            Some(record) => {
                let container = Container::enter(self.world, record).await?;
                self.leads_to(record, answer.destination.ip(), &wire, next_hop)?;
                self.delivers(&container, &wire).await?;
                self.enter_hooks(&container, &mut answer)?;
                self.pass(&name(record), "the answer has arrived");
            }
            None if wire.name != "lo" => {
                self.link(&wire)?;
                self.pass(HOST, format!("the answer leaves by {} to {next_hop}", wire.name));
            }
            None => self.pass(HOST, "the answer stays on the host"),
        }
        Ok(())
    }

    /// The answer to what the host has translated does not come back through the host: its client has asked
    /// somebody else.
    pub(super) fn around_host(&self, record: &Record, packet: &Packet) -> Halt {
        let is_meant = |object: &Object| {
            matches!(object.rule(), Some(NatRule::Ruleset { table: Table::Inet, .. } | NatRule::Hairpin { .. }))
        };
        self.world.drift(record, is_meant).unwrap_or_else(|| {
            let by = format!("the answer goes to {} directly, and not through the host", packet.source.ip());
            Halt::at(&name(record), by, Cure::repair())
        })
    }

    pub(super) fn pass(&mut self, at: &str, what: impl Into<String>) {
        self.passed.push(Passed { at: at.to_owned(), what: what.into() });
    }

    pub(super) fn remember(&mut self, packet: &Packet) {
        self.translated = Some((packet.clone(), packet.clone()));
    }

    /// The address and port that a sender uses who is outside, behind `uplink`, or the host itself.
    pub(super) fn destination(&self, uplink: Option<&Wire>) -> Result<(IpAddr, u16), Halt> {
        let port = self.journey.flow.port;
        let own = || match uplink {
            None => Ok(self.journey.loopback()),
            Some(wire) => self.own_address(wire).ok_or_else(|| {
                let by = format!("{} has no address of that IP version", wire.name);
                Halt::at(HOST, by, Cure::Advice("give the link an address".to_owned()))
            }),
        };
        match self.journey.to {
            To::Address(address) => Ok((address, port)),
            To::Host => Ok((own()?, port)),
            To::Outside if uplink.is_some() => Err(Halt::at(
                HOST,
                "from outside to outside is not this host's affair",
                Cure::Advice("name a container, `host` or an address".to_owned()),
            )),
            To::Outside => Ok((NOBODY[usize::from(self.journey.v6)], port)),
            To::Container(record) if uplink.is_none() => Ok((self.address_of(record)?, port)),
            To::Container(record) => match self.journey.mapping(record) {
                Some((mapping, port)) => {
                    let on = mapping.host_address.filter(|address| !address.is_unspecified());
                    Ok((on.map_or_else(own, Ok)?, port))
                }
                None => Err(Halt::at(
                    &name(record),
                    format!("port {port}/{} is not published", self.journey.flow.protocol),
                    Cure::Advice(format!("start the container with port {port} published")),
                )),
            },
        }
    }

    /// The address and port that the container of `record` uses.
    pub(super) async fn destination_from(&self, record: &Record) -> Result<(IpAddr, u16), Halt> {
        let port = self.journey.flow.port;
        match (&self.journey.to, macvlan(record)) {
            (To::Address(address), _) => Ok((*address, port)),
            (To::Container(other), _) => Ok((self.address_of(other)?, port)),
            (To::Outside, Some(_)) => Ok((NOBODY[usize::from(self.journey.v6)], port)),
            (To::Host, Some(config)) => Ok((self.host_address_on_lan(record, config)?, port)),
            (To::Outside, None) => Ok((self.uplink(None).await?.1, port)),
            (To::Host, None) => {
                let leased = record.lease.iter().flat_map(|lease| &lease.addresses);
                let mut gateways = leased.filter_map(|leased| leased.gateway);
                let gateway = gateways.find(|gateway| gateway.is_ipv6() == self.journey.v6);
                Ok((gateway.unwrap_or(self.uplink(None).await?.1), port))
            }
        }
    }

    pub(super) fn address_of(&self, record: &Record) -> Result<IpAddr, Halt> {
        addresses(record).find(|address| address.is_ipv6() == self.journey.v6).ok_or_else(|| {
            let version = if self.journey.v6 { "IPv6" } else { "IPv4" };
            let advice = "ask for the other IP version, or attach it to a network that has this one".to_owned();
            Halt::at(&name(record), format!("has no {version} address"), Cure::Advice(advice))
        })
    }

    /// The interface that leads to the outside, or to `address` there, and the next hop.
    pub(super) async fn uplink(&self, address: Option<IpAddr>) -> Result<(Wire, IpAddr), Halt> {
        let to = address.unwrap_or(NOBODY[usize::from(self.journey.v6)]);
        match self.way(to, None, None).await? {
            Way::Out { interface, gateway, .. } => Ok((self.wire(interface), gateway.unwrap_or(to))),
            _ => Err(Halt::at(
                HOST,
                if address.is_some() { format!("no route to {to}") } else { "no default route".to_owned() },
                Cure::Command(format!(
                    "ip route add {} via GATEWAY",
                    if address.is_some() { to.to_string() } else { "default".to_owned() }
                )),
            )),
        }
    }

    pub(super) async fn source_for(&self, to: IpAddr) -> Result<IpAddr, Halt> {
        Ok(match self.way(to, None, None).await? {
            Way::Out { source: Some(source), .. } => source,
            Way::Out { interface, .. } => self.own_address(&self.wire(interface)).unwrap_or(to),
            // The host sends to itself from where it sends to.
            Way::Local => to,
            Way::Refused(why) => return Err(self.refused(to, None, None, why).await),
        })
    }

    /// Over a bridge, or a link of the host's, to the container of `record`, and to whoever listens there.
    pub(super) async fn reach_container(
        &mut self,
        record: &'w Record,
        packet: &mut Packet,
        bridged_from: Option<&Container<'w, K>>,
    ) -> Result<Arrival<'w, K>, Halt> {
        let container = Container::enter(self.world, record).await?;
        if macvlan(record).is_some() {
            self.comes_from_lan(&container, packet, bridged_from).await?;
        } else {
            container.is_connected(self)?;
            if let Some(from) = bridged_from {
                self.over_bridge(from, &container, packet)?;
            }
            packet.came_by = None;
            packet.leaves_by = container.port();
            self.frame_hook(if bridged_from.is_some() { None } else { Some(Hook::Output) }, packet)?;
            self.frame_hook(Some(Hook::Postrouting), packet)?;
        }
        container.has(self, packet.destination.ip())?;
        self.enter_hooks(&container, packet)?;
        container.listens(self, packet)?;
        Ok(Arrival::Container(Box::new(container)))
    }

    /// From one port of a bridge to another, past the rules that look at frames, and with br_netfilter
    /// past those that look at packets.
    pub(super) fn over_bridge(
        &mut self,
        from: &Container<'w, K>,
        to: &Container<'w, K>,
        packet: &mut Packet,
    ) -> Result<(), Halt> {
        if from.is_isolated() && to.is_isolated() {
            let advice = "attach them to a network without portIsolation".to_owned();
            return Err(Halt::at(HOST, "both are isolated ports of one bridge (portIsolation)", Cure::Advice(advice)));
        }
        packet.came_by = from.port();
        packet.leaves_by = to.port();
        self.frame_hook(Some(Hook::Forward), packet)?;
        let switch =
            if packet.is_v6() { "net/bridge/bridge-nf-call-ip6tables" } else { "net/bridge/bridge-nf-call-iptables" };
        if self.world.kernel.setting(Place::Host, switch)?.as_deref() == Some("1") {
            self.pass(HOST, "br_netfilter shows bridged packets to the firewall");
            let bridge = to.bridge(self.world);
            packet.came_by.clone_from(&bridge);
            packet.leaves_by = None;
            self.run(Hook::Prerouting, i32::MIN..=i32::MAX, None, packet)?;
            packet.leaves_by = bridge;
            self.hook(Hook::Forward, packet)?;
            self.run(Hook::Postrouting, i32::MIN..=i32::MAX, None, packet)?;
        }
        Ok(())
    }

    /// Out of a container.
    pub(super) async fn container_sends(
        &mut self,
        container: &Container<'w, K>,
        packet: &mut Packet,
    ) -> Result<Sent<'w>, Halt> {
        let next_hop = container.route(self, packet).await?;
        packet.leaves_by = container.wire();
        self.inside(container, Hook::Output, packet)?;
        self.inside(container, Hook::Postrouting, packet)?;
        if let Some(config) = macvlan(container.record) {
            return self.sends_on_lan(container, config, packet, next_hop).await;
        }
        container.is_connected(self)?;
        packet.came_by = container.port();
        packet.sender = container.mac();
        packet.leaves_by = None;
        self.frame_hook(Some(Hook::Prerouting), packet)?;
        if let Some(own) = self.world.scene.owner(next_hop) {
            self.frame_hook(Some(Hook::Input), packet)?;
            packet.came_by = Some(Wire { index: own.index, name: own.name.clone() });
            return Ok(Sent::Host);
        }
        let holder = self.world.holder(next_hop);
        match holder.filter(|record| addresses(record).any(|own| own == packet.destination.ip())) {
            Some(neighbour) => Ok(Sent::Neighbour(neighbour)),
            None => Err(container.misrouted(packet.destination.ip(), next_hop).await),
        }
    }

    pub(super) async fn way(&self, to: IpAddr, from: Option<IpAddr>, came_by: Option<u32>) -> Result<Way, Halt> {
        Ok(self.world.kernel.way(Place::Host, &RouteQuestion { to, from, came_by }).await?)
    }

    pub(super) fn wire(&self, index: u32) -> Wire {
        let name = self.world.scene.by_index(index).map_or_else(|| format!("if{index}"), |found| found.name.clone());
        Wire { index, name }
    }

    pub(super) fn own_address(&self, wire: &Wire) -> Option<IpAddr> {
        self.world.scene.by_index(wire.index).and_then(|interface| usable(interface, self.journey.v6))
    }
}

/// An address of the interface that others can answer to.
pub(super) fn usable(interface: &Interface, v6: bool) -> Option<IpAddr> {
    interface.addresses.iter().map(|network| network.ip()).find(|address| match address {
        IpAddr::V4(_) => !v6,
        IpAddr::V6(address) => v6 && !address.is_unicast_link_local(),
    })
}

/// Who takes what is sent to `asked`. A listener on `::` is taken to listen on IPv4 as well, which is how
/// sockets start out (ipv6(7)).
pub(super) fn listens(listeners: &[Listener], asked: SocketAddr, protocol: Protocol) -> Option<&Listener> {
    listeners.iter().find(|listener| {
        let here = listener.address.ip();
        let takes = here == asked.ip() || here.is_unspecified() && (here.is_ipv6() || asked.is_ipv4());
        listener.protocol == protocol && listener.address.port() == asked.port() && takes
    })
}
