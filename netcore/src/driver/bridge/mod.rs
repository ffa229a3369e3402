//! `bridge`: a Linux bridge on the host, a veth pair for each container, the gateway on the
//! bridge, masquerade for what leaves the host, and published ports.

mod builder;
mod guard;
mod isolation;
mod vlan;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

pub use builder::Network as BridgeNetwork;

use super::Desired;
use super::admission::admissions;
use super::inside::{self, subnet};
use crate::error::{Error, Result};
use crate::model::{
    Address, Attachment, Bridge, BridgeConfig, ForwardPort, Lease, Link, LinkKind, Mac, Mark, NatRule, Network, Object,
    Place, Port, PortMapping, Rivals, RouteSpec, Sysctl, Table, Veth, ZoneBinding,
};

pub(super) fn validate(config: &BridgeConfig, network: &Network) -> Result<()> {
    if config.hairpin_mode && config.promisc_mode {
        return Err(Error::invalid(
            "promiscMode",
            "true",
            "compatible with hairpinMode (every frame would arrive twice): set one of the two",
        ));
    }
    if config.disable_container_interface && network.ipam.is_some() {
        return Err(Error::invalid("ipam", "a section", "absent when disableContainerInterface is true"));
    }
    // 68 is the least an IPv4 host must take (RFC 791), 65535 the most a veth does.
    if config.mtu != 0 && !(68..=65535).contains(&config.mtu) {
        return Err(Error::invalid("mtu", config.mtu, "0 or a number of bytes from 68 to 65535"));
    }
    vlan::validate(config)?;
    guard::validate(config, network)?;
    isolation::validate(config)
}

/// What the network adds to a lease: gateways for addresses that came without one, and a
/// default route by each family's gateway where the lease has none and there is a way out.
pub(super) fn complete(config: &BridgeConfig, lease: &mut Lease) {
    if !config.is_gateway() {
        return;
    }
    for leased in &mut lease.addresses {
        leased.gateway.get_or_insert_with(|| first_usable(leased.address));
    }
    if !config.is_default_gateway || config.internal {
        return;
    }
    for default in [DEFAULT_V4, DEFAULT_V6] {
        let mut same_family = lease.addresses.iter().filter(|leased| leased.address.is_ipv6() == default.is_ipv6());
        let gateway = same_family.find_map(|leased| leased.gateway);
        if gateway.is_some() && !lease.routes.iter().any(|route| route.dst == default) {
            lease.routes.push(RouteSpec { gw: gateway, ..RouteSpec::to(default) });
        }
    }
}

/// Takes from `attachment` what it cannot have, and says so.
pub(super) fn curtail(config: &BridgeConfig, network: &Network, attachment: &mut Attachment) -> Vec<String> {
    if !config.internal || attachment.publish.is_empty() {
        return Vec::new();
    }
    attachment.publish.clear();
    vec![format!("portMappings: not published on network {}, which is internal", network.name)]
}

pub(super) fn desired(
    config: &BridgeConfig,
    network: &Network,
    attachment: &Attachment,
    lease: &Lease,
) -> Result<Desired> {
    let wish = Wish { config, network, attachment, lease };
    let published = if config.internal { Vec::new() } else { wish.published()? };
    Ok(Desired { host: isolation::barriers(config), network: wish.shared(), attachment: wish.own(published) })
}

struct Wish<'a> {
    config: &'a BridgeConfig,
    network: &'a Network,
    attachment: &'a Attachment,
    lease: &'a Lease,
}

