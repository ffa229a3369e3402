//! Neighbours that stay, and the forwarding entries of tunnels: the kernel keeps both in
//! messages of one kind (linux/neighbour.h), and tells them apart by family.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use futures::future::try_join_all;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::address::family;
use super::batch::Request;
use super::linux::Linux;
use super::notices::Notice;
use super::route::PROTOCOL;
use super::rtnl::{Refusal, Rtnl, forgive};
use super::seen::{self, Interfaces};
use crate::error::{Error, Result};
use crate::model::{FdbEntry, InterfaceName, Mac, Neighbour, Object, Place};

/// What is there of `wanted`, one listing a table of an interface.
pub(super) async fn observe(kernel: &Linux, interfaces: &Interfaces, wanted: &[&Neighbour]) -> Result<Vec<Object>> {
    let mut found = HashMap::new();
    for (place, link, v6) in tables(wanted.iter().map(|one| (one.place, &one.link, one.address.is_ipv6()))) {
        let Some((rtnl, index)) = reach(kernel, interfaces, place, link)? else { continue };
        let present = neighbours(&rtnl, index, v6).await.map_err(|refusal| unreadable(refusal, place, link))?;
        found.extend(present.into_iter().map(|present| ((place, link, present.address), present)));
    }
    let seen = |wanted: &&Neighbour| {
        let present = found.get(&(wanted.place, &wanted.link, wanted.address))?;
        Some(Object::Neighbour(present.describe(wanted.place, &wanted.link)))
    };
    Ok(wanted.iter().filter_map(seen).collect())
}

/// What is there of `wanted`, one listing a tunnel.
pub(super) async fn observe_entries(
    kernel: &Linux,
    interfaces: &Interfaces,
    wanted: &[&FdbEntry],
) -> Result<Vec<Object>> {
    let look = tables(wanted.iter().map(|one| (one.place, &one.link))).into_iter().map(|(place, link)| async move {
        let Some((rtnl, index)) = reach(kernel, interfaces, place, link)? else { return Ok::<_, Error>(Vec::new()) };
        entries(&rtnl, index, place, link).await.map_err(|refusal| unreadable(refusal, place, link))
    });
    let present = try_join_all(look).await?.concat();
    let found: HashMap<_, _> = present.iter().map(|entry| ((entry.place, &entry.link, entry.mac), entry)).collect();
    let seen = |wanted: &&FdbEntry| found.get(&(wanted.place, &wanted.link, wanted.mac)).copied();
    Ok(wanted.iter().filter_map(seen).cloned().map(Object::Fdb).collect())
}

fn tables<T: Hash + Eq + Ord>(wanted: impl Iterator<Item = T>) -> Vec<T> {
    let mut tables: Vec<T> = wanted.collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

fn reach(kernel: &Linux, interfaces: &Interfaces, place: Place, link: &InterfaceName) -> Result<Option<(Rtnl, u32)>> {
    let index = interfaces.get(place, link).map(|interface| interface.index);
    Ok(kernel.at(place)?.zip(index))
}

fn unreadable(refusal: Refusal, place: Place, link: &InterfaceName) -> Error {
    refusal.error("read", format_args!("neighbours of {link} ({place})"))
}

/// A neighbour as the kernel reports it.
#[derive(Clone, Debug)]
pub(super) struct Present {
    address: IpAddr,
    mac: Option<Mac>,
    permanent: bool,
    /// Whether it was us who put it there (`NDA_PROTOCOL`).
    pub(super) ours: bool,
}

impl Present {
    pub(super) fn describe(&self, place: Place, link: &InterfaceName) -> Neighbour {
        Neighbour { place, link: link.clone(), address: self.address, mac: self.mac, permanent: self.permanent }
    }

    fn from_answer(answer: &RouteNetlinkMessage, index: u32) -> Option<Self> {
        let message = of_interface(answer, index)?;
        let mut present = Self {
            address: destination(message)?,
            mac: None,
            permanent: message.header.state == NeighbourState::Permanent,
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => present.mac = bytes.as_slice().try_into().ok().map(Mac),
                NeighbourAttribute::Protocol(protocol) => present.ours = u8::from(*protocol) == PROTOCOL,
                _ => {}
            }
        }
        Some(present)
    }
}

/// The neighbours of one family over the interface with the index `index`.
pub(super) async fn neighbours(rtnl: &Rtnl, index: u32, v6: bool) -> Result<Vec<Present>, Refusal> {
    let answers = dump(rtnl, family(v6), index).await?;
    Ok(answers.iter().filter_map(|answer| Present::from_answer(answer, index)).collect())
}

/// The forwarding entries of the tunnel with the index `index` that lead to a node.
pub(super) async fn entries(
    rtnl: &Rtnl,
    index: u32,
    place: Place,
    link: &InterfaceName,
) -> Result<Vec<FdbEntry>, Refusal> {
    let answers = dump(rtnl, AddressFamily::Bridge, index).await?;
    let entry = |answer| {
        let message = of_interface(answer, index)?;
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
            _ => None,
        })?;
        // All zero is where unknown addresses go; we have no such entry.
        mac.is_unicast().then_some(FdbEntry { place, link: link.clone(), mac, to: destination(message)? })
    };
    Ok(answers.iter().filter_map(entry).collect())
}

