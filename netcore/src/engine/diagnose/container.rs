//! The parts of a way that lie in a container, or on the link to it.

use std::net::IpAddr;

use super::packet::{Packet, Wire};
use super::walk::{Walk, listens};
use super::world::{HOST, World, addresses, macvlan, name, way_out};
use super::{Cure, Halt};
use crate::engine::desired;
use crate::kernel::Inspect;
use crate::model::{Link, LinkKind, Mac, Object, Place, RouteQuestion, Scene, Way};
use crate::plan::drift;
use crate::store::Record;

/// A container that has been looked into.
pub(super) struct Container<'w, K> {
    pub(super) record: &'w Record,
    pub(super) scene: Scene,
    pub(super) kernel: K,
    /// The host's end of its link, as it should be.
    link: Option<Link>,
    /// That end, as it is.
    port: Option<Wire>,
}

impl<'w, K: Inspect> Container<'w, K> {
    pub(super) async fn enter(world: &World<K>, record: &'w Record) -> Result<Self, Halt> {
        let wanted = desired(record)?.attachment;
        let link = wanted.into_iter().find_map(|object| match object {
            Object::Link(link) if matches!(link.kind, LinkKind::Veth(_)) => Some(link),
            _ => None,
        });
        if link.is_none() && macvlan(record).is_none() {
            let mode = record.network.mode.name();
            return Err(Halt::Lost(format!("{}: the way of mode {mode} is not followed", name(record))));
        }
        let id = &record.attachment.id;
        let gone = |reason: &str| {
            let advice = format!("the container is gone: have its runtime remove it, or detach {id}");
            Halt::at(&name(record), reason, Cure::Advice(advice))
        };
        let Some(netns) = record.attachment.netns.as_deref() else { return Err(gone("its namespace is not known")) };
        let kernel = world.kernel.enter(Some(netns)).await.map_err(|error| gone(&error.to_string()))?;
        let scene = kernel.inspect(Place::Sandbox).await?;
        let port = link.as_ref().and_then(|link| world.scene.interface(link.name.as_str()));
        let port = port.map(|found| Wire { index: found.index, name: found.name.clone() });
        Ok(Self { record, scene, kernel, link, port })
    }

    pub(super) fn name(&self) -> String {
        name(self.record)
    }

    /// The interface inside.
    pub(super) fn wire(&self) -> Option<Wire> {
        let inside = self.scene.interface(self.record.attachment.id.interface.as_str())?;
        Some(Wire { index: inside.index, name: inside.name.clone() })
    }

    pub(super) fn mac(&self) -> Option<Mac> {
        self.scene.interface(self.record.attachment.id.interface.as_str())?.mac
    }

    /// The host's end of its link.
    pub(super) fn port(&self) -> Option<Wire> {
        self.port.clone()
    }

    pub(super) fn is_isolated(&self) -> bool {
        self.link.as_ref().and_then(|link| link.port.as_ref()).is_some_and(|port| port.isolated)
    }

    /// The bridge that the host's end should be a port of.
    pub(super) fn bridge(&self, world: &World<K>) -> Option<Wire> {
        let wanted = self.link.as_ref()?.port.as_ref()?.bridge.as_str();
        world.scene.interface(wanted).map(|found| Wire { index: found.index, name: found.name.clone() })
    }

    /// Its address of one IP version.
    pub(super) fn address(&self, v6: bool) -> Result<IpAddr, Halt> {
        addresses(self.record).find(|address| address.is_ipv6() == v6).ok_or_else(|| {
            let advice = "use the other IP version".to_owned();
            Halt::at(&self.name(), "has no address of that IP version", Cure::Advice(advice))
        })
    }

