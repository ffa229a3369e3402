//! containerd over CRI: what a kubelet does to a plugin in a pod's life.

use netcore_tests::containerd::{Containerd, Pod};
use netcore_tests::traffic::{nobody_answers, serve, who_answers};
use netcore_tests::{Host, Network, Outside, skip};
use serde_json::json;

/// Nothing of any pod is left.
#[track_caller]
fn nothing_left(host: &Host) {
    let now = host.snapshot();
    for trace in ["link veth", "file /run/netns/cni-", "file /run/netcore", "file /var/lib/cni"] {
        assert_eq!(now.count(trace), 0, "{trace} is left: {now}");
    }
    for trace in ["10.20.0.2", "10.20.0.3", "fd20::2"] {
        assert!(!now.mentions(trace), "{trace} is left: {now}");
    }
}

#[test]
fn run_stop_and_remove_pods() {
    if let Some(reason) = Containerd::missing() {
        skip!("{reason}");
    }
    let host = Host::with_processes();
    let outside = host.outside();
    let network = Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]);
    let containerd = Containerd::on(&host, &network);

    let one = containerd.run(&Pod::new("one").host_port(8080, 80)).unwrap_or_else(|status| panic!("{status}"));
    let two = containerd.run(&Pod::new("two")).unwrap_or_else(|status| panic!("{status}"));
    let (addresses, netns) = containerd.inspect(&one);
    let (_, neighbour) = containerd.inspect(&two);
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(netns.run("ip -br addr show lo").contains("127.0.0.1"), "loopback brought lo up");
    let server = serve(&netns, "one", 80);
    let world = serve(&*outside, "world", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    assert_eq!(who_answers(&*outside, Outside::HOST_V6, 8080), "one");
    assert_eq!(who_answers(&host, [127, 0, 0, 1], 8080), "one");
    assert_eq!(who_answers(&netns, Outside::HOST_V4, 8080), "one");
    for address in addresses {
        assert_eq!(who_answers(&neighbour, address, 80), "one");
    }
    assert_eq!(who_answers(&neighbour, Outside::V4, 80), "world");

    // 8080 is taken; the pod does not start, and leaves nothing.
    let before = host.snapshot();
    let refused = containerd.run(&Pod::new("three").host_port(8080, 80)).expect_err("the host port is taken");
    assert!(refused.message.contains("8080"), "{refused}");
    before.assert_same(&host.snapshot(), "after a pod that could not start");

    // Stop sends DEL with the namespace, remove sends another without.
    drop((server, world, netns, neighbour));
    containerd.stop(&one).unwrap_or_else(|status| panic!("{status}"));
    nobody_answers(&*outside, Outside::HOST_V4, 8080);
    containerd.remove(&one).unwrap_or_else(|status| panic!("{status}"));
    containerd.stop(&two).unwrap_or_else(|status| panic!("{status}"));
    containerd.stop(&two).unwrap_or_else(|status| panic!("a second time: {status}"));
    containerd.remove(&two).unwrap_or_else(|status| panic!("{status}"));
    nothing_left(&host);
}

#[test]
fn pods_come_and_go_together() {
    if let Some(reason) = Containerd::missing() {
        skip!("{reason}");
    }
    let host = Host::with_processes();
    let containerd = Containerd::on(&host, &Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]));
    let pods: Vec<String> = (0..4)
        .map(|number| containerd.run(&Pod::new(&format!("pod{number}")).host_port(8000 + number, 80)))
        .map(|pod| pod.unwrap_or_else(|status| panic!("{status}")))
        .collect();
    // A namespace that is lost, as after a crash, before the pod is stopped.
    let (_, netns) = containerd.inspect(&pods[0]);
    let path = netns.path().to_owned();
    drop(netns);
    host.run(&format!("umount {path}; rm {path}"));
    for pod in &pods {
        containerd.stop(pod).unwrap_or_else(|status| panic!("{status}"));
        containerd.remove(pod).unwrap_or_else(|status| panic!("{status}"));
    }
    nothing_left(&host);
}

/// A pod in the host's namespace, and one in another pod's: run, stopped and removed.
#[test]
fn pods_that_share_a_namespace() {
    if let Some(reason) = Containerd::missing() {
        skip!("{reason}");
    }
    let host = Host::with_processes();
    let outside = host.outside();
    let web = Network::bridge("web", &["10.20.0.0/24"]);
    let own = Network::new("own", json!({ "type": "host", "capabilities": { "portMappings": true } }));
    let containerd = Containerd::on(&host, &own);
    let before = host.snapshot();

    let front = containerd.run(&Pod::new("front")).unwrap_or_else(|status| panic!("{status}"));
    let (addresses, netns) = containerd.inspect(&front);
    assert_eq!(addresses.first(), Some(&Outside::HOST_V4), "{addresses:?}");
    let path = netns.path().to_owned();
    let pid = host.run("pgrep -x sleep | head -n 1");
    let of = |path: &str| host.run(&format!("stat -L -c %i {path}"));
    assert_eq!(
        of(&format!("/proc/{}/ns/net", pid.trim())),
        of("/proc/self/ns/net"),
        "the pod's process is on the host"
    );
    let server = serve(&netns, "front", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 80), "front");
    let taken = containerd.run(&Pod::new("late").host_port(80, 80)).expect_err("somebody listens on port 80");
    assert!(taken.message.contains("80/tcp"), "{taken}");
    drop((server, netns));
    containerd.stop(&front).unwrap_or_else(|status| panic!("{status}"));
    assert!(!host.snapshot().mentions(&path), "{path} is left: {}", host.snapshot());
    containerd.remove(&front).unwrap_or_else(|status| panic!("{status}"));
    before.assert_same(&host.snapshot(), "after a pod on the host");

    containerd.change_network(&web);
    let owner = containerd.run(&Pod::new("owner")).unwrap_or_else(|status| panic!("{status}"));
    let (addresses, owners) = containerd.inspect(&owner);
    let alone = host.snapshot();
    containerd.change_network(&Network::new("shared", json!({ "type": "container", "container": owner })));
    let guest = containerd.run(&Pod::new("guest")).unwrap_or_else(|status| panic!("{status}"));
    let (told, guests) = containerd.inspect(&guest);
    assert_eq!(told, addresses);
    let server = serve(&guests, "guest", 80);
    assert_eq!(who_answers(&owners, [127, 0, 0, 1], 80), "guest");
    assert_eq!(who_answers(&host, addresses[0], 80), "guest");
    drop((server, guests));
    containerd.stop(&guest).unwrap_or_else(|status| panic!("{status}"));
    containerd.remove(&guest).unwrap_or_else(|status| panic!("{status}"));
    alone.assert_same(&host.snapshot(), "after the guest");
    let server = serve(&owners, "owner", 80);
    assert_eq!(who_answers(&host, addresses[0], 80), "owner");
    drop((server, owners));
    containerd.change_network(&web);
    containerd.stop(&owner).unwrap_or_else(|status| panic!("{status}"));
    containerd.remove(&owner).unwrap_or_else(|status| panic!("{status}"));
    nothing_left(&host);
    assert_eq!(host.snapshot().count("mount /run/netns/cni-"), 0, "{}", host.snapshot());
}
