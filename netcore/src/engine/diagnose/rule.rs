//! What one rule makes of a packet: its expressions, one after the other, on registers of which each byte is
//! known or not.

use std::net::{IpAddr, SocketAddr};

use super::evaluate::{Run, Wish};
use super::packet::{Packet, Wire};
use crate::model::rules::{
    Chain, Comparison, Condition, Destination, Element, Expression, Read, Register, Rule, Value, Verdict,
};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Perhaps,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Holds {
    fn same_as(self, wanted: bool) -> Self {
        match self {
            Self::Perhaps => Self::Perhaps,
            known => ((known == Self::Yes) == wanted).into(),
        }
    }
}

/// The registers, byte by byte, as far as they are known.
type Registers = [Option<u8>; 64];

impl<'a> Run<'a, '_> {
    /// What the rule wants, and what of it is doubtful; nothing when a condition does not hold.
    pub(super) fn rule(&self, chain: &Chain, rule: &Rule) -> Option<(Wish, Option<String>)> {
        let mut registers: Registers = [None; 64];
        let mut doubt = None;
        let mut wish = Wish::Nothing;
        for expression in &rule.expressions {
            let holds = match expression {
                Expression::Read(read, to) => {
                    put(&mut registers, *to, self.read(*read));
                    Holds::Yes
                }
                Expression::Set(value, to) => {
                    put(&mut registers, *to, value.iter().copied().map(Some));
                    Holds::Yes
                }
                Expression::Compare(from, comparison, value) => compare(&registers, *from, *comparison, value),
                Expression::Range(from, inside, low, high) => match bytes(&registers, *from, low.len()) {
                    Some(value) => Holds::from((value >= *low && value <= *high) == *inside),
                    None => Holds::Perhaps,
                },
                Expression::Mask { from, to, mask, xor } => {
                    let masked: Vec<_> = (0..mask.len())
                        .map(|at| {
                            let kept = registers.get(from + at).copied().flatten();
                            // What the mask takes away need not be known.
                            if mask[at] == 0 {
                                xor.get(at).copied()
                            } else {
                                kept.map(|byte| byte & mask[at] ^ xor.get(at).unwrap_or(&0))
                            }
                        })
                        .collect();
                    put(&mut registers, *to, masked);
                    Holds::Yes
                }
                Expression::Swap { from, to, length, width } => {
                    let mut value: Vec<_> =
                        (0..*length).map(|at| registers.get(from + at).copied().flatten()).collect();
                    if cfg!(target_endian = "little") {
                        value.chunks_mut((*width).max(1)).for_each(<[_]>::reverse);
                    }
                    put(&mut registers, *to, value);
                    Holds::Yes
                }
                Expression::Lookup { set, key, to, negated } => {
                    let (holds, value) = self.look_up(chain, set, &registers, *key, *negated);
                    match (to, value) {
                        (Some(Destination::Register(to)), Some(Value::Bytes(value))) => {
                            put(&mut registers, *to, value.into_iter().map(Some));
                        }
                        (Some(Destination::Verdict), Some(Value::Verdict(verdict))) => wish = Wish::Verdict(verdict),
                        _ => {}
                    }
                    holds
                }
                Expression::If(condition, wanted) => self.condition(condition).same_as(*wanted),
                Expression::Verdict(verdict) => {
                    wish = Wish::Verdict(verdict.clone());
                    Holds::Yes
                }
                // In a table of both IP versions, the other one passes by.
                Expression::Translate { v6: Some(v6), .. } if *v6 != self.packet.is_v6() => Holds::Yes,
                Expression::Translate { destination, address, port, .. } => {
                    let old = if *destination { self.packet.destination } else { self.packet.source };
                    let to = self.changed(&registers, old, *address, *port);
                    wish = if *destination { Wish::Translate(None, to) } else { Wish::Translate(to, None) };
                    if to.is_some() { Holds::Yes } else { Holds::Perhaps }
                }
                Expression::DnatTo(address, port) => {
                    let old = self.packet.destination;
                    let to = SocketAddr::new(address.unwrap_or(old.ip()), port.unwrap_or(old.port()));
                    wish = Wish::Translate(None, Some(to));
                    Holds::Yes
                }
                Expression::SnatTo(address, port) => {
                    let old = self.packet.source;
                    let to = SocketAddr::new(address.unwrap_or(old.ip()), port.unwrap_or(old.port()));
                    wish = Wish::Translate(Some(to), None);
                    Holds::Yes
                }
                Expression::Masquerade => {
                    let to = self.around.masquerade.map(|address| SocketAddr::new(address, self.packet.source.port()));
                    wish = Wish::Translate(to, None);
                    if to.is_some() { Holds::Yes } else { Holds::Perhaps }
                }
                Expression::Redirect(_) | Expression::Unknown(_) => {
                    // What it would have read is not known either.
                    registers = [None; 64];
                    Holds::Perhaps
                }
                Expression::Passive => Holds::Yes,
            };
            match holds {
                Holds::No => return None,
                Holds::Yes => {}
                Holds::Perhaps => {
                    doubt.get_or_insert_with(|| describe(expression));
                }
            }
            if matches!(wish, Wish::Verdict(_)) && !matches!(wish, Wish::Verdict(Verdict::Continue)) {
                break;
            }
        }
        Some((wish, doubt))
    }

    fn changed(
        &self,
        registers: &Registers,
        old: SocketAddr,
        address: Option<Register>,
        port: Option<Register>,
    ) -> Option<SocketAddr> {
        let address = match address {
            None => old.ip(),
            Some(at) if self.packet.is_v6() => IpAddr::from(<[u8; 16]>::try_from(bytes(registers, at, 16)?).ok()?),
            Some(at) => IpAddr::from(<[u8; 4]>::try_from(bytes(registers, at, 4)?).ok()?),
        };
        let port = match port {
            None => old.port(),
            Some(at) => u16::from_be_bytes(bytes(registers, at, 2)?.try_into().ok()?),
        };
        Some(SocketAddr::new(address, port))
    }

    /// What is read, padded to whole registers.
    fn read(&self, read: Read) -> Vec<Option<u8>> {
        let packet = self.packet;
        let number = |value: u32| value.to_ne_bytes().map(Some).to_vec();
        let byte = |value: u8| vec![Some(value), Some(0), Some(0), Some(0)];
        let index = |wire: &Option<Wire>| number(wire.as_ref().map_or(0, |wire| wire.index));
        let name = |wire: &Option<Wire>| {
            let mut bytes = vec![Some(0); 16];
            for (at, byte) in wire.iter().flat_map(|wire| wire.name.bytes()).take(15).enumerate() {
                bytes[at] = Some(byte);
            }
            bytes
        };
        match read {
            Read::CameByIndex => index(&packet.came_by),
            Read::LeavesByIndex => index(&packet.leaves_by),
            Read::CameByName => name(&packet.came_by),
            Read::LeavesByName => name(&packet.leaves_by),
            Read::NetfilterFamily => byte(if packet.is_v6() { 10 } else { 2 }),
            Read::Transport => byte(packet.protocol.number()),
            Read::EtherType => {
                let [high, low] = packet.ether_type();
                vec![Some(high), Some(low), Some(0), Some(0)]
            }
            Read::Frame(offset, length) => padded(packet.frame(offset, length)),
            Read::Network(offset, length) => padded(packet.network(offset, length)),
            Read::TransportHeader(offset, length) => padded(packet.transport(offset, length)),
            Read::ConnectionState => number(state(packet)),
            Read::ConnectionStatus => number(u32::from(packet.snat) << 4 | u32::from(packet.dnat) << 5),
            Read::ConnectionDirection => byte(packet.is_answer.into()),
            Read::AddressType(of_source) => {
                let address = if of_source { packet.source.ip() } else { packet.destination.ip() };
                number(self.kind(address))
            }
            Read::WayBack => match self.around.leads_back {
                Some(leads_back) => number(leads_back.into()),
                None => vec![None; 4],
            },
        }
    }

    /// `RTN_*` (linux/rtnetlink.h) of an address.
    fn kind(&self, address: IpAddr) -> u32 {
        match address {
            _ if (self.around.is_local)(address) => 2,
            IpAddr::V4(v4) if v4.is_broadcast() => 3,
            _ if address.is_multicast() => 5,
            _ => 1,
        }
    }

    fn condition(&self, condition: &Condition) -> Holds {
        let packet = self.packet;
        let matches = |wire: &Option<Wire>, wanted: &str| {
            let name = wire.as_ref().map_or("", |wire| wire.name.as_str());
            match wanted.strip_suffix('+') {
                Some(begin) => name.starts_with(begin),
                None => name == wanted,
            }
        };
        let within = |ranges: &[(u16, u16)], port: u16| ranges.iter().any(|(low, high)| (*low..=*high).contains(&port));
        match condition {
            Condition::From(network) => network.contains(packet.source.ip()).into(),
            Condition::To(network) => network.contains(packet.destination.ip()).into(),
            Condition::CameBy(name) => matches(&packet.came_by, name).into(),
            Condition::LeavesBy(name) => matches(&packet.leaves_by, name).into(),
            Condition::Protocol(number) => (*number == packet.protocol.number()).into(),
            Condition::FromPorts(ranges) => within(ranges, packet.source.port()).into(),
            Condition::ToPorts(ranges) => within(ranges, packet.destination.port()).into(),
            Condition::Connection(states, snat, dnat) => {
                (state(packet) & states != 0 || *snat && packet.snat || *dnat && packet.dnat).into()
            }
            Condition::ToType(kinds) => (1 << self.kind(packet.destination.ip()) & u32::from(*kinds) != 0).into(),
            Condition::FromType(kinds) => (1 << self.kind(packet.source.ip()) & u32::from(*kinds) != 0).into(),
        }
    }

    fn look_up(
        &self,
        chain: &Chain,
        set: &str,
        registers: &Registers,
        key: Register,
        negated: bool,
    ) -> (Holds, Option<Value>) {
        let name = (chain.family, chain.table.clone(), set.to_owned());
        let Some(elements) = self.around.rules.sets.get(&name) else { return (Holds::Perhaps, None) };
        let length = elements.iter().map(|element| element.key.len()).max().unwrap_or(0);
        let default = || elements.iter().find(|element| element.is_default).and_then(|element| element.value.clone());
        let has_default = elements.iter().any(|element| element.is_default);
        let Some(key) = bytes(registers, key, length) else {
            return if elements.is_empty() { (Holds::from(negated), None) } else { (Holds::Perhaps, None) };
        };
        match find(elements, &key) {
            Some(element) => (Holds::from(!negated), element.value.clone()),
            None if has_default => (Holds::from(!negated), default()),
            None => (Holds::from(negated), None),
        }
    }
}

