//! Whatever happens to the rule set is named, and mended in one go.

use super::*;
use crate::kernel::nft::ruleset::{CHAINS, SETS};

/// Makes the rule set and an attachment, does `harm` to it; checks that the damage is named, and
/// that mending leaves it all as it was.
fn harm(harm: &str, named: &[&str]) {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        let whole = snapshot();
        nft(harm);
        assert_eq!(damage().unwrap(), named, "after {harm}");
        create(&[ruleset()]).unwrap();
        assert_eq!(damage(), Some(vec![]), "after {harm}");
        create(&attachment()).unwrap();
        assert_same(&snapshot(), &whole, harm);
    });
}

/// The handle of the rule with this comment.
fn handle(chain: &str, comment: &str) -> String {
    let listing = run_nft(&["-a", "-f", "-"], &format!("list chain inet netcore {chain}"));
    let line = listing.lines().find(|line| line.contains(&format!("\"{comment}\""))).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

fn every_rule() -> impl Iterator<Item = (&'static str, &'static str)> {
    CHAINS
        .iter()
        .flat_map(|chain| chain.rules.iter().map(|rule| (chain.name.to_str().unwrap(), rule.comment.to_str().unwrap())))
}

#[test]
fn every_single_rule_that_is_deleted_is_named_and_comes_back() {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        let whole = snapshot();
        for (chain, comment) in every_rule() {
            nft(&format!("delete rule inet netcore {chain} handle {}", handle(chain, comment)));
            assert_eq!(damage().unwrap(), [format!("rule \"{comment}\" of chain {chain}: missing")]);
            create(&[ruleset()]).unwrap();
            assert_same(&snapshot(), &whole, comment);
        }
    });
}

#[test]
fn every_single_rule_that_is_replaced_is_named_and_comes_back() {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        let whole = snapshot();
        for (chain, comment) in every_rule() {
            let handle = handle(chain, comment);
            nft(&format!("replace rule inet netcore {chain} handle {handle} counter comment \"{comment}\""));
            assert_eq!(damage().unwrap(), [format!("rule \"{comment}\" of chain {chain}: altered")]);
            create(&[ruleset()]).unwrap();
            assert_same(&snapshot(), &whole, comment);
        }
    });
}

#[test]
fn small_changes_to_a_rule_are_noticed() {
    let altered = |rule: &str, comment: &str| {
        in_namespace(|| {
            create(&[ruleset()]).unwrap();
            let handle = handle("postrouting", comment);
            nft(&format!("replace rule inet netcore postrouting handle {handle} {rule} comment \"{comment}\""));
            assert_eq!(damage().unwrap(), [format!("rule \"{comment}\" of chain postrouting: altered")], "{rule}");
        });
    };
    let egress = "ip saddr @masquerade4 oifname != @bridges ip daddr != 224.0.0.0/4";
    altered(&format!("{egress} masquerade random"), "egress, IPv4");
    altered(&format!("{egress} masquerade persistent"), "egress, IPv4");
    altered(&format!("{egress} counter masquerade"), "egress, IPv4");
    altered("ip saddr @masquerade4 oifname != @bridges ip daddr != 224.0.0.0/5 masquerade", "egress, IPv4");
    altered("ip saddr @masquerade4 oifname @bridges ip daddr != 224.0.0.0/4 masquerade", "egress, IPv4");
    altered("ip saddr @masquerade4 oifname != @bridges ip daddr 224.0.0.0/4 masquerade", "egress, IPv4");
    altered("ip daddr @masquerade4 oifname != @bridges ip daddr != 224.0.0.0/4 masquerade", "egress, IPv4");
    altered("ct status snat ip saddr . ip daddr @same_net4 masquerade", "hairpin, IPv4");
    altered("ct status dnat ip daddr . ip saddr @same_net4 masquerade", "hairpin, IPv4");

    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let map = "dnat ip to meta l4proto . th dport map @publish4";
        let handle = handle("publish", "IPv4, every address");
        nft(&format!("replace rule inet netcore publish handle {handle} {map} random comment \"IPv4, every address\""));
        assert_eq!(damage().unwrap(), ["rule \"IPv4, every address\" of chain publish: altered"]);
    });
}

#[test]
fn foreign_and_reordered_rules_are_noticed() {
    harm(
        "insert rule inet netcore postrouting oifname \"eth0\" accept",
        &["rule number 1 of chain postrouting: not ours"],
    );
    harm("add rule inet netcore output drop comment \"mine\"", &["rule \"mine\" of chain output: not ours"]);
    harm(
        "add rule inet netcore prerouting fib daddr type local jump publish comment \"to this host, from outside\"",
        &["rule \"to this host, from outside\" of chain prerouting: not ours"],
    );
    harm(
        "flush chain inet netcore output
         add rule inet netcore output fib daddr type local jump publish comment \"to this host, from itself\"
         add rule inet netcore output ip6 daddr ::1 return comment \"::1 cannot be published\"",
        &["chain output: rules in another order"],
    );
}

