//! What we make is what `nft` makes of the golden file.

use super::*;

fn make_golden() {
    run_nft(&["-f", GOLDEN], "");
}

#[test]
fn the_rule_set_is_the_one_in_the_golden_file() {
    let theirs = in_namespace(|| {
        make_golden();
        (listing(), snapshot())
    });
    let ours = in_namespace(|| {
        create(&[ruleset()]).unwrap();
        (listing(), snapshot())
    });
    assert_eq!(ours.0, theirs.0);
    assert_same(&ours.1, &theirs.1, "");
    assert!(ours.1.iter().any(|entry| entry.contains("[ nat dnat ip6 ")), "{:?}", ours.1);
}

#[test]
fn what_nft_makes_of_the_golden_file_is_intact_to_us() {
    in_namespace(|| {
        make_golden();
        assert_eq!(damage(), Some(vec![]));
        let before = nft("list ruleset");
        create(&with_ruleset(&attachment())).unwrap();
        remove(&attachment()).unwrap();
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn every_kind_of_element_is_the_one_nft_adds() {
    let of_network = "comment \"netcore:web\"";
    let of_host = "comment \"netcore:*\"";
    let of_one = "comment \"netcore:web/one/eth0\"";
    let every = "comment \"every address\"";
    let single = "comment \"single addresses\"";
    let cases = [
        (member("cni0"), format!("bridges {{ \"cni0\" {of_network} }}")),
        (member("fifteen_bytes15"), format!("bridges {{ \"fifteen_bytes15\" {of_network} }}")),
        (within("vx42", "cni0"), format!("within {{ \"vx42\" . \"cni0\" {of_network} }}")),
        (barrier(Barrier::Networks), format!("isolated {{ \"cni0\" {of_host} }}")),
        (barrier(Barrier::Outside), format!("closed {{ \"cni0\" {of_host} }}")),
        (barrier(Barrier::Admitted), format!("admitted {{ \"cni0\" {of_host} }}")),
        (barrier(Barrier::Internal), format!("internal {{ \"cni0\" {of_host} }}")),
        (hairpin("10.88.0.0/24"), format!("same_net4 {{ 10.88.0.0/24 . 10.88.0.0/24 {of_network} }}")),
        (hairpin("10.88.16.0/20"), format!("same_net4 {{ 10.88.16.0/20 . 10.88.16.0/20 {of_network} }}")),
        (hairpin("fd00:88::/64"), format!("same_net6 {{ fd00:88::/64 . fd00:88::/64 {of_network} }}")),
        (masquerade("one", "10.88.0.2"), format!("masquerade4 {{ 10.88.0.2 {of_one} }}")),
        (masquerade("one", "fd00:88::2"), format!("masquerade6 {{ fd00:88::2 {of_one} }}")),
        (
            publish("one", 8080, "10.88.0.2:80"),
            format!(
                "publish4 {{ tcp . 8080 {of_one} : 10.88.0.2 . 80 }}
                 add element inet netcore host_ports4 {{ tcp . 8080 {every} : 1 }}"
            ),
        ),
        (
            published("one", None, Protocol::Sctp, 65535, "[fd00:88::2]:1"),
            format!(
                "publish6 {{ sctp . 65535 {of_one} : fd00:88::2 . 1 }}
                 add element inet netcore host_ports6 {{ sctp . 65535 {every} : 1 }}"
            ),
        ),
        (
            publish_at("one", "192.0.2.1", 8080, "10.88.0.2:80"),
            format!(
                "publish4_at {{ 192.0.2.1 . tcp . 8080 {of_one} : 10.88.0.2 . 80 }}
                 add element inet netcore host_ports4 {{ tcp . 8080 {single} : 2 }}"
            ),
        ),
        (
            published("one", Some("2001:db8::1".parse().unwrap()), Protocol::Udp, 53, "[fd00:88::2]:5353"),
            format!(
                "publish6_at {{ 2001:db8::1 . udp . 53 {of_one} : fd00:88::2 . 5353 }}
                 add element inet netcore host_ports6 {{ udp . 53 {single} : 2 }}"
            ),
        ),
    ];
    for (rule, element) in cases {
        let theirs = in_namespace(|| {
            make_golden();
            nft(&format!("add element inet netcore {element}"));
            assert_eq!(observe(std::slice::from_ref(&rule)), std::slice::from_ref(&rule), "as nft adds it");
            snapshot()
        });
        let ours = in_namespace(|| {
            create(&with_ruleset(std::slice::from_ref(&rule))).unwrap();
            snapshot()
        });
        assert_same(&ours, &theirs, &format!("{rule:?}"));
    }
}

#[test]
fn creating_three_times_is_creating_once() {
    in_namespace(|| {
        let rules = with_ruleset(&attachment());
        create(&rules).unwrap();
        let once = snapshot();
        create(&rules).unwrap();
        create(&rules).unwrap();
        assert_same(&snapshot(), &once, "");
        assert_eq!(observe(&rules), rules);
    });
}
