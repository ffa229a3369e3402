//! Where a flow starts, with which first packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::packet::Packet;
use super::world::{World, addresses, way_out};
use crate::error::{Error, Result};
use crate::kernel::Inspect;
use crate::model::{End, Flow, Mode, Name, PortMapping, Protocol};
use crate::store::Record;

/// A flow with all that its text leaves open.
pub(super) struct Journey<'w> {
    pub(super) flow: Flow,
    /// The IP version, where the flow does not say.
    pub(super) v6: bool,
    pub(super) from: From<'w>,
    pub(super) to: To<'w>,
}

/// Who sends.
pub(super) enum From<'w> {
    Host,
    Outside(Option<IpAddr>),
    Container(&'w Record),
}

/// To whom.
pub(super) enum To<'w> {
    Host,
    Outside,
    Address(IpAddr),
    Container(&'w Record),
}

/// The port a client sends from: the first of those that are nobody's (RFC 6335, section 6).
pub(super) const CLIENT_PORT: u16 = 49152;

/// What stands for any port of any service in the world.
const SOME_SERVICE: u16 = 443;

/// The journeys that were asked for.
pub(super) fn plan<'w, K: Inspect>(
    world: &'w World<K>,
    about: Option<&Name>,
    flow: Option<&Flow>,
) -> Result<Vec<Journey<'w>>> {
    if let Some(flow) = flow {
        return Ok(vec![Journey::of(world, flow)?]);
    }
    let is_meant = |record: &&Record| {
        about.is_none_or(|name| record.attachment.id.container == *name || record.network.name == *name)
    };
    let meant: Vec<&Record> = world.records.iter().filter(is_meant).collect();
    if let (Some(name), true) = (about, meant.is_empty()) {
        return Err(unknown(name));
    }
    let mut journeys = Vec::new();
    for record in meant {
        match &record.network.mode {
            Mode::Bridge(_) | Mode::Overlay(_) => journeys.extend(usual(record, world.has_ipv6)),
            Mode::Macvlan(_) if has_way_out(record) => journeys.push(way_out_of(record, !has_ipv4(record))),
            // Asked about by name, it is not passed over.
            Mode::None(_) => {}
            _ if about.is_some() => journeys.push(way_out_of(record, !has_ipv4(record))),
            _ => {}
        }
    }
    Ok(journeys)
}

fn unknown(name: &Name) -> Error {
    Error::invalid("CONTAINER|NETWORK", name, "an attached container, or a network of one: `netctl ls` lists them")
}

/// What should get through for an attachment.
fn usual(record: &Record, has_ipv6: bool) -> Vec<Journey<'_>> {
    let (leaves, is_internal) = way_out(record);
    let mut journeys = Vec::new();
    let families: Vec<bool> =
        [false, true].into_iter().filter(|v6| addresses(record).any(|address| address.is_ipv6() == *v6)).collect();
    let outside = |v6: bool| !v6 || has_ipv6;
    for mapping in &record.attachment.publish {
        for v6 in mapping.families().into_iter().filter(|v6| families.contains(v6)) {
            let on = mapping.host_address.filter(|address| !address.is_unspecified());
            let mut add = |from, end: From<'_>, on: Option<IpAddr>| {
                let to = on.map_or(End::Host, End::Address);
                let flow = Flow { from, to, port: mapping.host_port, protocol: mapping.protocol };
                let from = match end {
                    From::Outside(_) => From::Outside(None),
                    _ => From::Host,
                };
                journeys.push(Journey { flow, v6, from, to: on.map_or(To::Host, To::Address) });
            };
            if !is_internal && outside(v6) && !on.is_some_and(|address| address.is_loopback()) {
                add(End::Outside, From::Outside(None), on);
            }
            // ::1 cannot be published; what else the host calls itself does not matter.
            if !v6 {
                add(End::Host, From::Host, on);
            }
        }
    }
    let leaves = families.into_iter().filter(|v6| leaves && !is_internal && outside(*v6));
    journeys.extend(leaves.map(|v6| way_out_of(record, v6)));
    journeys
}

/// Whether a container is to have a way out of its own.
fn has_way_out(record: &Record) -> bool {
    record.lease.iter().flat_map(|lease| &lease.routes).any(|route| route.dst.prefix() == 0)
}

fn has_ipv4(record: &Record) -> bool {
    addresses(record).any(|own| own.is_ipv4())
}

/// Whether a container is in the host's own namespace.
fn is_on_host(record: &Record) -> bool {
    matches!(record.network.mode, Mode::Host(_))
}

/// From a container to the outside.
fn way_out_of(record: &Record, v6: bool) -> Journey<'_> {
    let from = End::Container(record.attachment.id.container.clone());
    let flow = Flow { from, to: End::Outside, port: SOME_SERVICE, protocol: Protocol::Tcp };
    Journey { flow, v6, from: From::Container(record), to: To::Outside }
}

impl<'w> Journey<'w> {
    fn of<K: Inspect>(world: &'w World<K>, flow: &Flow) -> Result<Self> {
        let container = |name: &Name| {
            let known = world.records.iter().find(|record| record.attachment.id.container == *name);
            known.ok_or_else(|| unknown(name))
        };
        let from = match &flow.from {
            End::Host => From::Host,
            End::Outside => From::Outside(None),
            End::Address(address) if world.scene.is_local(*address) => From::Host,
            End::Address(address) => match world.attached(*address) {
                Some(record) => From::Container(record),
                None => From::Outside(Some(*address)),
            },
            End::Container(name) => match container(name)? {
                record if is_on_host(record) => From::Host,
                record => From::Container(record),
            },
        };
        let to = match &flow.to {
            End::Host => To::Host,
            End::Outside => To::Outside,
            End::Address(address) => To::Address(*address),
            End::Container(name) => match container(name)? {
                record if is_on_host(record) => To::Host,
                record => To::Container(record),
            },
        };
        let only_v6 = |record: &Record| addresses(record).all(|address| address.is_ipv6());
        let v6 = match (&flow.from, &flow.to) {
            (_, End::Address(address)) | (End::Address(address), _) => address.is_ipv6(),
            _ => {
                matches!(&from, From::Container(record) if only_v6(record))
                    || matches!(&to, To::Container(record) if only_v6(record))
            }
        };
        Ok(Self { flow: flow.clone(), v6, from, to })
    }

    /// The mapping by which the outside reaches what is meant of `record`, if there is one: by the
    /// container's port, or else the host's.
    pub(super) fn mapping(&self, record: &'w Record) -> Option<(&'w PortMapping, u16)> {
        let of_protocol = || record.attachment.publish.iter().filter(|mapping| mapping.protocol == self.flow.protocol);
        let by_container = || {
            of_protocol().find_map(|mapping| {
                mapping.ports().find(|(_, port)| *port == self.flow.port).map(|(host, _)| (mapping, host))
            })
        };
        let by_host = || {
            of_protocol().find_map(|mapping| {
                mapping.ports().find(|(port, _)| *port == self.flow.port).map(|(host, _)| (mapping, host))
            })
        };
        by_container().or_else(by_host)
    }

    /// The first packet between two addresses.
    pub(super) fn packet(&self, source: IpAddr, destination: IpAddr, port: u16) -> Packet {
        let (source, destination) = (SocketAddr::new(source, CLIENT_PORT), SocketAddr::new(destination, port));
        Packet::new(self.flow.protocol, source, destination)
    }

    /// The host's own name for itself.
    pub(super) fn loopback(&self) -> IpAddr {
        if self.v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
    }
}
