//! Who is kept from whom: the part of `inet netcore` that packets pass on their way through the
//! host. A bridge behind a barrier is an element of that barrier's set; what else is said here
//! never changes. An accept only ends our own look at a packet, other firewalls have theirs; a drop is
//! final, and counted by its rule.

use std::ffi::CStr;

use nftnl::{ChainType, Hook};

use super::ruleset::Action::{Accept, CountAndDrop, Jump};
use super::ruleset::Field::Interface;
use super::ruleset::Match::{Has, In, NotIn};
use super::ruleset::Read::{
    ComesBy, ConnectionState, Ipv4Destination, Ipv4Source, Ipv6Destination, Ipv6Source, LeavesBy,
};
use super::ruleset::{BRIDGES, Base, CLUSTER4, CLUSTER6, Chain, Match, PUBLISHED, Rule, Set, V4, V6, set};
use crate::model::Table::Inet;

/// Pairs of links by which a packet comes and leaves without leaving its network. (A frame that
/// stays on its bridge is seen here as well where br_netfilter is loaded.)
pub(super) static WITHIN: Set = set(Inet, c"within", &[Interface, Interface]);
/// Bridges behind each kind of [`Barrier`](crate::model::Barrier).
pub(super) static ISOLATED: Set = set(Inet, c"isolated", &[Interface]);
pub(super) static CLOSED: Set = set(Inet, c"closed", &[Interface]);
pub(super) static ADMITTED: Set = set(Inet, c"admitted", &[Interface]);
pub(super) static INTERNAL: Set = set(Inet, c"internal", &[Interface]);

/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`
/// (linux/netfilter/nf_conntrack_common.h).
const ANSWER: Match = Has(ConnectionState, 1 << 1 | 1 << 2);
const FROM_A_NETWORK: Match = In(&[ComesBy], &BRIDGES);
const FROM_OUTSIDE: Match = NotIn(&[ComesBy], &BRIDGES);

/// The administrator's own chain: made once, its rules never read, changed or removed.
pub(super) const USER_NAME: &CStr = c"user";
pub(super) const USER: Chain = Chain { name: USER_NAME, base: None, rules: &[] };

pub(super) const FORWARD: Chain = Chain {
    name: c"forward",
    base: Some(Base { kind: ChainType::Filter, hook: Hook::Forward, priority: -5 }),
    rules: &[
        Rule { comment: c"the administrator's own rules", when: &[], then: Jump(USER_NAME) },
        Rule { comment: c"answers", when: &[ANSWER], then: Accept },
        Rule { comment: c"within a network", when: &[In(&[ComesBy, LeavesBy], &WITHIN)], then: Accept },
        // An overlay's nodes on one segment reach each other's containers without a tunnel.
        Rule {
            comment: c"within a cluster, IPv4",
            when: &[FROM_OUTSIDE, V4, In(&[Ipv4Source, Ipv4Destination], &CLUSTER4)],
            then: Accept,
        },
        Rule {
            comment: c"within a cluster, IPv6",
            when: &[FROM_OUTSIDE, V6, In(&[Ipv6Source, Ipv6Destination], &CLUSTER6)],
            then: Accept,
        },
        Rule { comment: c"out of an internal network", when: &[In(&[ComesBy], &INTERNAL)], then: CountAndDrop },
        Rule { comment: c"into an internal network", when: &[In(&[LeavesBy], &INTERNAL)], then: CountAndDrop },
        Rule { comment: c"published ports", when: &[PUBLISHED], then: Accept },
        Rule {
            comment: c"from another network",
            when: &[FROM_A_NETWORK, In(&[LeavesBy], &ISOLATED)],
            then: CountAndDrop,
        },
        Rule { comment: c"from outside", when: &[FROM_OUTSIDE, In(&[LeavesBy], &CLOSED)], then: CountAndDrop },
        // firewalld lets everything through to a bridge that is bound to our zone.
        Rule {
            comment: c"from outside, admitted by another firewall",
            when: &[FROM_OUTSIDE, In(&[LeavesBy], &ADMITTED)],
            then: CountAndDrop,
        },
    ],
};
