//! Notifications of links, addresses, routes and forwarding (rtnetlink(7), linux/netconf.h), as
//! far as the filter lets them pass.

use nftnl_sys::libc;

use super::losses::Losses;
use super::socket::Message;
use crate::kernel::raw::{attribute, number, text};
use crate::model::Mark;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`,
/// `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV4_NETCONF`, `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h).
pub(super) const GROUPS: [u32; 7] = [1, 5, 7, 9, 11, 24, 25];

/// Where what follows `struct nlmsghdr` begins.
pub(super) const BODY: u32 = 16;
/// `ifa_scope` in `struct ifaddrmsg`.
pub(super) const ADDRESS_SCOPE: u32 = 3;
/// `rtm_protocol` in `struct rtmsg`.
pub(super) const ROUTE_PROTOCOL: u32 = 5;
/// `ifi_flags` and `ifi_change` in `struct ifinfomsg`.
pub(super) const LINK_FLAGS: u32 = 8;
pub(super) const LINK_CHANGE: u32 = 12;

/// linux/rtnetlink.h.
pub(super) const RTM_NEWNETCONF: u16 = 80;
/// A whole message that says of one interface whether it forwards, and nothing else: both headers,
/// the interface, and the switch, which is the second attribute.
pub(super) const FORWARDING_ALONE: u32 = 36;
pub(super) const SECOND_ATTRIBUTE: u32 = 28;
pub(in crate::kernel) const NETCONFA_IFINDEX: u16 = 1;
pub(in crate::kernel) const NETCONFA_FORWARDING: u16 = 2;
pub(in crate::kernel) const NETCONFA_IFINDEX_ALL: i32 = -1;
const NETCONFA_IFINDEX_DEFAULT: i32 = -2;

/// `struct ifinfomsg`, `struct ifaddrmsg`, and `struct netconfmsg` filled up.
const LINK_HEADER: usize = 16;
const NETCONF_HEADER: usize = 4;
/// if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;

/// Reads one message into `losses`.
pub(super) fn read(message: Message<'_>, losses: &mut Losses) {
    let body = message.body;
    match message.kind {
        libc::RTM_DELLINK | libc::RTM_NEWLINK => link(message.kind == libc::RTM_DELLINK, body, losses),
        libc::RTM_DELADDR => {
            if let Some(index) = number(body, 4) {
                losses.bared(index);
            }
        }
        libc::RTM_DELROUTE => losses.everything("a route of ours was removed"),
        RTM_NEWNETCONF => switch(body, losses),
        _ => {}
    }
}

/// A link has gone, or left its bridge, or is down.
fn link(goes: bool, body: &[u8], losses: &mut Losses) {
    let (Some(family), Some(index), Some(attributes)) = (body.first(), number(body, 4), body.get(LINK_HEADER..)) else {
        return;
    };
    let named = |kind| attribute(attributes, kind).and_then(text);
    if i32::from(*family) == libc::AF_BRIDGE {
        if let Some(name) = named(IFLA_IFNAME).filter(|_| goes) {
            losses.unplugged(index, name.to_owned());
        }
        return;
    }
    if goes {
        losses.gone(index);
    }
    if let Some(mark) = named(IFLA_IFALIAS).and_then(Mark::parse) {
        losses.lost(mark);
        return;
    }
    // Without a mark it may still be one that a network stands on, made by others: not the end of a
    // pair, which are by far the most.
    let kind = attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND)).and_then(text);
    if kind != Some("veth") {
        let name = named(IFLA_IFNAME).unwrap_or("?");
        losses.everything(format!("link {name} {}", if goes { "was removed" } else { "was set down" }));
    }
}

