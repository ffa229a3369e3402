//! Given what nodes say about themselves, this is what is believed, and kept.

use std::fs;
use std::time::Instant;

use super::*;
use crate::model::{Encryption, LocalNode, Object, PublicKey, State, Underlay};
use crate::plan::{Step, reconcile};

fn config(file: &str) -> OverlayConfig {
    let text = format!(r#"{{"vni": 42, "cidr": ["10.0.0.0/8", "fd00::/16"], "source": {{"file": "{file}"}}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn peer(node: &str, subnets: &[&str], underlay: &str) -> Peer {
    let node = Name::new(node).unwrap();
    Peer {
        mac: Peer::endpoint_mac(&node, 42),
        node,
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        underlay: underlay.parse().unwrap(),
        vni: 42,
        port: 4789,
        generation: 0,
        public_key: None,
    }
}

fn name(node: &str) -> Name {
    Name::new(node).unwrap()
}

fn located(node: &str) -> OverlayConfig {
    let underlay = Underlay {
        address: "192.0.2.11".parse().unwrap(),
        link: "eth0".parse().unwrap(),
        mtu: 1500,
        segment: "192.0.2.0/24".parse().unwrap(),
    };
    let subnets = vec!["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
    OverlayConfig { local: Some(LocalNode { node: name(node), subnets, underlay, key: None }), ..config("/x") }
}

#[test]
fn a_peer_that_lies_is_named_and_the_others_are_believed() {
    let good =
        || vec![peer("a", &["10.1.0.0/24"], "192.0.2.11"), peer("b", &["10.2.0.0/24", "fd00:2::/64"], "192.0.2.12")];
    let lies: Vec<(Peer, &str)> = vec![
        (
            peer("c", &["172.16.0.0/24"], "192.0.2.13"),
            "peer c: subnets: 172.16.0.0/24 is not inside the cluster's range",
        ),
        (peer("c", &["10.0.0.0/7"], "192.0.2.13"), "10.0.0.0/7 is not inside"),
        (peer("c", &["10.3.0.1/24"], "192.0.2.13"), "a network address: 10.3.0.0/24"),
        (peer("c", &["10.3.0.0/31"], "192.0.2.13"), "room for containers"),
        (peer("c", &["10.2.0.128/25"], "192.0.2.13"), "overlaps 10.2.0.0/24 of node b"),
        (peer("c", &["10.0.0.0/12"], "192.0.2.13"), "overlaps 10."),
        (peer("c", &["10.3.0.0/24", "10.4.0.0/24"], "192.0.2.13"), "the only one of its family"),
        (peer("c", &[], "192.0.2.13"), "subnets: nothing"),
        (peer("c", &["10.3.0.0/24"], "10.9.9.9"), "outside the overlay's own range"),
        (peer("c", &["10.3.0.0/24"], "192.0.2.12"), "node b has it"),
        (peer("c", &["10.3.0.0/24"], "127.0.0.1"), "an address that other nodes can send to"),
        (peer("c", &["10.3.0.0/24"], "2001:db8::3"), "an IPv4 address, as this node's is"),
        (peer("b", &["10.3.0.0/24"], "192.0.2.13"), "named once"),
        (Peer { vni: 43, ..peer("c", &["10.3.0.0/24"], "192.0.2.13") }, "the network's VNI 42"),
        (Peer { port: 8472, ..peer("c", &["10.3.0.0/24"], "192.0.2.13") }, "the network's UDP port 4789"),
        (Peer { mac: good()[1].mac, ..peer("c", &["10.3.0.0/24"], "192.0.2.13") }, "node b has it"),
    ];
    for (lie, words) in lies {
        // The older claim has it, wherever it stands in the list.
        let mut peers = good();
        peers.insert(0, Peer { generation: 7, ..lie });
        let (believed, faults) = accept(&config("/x"), &name("a"), peers);
        assert_eq!(believed, good(), "{words}");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains(words), "{}", faults[0]);
    }
}

#[test]
fn what_was_good_last_stays() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.toml");
    let config = config(file.to_str().unwrap());
    let snapshots = Snapshots::new(directory.path().join("overlay"));
    let mesh = name("mesh");
    assert!(matches!(snapshots.current(&mesh, &config), Err(Error::NoSubnet { .. })));
    let text = "node = \"a\"\n[[peer]]\nnode = \"a\"\nunderlay = \"192.0.2.11\"\nsubnets = [\"10.1.0.0/24\"]\n";
    for half in [20, 40, text.len() - 4] {
        fs::write(&file, &text[..half]).unwrap();
        let error = snapshots.current(&mesh, &config).unwrap_err();
        assert!(matches!(error, Error::Peers { .. }), "{error}");
    }
    fs::write(&file, text).unwrap();
    let current = snapshots.current(&mesh, &config).unwrap();
    assert_eq!(current.warnings, Vec::<String>::new());
    assert_eq!(current.snapshot.own().unwrap().subnets[0].to_string(), "10.1.0.0/24");
    let written = fs::metadata(snapshots.path(&mesh)).unwrap().modified().unwrap();

    fs::write(&file, &text[..40]).unwrap();
    let after = snapshots.current(&mesh, &config).unwrap();
    assert_eq!(after.snapshot, current.snapshot);
    assert!(after.warnings[0].contains("mesh.toml: "), "{:?}", after.warnings);
    assert_eq!(fs::metadata(snapshots.path(&mesh)).unwrap().modified().unwrap(), written);
    fs::remove_file(&file).unwrap();
    assert_eq!(snapshots.current(&mesh, &config).unwrap().snapshot, current.snapshot);

    // An agent's snapshot is taken as it is.
    let etcd = serde_json::json!({"etcd": {"endpoints": ["https://192.0.2.1:2379"], "prefix": "/mesh"}});
    let config = OverlayConfig { source: serde_json::from_value(etcd).unwrap(), ..config };
    assert_eq!(snapshots.current(&mesh, &config).unwrap().snapshot, current.snapshot);
    assert!(snapshots.current(&name("other"), &config).unwrap_err().to_string().contains("agent has not run"));

    fs::write(snapshots.path(&mesh), r#"{"version": 2, "future": true}"#).unwrap();
    let error = snapshots.current(&mesh, &config).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("mesh.json"), "{error}");
}