    /// Whether frames get from the bridge to the container, and back.
    pub(super) fn is_connected(&self, walk: &mut Walk<'_, K>) -> Result<(), Halt> {
        let world = walk.world;
        let is_link = |object: &Object| matches!(object, Object::Link(_)) && object.place() == Some(Place::Host);
        let ours = |otherwise: String, cure: Cure| {
            world.drift(self.record, is_link).unwrap_or_else(|| Halt::at(HOST, otherwise, cure))
        };
        let Some(wanted) = &self.link else { return Ok(()) };
        let Some(port) = world.scene.interface(wanted.name.as_str()) else {
            return Err(ours(format!("link {} is missing", wanted.name), Cure::repair()));
        };
        if !port.up {
            return Err(ours(format!("link {} is down", port.name), Cure::repair()));
        }
        let bridge = self.bridge(world);
        if bridge.is_none() || port.bridge != bridge.as_ref().map(|bridge| bridge.index) {
            return Err(ours(format!("link {} is no port of its bridge", port.name), Cure::repair()));
        }
        if let Some(found) = bridge.as_ref().and_then(|bridge| world.scene.by_index(bridge.index))
            && !found.up
        {
            return Err(ours(format!("bridge {} is down", found.name), Cure::repair()));
        }
        let inside = self.record.attachment.id.interface.as_str();
        match self.scene.interface(inside) {
            None => {
                let by = format!("interface {inside} is missing");
                return Err(Halt::at(&self.name(), by, Cure::repair()));
            }
            Some(found) if !found.up => {
                let command = self.command(&format!("ip link set {inside} up"));
                return Err(Halt::at(&self.name(), format!("link {inside} is down"), command));
            }
            Some(_) => {}
        }
        if !port.forwards {
            let command = Cure::Command(format!("bridge link set dev {} state 3", port.name));
            return Err(Halt::at(HOST, format!("its bridge lets nothing through port {}", port.name), command));
        }
        // What somebody has set by hand is believed, right or wrong.
        let wrong = world.scene.neighbours.iter().find(|neighbour| {
            neighbour.permanent
                && addresses(self.record).any(|own| own == neighbour.address)
                && neighbour.mac != self.mac()
        });
        if let Some(neighbour) = wrong {
            let on = world.scene.by_index(neighbour.interface).map_or("", |interface| interface.name.as_str());
            let mac = neighbour.mac.map(|mac| mac.to_string()).unwrap_or_default();
            let by = format!("neighbour {} on {on} is set to {mac}, which is not the container's", neighbour.address);
            return Err(Halt::at(HOST, by, Cure::Command(format!("ip neigh del {} dev {on}", neighbour.address))));
        }
        walk.pass(HOST, format!("{} is a port of {}", port.name, bridge.map(|bridge| bridge.name).unwrap_or_default()));
        Ok(())
    }

    /// Whether the container has the address that is sent to.
    pub(super) fn has(&self, walk: &mut Walk<'_, K>, address: IpAddr) -> Result<(), Halt> {
        if self.scene.is_local(address) {
            walk.pass(&self.name(), format!("{address} is its own"));
            return Ok(());
        }
        let leased = self.record.lease.iter().flat_map(|lease| &lease.addresses);
        let whole = leased.map(|leased| leased.address).find(|network| network.ip() == address);
        let whole = whole.map_or_else(|| address.to_string(), |network| network.to_string());
        let command = self.command(&format!("ip addr add {whole} dev {}", self.record.attachment.id.interface));
        Err(Halt::at(&self.name(), format!("address {whole} is missing"), command))
    }

    /// Whether somebody in the container takes the packet.
    pub(super) fn listens(&self, walk: &mut Walk<'_, K>, packet: &Packet) -> Result<(), Halt> {
        let (asked, protocol) = (packet.destination, packet.protocol);
        if let Some(listener) = listens(&self.scene.listeners, asked, protocol) {
            walk.pass(&self.name(), format!("somebody listens on {}/{protocol}", listener.address));
            return Ok(());
        }
        let port = asked.port();
        let other = self.scene.listeners.iter().find(|one| one.protocol == protocol && one.address.port() == port);
        let (by, advice) = match other {
            Some(other) => (
                format!("port {port}/{protocol} is listened on at {} only", other.address.ip()),
                format!("have the program listen on {} or on every address", asked.ip()),
            ),
            None => (
                format!("nobody listens on port {port}/{protocol}"),
                format!("start the program that is to listen on port {port}"),
            ),
        };
        Err(Halt::at(&self.name(), by, Cure::Advice(advice)))
    }

