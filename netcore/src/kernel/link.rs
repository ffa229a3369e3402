//! Interfaces: veth pairs born with one end in the sandbox, bridges, VLANs, and `lo`; tunnels are in
//! [`vxlan`] and [`wireguard`].
//!
//! The kernel takes everything about a new interface in one request, but for two things: the
//! alias, which carries our mark, and whether the far end of a pair is up. Until the alias is
//! set, which is the next request, the interface is told from foreign ones by its group
//! ([`BIRTH_GROUP`]); one that is found with it was left by a process that died in between, and
//! is ours to remove.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::linux::Linux;
use super::macvlan;
use super::rtnl::{Refusal, Rtnl, forgive};
use super::seen::{self, Seen};
use super::vlan;
use super::vxlan;
use super::wireguard;
use crate::error::{Error, Result};
use crate::model::{Bridge, InterfaceName, Link, LinkKind, Mac, Mark, Object, Place, Port, Veth};

/// The interface group (`IFLA_GROUP`) of an interface of ours that has no alias yet: "netc".
pub(super) const BIRTH_GROUP: u32 = 0x6e65_7463;

/// The group interfaces are in when nobody says otherwise.
pub(super) const DEFAULT_GROUP: u32 = 0;

/// Each end of a pair uses one queue of each kind unless told otherwise, but since Linux 5.13 is made
/// with one for every processor, each of which costs it time (`veth_get_num_queues`).
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// Has the kernel give an interface no link-local address of its own accord.
fn no_own_address() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

/// Makes `link`.
pub(super) async fn create(kernel: &Linux, link: &Link) -> Result<()> {
    match &link.kind {
        LinkKind::Veth(veth) => create_veth(kernel, link, veth).await,
        LinkKind::Bridge(bridge) => create_bridge(kernel, link, bridge).await,
        LinkKind::Macvlan(macvlan) => macvlan::create_macvlan(kernel, link, macvlan).await,
        LinkKind::Vlan(vlan) => vlan::create(kernel, link, vlan).await,
        LinkKind::Vxlan(vxlan) => vxlan::create(kernel, link, vxlan).await,
        LinkKind::Wireguard(wireguard) => wireguard::create(kernel, link, wireguard).await,
        LinkKind::Loopback => {
            let rtnl = kernel.required(link.place)?;
            let mut message = of_name(link);
            set_up(&mut message, link.up);
            rtnl.change(RouteNetlinkMessage::SetLink(message), 0)
                .await
                .map_err(|refusal| refusal.error("set up", show(link)))
        }
        LinkKind::Other { name } => Err(Error::Unsupported {
            field: format!("link {}", link.name),
            value: format!("an interface of kind {name:?}"),
            way_out: "veth pairs, bridges, macvlan and VLAN links, and VXLAN and WireGuard tunnels can be made"
                .to_owned(),
        }),
    }
}

async fn create_veth(kernel: &Linux, link: &Link, veth: &Veth) -> Result<()> {
    let host = kernel.required(link.place)?;
    let sandbox = kernel.required(Place::Sandbox)?;
    let netns = kernel.required_sandbox()?;
    let failed = |refusal: Refusal| refusal.error("create", show(link));

    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(veth.peer.to_string()));
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
    peer.attributes.extend(veth.peer_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    peer.attributes.extend(veth.peer_mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(ONE_QUEUE);

    let mut message = of_name(link);
    set_up(&mut message, link.up);
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    if let Some(port) = &link.port {
        message.attributes.push(LinkAttribute::Controller(bridge_index(kernel, link, port).await?));
    }
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    message.attributes.extend(ONE_QUEUE);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    match host.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => {
            let taken = seen::by_name(&host, &link.name).await.map_err(failed)?.is_some();
            let (name, place) = if taken { (&link.name, link.place) } else { (&veth.peer, Place::Sandbox) };
            return Err(Error::InterfaceExists { name: name.clone(), place: format!("the {place}") });
        }
        outcome => outcome.map_err(failed)?,
    }

    let mut finish = of_name(link);
    finish.attributes.extend(link.mark.as_ref().map(|mark| LinkAttribute::IfAlias(mark.to_string())));
    finish.attributes.push(LinkAttribute::Group(DEFAULT_GROUP));
    finish.attributes.extend(link.port.as_ref().filter(|port| port.hairpin || port.isolated).map(port_flags));
    // The port hears what is not for it until then, so nobody must be able to listen yet.
    if let Some(vlans) = link.port.as_ref().and_then(|port| port.vlans.as_ref())
        && let Err(error) = vlan::join(&host, link, vlans).await
    {
        let _ = host.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
        return Err(error);
    }
    let finished = finish_veth(&host, link, finish).await;
    if veth.peer_skips_dad {
        netns.visit(|| skip_detection(&veth.peer))?;
    }
    let raised = if veth.peer_up { raise(&sandbox, &veth.peer).await } else { Ok(()) };
    if let Err(refusal) = finished.and(raised) {
        // All or nothing. What the removal says would only hide what went wrong.
        let _ = host.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
        return Err(failed(refusal));
    }
    Ok(())
}

