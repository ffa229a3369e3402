//! Whether a link can be made on the one below it: what the kernel would refuse with a number,
//! or take and break, is an error with a name before anything is touched.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::model::{InterfaceName, Key, Link, LinkKind, Macvlan, MacvlanMode, Object, Place, Vlan};

/// Refuses `wanted`, a link to be made, when the one below it is not there or cannot bear it. One
/// of `planned` is as good as there.
pub(super) fn refuse_unfit_parent(wanted: &Object, planned: &[Object], seen: &HashMap<Key, &Object>) -> Result<()> {
    let Object::Link(link) = wanted else { return Ok(()) };
    let look = |place: Place, name: &InterfaceName| match seen.get(&Key::Link(place, name.clone())) {
        Some(Object::Link(found)) => Some(found),
        _ => None,
    };
    match &link.kind {
        LinkKind::Vlan(vlan) => match look(link.place, &vlan.parent) {
            Some(_) => Ok(()),
            None if planned.iter().any(|object| object.key() == Key::Link(link.place, vlan.parent.clone())) => Ok(()),
            None => Err(no_master(&link.name, link.place)),
        },
        LinkKind::Macvlan(macvlan) => {
            // A VLAN that is yet to be made will be like the link it is made on.
            let made_before = || match macvlan.parent_place {
                Place::Host => Vlan::of_name(&macvlan.parent).and_then(|vlan| look(Place::Host, &vlan.parent)),
                Place::Sandbox => None,
            };
            match look(macvlan.parent_place, &macvlan.parent) {
                Some(parent) => refuse_unfit(link, macvlan, parent),
                None => match made_before() {
                    Some(below) => refuse_mtu(link, below),
                    None => Err(no_master(&macvlan.parent, macvlan.parent_place)),
                },
            }
        }
        _ => Ok(()),
    }
}

fn refuse_unfit(link: &Link, macvlan: &Macvlan, parent: &Link) -> Result<()> {
    let master = &macvlan.parent;
    if matches!(parent.kind, LinkKind::Loopback) {
        return Err(Error::invalid("master", master, "an Ethernet interface"));
    }
    if let Some(port) = &parent.port {
        let bridge = &port.bridge;
        return Err(Error::Conflict {
            object: format!("master {master}"),
            found: format!("it is a port of {bridge}, which takes all of its frames"),
            way_out: format!("use {bridge} as the master, or take {master} off it"),
        });
    }
    if let (Some(mac), true) = (link.mac, link.mac == parent.mac && macvlan.mode != MacvlanMode::Passthru) {
        return Err(Error::Conflict {
            object: format!("MAC {mac}"),
            found: format!("it is that of the master {master}"),
            way_out: "ask for another one".to_owned(),
        });
    }
    refuse_mtu(link, parent)
}

fn refuse_mtu(link: &Link, parent: &Link) -> Result<()> {
    match (link.mtu, parent.mtu) {
        (Some(wanted), Some(most)) if wanted > most => {
            Err(Error::invalid("mtu", wanted, format!("at most {most}, which is that of the master {}", parent.name)))
        }
        _ => Ok(()),
    }
}

fn no_master(name: &InterfaceName, place: Place) -> Error {
    let expected = match Vlan::split(name) {
        Some((_, id)) if place == Place::Host && !Vlan::IDS.contains(&id) => {
            format!("an interface of the {place}, nor a VLAN that could be made: ids go from 1 to 4094")
        }
        Some((parent, _)) if place == Place::Host => {
            format!("an interface of the {place}, and could not be made on {parent}, which is not there either")
        }
        _ => format!("an interface of the {place}"),
    };
    Error::invalid("master", name, expected)
}
