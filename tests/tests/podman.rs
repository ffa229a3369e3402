//! podman with its CNI backend: what it does to a plugin in a container's life.

use netcore_tests::podman::Podman;
use netcore_tests::traffic::{nobody_answers, serve, who_answers};
use netcore_tests::{Host, Network, Outside, Snapshot, skip};
use serde_json::json;

/// As podman's own `network create` writes them, but that we publish ourselves.
fn network(name: &str, subnet: &str) -> Network {
    Network::bridge(name, &[subnet]).version("0.4.0")
}

/// A host with the outside, podman and the networks `web` and `db`.
fn machine() -> (Host, Outside, Podman) {
    let host = Host::with_processes();
    let outside = host.outside();
    let podman = Podman::on(&host, &[network("web", "10.20.0.0/24"), network("db", "10.30.0.0/24")]);
    (host, outside, podman)
}

fn run(podman: &Podman, name: &str, options: &str) {
    podman.run(&format!("run -d --name {name} {options} localhost/bb:1 /bin/sleep 1000000"));
}

/// Nothing of any container is left.
#[track_caller]
fn nothing_left(host: &Host) {
    let now: Snapshot = host.snapshot();
    for trace in ["link veth", "file /run/netns/netns-", "file /run/netcore", "file /var/lib/cni/networks"] {
        assert_eq!(now.count(trace), 0, "{trace} is left: {now}");
    }
    for trace in ["10.20.0.2", "10.20.0.3", "10.30.0.2", "eth0"] {
        assert!(!now.mentions(trace), "{trace} is left: {now}");
    }
}

#[test]
fn run_publish_and_remove() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let (host, outside, podman) = machine();
    run(&podman, "one", "--network web -p 8080:80 -p 127.0.0.1:8081:80 -p 9000-9002:80-82/udp");
    run(&podman, "two", "--network web");
    let (one, two) = (podman.netns("one"), podman.netns("two"));
    let _servers = (serve(&one, "one", 80), serve(&two, "two", 80));
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    assert_eq!(who_answers(&host, [127, 0, 0, 1], 8080), "one");
    assert_eq!(who_answers(&host, [127, 0, 0, 1], 8081), "one");
    nobody_answers(&*outside, Outside::HOST_V4, 8081);
    assert_eq!(who_answers(&one, podman.address("two", "web"), 80), "two");
    assert_eq!(who_answers(&two, Outside::HOST_V4, 8080), "one");
    assert_eq!(who_answers(&one, Outside::HOST_V4, 8080), "one");

    let taken = podman.try_run("run -d --name three --network web -p 8080:80 localhost/bb:1 /bin/sleep 1000000");
    assert!(!taken.status.success(), "8080 is taken");
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(said.contains("8080"), "{said}");
    podman.run("rm -f -t 0 three");

    drop((_servers, one, two));
    podman.run("stop -t 0 one");
    nobody_answers(&*outside, Outside::HOST_V4, 8080);
    podman.run("start one");
    let _server = serve(&podman.netns("one"), "one", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    drop(_server);
    podman.run("rm -f -t 0 one two");
    nothing_left(&host);
}

#[test]
fn connect_disconnect_and_reload() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let (host, outside, podman) = machine();
    run(&podman, "one", "--network web -p 8080:80");
    run(&podman, "two", "--network db");
    podman.run("network connect db one");
    let (one, two) = (podman.netns("one"), podman.netns("two"));
    let servers = (serve(&one, "one", 80), serve(&two, "two", 80));
    assert_eq!(who_answers(&one, podman.address("two", "db"), 80), "two");
    podman.run("network disconnect db one");
    assert_eq!(one.run("ip -br link show type veth").lines().count(), 1);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");

    // Reload is DEL, then ADD with the same address and MAC asked for. Somebody has flushed
    // the rules meanwhile, which is what it is for.
    let address = podman.address("one", "web");
    let mac = one.run("ip -br link show eth0");
    host.run("nft flush ruleset");
    podman.run("network reload one");
    assert_eq!(podman.address("one", "web"), address);
    let now = one.run("ip -br link show eth0");
    assert_eq!(mac.split_whitespace().nth(2), now.split_whitespace().nth(2), "the MAC stays");
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    drop((servers, one, two));
    podman.run("rm -f -t 0 one two");
    nothing_left(&host);
}