/// Forwarding was switched: off anywhere, or on everywhere, which also switches on what was off.
fn switch(body: &[u8], losses: &mut Losses) {
    let Some(attributes) = body.get(NETCONF_HEADER..) else { return };
    let value = |kind| attribute(attributes, kind).and_then(|value| number(value, 0)).map(u32::cast_signed);
    let (Some(index), Some(on)) = (value(NETCONFA_IFINDEX), value(NETCONFA_FORWARDING)) else { return };
    match (index, on) {
        (NETCONFA_IFINDEX_DEFAULT, _) => {}
        (NETCONFA_IFINDEX_ALL, 1..) => losses.thrown(),
        (_, 0) => losses.everything("forwarding was switched off"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in list {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn link_message(family: u8, index: i32, list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attributes(list));
        body
    }

    fn heard(messages: &[(u16, Vec<u8>)]) -> Losses {
        let mut losses = Losses::default();
        for (kind, body) in messages {
            read(Message { kind: *kind, port: 0, body, bytes: body }, &mut losses);
        }
        losses
    }

    #[test]
    fn a_link_that_goes_takes_along_what_was_heard_of_it() {
        let gone = heard(&[
            (libc::RTM_DELLINK, link_message(libc::AF_BRIDGE as u8, 7, &[(IFLA_IFNAME, b"veth7\0")])),
            (libc::RTM_DELADDR, [&[2, 24, 0, 0][..], &7_i32.to_ne_bytes()].concat()),
            (libc::RTM_DELLINK, link_message(0, 7, &[(IFLA_IFALIAS, b"netcore:web/web-1/eth0\0")])),
        ]);
        assert_eq!(gone.marks().iter().map(Mark::who).collect::<Vec<_>>(), ["web/web-1/eth0"]);
        assert_eq!((gone.ports().count(), gone.reasons().count()), (0, 0));
        let unplugged =
            heard(&[(libc::RTM_DELLINK, link_message(libc::AF_BRIDGE as u8, 7, &[(IFLA_IFNAME, b"veth7\0")]))]);
        assert_eq!(unplugged.ports().collect::<Vec<_>>(), ["veth7"]);
    }

    #[test]
    fn strangers_count_unless_they_are_ends_of_pairs() {
        let stranger = |kind: &[u8]| {
            let info = attributes(&[(IFLA_INFO_KIND, kind)]);
            heard(&[(libc::RTM_DELLINK, link_message(0, 9, &[(IFLA_IFNAME, b"x9\0"), (IFLA_LINKINFO, &info)]))])
        };
        assert!(stranger(b"veth\0").is_empty());
        assert_eq!(stranger(b"bridge\0").reasons().collect::<Vec<_>>(), ["link x9 was removed"]);
    }

    #[test]
    fn forwarding_counts_where_it_goes_and_where_it_comes_for_all() {
        let said = |index: i32, on: i32| {
            let list = [(NETCONFA_IFINDEX, index.to_ne_bytes()), (NETCONFA_FORWARDING, on.to_ne_bytes())];
            let list: Vec<(u16, &[u8])> = list.iter().map(|(kind, value)| (*kind, &value[..])).collect();
            heard(&[(RTM_NEWNETCONF, [&[2, 0, 0, 0][..], &attributes(&list)].concat())])
        };
        assert!(
            !said(NETCONFA_IFINDEX_ALL, 0).is_empty()
                && !said(3, 0).is_empty()
                && !said(NETCONFA_IFINDEX_ALL, 1).is_empty()
        );
        assert!(said(NETCONFA_IFINDEX_DEFAULT, 0).is_empty() && said(3, 1).is_empty());
    }

    #[test]
    fn what_is_cut_off_says_nothing() {
        let whole = link_message(0, 7, &[(IFLA_IFALIAS, b"netcore:web/web-1/eth0\0")]);
        for length in 0..LINK_HEADER {
            assert!(heard(&[(libc::RTM_DELLINK, whole[..length].to_vec())]).is_empty());
        }
        for kind in [libc::RTM_DELADDR, RTM_NEWNETCONF] {
            assert!(heard(&[(kind, vec![2, 0])]).is_empty());
        }
    }
}
