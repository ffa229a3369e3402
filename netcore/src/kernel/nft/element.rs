//! What the model calls a [`NatRule`], as an element of one of our sets and maps, and back. An
//! element's comment is our mark.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnetwork::IpNetwork;

use super::ruleset::{self, Set};
use super::sys::RawElement;
use super::user_data;
use super::{guard, isolation};
use crate::error::{Error, Result};
use crate::model::{Barrier, Check, InterfaceName, Mac, Mark, NatRule, Protocol, Source, Table};

/// An element of one of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) set: &'static Set,
    pub(super) raw: RawElement,
    /// Of an element that was listed: how many packets it was found for, if its set counts them.
    pub(super) packets: u64,
}

impl Element {
    /// The element that `rule` stands for; none for the rule set itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a port is published on an address of the other family.
    pub(super) fn of(rule: &NatRule) -> Result<Option<Self>> {
        let (set, key, key_end, data) = match rule {
            NatRule::Ruleset { .. } => return Ok(None),
            NatRule::Member { bridge, .. } => (&ruleset::BRIDGES, interface(bridge), vec![], vec![]),
            NatRule::Hairpin { subnet, .. } => {
                let (key, key_end) = pair(subnet);
                (by_family(subnet.is_ipv6(), &ruleset::SAME_NET4, &ruleset::SAME_NET6), key, key_end, vec![])
            }
            NatRule::Cluster { range, .. } => {
                let (key, key_end) = pair(range);
                (by_family(range.is_ipv6(), &ruleset::CLUSTER4, &ruleset::CLUSTER6), key, key_end, vec![])
            }
            NatRule::Masquerade { source, .. } => {
                let set = by_family(source.is_ipv6(), &ruleset::MASQUERADE4, &ruleset::MASQUERADE6);
                (set, address(*source), vec![], vec![])
            }
            NatRule::Publish { host_address, protocol, host_port, to, .. } => {
                let port_key = port_key(*protocol, *host_port);
                let data = [address(to.ip()), padded(&to.port().to_be_bytes())].concat();
                match host_address {
                    None => (publish(to.is_ipv6()), port_key, vec![], data),
                    Some(host_address) if host_address.is_ipv6() == to.is_ipv6() => {
                        let key = [address(*host_address), port_key].concat();
                        (publish_at(to.is_ipv6()), key, vec![], data)
                    }
                    Some(host_address) => {
                        let expected = format!("a host address of the family of {}", to.ip());
                        return Err(Error::invalid("hostIP", host_address, expected));
                    }
                }
            }
            NatRule::Within { from, to, .. } => {
                (&isolation::WITHIN, [interface(from), interface(to)].concat(), vec![], vec![])
            }
            NatRule::Barrier { bridge, barrier, .. } => (behind(*barrier), interface(bridge), vec![], vec![]),
            NatRule::Guard { port, check, .. } => {
                let set = match check {
                    Check::Mac => &guard::MAC_CHECKED,
                    Check::Address => &guard::ADDRESS_CHECKED,
                };
                (set, interface(port), vec![], vec![])
            }
            NatRule::Source { port, source, .. } => {
                let (set, source) = match source {
                    Source::Mac(mac) => (&guard::MACS, padded(&mac.0)),
                    Source::Address(source) => {
                        (by_family(source.is_ipv6(), &guard::ADDRESSES4, &guard::ADDRESSES6), address(*source))
                    }
                };
                (set, [interface(port), source].concat(), vec![], vec![])
            }
        };
        let user_data = rule.mark().map(|mark| user_data::comment(mark.as_str())).unwrap_or_default();
        Ok(Some(Self { set, raw: RawElement { key, key_end, data, user_data }, packets: 0 }))
    }

