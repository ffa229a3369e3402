//! The ways to other nodes, of which there may be thousands, made and removed many in one system
//! call. The kernel carries the requests of a batch out in order, and says which it refuses;
//! those are done again one by one by whoever knows their kind, and fail there with a name, or not at
//! all: what is there already, or gone already, is often what was wanted.

use std::collections::HashMap;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::linux::Linux;
use super::requests::{AT_ONCE, Requests};
use super::rtnl::{self, Rtnl};
use super::{Kernel, neighbour, route, seen, wireguard};
use crate::model::{InterfaceName, Object, Place, WireguardPeer};

/// From how many objects on a socket of its own pays.
const MANY: usize = 16;

/// What is done to all objects of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Create,
    Remove,
}

/// A request: the message and its flags (`NLM_F_*`).
pub(super) type Request = (RouteNetlinkMessage, u16);

/// Carries `change` out on those of `objects` that can go together, and gives back, in their order,
/// those that are left to be done one by one: few, of other kinds, or refused.
pub(super) async fn carry_out<'a>(kernel: &Linux, change: Change, objects: &'a [Object]) -> Vec<&'a Object> {
    let all = || objects.iter().collect();
    if objects.len() < MANY {
        return all();
    }
    let (Ok(rtnl), Ok(mut socket)) = (kernel.required(Place::Host), Requests::open(NETLINK_ROUTE)) else {
        return all();
    };
    let indices = indices(&rtnl, objects).await;
    let mut left = Vec::new();
    if change == Change::Create {
        left.extend(peers(change, objects));
    }
    for batch in objects.chunks(AT_ONCE) {
        let (mut sent, mut requests) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for object in batch.iter().filter(|object| peer(object).is_none()) {
            match link(object).and_then(|link| request(change, object, *indices.get(link)?)) {
                Some(request) => {
                    sent.push(object);
                    requests.push(rtnl::encode(request.0, request.1));
                }
                None => left.push(object),
            }
        }
        match socket.carry_out(&requests) {
            Ok(refused) => left.extend(refused.into_iter().map(|(place, _)| sent[place])),
            Err(_) => left.extend(sent),
        }
        // The kernel works in our time; others on this thread have waited for it.
        tokio::task::yield_now().await;
    }
    match change {
        Change::Create => missing(kernel, left).await,
        Change::Remove => {
            left.extend(peers(change, objects));
            left
        }
    }
}

/// Those of `left` that are not there as they should be: a route that is there is refused. One look at
/// all of them, for each would be a look at everything.
async fn missing<'a>(kernel: &Linux, mut left: Vec<&'a Object>) -> Vec<&'a Object> {
    let routes: Vec<Object> =
        left.iter().filter(|object| matches!(object, Object::Route(_))).map(|route| (*route).clone()).collect();
    // Whoever does them one by one says what is wrong with the kernel.
    if !routes.is_empty()
        && let Ok(seen) = kernel.observe(&routes).await
    {
        let seen = seen.by_key();
        left.retain(|object| match (object, seen.get(&object.key())) {
            (Object::Route(wanted), Some(Object::Route(present))) => wanted.gateway != present.gateway,
            _ => true,
        });
    }
    left
}

/// Who is at the other end of encrypted tunnels, many in a message: before the routes to them are made,
/// and after they are removed, so that a packet finds all of its way or nothing.
fn peers(change: Change, objects: &[Object]) -> Vec<&Object> {
    let peers: Vec<&Object> = objects.iter().filter(|object| peer(object).is_some()).collect();
    let of_one_link = |one: &&Object, next: &&Object| peer(one).map(|one| &one.link) == peer(next).map(|one| &one.link);
    let batches = peers.chunk_by(of_one_link).flat_map(|peers| peers.chunks(AT_ONCE));
    let refused = batches.filter(|batch| {
        let batch: Vec<&WireguardPeer> = batch.iter().filter_map(|object| peer(object)).collect();
        wireguard::change_peers(&batch, change == Change::Remove).is_err()
    });
    refused.flatten().copied().collect()
}

fn peer(object: &Object) -> Option<&WireguardPeer> {
    match object {
        Object::WireguardPeer(peer) => Some(peer),
        _ => None,
    }
}

/// The interface of the host that `object` is on, if it is a way.
fn link(object: &Object) -> Option<&InterfaceName> {
    match object {
        Object::Neighbour(neighbour) if neighbour.place == Place::Host => Some(&neighbour.link),
        Object::Fdb(entry) if entry.place == Place::Host => Some(&entry.link),
        Object::Route(route) if route.place == Place::Host => Some(&route.link),
        _ => None,
    }
}

fn request(change: Change, object: &Object, index: u32) -> Option<Request> {
    Some(match (change, object) {
        (Change::Create, Object::Neighbour(neighbour)) => neighbour::to_create(neighbour, index),
        (Change::Create, Object::Fdb(entry)) => neighbour::to_create_entry(entry, index),
        (Change::Create, Object::Route(route)) => route::to_create(route, index),
        (Change::Remove, Object::Neighbour(neighbour)) => neighbour::to_remove(neighbour, index),
        (Change::Remove, Object::Fdb(entry)) => neighbour::to_remove_entry(entry, index),
        (Change::Remove, Object::Route(route)) => route::to_remove(route, index),
        _ => return None,
    })
}

/// The interfaces that `objects` are on, as far as they are there.
async fn indices<'a>(rtnl: &Rtnl, objects: &'a [Object]) -> HashMap<&'a InterfaceName, u32> {
    let mut names: Vec<&InterfaceName> = objects.iter().filter_map(link).collect();
    names.sort_unstable();
    names.dedup();
    let mut indices = HashMap::with_capacity(names.len());
    for name in names {
        // Whoever does its objects one by one says what is wrong with it.
        if let Ok(Some(found)) = seen::by_name(rtnl, name).await {
            indices.insert(name, found.index);
        }
    }
    indices
}
