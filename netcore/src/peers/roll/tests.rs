//! Hearing of nodes one after the other comes to the same as hearing of all at once.

use super::*;
use crate::peers::accept;

fn config() -> OverlayConfig {
    let text = r#"{"vni": 42, "cidr": "10.0.0.0/8", "source": {"file": "/x"}}"#;
    serde_json::from_str(text).unwrap()
}

fn name(node: &str) -> Name {
    Name::new(node).unwrap()
}

fn peer(node: &str, subnet: &str, underlay: &str, generation: u64) -> Peer {
    let node = name(node);
    Peer {
        mac: Peer::endpoint_mac(&node, 42),
        node,
        subnets: vec![subnet.parse().unwrap()],
        underlay: underlay.parse().unwrap(),
        vni: 42,
        port: 4789,
        generation,
        public_key: None,
    }
}

fn names(peers: &[Peer]) -> Vec<&str> {
    peers.iter().map(|peer| peer.node.as_str()).collect()
}

#[test]
fn a_change_says_who_is_another_and_who_is_not() {
    let mut roll = Roll::new(config(), name("a"));
    let change = roll.replace([peer("a", "10.1.0.0/24", "192.0.2.1", 1), peer("b", "10.2.0.0/24", "192.0.2.2", 2)]);
    assert_eq!((names(&change.gone), names(&change.come)), (vec![], vec!["a", "b"]));
    let moved = peer("b", "10.2.0.0/24", "192.0.2.22", 2);
    let change = roll.set(&name("b"), Some(moved.clone()));
    assert_eq!((names(&change.gone), names(&change.come)), (vec!["b"], vec!["b"]));
    assert!(roll.set(&name("b"), Some(moved)).is_empty());

    // Who wants what another has waits until that one goes.
    let change = roll.set(&name("c"), Some(peer("c", "10.2.0.0/16", "192.0.2.3", 3)));
    assert!(change.is_empty());
    assert!(roll.faults().next().unwrap().to_string().contains("overlaps 10.2.0.0/24 of node b"));
    let change = roll.set(&name("b"), None);
    assert_eq!((names(&change.gone), names(&change.come)), (vec!["b"], vec!["c"]));
    assert_eq!(roll.faults().count(), 0);
    assert!(roll.set(&name("b"), None).is_empty());
    // The other family: this node's own decides.
    let change = roll.set(&name("a"), Some(peer("a", "10.1.0.0/24", "2001:db8::1", 1)));
    assert_eq!((names(&change.gone), names(&change.come)), (vec!["a", "c"], vec!["a"]));
}

#[test]
fn one_after_the_other_comes_to_the_same_as_all_at_once() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut roll = Roll::new(config(), name("n0"));
    let mut said: BTreeMap<Name, Peer> = BTreeMap::new();
    let mut believed: BTreeMap<Name, Peer> = BTreeMap::new();
    for _ in 0..5000 {
        let node = format!("n{}", random(12));
        let new = (random(4) > 0).then(|| {
            // Few places for many: they contradict each other most of the time.
            let subnet = if random(10) == 0 { "172.16.0.0/24".to_owned() } else { format!("10.{}.0.0/16", random(9)) };
            peer(&node, &subnet, &format!("192.0.2.{}", 1 + random(14)), random(1000))
        });
        match &new {
            Some(peer) => said.insert(peer.node.clone(), peer.clone()),
            None => said.remove(&name(&node)),
        };
        let change = roll.set(&name(&node), new);
        let (expected, faults) = accept(&config(), &name("n0"), said.values().cloned().collect());
        let expected: BTreeMap<Name, Peer> = expected.into_iter().map(|peer| (peer.node.clone(), peer)).collect();
        for gone in &change.gone {
            assert_eq!(believed.remove(&gone.node).as_ref(), Some(gone));
        }
        for come in change.come {
            assert_eq!(believed.insert(come.node.clone(), come), None);
        }
        assert_eq!(believed, expected);
        assert!(roll.believed().eq(expected.values()));
        assert_eq!(roll.faults().count(), faults.len());
    }
}
