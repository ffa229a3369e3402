//! Following the nodes of an overlay on a kernel in memory: what changed is done, whatever fails is
//! made up for, and it always comes to what attaching a container would have come to.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use netcore::engine::{Engine, Follower};
use netcore::kernel::{Memory, Notice};
use netcore::model::{Address, Attachment, Name, Network, Object, Peer, Place, Rivals};
use netcore::peers::{Snapshot, Snapshots};
use netcore::store::Store;

struct Host {
    directory: tempfile::TempDir,
    kernel: Memory,
    engine: Engine<Memory>,
    mesh: Network,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn peer(number: u8, underlay: &str) -> Peer {
    let node = name(&format!("n{number}"));
    Peer {
        mac: Peer::endpoint_mac(&node, 42),
        node,
        subnets: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        underlay: underlay.parse().unwrap(),
        vni: 42,
        port: 4789,
        generation: number.into(),
        public_key: None,
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let kernel = Memory::new();
        kernel.put(Object::Address(Address {
            place: Place::Host,
            link: "eth0".parse().unwrap(),
            address: "192.0.2.1/24".parse().unwrap(),
            dad: false,
            rivals: Rivals::Allow,
        }));
        let engine = Engine::new(kernel.clone(), Store::new(path("records")));
        let engine = engine.with_snapshots(Snapshots::new(path("overlay")));
        let etcd = serde_json::json!({ "etcd": { "endpoints": ["http://192.0.2.100:2379"], "prefix": "/mesh" } });
        let mesh = serde_json::json!({
            "name": "mesh",
            "mode": {
                "type": "overlay", "vni": 42, "cidr": "10.244.0.0/16", "removeEmptyBridge": true,
                "dataDir": path("leases"), "source": etcd,
            },
        });
        Self { directory, kernel, engine, mesh: serde_json::from_value(mesh).unwrap() }
    }

    fn follow(&self) -> Follower<'_, Memory> {
        self.engine.follow(&self.mesh, name("n1")).unwrap()
    }

    fn attach(&self, container: &str) {
        let netns = self.directory.path().join(container);
        run(self.engine.attach(&self.mesh, Attachment::new(container.parse().unwrap(), Some(netns)))).unwrap();
    }

    fn ways(&self) -> Vec<String> {
        let is_way = |object: &Object| match object {
            Object::Route(route) => route.place == Place::Host,
            object => matches!(object, Object::Neighbour(_) | Object::Fdb(_)),
        };
        let mut ways: Vec<String> =
            self.kernel.objects().iter().filter(|object| is_way(object)).map(ToString::to_string).collect();
        ways.sort();
        ways
    }

    fn known(&self) -> Snapshot {
        self.engine.snapshots().load(&self.mesh.name).unwrap().unwrap()
    }
}

/// What happens, one after the other, to the nodes beside the first.
fn story() -> Vec<(Name, Option<Peer>)> {
    let mut story = vec![
        (name("n2"), Some(peer(2, "192.0.2.2"))),
        (name("n3"), Some(peer(3, "192.0.2.3"))),
        (name("n2"), Some(peer(2, "192.0.2.22"))),
        // It has what another has.
        (name("n4"), Some(Peer { subnets: peer(3, "192.0.2.3").subnets, ..peer(4, "192.0.2.4") })),
        (name("n3"), None),
        (name("n4"), Some(peer(4, "192.0.2.4"))),
        (name("n2"), None),
    ];
    story.extend(
        (5..80).map(|number| (name(&format!("n{number}")), Some(peer(number, &format!("198.51.100.{number}"))))),
    );
    story
}

#[test]
fn one_change_after_the_other_comes_to_what_attaching_comes_to() {
    let host = Host::new();
    let mut follower = host.follow();
    run(follower.hear_all(vec![peer(1, "192.0.2.1")])).unwrap();
    host.attach("one");
    for (node, change) in story() {
        let there = host.ways();
        let heard = run(follower.hear(vec![(node.clone(), change)])).unwrap();
        assert!(heard.steps.len() <= 6, "{node}: no more is done than changed: {:?}", heard.steps);
        assert_eq!(heard.steps.is_empty(), there == host.ways());
        assert!(host.known().peers.iter().eq(follower.peers()), "{node}");
        run(host.engine.check(&host.mesh, "one")).unwrap();
        let followed = host.ways();
        host.attach("two");
        assert_eq!(host.ways(), followed, "{node}");
        run(host.engine.detach(&host.mesh, "two")).unwrap();
    }
    assert_eq!(follower.faults().count(), 0);
    // Several at once, that come to nothing.
    let before = (host.ways(), host.known());
    let there_and_back = vec![(name("n4"), None), (name("n9"), None), (name("n4"), Some(peer(4, "192.0.2.4")))];
    let back = (name("n9"), Some(peer(9, "198.51.100.9")));
    let heard = run(follower.hear(there_and_back.into_iter().chain([back]).collect())).unwrap();
    assert!(heard.change.is_empty() && heard.steps.is_empty());
    assert_eq!((host.ways(), host.known()), before);
    // Whoever begins anew begins with what was good last.
    drop(follower);
    let follower = host.follow();
    assert_eq!(follower.peers().count(), host.known().peers.len());
}

