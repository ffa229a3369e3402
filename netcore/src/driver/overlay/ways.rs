//! How the other nodes are reached: a few objects for each, however many containers it has.

use ipnetwork::IpNetwork;

use std::net::{IpAddr, SocketAddr};

use crate::model::{
    FdbEntry, InterfaceName, LocalNode, Neighbour, Object, OverlayConfig, Peer, Place, Route, WireguardPeer,
};

/// What the kernel should hold for the other nodes among `peers`: for each, in this order, whose
/// MAC address its gateway has, behind which node that is, and a route to its subnet. A node
/// that is reached directly takes the route alone. With encryption it is who they are and what is
/// theirs, and the routes: WireGuard sends by the one and takes nothing else. Nothing before this node is
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
    let (direct, tunnelled): (Vec<(IpNetwork, IpAddr)>, Vec<_>) =
        shared.partition(|(subnet, _)| config.direct_routing && is_direct(local, peer, subnet));

    let device = config.device();
    if config.encryption.is_some() {
        return encrypted(config, peer, tunnelled);
    }
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
    // The gateway of the other node is in no subnet of ours: it is on the link because we say so.
    let tunnelled = tunnelled.into_iter();
    objects.extend(tunnelled.map(|(to, source)| route(to, device.clone(), Some(Peer::gateway(to)), true, source)));
    let underlay = &local.underlay.link;
    let direct = direct.into_iter();
    objects.extend(direct.map(|(to, source)| route(to, underlay.clone(), Some(peer.underlay), false, source)));
    objects
}

/// The way to `peer` through an encrypted tunnel, to each of its `subnets` from the address of ours
/// that goes with it. A node without a key is not accepted as a peer, and one without a subnet that
/// anybody here could use is not let in.
fn encrypted(config: &OverlayConfig, peer: &Peer, subnets: Vec<(IpNetwork, IpAddr)>) -> Vec<Object> {
    let Some(key) = peer.public_key.filter(|_| !subnets.is_empty()) else { return Vec::new() };
    let link = config.device();
    let mut objects = vec![Object::WireguardPeer(WireguardPeer {
        place: Place::Host,
        link: link.clone(),
        key,
        endpoint: Some(SocketAddr::new(peer.underlay, peer.port)),
        allowed: subnets.iter().map(|(subnet, _)| *subnet).collect(),
        heard: false,
    })];
    objects.extend(subnets.into_iter().map(|(to, source)| route(to, link.clone(), None, false, source)));
    objects
}

fn route(destination: IpNetwork, link: InterfaceName, gateway: Option<IpAddr>, onlink: bool, source: IpAddr) -> Object {
    Object::Route(Route {
        place: Place::Host,
        link,
        destination,
        gateway,
        onlink,
        mtu: None,
        advmss: None,
        metric: None,
        table: None,
        scope: None,
        source: Some(source),
    })
}

/// Whether `peer` is on our own segment, and can be the next hop to `subnet`: an IPv6 packet has
/// no next hop that is named by an IPv4 address.
fn is_direct(local: &LocalNode, peer: &Peer, subnet: &IpNetwork) -> bool {
    local.underlay.segment.contains(peer.underlay) && (subnet.is_ipv4() || peer.underlay.is_ipv6())
}
