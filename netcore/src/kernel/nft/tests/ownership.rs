//! What is ours is found and removed; what is not stays.

use super::*;
use crate::Error;

#[test]
fn an_attachment_comes_and_goes_without_a_trace() {
    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let empty = listing();
        create(&attachment()).unwrap();
        assert_eq!(observe(&attachment()), attachment());
        remove(&attachment()).unwrap();
        assert_eq!(observe(&attachment()), []);
        assert_eq!(listing(), empty);
        remove(&attachment()).unwrap();
    });
}

#[test]
fn any_single_element_that_is_gone_is_seen_to_be_gone() {
    for gone in attachment() {
        in_namespace(|| {
            create(&with_ruleset(&attachment())).unwrap();
            remove(std::slice::from_ref(&gone)).unwrap();
            let rest: Vec<_> = attachment().into_iter().filter(|rule| *rule != gone).collect();
            assert_eq!(observe(&attachment()), rest);
            create(&attachment()).unwrap();
            assert_eq!(observe(&attachment()), attachment());
        });
    }
    // A claim is part of what publishes the port.
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        let whole = listing();
        nft("delete element inet netcore host_ports4 { tcp . 8080 }");
        assert_eq!(observe(&attachment()).len(), attachment().len() - 1);
        create(&attachment()).unwrap();
        assert_eq!(listing(), whole);
    });
}

#[test]
fn the_element_of_another_owner_stays() {
    in_namespace(|| {
        let theirs = [masquerade("two", "10.88.0.2"), publish("two", 8080, "10.88.0.2:80")];
        create(&with_ruleset(&theirs)).unwrap();
        let before = listing();
        remove(&[masquerade("one", "10.88.0.2"), publish("one", 8080, "10.88.0.2:80")]).unwrap();
        assert_eq!(listing(), before);
    });
}

#[test]
fn a_reused_address_is_marked_by_its_new_owner() {
    in_namespace(|| {
        create(&with_ruleset(&[masquerade("old", "10.88.0.2")])).unwrap();
        create(&[masquerade("new", "10.88.0.2"), publish("new", 8080, "10.88.0.2:80")]).unwrap();
        assert_eq!(observe(&[masquerade("old", "10.88.0.2")]), [masquerade("new", "10.88.0.2")]);
    });
}

#[test]
fn what_a_network_has_is_found_by_its_mark() {
    in_namespace(|| {
        create(&with_ruleset(&attachment())).unwrap();
        let other = AttachmentId::new("x", "eth0").unwrap().mark(&network("web2"));
        create(&[NatRule::Masquerade { source: "10.99.0.2".parse().unwrap(), mark: other }]).unwrap();
        let nft = Nft::open().unwrap();
        let mut found = nft.marked(&network("web")).unwrap();
        let mut wanted = attachment();
        let by_words = |rule: &NatRule| format!("{rule:?}");
        found.sort_by_key(by_words);
        wanted.sort_by_key(by_words);
        assert_eq!(found, wanted);
        assert_eq!(nft.marked(&network("web2")).unwrap().len(), 1);
        assert_eq!(nft.marked(&network("we")).unwrap(), []);
    });
}

#[test]
fn other_tables_and_unmarked_elements_are_left_alone() {
    in_namespace(|| {
        let foreign = "table inet firewall {
                chain input { type filter hook input priority 0; policy accept; tcp dport 22 accept; }
            }
            table ip netcore { set masquerade4 { type ipv4_addr; elements = { 192.0.2.1 }; }; }";
        nft(foreign);
        let before = nft("list ruleset");
        create(&with_ruleset(&attachment())).unwrap();
        nft("add element inet netcore masquerade4 { 10.88.0.99 }");
        nft("add element inet netcore publish4 { tcp . 99 : 10.88.0.99 . 99 }");
        assert_eq!(Nft::open().unwrap().marked(&network("web")).unwrap().len(), attachment().len());
        remove(&[masquerade("one", "10.88.0.99"), publish("one", 99, "10.88.0.99:99")]).unwrap();
        remove(&attachment()).unwrap();
        assert!(
            listing().contains("{ 10.88.0.99 }")
                && listing().contains("tcp . 99 counter packets 0 bytes 0 : 10.88.0.99 . 99"),
            "{}",
            listing()
        );
        remove(&[ruleset()]).unwrap();
        assert_eq!(nft("list ruleset"), before);
    });
}

#[test]
fn without_the_table_nothing_is_there_and_nothing_can_be_added() {
    in_namespace(|| {
        assert_eq!(damage(), None);
        assert_eq!(observe(&with_ruleset(&attachment())), []);
        assert_eq!(Nft::open().unwrap().marked(&network("web")).unwrap(), []);
        remove(&with_ruleset(&attachment())).unwrap();
        remove(&attachment()).unwrap();
        let error = create(&attachment()).unwrap_err();
        assert!(matches!(&error, Error::Kernel { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
        assert_eq!(error.to_string(), "create firewall member cni0: No such file or directory (os error 2)");
    });
}

#[test]
fn without_privilege_the_error_says_what_is_needed() {
    in_namespace(|| {
        let nothing = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = Nft::open().err().unwrap();
        let words =
            "open nf_tables: changing the firewall needs root (CAP_NET_ADMIN) (Operation not permitted (os error 1))";
        assert_eq!(error.to_string(), words);
    });
}