#[test]
fn without_a_container_there_is_nothing_to_be_done_but_to_know() {
    let host = Host::new();
    let mut follower = host.follow();
    assert!(run(host.engine.status(&host.mesh)).is_err());
    run(follower.hear_all(vec![peer(1, "192.0.2.1"), peer(2, "192.0.2.2")])).unwrap();
    run(host.engine.status(&host.mesh)).unwrap();
    run(follower.hear(vec![(name("n3"), Some(peer(3, "192.0.2.3")))])).unwrap();
    assert_eq!(host.ways(), Vec::<String>::new());
    host.attach("one");
    assert_eq!(host.ways().len(), 6);
    // This node is another by now, or none: the others' ways stay as they are until it is known.
    run(follower.hear(vec![(name("n1"), None)])).unwrap();
    assert!(run(host.engine.status(&host.mesh)).unwrap_err().to_string().contains("n1 has no subnet yet"));
    assert_eq!(host.ways().len(), 6);
    run(follower.hear(vec![(name("n1"), Some(peer(1, "192.0.2.1")))])).unwrap();
    run(host.engine.check(&host.mesh, "one")).unwrap();
}

#[test]
fn a_failure_at_any_change_is_made_up_for() {
    for changes in 0.. {
        let host = Host::new();
        let mut follower = host.follow();
        run(follower.hear_all(vec![peer(1, "192.0.2.1")])).unwrap();
        host.attach("one");
        host.kernel.fail_after(changes);
        let failures = story().into_iter().take(7).filter(|one| run(follower.hear(vec![one.clone()])).is_err()).count();
        let sprung = !host.kernel.disarm();
        assert!(failures <= 1, "after change {changes}");
        run(follower.mend()).unwrap();
        run(host.engine.check(&host.mesh, "one")).unwrap();
        let mended = host.ways();
        host.attach("two");
        assert_eq!(host.ways(), mended, "after change {changes}");
        if !sprung {
            assert!(changes > 10);
            break;
        }
    }
}

#[test]
fn only_what_contradicts_is_minded() {
    let host = Host::new();
    let mut follower = host.follow();
    run(follower.hear_all(vec![peer(1, "192.0.2.1"), peer(2, "192.0.2.2")])).unwrap();
    host.attach("one");
    let other = peer(2, "192.0.2.2");
    let gateway = "10.244.2.1".parse().unwrap();
    let subnet = other.subnets[0];
    let minded = [
        Notice::Link,
        Notice::Neighbour(gateway, None),
        Notice::Neighbour(gateway, Some(peer(3, "192.0.2.3").mac)),
        Notice::Entry(other.mac, None),
        Notice::Entry(other.mac, Some("192.0.2.9".parse().unwrap())),
        Notice::Route(subnet, None),
        Notice::Route(subnet, Some(Some("192.0.2.9".parse().unwrap()))),
    ];
    let passed_over = [
        Notice::Neighbour(gateway, Some(other.mac)),
        Notice::Entry(other.mac, Some(other.underlay)),
        Notice::Route(subnet, Some(Some(gateway))),
        Notice::Neighbour("10.244.9.1".parse().unwrap(), None),
        Notice::Entry(peer(3, "192.0.2.3").mac, None),
        Notice::Route("10.244.9.0/24".parse().unwrap(), None),
    ];
    assert!(minded.iter().all(|notice| follower.minds(notice)));
    assert!(!passed_over.iter().any(|notice| follower.minds(notice)));
    run(follower.hear(vec![(name("n2"), None)])).unwrap();
    assert!(!minded[1..].iter().any(|notice| follower.minds(notice)));
}
