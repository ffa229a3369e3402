//! Interfaces as the kernel reports them, and how they read as the model's values.

mod interfaces;
mod listing;
mod message;

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoMacVlan, InfoPortData, InfoVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::link::BIRTH_GROUP;
use super::linux::Linux;
use super::macvlan;
use super::rtnl::{Refusal, Rtnl};
use super::vxlan;
use super::wireguard;
use crate::error::Result;
use crate::model::{
    Bridge, InterfaceName, Link, LinkKind, Mac, Macvlan, MacvlanMode, Mark, Object, Place, Port, PortVlans, Veth, Vlan,
    Vxlan,
};

pub(super) use interfaces::{Interfaces, MANY};
pub(super) use listing::Listing;

/// An interface as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) index: u32,
    pub(super) name: String,
    /// `IFLA_INFO_KIND`; `loopback` for `lo`, empty for hardware.
    pub(super) kind: String,
    pub(super) alias: Option<String>,
    pub(super) group: u32,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: Option<u32>,
    pub(super) up: bool,
    promiscuous: bool,
    /// Whether the bridge filters by VLAN; `None` where the kernel cannot, and for what is no bridge.
    pub(super) vlan_filtering: Option<bool>,
    vlan_id: Option<u16>,
    pub(super) vxlan: Option<Vxlan>,
    /// The bridge it is a port of, by index.
    pub(super) master: Option<u32>,
    hairpin: bool,
    isolated: bool,
    /// Whether the bridge passes frames through the port; false for what is no port.
    pub(super) forwarding: bool,
    /// How a macvlan link is one.
    macvlan_mode: Option<MacvlanMode>,
    bc_queue_len: Option<u32>,
    /// The other end of a pair or the link below (`IFLA_LINK`), an index in the namespace it is in.
    peer: Option<u32>,
    /// The namespace that one is in (`IFLA_LINK_NETNSID`), if not the same.
    peer_namespace: Option<i32>,
}

impl Seen {
    /// Whether `self` and `other` name one another as their other ends.
    fn is_paired_with(&self, other: &Self) -> bool {
        self.kind == "veth" && other.kind == "veth" && self.peer == Some(other.index) && other.peer == Some(self.index)
    }

    /// Whether `self` is a macvlan or VLAN link on `below`, or the like, in the same namespace.
    pub(super) fn stands_on(&self, below: &Self) -> bool {
        self.kind != "veth" && self.peer == Some(below.index) && self.peer_namespace.is_none()
    }

    /// Whether it carries the mark of `link`.
    pub(super) fn is_marked_as(&self, link: &Link) -> bool {
        link.mark.as_ref().map(Mark::as_str) == self.alias.as_deref()
    }

    /// The interface's name as a value.
    pub(super) fn name(&self) -> InterfaceName {
        InterfaceName::new(self.name.as_str()).unwrap_or_else(|_| unknown())
    }

    fn describe(&self, place: Place, kind: LinkKind, port: Option<Port>) -> Link {
        Link {
            place,
            name: self.name(),
            kind,
            mark: self.alias.as_deref().and_then(Mark::parse),
            mac: self.mac,
            mtu: self.mtu,
            up: self.up,
            port,
        }
    }

    fn plain_kind(&self) -> LinkKind {
        match self.kind.as_str() {
            "bridge" => LinkKind::Bridge(Bridge {
                promiscuous: self.promiscuous,
                vlan_filtering: self.vlan_filtering == Some(true),
                vlans: Vec::new(),
            }),
            "loopback" => LinkKind::Loopback,
            other => match &self.vxlan {
                Some(vxlan) => LinkKind::Vxlan(vxlan.clone()),
                None => LinkKind::Other { name: other.to_owned() },
            },
        }
    }
}