/// podman hands a container's ports to each of its networks.
#[test]
fn a_published_port_on_two_networks() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let (host, outside, podman) = machine();
    run(&podman, "one", "--network web,db -p 8080:80");
    let one = podman.netns("one");
    let server = serve(&one, "one", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    podman.run("network disconnect web one");
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one", "by the network that is left");
    drop((server, one));
    podman.run("rm -f -t 0 one");
    nothing_left(&host);
}

/// The chain that podman itself writes, with the reference plugins behind our bridge.
#[test]
fn the_chain_that_podman_writes() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let host = Host::with_processes();
    let outside = host.outside();
    let bridge = json!({
        "type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": { "type": "host-local", "routes": [{ "dst": "0.0.0.0/0" }],
                  "ranges": [[{ "subnet": "10.88.0.0/16", "gateway": "10.88.0.1" }]] },
    });
    let chain = Network::new("podman", bridge)
        .version("0.4.0")
        .then(json!({ "type": "portmap", "capabilities": { "portMappings": true } }))
        .then(json!({ "type": "firewall", "backend": "" }))
        .then(json!({ "type": "tuning" }));
    let podman = Podman::on(&host, &[chain]);
    run(&podman, "one", "-p 8080:80");
    let one = podman.netns("one");
    let server = serve(&one, "one", 80);
    let _world = serve(&*outside, "world", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    assert_eq!(who_answers(&one, Outside::V4, 80), "world");
    drop((server, one));
    podman.run("rm -f -t 0 one");
    let now = host.snapshot();
    assert_eq!(
        now.count("link veth") + now.count("file /run/netcore") + now.count("file /var/lib/cni/networks"),
        0,
        "{now}"
    );
}

/// Containers on `host` and `container` networks: real processes in somebody else's namespace.
#[test]
fn containers_that_share_a_namespace() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let (host, outside, podman) = machine();
    let capabilities = json!({ "portMappings": true, "ips": true });
    podman.add_network("own", &Network::new("own", json!({ "type": "host", "capabilities": capabilities })));
    let serve = "sh -c 'echo $0 > /tmp/index.html; exec busybox httpd -f -p $1 -h /tmp'";
    let run = |name: &str, network: &str, port: u16| {
        podman.try_run(&format!("run -d --name {name} --network {network} localhost/bb:1 {serve} {name} {port}"))
    };
    let started = |name: &str, network: &str, port: u16| {
        let output = run(name, network, port);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let page = |command: &str| {
        let mut text = String::new();
        netcore_tests::wait_for(command, std::time::Duration::from_secs(10), || {
            let output = podman.try_run(command);
            text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success()
        });
        text
    };
    started("front", "own", 8000);
    netcore_tests::wait_for("front serves", std::time::Duration::from_secs(10), || {
        outside.try_run("busybox wget -qO- http://198.51.100.1:8000/index.html").stdout == b"front\n"
    });
    let taken = podman.try_run("run -d --name late --network own -p 8000:80 localhost/bb:1 /bin/sleep 1000");
    let said = String::from_utf8_lossy(&taken.stderr);
    assert!(!taken.status.success() && said.contains("8000/tcp") && said.contains("busybox (pid"), "{said}");
    podman.run("rm -f -t 0 late");

    let owner = started("owner", "web", 80);
    podman.add_network("shared", &Network::new("shared", json!({ "type": "container", "container": owner })));
    started("guest", "shared", 8001);
    assert_eq!(page("exec owner busybox wget -qO- http://127.0.0.1:8001/index.html"), "guest");
    assert_eq!(page("exec guest busybox wget -qO- http://127.0.0.1:80/index.html"), "owner");
    assert_eq!(podman.address("guest", "shared"), podman.address("owner", "web"));
    let second = podman.try_run("exec guest busybox httpd -f -p 80 -h /tmp");
    assert!(String::from_utf8_lossy(&second.stderr).contains("Address already in use"), "one port space");

    podman.run("stop -t 0 guest");
    assert_eq!(page("exec owner busybox wget -qO- http://127.0.0.1:80/index.html"), "owner");
    podman.run("start guest");
    assert_eq!(page("exec owner busybox wget -qO- http://127.0.0.1:8001/index.html"), "guest");
    podman.run("rm -f -t 0 guest");
    podman.run("rm -f -t 0 owner");
    podman.run("rm -f -t 0 front");
    nothing_left(&host);
    assert_eq!(host.snapshot().count("mount /run/netns/netns-"), 0, "{}", host.snapshot());
}
