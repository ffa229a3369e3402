//! Barriers are elements, and the administrator's chain is theirs.

use super::*;

/// As `nft` lists the rules of the chain.
fn user_rules() -> Vec<String> {
    let listing = nft("list chain inet netcore user");
    let is_rule = |line: &&str| !line.is_empty() && !line.ends_with('{') && *line != "}";
    listing.lines().map(str::trim).filter(is_rule).map(str::to_owned).collect()
}

#[test]
fn what_is_in_the_administrators_chain_is_no_damage_and_survives_mending() {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        nft("add rule inet netcore user ip saddr 192.0.2.7 drop
             add rule inet netcore user iifname @bridges tcp dport 25 reject comment \"no mail\"");
        let rules = user_rules();
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert_eq!(damage(), Some(vec![]));
        nft("flush chain inet netcore forward");
        assert_ne!(damage(), Some(vec![]));
        create(&[ruleset()]).unwrap();
        assert_eq!(damage(), Some(vec![]));
        assert_eq!(user_rules(), rules);
    });
}

#[test]
fn an_older_rule_set_is_renewed_around_it() {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        nft("add rule inet netcore user counter accept
             flush chain inet netcore forward
             delete set inet netcore within
             add rule inet netcore forward jump user comment \"as it was once\"");
        assert!(damage().unwrap().contains(&"set within: missing".to_owned()));
        create(&with_ruleset(&attachment())).unwrap();
        assert_eq!(observe(&with_ruleset(&attachment())), with_ruleset(&attachment()));
        assert_eq!(user_rules(), ["counter packets 0 bytes 0 accept"]);
    });
}

#[test]
fn a_barrier_stands_whoever_asked_for_it_and_goes_alone() {
    in_namespace(|| {
        let barriers = [Barrier::Networks, Barrier::Outside, Barrier::Admitted, Barrier::Internal].map(barrier);
        create(&with_ruleset(&barriers)).unwrap();
        create(&barriers).unwrap();
        assert_eq!(observe(&barriers), barriers);
        remove(&barriers[..1]).unwrap();
        assert_eq!(observe(&barriers), barriers[1..]);
    });
}
