//! Address arithmetic: which addresses a network may give out, and in which order.
//!
//! A [`Pool`] is one range that has been looked at, a [`Set`] the alternatives for one address.
//! Addresses are numbers while they are counted, so that both families share the arithmetic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::error::{Error, Result};
use crate::model::{HostLocal, Range};

/// A range with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// The subnet; its prefix length goes with the addresses.
    pub(super) subnet: IpNetwork,
    /// The containers' gateway.
    pub(super) gateway: IpAddr,
    /// The first and last address to give out, as numbers. The network address and, for IPv4,
    /// the broadcast address are never among them: even where a configuration says so, no
    /// container could use them (RFC 1122, 3.2.1.3; RFC 4291, 2.6.1).
    first: u128,
    last: u128,
}

impl Pool {
    /// Looks at `range`, which the user knows as `path`.
    fn new(path: &str, range: &Range) -> Result<Self> {
        let field = |key: &str| format!("{path}.{key}");
        let subnet = range.subnet;
        let width = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > width - 2 {
            let expected = format!("a subnet with room for containers: a prefix length of at most {}", width - 2);
            return Err(Error::invalid(field("subnet"), subnet, expected));
        }
        if subnet.ip() != subnet.network() {
            let expected = format!("a network address: {}/{}", subnet.network(), subnet.prefix());
            return Err(Error::invalid(field("subnet"), subnet, expected));
        }
        let inside = |key: &str, address: Option<IpAddr>| match address {
            Some(address) if !subnet.contains(address) => {
                Err(Error::invalid(field(key), address, format!("an address of {subnet}")))
            }
            address => Ok(address.map(number)),
        };
        let network = number(subnet.network());
        let end = network | (u128::MAX >> (128 - u32::from(width - subnet.prefix())));
        let (lowest, highest) = (network + 1, if subnet.is_ipv4() { end - 1 } else { end });

        let gateway = inside("gateway", range.gateway)?.unwrap_or(lowest);
        let first = inside("rangeStart", range.range_start)?.unwrap_or(lowest).max(lowest);
        let last = inside("rangeEnd", range.range_end)?.unwrap_or(highest).min(highest);
        let pool = Self { subnet, gateway: address(gateway, subnet.is_ipv4()), first, last };
        if first > last {
            let (key, value, expected) = match (range.range_start, range.range_end) {
                (_, Some(end)) => ("rangeEnd", end, format!("an address from {} on", pool.address(first))),
                (Some(start), None) => ("rangeStart", start, format!("an address up to {}", pool.address(last))),
                (None, None) => ("subnet", subnet.ip(), "a subnet with addresses to give out".to_owned()),
            };
            return Err(Error::invalid(field(key), value, expected));
        }
        Ok(pool)
    }

    fn address(&self, number: u128) -> IpAddr {
        address(number, self.subnet.is_ipv4())
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4() && (self.first..=self.last).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.address(self.first), self.address(self.last))
    }
}

/// The pools that one address of a lease comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pools: Vec<Pool>,
    /// Every gateway of the network: none of them is given out, wherever it lies.
    gateways: Vec<IpAddr>,
}

impl Set {
    /// The pool that `address` may be given out from.
    pub(super) fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.contains(address))
    }

    /// Whether `address` is a gateway of the network.
    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateways.contains(&address)
    }

    /// Every address of the set once, in the order they are given out: those after `last`, then
    /// from the start again, so that an address rests for as long as possible before it is
    /// given out anew.
    pub(super) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Pool)> {
        let last = last.filter(|last| self.pool_of(*last).is_some());
        let turn = last.and_then(|last| self.pools.iter().position(|pool| pool.contains(last))).unwrap_or(0);
        let (before, from) = self.pools.split_at(turn);
        let last = last.map(number);
        let in_turn = from.iter().enumerate().chain(before.iter().map(|pool| (1, pool)));
        let runs = in_turn.filter_map(move |(position, pool)| match last {
            // The rest of this pool; what came before waits until the end.
            Some(last) if position == 0 => last.checked_add(1).map(|next| (pool, next, pool.last)),
            _ => Some((pool, pool.first, pool.last)),
        });
        let wrapped = last.zip(from.first()).map(|(last, pool)| (pool, pool.first, last));
        runs.chain(wrapped)
            .flat_map(|(pool, first, last)| (first..=last).map(move |number| (pool.address(number), pool)))
            .filter(|(address, _)| !self.gateways.contains(address))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, pool) in self.pools.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{pool}")?;
        }
        Ok(())
    }
}