impl Wish<'_> {
    /// The bridge, its VLAN, the gateway addresses, forwarding, and what the firewall knows of the network.
    fn shared(&self) -> Vec<Object> {
        let gateway = vlan::gateway(self.config);
        let mark = Mark::of_network(&self.network.name);
        let mut objects = vec![Object::Link(Link {
            place: Place::Host,
            name: self.config.bridge(),
            kind: LinkKind::Bridge(vlan::bridge(self.config)),
            mark: Some(mark.clone()),
            mac: None,
            mtu: None,
            up: true,
            port: None,
        })];
        objects.extend(vlan::gateway_link(self.config, &mark));
        if self.config.is_gateway() {
            objects.extend(self.gateways().map(|address| {
                Object::Address(Address {
                    place: Place::Host,
                    link: gateway.clone(),
                    address,
                    dad: false,
                    rivals: if self.config.force_address { Rivals::Replace } else { Rivals::Refuse },
                })
            }));
            objects.extend(self.forwarding());
        }
        if self.needs_firewall() {
            objects.push(Object::Nat(NatRule::Ruleset { table: Table::Inet, damage: Vec::new() }));
            objects.extend(isolation::membership(&gateway, &mark));
        }
        if self.needs_translation() {
            let mut subnets: Vec<IpNetwork> =
                self.lease.addresses.iter().map(|leased| subnet(leased.address)).collect();
            subnets.dedup();
            objects
                .extend(subnets.into_iter().map(|subnet| Object::Nat(NatRule::Hairpin { subnet, mark: mark.clone() })));
        }
        objects.extend(guard::is_wanted(self.config).then(guard::ruleset));
        let mut links = vec![gateway.clone(), self.config.bridge()];
        links.dedup();
        objects.extend(links.into_iter().flat_map(|link| admissions(&link, self.lease, &mark)));
        if self.is_routed() {
            objects.push(Object::Zone(ZoneBinding::of(gateway, mark)));
        }
        objects
    }

    /// The veth pair, what it carries inside the container, and this container's share of the
    /// firewall.
    fn own(&self, published: Vec<Object>) -> Vec<Object> {
        let config = self.config;
        let id = &self.attachment.id;
        let mark = id.mark(&self.network.name);
        let mtu = (config.mtu != 0).then_some(config.mtu);
        let mac = self.mac();
        let host_interface = id.host_interface(&self.network.name);
        let mut objects = vec![Object::Link(Link {
            place: Place::Host,
            name: host_interface.clone(),
            kind: LinkKind::Veth(Veth {
                peer: id.interface.clone(),
                peer_mac: mac,
                peer_mtu: mtu,
                peer_up: !config.disable_container_interface,
                peer_skips_dad: self.has(true) && !config.enable_dad,
            }),
            mark: Some(mark.clone()),
            mac: None,
            mtu,
            up: true,
            port: Some(Port {
                bridge: config.bridge(),
                // A container that publishes a port must be able to reach it through the host.
                hairpin: config.hairpin_mode || (!published.is_empty() && !config.promisc_mode),
                isolated: config.isolates_ports(),
                vlans: vlan::of_port(config),
            }),
        })];
        objects.extend(inside::addresses(self.attachment, self.lease, config.enable_dad));
        objects.extend(inside::routes(self.attachment, self.lease));
        if config.ip_masq && !config.internal {
            objects.extend(
                self.lease
                    .addresses
                    .iter()
                    .map(|leased| Object::Nat(NatRule::Masquerade { source: leased.address.ip(), mark: mark.clone() })),
            );
        }
        objects.extend(published.iter().filter_map(|object| self.forward_port(object)));
        objects.extend(published);
        if let Some(mac) = mac.filter(|_| guard::is_wanted(config)) {
            objects.extend(guard::of_port(config, &host_interface, mac, self.lease, &mark));
        }
        objects
    }

    /// The container's MAC address; the kernel's choice if `None`, which it is not where frames
    /// from any other are dropped.
    fn mac(&self) -> Option<Mac> {
        let checked = || Mac::for_identity(self.attachment.id.mark(&self.network.name).as_str());
        let wished = inside::mac(self.network, self.attachment, self.config.mac, self.lease);
        wished.or_else(|| guard::is_wanted(self.config).then(checked))
    }

    /// Whether the firewall has to know of the network: if only to keep its containers from others.
    fn needs_firewall(&self) -> bool {
        self.needs_translation() || isolation::is_wanted(self.config) || self.is_routed()
    }

    /// Whether the host passes on what containers send.
    fn is_routed(&self) -> bool {
        self.config.is_gateway() && !self.lease.addresses.is_empty()
    }

    /// Whether addresses or ports are rewritten.
    fn needs_translation(&self) -> bool {
        let (masquerades, publishes) = (self.config.ip_masq, !self.attachment.publish.is_empty());
        !self.lease.addresses.is_empty() && !self.config.internal && (masquerades || publishes)
    }

    /// The addresses the gateway's link carries: each lease's gateway, with the prefix length of its
    /// subnet.
    fn gateways(&self) -> impl Iterator<Item = IpNetwork> {
        self.lease.addresses.iter().filter_map(|leased| IpNetwork::new(leased.gateway?, leased.address.prefix()).ok())
    }

    fn has(&self, v6: bool) -> bool {
        self.lease.has(v6)
    }

    /// The switches that let the host pass packets on.
    fn forwarding(&self) -> Vec<Object> {
        let on = |name: String| Object::Sysctl(Sysctl { place: Place::Host, name, value: "1".to_owned() });
        let mut switches = Vec::new();
        if self.has(false) {
            switches.push(on("net/ipv4/ip_forward".to_owned()));
            // The switch of all sets this one too; but it can be thrown alone.
            switches.push(on(format!("net/ipv4/conf/{}/forwarding", self.config.bridge())));
            if self.attachment.publish.iter().any(PortMapping::reaches_ipv4_loopback) {
                // Lets 127.0.0.1 leave by the bridge; our table keeps it from arriving by a wire.
                // What comes back by a VLAN is routed as if it came by the bridge, with br_netfilter.
                let mut ways = vec![vlan::gateway(self.config), self.config.bridge()];
                ways.dedup();
                switches.extend(ways.iter().map(|way| on(format!("net/ipv4/conf/{way}/route_localnet"))));
            }
        }
        if self.has(true) {
            switches.push(on("net/ipv6/conf/all/forwarding".to_owned()));
        }
        switches
    }

    /// A published port as a firewalld that is strict about them has to know it.
    fn forward_port(&self, published: &Object) -> Option<Object> {
        let Object::Nat(NatRule::Publish { host_address, protocol, host_port, to, mark }) = published else {
            return None;
        };
        let gateway = || {
            let of_target = self.lease.addresses.iter().find(|leased| leased.address.ip() == to.ip());
            of_target.and_then(|leased| leased.gateway)
        };
        Some(Object::ForwardPort(ForwardPort {
            destination: host_address.or_else(gateway).unwrap_or(to.ip()),
            protocol: *protocol,
            host_port: *host_port,
            to: *to,
            mark: mark.clone(),
        }))
    }

    /// The published ports, each on the container's first address of its family.
    fn published(&self) -> Result<Vec<Object>> {
        let mark = self.attachment.id.mark(&self.network.name);
        let target = |v6: bool| {
            self.lease.addresses.iter().map(|leased| leased.address.ip()).find(|address| address.is_ipv6() == v6)
        };
        let mut objects = Vec::new();
        for mapping in &self.attachment.publish {
            if mapping.host_address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) {
                return Err(Error::Unsupported {
                    field: "portMappings.hostIP".to_owned(),
                    value: "::1".to_owned(),
                    way_out: "Linux does not route from ::1; publish on 127.0.0.1, or on an address of the host"
                        .to_owned(),
                });
            }
            let families: Vec<bool> = mapping.families().into_iter().filter(|v6| target(*v6).is_some()).collect();
            if families.is_empty() {
                let container = &self.attachment.id.container;
                return Err(Error::invalid(
                    "portMappings",
                    mapping,
                    format!("publishable: {container} has no address of that family on network {}", self.network.name),
                ));
            }
            for address in families.into_iter().filter_map(target) {
                objects.extend(mapping.ports().map(|(host_port, container_port)| {
                    Object::Nat(NatRule::Publish {
                        host_address: mapping.host_address.filter(|address| !address.is_unspecified()),
                        protocol: mapping.protocol,
                        host_port,
                        to: SocketAddr::new(address, container_port),
                        mark: mark.clone(),
                    })
                }));
            }
        }
        let mut keys = HashSet::new();
        match objects.iter().find(|object| !keys.insert(object.key())) {
            Some(twice) => {
                Err(Error::invalid("portMappings", twice, "named once: the same host port is in the list twice"))
            }
            None => Ok(objects),
        }
    }
}

/// Where everything else goes.
const DEFAULT_V4: IpNetwork = IpNetwork::V4(Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).unwrap());
const DEFAULT_V6: IpNetwork = IpNetwork::V6(Ipv6Network::new_checked(Ipv6Addr::UNSPECIFIED, 0).unwrap());

/// The first address of a subnet after the network's own.
fn first_usable(address: IpNetwork) -> IpAddr {
    match address.network() {
        IpAddr::V4(network) => Ipv4Addr::from(u32::from(network).saturating_add(1)).into(),
        IpAddr::V6(network) => Ipv6Addr::from(u128::from(network).saturating_add(1)).into(),
    }
}
