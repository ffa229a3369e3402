//! Encrypted tunnels: interfaces of kind `wireguard`, made as others are and configured over generic
//! netlink (linux/wireguard.h), and the peers they talk to. They are the host's alone.

use std::fs;
use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::link::{BIRTH_GROUP, claim, of_name, raise, set_up, show};
use super::linux::Linux;
use super::requests::{AT_ONCE, Requests};
use super::rtnl::{Refusal, Rtnl};
use super::seen;
use crate::error::{Error, Result};
use crate::model::{InterfaceName, Link, Object, Place, PrivateKey, Wireguard, WireguardPeer};

mod message;

use message::{Device, Family};

/// A conversation with WireGuard in the namespace of the calling thread.
struct Socket {
    requests: Requests,
    family: Family,
}

impl Socket {
    /// None where the kernel has no WireGuard. Asking loads the module.
    fn open() -> Result<Option<Self>, Refusal> {
        let mut requests = Requests::open(NETLINK_GENERIC)?;
        match requests.get(&message::find_family()) {
            Ok(answers) => {
                let family = answers.iter().find_map(|answer| message::family(answer));
                Ok(family.map(|family| Self { requests, family }))
            }
            Err(refusal) if refusal.is(&[Errno::NOENT]) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn required() -> Result<Self, Refusal> {
        Self::open()?.ok_or(Errno::OPNOTSUPP.into())
    }

    /// The interface `name` with its peers, if it is there and one of ours to ask.
    fn device(&mut self, name: &InterfaceName) -> Result<Option<Device>, Refusal> {
        match self.requests.list(&self.family.get_device(name)) {
            Ok(answers) => Ok(Some(Device::from_answers(&answers))),
            Err(refusal) if refusal.is(&[Errno::NODEV, Errno::OPNOTSUPP]) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

/// Whether the kernel has WireGuard.
pub(super) fn is_there() -> Result<bool> {
    let socket = Socket::open().map_err(|refusal| refusal.error("read", "the kernel's netlink families"))?;
    Ok(socket.is_some())
}

/// Makes the tunnel `link`.
pub(super) async fn create(kernel: &Linux, link: &Link, wireguard: &Wireguard) -> Result<()> {
    let rtnl = kernel.required(Place::Host)?;
    let mut message = of_name(link);
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
    match rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => return share(&rtnl, link).await,
        Err(refusal) if refusal.is(&[Errno::OPNOTSUPP]) => return Err(Error::no_wireguard()),
        outcome => outcome.map_err(|refusal| refusal.error("create", show(link)))?,
    }
    let mut finish = of_name(link);
    set_up(&mut finish, link.up);
    if let Err(error) = configure(link, wireguard) {
        // All or nothing. What the removal says would only hide what went wrong.
        let _ = rtnl.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
        return Err(error);
    }
    match claim(&rtnl, link, finish).await {
        // The socket is bound when the interface goes up.
        Err(refusal) if refusal.is(&[Errno::ADDRINUSE]) => Err(Error::Conflict {
            object: show(link).to_string(),
            found: format!("UDP port {} is in use on this host", wireguard.port),
            way_out:
                "free it (`ss -lunp` shows who has it; every encrypted network needs one of its own), or give the \
                      network another port on every node"
                    .to_owned(),
        }),
        outcome => outcome.map_err(|refusal| refusal.error("create", show(link))),
    }
}

/// Something was faster: if it was one of us, the tunnel is used.
async fn share(rtnl: &Rtnl, link: &Link) -> Result<()> {
    let found = seen::by_name(rtnl, &link.name).await.map_err(|refusal| refusal.error("read", show(link)))?;
    match found {
        // Until it is marked, it is told by its group.
        Some(found) if found.kind == link.kind.name() && (found.alias.is_none() || found.is_marked_as(link)) => {
            if link.up && !found.up {
                raise(rtnl, &link.name).await.map_err(|refusal| refusal.error("set up", show(link)))?;
            }
            Ok(())
        }
        _ => Err(Error::InterfaceExists { name: link.name.clone(), place: format!("the {}", link.place) }),
    }
}

/// Makes itself known to everybody whom the tunnel `link` talks to: it was down, or had another key.
pub(super) fn greet(link: &Link) -> Result<()> {
    let peers = peers(&link.name)?;
    let peers: Vec<&WireguardPeer> = peers.iter().collect();
    let mut socket = Socket::required().map_err(|refusal| refusal.error("configure", show(link)))?;
    for batch in peers.chunks(AT_ONCE) {
        let request = socket.family.greet(&link.name, batch);
        socket.requests.change(&request).map_err(|refusal| refusal.error("configure", show(link)))?;
    }
    Ok(())
}

/// Gives the tunnel `link` its private key and its port.
pub(super) fn configure(link: &Link, wireguard: &Wireguard) -> Result<()> {
    let path = &wireguard.key_file;
    let key = fs::read_to_string(path).map_err(Error::file("read", path))?;
    // What is in the file, which is secret, is in no message.
    let key =
        PrivateKey::from_secret_text(&key).filter(|key| Some(key.public()) == wireguard.key).ok_or_else(|| {
            let reason = "is not the private key that this attachment was made with: detach it and attach it again";
            Error::Record { path: path.clone(), reason: reason.to_owned() }
        })?;
    let set = |mut socket: Socket| {
        let request = socket.family.configure(&link.name, &key, wireguard.port);
        socket.requests.change(&request)
    };
    Socket::required().and_then(set).map_err(|refusal| refusal.error("configure", show(link)))
}

/// The interface `name` as it is, for somebody who wants it as `wanted`.
pub(super) fn observe(name: &InterfaceName, wanted: &Wireguard) -> Result<Wireguard> {
    let device = read(name)?.unwrap_or_default();
    Ok(Wireguard { port: device.port, key: device.key, key_file: wanted.key_file.clone() })
}

/// What is there of `wanted`, one listing an interface.
pub(super) fn observe_peers(wanted: &[&WireguardPeer]) -> Result<Vec<Object>> {
    let mut links: Vec<&InterfaceName> = wanted.iter().map(|peer| &peer.link).collect();
    links.sort_unstable();
    links.dedup();
    let mut found = Vec::with_capacity(wanted.len());
    for link in links {
        let keys: std::collections::HashSet<_> =
            wanted.iter().filter(|peer| peer.link == *link).map(|peer| peer.key).collect();
        let present = peers(link)?.into_iter().filter(|peer| keys.contains(&peer.key));
        found.extend(present.map(Object::WireguardPeer));
    }
    Ok(found)
}

/// Everybody whom the interface `link` talks to.
pub(super) fn peers(link: &InterfaceName) -> Result<Vec<WireguardPeer>> {
    let device = read(link)?.unwrap_or_default();
    let describe = |peer: message::Present| WireguardPeer {
        place: Place::Host,
        link: link.clone(),
        key: peer.key,
        endpoint: peer.endpoint,
        heard: peer.was_heard(),
        allowed: peer.allowed,
    };
    Ok(device.peers.into_iter().map(describe).collect())
}

fn read(name: &InterfaceName) -> Result<Option<Device>> {
    let read = || match Socket::open()? {
        Some(mut socket) => socket.device(name),
        None => Ok(None),
    };
    read().map_err(|refusal: Refusal| refusal.error("read", format_args!("wireguard {name}")))
}

/// Makes `peer`, or turns the one with its key into it.
pub(super) fn create_peer(peer: &WireguardPeer) -> Result<()> {
    let set = |mut socket: Socket| {
        let request = socket.family.set_peers(&peer.link, &[peer]);
        socket.requests.change(&request)
    };
    let outcome = Socket::required().and_then(set);
    outcome.map_err(|refusal| refusal.error("create", Object::WireguardPeer(peer.clone())))
}

/// Removes `peer`; what is gone already is a success.
pub(super) fn remove_peer(peer: &WireguardPeer) -> Result<()> {
    let remove = |mut socket: Socket| {
        let request = socket.family.remove_peers(&peer.link, &[peer]);
        socket.requests.change(&request)
    };
    match Socket::open() {
        Ok(None) => Ok(()),
        Ok(Some(socket)) => match remove(socket) {
            Err(refusal) if refusal.is(&[Errno::NODEV]) => Ok(()),
            outcome => outcome,
        },
        Err(refusal) => Err(refusal),
    }
    .map_err(|refusal| refusal.error("remove", Object::WireguardPeer(peer.clone())))
}

/// Makes all of `peers`, which are of one interface, or removes them, in one request. What became of
/// them is not known when it is refused.
pub(super) fn change_peers(peers: &[&WireguardPeer], remove: bool) -> io::Result<()> {
    let Some(first) = peers.first() else { return Ok(()) };
    let change = |mut socket: Socket| {
        let family = &socket.family;
        let request =
            if remove { family.remove_peers(&first.link, peers) } else { family.set_peers(&first.link, peers) };
        socket.requests.change(&request)
    };
    Socket::required().and_then(change).map_err(|_| io::ErrorKind::Other.into())
}