/// The sets of a configuration, in the order that numbers them.
///
/// # Errors
/// [`Error::Invalid`] that names the key, its value and what would be accepted.
pub(super) fn sets(config: &HostLocal) -> Result<Vec<Set>> {
    // Every pool beside its name; the names outlive the checks that compare one with another.
    let mut sets: Vec<Vec<(String, Pool)>> = Vec::new();
    let mut read = |path: String, ranges: &[Range]| {
        if ranges.is_empty() {
            return Err(Error::invalid(path, "[]", "a list of at least one range"));
        }
        let pools = ranges.iter().enumerate().map(|(position, range)| {
            let path = format!("{path}[{position}]");
            Pool::new(&path, range).map(|pool| (path, pool))
        });
        sets.push(pools.collect::<Result<_>>()?);
        Ok(())
    };
    for (position, ranges) in config.ip_ranges.iter().enumerate() {
        read(format!("runtimeConfig.ipRanges[{position}]"), ranges)?;
    }
    let single = config.range.as_ref().map(|range| Pool::new("ipam", range)).transpose()?;
    let turn = config.ip_ranges.len();
    for (position, ranges) in config.ranges.iter().enumerate() {
        read(format!("ipam.ranges[{position}]"), ranges)?;
    }
    if let Some(pool) = single {
        sets.insert(turn, vec![("ipam".to_owned(), pool)]);
    }
    if sets.is_empty() {
        return Err(Error::invalid("ipam.ranges", "nothing", "a list of sets of ranges, and ipam.subnet is absent"));
    }
    check_families(&sets)?;
    check_overlaps(&sets)?;

    let gateways: Vec<IpAddr> = sets.iter().flatten().map(|(_, pool)| pool.gateway).collect();
    sets.into_iter()
        .map(|named| {
            let path = named[0].0.clone();
            let set = Set { pools: named.into_iter().map(|(_, pool)| pool).collect(), gateways: gateways.clone() };
            if set.after(None).next().is_none() {
                return Err(Error::invalid(path, set, "a range with an address that is not a gateway"));
            }
            Ok(set)
        })
        .collect()
}

fn check_families(sets: &[Vec<(String, Pool)>]) -> Result<()> {
    for set in sets {
        let family = set[0].1.subnet.is_ipv4();
        if let Some((path, pool)) = set.iter().find(|(_, pool)| pool.subnet.is_ipv4() != family) {
            let expected = format!("of the same family as {}, the first of its set", set[0].1.subnet);
            return Err(Error::invalid(format!("{path}.subnet"), pool.subnet, expected));
        }
    }
    Ok(())
}

