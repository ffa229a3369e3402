//! Matches and targets of iptables that are rules of nf_tables (`nft_compat`): what their names and
//! binary settings mean (linux/netfilter/xt_*.h).

use std::net::IpAddr;

use super::attributes::Attributes;
use crate::model::rules::{Comparison, Condition, Expression, Family, Read, Verdict};

const NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// `XT_CONNTRACK_STATE`, and what says that it was written as `-m state`.
const STATE: u16 = 1;
const STATE_ALIAS: u16 = 1 << 13;
/// `XT_CONNTRACK_STATE_SNAT` and `XT_CONNTRACK_STATE_DNAT`.
const SNAT: u32 = 1 << 6;
const DNAT: u32 = 1 << 7;

/// A match.
pub(super) fn condition(data: Attributes<'_>) -> Vec<Expression> {
    let name = data.text(NAME).unwrap_or_default();
    let revision = data.number(REVISION).unwrap_or(0);
    let info = Info(data.get(INFO).map(|info| info.0).unwrap_or_default());
    known(&name, revision, info).unwrap_or_else(|| vec![Expression::Unknown(format!("match {name}"))])
}

fn known(name: &str, revision: u32, info: Info<'_>) -> Option<Vec<Expression>> {
    Some(match (name, revision) {
        ("comment", _) => vec![Expression::Passive],
        ("conntrack", 1..=3) => {
            let (flags, inverted) = (info.half(146)?, info.half(148)?);
            if flags & !STATE_ALIAS != STATE {
                return None;
            }
            let states = if revision == 1 { u32::from(info.byte(150)?) } else { u32::from(info.half(150)?) };
            vec![Expression::If(connection(states), inverted & STATE == 0)]
        }
        ("state", 0) => vec![Expression::If(connection(info.word(0)?), true)],
        ("addrtype", 1) => {
            let (source, destination, flags) = (info.half(0)?, info.half(2)?, info.word(4)?);
            if flags & !3 != 0 {
                return None;
            }
            let mut conditions = Vec::new();
            if source != 0 {
                conditions.push(Expression::If(Condition::FromType(source), flags & 1 == 0));
            }
            if destination != 0 {
                conditions.push(Expression::If(Condition::ToType(destination), flags & 2 == 0));
            }
            conditions
        }
        ("tcp", 0) => {
            let inverted = info.byte(11)?;
            if info.byte(8)? != 0 {
                return None;
            }
            let mut conditions = ports(info, inverted)?;
            let (mask, value) = (info.byte(9)?, info.byte(10)?);
            if mask != 0 {
                let comparison = if inverted & 4 == 0 { Comparison::Equal } else { Comparison::Unequal };
                conditions.extend([
                    Expression::Read(Read::TransportHeader(13, 1), 0),
                    Expression::Mask { from: 0, to: 0, mask: vec![mask], xor: vec![0] },
                    Expression::Compare(0, comparison, vec![value]),
                ]);
            }
            conditions
        }
        ("udp", 0) => ports(info, info.byte(8)?)?,
        ("multiport", 1) => {
            let (which, count) = (info.byte(0)?, usize::from(info.byte(1)?));
            let mut ranges: Vec<(u16, u16)> = Vec::new();
            let mut continues = false;
            for place in 0..count.min(15) {
                let port = info.half(2 + 2 * place)?;
                match ranges.last_mut() {
                    Some(last) if continues => last.1 = port,
                    _ => ranges.push((port, port)),
                }
                continues = info.byte(32 + place)? != 0;
            }
            let condition = match which {
                0 => Condition::FromPorts(ranges),
                1 => Condition::ToPorts(ranges),
                _ => return None,
            };
            vec![Expression::If(condition, info.byte(47)? == 0)]
        }
        _ => return None,
    })
}

/// The first eight bytes of `struct xt_tcp` and `struct xt_udp`.
fn ports(info: Info<'_>, inverted: u8) -> Option<Vec<Expression>> {
    let source = (info.half(0)?, info.half(2)?);
    let destination = (info.half(4)?, info.half(6)?);
    let mut conditions = Vec::new();
    if source != (0, u16::MAX) || inverted & 1 != 0 {
        conditions.push(Expression::If(Condition::FromPorts(vec![source]), inverted & 1 == 0));
    }
    if destination != (0, u16::MAX) || inverted & 2 != 0 {
        conditions.push(Expression::If(Condition::ToPorts(vec![destination]), inverted & 2 == 0));
    }
    Some(conditions)
}

fn connection(states: u32) -> Condition {
    Condition::Connection(states & !(SNAT | DNAT), states & SNAT != 0, states & DNAT != 0)
}

/// A target.
pub(super) fn target(family: Family, data: Attributes<'_>) -> Expression {
    let name = data.text(NAME).unwrap_or_default();
    let info = Info(data.get(INFO).map(|info| info.0).unwrap_or_default());
    let to = || translation(family, data.number(REVISION).unwrap_or(0), info);
    match name.as_str() {
        "DNAT" => to().map_or(Expression::Unknown(name), |(address, port)| Expression::DnatTo(address, port)),
        "SNAT" => to().map_or(Expression::Unknown(name), |(address, port)| Expression::SnatTo(address, port)),
        "MASQUERADE" => Expression::Masquerade,
        "REJECT" => Expression::Verdict(Verdict::Reject),
        "NFQUEUE" => Expression::Verdict(Verdict::Queue),
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CONNMARK" | "CT" | "DSCP" | "LOG" | "MARK" | "NFLOG" | "NOTRACK"
        | "TCPMSS" | "TOS" | "TRACE" => Expression::Passive,
        _ => Expression::Unknown(format!("target {name}")),
    }
}

/// What an address is changed to: `struct nf_nat_range2`, and before, `nf_nat_ipv4_multi_range_compat`
/// and `nf_nat_range`.
fn translation(family: Family, revision: u32, info: Info<'_>) -> Option<(Option<IpAddr>, Option<u16>)> {
    let old = family == Family::Ip && revision == 0;
    let (flags, address_at, port_at) = if old { (info.word(4)?, 8, 16) } else { (info.word(0)?, 4, 36) };
    let address = match family {
        Family::Ip => info.0.get(address_at..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        _ => info.0.get(address_at..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
    };
    let port = info.0.get(port_at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    Some((address.filter(|_| flags & 1 != 0), port.filter(|_| flags & 2 != 0)))
}

/// A structure in this machine's byte order.
#[derive(Clone, Copy)]
struct Info<'a>(&'a [u8]);

impl Info<'_> {
    fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn half(self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    fn word(self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }
}
