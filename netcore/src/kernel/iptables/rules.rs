//! What each of the drivers' rules is in iptables' words, and what is there of it.

use std::net::{IpAddr, SocketAddr};

use super::chains::{self, CHAINS, DNAT, HAIRPIN, ISOLATION, MASQ, NETWORKS};
use super::draft::Chain;
use super::forward;
use super::listing::Listing;
use super::rule::Rule;
use crate::error::{Error, Result};
use crate::model::{Barrier, Mark, NatRule, Protocol};

/// The rules that `rule` stands for, with the chains they are in. None for those chains
/// themselves, nor for what iptables does not see.
pub(super) fn of(rule: &NatRule, v6: bool) -> Result<Vec<(Chain, Rule)>> {
    let (here, mark) = (|chain| ("nat", chain), rule.mark().cloned().unwrap_or_else(Mark::of_host));
    let say = |chain, what: String| (here(chain), chains::marked(&what, &mark));
    let isolate = |chain, what: String| (("filter", chain), chains::marked(&what, &mark));
    Ok(match rule {
        NatRule::Ruleset { .. } | NatRule::Guard { .. } | NatRule::Source { .. } => Vec::new(),
        NatRule::Member { bridge, .. } => {
            let mut rules = vec![
                say(MASQ, format!("-o {bridge} -j RETURN")),
                isolate(ISOLATION, format!("-i {bridge} -g {NETWORKS}")),
            ];
            // Nothing comes to a bridge from ::1.
            if !v6 {
                rules.push(say(HAIRPIN, format!("-s 127.0.0.0/8 -o {bridge} -j MASQUERADE")));
            }
            rules
        }
        NatRule::Within { from, to, .. } => vec![isolate(ISOLATION, format!("-i {from} -o {to} -j RETURN"))],
        // No two barriers are the same rule, so that each can go without the others.
        NatRule::Barrier { bridge, barrier, .. } => match barrier {
            Barrier::Networks => vec![isolate(NETWORKS, format!("-o {bridge} -j DROP"))],
            Barrier::Outside => vec![isolate(ISOLATION, format!("! -i {bridge} -o {bridge} -j DROP"))],
            Barrier::Admitted => {
                let starts = "-m conntrack --ctstate INVALID,NEW,UNTRACKED";
                vec![isolate(ISOLATION, format!("-o {bridge} {starts} -j DROP"))]
            }
            Barrier::Internal => vec![
                isolate(ISOLATION, format!("-i {bridge} -j DROP")),
                isolate(ISOLATION, format!("-o {bridge} -j DROP")),
            ],
        },
        NatRule::Hairpin { subnet, .. } => {
            let (subnet, length) = (subnet.network(), subnet.prefix());
            vec![say(HAIRPIN, format!("-s {subnet}/{length} -d {subnet}/{length} -j MASQUERADE"))]
        }
        NatRule::Cluster { range, .. } => {
            let (range, length) = (range.network(), range.prefix());
            let within = format!("-s {range}/{length} -d {range}/{length} -j RETURN");
            vec![say(MASQ, within.clone()), isolate(ISOLATION, within)]
        }
        NatRule::Masquerade { source, .. } => vec![say(MASQ, format!("-s {source} -j MASQUERADE"))],
        NatRule::Publish { host_address, protocol, host_port, to, .. } => {
            let mut what = String::new();
            if let Some(address) = host_address {
                if address.is_ipv6() != to.is_ipv6() {
                    let expected = format!("a host address of the family of {}", to.ip());
                    return Err(Error::invalid("hostIP", address, expected));
                }
                what = format!("-d {address} ");
            }
            what += &format!("-p {protocol} -m {protocol} --dport {host_port} -j DNAT --to-destination {to}");
            vec![say(DNAT, what)]
        }
    })
}

/// What is there of `wanted`, if it is; with whose it is, and where a port leads.
pub(super) fn seen(listing: &Listing, wanted: &NatRule, v6: bool) -> Result<Option<NatRule>> {
    if let NatRule::Ruleset { table, .. } = wanted {
        let damage = damage(listing, v6);
        return Ok(damage.map(|damage| NatRule::Ruleset { table: *table, damage }));
    }
    let parts = of(wanted, v6)?;
    let mut found = Vec::new();
    for ((table, chain), rule) in &parts {
        let rules = listing.rules(table, chain);
        let same = |other: &&Rule| match wanted {
            NatRule::Publish { host_port, .. } => {
                is_of_port(other, *host_port) && read(other).is_some_and(|other| other.key() == wanted.key())
            }
            _ => other.does_as(rule),
        };
        // One's own is preferred: of several networks each may have added what they share.
        let own = rules.iter().find(|other| *other == rule);
        found.extend(own.or_else(|| rules.iter().find(same)).cloned());
    }
    if parts.is_empty() || found.len() < parts.len() {
        return Ok(None);
    }
    if wanted.is_shared() {
        return Ok(Some(wanted.clone()));
    }
    Ok(found.iter().find_map(read))
}