fn check_overlaps(sets: &[Vec<(String, Pool)>]) -> Result<()> {
    let pools: Vec<_> = sets.iter().flatten().collect();
    for (position, (path, pool)) in pools.iter().enumerate() {
        if let Some((other_path, other)) = pools[..position].iter().find(|(_, other)| pool.overlaps(other)) {
            let expected = format!("free of overlap with {other_path}, which is {other}");
            return Err(Error::invalid(path.as_str(), pool, expected));
        }
    }
    Ok(())
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        // An IPv4 pool lies within 32 bits, so nothing is cut off.
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::IpamConfig;

    fn config(mut section: Value) -> HostLocal {
        section["type"] = "host-local".into();
        match IpamConfig::from_json(&section).unwrap() {
            IpamConfig::HostLocal(config) => config,
            other => panic!("{other:?}"),
        }
    }

    fn read(section: Value) -> Result<Vec<Set>> {
        sets(&config(section))
    }

    fn order(set: &Set, last: &str, count: usize) -> Vec<String> {
        set.after(last.parse().ok()).take(count).map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn a_subnet_gives_out_all_but_its_ends_and_its_gateway() {
        let sets = read(json!({"subnet": "10.1.0.0/29", "ranges": [[{"subnet": "fd00::/125"}]]})).unwrap();
        assert_eq!(order(&sets[0], "", 9), ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(order(&sets[1], "", 9), ["fd00::2", "fd00::3", "fd00::4", "fd00::5", "fd00::6", "fd00::7"]);
        assert_eq!(sets[0].pools[0].gateway.to_string(), "10.1.0.1");
        assert_eq!(sets[1].pools[0].gateway.to_string(), "fd00::1");
    }

    #[test]
    fn the_order_goes_on_after_the_last_and_wraps() {
        let range = |start: &str, end: &str| json!({"subnet": "10.1.0.0/24", "rangeStart": start, "rangeEnd": end});
        let set =
            &read(json!({"ranges": [[range("10.1.0.1", "10.1.0.3"), range("10.1.0.8", "10.1.0.10")]]})).unwrap()[0];
        let (a, b, c, d, e) = ("10.1.0.2", "10.1.0.3", "10.1.0.8", "10.1.0.9", "10.1.0.10");
        assert_eq!(order(set, "", 9), [a, b, c, d, e]);
        assert_eq!(order(set, a, 9), [b, c, d, e, a]);
        assert_eq!(order(set, b, 9), [c, d, e, a, b]);
        assert_eq!(order(set, d, 9), [e, a, b, c, d]);
        assert_eq!(order(set, e, 9), [a, b, c, d, e]);
        assert_eq!(order(set, "10.9.9.9", 1), [a], "an address of another range starts anew");
    }

    #[test]
    fn the_largest_subnets_do_not_overflow() {
        let sets = read(json!({"ranges": [[{"subnet": "::/0"}], [{"subnet": "0.0.0.0/0"}]]})).unwrap();
        assert_eq!(order(&sets[0], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1), ["::2"]);
        assert_eq!(order(&sets[1], "255.255.255.254", 1), ["0.0.0.2"]);
    }

    #[test]
    fn the_ends_of_a_subnet_are_not_given_out_even_on_request() {
        let whole = json!({"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.3"});
        assert_eq!(order(&read(whole).unwrap()[0], "", 9), ["10.1.0.2"]);
    }

    #[test]
    fn a_gateway_of_one_range_is_not_given_out_of_another() {
        let split = json!({"ranges": [
            [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.3", "gateway": "10.1.0.9"},
             {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8", "rangeEnd": "10.1.0.10"}]]});
        assert_eq!(order(&read(split).unwrap()[0], "", 9), ["10.1.0.2", "10.1.0.3", "10.1.0.8", "10.1.0.10"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = [
            (json!({}), "ipam.ranges: nothing is not a list"),
            (json!({"ranges": [[]]}), "ipam.ranges[0]: [] is not a list of at least one range"),
            (json!({"subnet": "10.1.0.0/31"}), "ipam.subnet: 10.1.0.0/31 is not a subnet with room"),
            (json!({"subnet": "10.1.0.0/32"}), "ipam.subnet: 10.1.0.0/32"),
            (
                json!({"subnet": "fd00::/127"}),
                "ipam.subnet: fd00::/127 is not a subnet with room for containers: a prefix length of at most 126",
            ),
            (json!({"subnet": "10.1.2.3/16"}), "ipam.subnet: 10.1.2.3/16 is not a network address: 10.1.0.0/16"),
            (
                json!({"subnet": "10.1.0.0/16", "rangeStart": "10.2.0.1"}),
                "ipam.rangeStart: 10.2.0.1 is not an address of 10.1.0.0/16",
            ),
            (json!({"subnet": "10.1.0.0/16", "rangeEnd": "fd00::1"}), "ipam.rangeEnd: fd00::1 is not an address of"),
            (json!({"subnet": "10.1.0.0/16", "gateway": "10.2.0.1"}), "ipam.gateway: 10.2.0.1 is not an address of"),
            (
                json!({"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
                "ipam.rangeEnd: 10.1.0.8 is not an address from 10.1.0.9 on",
            ),
            (
                json!({"subnet": "10.1.0.0/16", "rangeStart": "10.1.255.255"}),
                "ipam.rangeStart: 10.1.255.255 is not an address up to 10.1.255.254",
            ),
            (
                json!({"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "fd00::/64"}]]}),
                "ipam.ranges[0][1].subnet: fd00::/64 is not of the same family as 10.1.0.0/16",
            ),
            (
                json!({"subnet": "10.1.0.0/16", "ranges": [[{"subnet": "10.2.0.0/16"}, {"subnet": "10.1.7.0/24"}]]}),
                "ipam.ranges[0][1]: 10.1.7.1-10.1.7.254 is not free of overlap with ipam, which is 10.1.0.1-10.1.255.254",
            ),
            (
                json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}),
                "ipam: 10.1.0.1-10.1.0.1 is not a range with an address that is not a gateway",
            ),
            (json!({"ipRanges": [[{"subnet": "10.1.0.0/31"}]]}), "runtimeConfig.ipRanges[0][0].subnet: 10.1.0.0/31"),
        ];
        for (section, start) in refused {
            let refusal = read(section).unwrap_err().to_string();
            assert!(refusal.starts_with(start), "{refusal}");
        }
    }

    #[test]
    fn the_sets_count_in_the_order_of_the_reference() {
        let section = json!({"subnet": "10.2.0.0/30", "ranges": [[{"subnet": "10.3.0.0/30"}]],
                             "ipRanges": [[{"subnet": "10.1.0.0/30"}]]});
        let sets: Vec<_> = read(section).unwrap().iter().map(Set::to_string).collect();
        assert_eq!(sets, ["10.1.0.1-10.1.0.2", "10.2.0.1-10.2.0.2", "10.3.0.1-10.3.0.2"]);
    }

    /// A subnet of at most 256 addresses, with whatever ends and gateway.
    fn any_range() -> impl Strategy<Value = Range> {
        (any::<bool>(), 2u32..9, any::<u128>(), any::<[Option<u8>; 3]>()).prop_map(|(v4, bits, bytes, picks)| {
            let mask = u128::MAX << bits;
            let network = bytes & mask & if v4 { u128::from(u32::MAX) } else { u128::MAX };
            let width = if v4 { 32 } else { 128 };
            let pick = |pick: Option<u8>| pick.map(|pick| address(network | (u128::from(pick) & !mask), v4));
            Range {
                subnet: IpNetwork::new(address(network, v4), width - bits as u8).unwrap(),
                range_start: pick(picks[0]),
                range_end: pick(picks[1]),
                gateway: pick(picks[2]),
            }
        })
    }

    proptest! {
        #[test]
        fn every_address_is_in_range_distinct_and_usable(range in any_range(), last in any::<u8>()) {
            let config = HostLocal { range: Some(range.clone()), ..Default::default() };
            let Ok(sets) = sets(&config) else { return Ok(()) };
            let (subnet, set) = (range.subnet, &sets[0]);
            let gateway = range.gateway.unwrap_or(address(number(subnet.network()) + 1, subnet.is_ipv4()));
            let last = address(number(subnet.network()) + u128::from(last), subnet.is_ipv4());
            let given: Vec<IpAddr> = set.after(Some(last)).map(|(address, _)| address).collect();

            let distinct: HashSet<_> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len());
            for address in &given {
                prop_assert!(subnet.contains(*address));
                prop_assert!(*address != gateway && *address != subnet.network());
                prop_assert!(subnet.is_ipv6() || *address != subnet.broadcast());
                prop_assert!(range.range_start.is_none_or(|start| start <= *address));
                prop_assert!(range.range_end.is_none_or(|end| *address <= end));
            }
            let in_order: HashSet<_> = set.after(None).map(|(address, _)| address).collect();
            prop_assert_eq!(in_order.len(), given.len(), "the same addresses, wherever the round starts");
            if in_order.contains(&last) {
                prop_assert_eq!(given.last(), Some(&last), "the address given out last rests longest");
            }
        }
    }
}