#[test]
fn changes_are_added_behind_a_snapshot_and_a_torn_one_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::new(directory.path());
    let mesh = name("mesh");
    let (a, b) = (peer("a", &["10.1.0.0/24"], "192.0.2.11"), peer("b", &["10.2.0.0/24"], "192.0.2.12"));
    let moved = Peer { underlay: "192.0.2.22".parse().unwrap(), ..b.clone() };
    let c = peer("c", &["10.3.0.0/24"], "192.0.2.13");
    let _lock = snapshots.lock(&mesh).unwrap();
    assert!(snapshots.append(&mesh, &Change::default()).is_err(), "nothing is there to add to");
    snapshots.commit(&mesh, &Snapshot::new(name("a"), vec![a.clone(), b.clone()])).unwrap();
    let change = Change { gone: vec![b.clone()], come: vec![moved.clone(), c.clone()] };
    snapshots.append(&mesh, &change).unwrap();
    let peers = |snapshots: &Snapshots| snapshots.load(&mesh).unwrap().unwrap().peers;
    assert_eq!(peers(&snapshots), [a.clone(), moved.clone(), c.clone()]);
    let whole = fs::read(snapshots.path(&mesh)).unwrap();
    snapshots.append(&mesh, &Change { gone: vec![a.clone()], come: Vec::new() }).unwrap();
    assert_eq!(peers(&snapshots), [moved.clone(), c.clone()]);
    let longer = fs::read(snapshots.path(&mesh)).unwrap();
    for end in whole.len()..longer.len() {
        fs::write(snapshots.path(&mesh), &longer[..end]).unwrap();
        assert_eq!(peers(&snapshots), [a.clone(), moved.clone(), c.clone()]);
    }
    // As it was written before there were changes.
    fs::write(snapshots.path(&mesh), whole.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(peers(&snapshots), [a, b]);
    assert_eq!(snapshots.networks().unwrap(), std::slice::from_ref(&mesh));
    snapshots.remove(&mesh).unwrap();
    snapshots.remove(&mesh).unwrap();
    assert_eq!(snapshots.load(&mesh).unwrap(), None);
}

/// The words of the steps from what is there for `before` to what `after` wants.
fn steps(config: &OverlayConfig, before: &[Peer], after: &[Peer]) -> Vec<String> {
    let (before, after) = (crate::driver::ways(config, before), crate::driver::ways(config, after));
    reconcile(&after, &State(before)).unwrap().iter().map(Step::to_string).collect()
}