impl From<&LinkMessage> for Seen {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut seen = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            promiscuous: flags.contains(LinkFlags::Promisc),
            ..Self::default()
        };
        if flags.contains(LinkFlags::Loopback) {
            seen.kind = LinkKind::Loopback.name().to_owned();
        }
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => seen.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => seen.alias = Some(alias.clone()),
                LinkAttribute::Group(group) => seen.group = *group,
                LinkAttribute::Mtu(mtu) => seen.mtu = Some(*mtu),
                LinkAttribute::Address(bytes) => seen.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Controller(index) => seen.master = Some(*index),
                LinkAttribute::Link(index) => seen.peer = Some(*index),
                LinkAttribute::LinkNetNsId(id) => seen.peer_namespace = Some(*id),
                LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| seen.learn(info)),
                _ => {}
            }
        }
        seen
    }
}

impl Seen {
    fn learn(&mut self, info: &LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = kind.to_string(),
            LinkInfo::Data(InfoData::MacVlan(facts)) => {
                for fact in facts {
                    match fact {
                        InfoMacVlan::Mode(mode) => self.macvlan_mode = macvlan_mode(*mode),
                        InfoMacVlan::BcQueueLen(length) => self.bc_queue_len = Some(*length),
                        _ => {}
                    }
                }
            }
            LinkInfo::Data(InfoData::Bridge(facts)) => {
                self.vlan_filtering = facts.iter().find_map(|fact| match fact {
                    InfoBridge::VlanFiltering(on) => Some(*on),
                    _ => None,
                });
            }
            LinkInfo::Data(InfoData::Vlan(facts)) => {
                self.vlan_id = facts.iter().find_map(|fact| match fact {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
            }
            LinkInfo::Data(InfoData::Vxlan(facts)) => self.vxlan = Some(vxlan::read(facts)),
            LinkInfo::PortData(InfoPortData::BridgePort(facts)) => {
                for fact in facts {
                    match fact {
                        InfoBridgePort::HairpinMode(on) => self.hairpin = *on,
                        InfoBridgePort::Isolated(on) => self.isolated = *on,
                        InfoBridgePort::State(state) => self.forwarding = *state == BridgePortState::Forwarding,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn macvlan_mode(mode: MacVlanMode) -> Option<MacvlanMode> {
    match mode {
        MacVlanMode::Bridge => Some(MacvlanMode::Bridge),
        MacVlanMode::Private => Some(MacvlanMode::Private),
        MacVlanMode::Vepa => Some(MacvlanMode::Vepa),
        MacVlanMode::Passthrough => Some(MacvlanMode::Passthru),
        _ => None,
    }
}

/// What stands for a name that cannot be known: no runtime calls an interface so.
pub(super) fn unknown() -> InterfaceName {
    InterfaceName::unknown()
}

/// The interface called `name`.
pub(super) async fn by_name(rtnl: &Rtnl, name: &InterfaceName) -> Result<Option<Seen>, Refusal> {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::IfName(name.to_string()));
    message::one(rtnl, query).await
}

/// The interface called `name` in `place`, as it is or as it was found before during this operation.
pub(super) async fn known(kernel: &Linux, place: Place, name: &InterfaceName) -> Result<Option<Seen>, Refusal> {
    if let Some(seen) = kernel.known(place, name) {
        return Ok(Some(seen));
    }
    let Ok(Some(rtnl)) = kernel.at(place) else { return Ok(None) };
    let seen = by_name(&rtnl, name).await?;
    if let Some(seen) = &seen {
        kernel.remember(place, name, seen);
    }
    Ok(seen)
}

/// The interface with the index `index`.
pub(super) async fn by_index(rtnl: &Rtnl, index: u32) -> Result<Option<Seen>, Refusal> {
    let mut query = LinkMessage::default();
    query.header.index = index;
    message::one(rtnl, query).await
}

/// Every interface.
pub(super) async fn all(rtnl: &Rtnl) -> Result<Vec<Seen>, Refusal> {
    message::named(rtnl, |_| true).await
}

/// The interface in an answer or notification.
pub(super) fn from_answer(answer: &RouteNetlinkMessage) -> Option<Seen> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(message.into()),
        _ => None,
    }
}

/// What is there of `wanted`: the link itself, and an interface of the sandbox that bears the
/// name its other end should have.
pub(super) async fn link(kernel: &Linux, interfaces: &Interfaces, wanted: &Link) -> Result<Vec<Object>> {
    let unfinished = || match (&wanted.kind, &wanted.mark) {
        (LinkKind::Macvlan(_), Some(mark)) => interfaces.get(wanted.place, &mark.birth_name()),
        _ => None,
    };
    let found = interfaces.get(wanted.place, &wanted.name).or_else(unfinished);
    let mut objects = Vec::new();
    let mut peer = None;
    if let Some(found) = found {
        let port = match found.master {
            Some(master) => Some(Port {
                bridge: match wanted.port.as_ref().and_then(|port| interfaces.get(wanted.place, &port.bridge)) {
                    Some(bridge) if bridge.index == master => bridge.name(),
                    _ => interfaces.name_of(kernel, wanted.place, master).await?,
                },
                hairpin: found.hairpin,
                isolated: found.isolated,
                vlans: interfaces
                    .vlans
                    .get(&found.index)
                    .map(|members| PortVlans { members: members.clone(), only: true }),
            }),
            None => None,
        };
        let kind = match &wanted.kind {
            LinkKind::Wireguard(wanted) if found.kind == "wireguard" => {
                LinkKind::Wireguard(wireguard::observe(&found.name(), wanted)?)
            }
            LinkKind::Macvlan(_) | LinkKind::Vlan(_) => on_another(kernel, interfaces, wanted.place, found).await?,
            LinkKind::Veth(veth) if found.kind == wanted.kind.name() => {
                peer = other_end(kernel, interfaces, found, veth).await?;
                LinkKind::Veth(Veth { peer_skips_dad: veth.peer_skips_dad, ..describe_peer(peer.as_ref()) })
            }
            _ => match found.plain_kind() {
                LinkKind::Bridge(bridge) => {
                    let vlans = interfaces.vlans.get(&found.index).cloned().unwrap_or_default();
                    LinkKind::Bridge(Bridge { vlans, ..bridge })
                }
                other => other,
            },
        };
        let mut seen = Link { name: wanted.name.clone(), ..found.describe(wanted.place, kind, port) };
        if found.group == BIRTH_GROUP && seen.mark.is_none() {
            // Its maker died before it could put the mark on; the name says whose it was to be.
            seen.mark.clone_from(&wanted.mark);
        }
        objects.push(Object::Link(seen));
    }
    if let LinkKind::Veth(veth) = &wanted.kind
        && let Some(bearer) = interfaces.get(Place::Sandbox, &veth.peer)
        && peer.is_none_or(|peer| peer.index != bearer.index)
    {
        let kind = LinkKind::Other { name: bearer.kind.clone() };
        objects.push(Object::Link(bearer.describe(Place::Sandbox, kind, None)));
    }
    Ok(objects)
}

/// The links that wanted ones stand on, or will: a missing parent may be a VLAN to be made.
fn below(wanted: &[Object]) -> Vec<(&Link, Place, InterfaceName)> {
    let mut below = Vec::new();
    for object in wanted {
        let Object::Link(link) = object else { continue };
        match &link.kind {
            LinkKind::Macvlan(macvlan) => {
                below.push((link, macvlan.parent_place, macvlan.parent.clone()));
                below.extend(Vlan::of_name(&macvlan.parent).map(|vlan| (link, macvlan.parent_place, vlan.parent)));
            }
            LinkKind::Vlan(vlan) => below.push((link, link.place, vlan.parent.clone())),
            _ => {}
        }
    }
    below
}

/// What the `wanted` links stand on, as far as it is there and not wanted itself.
pub(super) async fn parents(kernel: &Linux, interfaces: &Interfaces, wanted: &[&Link]) -> Result<Vec<Object>> {
    let links: Vec<Object> = wanted.iter().map(|link| Object::Link((*link).clone())).collect();
    let mut parents = Vec::new();
    for (_, place, name) in below(&links) {
        let is_wanted = wanted.iter().any(|link| (link.place, &link.name) == (place, &name));
        if let Some(found) = interfaces.get(place, &name).filter(|_| !is_wanted) {
            let port = match found.master {
                Some(master) => {
                    let bridge = interfaces.name_of(kernel, place, master).await?;
                    Some(Port { bridge, hairpin: found.hairpin, isolated: found.isolated, vlans: None })
                }
                None => None,
            };
            let parent = Object::Link(found.describe(place, found.plain_kind(), port));
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
    }
    Ok(parents)
}

/// The kind of `found`, a macvlan or VLAN link if it is one, with the link it stands on.
async fn on_another(kernel: &Linux, interfaces: &Interfaces, place: Place, found: &Seen) -> Result<LinkKind> {
    let below = macvlan::parent_place(place, found.peer_namespace.is_some());
    let parent = match found.peer {
        Some(index) => interfaces.name_of(kernel, below, index).await?,
        None => unknown(),
    };
    Ok(match (found.kind.as_str(), found.macvlan_mode, found.vlan_id) {
        ("macvlan", Some(mode), _) => {
            LinkKind::Macvlan(Macvlan { parent, parent_place: below, mode, bc_queue_len: found.bc_queue_len })
        }
        ("vlan", _, Some(id)) => LinkKind::Vlan(Vlan { parent, id }),
        _ => found.plain_kind(),
    })
}

fn describe_peer(peer: Option<&Seen>) -> Veth {
    match peer {
        Some(peer) => {
            Veth { peer: peer.name(), peer_mac: peer.mac, peer_mtu: peer.mtu, peer_up: peer.up, peer_skips_dad: false }
        }
        None => Veth { peer: unknown(), peer_mac: None, peer_mtu: None, peer_up: false, peer_skips_dad: false },
    }
}

/// The other end of `host` in the sandbox, whatever its name, if it is there.
async fn other_end(kernel: &Linux, interfaces: &Interfaces, host: &Seen, wanted: &Veth) -> Result<Option<Seen>> {
    let (Some(index), Some(sandbox)) = (host.peer, kernel.at(Place::Sandbox)?) else { return Ok(None) };
    let failed = |refusal: Refusal| refusal.error("read", format_args!("link {} ↔ {}", host.name, wanted.peer));
    let candidate = match interfaces.get(Place::Sandbox, &wanted.peer) {
        Some(candidate) if host.is_paired_with(candidate) => Some(candidate.clone()),
        _ => by_index(&sandbox, index).await.map_err(failed)?.filter(|candidate| host.is_paired_with(candidate)),
    };
    // Indices are counted anew in every namespace, so a pair elsewhere may have the same two.
    match (candidate, host.peer_namespace) {
        (Some(candidate), Some(id)) if sandbox_id(kernel).await.map_err(failed)? == Some(id) => Ok(Some(candidate)),
        (Some(candidate), None) => Ok(Some(candidate)),
        _ => Ok(None),
    }
}

/// What the host's namespace calls the sandbox in `IFLA_LINK_NETNSID`.
async fn sandbox_id(kernel: &Linux) -> Result<Option<i32>, Refusal> {
    let (Some(netns), Ok(Some(host))) = (kernel.sandbox(), kernel.at(Place::Host)) else { return Ok(None) };
    let mut query = NsidMessage::default();
    query.attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd().cast_unsigned()));
    let answer = host.get(RouteNetlinkMessage::GetNsId(query)).await?;
    Ok(match answer {
        Some(RouteNetlinkMessage::NewNsId(message)) => {
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) => Some(*id),
                _ => None,
            })
        }
        _ => None,
    })
}

/// The interface as a value, with nothing that another namespace would have to be asked for.
pub(super) fn plain(seen: &Seen, place: Place) -> Link {
    seen.describe(place, seen.plain_kind(), None)
}

/// A link with a mark, for those who know nothing but the mark.
pub(super) fn marked(seen: &Seen, place: Place) -> Option<Link> {
    let mark = seen.alias.as_deref().and_then(Mark::parse)?;
    let kind = match seen.kind.as_str() {
        "veth" => {
            let peer = mark.attachment().map_or_else(unknown, |id| id.interface);
            LinkKind::Veth(Veth { peer, ..describe_peer(None) })
        }
        _ => seen.plain_kind(),
    };
    Some(seen.describe(place, kind, None))
}
