//! An overlay on a kernel in memory: what is attached checks out, every missing way is named and
//! mended, a failure leaves no trace, and the last one to go takes everything along.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use netcore::engine::{Engine, Outcome, RepairOptions};
use netcore::kernel::Memory;
use netcore::model::{Address, Attachment, Mark, Network, Object, Place, Rivals};
use netcore::peers::Snapshots;
use netcore::store::Store;

const PEERS: &str = r#"
node = "a"
[[peer]]
node = "a"
underlay = "192.0.2.11"
subnets = ["10.244.1.0/24"]
[[peer]]
node = "b"
underlay = "192.0.2.12"
subnets = ["10.244.2.0/24"]
"#;

const OTHER_KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

struct Host {
    directory: tempfile::TempDir,
    kernel: Memory,
    engine: Engine<Memory>,
    mesh: Network,
}

/// How nodes are reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tunnel,
    Segment,
    Encrypted,
}

impl By {
    const ALL: [Self; 3] = [Self::Tunnel, Self::Segment, Self::Encrypted];
}

impl Host {
    fn new(by: By) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("mesh.toml"), PEERS).unwrap();
        let kernel = Memory::new();
        kernel.put(Object::Address(Address {
            place: Place::Host,
            link: "eth0".parse().unwrap(),
            address: "192.0.2.11/24".parse().unwrap(),
            dad: false,
            rivals: Rivals::Allow,
        }));
        let engine = Engine::new(kernel.clone(), Store::new(path("records")));
        let engine = engine.with_snapshots(Snapshots::new(path("overlay")));
        let mesh = serde_json::json!({
            "name": "mesh",
            "mode": {
                "type": "overlay", "vni": 42, "cidr": "10.244.0.0/16", "ipMasq": true, "removeEmptyBridge": true,
                "directRouting": by == By::Segment, "dataDir": path("leases"), "source": { "file": path("mesh.toml") },
            },
        });
        let mut mesh = mesh;
        if by == By::Encrypted {
            mesh["mode"]["encryption"] = "wireguard".into();
            let own = engine.node_key(&"mesh".parse().unwrap()).unwrap().public;
            let peers =
                PEERS.replace("[\"10.244.1.0/24\"]\n", &format!("[\"10.244.1.0/24\"]\npublicKey = \"{own}\"\n"));
            std::fs::write(path("mesh.toml"), peers + &format!("publicKey = \"{OTHER_KEY}\"\n")).unwrap();
        }
        Self { directory, kernel, engine, mesh: serde_json::from_value(mesh).unwrap() }
    }

    fn attach(&self, container: &str) -> netcore::Result<netcore::engine::Attached> {
        let netns = self.directory.path().join(container);
        run(self.engine.attach(&self.mesh, Attachment::new(container.parse().unwrap(), Some(netns))))
    }

    /// What is left of the network.
    fn left(&self) -> Vec<String> {
        let of_network = |object: &Object| {
            object.mark().is_some_and(|mark: &Mark| mark.is_of(&self.mesh.name))
                || matches!(object, Object::Route(_) | Object::Neighbour(_) | Object::Fdb(_) | Object::WireguardPeer(_))
        };
        self.kernel.objects().iter().filter(|object| of_network(object)).map(ToString::to_string).collect()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn every_way_is_checked_mended_and_tidied() {
    for by in By::ALL {
        let host = Host::new(by);
        host.attach("one").unwrap();
        let ways = |object: &Object| match object {
            Object::Route(route) => route.place == Place::Host,
            object => matches!(object, Object::Neighbour(_) | Object::Fdb(_) | Object::WireguardPeer(_)),
        };
        let made: Vec<Object> = host.kernel.objects().into_iter().filter(ways).collect();
        assert_eq!(
            made.len(),
            match by {
                By::Tunnel => 3,
                By::Segment => 1,
                By::Encrypted => 2,
            }
        );
        for way in made {
            run(host.engine.check(&host.mesh, "one")).unwrap();
            host.kernel.take(&way);
            let message = run(host.engine.check(&host.mesh, "one")).unwrap_err().to_string();
            assert_eq!(message, format!("{way}: missing"));
            host.attach("two").unwrap();
            run(host.engine.check(&host.mesh, "one")).unwrap();
            run(host.engine.detach(&host.mesh, "two")).unwrap();

            host.kernel.take(&way);
            let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
            let [repaired] = &report.objects[..] else { panic!("{report:?}") };
            assert_eq!(
                (&*repaired.who, &repaired.object, &repaired.outcome),
                ("mesh", &way.to_string(), &Outcome::Restored)
            );
            assert_eq!(report.faults, Vec::<String>::new());
        }
        run(host.engine.detach(&host.mesh, "one")).unwrap();
        run(host.engine.detach(&host.mesh, "one")).unwrap();
        assert_eq!(host.left(), Vec::<String>::new());
    }
}

#[test]
fn a_failure_at_any_change_leaves_no_trace() {
    for by in By::ALL {
        for changes in 0.. {
            let host = Host::new(by);
            host.kernel.fail_after(changes);
            let outcome = host.attach("one");
            if host.kernel.disarm() {
                outcome.unwrap();
                assert!(changes > 8);
                break;
            }
            outcome.unwrap_err();
            assert_eq!(host.left(), Vec::<String>::new(), "after change {changes}");
        }
    }
}