/// What `message` is about, if it is a neighbour or a forwarding entry.
pub(super) fn notice(message: &NeighbourMessage) -> Option<Notice> {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    match message.header.family {
        AddressFamily::Bridge => Some(Notice::Entry(mac?, destination(message))),
        _ => Some(Notice::Neighbour(destination(message)?, mac)),
    }
}

async fn dump(rtnl: &Rtnl, family: AddressFamily, index: u32) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
    let mut query = NeighbourMessage::default();
    query.header.family = family;
    if family == AddressFamily::Bridge {
        // This table is asked for by the header (`valid_fdb_dump_strict`), the others by attribute.
        query.header.ifindex = index;
    } else {
        query.attributes.push(NeighbourAttribute::IfIndex(index));
    }
    match rtnl.dump(RouteNetlinkMessage::GetNeighbour(query)).await {
        // Gone meanwhile.
        Err(refusal) if refusal.is(&[Errno::NODEV]) => Ok(Vec::new()),
        answers => answers,
    }
}

fn of_interface(answer: &RouteNetlinkMessage, index: u32) -> Option<&NeighbourMessage> {
    match answer {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == index => Some(message),
        _ => None,
    }
}

pub(super) fn destination(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        // In the forwarding table the family is the table's, not the address'.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
        },
        _ => None,
    })
}

/// Makes `neighbour`, in the place of what the kernel may have found out by itself.
pub(super) async fn create(kernel: &Linux, neighbour: &Neighbour) -> Result<()> {
    let request = |index| to_create(neighbour, index);
    let outcome = add(kernel, neighbour.place, &neighbour.link, request).await;
    outcome.map_err(|refusal| refusal.error("create", Object::Neighbour(neighbour.clone())))
}

/// Makes `entry`, in the place of one that leads elsewhere.
pub(super) async fn create_entry(kernel: &Linux, entry: &FdbEntry) -> Result<()> {
    let outcome = add(kernel, entry.place, &entry.link, |index| to_create_entry(entry, index)).await;
    outcome.map_err(|refusal| refusal.error("create", Object::Fdb(entry.clone())))
}

/// Removes `neighbour`; what is gone already is a success.
pub(super) async fn remove(kernel: &Linux, neighbour: &Neighbour) -> Result<()> {
    let request = |index| to_remove(neighbour, index);
    let outcome = take(kernel, neighbour.place, &neighbour.link, request).await;
    outcome.map_err(|refusal| refusal.error("remove", Object::Neighbour(neighbour.clone())))
}

/// Removes `entry`; what is gone already is a success.
pub(super) async fn remove_entry(kernel: &Linux, entry: &FdbEntry) -> Result<()> {
    let outcome = take(kernel, entry.place, &entry.link, |index| to_remove_entry(entry, index)).await;
    outcome.map_err(|refusal| refusal.error("remove", Object::Fdb(entry.clone())))
}

/// The request that makes `neighbour` on the interface with the index `index`.
pub(super) fn to_create(neighbour: &Neighbour, index: u32) -> Request {
    let mut message = message(neighbour.address, index);
    message.attributes.extend(neighbour.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The request that makes `entry` of the tunnel with the index `index`.
pub(super) fn to_create_entry(entry: &FdbEntry, index: u32) -> Request {
    (RouteNetlinkMessage::NewNeighbour(entry_message(entry, index)), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The request that removes `neighbour` from the interface with the index `index`.
pub(super) fn to_remove(neighbour: &Neighbour, index: u32) -> Request {
    (RouteNetlinkMessage::DelNeighbour(message(neighbour.address, index)), 0)
}

/// The request that removes `entry` of the tunnel with the index `index`.
pub(super) fn to_remove_entry(entry: &FdbEntry, index: u32) -> Request {
    (RouteNetlinkMessage::DelNeighbour(entry_message(entry, index)), 0)
}

fn message(address: IpAddr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address.is_ipv6());
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

fn entry_message(entry: &FdbEntry, index: u32) -> NeighbourMessage {
    let mut message = message(entry.to, index);
    message.header.family = AddressFamily::Bridge;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message
}

async fn add(
    kernel: &Linux,
    place: Place,
    link: &InterfaceName,
    request: impl Fn(u32) -> Request,
) -> Result<(), Refusal> {
    let rtnl = kernel.required(place).map_err(|_| Refusal::from(Errno::NODEV))?;
    let interface = seen::by_name(&rtnl, link).await?.ok_or(Errno::NODEV)?;
    let (message, flags) = request(interface.index);
    rtnl.change(message, flags).await
}

async fn take(
    kernel: &Linux,
    place: Place,
    link: &InterfaceName,
    request: impl Fn(u32) -> Request,
) -> Result<(), Refusal> {
    let Ok(rtnl) = kernel.required(place) else { return Ok(()) };
    // It goes with its interface.
    let Some(interface) = seen::by_name(&rtnl, link).await? else { return Ok(()) };
    let (message, flags) = request(interface.index);
    forgive(rtnl.change(message, flags).await, &[Errno::NOENT, Errno::NODEV])
}