/// The element that `key` is, or is within.
fn find<'a>(elements: &'a [Element], key: &[u8]) -> Option<&'a Element> {
    let keyed = || elements.iter().filter(|element| !element.is_default);
    if let Some(exact) = keyed().find(|element| !element.ends && element.last.is_none() && element.key == *key) {
        return Some(exact);
    }
    // Concatenated ranges, which nft writes as prefixes of whole words or as ranges of one word.
    let is_within = |element: &&Element| {
        element.last.as_ref().is_some_and(|last| {
            let mut words = element.key.chunks(4).zip(last.chunks(4)).zip(key.chunks(4));
            words.all(|((low, high), word)| low <= word && word <= high)
        })
    };
    if let Some(element) = keyed().find(is_within) {
        return Some(element);
    }
    // Intervals: each bound is an element; what begins last before the key decides.
    if keyed().any(|element| element.ends) {
        let before = keyed().filter(|element| element.key.as_slice() <= key);
        return before.max_by(|a, b| a.key.cmp(&b.key).then(b.ends.cmp(&a.ends))).filter(|element| !element.ends);
    }
    None
}

fn padded(mut value: Vec<Option<u8>>) -> Vec<Option<u8>> {
    value.resize(value.len().next_multiple_of(4), Some(0));
    value
}

