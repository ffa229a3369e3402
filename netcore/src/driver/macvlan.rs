//! `macvlan`: each container has a link of its own on a link of the host's, the master, and is a
//! neighbour of whoever is behind that. The master may be a VLAN that is made for the purpose;
//! the host, which a macvlan never reaches by itself, may have a link beside the containers'.

use ipnetwork::IpNetwork;

use super::{Desired, inside};
use crate::error::{Error, Result};
use crate::model::{
    Address, Attachment, InterfaceName, Lease, Link, LinkKind, Macvlan, MacvlanConfig, MacvlanMode, Mark, Network,
    Object, Place, Rivals, Route, Sysctl, Vlan,
};

pub(super) fn validate(config: &MacvlanConfig) -> Result<()> {
    // 68 is the least an IPv4 host must take (RFC 791); the most is the master's to say.
    if config.mtu != 0 && !(68..=65535).contains(&config.mtu) {
        return Err(Error::invalid("mtu", config.mtu, "0 or a number of bytes from 68 to 65535"));
    }
    if config.host_access && config.link_in_container {
        return Err(Error::invalid(
            "hostAccess",
            "true",
            "compatible with linkInContainer (the host has no part in such a master): set one of the two",
        ));
    }
    if config.host_access && config.mode != MacvlanMode::Bridge {
        return Err(Error::invalid(
            "hostAccess",
            "true",
            format!("compatible with mode {} (links of a master reach each other in mode bridge)", config.mode),
        ));
    }
    Ok(())
}

pub(super) fn desired(
    config: &MacvlanConfig,
    network: &Network,
    attachment: &Attachment,
    lease: &Lease,
) -> Result<Desired> {
    if !attachment.publish.is_empty() {
        return Err(Error::Unsupported {
            field: "portMappings".to_owned(),
            value: "a published port".to_owned(),
            way_out: "a macvlan container has an address on the network of its master: use that one's ports".to_owned(),
        });
    }
    let Some(master) = &config.master else {
        return Err(Error::invalid("master", "nothing", "an interface of the host"));
    };
    let wish = Wish { config, network, attachment, lease, master };
    Ok(Desired { host: wish.vlan(), network: wish.host_access(), attachment: wish.own() })
}

struct Wish<'a> {
    config: &'a MacvlanConfig,
    network: &'a Network,
    attachment: &'a Attachment,
    lease: &'a Lease,
    master: &'a InterfaceName,
}

impl Wish<'_> {
    /// The master, where its name is that of a VLAN.
    fn vlan(&self) -> Vec<Object> {
        if self.config.link_in_container {
            return Vec::new();
        }
        let vlan = Vlan::of_name(self.master).map(|vlan| {
            Object::Link(Link {
                place: Place::Host,
                name: self.master.clone(),
                kind: LinkKind::Vlan(vlan),
                mark: Some(Mark::of_host()),
                mac: None,
                mtu: None,
                up: true,
                port: None,
            })
        });
        vlan.into_iter().collect()
    }

    /// The host's own link beside the containers'. It carries the host's addresses once more, so
    /// that containers find the host there and the host's packets come from an address they know.
    fn host_access(&self) -> Vec<Object> {
        if !self.config.host_access {
            return Vec::new();
        }
        let name = InterfaceName::host_access(&self.network.name);
        let mut objects = vec![Object::Link(Link {
            place: Place::Host,
            name: name.clone(),
            kind: LinkKind::Macvlan(self.kind()),
            mark: Some(Mark::of_network(&self.network.name)),
            mac: None,
            mtu: None,
            up: true,
            port: None,
        })];
        objects.extend(self.config.host_addresses.iter().map(|address| {
            Object::Address(Address {
                place: Place::Host,
                link: name.clone(),
                address: IpNetwork::from(*address),
                dad: false,
                rivals: Rivals::Allow,
            })
        }));
        // Who asks for the host from beyond the master is answered by the master alone.
        objects.push(Object::Sysctl(Sysctl {
            place: Place::Host,
            name: format!("net/ipv4/conf/{name}/arp_filter"),
            value: "1".to_owned(),
        }));
        objects
    }

    /// The container's link and what it carries, and the host's way to it.
    fn own(&self) -> Vec<Object> {
        let config = self.config;
        let id = &self.attachment.id;
        // In passthru the link is the master's other face, and has its MAC address.
        let nothing = Lease::default();
        let lease = if config.mode == MacvlanMode::Passthru { &nothing } else { self.lease };
        let mut objects = vec![Object::Link(Link {
            place: Place::Sandbox,
            name: id.interface.clone(),
            kind: LinkKind::Macvlan(self.kind()),
            mark: Some(id.mark(&self.network.name)),
            mac: inside::mac(self.network, self.attachment, config.mac, lease),
            mtu: (config.mtu != 0).then_some(config.mtu),
            up: true,
            port: None,
        })];
        objects.extend(inside::addresses(self.attachment, self.lease, false));
        objects.extend(inside::routes(self.attachment, self.lease));
        if config.host_access {
            objects.extend(self.lease.addresses.iter().map(|leased| {
                Object::Route(Route {
                    place: Place::Host,
                    link: InterfaceName::host_access(&self.network.name),
                    destination: IpNetwork::from(leased.address.ip()),
                    gateway: None,
                    onlink: false,
                    mtu: None,
                    advmss: None,
                    metric: None,
                    table: None,
                    scope: None,
                    source: None,
                })
            }));
        }
        objects
    }

    fn kind(&self) -> Macvlan {
        Macvlan {
            parent: self.master.clone(),
            parent_place: if self.config.link_in_container { Place::Sandbox } else { Place::Host },
            mode: self.config.mode,
            bc_queue_len: (self.config.bc_queue_len != 0).then_some(self.config.bc_queue_len),
        }
    }
}
