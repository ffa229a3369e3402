//! What macvlan networks share, on a kernel in memory and real records: a VLAN that several
//! networks use is made by the first, goes with the last, and is nobody's to take before that.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::path::Path;

use netcore::Result;
use netcore::engine::Engine;
use netcore::kernel::{Kernel, Memory};
use netcore::model::{
    Attachment, InterfaceName, Link, LinkKind, MacvlanConfig, Mode, Network, Object, Place, State, Veth,
};
use netcore::store::Store;

struct Host {
    _directory: tempfile::TempDir,
    kernel: Memory,
    engine: Engine<Memory>,
}

impl Host {
    /// A host with a link `eth0`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Memory::new();
        kernel.put(Object::Link(Link {
            place: Place::Host,
            name: InterfaceName::new("eth0").unwrap(),
            kind: LinkKind::Veth(Veth {
                peer: InterfaceName::new("port1").unwrap(),
                peer_mac: None,
                peer_mtu: None,
                peer_up: true,
                peer_skips_dad: false,
            }),
            mark: None,
            mac: None,
            mtu: Some(1500),
            up: true,
            port: None,
        }));
        let engine = Engine::new(kernel.clone(), Store::new(directory.path().join("records")));
        Self { _directory: directory, kernel, engine }
    }

    async fn attach(&self, network: &Network, container: &str) -> Result<()> {
        let netns = format!("/run/netns/{container}");
        let attachment = Attachment::new(container.parse().unwrap(), Some(netns.into()));
        self.engine.attach(network, attachment).await.map(drop)
    }

    async fn detach(&self, network: &Network, container: &str) {
        self.engine.detach(network, container).await.unwrap();
    }

    /// The links there are beside `eth0`, as messages name them.
    fn links(&self) -> Vec<String> {
        let objects = self.kernel.objects();
        let links = objects.iter().filter(|object| matches!(object, Object::Link(_)));
        links.map(ToString::to_string).filter(|link| !link.starts_with("link eth0 ↔")).collect()
    }
}

fn network(name: &str, master: &str) -> Network {
    let config = MacvlanConfig { master: Some(InterfaceName::new(master).unwrap()), ..MacvlanConfig::default() };
    Network { name: name.parse().unwrap(), mode: Mode::Macvlan(config), ipam: None, dns: Default::default() }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(story)
}

const VLAN: &str = "VLAN 10 of eth0 as eth0.10";

#[test]
fn two_networks_share_a_vlan_until_the_last_has_left() {
    run(async {
        let host = Host::new();
        let (one, two) = (network("one", "eth0.10"), network("two", "eth0.10"));
        host.attach(&one, "a").await.unwrap();
        host.attach(&two, "b").await.unwrap();
        host.attach(&two, "c").await.unwrap();
        assert_eq!(host.links().iter().filter(|link| *link == VLAN).count(), 1);
        host.engine.check(&two, "b").await.unwrap();
        host.detach(&one, "a").await;
        host.detach(&two, "c").await;
        assert_eq!(host.links(), [VLAN, "link eth0 (container) on eth0.10"]);
        host.detach(&two, "b").await;
        assert_eq!(host.links(), [""; 0]);
    });
}

#[test]
fn a_vlan_of_somebody_else_is_used_and_stays() {
    run(async {
        let host = Host::new();
        let lan = network("lan", "eth0.10");
        host.attach(&lan, "a").await.unwrap();
        let State(seen) = host.kernel.observe(&host.kernel.objects()).await.unwrap();
        let ours = seen.into_iter().find(|object| object.to_string() == VLAN).unwrap();
        host.kernel.take(&ours);
        let Object::Link(link) = ours else { unreachable!() };
        host.kernel.put(Object::Link(Link { mark: None, ..link }));
        host.engine.check(&lan, "a").await.unwrap();
        host.detach(&lan, "a").await;
        assert_eq!(host.links(), [VLAN]);
    });
}

#[test]
fn an_attach_that_fails_or_is_killed_anywhere_leaves_nothing_after_detach() {
    run(async {
        for changes in 0..8 {
            let host = Host::new();
            let lan = network("lan", "eth0.10");
            host.kernel.fail_after(changes);
            let failed = host.attach(&lan, "a").await.is_err();
            assert!(failed || host.kernel.disarm(), "the trap springs, or there is nothing more to do");
            assert!(!failed || host.links().is_empty(), "after {changes} changes: {:?}", host.links());
            host.detach(&lan, "a").await;
            assert_eq!(host.links(), [""; 0], "after {changes} changes");
        }
    });
}

#[test]
fn without_a_record_the_mark_in_the_container_is_enough() {
    run(async {
        let host = Host::new();
        let lan = network("lan", "eth0");
        host.attach(&lan, "a").await.unwrap();
        let forgetful = tempfile::tempdir().unwrap();
        let engine = Engine::new(host.kernel.clone(), Store::new(forgetful.path()));
        engine.detach_from(&lan, "a", Some(Path::new("/run/netns/a"))).await.unwrap();
        assert_eq!(host.links(), [""; 0]);
    });
}