    /// The next hop of what the container sends, over the interface of this attachment.
    pub(super) async fn route(&self, walk: &mut Walk<'_, K>, packet: &Packet) -> Result<IpAddr, Halt> {
        let (to, from) = (packet.destination.ip(), packet.source.ip());
        if !self.scene.is_local(from) {
            self.has(walk, from)?;
        }
        let question = RouteQuestion { to, from: Some(from), came_by: None };
        let what = if packet.is_answer { "the answer" } else { "it" };
        match self.kernel.way(Place::Sandbox, &question).await? {
            Way::Out { interface, gateway, .. } => {
                let next_hop = gateway.unwrap_or(to);
                let out = self.scene.by_index(interface).map_or("", |found| found.name.as_str());
                if out == self.record.attachment.id.interface.as_str() {
                    walk.pass(&self.name(), format!("{what} goes to {to} by {out}, next hop {next_hop}"));
                    return Ok(next_hop);
                }
                let by = format!("{what} leaves by {out}: the route to {to} leads there");
                Err(self.routes_differ(by).await)
            }
            Way::Local => {
                let advice = format!("take {to} away from the container");
                Err(Halt::at(&self.name(), format!("{to} is the container's own address"), Cure::Advice(advice)))
            }
            Way::Refused(_) => Err(self.routes_differ(format!("no route to {to}")).await),
        }
    }

    /// The next hop towards `to` is nobody that is known.
    pub(super) async fn misrouted(&self, to: IpAddr, next_hop: IpAddr) -> Halt {
        self.routes_differ(format!("the route to {to} leads to {next_hop}, which is nobody here")).await
    }

    /// What is wrong with the container's routes, mended by what was asked for.
    async fn routes_differ(&self, by: String) -> Halt {
        let wanted = desired(self.record).map(|desired| desired.attachment).unwrap_or_default();
        let routes: Vec<Object> = wanted.into_iter().filter(|object| matches!(object, Object::Route(_))).collect();
        let drifts = match self.kernel.observe(&routes).await {
            Ok(seen) => drift(&routes, &seen),
            Err(error) => return error.into(),
        };
        let changed = drifts.iter().find_map(|drift| match &drift.object {
            Object::Route(route) => Some((drift, route)),
            _ => None,
        });
        match changed {
            Some((drift, route)) => {
                let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
                let family = if route.destination.is_ipv6() { "-6 " } else { "" };
                let destination = route.destination;
                let command = format!("ip {family}route replace {destination}{via} dev {}", route.link);
                Halt::at(&self.name(), format!("{by} ({drift})"), self.command(&command))
            }
            None if way_out(self.record).1 => {
                let advice = "attach it to another network, too, to give it a way out".to_owned();
                Halt::at(
                    &self.name(),
                    format!("{by}: network {} is internal", self.record.network.name),
                    Cure::Advice(advice),
                )
            }
            None => {
                let advice = "look at its routes: `ip route` in the container".to_owned();
                Halt::at(&self.name(), by, Cure::Advice(advice))
            }
        }
    }

    /// `command`, run in the container's network namespace.
    pub(super) fn command(&self, command: &str) -> Cure {
        let netns = self.record.attachment.netns.clone().unwrap_or_default();
        let command = if command.contains("&&") { format!("sh -c '{command}'") } else { command.to_owned() };
        Cure::Command(format!("nsenter --net={} {command}", netns.display()))
    }
}
