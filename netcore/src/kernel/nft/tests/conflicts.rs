//! A port has one owner.

use super::*;
use crate::Error;

/// Makes the rule set and what is `held`, then tries `wanted`, which must fail and change
/// nothing; the holder that the error names.
fn refused(held: &[NatRule], wanted: &NatRule) -> Option<Mark> {
    in_namespace(|| {
        create(&with_ruleset(held)).unwrap();
        let before = listing();
        let together = [masquerade("other", "10.88.0.9"), wanted.clone()];
        let error = create(&together).unwrap_err();
        assert_eq!(listing(), before, "a refused transaction leaves nothing");
        let NatRule::Publish { host_address, protocol: wanted_protocol, host_port, .. } = wanted else { panic!() };
        let Error::PortTaken { address, port, protocol, holder } = error else { panic!("{error:?}") };
        assert_eq!((address, port, protocol), (*host_address, *host_port, *wanted_protocol));
        holder
    })
}

#[test]
fn a_taken_port_is_refused_and_its_holder_named() {
    let one = publish("one", 8080, "10.88.0.2:80");
    assert_eq!(refused(std::slice::from_ref(&one), &publish("two", 8080, "10.88.0.3:80")), Some(mark("one")));
    // Another owner with the same target: somebody's leftover, perhaps, but not ours to take.
    assert_eq!(refused(std::slice::from_ref(&one), &publish("two", 8080, "10.88.0.2:80")), Some(mark("one")));

    let at = publish_at("one", "192.0.2.1", 8080, "10.88.0.2:80");
    assert_eq!(refused(&[at], &publish_at("two", "192.0.2.1", 8080, "10.88.0.3:80")), Some(mark("one")));

    let six = publish("one", 8080, "[fd00:88::2]:80");
    assert_eq!(refused(&[six], &publish("two", 8080, "[fd00:88::3]:80")), Some(mark("one")));
}

#[test]
fn every_address_and_a_single_one_exclude_each_other() {
    let every = publish("one", 8080, "10.88.0.2:80");
    assert_eq!(refused(&[every], &publish_at("two", "192.0.2.1", 8080, "10.88.0.3:80")), Some(mark("one")));

    let single = publish_at("one", "192.0.2.1", 8080, "10.88.0.2:80");
    assert_eq!(refused(&[single], &publish("two", 8080, "10.88.0.3:80")), Some(mark("one")));

    let single = publish_at("one", "2001:db8::1", 8080, "[fd00:88::2]:80");
    assert_eq!(refused(&[single], &publish("two", 8080, "[fd00:88::3]:80")), Some(mark("one")));
}

#[test]
fn one_call_cannot_contradict_itself() {
    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let every = publish("one", 8080, "10.88.0.2:80");
        let single = publish_at("two", "192.0.2.1", 8080, "10.88.0.3:80");
        let error = create(&[every.clone(), single]).unwrap_err();
        assert!(matches!(&error, Error::PortTaken { holder: Some(holder), .. } if *holder == mark("one")), "{error}");
        // To ask for the same thing twice is no contradiction.
        create(&[every.clone(), every]).unwrap();
    });
}

#[test]
fn different_addresses_ports_protocols_and_families_do_not_collide() {
    in_namespace(|| {
        let rules = [
            publish_at("one", "192.0.2.1", 8080, "10.88.0.2:80"),
            publish_at("two", "192.0.2.2", 8080, "10.88.0.3:80"),
            publish("three", 8081, "10.88.0.4:80"),
            published("four", None, Protocol::Udp, 8080, "10.88.0.5:80"),
            publish("five", 8080, "[fd00:88::6]:80"),
        ];
        create(&with_ruleset(&rules)).unwrap();
        assert_eq!(observe(&rules), rules);
    });
}

#[test]
fn the_same_owner_may_publish_the_same_again() {
    in_namespace(|| {
        let rules = [publish("one", 8080, "10.88.0.2:80"), masquerade("one", "10.88.0.2")];
        create(&with_ruleset(&rules)).unwrap();
        create(&rules).unwrap();
        let error = create(&[publish("one", 8080, "10.88.0.7:80")]).unwrap_err();
        assert!(matches!(&error, Error::PortTaken { holder: Some(holder), .. } if *holder == mark("one")), "{error}");
        assert_eq!(observe(&rules), rules);
    });
}

#[test]
fn a_released_port_can_be_taken_in_any_way() {
    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let empty = listing();
        let every = publish("one", 8080, "10.88.0.2:80");
        let single = publish_at("two", "192.0.2.1", 8080, "10.88.0.3:80");
        let other_single = publish_at("three", "192.0.2.2", 8080, "10.88.0.4:80");

        create(std::slice::from_ref(&every)).unwrap();
        remove(std::slice::from_ref(&every)).unwrap();
        assert_eq!(listing(), empty);

        // The claim of single addresses goes with the last of them.
        create(&[single.clone(), other_single.clone()]).unwrap();
        remove(&[single]).unwrap();
        assert!(create(std::slice::from_ref(&every)).is_err());
        assert_eq!(observe(std::slice::from_ref(&other_single)), std::slice::from_ref(&other_single));
        remove(&[other_single]).unwrap();
        assert_eq!(listing(), empty);
        create(&[every]).unwrap();
    });
}

#[test]
fn a_claim_that_nobody_stands_on_is_no_obstacle() {
    in_namespace(|| {
        let every = publish("one", 8080, "10.88.0.2:80");
        let single = publish_at("two", "192.0.2.1", 8080, "10.88.0.3:80");
        create(&with_ruleset(std::slice::from_ref(&single))).unwrap();
        nft("delete element inet netcore publish4_at { 192.0.2.1 . tcp . 8080 }");
        create(std::slice::from_ref(&every)).unwrap();
        nft("delete element inet netcore publish4 { tcp . 8080 }");
        create(std::slice::from_ref(&single)).unwrap();
        // And it does not stay behind either.
        nft("delete element inet netcore publish4_at { 192.0.2.1 . tcp . 8080 }");
        remove(&[single]).unwrap();
        assert!(!listing().contains("elements"), "{}", listing());
    });
}

#[test]
fn networks_may_share_a_subnet_but_not_overlap() {
    in_namespace(|| {
        create(&with_ruleset(&[hairpin("10.88.0.0/24")])).unwrap();
        create(&[hairpin("10.88.0.0/24"), hairpin("10.88.1.0/24")]).unwrap();
        let error = create(&[hairpin("10.88.0.0/16")]).unwrap_err();
        let words = "hairpin 10.88.0.0/16: overlaps 10.88.0.0/24 of web; give each network a subnet of its own";
        assert_eq!(error.to_string(), words);
    });
}

#[test]
fn many_ports_are_one_transaction() {
    in_namespace(|| {
        let range =
            |container: &str| (1024..4024).map(|port| publish(container, port, "10.88.0.2:80")).collect::<Vec<_>>();
        create(&with_ruleset(&range("one"))).unwrap();
        assert_eq!(observe(&range("one")).len(), 3000);
        let error = create(&range("two")).unwrap_err();
        assert!(matches!(&error, Error::PortTaken { port: 1024, holder: Some(_), .. }), "{error}");
        remove(&range("one")).unwrap();
        assert!(!listing().contains("elements"));
    });
}