/// Says the rest of the host's end, before there is a carrier. The port of a bridge has no use for an address:
/// each would be three routes that every other port's coming and going looks at.
async fn finish_veth(host: &Rtnl, link: &Link, mut finish: LinkMessage) -> Result<(), Refusal> {
    if link.port.is_some() {
        finish.attributes.push(no_own_address());
        match host.change(RouteNetlinkMessage::NewLink(finish.clone()), 0).await {
            // A kernel without IPv6, or one that has switched it off for this interface.
            Err(refusal) if refusal.is(&[Errno::AFNOSUPPORT]) => drop(finish.attributes.pop()),
            outcome => return outcome,
        }
    }
    host.change(RouteNetlinkMessage::NewLink(finish), 0).await
}

async fn create_bridge(kernel: &Linux, link: &Link, bridge: &Bridge) -> Result<()> {
    let rtnl = kernel.required(link.place)?;
    let failed = |refusal: Refusal| refusal.error("create", show(link));
    // A bridge without an address of its own takes the lowest of its ports', and its
    // neighbours' caches are wrong whenever a port comes or goes.
    let mac = match link.mac {
        Some(mac) => mac,
        None => random_mac().map_err(|code| failed(code.into()))?,
    };
    let mut message = of_name(link);
    set_promiscuous(&mut message, &link.kind);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
    if bridge.vlan_filtering {
        info.push(vlan::filtering());
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    match rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => return share(&rtnl, link).await,
        Err(refusal) if refusal.is(&[Errno::OPNOTSUPP]) && bridge.vlan_filtering => {
            return Err(vlan::unsupported(link));
        }
        outcome => outcome.map_err(failed)?,
    }
    // Duplicate address detection would keep the bridge's link-local address, and with it every
    // IPv6 packet to a container, waiting for a second.
    if link.up {
        skip_detection(&link.name);
        raise(&rtnl, &link.name).await.map_err(failed)?;
    }
    // An MTU set at birth would be overruled by that of the first port; one set later stays.
    let mut finish = of_name(link);
    finish.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    claim(&rtnl, link, finish).await.map_err(failed)?;
    let reached = vlan::reach(&rtnl, link, bridge).await;
    if reached.is_err() {
        let _ = rtnl.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
    }
    reached
}

/// Puts our mark on `link`, which was made just now, and what `finish` says; or removes it again.
pub(super) async fn claim(rtnl: &Rtnl, link: &Link, mut finish: LinkMessage) -> Result<(), Refusal> {
    finish.attributes.extend(link.mark.as_ref().map(|mark| LinkAttribute::IfAlias(mark.to_string())));
    finish.attributes.push(LinkAttribute::Group(DEFAULT_GROUP));
    let finished = rtnl.change(RouteNetlinkMessage::NewLink(finish), 0).await;
    if finished.is_err() {
        let _ = rtnl.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
    }
    finished
}

/// Somebody was faster. If what they made is of the same kind, it is used.
pub(super) async fn share(rtnl: &Rtnl, link: &Link) -> Result<()> {
    let found = seen::by_name(rtnl, &link.name).await.map_err(|refusal| refusal.error("read", show(link)))?;
    match found {
        Some(found) if found.kind == link.kind.name() => {
            if link.up && !found.up {
                raise(rtnl, &link.name).await.map_err(|refusal| refusal.error("set up", show(link)))?;
            }
            match &link.kind {
                LinkKind::Bridge(bridge) => {
                    let ours = found.group == BIRTH_GROUP || found.alias.as_deref().and_then(Mark::parse).is_some();
                    vlan::update_bridge(rtnl, link, ours, found.vlan_filtering == Some(true), bridge).await
                }
                _ => Ok(()),
            }
        }
        _ => Err(Error::InterfaceExists { name: link.name.clone(), place: format!("the {}", link.place) }),
    }
}