#[test]
fn a_node_comes_moves_and_goes() {
    let config = located("a");
    let a = peer("a", &["10.1.0.0/24", "fd00:1::/64"], "192.0.2.11");
    let b = peer("b", &["10.2.0.0/24"], "192.0.2.12");
    let (all, alone) = (vec![a.clone(), b.clone()], vec![a.clone()]);
    let mac = b.mac;
    let forth = [
        "create neighbour 10.2.0.1 dev vxlan42 (host)".to_owned(),
        format!("create fdb {mac} dev vxlan42 dst 192.0.2.12 (host)"),
        "create route 10.2.0.0/24 via 10.2.0.1 dev vxlan42 (host)".to_owned(),
    ];
    assert_eq!(steps(&config, &alone, &all), forth);
    let back: Vec<String> = forth.iter().rev().map(|step| step.replace("create", "remove")).collect();
    assert_eq!(steps(&config, &all, &alone), back);
    assert_eq!(steps(&config, &all, &all), Vec::<String>::new());

    let moved = Peer { underlay: "192.0.2.99".parse().unwrap(), ..b.clone() };
    assert_eq!(
        steps(&config, &all, &[a.clone(), moved]),
        [format!("change fdb {mac} dev vxlan42 dst 192.0.2.99 (host): node 192.0.2.12 → 192.0.2.99")]
    );
    // Its subnet is given to another node: nothing is without a way in between.
    let c = peer("c", &["10.2.0.0/24"], "192.0.2.13");
    assert_eq!(
        steps(&config, &all, &[a.clone(), c.clone()]),
        [
            format!("change neighbour 10.2.0.1 dev vxlan42 (host): MAC {mac} → {}", c.mac),
            format!("create fdb {} dev vxlan42 dst 192.0.2.13 (host)", c.mac),
            format!("remove fdb {mac} dev vxlan42 dst 192.0.2.12 (host)"),
        ]
    );
    let direct = OverlayConfig { direct_routing: true, ..config.clone() };
    assert_eq!(steps(&direct, &alone, &all), ["create route 10.2.0.0/24 via 192.0.2.12 dev eth0 (host)"]);
    let far = Peer { underlay: "203.0.113.2".parse().unwrap(), ..b };
    assert_eq!(steps(&direct, &alone, &[a, far]).len(), 3, "a node behind a router is tunnelled to");
}

#[test]
fn an_encrypted_node_is_known_by_a_key_of_its_own() {
    let config = OverlayConfig { encryption: Some(Encryption::Wireguard), ..located("a") };
    let with = |peer: Peer, key: u8| Peer { public_key: Some(PublicKey([key; 32])), ..peer };
    let a = with(peer("a", &["10.1.0.0/24", "fd00:1::/64"], "192.0.2.11"), 1);
    let b = with(peer("b", &["10.2.0.0/24", "fd00:2::/64"], "192.0.2.12"), 2);
    let keyless = peer("c", &["10.3.0.0/24"], "192.0.2.13");
    let thief = with(peer("d", &["10.4.0.0/24"], "192.0.2.14"), 2);
    let (believed, faults) = accept(&config, &name("a"), vec![a.clone(), b.clone(), keyless, thief]);
    assert_eq!(believed, [a.clone(), b.clone()]);
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(faults[0].starts_with("peer c: publicKey: nothing is not its key"), "{faults:?}");
    assert!(faults[1].starts_with("peer d: publicKey: ") && faults[1].contains("that of node b"), "{faults:?}");

    let all = [a.clone(), b.clone()];
    let key = PublicKey([2; 32]);
    assert_eq!(
        steps(&config, std::slice::from_ref(&a), &all),
        [
            format!("create wireguard peer {key} dev wgvni42 (host)"),
            "create route 10.2.0.0/24 dev wgvni42 (host)".to_owned(),
            "create route fd00:2::/64 dev wgvni42 (host)".to_owned(),
        ]
    );
    let moved = Peer { underlay: "192.0.2.99".parse().unwrap(), ..b.clone() };
    assert_eq!(
        steps(&config, &all, &[a.clone(), moved]),
        [format!("change wireguard peer {key} dev wgvni42 (host): endpoint 192.0.2.12:4789 → 192.0.2.99:4789")]
    );
    // Another key for the same subnets: the new one has them before the old one goes.
    assert_eq!(
        steps(&config, &all, &[a, with(b, 3)]),
        [
            format!("create wireguard peer {} dev wgvni42 (host)", PublicKey([3; 32])),
            format!("remove wireguard peer {key} dev wgvni42 (host)"),
        ]
    );
}

#[test]
fn five_thousand_peers() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.toml");
    let mut text = "node = \"n0\"\n".to_owned();
    for number in 0..5000 {
        let (high, low) = (number / 250, number % 250 + 1);
        text += &format!(
            "[[peer]]\nnode = \"n{number}\"\nunderlay = \"198.18.{high}.{low}\"\nsubnets = [\"10.{high}.{low}.0/24\"]\n"
        );
    }
    fs::write(&file, text).unwrap();
    let config = OverlayConfig { source: PeerSource::File(file), ..located("n0") };
    let snapshots = Snapshots::new(directory.path().join("overlay"));
    let mesh = name("mesh");
    let start = Instant::now();
    let snapshot = snapshots.current(&mesh, &config).unwrap().snapshot;
    let read = start.elapsed();
    let ways = crate::driver::ways(&config, &snapshot.peers);
    assert_eq!(ways.len(), 3 * 4999);
    let start = Instant::now();
    let missing: Vec<Object> = ways.iter().skip(3).cloned().collect();
    assert_eq!(reconcile(&ways, &State(missing)).unwrap().len(), 3);
    println!("5,000 peers: read, checked and committed in {read:?}, compared in {:?}", start.elapsed());
}