    /// What this element stands for; nothing if it is not marked, or no port's claim.
    pub(super) fn rule(&self) -> Option<NatRule> {
        let mark = self.mark()?;
        let RawElement { key, key_end, data, .. } = &self.raw;
        if self.set == &ruleset::BRIDGES {
            return Some(NatRule::Member { bridge: read_interface(key)?, mark });
        }
        if self.set == &isolation::WITHIN {
            let (from, to) = key.split_at_checked(16)?;
            return Some(NatRule::Within { from: read_interface(from)?, to: read_interface(to)?, mark });
        }
        if let Some(barrier) = BARRIERS.into_iter().find(|barrier| self.set == behind(*barrier)) {
            return Some(NatRule::Barrier { bridge: read_interface(key)?, barrier, mark });
        }
        if self.set.table == Table::Bridge {
            return read_guard(self.set, key, mark);
        }
        if self.set.interval {
            let half = key.len() / 2;
            let subnet = subnet(key.get(..half)?, key_end.get(..half)?)?;
            let is_cluster = self.set == &ruleset::CLUSTER4 || self.set == &ruleset::CLUSTER6;
            return Some(if is_cluster {
                NatRule::Cluster { range: subnet, mark }
            } else {
                NatRule::Hairpin { subnet, mark }
            });
        }
        if self.set == &ruleset::MASQUERADE4 || self.set == &ruleset::MASQUERADE6 {
            return Some(NatRule::Masquerade { source: read_address(key)?, mark });
        }
        let (host_address, port) = if self.set == publish(false) || self.set == publish(true) {
            (None, key.as_slice())
        } else if is_publish_at(self.set) {
            let (host_address, port) = key.split_at_checked(key.len().checked_sub(PORT_KEY)?)?;
            (Some(read_address(host_address)?), port)
        } else {
            return None;
        };
        let (protocol, host_port) = read_port_key(port)?;
        let (to_address, to_port) = data.split_at_checked(data.len().checked_sub(4)?)?;
        let to = SocketAddr::new(read_address(to_address)?, read_port(to_port)?);
        Some(NatRule::Publish { host_address, protocol, host_port, to, mark })
    }

    /// Our mark on the element, if it is ours.
    pub(super) fn mark(&self) -> Option<Mark> {
        Mark::parse(user_data::read_comment(&self.raw.user_data)?)
    }

    /// Whether `other` is the same element of the same set, whatever it holds.
    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.set == other.set && self.raw.key == other.raw.key && self.raw.key_end == other.raw.key_end
    }
}

/// The map of what is published on every address.
pub(super) fn publish(ipv6: bool) -> &'static Set {
    by_family(ipv6, &ruleset::PUBLISH4, &ruleset::PUBLISH6)
}

/// The map of what is published on one address.
pub(super) fn publish_at(ipv6: bool) -> &'static Set {
    by_family(ipv6, &ruleset::PUBLISH4_AT, &ruleset::PUBLISH6_AT)
}

const BARRIERS: [Barrier; 4] = [Barrier::Networks, Barrier::Outside, Barrier::Admitted, Barrier::Internal];

/// The set of the bridges behind `barrier`.
fn behind(barrier: Barrier) -> &'static Set {
    match barrier {
        Barrier::Networks => &isolation::ISOLATED,
        Barrier::Outside => &isolation::CLOSED,
        Barrier::Admitted => &isolation::ADMITTED,
        Barrier::Internal => &isolation::INTERNAL,
    }
}

pub(super) fn is_publish_at(set: &Set) -> bool {
    set == publish_at(false) || set == publish_at(true)
}

/// The claim that `rule` stands on, if it publishes a port: all rules of one port, protocol and
/// family share it if they claim the port alike, on every address or on single ones, and
/// otherwise exclude each other by it.
pub(super) fn claim(rule: &NatRule) -> Option<Element> {
    let NatRule::Publish { host_address, protocol, host_port, to, .. } = rule else { return None };
    let (value, text) = match host_address {
        None => (1u32, "every address"),
        Some(_) => (2, "single addresses"),
    };
    Some(Element {
        set: by_family(to.is_ipv6(), &ruleset::HOST_PORTS4, &ruleset::HOST_PORTS6),
        raw: RawElement {
            key: port_key(*protocol, *host_port),
            data: value.to_ne_bytes().to_vec(),
            user_data: user_data::comment(text),
            ..RawElement::default()
        },
        packets: 0,
    })
}

