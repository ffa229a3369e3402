//! What iptables is told, as documents: `netcore/tests/golden/iptables.rules` for IPv4 and
//! `ip6tables.rules` for IPv6. `UPDATE_GOLDEN=1` writes them anew.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::draft::Draft;
use super::listing::Listing;
use super::{ATTEMPTS, forward, make, on_what_is_there, rules};
use crate::error::Error;
use crate::model::{Admission, AttachmentId, Barrier, Mark, Name, NatRule, Protocol, Table};

/// Two networks of a host with Docker's `FORWARD`, one of them isolated, and a container that
/// publishes ports.
fn wanted(v6: bool) -> Vec<NatRule> {
    let mark = AttachmentId::new("web-1", "eth0").unwrap().mark(&Name::new("web").unwrap());
    let (web, db) = ("web".parse().unwrap(), "db".parse().unwrap());
    let of = |network: &str| Mark::of_network(&Name::new(network).unwrap());
    let family = |v4: &str, other: &str| if v6 { other } else { v4 }.to_owned();
    let publish = |host_address: Option<String>, protocol, host_port| NatRule::Publish {
        host_address: host_address.map(|address| address.parse().unwrap()),
        protocol,
        host_port,
        to: family("10.20.0.2:80", "[fd20::2]:80").parse().unwrap(),
        mark: mark.clone(),
    };
    vec![
        NatRule::Ruleset { table: Table::Inet, damage: Vec::new() },
        NatRule::Member { bridge: web, mark: of("web") },
        NatRule::Within { from: "web".parse().unwrap(), to: "web".parse().unwrap(), mark: of("web") },
        NatRule::Hairpin { subnet: family("10.20.0.0/24", "fd20::/64").parse().unwrap(), mark: of("web") },
        NatRule::Cluster { range: family("10.20.0.0/16", "fd20::/32").parse().unwrap(), mark: of("web") },
        NatRule::Masquerade { source: family("10.20.0.2", "fd20::2").parse().unwrap(), mark: mark.clone() },
        publish(None, Protocol::Tcp, 8080),
        publish(Some(family("192.0.2.1", "2001:db8::1")), Protocol::Udp, 5353),
        NatRule::Member { bridge: db, mark: of("db") },
        NatRule::Within { from: "db".parse().unwrap(), to: "db".parse().unwrap(), mark: of("db") },
        NatRule::Barrier { bridge: "db".parse().unwrap(), barrier: Barrier::Outside, mark: Mark::of_host() },
        NatRule::Barrier { bridge: "db".parse().unwrap(), barrier: Barrier::Networks, mark: Mark::of_host() },
        NatRule::Barrier { bridge: "db".parse().unwrap(), barrier: Barrier::Admitted, mark: Mark::of_host() },
        NatRule::Barrier { bridge: "vault".parse().unwrap(), barrier: Barrier::Internal, mark: Mark::of_host() },
    ]
}

fn admission(v6: bool) -> Admission {
    Admission { link: "web".parse().unwrap(), v6, from: None, mark: Mark::of_network(&Name::new("web").unwrap()) }
}

const BEFORE: &str = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n";

/// What makes `rules`, and gives the admission, where there is `listing`.
fn script(listing: &Listing, rules: &[NatRule], v6: bool) -> Option<String> {
    let mut draft = Draft::of(listing, v6);
    rules.iter().for_each(|rule| make(&mut draft, rule, v6).unwrap());
    if forward::is_kept_out(listing, &admission(v6)) {
        forward::admit(&mut draft, &admission(v6));
    }
    draft.script()
}

/// What there is after `script`, which names no chain twice and removes nothing.
fn after(script: &str) -> Listing {
    let jumps = script.replace("-I DOCKER-USER 1 ", "-A DOCKER-USER ");
    Listing::parse(&format!("{BEFORE}{jumps}"))
}

#[test]
fn the_rules_are_those_of_the_golden_files() {
    for (v6, file) in [(false, "iptables.rules"), (true, "ip6tables.rules")] {
        let script = script(&Listing::parse(BEFORE), &wanted(v6), v6).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &script).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden, script, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
    }
}

#[test]
fn what_was_made_is_what_is_seen_and_is_not_made_again() {
    for v6 in [false, true] {
        let listing = after(&script(&Listing::parse(BEFORE), &wanted(v6), v6).unwrap());
        for rule in wanted(v6) {
            assert_eq!(rules::seen(&listing, &rule, v6).unwrap().as_ref(), Some(&rule), "{rule}");
        }
        assert!(!forward::is_kept_out(&listing, &admission(v6)));
        assert_eq!(script(&listing, &wanted(v6), v6), None);
    }
}