/// Turns `was` into `link`, setting only what differs.
pub(super) async fn update(kernel: &Linux, was: &Link, link: &Link) -> Result<()> {
    kernel.forget();
    let rtnl = kernel.required(link.place)?;
    let failed = |refusal: Refusal| refusal.error("update", show(link));
    if was.kind.name() != link.kind.name() {
        return Err(Error::Conflict {
            object: show(link).to_string(),
            found: format!("{} is there as an interface of kind {}", link.name, was.kind.name()),
            way_out: "remove it, or choose another name".to_owned(),
        });
    }
    if let (LinkKind::Veth(_) | LinkKind::Vxlan(_) | LinkKind::Wireguard(_), Some(mark), Some(other)) =
        (&link.kind, &link.mark, &was.mark)
        && mark != other
    {
        return Err(Error::Conflict {
            object: show(link).to_string(),
            found: format!("{} belongs to {}", link.name, other.who()),
            way_out: String::new(),
        });
    }
    if let (LinkKind::Veth(had), LinkKind::Veth(want)) = (&was.kind, &link.kind) {
        if had.peer == seen::unknown() {
            // The other end was taken elsewhere, where we do not reach it.
            remove(kernel, link).await?;
            return create(kernel, link).await;
        }
        update_peer(kernel, link, had, want).await?;
    }
    if let (LinkKind::Macvlan(had), LinkKind::Macvlan(want)) = (&was.kind, &link.kind)
        && macvlan::update_macvlan(kernel, link, had, want).await?
    {
        return Ok(());
    }

    if let (LinkKind::Vlan(had), LinkKind::Vlan(want)) = (&was.kind, &link.kind) {
        vlan::expect(link, had, want)?;
    }
    if let (LinkKind::Bridge(had), LinkKind::Bridge(want)) = (&was.kind, &link.kind) {
        vlan::update_bridge(&rtnl, link, was.mark.is_some(), had.vlan_filtering, want).await?;
    }

    if matches!(link.kind, LinkKind::Vxlan(_)) && was.kind != link.kind {
        // Number and port are for life.
        remove(kernel, was).await?;
        return create(kernel, link).await;
    }

    if let (LinkKind::Wireguard(had), LinkKind::Wireguard(want)) = (&was.kind, &link.kind)
        && had != want
    {
        wireguard::configure(link, want)?;
    }

    let mut message = of_name(link);
    if was.up != link.up {
        set_up(&mut message, link.up);
    }
    if was.kind != link.kind {
        set_promiscuous(&mut message, &link.kind);
    }
    // A bridge that somebody else made is used as it is, but for being up.
    let is_shared = matches!(link.kind, LinkKind::Bridge(_) | LinkKind::Vlan(_));
    if !is_shared || was.mark.is_some() {
        if link.mtu.is_some() && was.mtu != link.mtu {
            message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
        }
        if link.mac.is_some() && was.mac != link.mac {
            message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        }
    }
    if !is_shared && was.mark != link.mark {
        message.attributes.extend(link.mark.as_ref().map(|mark| LinkAttribute::IfAlias(mark.to_string())));
    }
    if let Some(port) = &link.port
        && was.port.as_ref().map(|port| &port.bridge) != Some(&port.bridge)
    {
        message.attributes.push(LinkAttribute::Controller(bridge_index(kernel, link, port).await?));
    }
    rtnl.change(RouteNetlinkMessage::NewLink(message), 0).await.map_err(failed)?;
    if matches!(link.kind, LinkKind::Wireguard(_)) && link.up {
        wireguard::greet(link)?;
    }

    // The flags are the bridge's to take, so they go to the one the link is on now.
    if let Some(port) = &link.port
        && was.port.as_ref() != Some(port)
    {
        let mut message = of_name(link);
        message.attributes.push(port_flags(port));
        rtnl.change(RouteNetlinkMessage::NewLink(message), 0).await.map_err(failed)?;
        if let Some(vlans) = &port.vlans {
            vlan::join(&rtnl, link, vlans).await?;
        }
    }
    Ok(())
}