#[test]
fn a_table_put_to_sleep_is_woken() {
    harm("add table inet netcore { flags dormant; }", &["table: dormant"]);
}

fn flush_all() -> String {
    CHAINS.iter().map(|chain| format!("flush chain inet netcore {}\n", chain.name.to_str().unwrap())).collect()
}

fn all_rules_missing() -> Vec<String> {
    every_rule().map(|(chain, comment)| format!("rule \"{comment}\" of chain {chain}: missing")).collect()
}

fn harm_all_rules_and(what: &str, first_named: &str) {
    let rules = all_rules_missing();
    let named: Vec<_> = std::iter::once(first_named).chain(rules.iter().map(String::as_str)).collect();
    harm(&format!("{}{what}", flush_all()), &named);
}

#[test]
fn every_single_set_that_is_deleted_is_named_and_comes_back() {
    for set in SETS {
        let (kind, name) = (if set.data.is_empty() { "set" } else { "map" }, set.name.to_str().unwrap());
        harm_all_rules_and(&format!("delete {kind} inet netcore {name}"), &format!("{kind} {name}: missing"));
    }
}

#[test]
fn a_set_of_another_shape_is_replaced() {
    for other in ["type ipv6_addr;", "type ipv4_addr; size 1;", "type ipv4_addr; flags timeout;", "type mark;"] {
        let what = format!(
            "delete set inet netcore masquerade4
             add set inet netcore masquerade4 {{ {other} }}"
        );
        harm_all_rules_and(&what, "set masquerade4: altered");
        in_namespace(|| {
            let rules = with_ruleset(&attachment());
            create(&rules).unwrap();
            nft(&format!("{}{what}", flush_all()));
            assert!(!observe(&rules).contains(&masquerade("one", "10.88.0.2")));
            create(&rules).unwrap();
            assert_eq!(observe(&rules), rules);
        });
    }
    // Also under rules that look right, as far as they go by name.
    harm(
        "flush chain inet netcore postrouting
         delete set inet netcore masquerade4
         add set inet netcore masquerade4 { type ipv4_addr; flags constant; elements = { 192.0.2.1 } }
         add rule inet netcore postrouting oifname @bridges ct status dnat ip saddr 127.0.0.0/8 masquerade \
            comment \"published on 127.0.0.1\"
         add rule inet netcore postrouting ct status dnat ip saddr . ip daddr @same_net4 masquerade \
            comment \"hairpin, IPv4\"
         add rule inet netcore postrouting ct status dnat ip6 saddr . ip6 daddr @same_net6 masquerade \
            comment \"hairpin, IPv6\"
         add rule inet netcore postrouting ip saddr @masquerade4 oifname != @bridges ip daddr != 224.0.0.0/4 \
            ip saddr . ip daddr != @cluster4 masquerade \
            comment \"egress, IPv4\"
         add rule inet netcore postrouting ip6 saddr @masquerade6 oifname != @bridges ip6 daddr != ff00::/8 \
            ip6 saddr . ip6 daddr != @cluster6 masquerade \
            comment \"egress, IPv6\"",
        &["set masquerade4: altered"],
    );
}

#[test]
fn every_single_chain_that_is_deleted_is_named_and_comes_back() {
    for chain in &CHAINS {
        let name = chain.name.to_str().unwrap();
        let rules: Vec<_> = all_rules_missing();
        let of_chain = format!("of chain {name}:");
        let mut named = vec![format!("chain {name}: missing")];
        named.extend(rules.into_iter().filter(|rule| !rule.contains(&of_chain)));
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        harm(&format!("{}delete chain inet netcore {name}", flush_all()), &named);
    }
}

#[test]
fn a_chain_hooked_in_elsewhere_is_replaced() {
    for base in [
        "type nat hook postrouting priority 90; policy accept;",
        "type nat hook postrouting priority 100; policy drop;",
        "type nat hook input priority 100; policy accept;",
        "type filter hook postrouting priority 100; policy accept;",
        "",
    ] {
        in_namespace(|| {
            create(&with_ruleset(&attachment())).unwrap();
            nft(&format!(
                "delete chain inet netcore postrouting
                 add chain inet netcore postrouting {{ {base} }}"
            ));
            assert_eq!(damage().unwrap()[0], "chain postrouting: altered", "{base}");
            create(&[ruleset()]).unwrap();
            assert_eq!(damage(), Some(vec![]), "{base}");
            assert_eq!(observe(&attachment()), attachment(), "elements survive");
        });
    }
}

#[test]
fn a_flushed_or_deleted_rule_set_is_made_anew() {
    in_namespace(|| {
        let rules = with_ruleset(&attachment());
        create(&rules).unwrap();
        let whole = snapshot();
        nft("flush ruleset");
        assert_eq!(damage(), None);
        create(&rules).unwrap();
        assert_same(&snapshot(), &whole, "");
        nft("flush table inet netcore");
        assert_eq!(damage().unwrap(), all_rules_missing());
        assert_eq!(observe(&attachment()), attachment());
        create(&[ruleset()]).unwrap();
        assert_same(&snapshot(), &whole, "");
    });
}
