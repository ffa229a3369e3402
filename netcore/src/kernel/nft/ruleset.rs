//! The rule set: what our tables hold before any network uses them, and of these the larger,
//! `inet netcore` (the other is in `guard`). It never changes while it is in use: a network or an
//! attachment is some elements in its sets and maps.
//! `netcore/tests/golden/ruleset.nft` is the same in nft's language; a test holds both together.
//!
//! What is written here is data: `bytecode` turns it into instructions, `survey` compares it with
//! what the kernel has. IPv6 has its half whether the host uses it or not: a kernel with
//! `ipv6.disable=1` takes it, and sees no packet for it.

use std::ffi::CStr;

use nftnl::{ChainType, Hook, ProtoFamily};

use super::{guard, isolation};
use crate::model::Table;
use crate::model::Table::Inet;

pub(super) const TABLE: &CStr = c"netcore";

impl Table {
    pub(super) fn family(self) -> ProtoFamily {
        match self {
            Self::Inet => ProtoFamily::Inet,
            Self::Bridge => ProtoFamily::Bridge,
        }
    }

    pub(super) fn comment(self) -> &'static str {
        match self {
            Self::Inet => "netcore: published ports, masquerade and isolation of container networks",
            Self::Bridge => "netcore: what containers may send",
        }
    }

    pub(super) fn sets(self) -> &'static [&'static Set] {
        match self {
            Self::Inet => &SETS,
            Self::Bridge => &guard::SETS,
        }
    }

    pub(super) fn chains(self) -> &'static [Chain] {
        match self {
            Self::Inet => &CHAINS,
            Self::Bridge => &guard::CHAINS,
        }
    }
}

/// A set, or a map if it has `data`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) table: Table,
    pub(super) name: &'static CStr,
    pub(super) key: &'static [Field],
    pub(super) data: &'static [Field],
    /// Whether a key is a range in each field (`flags interval`).
    pub(super) interval: bool,
    /// Whether each element counts the packets it was found for (`counter`).
    pub(super) counted: bool,
}

/// The fields keys and data are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Interface,
    Number,
    Mac,
    /// An IPv6 address, also where nft has no name for it.
    Target6,
}

/// A chain, with a place in the packet's way through the kernel if it has a `base`.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: &'static CStr,
    pub(super) base: Option<Base>,
    pub(super) rules: &'static [Rule],
}

/// Where a chain is hooked in; the policy is always accept.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) kind: ChainType,
    pub(super) hook: Hook,
    pub(super) priority: i32,
}

/// A rule: when all of `when` holds, `then` happens. The comment says what it is for, and tells
/// the rules of a chain apart.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) comment: &'static CStr,
    pub(super) when: &'static [Match],
    pub(super) then: Action,
}

/// What is read from a packet or from what the kernel knows of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// The address family (`meta nfproto`).
    Family,
    Ipv4Source,
    Ipv4Destination,
    Ipv6Source,
    Ipv6Destination,
    /// The transport protocol (`meta l4proto`).
    Protocol,
    /// The destination port of whatever transport (`th dport`).
    DestinationPort,
    /// The name of the interface it came in by; empty after routing.
    ComesBy,
    /// The name of the interface it leaves by.
    LeavesBy,
    /// What kind of address the destination is to this host (`fib daddr type`).
    DestinationType,
    /// What became of the packet's connection (`ct status`).
    ConnectionStatus,
    /// What the packet is to its connection (`ct state`).
    ConnectionState,
    /// What the frame carries (`meta protocol`), under a tag that the kernel took off.
    FrameProtocol,
    MacSource,
    /// Who speaks, in ARP (RFC 826), by its MAC address and by its IPv4 address.
    ArpSenderMac,
    ArpSender,
    /// Whom ARP asks for.
    ArpTarget,
    Icmp6Type,
    /// The address neighbour discovery is about (RFC 4861, 4.3 and 4.4).
    NeighbourTarget,
}

