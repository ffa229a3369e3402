//! How the other nodes are reached: a few objects for each, however many containers it has.

use ipnetwork::IpNetwork;

use crate::model::{FdbEntry, LocalNode, Neighbour, Object, OverlayConfig, Peer, Place, Route};

/// What the kernel should hold for the other nodes among `peers`: for each, in this order, whose
/// MAC address its gateway has, behind which node that is, and a route to its subnet. A node
/// that is reached directly takes the route alone. Nothing before this node is
/// [located](super::located).
///
/// Families this node has no subnet of are left out: nobody here could use them.
#[must_use]
pub fn ways(config: &OverlayConfig, peers: &[Peer]) -> Vec<Object> {
    let Some(local) = &config.local else { return Vec::new() };
    let others = peers.iter().filter(|peer| peer.node != local.node);
    others.flat_map(|peer| way(config, local, peer)).collect()
}

fn way(config: &OverlayConfig, local: &LocalNode, peer: &Peer) -> Vec<Object> {
    let source = |to: &IpNetwork| local.subnets.iter().find(|own| own.is_ipv6() == to.is_ipv6()).copied();
    let shared = peer.subnets.iter().filter_map(|subnet| Some((*subnet, Peer::gateway(source(subnet)?))));
    let (direct, tunnelled): (Vec<_>, Vec<_>) =
        shared.partition(|(subnet, _)| config.direct_routing && is_direct(local, peer, subnet));

    let device = config.device();
    let mut objects: Vec<Object> = Vec::new();
    objects.extend(tunnelled.iter().map(|(subnet, _)| {
        Object::Neighbour(Neighbour {
            place: Place::Host,
            link: device.clone(),
            address: Peer::gateway(*subnet),
            mac: Some(peer.mac),
            permanent: true,
        })
    }));
    if !tunnelled.is_empty() {
        let entry = FdbEntry { place: Place::Host, link: device.clone(), mac: peer.mac, to: peer.underlay };
        objects.push(Object::Fdb(entry));
    }
    let route = |destination, link, gateway, onlink, source| {
        Object::Route(Route {
            place: Place::Host,
            link,
            destination,
            gateway: Some(gateway),
            onlink,
            mtu: None,
            advmss: None,
            metric: None,
            table: None,
            scope: None,
            source: Some(source),
        })
    };
    // The gateway of the other node is in no subnet of ours: it is on the link because we say so.
    let tunnelled = tunnelled.into_iter();
    objects.extend(tunnelled.map(|(to, source)| route(to, device.clone(), Peer::gateway(to), true, source)));
    let underlay = &local.underlay.link;
    let direct = direct.into_iter();
    objects.extend(direct.map(|(to, source)| route(to, underlay.clone(), peer.underlay, false, source)));
    objects
}

/// Whether `peer` is on our own segment, and can be the next hop to `subnet`: an IPv6 packet has
/// no next hop that is named by an IPv4 address.
fn is_direct(local: &LocalNode, peer: &Peer, subnet: &IpNetwork) -> bool {
    local.underlay.segment.contains(peer.underlay) && (subnet.is_ipv4() || peer.underlay.is_ipv6())
}
