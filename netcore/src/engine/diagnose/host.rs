//! A packet's way through the host: routing, the rules of every hook, and translation, of which what is
//! published must come out.

use std::net::{IpAddr, SocketAddr};

use super::cure;
use super::evaluate::Blame;
use super::packet::{Packet, Wire};
use super::walk::{Arrival, Walk, listens};
use super::world::{HOST, macvlan, name, way_out};
use super::{Cure, Halt};
use crate::kernel::Inspect;
use crate::model::rules::Hook;
use crate::model::{NatRule, Object, Protocol, Table, Way};
use crate::store::Record;

/// Where connections are translated, as priorities (`NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`).
const DNAT: i32 = -100;
const SNAT: i32 = 100;

impl<'w, K: Inspect> Walk<'w, K> {
    /// What the host itself sends.
    pub(super) async fn host_sends(&mut self, packet: &mut Packet) -> Result<Arrival<'w, K>, Halt> {
        let asked = packet.destination;
        self.stale(packet)?;
        self.route_out(packet).await?;
        let by = self.hook(Hook::Output, packet)?;
        self.translation(asked, packet, by)?;
        let out = self.route_out(packet).await?;
        self.hook(Hook::Postrouting, packet)?;
        if out.0.name == "lo" {
            packet.came_by = Some(out.0);
            packet.leaves_by = None;
            self.hook(Hook::Input, packet)?;
            return self.on_host(packet);
        }
        self.leave(out, packet).await
    }

    /// What comes to the host from elsewhere, up to whoever gets it.
    pub(super) async fn host_receives(&mut self, packet: &mut Packet) -> Result<Arrival<'w, K>, Halt> {
        self.stale(packet)?;
        match self.host_passes(packet).await? {
            None => self.on_host(packet),
            Some(out) => self.leave(out, packet).await,
        }
    }

    /// What comes to the host from elsewhere: for the host itself, or where it leaves by.
    pub(super) async fn host_passes(&mut self, packet: &mut Packet) -> Result<Option<(Wire, IpAddr)>, Halt> {
        let wire = packet.came_by.clone().unwrap_or_else(|| self.wire(1));
        self.link(&wire)?;
        if !packet.is_answer {
            self.pass(HOST, format!("{} → {} arrives by {}", packet.source, packet.destination, wire.name));
        }
        let asked = packet.destination;
        self.hook(Hook::Ingress, packet)?;
        let by = self.come_translated(packet).await?;
        if !packet.is_answer {
            self.translation(asked, packet, by)?;
        }
        let (to, from) = (packet.destination.ip(), packet.source.ip());
        match self.way(to, Some(from), Some(wire.index)).await? {
            Way::Local => {
                self.hook(Hook::Input, packet)?;
                Ok(None)
            }
            Way::Out { interface, gateway, .. } => {
                self.forwarding(&wire, to.is_ipv6())?;
                let out = self.wire(interface);
                self.pass(HOST, format!("routed to {to} by {}", out.name));
                packet.leaves_by = Some(out.clone());
                self.hook(Hook::Forward, packet)?;
                self.leave_translated(packet)?;
                Ok(Some((out, gateway.unwrap_or(to))))
            }
            Way::Refused(why) => Err(self.refused(to, Some(from), Some(&wire), why).await),
        }
    }

    /// Prerouting, with the translation of answers in its middle.
    pub(super) async fn come_translated(&mut self, packet: &mut Packet) -> Result<Option<Blame>, Halt> {
        let leads_back = match self.way(packet.source.ip(), None, None).await? {
            Way::Out { interface, .. } => packet.came_by.as_ref().map(|wire| wire.index == interface),
            _ => None,
        };
        self.run(Hook::Prerouting, i32::MIN..=DNAT - 1, leads_back, packet)?;
        if let (true, Some((before, _))) = (packet.is_answer, &self.translated) {
            packet.destination = before.source;
        }
        self.run(Hook::Prerouting, DNAT..=i32::MAX, leads_back, packet)
    }

    /// Postrouting, with the translation of answers in its middle.
    pub(super) fn leave_translated(&mut self, packet: &mut Packet) -> Result<(), Halt> {
        self.run(Hook::Postrouting, i32::MIN..=SNAT - 1, None, packet)?;
        if let (true, Some((before, _))) = (packet.is_answer, &self.translated) {
            packet.source = before.destination;
        }
        self.run(Hook::Postrouting, SNAT..=i32::MAX, None, packet).map(drop)
    }

    /// Where what the host sends leaves by.
    pub(super) async fn route_out(&mut self, packet: &mut Packet) -> Result<(Wire, IpAddr), Halt> {
        let (to, from) = (packet.destination.ip(), packet.source.ip());
        match self.way(to, Some(from), None).await? {
            Way::Local => {
                let wire = Wire { index: 1, name: "lo".to_owned() };
                packet.leaves_by = Some(wire.clone());
                Ok((wire, to))
            }
            Way::Out { interface, gateway, .. } => {
                let wire = self.wire(interface);
                packet.leaves_by = Some(wire.clone());
                Ok((wire, gateway.unwrap_or(to)))
            }
            Way::Refused(why) => Err(self.refused(to, Some(from), None, why).await),
        }
    }

    /// Whether what was sent to a published port is on its way to its container.
    pub(super) fn translation(&mut self, asked: SocketAddr, packet: &Packet, by: Option<Blame>) -> Result<(), Halt> {
        let Some((record, target)) = self.world.publisher(asked, packet.protocol) else { return Ok(()) };
        if !self.world.scene.is_local(asked.ip()) {
            return Ok(());
        }
        if packet.destination == target {
            self.pass(HOST, format!("{asked}/{} is published: on to {target}", packet.protocol));
            return Ok(());
        }
        let is_meant = |object: &Object| match object.rule() {
            Some(NatRule::Ruleset { table: Table::Inet, .. }) => true,
            Some(NatRule::Publish { to, protocol, .. }) => *to == target && *protocol == packet.protocol,
            _ => false,
        };
        if let Some(halt) = self.world.drift(record, is_meant) {
            return Err(halt);
        }
        let who = format!("{} publishes {asked}/{}", name(record), packet.protocol);
        Err(match by {
            Some(blame) => Halt::at(
                HOST,
                format!("{who}, but {} sends it to {}", cure::describe(&blame), packet.destination),
                cure::remove(&blame),
            ),
            None => Halt::at(HOST, format!("{who}, but nothing sends it there"), Cure::repair()),
        })
    }

    /// Whether a connection that is remembered would take the packet elsewhere.
    pub(super) fn stale(&mut self, packet: &Packet) -> Result<(), Halt> {
        let (protocol, asked) = (packet.protocol, packet.destination);
        let Some((_, target)) = self.world.publisher(asked, protocol).filter(|_| protocol == Protocol::Udp) else {
            return Ok(());
        };
        let tracked = self.world.kernel.tracked(protocol, asked.port(), asked.is_ipv6())?;
        let stale = tracked
            .iter()
            .find(|entry| entry.asked == asked && entry.client.ip() == packet.source.ip() && entry.answers != target);
        match stale {
            None => Ok(()),
            Some(entry) => Err(Halt::at(
                HOST,
                format!("a remembered connection of {} leads to {}, not to {target}", entry.client, entry.answers),
                Cure::Command(format!(
                    "conntrack -D -p {protocol} -s {} -d {} --dport {}",
                    entry.client.ip(),
                    asked.ip(),
                    asked.port()
                )),
            )),
        }
    }

    /// A program on the host that takes the packet.
    pub(super) fn on_host(&mut self, packet: &Packet) -> Result<Arrival<'w, K>, Halt> {
        let asked = packet.destination;
        if listens(&self.world.scene.listeners, asked, packet.protocol).is_some() {
            self.pass(HOST, format!("somebody listens on {asked}/{}", packet.protocol));
            return Ok(Arrival::Host);
        }
        let port = format!("{}/{}", asked.port(), packet.protocol);
        let others: Vec<String> = self
            .world
            .published(packet.protocol, asked.port())
            .filter_map(|(record, on, _)| Some(format!("{} publishes {port} on {} only", name(record), on?)))
            .collect();
        let (by, advice) = match others.first() {
            Some(other) => (other.clone(), "use that address, or publish the port on every address".to_owned()),
            None => (
                format!("nobody listens on {asked}/{}, and no container publishes it", packet.protocol),
                "start what is to listen, or publish the port with the container: `netctl ls` shows what is published"
                    .to_owned(),
            ),
        };
        Err(Halt::at(HOST, by, Cure::Advice(advice)))
    }

    /// Out of the host's own hands: to a container, or away.
    pub(super) async fn leave(&mut self, out: (Wire, IpAddr), packet: &mut Packet) -> Result<Arrival<'w, K>, Halt> {
        let (wire, next_hop) = out;
        self.link(&wire)?;
        if let Some(record) = self.world.attached(packet.destination.ip()) {
            self.leads_to(record, packet.destination.ip(), &wire, next_hop)?;
            if let Some(config) = macvlan(record) {
                self.host_reaches(record, config, &wire)?;
            }
            return self.reach_container(record, packet, None).await;
        }
        let failed =
            self.world.scene.neighbours.iter().any(|neighbour| {
                neighbour.failed && neighbour.address == next_hop && neighbour.interface == wire.index
            });
        if failed {
            let advice = format!("see that {next_hop} is there and reachable over {}", wire.name);
            return Err(Halt::at(HOST, format!("{next_hop} does not answer on {}", wire.name), Cure::Advice(advice)));
        }
        if let Some(record) = self.world.holder(packet.source.ip()) {
            self.is_masqueraded(record, packet.source.ip())?;
        }
        self.pass(HOST, format!("leaves by {} to {next_hop}, as {}", wire.name, packet.source.ip()));
        Ok(Arrival::Outside(wire))
    }

    /// A container's own address has left the host: nobody out there knows it, if it is to be masqueraded.
    pub(super) fn is_masqueraded(&mut self, record: &Record, source: IpAddr) -> Result<(), Halt> {
        let (wanted, _) = way_out(record);
        if !wanted {
            return Ok(());
        }
        let is_meant = |object: &Object| match object.rule() {
            Some(NatRule::Ruleset { table: Table::Inet, .. }) => true,
            Some(NatRule::Masquerade { source: its, .. }) => *its == source,
            _ => false,
        };
        match self.world.drift(record, is_meant) {
            Some(halt) => Err(halt),
            // Within a cluster's range, sources stay what they are.
            None => Ok(()),
        }
    }
}