/// A condition.
#[derive(Debug)]
pub(super) enum Match {
    Is(Read, &'static [u8]),
    IsNot(Read, &'static [u8]),
    /// The first bits are those of the address; as many as the number says.
    Within(Read, &'static [u8], usize),
    NotWithin(Read, &'static [u8], usize),
    /// One of these bits is set.
    Has(Read, u32),
    In(&'static [Read], &'static Set),
    NotIn(&'static [Read], &'static Set),
}

/// What becomes of a packet.
#[derive(Debug)]
pub(super) enum Action {
    /// To the address and port that the map holds for the key; on to the next rule if it holds
    /// none.
    DnatTo(Family, &'static [Read], &'static Set),
    Masquerade,
    Jump(&'static CStr),
    Return,
    Accept,
    Drop,
    CountAndDrop,
}

/// An address family, by its number in netfilter (`NFPROTO_*`, linux/netfilter.h).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Family {
    V4 = 2,
    V6 = 10,
}

use Action::{DnatTo, Drop, Jump, Masquerade, Return};
use Field::{Interface, Ipv4, Ipv6, Number, Port, Protocol};
use Match::{Has, In, Is, IsNot, NotIn, NotWithin, Within};
use Read::{
    ComesBy, ConnectionStatus, DestinationPort, DestinationType, Ipv4Destination, Ipv4Source, Ipv6Destination,
    Ipv6Source, LeavesBy,
};

/// Ports published on every address: where they lead. Each counts the connections it made (only
/// the first packet of one is looked up), so that a port nobody used is withdrawn without a look
/// through all connections of the host.
pub(super) static PUBLISH4: Set = counted(map(Inet, c"publish4", &[Protocol, Port], &[Ipv4, Port]));
pub(super) static PUBLISH6: Set = counted(map(Inet, c"publish6", &[Protocol, Port], &[Ipv6, Port]));
/// Ports published on one address.
pub(super) static PUBLISH4_AT: Set = counted(map(Inet, c"publish4_at", &[Ipv4, Protocol, Port], &[Ipv4, Port]));
pub(super) static PUBLISH6_AT: Set = counted(map(Inet, c"publish6_at", &[Ipv6, Protocol, Port], &[Ipv6, Port]));
/// How a port is taken: on every address (1), or on single ones (2). No rule looks here; that
/// a key has one value makes the kernel refuse a port that would be published both ways.
pub(super) static HOST_PORTS4: Set = map(Inet, c"host_ports4", &[Protocol, Port], &[Number]);
pub(super) static HOST_PORTS6: Set = map(Inet, c"host_ports6", &[Protocol, Port], &[Number]);
/// Containers that reach the outside by the host's address.
pub(super) static MASQUERADE4: Set = set(Inet, c"masquerade4", &[Ipv4]);
pub(super) static MASQUERADE6: Set = set(Inet, c"masquerade6", &[Ipv6]);
/// Our bridges.
pub(super) static BRIDGES: Set = set(Inet, c"bridges", &[Interface]);
/// Pairs of addresses in one subnet of ours.
pub(super) static SAME_NET4: Set = ranges(Inet, c"same_net4", &[Ipv4, Ipv4]);
pub(super) static SAME_NET6: Set = ranges(Inet, c"same_net6", &[Ipv6, Ipv6]);

/// Pairs of addresses in one range that several hosts share.
pub(super) static CLUSTER4: Set = ranges(Inet, c"cluster4", &[Ipv4, Ipv4]);
pub(super) static CLUSTER6: Set = ranges(Inet, c"cluster6", &[Ipv6, Ipv6]);

pub(super) static SETS: [&Set; 18] = [
    &PUBLISH4,
    &PUBLISH6,
    &PUBLISH4_AT,
    &PUBLISH6_AT,
    &HOST_PORTS4,
    &HOST_PORTS6,
    &MASQUERADE4,
    &MASQUERADE6,
    &BRIDGES,
    &SAME_NET4,
    &SAME_NET6,
    &CLUSTER4,
    &CLUSTER6,
    &isolation::WITHIN,
    &isolation::ISOLATED,
    &isolation::CLOSED,
    &isolation::ADMITTED,
    &isolation::INTERNAL,
];

pub(super) const V4: Match = Is(Read::Family, &[Family::V4 as u8]);
pub(super) const V6: Match = Is(Read::Family, &[Family::V6 as u8]);
/// To an address of this host (`RTN_LOCAL`, linux/rtnetlink.h).
const TO_THIS_HOST: Match = Is(DestinationType, &LOCAL);
const LOCAL: [u8; 4] = 2u32.to_ne_bytes();
/// Its destination was rewritten (`IPS_DST_NAT`, linux/netfilter/nf_conntrack_common.h).
pub(super) const PUBLISHED: Match = Has(ConnectionStatus, 1 << 5);
const NOT_BY_LOOPBACK: Match = IsNot(ComesBy, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
const LOOPBACK6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const MULTICAST6: [u8; 16] = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Chains that are jumped to come before those that jump.
pub(super) static CHAINS: [Chain; 7] = [
    Chain {
        name: c"publish",
        base: None,
        rules: &[
            Rule {
                comment: c"IPv4, one address",
                when: &[V4],
                then: DnatTo(Family::V4, &[Ipv4Destination, Read::Protocol, DestinationPort], &PUBLISH4_AT),
            },
            Rule {
                comment: c"IPv4, every address",
                when: &[],
                then: DnatTo(Family::V4, &[Read::Protocol, DestinationPort], &PUBLISH4),
            },
            Rule {
                comment: c"IPv6, one address",
                when: &[V6],
                then: DnatTo(Family::V6, &[Ipv6Destination, Read::Protocol, DestinationPort], &PUBLISH6_AT),
            },
            Rule {
                comment: c"IPv6, every address",
                when: &[],
                then: DnatTo(Family::V6, &[Read::Protocol, DestinationPort], &PUBLISH6),
            },
        ],
    },
    Chain {
        name: c"prerouting",
        base: Some(Base { kind: ChainType::Nat, hook: Hook::PreRouting, priority: -100 }),
        rules: &[Rule { comment: c"to this host, from outside", when: &[TO_THIS_HOST], then: Jump(c"publish") }],
    },
    Chain {
        name: c"output",
        base: Some(Base { kind: ChainType::Nat, hook: Hook::Out, priority: -100 }),
        rules: &[
            // Linux never lets ::1 leave the loopback interface. Refused at once, a client goes
            // on to 127.0.0.1; rewritten, it would wait for an answer that cannot come.
            Rule { comment: c"::1 cannot be published", when: &[V6, Is(Ipv6Destination, &LOOPBACK6)], then: Return },
            Rule { comment: c"to this host, from itself", when: &[TO_THIS_HOST], then: Jump(c"publish") },
        ],
    },
    Chain {
        name: c"postrouting",
        base: Some(Base { kind: ChainType::Nat, hook: Hook::PostRouting, priority: 100 }),
        rules: &[
            Rule {
                comment: c"published on 127.0.0.1",
                when: &[In(&[LeavesBy], &BRIDGES), PUBLISHED, V4, Within(Ipv4Source, &[127, 0, 0, 0], 8)],
                then: Masquerade,
            },
            Rule {
                comment: c"hairpin, IPv4",
                when: &[PUBLISHED, V4, In(&[Ipv4Source, Ipv4Destination], &SAME_NET4)],
                then: Masquerade,
            },
            Rule {
                comment: c"hairpin, IPv6",
                when: &[PUBLISHED, V6, In(&[Ipv6Source, Ipv6Destination], &SAME_NET6)],
                then: Masquerade,
            },
            Rule {
                comment: c"egress, IPv4",
                when: &[
                    V4,
                    In(&[Ipv4Source], &MASQUERADE4),
                    NotIn(&[LeavesBy], &BRIDGES),
                    NotWithin(Ipv4Destination, &[224, 0, 0, 0], 4),
                    NotIn(&[Ipv4Source, Ipv4Destination], &CLUSTER4),
                ],
                then: Masquerade,
            },
            Rule {
                comment: c"egress, IPv6",
                when: &[
                    V6,
                    In(&[Ipv6Source], &MASQUERADE6),
                    NotIn(&[LeavesBy], &BRIDGES),
                    NotWithin(Ipv6Destination, &MULTICAST6, 8),
                    NotIn(&[Ipv6Source, Ipv6Destination], &CLUSTER6),
                ],
                then: Masquerade,
            },
        ],
    },
    Chain {
        name: c"loopback_guard",
        base: Some(Base { kind: ChainType::Filter, hook: Hook::PreRouting, priority: -300 }),
        rules: &[
            // Publishing on 127.0.0.1 needs route_localnet on our bridges, which would let
            // containers, or neighbours on a bridged wire, in at 127/8.
            Rule {
                comment: c"nothing from a wire goes to 127/8",
                when: &[NOT_BY_LOOPBACK, V4, Within(Ipv4Destination, &[127, 0, 0, 0], 8)],
                then: Drop,
            },
            Rule {
                comment: c"nothing from a wire comes from 127/8",
                when: &[NOT_BY_LOOPBACK, V4, Within(Ipv4Source, &[127, 0, 0, 0], 8)],
                then: Drop,
            },
        ],
    },
    isolation::USER,
    isolation::FORWARD,
];

pub(super) const fn set(table: Table, name: &'static CStr, key: &'static [Field]) -> Set {
    Set { table, name, key, data: &[], interval: false, counted: false }
}

const fn ranges(table: Table, name: &'static CStr, key: &'static [Field]) -> Set {
    Set { table, name, key, data: &[], interval: true, counted: false }
}

const fn counted(set: Set) -> Set {
    Set { counted: true, ..set }
}

const fn map(table: Table, name: &'static CStr, key: &'static [Field], data: &'static [Field]) -> Set {
    Set { table, name, key, data, interval: false, counted: false }
}

impl Chain {
    /// Whether the rules are the administrator's, and not ours.
    pub(super) fn is_foreign(&self) -> bool {
        self.name == isolation::USER_NAME
    }
}

impl Field {
    /// Its width in bytes, without the padding that follows it in a concatenation.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Number => 4,
            Self::Mac => 6,
            Self::Ipv6 | Self::Interface | Self::Target6 => 16,
        }
    }
}

/// The bytes `fields` take in registers, and as an element's key or data: each a multiple of
/// four (`NFT_REG32_SIZE`).
pub(super) fn padded_bytes(fields: &[Field]) -> usize {
    match fields {
        [one] => one.bytes(),
        several => several.iter().map(|field| field.bytes().next_multiple_of(4)).sum(),
    }
}
