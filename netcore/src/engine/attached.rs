//! What an attachment looks like when it is done.

use std::fmt;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::{
    AttachmentId, Dns, InterfaceName, LeasedAddress, Link, LinkKind, Mac, Object, Place, PortMapping, RouteSpec, State,
};
use crate::store::Record;

/// A finished attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Whose it is.
    pub id: AttachmentId,
    /// The interfaces it stands on: those on the host first, the container's last.
    pub interfaces: Vec<Interface>,
    /// The addresses of the container's interface.
    pub addresses: Vec<LeasedAddress>,
    /// The routes address management asked for.
    pub routes: Vec<RouteSpec>,
    /// What the container's resolver should use.
    pub dns: Dns,
    /// The host ports that lead to it.
    pub publish: Vec<PortMapping>,
    /// What is not as it should be, although the attachment is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An interface an attachment stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: InterfaceName,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The container's namespace, if it is in there.
    pub sandbox: Option<PathBuf>,
    /// The addresses it had before: those of a namespace that is shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNetwork>,
}

impl Attached {
    /// The result of `record`, whose links were `seen`.
    pub(super) fn new(record: &Record, seen: &State) -> Self {
        let sandbox = &record.attachment.netns;
        let mut interfaces = Vec::new();
        let mut inside = Vec::new();
        for object in &seen.0 {
            let Object::Link(link) = object else { continue };
            let interface = Interface::of(link, None);
            match (link.place, &link.kind) {
                (Place::Host, LinkKind::Veth(veth)) => {
                    interfaces.push(interface);
                    inside.push(Interface {
                        name: veth.peer.clone(),
                        mac: veth.peer_mac,
                        mtu: veth.peer_mtu,
                        sandbox: sandbox.clone(),
                        addresses: Vec::new(),
                    });
                }
                (Place::Host, _) => interfaces.push(interface),
                (Place::Sandbox, LinkKind::Loopback | LinkKind::Macvlan(_)) => {
                    inside.push(Interface { sandbox: sandbox.clone(), ..interface });
                }
                (Place::Sandbox, _) => {}
            }
        }
        interfaces.extend(inside);
        Self::with(record, interfaces)
    }

    /// The result of `record`, whose namespace holds `objects`: links, each followed by its addresses.
    pub(super) fn sharing(record: &Record, objects: Vec<Object>) -> Self {
        let mut interfaces: Vec<Interface> = Vec::new();
        for object in objects {
            match (object, interfaces.last_mut()) {
                (Object::Link(link), _) => interfaces.push(Interface::of(&link, record.attachment.netns.clone())),
                (Object::Address(address), Some(interface)) => interface.addresses.push(address.address),
                _ => {}
            }
        }
        Self::with(record, interfaces)
    }

    fn with(record: &Record, interfaces: Vec<Interface>) -> Self {
        let lease = record.lease.clone().unwrap_or_default();
        let dns = if record.network.dns.is_empty() { lease.dns } else { record.network.dns.clone() };
        Self {
            id: record.attachment.id.clone(),
            interfaces,
            addresses: lease.addresses,
            routes: lease.routes,
            dns,
            publish: record.attachment.publish.clone(),
            warnings: Vec::new(),
        }
    }
}

impl Interface {
    fn of(link: &Link, sandbox: Option<PathBuf>) -> Self {
        Self { name: link.name.clone(), mac: link.mac, mtu: link.mtu, sandbox, addresses: Vec::new() }
    }
}

/// `eth0 10.20.0.2/24 via 10.20.0.1, 8080→80/tcp`
impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shared = self.interfaces.iter().filter(|interface| !interface.addresses.is_empty()).peekable();
        if shared.peek().is_none() {
            write!(f, "{}", self.id.interface)?;
        }
        for (position, interface) in shared.enumerate() {
            write!(f, "{}{}", if position == 0 { "" } else { ", " }, interface.name)?;
            interface.addresses.iter().try_for_each(|address| write!(f, " {address}"))?;
        }
        for leased in &self.addresses {
            write!(f, " {}", leased.address)?;
            if let Some(gateway) = leased.gateway {
                write!(f, " via {gateway}")?;
            }
        }
        for mapping in &self.publish {
            write!(f, ", {mapping}")?;
        }
        Ok(())
    }
}
