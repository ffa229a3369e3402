//! Shared namespaces, on a kernel in memory and real files: nothing is left wherever it was
//! killed, owners and guests know of one another, and whose ports are taken is said.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use netcore::engine::Engine;
use netcore::kernel::{Kernel, Memory};
use netcore::model::{
    Attachment, ContainerConfig, Dns, HostConfig, Listener, Mode, Name, Network, NoneConfig, Object, Process, Protocol,
    Target,
};
use netcore::store::Store;

struct Host {
    directory: tempfile::TempDir,
    kernel: Memory,
    engine: Engine<Memory>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Memory::new();
        let engine = Engine::new(kernel.clone(), Store::new(directory.path().join("records")));
        Self { directory, kernel, engine }
    }

    fn bindings(&self) -> usize {
        self.kernel.objects().iter().filter(|object| matches!(object, Object::Binding(_))).count()
    }

    fn records(&self) -> usize {
        let records = self.directory.path().join("records");
        std::fs::read_dir(records).map_or(0, Iterator::count)
    }
}

fn network(name: &str, mode: impl Into<Mode>) -> Network {
    Network { name: Name::new(name).unwrap(), mode: mode.into(), ipam: None, dns: Dns::default() }
}

fn shared_with(container: &str) -> Network {
    network("shared", ContainerConfig { container: Some(container.parse().unwrap()) })
}

fn wish(container: &str) -> Attachment {
    Attachment::new(container.parse().unwrap(), Some(format!("/run/netns/{container}").into()))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn killed_before_or_after_the_binding_the_next_detach_or_collection_heals() {
    let own = network("own", HostConfig {});
    for collected in [false, true] {
        for changes in 0.. {
            let host = Host::new();
            host.kernel.kill_after(changes);
            let attach = || run(host.engine.attach(&own, wish("box")));
            let survived = catch_unwind(AssertUnwindSafe(attach)).is_ok();
            host.kernel.disarm();
            if collected {
                run(host.engine.gc(&own, &[])).unwrap();
            } else {
                run(host.engine.detach(&own, "box")).unwrap();
            }
            assert_eq!((host.bindings(), host.records()), (0, 0), "killed at change {changes}");
            if survived {
                assert!(changes > 0, "a binding is a change");
                break;
            }
        }
    }
}

#[test]
fn a_failure_leaves_no_trace() {
    let host = Host::new();
    host.kernel.fail_after(0);
    run(host.engine.attach(&network("own", HostConfig {}), wish("box"))).unwrap_err();
    assert_eq!((host.bindings(), host.records()), (0, 0));
}

#[test]
fn owners_and_guests_know_of_one_another() {
    let host = Host::new();
    let quiet = network("quiet", NoneConfig {});
    let web = Name::new("web-1").unwrap();
    run(async {
        host.engine.attach(&quiet, wish("web-1")).await.unwrap();
        assert_eq!(host.engine.guests(&web).unwrap(), []);
        // One by name, one by path: whose it is, is found out.
        host.engine.attach(&shared_with("web-1"), wish("one")).await.unwrap();
        let by_path = wish("two").join(Target::Path("/run/netns/web-1".into()));
        host.engine.attach(&shared_with("other"), by_path).await.unwrap();
        let guests = || {
            let guests = host.engine.guests(&web).unwrap();
            let mut names: Vec<_> = guests.iter().map(|guest| guest.attachment.id.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(guests(), ["one/eth0", "two/eth0"]);

        // The owner may go, with its namespace; its guests are still known to have been its.
        host.engine.detach(&quiet, "web-1").await.unwrap();
        host.kernel.remove_file(Path::new("/run/netns/web-1"));
        assert_eq!(guests(), ["one/eth0", "two/eth0"]);
        host.engine.check(&shared_with("web-1"), "one").await.unwrap();
        for guest in ["one", "two"] {
            host.engine.detach(&shared_with("web-1"), guest).await.unwrap();
        }
        assert_eq!(guests(), Vec::<String>::new());
    });
    assert_eq!((host.bindings(), host.records()), (0, 0));
}

#[test]
fn loops_and_chains_are_refused_in_either_order() {
    let host = Host::new();
    let quiet = network("quiet", NoneConfig {});
    run(async {
        for container in ["a", "b", "c"] {
            host.engine.attach(&quiet, wish(container)).await.unwrap();
        }
        host.engine.attach(&shared_with("a"), wish("b")).await.unwrap();
        let (objects, records) = (host.kernel.objects(), host.records());
        let cases = [
            ("a", "b", "container a: b shares the namespace it would leave", "detach b/eth0 first"),
            ("c", "b", "container b: it shares the namespace of a (net:[", "share that of a itself"),
            ("a", "c", "container a: b shares the namespace it would leave", "detach b/eth0 first"),
            ("c", "c", "container: c is not another container", "the one that is being attached"),
        ];
        for (guest, owner, found, way_out) in cases {
            let error = host.engine.attach(&shared_with(owner), wish(guest)).await.unwrap_err().to_string();
            assert!(error.contains(found) && error.contains(way_out), "{guest} with {owner}: {error}");
            assert_eq!((host.kernel.objects(), host.records()), (objects.clone(), records), "{error}");
        }
    });
}

#[test]
fn a_taken_port_names_who_has_it() {
    let host = Host::new();
    let process = Some(Process { pid: 4711, name: "nginx".to_owned() });
    host.kernel.listen(Listener { address: "0.0.0.0:8080".parse().unwrap(), protocol: Protocol::Tcp, process });
    let own = network("own", HostConfig {});
    run(async {
        let error = host.engine.attach(&own, wish("box").publish(8080, 80)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "host port 8080/tcp is in use: nginx (pid 4711) listens on 0.0.0.0:8080: stop it, or use another port"
        );
        assert_eq!((host.bindings(), host.records()), (0, 0));
        host.engine.attach(&own, wish("box").publish(8081, 8080)).await.unwrap();
        assert!(host.engine.is_on_host(&Name::new("box").unwrap()).unwrap());
    });
}

/// What is told is what is there: nothing but what the owner has.
#[test]
fn the_owners_interfaces_are_the_result() {
    let host = Host::new();
    let web = netcore::bridge::Network::new("web").unwrap().subnet("10.20.0.0/24").unwrap().configure_ipam(|ipam| {
        if let netcore::model::IpamConfig::HostLocal(host_local) = ipam {
            host_local.data_dir = Some(host.directory.path().join("leases"));
        }
    });
    run(async {
        host.engine.attach(&web, wish("web-1")).await.unwrap();
        let guest = host.engine.attach(&shared_with("web-1"), wish("guest")).await.unwrap();
        assert_eq!(guest.to_string(), "eth0 10.20.0.2/24");
        assert_eq!(guest.interfaces[0].sandbox.as_deref(), Some(Path::new("/run/netns/guest")));
        let on_host = host.engine.attach(&network("own", HostConfig {}), wish("box")).await.unwrap();
        assert_eq!(on_host.to_string(), "br-web 10.20.0.1/24");
        // Who enters the guest is where the owner is.
        let inside = host.kernel.enter(Some(Path::new("/run/netns/guest"))).await.unwrap();
        assert_eq!(
            inside.identify(Some(Path::new("/run/netns/web-1"))).unwrap(),
            inside.identify(Some(Path::new("/run/netns/guest"))).unwrap()
        );
    });
}
