//! Expressions of rules, by the kernel's names and numbers (linux/netfilter/nf_tables.h).

use super::attributes::Attributes;
use super::compat;
use crate::model::rules::{Comparison, Destination, Expression, Family, Read, Register, Verdict};

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// One element of a rule's list as an expression, or for a few of iptables', as several.
pub(super) fn decode(family: Family, expression: Attributes<'_>) -> Vec<Expression> {
    let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
    let data = expression.get(NFTA_EXPR_DATA).unwrap_or(Attributes(&[]));
    match name.as_str() {
        "match" => compat::condition(data),
        "target" => vec![compat::target(family, data)],
        _ => vec![one(&name, data).unwrap_or(Expression::Unknown(name))],
    }
}

fn one(name: &str, data: Attributes<'_>) -> Option<Expression> {
    let to_register = |kind| data.number(kind).and_then(register);
    let value = |kind| data.get(kind).and_then(bytes);
    Some(match name {
        "immediate" => {
            let content = data.get(2)?;
            match bytes(content) {
                Some(bytes) => Expression::Set(bytes, to_register(1)?),
                None => Expression::Verdict(verdict(content)?),
            }
        }
        // A mark that is set is not a way that is taken.
        "meta" | "ct" | "payload" | "exthdr" if is_written(name, data) => Expression::Passive,
        "meta" => Expression::Read(meta(data.number(2)?)?, to_register(1)?),
        "payload" => {
            let (offset, length) = (data.number(3)? as usize, data.number(4)? as usize);
            let read = match data.number(2)? {
                0 => Read::Frame(offset, length),
                1 => Read::Network(offset, length),
                2 => Read::TransportHeader(offset, length),
                _ => return None,
            };
            Expression::Read(read, to_register(1)?)
        }
        "ct" => {
            let read = match data.number(2)? {
                0 => Read::ConnectionState,
                1 => Read::ConnectionDirection,
                2 => Read::ConnectionStatus,
                _ => return None,
            };
            Expression::Read(read, to_register(1)?)
        }
        "fib" => {
            let read = match (data.number(2)?, data.number(3)?) {
                (3, 1) => Read::AddressType(true),
                (3, 2) => Read::AddressType(false),
                // `fib saddr . iif oif exists`, with or without the mark.
                (1 | 2, flags) if flags & !4 == 1 | 8 | 32 => Read::WayBack,
                _ => return None,
            };
            Expression::Read(read, to_register(1)?)
        }
        "cmp" => {
            let comparison = match data.number(2)? {
                0 => Comparison::Equal,
                1 => Comparison::Unequal,
                2 => Comparison::Less,
                3 => Comparison::AtMost,
                4 => Comparison::Greater,
                5 => Comparison::AtLeast,
                _ => return None,
            };
            Expression::Compare(to_register(1)?, comparison, value(3)?)
        }
        "range" => Expression::Range(to_register(1)?, data.number(2)? == 0, value(3)?, value(4)?),
        "bitwise" if data.number(6).unwrap_or(0) == 0 => {
            Expression::Mask { from: to_register(1)?, to: to_register(2)?, mask: value(4)?, xor: value(5)? }
        }
        "byteorder" => Expression::Swap {
            from: to_register(1)?,
            to: to_register(2)?,
            length: data.number(4)? as usize,
            width: data.number(5)? as usize,
        },
        "lookup" => Expression::Lookup {
            set: data.text(1)?,
            key: to_register(2)?,
            to: match data.number(3) {
                None => None,
                Some(0) => Some(Destination::Verdict),
                Some(number) => Some(Destination::Register(register(number)?)),
            },
            negated: data.number(5).unwrap_or(0) & 1 != 0,
        },
        "nat" => Expression::Translate {
            destination: data.number(1)? != 0,
            v6: match data.number(2) {
                Some(2) => Some(false),
                Some(10) => Some(true),
                _ => None,
            },
            address: to_register(3),
            port: to_register(5),
        },
        "masq" => Expression::Masquerade,
        "redir" if data.number(1).is_none() => Expression::Redirect(None),
        "reject" => Expression::Verdict(Verdict::Reject),
        "queue" => Expression::Verdict(Verdict::Queue),
        "counter" | "log" | "notrack" | "objref" | "flow_offload" | "last" => Expression::Passive,
        _ => return None,
    })
}

/// Whether an expression that may read or write writes: it has a source register.
fn is_written(name: &str, data: Attributes<'_>) -> bool {
    let source = match name {
        "meta" => 3,
        "ct" => 4,
        "payload" => 5,
        // NFTA_EXTHDR_SREG
        _ => 7,
    };
    data.get(source).is_some()
}

fn meta(key: u32) -> Option<Read> {
    Some(match key {
        1 => Read::EtherType,
        4 => Read::CameByIndex,
        5 => Read::LeavesByIndex,
        6 => Read::CameByName,
        7 => Read::LeavesByName,
        15 => Read::NetfilterFamily,
        16 => Read::Transport,
        _ => return None,
    })
}

/// Where a register begins: `NFT_REG_1` to 4 have 16 bytes each, `NFT_REG32_00` and following 4.
fn register(number: u32) -> Option<Register> {
    match number {
        1..=4 => Some((number as usize - 1) * 16),
        8..=23 => Some((number as usize - 8) * 4),
        _ => None,
    }
}

/// The bytes of a `NFTA_DATA_VALUE`.
pub(super) fn bytes(data: Attributes<'_>) -> Option<Vec<u8>> {
    data.get(NFTA_DATA_VALUE).map(|value| value.0.to_vec())
}

/// What a `NFTA_DATA_VERDICT` says.
pub(super) fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.get(NFTA_DATA_VERDICT)?;
    let chain = || verdict.text(NFTA_VERDICT_CHAIN);
    Some(match verdict.number(NFTA_VERDICT_CODE)?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        // NF_QUEUE with a number in the upper half.
        code if code & 0xffff == 3 => Verdict::Queue,
        _ => return None,
    })
}
