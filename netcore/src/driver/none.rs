//! `none`: the namespace keeps its loopback interface, up, and gets nothing else.

use super::Desired;
use crate::error::{Error, Result};
use crate::model::{InterfaceName, Link, LinkKind, Network, Object, Place};

pub(super) fn validate(network: &Network) -> Result<()> {
    match network.ipam {
        None => Ok(()),
        Some(_) => Err(Error::invalid("ipam", "a section", "absent: a network of type none has no addresses to give")),
    }
}

pub(super) fn desired() -> Desired {
    let loopback = Link {
        place: Place::Sandbox,
        name: InterfaceName::loopback(),
        kind: LinkKind::Loopback,
        mark: None,
        mac: None,
        mtu: None,
        up: true,
        port: None,
    };
    Desired { attachment: vec![Object::Link(loopback)], ..Desired::default() }
}