/// `NF_CT_STATE_BIT` (linux/netfilter/nf_conntrack_common.h): new, or established.
fn state(packet: &Packet) -> u32 {
    if packet.is_answer { 2 } else { 8 }
}

fn put(registers: &mut Registers, at: Register, value: impl IntoIterator<Item = Option<u8>>) {
    for (offset, byte) in value.into_iter().enumerate() {
        if let Some(register) = registers.get_mut(at + offset) {
            *register = byte;
        }
    }
}

fn bytes(registers: &Registers, at: Register, length: usize) -> Option<Vec<u8>> {
    registers.get(at..at + length)?.iter().copied().collect()
}

fn compare(registers: &Registers, from: Register, comparison: Comparison, value: &[u8]) -> Holds {
    // One byte that differs is enough to know.
    let is_known_to_differ = value
        .iter()
        .enumerate()
        .any(|(at, byte)| registers.get(from + at).copied().flatten().is_some_and(|have| have != *byte));
    match (bytes(registers, from, value.len()), comparison) {
        (Some(have), Comparison::Equal) => (have == value).into(),
        (Some(have), Comparison::Unequal) => (have != value).into(),
        (Some(have), Comparison::Less) => (have.as_slice() < value).into(),
        (Some(have), Comparison::AtMost) => (have.as_slice() <= value).into(),
        (Some(have), Comparison::Greater) => (have.as_slice() > value).into(),
        (Some(have), Comparison::AtLeast) => (have.as_slice() >= value).into(),
        (None, Comparison::Equal) if is_known_to_differ => Holds::No,
        (None, Comparison::Unequal) if is_known_to_differ => Holds::Yes,
        (None, _) => Holds::Perhaps,
    }
}

fn describe(expression: &Expression) -> String {
    match expression {
        Expression::Unknown(name) => name.clone(),
        Expression::Compare(..) | Expression::Range(..) => {
            "a comparison with what is not known of the packet".to_owned()
        }
        Expression::Lookup { set, .. } => format!("a look-up in {set}"),
        Expression::If(condition, _) => format!("{condition:?}"),
        Expression::Redirect(_) => "redirect".to_owned(),
        _ => "an address that is not known".to_owned(),
    }
}