fn by_family(ipv6: bool, four: &'static Set, six: &'static Set) -> &'static Set {
    if ipv6 { six } else { four }
}

/// Bytes of `inet_proto . inet_service`.
pub(super) const PORT_KEY: usize = 8;

fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    [padded(&[protocol.number()]), padded(&port.to_be_bytes())].concat()
}

fn read_port_key(key: &[u8]) -> Option<(Protocol, u16)> {
    let number = *key.first()?;
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == number)?;
    Some((protocol, read_port(key.get(4..)?)?))
}

fn read_port(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|port| u16::from_be_bytes(*port))
}

/// A field of a concatenation: filled up to whole words.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn interface(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn read_interface(bytes: &[u8]) -> Option<InterfaceName> {
    let name = bytes.split(|byte| *byte == 0).next()?;
    InterfaceName::new(std::str::from_utf8(name).ok()?).ok()
}

/// What an element of the bridge table stands for.
fn read_guard(set: &Set, key: &[u8], mark: Mark) -> Option<NatRule> {
    let (port, source) = key.split_at_checked(16)?;
    let port = read_interface(port)?;
    if set == &guard::MAC_CHECKED {
        return Some(NatRule::Guard { port, check: Check::Mac, mark });
    }
    if set == &guard::ADDRESS_CHECKED {
        return Some(NatRule::Guard { port, check: Check::Address, mark });
    }
    let source = if set == &guard::MACS {
        Source::Mac(Mac(*source.first_chunk()?))
    } else {
        Source::Address(read_address(source)?)
    };
    Some(NatRule::Source { port, source, mark })
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

/// The first and the last pair of addresses of `subnet`.
fn pair(subnet: &IpNetwork) -> (Vec<u8>, Vec<u8>) {
    let (first, last) = (address(subnet.network()), address(subnet.broadcast()));
    ([&*first, &first].concat(), [&*last, &last].concat())
}

/// The subnet from one address to another, if it is one.
fn subnet(first: &[u8], last: &[u8]) -> Option<IpNetwork> {
    let same_bits: u32 = match first.iter().zip(last).position(|(a, b)| a != b) {
        Some(byte) => byte as u32 * 8 + (first[byte] ^ last[byte]).leading_zeros(),
        None => first.len() as u32 * 8,
    };
    let subnet = IpNetwork::new(read_address(first)?, u8::try_from(same_bits).ok()?).ok()?;
    (address(subnet.network()) == first && address(subnet.broadcast()) == last).then_some(subnet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AttachmentId, Name};

    fn mark() -> Mark {
        AttachmentId::new("web-1", "eth0").unwrap().mark(&Name::new("web").unwrap())
    }

    fn publish_rule(host_address: Option<&str>, to: &str) -> NatRule {
        NatRule::Publish {
            host_address: host_address.map(|address| address.parse().unwrap()),
            protocol: Protocol::Udp,
            host_port: 8080,
            to: to.parse().unwrap(),
            mark: mark(),
        }
    }

    fn barrier(barrier: Barrier) -> NatRule {
        NatRule::Barrier { bridge: InterfaceName::new("cni0").unwrap(), barrier, mark: Mark::of_host() }
    }

    fn every_kind() -> Vec<NatRule> {
        vec![
            NatRule::Member { bridge: InterfaceName::new("cni0").unwrap(), mark: mark() },
            NatRule::Within {
                from: InterfaceName::new("vx42").unwrap(),
                to: InterfaceName::new("cni0").unwrap(),
                mark: mark(),
            },
            barrier(Barrier::Networks),
            barrier(Barrier::Outside),
            barrier(Barrier::Admitted),
            barrier(Barrier::Internal),
            NatRule::Hairpin { subnet: "10.88.0.0/20".parse().unwrap(), mark: mark() },
            NatRule::Hairpin { subnet: "10.88.0.1/32".parse().unwrap(), mark: mark() },
            NatRule::Hairpin { subnet: "fd00:88::/64".parse().unwrap(), mark: mark() },
            NatRule::Cluster { range: "10.88.0.0/14".parse().unwrap(), mark: mark() },
            NatRule::Cluster { range: "fd00::/16".parse().unwrap(), mark: mark() },
            NatRule::Masquerade { source: "10.88.0.2".parse().unwrap(), mark: mark() },
            NatRule::Masquerade { source: "fd00:88::2".parse().unwrap(), mark: mark() },
            publish_rule(None, "10.88.0.2:80"),
            publish_rule(Some("192.0.2.1"), "10.88.0.2:80"),
            publish_rule(None, "[fd00:88::2]:80"),
            publish_rule(Some("2001:db8::1"), "[fd00:88::2]:80"),
        ]
    }

    #[test]
    fn an_element_says_the_rule_it_was_made_for() {
        for rule in every_kind() {
            let element = Element::of(&rule).unwrap().unwrap();
            assert_eq!(element.rule(), Some(rule));
            assert_eq!(element.raw.key.len(), ruleset::padded_bytes(element.set.key));
            assert_eq!(element.raw.data.len(), ruleset::padded_bytes(element.set.data));
        }
    }

    #[test]
    fn keys_and_data_are_what_the_kernel_reads_into_registers() {
        let element = Element::of(&publish_rule(Some("192.0.2.1"), "10.88.0.2:80")).unwrap().unwrap();
        assert_eq!(element.raw.key, [192, 0, 2, 1, 17, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(element.raw.data, [10, 88, 0, 2, 0, 80, 0, 0]);

        let subnet = NatRule::Hairpin { subnet: "10.88.0.0/20".parse().unwrap(), mark: mark() };
        let element = Element::of(&subnet).unwrap().unwrap();
        assert_eq!(element.raw.key, [10, 88, 0, 0, 10, 88, 0, 0]);
        assert_eq!(element.raw.key_end, [10, 88, 15, 255, 10, 88, 15, 255]);

        let member = NatRule::Member { bridge: InterfaceName::new("cni0").unwrap(), mark: mark() };
        assert_eq!(Element::of(&member).unwrap().unwrap().raw.key, *b"cni0\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn every_address_and_single_ones_claim_a_port_differently() {
        let every = claim(&publish_rule(None, "10.88.0.2:80")).unwrap();
        let one = claim(&publish_rule(Some("192.0.2.1"), "10.88.0.2:80")).unwrap();
        let another = claim(&publish_rule(Some("192.0.2.2"), "10.88.0.3:81")).unwrap();
        assert!(every.has_key_of(&one) && every.raw.data != one.raw.data);
        assert_eq!(one, another);
        assert!(!one.has_key_of(&claim(&publish_rule(None, "[fd00:88::2]:80")).unwrap()));
    }

    #[test]
    fn an_address_of_the_other_family_cannot_lead_there() {
        let error = Element::of(&publish_rule(Some("::1"), "10.88.0.2:80")).unwrap_err();
        assert_eq!(error.to_string(), "hostIP: ::1 is not a host address of the family of 10.88.0.2");
    }

    #[test]
    fn what_is_not_marked_or_not_a_subnet_stands_for_nothing() {
        let mut element = Element::of(&every_kind()[6]).unwrap().unwrap();
        element.raw.key_end[3] = 7;
        assert_eq!(element.rule(), None);
        let mut element = Element::of(&every_kind()[0]).unwrap().unwrap();
        element.raw.user_data = user_data::comment("mine");
        assert_eq!(element.rule(), None);
        assert_eq!(claim(&every_kind()[13]).unwrap().rule(), None);
    }
}
