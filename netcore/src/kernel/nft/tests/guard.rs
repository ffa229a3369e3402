//! The bridge's table is what `nft` makes of its golden file too, and is as whole as the other.

use super::*;
use crate::model::{Check, Source};

const GOLDEN_GUARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/guard.nft");

fn guard_rules() -> NatRule {
    NatRule::Ruleset { table: Table::Bridge, damage: vec![] }
}

fn guard(check: Check) -> NatRule {
    NatRule::Guard { port: InterfaceName::new("veth0").unwrap(), check, mark: mark("one") }
}

fn source(source: Source) -> NatRule {
    NatRule::Source { port: InterfaceName::new("veth0").unwrap(), source, mark: mark("one") }
}

fn mac() -> NatRule {
    source(Source::Mac("0a:58:0a:58:00:02".parse().unwrap()))
}

fn address(address: &str) -> NatRule {
    source(Source::Address(address.parse().unwrap()))
}

/// What one guarded attachment needs.
fn guarded() -> Vec<NatRule> {
    vec![mac(), address("10.88.0.2"), address("fd00:88::2"), guard(Check::Mac), guard(Check::Address)]
}

fn damage_of_guard() -> Option<Vec<String>> {
    match observe(&[guard_rules()]).pop() {
        Some(NatRule::Ruleset { damage, .. }) => Some(damage),
        _ => None,
    }
}

fn both() -> (String, Vec<String>) {
    (listing_of(Table::Bridge), snapshot_of(Table::Bridge))
}

#[test]
fn the_guard_is_the_one_in_the_golden_file() {
    let theirs = in_namespace(|| {
        run_nft(&["-f", GOLDEN_GUARD], "");
        assert_eq!(damage_of_guard(), Some(vec![]), "as nft makes it");
        both()
    });
    let ours = in_namespace(|| {
        create(&[guard_rules()]).unwrap();
        both()
    });
    assert_eq!(ours.0, theirs.0);
    assert_same(&ours.1, &theirs.1, "");
}

#[test]
fn every_kind_of_its_elements_is_the_one_nft_adds() {
    let of_one = "comment \"netcore:web/one/eth0\"";
    let cases = [
        (guard(Check::Mac), format!("mac_checked {{ \"veth0\" {of_one} }}")),
        (guard(Check::Address), format!("address_checked {{ \"veth0\" {of_one} }}")),
        (mac(), format!("macs {{ \"veth0\" . 0a:58:0a:58:00:02 {of_one} }}")),
        (address("10.88.0.2"), format!("addresses4 {{ \"veth0\" . 10.88.0.2 {of_one} }}")),
        (address("fd00:88::2"), format!("addresses6 {{ \"veth0\" . 0xfd000088000000000000000000000002 {of_one} }}")),
    ];
    for (rule, element) in cases {
        let theirs = in_namespace(|| {
            run_nft(&["-f", GOLDEN_GUARD], "");
            nft(&format!("add element bridge netcore {element}"));
            assert_eq!(observe(std::slice::from_ref(&rule)), std::slice::from_ref(&rule), "as nft adds it");
            both()
        });
        let ours = in_namespace(|| {
            create(&[guard_rules(), rule.clone()]).unwrap();
            both()
        });
        assert_eq!(ours.0, theirs.0);
        assert_same(&ours.1, &theirs.1, &format!("{rule:?}"));
    }
}

#[test]
fn both_tables_are_made_at_once_and_go_one_by_one() {
    in_namespace(|| {
        create(&[with_ruleset(&attachment()), vec![guard_rules()], guarded()].concat()).unwrap();
        assert_eq!(observe(&[attachment(), guarded()].concat()).len(), attachment().len() + guarded().len());
        let marked = Nft::open().unwrap().marked(&network("web")).unwrap();
        assert!(guarded().iter().all(|rule| marked.contains(rule)), "{marked:?}");
        remove(&guarded()).unwrap();
        assert_eq!(observe(&guarded()), []);
        assert_eq!(observe(&attachment()), attachment());
        remove(&[guard_rules()]).unwrap();
        assert_eq!(damage_of_guard(), None);
        assert_eq!(damage(), Some(vec![]));
    });
}

#[test]
fn any_single_element_or_rule_of_it_that_is_gone_is_seen_to_be_gone() {
    in_namespace(|| {
        create(&[vec![guard_rules()], guarded()].concat()).unwrap();
        let (whole, _) = both();
        for gone in guarded() {
            remove(std::slice::from_ref(&gone)).unwrap();
            let rest: Vec<_> = guarded().into_iter().filter(|rule| *rule != gone).collect();
            assert_eq!(observe(&guarded()), rest);
            create(&guarded()).unwrap();
            assert_eq!(observe(&guarded()), guarded());
        }
        for chain in Table::Bridge.chains() {
            nft(&format!("flush chain bridge netcore {}", chain.name.to_str().unwrap()));
            assert_eq!(damage_of_guard().unwrap().len(), chain.rules.len());
            create(&[guard_rules()]).unwrap();
            assert_eq!(listing_of(Table::Bridge), whole);
        }
    });
}