/// What a rule in one of our chains was made for, if it is an attachment's own.
pub(super) fn read(rule: &Rule) -> Option<NatRule> {
    let mark = rule.mark()?;
    match rule.target()? {
        "MASQUERADE" if rule.option("-d").is_none() && rule.option("-o").is_none() => {
            Some(NatRule::Masquerade { source: rule.option("-s")?.parse().ok()?, mark })
        }
        "DNAT" => {
            let to: SocketAddr = rule.option("--to-destination")?.parse().ok()?;
            let host_address: Option<IpAddr> = match rule.option("-d") {
                Some(address) => Some(address.parse().ok()?),
                None => None,
            };
            let protocol: Protocol = rule.option("-p")?.parse().ok()?;
            let host_port = rule.option("--dport")?.parse().ok()?;
            Some(NatRule::Publish { host_address, protocol, host_port, to, mark })
        }
        _ => None,
    }
}

/// What a rule in the chain `chain` was made for, if it was for what a network's attachments share.
/// Of several rules that were made together, one says it.
pub(super) fn read_shared(chain: &str, rule: &Rule) -> Option<NatRule> {
    let mark = rule.mark()?;
    let link = |option| rule.option(option)?.parse().ok();
    let (source, destination) = (rule.option("-s"), rule.option("-d"));
    let range = || source.filter(|_| source == destination)?.parse().ok();
    match (chain, rule.target()?) {
        (HAIRPIN, "MASQUERADE") => Some(NatRule::Hairpin { subnet: range()?, mark }),
        (MASQ, "RETURN") if source.is_some() => Some(NatRule::Cluster { range: range()?, mark }),
        (MASQ, "RETURN") => Some(NatRule::Member { bridge: link("-o")?, mark }),
        (ISOLATION, "RETURN") => Some(NatRule::Within { from: link("-i")?, to: link("-o")?, mark }),
        _ => None,
    }
}

/// Who has published what `wanted` would publish, or part of it: one port on every address and on
/// a single one are in each other's way.
pub(super) fn holder(rules: &[Rule], wanted: &NatRule) -> Option<NatRule> {
    let NatRule::Publish { host_address, protocol, host_port, .. } = wanted else { return None };
    let in_the_way = |other: &NatRule| match other {
        NatRule::Publish { host_address: held, protocol: of, host_port: port, .. } => {
            let meets = held.is_none() || host_address.is_none() || held == host_address;
            (of, port) == (protocol, host_port) && meets && other != wanted
        }
        _ => false,
    };
    rules.iter().filter(|rule| is_of_port(rule, *host_port)).filter_map(read).find(in_the_way)
}

fn is_of_port(rule: &Rule, port: u16) -> bool {
    rule.option("--dport").and_then(|value| value.parse().ok()) == Some(port)
}

/// What is wrong with our chains and what leads to them; `None` if there is nothing of it at all.
fn damage(listing: &Listing, v6: bool) -> Option<Vec<String>> {
    let mut damage = Vec::new();
    let mut any = false;
    for (table, chain) in CHAINS {
        if !listing.has(table, chain) {
            damage.push(format!("chain {chain}: missing"));
            continue;
        }
        any = true;
        let rules = listing.rules(table, chain);
        let whole = chains::arranged(chain, v6, true, rules);
        let missing = whole.iter().filter(|rule| !rules.contains(rule));
        let before = damage.len();
        damage.extend(missing.map(|rule| format!("chain {chain}: no rule \"{}\"", rule.text())));
        if damage.len() == before && chain != chains::USER && whole != *rules {
            damage.push(format!("chain {chain}: rules in disorder"));
        }
    }
    for (table, chain, rule) in chains::in_base_chains(v6) {
        if listing.rules(table, chain).contains(&rule) {
            any = true;
        } else {
            damage.push(format!("chain {chain} of {table}: no rule \"{}\"", rule.text()));
        }
    }
    if !forward::look(listing).is_ours {
        damage.push(format!("chain {}: nothing leads to {}", forward::entrance(listing), chains::FORWARD));
    }
    any.then_some(damage)
}
