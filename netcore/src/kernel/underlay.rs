//! What an overlay stands on: the interface that carries it, and our ways to the other nodes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;

use super::address::{self, family};
use super::linux::Linux;
use super::rtnl::Refusal;
use super::{neighbour, route, seen, wireguard};
use crate::error::Result;
use crate::model::{InterfaceName, Object, Place, State, Underlay};

/// The interface of the host that has `wanted`.
pub(super) async fn of_address(kernel: &Linux, wanted: IpAddr) -> Result<Option<Underlay>> {
    let failed = |refusal: Refusal| refusal.error("read", format_args!("interface of {wanted}"));
    let rtnl = kernel.required(Place::Host)?;
    let mut query = AddressMessage::default();
    query.header.family = family(wanted.is_ipv6());
    let answers = rtnl.dump(RouteNetlinkMessage::GetAddress(query)).await.map_err(failed)?;
    for answer in &answers {
        let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
        let index = message.header.index;
        let Some(present) = address::from_answer(answer, index).filter(|present| present.address.ip() == wanted) else {
            continue;
        };
        if let Some(link) = seen::by_index(&rtnl, index).await.map_err(failed)? {
            let segment = IpNetwork::new(present.address.network(), present.address.prefix());
            return Ok(Some(Underlay {
                address: wanted,
                link: link.name(),
                mtu: link.mtu.unwrap_or_default(),
                segment: segment.unwrap_or(present.address),
            }));
        }
    }
    Ok(None)
}

/// The neighbours and forwarding entries of `device`, and our routes into `ranges`.
pub(super) async fn ways(kernel: &Linux, device: &InterfaceName, ranges: &[IpNetwork]) -> Result<State> {
    let failed = |refusal: Refusal| refusal.error("read", format_args!("peers behind {device}"));
    let rtnl = kernel.required(Place::Host)?;
    let mut found = Vec::new();
    let mut names = HashMap::new();
    if let Some(tunnel) = seen::by_name(&rtnl, device).await.map_err(failed)? {
        names.insert(tunnel.index, device.clone());
        if tunnel.kind == "wireguard" {
            found.extend(wireguard::peers(device)?.into_iter().map(Object::WireguardPeer));
        }
        for v6 in [false, true] {
            if !ranges.iter().any(|range| range.is_ipv6() == v6) {
                continue;
            }
            let neighbours = neighbour::neighbours(&rtnl, tunnel.index, v6).await.map_err(failed)?;
            let ours = neighbours.iter().filter(|present| present.ours);
            found.extend(ours.map(|present| Object::Neighbour(present.describe(Place::Host, device))));
        }
        let entries = neighbour::entries(&rtnl, tunnel.index, Place::Host, device).await.map_err(failed)?;
        found.extend(entries.into_iter().map(Object::Fdb));
    }
    for (index, mut route) in route::into(&rtnl, ranges).await.map_err(failed)? {
        route.link = match names.entry(index) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(unknown) => {
                let link = seen::by_index(&rtnl, index).await.map_err(failed)?;
                unknown.insert(link.map_or_else(seen::unknown, |link| link.name())).clone()
            }
        };
        found.push(Object::Route(route));
    }
    Ok(State(found))
}
