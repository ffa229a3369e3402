//! `overlay`: on every node the same bridge as a bridge network's, with the node's part of the
//! cluster's range on it, and one tunnel to the other nodes: VXLAN, or WireGuard in its place. What is said here of the bridge
//! is said by [`bridge`]; [`ways()`] says how the other nodes are reached.

mod ways;

use ipnetwork::IpNetwork;

use super::admission::{admissions, admissions_from};
use super::{Desired, bridge};
use crate::error::{Error, Result};
use crate::model::{
    Attachment, Encryption, HostLocal, IpamConfig, Lease, Link, LinkKind, LocalNode, Mark, Mode, NatRule, Network,
    Object, OverlayConfig, Peer, PeerSource, Place, Range, Sysctl, Vxlan, Wireguard,
};

pub use ways::ways;

pub(super) fn validate(config: &OverlayConfig, network: &Network) -> Result<()> {
    if config.vni == 0 || config.vni > OverlayConfig::MAX_VNI {
        return Err(Error::invalid("vni", config.vni, format!("a number from 1 to {}", OverlayConfig::MAX_VNI)));
    }
    if config.port == 0 {
        return Err(Error::invalid("port", 0, "a UDP port from 1 to 65535"));
    }
    let ranges = &config.cidr;
    if ranges.is_empty() {
        return Err(Error::invalid("cidr", "nothing", "the cluster's range, such as 10.244.0.0/16"));
    }
    for (position, range) in ranges.iter().enumerate() {
        if range.ip() != range.network() {
            let expected = format!("a network address: {}/{}", range.network(), range.prefix());
            return Err(Error::invalid("cidr", range, expected));
        }
        if ranges[..position].iter().any(|other| other.is_ipv6() == range.is_ipv6()) {
            return Err(Error::invalid("cidr", range, "the only one of its family: a cluster has one of each"));
        }
    }
    if config.encryption.is_some() && config.direct_routing {
        let expected = "false: what is encrypted has no way around the tunnel";
        return Err(Error::invalid("directRouting", true, expected));
    }
    match &config.source {
        PeerSource::File(path) if !path.is_absolute() => {
            return Err(Error::invalid("source.file", path.display(), "an absolute path"));
        }
        PeerSource::Etcd(etcd) => {
            if let Some((key, value, expected)) = etcd.fault() {
                return Err(Error::invalid(format!("source.etcd.{key}"), value, expected));
            }
            validate_lengths(config)?;
        }
        PeerSource::File(_) => {}
    }
    if let Some((directory, expected)) = HostLocal::misplaced(config.data_dir.as_deref()) {
        return Err(Error::invalid("dataDir", directory.display(), expected));
    }
    if config.internal && config.direct_routing {
        let expected = "compatible with directRouting, by which containers leave the host: set one of the two";
        return Err(Error::invalid("internal", "true", expected));
    }
    if network.ipam.is_some() && config.local.is_none() {
        return Err(Error::invalid("ipam", "a section", "absent: an overlay gives out its node's own subnet"));
    }
    bridge::validate(&config.bridge(&network.name), network)
}

/// Whether a node's part of each range is one: within it, and with room for containers.
fn validate_lengths(config: &OverlayConfig) -> Result<()> {
    if config.subnet_len.len() > config.cidr.len() {
        let expected = "no longer than cidr: one prefix length for each range";
        return Err(Error::invalid("subnetLen", "a list", expected));
    }
    for (position, range) in config.cidr.iter().enumerate() {
        let (length, most) = (config.subnet_length(position), if range.is_ipv4() { 30 } else { 126 });
        if length < range.prefix() || length > most {
            let expected = format!("a prefix length from {} to {most}, for {range}", range.prefix());
            return Err(Error::invalid("subnetLen", length, expected));
        }
    }
    Ok(())
}