#[test]
fn each_rule_goes_by_itself() {
    let whole = after(&script(&Listing::parse(BEFORE), &wanted(false), false).unwrap());
    for unwanted in wanted(false).into_iter().skip(1) {
        let mut draft = Draft::of(&whole, false);
        for (chain, rule) in rules::of(&unwanted, false).unwrap() {
            draft.take(chain, &rule);
        }
        let script = draft.script().unwrap();
        let parts = rules::of(&unwanted, false).unwrap().len();
        assert_eq!(script.matches("\n-D ").count(), parts, "{unwanted}: {script}");
        assert!(!script.contains("-A ") && !script.contains(":NETCORE"), "{unwanted}: {script}");
    }
}

/// Without a record, the comments tell what there is. Barriers are of no network alone.
#[test]
fn what_there_is_is_read_from_the_rules_alone() {
    let listing = after(&script(&Listing::parse(BEFORE), &wanted(false), false).unwrap());
    let mut read = Vec::new();
    for (table, chain) in super::CHAINS {
        let rules = listing.rules(table, chain).iter();
        read.extend(rules.filter_map(|rule| rules::read(rule).or_else(|| rules::read_shared(chain, rule))));
    }
    for rule in wanted(false) {
        let is_host = rule.mark().is_none_or(|mark| *mark == Mark::of_host());
        assert_eq!(read.iter().filter(|other| **other == rule).count(), usize::from(!is_host), "{rule}");
    }
    let admissions = listing.rules("filter", "NETCORE-FORWARD").iter().filter_map(|rule| forward::read(rule, false));
    assert_eq!(admissions.collect::<Vec<_>>(), [admission(false)]);
}

#[test]
fn rules_in_disorder_are_named_and_put_in_order() {
    let script_of = |listing: &Listing| script(listing, &wanted(false), false);
    let made = script_of(&Listing::parse(BEFORE)).unwrap();
    let egress = "-A NETCORE-MASQ -s 10.20.0.2 -m comment --comment \"netcore:web/web-1/eth0\" -j MASQUERADE\n";
    let first = ":NETCORE-MASQ - [0:0]\n";
    let turned = made.replace(egress, "").replace(first, &format!("{first}{egress}"));
    assert_ne!(made, turned);
    let listing = after(&turned);
    let Some(NatRule::Ruleset { damage, .. }) = rules::seen(&listing, &wanted(false)[0], false).unwrap() else {
        panic!("there are chains");
    };
    assert_eq!(damage, ["chain NETCORE-MASQ: rules in disorder"]);
    let mended = script_of(&listing).unwrap();
    assert!(mended.contains(":NETCORE-MASQ") && !mended.contains(":NETCORE-DNAT"), "{mended}");
}

#[test]
fn the_administrators_chain_is_made_and_never_written_to() {
    let made = script(&Listing::parse(BEFORE), &wanted(false), false).unwrap();
    assert!(made.contains(":NETCORE-USER - [0:0]"));
    let listing = after(&format!("{made}*filter\n-A NETCORE-USER -j ACCEPT\nCOMMIT\n"));
    assert_eq!(script(&listing, &wanted(false), false), None);
    let mut draft = Draft::of(&listing, false);
    draft.close_forward();
    assert!(!draft.script().unwrap().contains("USER\n"), "{:?}", draft.script());
}

#[test]
fn a_rule_whose_chain_is_gone_brings_all_chains_back() {
    let rules = &wanted(false);
    let masquerade = rules.iter().find(|rule| matches!(rule, NatRule::Masquerade { .. })).unwrap().clone();
    let after = after(&script(&Listing::parse(BEFORE), &[masquerade], false).unwrap());
    assert_eq!(rules::seen(&after, &rules[0], false).unwrap().as_ref(), Some(&rules[0]));
}

#[test]
fn what_fails_is_tried_again_as_long_as_others_change_what_it_was_drafted_on() {
    let refusal = || Err(Error::file("change", "tables")(std::io::Error::other("no chain by that name")));
    let tried = |changes: u32, refused: u32| {
        let (lists, tries) = (Cell::new(0), Cell::new(0));
        let list = || {
            let policy = if lists.replace(lists.get() + 1).min(changes) % 2 == 0 { "DROP" } else { "ACCEPT" };
            Ok(Arc::new(Listing::parse(&format!("*filter\n:FORWARD {policy} [0:0]\nCOMMIT\n"))))
        };
        let outcome =
            on_what_is_there(list, |_| if tries.replace(tries.get() + 1) < refused { refusal() } else { Ok(()) });
        (outcome.is_ok(), tries.get())
    };
    assert_eq!(tried(0, 0), (true, 1));
    assert_eq!(tried(0, 9), (false, 1), "nobody has changed anything");
    assert_eq!(tried(2, 2), (true, 3));
    assert_eq!(tried(2, 9), (false, 3));
    assert_eq!(tried(99, 99), (false, ATTEMPTS), "not for ever");
}
