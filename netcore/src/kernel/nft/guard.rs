//! The table `bridge netcore`: what a container may send. It sees every frame where it enters a
//! bridge, before anything else does. A port of which something is checked is an element of
//! `mac_checked` or `address_checked`; what it may send from are elements of the other three sets.
//! What is dropped is counted by the rule that drops it.
//!
//! IPv6 addresses are kept once, for the source of a packet and the target of neighbour discovery
//! alike. nft 1.0.6 has no name for the latter, so to it they are numbers of 128 bits.

use nftnl::{ChainType, Hook};

use super::ruleset::Action::{CountAndDrop, Jump};
use super::ruleset::Field::{Interface, Ipv4, Mac, Target6};
use super::ruleset::Match::{In, Is, IsNot, NotIn};
use super::ruleset::Read::{
    ArpSender, ArpSenderMac, ArpTarget, ComesBy, FrameProtocol, Icmp6Type, Ipv4Source, Ipv6Source, MacSource,
    NeighbourTarget, Protocol,
};
use super::ruleset::{Base, Chain, Match, Rule, Set, set};
use crate::model::Table::Bridge;

/// Ports of which the MAC address is checked, and the IP address.
pub(super) static MAC_CHECKED: Set = set(Bridge, c"mac_checked", &[Interface]);
pub(super) static ADDRESS_CHECKED: Set = set(Bridge, c"address_checked", &[Interface]);
/// What each may send from.
pub(super) static MACS: Set = set(Bridge, c"macs", &[Interface, Mac]);
pub(super) static ADDRESSES4: Set = set(Bridge, c"addresses4", &[Interface, Ipv4]);
pub(super) static ADDRESSES6: Set = set(Bridge, c"addresses6", &[Interface, Target6]);

pub(super) static SETS: [&Set; 5] = [&MAC_CHECKED, &ADDRESS_CHECKED, &MACS, &ADDRESSES4, &ADDRESSES6];

// `ETH_P_*` of linux/if_ether.h, as they are on the wire.
const ARP: Match = Is(FrameProtocol, &[0x08, 0x06]);
const IPV4: Match = Is(FrameProtocol, &[0x08, 0x00]);
const IPV6: Match = Is(FrameProtocol, &[0x86, 0xdd]);
/// `IPPROTO_ICMPV6`.
const ICMP6: Match = Is(Protocol, &[58]);
/// RFC 4861, 4.3 and 4.4.
const SOLICITATION: Match = Is(Icmp6Type, &[135]);
const ADVERTISEMENT: Match = Is(Icmp6Type, &[136]);
/// Nobody has it: a host asks by it whether an address is free (RFC 5227, RFC 4862), or for one.
const NOBODY4: [u8; 4] = [0; 4];
const NOBODY6: [u8; 16] = [0; 16];

pub(super) static CHAINS: [Chain; 3] = [
    Chain {
        name: c"macs_of_others",
        base: None,
        rules: &[
            Rule {
                comment: c"a frame from another MAC address",
                when: &[NotIn(&[ComesBy, MacSource], &MACS)],
                then: CountAndDrop,
            },
            Rule {
                comment: c"ARP in the name of another MAC address",
                when: &[ARP, NotIn(&[ComesBy, ArpSenderMac], &MACS)],
                then: CountAndDrop,
            },
        ],
    },
    Chain {
        name: c"addresses_of_others",
        base: None,
        rules: &[
            Rule {
                comment: c"ARP in the name of another address",
                when: &[ARP, IsNot(ArpSender, &NOBODY4), NotIn(&[ComesBy, ArpSender], &ADDRESSES4)],
                then: CountAndDrop,
            },
            Rule {
                comment: c"ARP that claims another address",
                when: &[ARP, Is(ArpSender, &NOBODY4), NotIn(&[ComesBy, ArpTarget], &ADDRESSES4)],
                then: CountAndDrop,
            },
            Rule {
                comment: c"IPv4 from another address",
                when: &[IPV4, IsNot(Ipv4Source, &NOBODY4), NotIn(&[ComesBy, Ipv4Source], &ADDRESSES4)],
                then: CountAndDrop,
            },
            Rule {
                comment: c"IPv6 from another address",
                when: &[IPV6, IsNot(Ipv6Source, &NOBODY6), NotIn(&[ComesBy, Ipv6Source], &ADDRESSES6)],
                then: CountAndDrop,
            },
            Rule {
                comment: c"neighbour discovery that claims another address",
                when: &[
                    IPV6,
                    Is(Ipv6Source, &NOBODY6),
                    ICMP6,
                    SOLICITATION,
                    NotIn(&[ComesBy, NeighbourTarget], &ADDRESSES6),
                ],
                then: CountAndDrop,
            },
            Rule {
                comment: c"neighbour discovery in the name of another address",
                when: &[IPV6, ICMP6, ADVERTISEMENT, NotIn(&[ComesBy, NeighbourTarget], &ADDRESSES6)],
                then: CountAndDrop,
            },
            // The kernel takes one tag off; what is under a second one cannot be looked at.
            Rule {
                comment: c"an address under two tags",
                when: &[Is(FrameProtocol, &[0x81, 0x00])],
                then: CountAndDrop,
            },
            Rule {
                comment: c"an address under two provider tags",
                when: &[Is(FrameProtocol, &[0x88, 0xa8])],
                then: CountAndDrop,
            },
        ],
    },
    Chain {
        name: c"prerouting",
        base: Some(Base { kind: ChainType::Filter, hook: Hook::PreRouting, priority: -300 }),
        rules: &[
            Rule {
                comment: c"MAC addresses are checked",
                when: &[In(&[ComesBy], &MAC_CHECKED)],
                then: Jump(c"macs_of_others"),
            },
            Rule {
                comment: c"IP addresses are checked",
                when: &[In(&[ComesBy], &ADDRESS_CHECKED)],
                then: Jump(c"addresses_of_others"),
            },
        ],
    },
];