/// `network` as it is on the node `local`: what it gives out, and how large its packets are.
///
/// # Errors
/// [`Error::Invalid`] when the MTU does not fit into the underlay's.
pub fn located(network: &Network, local: LocalNode) -> Result<Network> {
    let Mode::Overlay(config) = &network.mode else { return Ok(network.clone()) };
    let (underlay, v6) = (&local.underlay, local.subnets.iter().any(IpNetwork::is_ipv6));
    let ranges = local.subnets.iter().map(|subnet| vec![Range::all_of(*subnet)]).collect();
    let room = underlay.room(config.encryption);
    // What an IPv6 host may rely on (RFC 8200, 5), and an IPv4 one (RFC 791).
    let least = if v6 { 1280 } else { 68 };
    let mtu = if config.mtu == 0 { room } else { config.mtu };
    if mtu > room || mtu < least {
        let expected = format!(
            "between {least} and {room}: {} has an MTU of {}, and the tunnel needs {} of it",
            underlay.link,
            underlay.mtu,
            underlay.mtu - room
        );
        return Err(Error::invalid("mtu", mtu, expected));
    }
    let mut network = anywhere(network);
    if let (Mode::Overlay(config), Some(IpamConfig::HostLocal(ipam))) = (&mut network.mode, &mut network.ipam) {
        config.local = Some(local);
        ipam.ranges = ranges;
    }
    Ok(network)
}

/// `network` as far as it is the same on every node: enough to take back what was given out.
#[must_use]
pub fn anywhere(network: &Network) -> Network {
    let mut network = network.clone();
    if let (Mode::Overlay(config), None) = (&network.mode, &network.ipam) {
        let ipam = HostLocal { data_dir: config.data_dir.clone(), ..HostLocal::default() };
        network.ipam = Some(IpamConfig::HostLocal(ipam));
    }
    network
}

fn tunnel_kind(config: &OverlayConfig) -> LinkKind {
    let local = config.local.as_ref();
    match config.encryption {
        None => LinkKind::Vxlan(Vxlan {
            vni: config.vni,
            port: config.port,
            local: local.map(|local| local.underlay.address),
            learning: false,
        }),
        Some(Encryption::Wireguard) => {
            let key = local.and_then(|local| local.key.clone());
            let (key, key_file) = key.map_or_else(Default::default, |key| (Some(key.public), key.file));
            LinkKind::Wireguard(Wireguard { port: config.port, key, key_file })
        }
    }
}

pub(super) fn complete(config: &OverlayConfig, network: &Network, lease: &mut Lease) {
    bridge::complete(&config.bridge(&network.name), lease);
}

/// The tunnel of `network` on this node, once that is [located](located()).
#[must_use]
pub fn tunnel(config: &OverlayConfig, network: &Network) -> Link {
    let local = config.local.as_ref();
    Link {
        place: Place::Host,
        name: config.device(),
        kind: tunnel_kind(config),
        mark: Some(Mark::of_network(&network.name)),
        // What WireGuard carries has no link-layer addresses.
        mac: local.filter(|_| config.encryption.is_none()).map(|local| Peer::endpoint_mac(&local.node, config.vni)),
        mtu: config.effective_mtu(),
        up: true,
        port: None,
    }
}

pub(super) fn desired(
    config: &OverlayConfig,
    network: &Network,
    attachment: &Attachment,
    lease: &Lease,
) -> Result<Desired> {
    let mut desired = bridge::desired(&config.bridge(&network.name), network, attachment, lease)?;
    let mark = Mark::of_network(&network.name);
    desired.network.push(Object::Link(tunnel(config, network)));
    if lease.addresses.iter().any(|leased| leased.address.is_ipv4()) {
        // As for the bridge: the switch of all sets it too, but it can be thrown alone.
        let name = format!("net/ipv4/conf/{}/forwarding", config.device());
        desired.network.push(Object::Sysctl(Sysctl { place: Place::Host, name, value: "1".to_owned() }));
    }
    desired.network.extend(admissions(&config.device(), lease, &mark));
    if config.direct_routing {
        let bridge = config.bridge(&network.name).bridge();
        desired.network.extend(admissions_from(&config.cidr, &bridge, &mark));
    }
    let (bridge, device) = (config.bridge(&network.name).bridge(), config.device());
    for (from, to) in [(&bridge, &device), (&device, &bridge)] {
        let within = NatRule::Within { from: from.clone(), to: to.clone(), mark: mark.clone() };
        desired.network.push(Object::Nat(within));
    }
    if config.ip_masq || config.direct_routing {
        let exempt = |range: &IpNetwork| Object::Nat(NatRule::Cluster { range: *range, mark: mark.clone() });
        desired.network.extend(config.cidr.iter().map(exempt));
    }
    Ok(desired)
}
