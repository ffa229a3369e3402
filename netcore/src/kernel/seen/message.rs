//! Interfaces as the kernel's messages have them. A message carries some hundred facts: of those about
//! the kinds that containers stand on, ours are read where they lie ([`raw`](crate::kernel::raw)), which is a
//! tenth of the work of decoding all. Other kinds are few, and decoded as anywhere.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rustix::io::Errno;

use super::{Seen, from_answer, macvlan_mode};
use crate::kernel::extack::NETLINK_HEADER_LEN;
use crate::kernel::raw::{attribute, attributes, number, text};
use crate::kernel::rtnl::{Refusal, Rtnl, decode};
use crate::model::Mac;

/// `struct ifinfomsg` (linux/rtnetlink.h), with its index and flags.
const HEADER: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;
/// linux/if.h.
const IFF_UP: u32 = 0x1;
const IFF_PROMISC: u32 = 0x100;
/// linux/if_link.h.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_MACVLAN_BC_QUEUE_LEN: u16 = 7;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// linux/if_bridge.h.
const BR_STATE_FORWARDING: u8 = 3;

/// The interfaces whose names are wanted, out of all there are.
pub(in crate::kernel) async fn named(rtnl: &Rtnl, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Seen>, Refusal> {
    let mut query = LinkMessage::default();
    query.attributes.push(without_statistics());
    rtnl.dump_with(RouteNetlinkMessage::GetLink(query), |message| read(message, &is_wanted)).await
}

/// The interface that `query` asks for, if it is there.
pub(super) async fn one(rtnl: &Rtnl, mut query: LinkMessage) -> Result<Option<Seen>, Refusal> {
    query.attributes.push(without_statistics());
    match rtnl.get_with(RouteNetlinkMessage::GetLink(query), |message| read(message, &|_| true)).await {
        Err(refusal) if refusal.is(&[Errno::NODEV]) => Ok(None),
        outcome => outcome,
    }
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// The interface of a message, if its name is wanted.
fn read(message: &[u8], is_wanted: &impl Fn(&str) -> bool) -> Option<Seen> {
    let body = message.get(NETLINK_HEADER_LEN..)?;
    let facts = body.get(HEADER..)?;
    if !attribute(facts, IFLA_IFNAME).and_then(text).is_some_and(is_wanted) {
        return None;
    }
    let info = attribute(facts, IFLA_LINKINFO).unwrap_or_default();
    match attribute(info, IFLA_INFO_KIND).and_then(text) {
        Some(kind @ ("veth" | "bridge" | "macvlan")) => read_as(kind, body, facts, info),
        _ => decode(message).as_ref().and_then(from_answer),
    }
}

/// An interface of one of those kinds, of whose message those are the facts, and among them what is said of
/// its kind.
fn read_as(kind: &str, body: &[u8], facts: &[u8], info: &[u8]) -> Option<Seen> {
    let flags = number(body, FLAGS)?;
    let mut seen = Seen {
        index: number(body, INDEX)?,
        kind: kind.to_owned(),
        up: flags & IFF_UP != 0,
        promiscuous: flags & IFF_PROMISC != 0,
        ..Seen::default()
    };
    for (kind, value) in attributes(facts) {
        match kind {
            IFLA_IFNAME => seen.name = text(value)?.to_owned(),
            IFLA_IFALIAS => seen.alias = text(value).map(str::to_owned),
            IFLA_GROUP => seen.group = number(value, 0)?,
            IFLA_MTU => seen.mtu = number(value, 0),
            IFLA_ADDRESS => seen.mac = value.try_into().ok().map(Mac),
            IFLA_MASTER => seen.master = number(value, 0),
            IFLA_LINK => seen.peer = number(value, 0),
            IFLA_LINK_NETNSID => seen.peer_namespace = number(value, 0).map(u32::cast_signed),
            _ => {}
        }
    }
    let of_kind = attribute(info, IFLA_INFO_DATA).unwrap_or_default();
    match kind {
        "bridge" => seen.vlan_filtering = attribute(of_kind, IFLA_BR_VLAN_FILTERING).map(|on| on != [0]),
        "macvlan" => {
            let mode = attribute(of_kind, IFLA_MACVLAN_MODE).and_then(|mode| number(mode, 0));
            seen.macvlan_mode = mode.and_then(|mode| macvlan_mode(mode.into()));
            seen.bc_queue_len = attribute(of_kind, IFLA_MACVLAN_BC_QUEUE_LEN).and_then(|length| number(length, 0));
        }
        _ => {}
    }
    if attribute(info, IFLA_INFO_SLAVE_KIND).and_then(text) == Some("bridge") {
        for (kind, value) in attributes(attribute(info, IFLA_INFO_SLAVE_DATA).unwrap_or_default()) {
            match (kind, value) {
                (IFLA_BRPORT_MODE, [on]) => seen.hairpin = *on != 0,
                (IFLA_BRPORT_ISOLATED, [on]) => seen.isolated = *on != 0,
                (IFLA_BRPORT_STATE, [state]) => seen.forwarding = *state == BR_STATE_FORWARDING,
                _ => {}
            }
        }
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, LinkFlags, LinkInfo,
        MacVlanMode,
    };

    use super::*;
    use crate::kernel::rtnl::encode;

    fn message() -> (LinkMessage, Vec<u8>) {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up | LinkFlags::Promisc;
        link.attributes = vec![
            LinkAttribute::IfName("veth7".to_owned()),
            LinkAttribute::IfAlias("netcore:web/web-1/eth0".to_owned()),
            LinkAttribute::Group(5),
            LinkAttribute::Mtu(1450),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
            LinkAttribute::Controller(3),
            LinkAttribute::Link(9),
            LinkAttribute::LinkNetNsId(4),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![
                    InfoBridgePort::HairpinMode(true),
                    InfoBridgePort::Isolated(true),
                ])),
            ]),
        ];
        let bytes = encode(RouteNetlinkMessage::NewLink(link.clone()), 0);
        (link, bytes)
    }

    #[test]
    fn a_message_reads_the_same_either_way() {
        let (link, bytes) = message();
        assert_eq!(read(&bytes, &|name| name == "veth7"), Some(Seen::from(&link)));
        assert_eq!(read(&bytes, &|name| name == "veth8"), None);
    }

    #[test]
    fn what_a_kind_has_of_its_own_reads_the_same_either_way() {
        let filtering = |on| (InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::VlanFiltering(on)]));
        let mode = |mode| {
            let facts = vec![InfoMacVlan::Mode(mode), InfoMacVlan::BcQueueLen(64)];
            (InfoKind::MacVlan, InfoData::MacVlan(facts))
        };
        let modes = [MacVlanMode::Private, MacVlanMode::Vepa, MacVlanMode::Bridge, MacVlanMode::Passthrough];
        for (kind, data) in [filtering(true), filtering(false)].into_iter().chain(modes.map(mode)) {
            let (mut link, _) = message();
            link.attributes.pop();
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
            let bytes = encode(RouteNetlinkMessage::NewLink(link.clone()), 0);
            assert_eq!(read(&bytes, &|_| true), Some(Seen::from(&link)));
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_read_as_far_as_it_goes() {
        let (_, bytes) = message();
        for length in 0..bytes.len() {
            let seen = read(&bytes[..length], &|_| true);
            assert!(seen.is_none_or(|seen| seen.index == 7 && seen.name == "veth7"));
        }
    }
}
