//! Every interface of a namespace with its addresses, as one that is shared is reported.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;

use super::address;
use super::linux::Linux;
use super::route;
use super::rtnl::Refusal;
use super::seen::{self, Seen};
use crate::error::{Error, Result};
use crate::model::{Address, LinkKind, Mark, Object, Place, Rivals};

/// The interfaces of `place`, each followed by its addresses; those that lead to the world come
/// first. Left out are loopback, our own veths, and addresses that mean something on one link only.
pub(super) async fn all(kernel: &Linux, place: Place) -> Result<Vec<Object>> {
    let rtnl = kernel.required(place)?;
    let failed = |what: &'static str| move |refusal: Refusal| -> Error { refusal.error("list", what) };
    // One after the other: a socket does one dump at a time.
    let links = seen::all(&rtnl).await.map_err(failed("links"))?;
    let every = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = rtnl.dump(every).await.map_err(failed("addresses"))?;
    let ways_out = route::ways_out(&rtnl).await.map_err(failed("routes"))?;
    let mut links: Vec<Seen> = links.into_iter().filter(is_told).collect();
    let rank = |index: u32| ways_out.iter().position(|way| *way == index).unwrap_or(usize::MAX);
    links.sort_by_key(|link| (rank(link.index), link.index));
    let mut objects = Vec::new();
    for link in &links {
        objects.push(Object::Link(seen::plain(link, place)));
        let mut present: Vec<_> =
            answers.iter().filter_map(|answer| address::from_answer(answer, link.index)).collect();
        present.retain(|present| !is_of_the_link(present.address.ip()));
        present.sort_by_key(|present| present.address.is_ipv6());
        objects.extend(present.into_iter().map(|present| {
            Object::Address(Address {
                place,
                link: link.name(),
                address: present.address,
                dad: false,
                rivals: Rivals::Allow,
            })
        }));
    }
    Ok(objects)
}

fn is_told(link: &Seen) -> bool {
    let ours = link.kind == "veth" && link.alias.as_deref().and_then(Mark::parse).is_some();
    !ours && link.kind != LinkKind::Loopback.name()
}

fn is_of_the_link(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