async fn update_peer(kernel: &Linux, link: &Link, had: &Veth, want: &Veth) -> Result<()> {
    if had == want {
        return Ok(());
    }
    let sandbox = kernel.required(Place::Sandbox)?;
    let failed = |refusal: Refusal| refusal.error("update", show(link));
    let Some(peer) = seen::by_name(&sandbox, &had.peer).await.map_err(failed)? else {
        return Err(failed(Errno::NODEV.into()));
    };
    let mut message = LinkMessage::default();
    message.header.index = peer.index;
    if had.peer != want.peer {
        message.attributes.push(LinkAttribute::IfName(want.peer.to_string()));
    }
    message.attributes.extend(want.peer_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(want.peer_mtu.map(LinkAttribute::Mtu));
    set_up(&mut message, want.peer_up);
    sandbox.change(RouteNetlinkMessage::SetLink(message), 0).await.map_err(failed)
}

/// Removes `link` if it is ours; what is gone, what is not ours, and a bridge that still has
/// ports or VLANs, or a VLAN that still bears links, whosever they are, is a success.
pub(super) async fn remove(kernel: &Linux, link: &Link) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("remove", show(link));
    if matches!(link.kind, LinkKind::Loopback) {
        return Ok(());
    }
    let Some(rtnl) = kernel.at(link.place)? else { return Ok(()) };
    if matches!(link.kind, LinkKind::Macvlan(_)) {
        macvlan::remove_unfinished(kernel, link).await?;
    }
    let found = seen::known(kernel, link.place, &link.name).await.map_err(failed)?;
    kernel.forget();
    let Some(found) = found else { return Ok(()) };
    // The name may have been an alternative one of somebody else's interface.
    if found.name != link.name.as_str() || found.kind != link.kind.name() || !is_ours(link, &found) {
        return Ok(());
    }
    if matches!(link.kind, LinkKind::Bridge(_)) && has_ports(&rtnl, &found).await.map_err(failed)? {
        return Ok(());
    }
    if matches!(link.kind, LinkKind::Vlan(_)) && is_used(&rtnl, &found).await.map_err(failed)? {
        return Ok(());
    }
    // By index: another interface of the same name, made meanwhile, is not meant.
    let mut message = LinkMessage::default();
    message.header.index = found.index;
    forgive(rtnl.change(RouteNetlinkMessage::DelLink(message), 0).await, &[Errno::NODEV]).map_err(failed)
}

async fn has_ports(rtnl: &Rtnl, bridge: &Seen) -> Result<bool, Refusal> {
    Ok(seen::all(rtnl).await?.iter().any(|link| link.master == Some(bridge.index) || link.stands_on(bridge)))
}

/// Whether somebody beside us uses a VLAN link: as a bridge port, or with links of their own on it.
async fn is_used(rtnl: &Rtnl, vlan: &Seen) -> Result<bool, Refusal> {
    Ok(vlan.master.is_some() || seen::all(rtnl).await?.iter().any(|link| link.stands_on(vlan)))
}

/// Whether `found` may be removed in the name of `link`.
pub(super) fn is_ours(link: &Link, found: &Seen) -> bool {
    match (&link.mark, &found.alias) {
        (None, _) => true,
        (Some(mark), Some(alias)) => mark.as_str() == alias,
        (Some(_), None) => found.group == BIRTH_GROUP,
    }
}

/// Spares an interface of the calling thread's namespace duplicate address detection. A host
/// without IPv6 has no such setting, and nothing to detect.
fn skip_detection(name: &InterfaceName) {
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0");
}

/// Sets an interface up.
pub(super) async fn raise(rtnl: &Rtnl, name: &InterfaceName) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    set_up(&mut message, true);
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0).await
}

pub(super) async fn bridge_index(kernel: &Linux, link: &Link, port: &Port) -> Result<u32> {
    let failed = |refusal: Refusal| refusal.error("find", format!("bridge {} for {}", port.bridge, show(link)));
    match seen::known(kernel, link.place, &port.bridge).await.map_err(failed)? {
        Some(bridge) => Ok(bridge.index),
        None => Err(failed(Errno::NODEV.into())),
    }
}

pub(super) fn of_name(link: &Link) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(link.name.to_string()));
    message
}

pub(super) fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask |= LinkFlags::Up;
    message.header.flags.set(LinkFlags::Up, up);
}

fn set_promiscuous(message: &mut LinkMessage, kind: &LinkKind) {
    if let LinkKind::Bridge(bridge) = kind
        && bridge.promiscuous
    {
        message.header.change_mask |= LinkFlags::Promisc;
        message.header.flags |= LinkFlags::Promisc;
    }
}

fn port_flags(port: &Port) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::HairpinMode(port.hairpin),
            InfoBridgePort::Isolated(port.isolated),
        ])),
    ])
}

/// A locally administered unicast address that nobody else is likely to have.
fn random_mac() -> Result<Mac, Errno> {
    let mut bytes = [0; 6];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    bytes[0] = bytes[0] & 0xfc | 0x02;
    Ok(Mac(bytes))
}

/// The link as messages name it.
pub(super) fn show(link: &Link) -> Object {
    Object::Link(link.clone())
}
