//! Beside the reference plugins: on the same reservation files, from the same conflist, in one
//! chain.

use netcore_tests::traffic::{serve, who_answers};
use netcore_tests::{Failure, Host, Netns, Network, Outside, Plugin, Publish, binaries, skip};
use serde_json::{Value, json};

const IPAM: &str =
    r#"{ "type": "host-local", "ranges": [[{ "subnet": "10.20.0.0/29" }], [{ "subnet": "fd20::/64" }]] }"#;

fn network() -> Network {
    let ipam: Value = serde_json::from_str(IPAM).unwrap();
    Network::new("web", json!({ "type": "bridge", "bridge": "web", "isGateway": true, "ipam": ipam }))
}

/// The reference `host-local`, called for a container on [`network`].
fn host_local(host: &Host, container: &str) -> Plugin {
    let ipam: Value = serde_json::from_str(IPAM).unwrap();
    let configuration = json!({ "cniVersion": "1.0.0", "name": "web", "type": "bridge", "ipam": ipam });
    host.plugin("host-local")
        .stdin(configuration.to_string())
        .env("CNI_CONTAINERID", container)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", "/proc/self/ns/net")
}

fn addresses(result: &Value) -> Vec<String> {
    let bare = |ip: &Value| Some(ip["address"].as_str()?.split('/').next()?.to_owned());
    result["ips"].as_array().unwrap().iter().filter_map(bare).collect()
}

fn reservations(host: &Host) -> String {
    host.run("cd /var/lib/cni/networks/web; grep -c . 10.* fd20* 2>/dev/null | sort || true")
}

#[test]
fn the_reference_releases_what_we_reserved_and_the_other_way_round() {
    if binaries::reference().is_none() {
        skip!("the reference plugins are not installed");
    }
    let host = Host::new();
    let web = host.cni(network());
    let netns = host.netns("box");
    let ours = web.attachment(&netns).added();
    assert_eq!(addresses(ours.result()), ["10.20.0.2", "fd20::2"]);
    let theirs = host_local(&host, "theirs").run("ADD").unwrap();
    assert_eq!(addresses(&theirs), ["10.20.0.3", "fd20::3"], "the reference goes on where we were");

    let bytes = |address: &str| host.run(&format!("od -An -c /var/lib/cni/networks/web/{address}"));
    assert_eq!(
        bytes("10.20.0.3").replace("t   h   e   i   r   s", "b   o   x").split_whitespace().collect::<Vec<_>>(),
        bytes("10.20.0.2").split_whitespace().collect::<Vec<_>>(),
        "byte by byte the same file"
    );

    host_local(&host, "box").run("CHECK").unwrap();
    host_local(&host, "box").run("DEL").unwrap();
    assert!(!reservations(&host).contains("10.20.0.2"), "the reference released ours");
    let failure = ours.check().expect_err("the reservation is gone");
    assert!(failure.says("10.20.0.2"), "{failure}");
    ours.del().unwrap();

    // Round-robin goes on from the reference's last.
    let next = web.attachment(&netns).added();
    assert_eq!(addresses(next.result()), ["10.20.0.4", "fd20::4"]);
    next.del().unwrap();
    // A container that the reference bridge attached, which we are asked to detach.
    let orphan = host.netns("theirs");
    web.attachment(&orphan).without_result().del().unwrap();
    assert_eq!(reservations(&host), "", "we released the reference's");
}

#[test]
fn both_fill_one_pool_and_neither_gives_an_address_twice() {
    if binaries::reference().is_none() {
        skip!("the reference plugins are not installed");
    }
    let host = Host::new();
    let web = host.cni(network());
    let netns: Vec<Netns> = (0..3).map(|number| host.netns(&format!("c{number}"))).collect();
    let mut given = Vec::new();
    std::thread::scope(|scope| {
        let ours: Vec<_> =
            netns.iter().map(|netns| scope.spawn(|| addresses(web.attachment(netns).added().result()))).collect();
        let theirs: Vec<_> = (0..2)
            .map(|number| {
                let host = &host;
                scope.spawn(move || addresses(&host_local(host, &format!("t{number}")).run("ADD").unwrap()))
            })
            .collect();
        given.extend(ours.into_iter().chain(theirs).flat_map(|thread| thread.join().unwrap()));
    });
    given.sort();
    let count = given.len();
    given.dedup();
    assert_eq!((given.len(), count), (10, 10), "{given:?}");
    // .1 is the gateway, .7 broadcast; five of five are taken.
    let full = host.netns("full");
    web.attachment(&full).add().expect_err("the pool is full");
    host_local(&host, "full").run("ADD").expect_err("the pool is full");
}

/// The conflist that kubeadm clusters and nerdctl hosts have on disk.
const ON_DISK: &str = r#"{
  "cniVersion": "0.4.0", "name": "containerd-net",
  "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
      "ipam": { "type": "host-local",
        "ranges": [[{ "subnet": "10.88.0.0/16" }], [{ "subnet": "2001:db8:4860::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}"#;

#[test]
fn the_conflist_on_disk_runs_unchanged_with_the_reference_portmap_behind_us() {
    if binaries::reference().is_none() {
        skip!("the reference plugins are not installed");
    }
    let host = Host::new();
    let outside = host.outside();
    let network = host.cni(Network::from_conflist(ON_DISK));
    let netns = host.netns("box");
    let attachment = network.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
    let _server = serve(&netns, "box", 80);
    let _world = serve(&*outside, "world", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "box", "portmap published it");
    assert_eq!(who_answers(&netns, Outside::V4, 80), "world");
    let check = attachment.check();
    // The reference portmap looks for IPv6 rules it never made when the host has no IPv6 iptables.
    assert!(check.is_ok() || check.as_ref().is_err_and(|failure| failure.says("ipv6 dnat")), "{check:?}");
    let leases = host.run("ls /var/lib/cni/networks/containerd-net");
    assert!(leases.contains("10.88.0.2") && leases.contains("2001:db8:4860::2"), "{leases}");
    attachment.del().unwrap();
    assert!(!host.snapshot().mentions("10.88.0.2"), "{}", host.snapshot());
}

#[test]
fn an_unknown_ipam_is_executed() {
    let Some(reference) = binaries::reference() else {
        skip!("the reference plugins are not installed");
    };
    // The reference host-local under a name that is not built in.
    let host = Host::new();
    let delegate = json!({
        "type": "bridge", "bridge": "web", "isGateway": true,
        "ipam": { "type": "delegate", "subnet": "10.20.0.0/24", "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    let web = host.cni(Network::new("web", delegate));
    host.run(&format!("cp {}/host-local /run/cni/bin/delegate", reference.display()));
    let netns = host.netns("box");
    let attachment = web.attachment(&netns).added();
    assert_eq!(attachment.address().to_string(), "10.20.0.2");
    attachment.check().unwrap();
    host.run("rm /var/lib/cni/networks/web/10.20.0.2");
    let failure: Failure = attachment.check().expect_err("the delegate misses its reservation");
    assert!(failure.says("delegate") || failure.says("host-local") || failure.says("box"), "{failure}");
    attachment.del().unwrap();
    assert!(!host.snapshot().mentions("veth"), "{}", host.snapshot());

    host.run("rm /run/cni/bin/delegate");
    let failure = web.attachment(&netns).add().expect_err("there is no such plugin");
    assert!(failure.says("delegate"), "{failure}");
    assert!(!host.snapshot().mentions("veth"), "{}", host.snapshot());
}

#[test]
fn a_failing_add_gives_the_delegates_address_back() {
    let Some(reference) = binaries::reference() else {
        skip!("the reference plugins are not installed");
    };
    let host = Host::new();
    let delegate = json!({
        "type": "bridge", "bridge": "web", "isGateway": true,
        "ipam": { "type": "delegate", "subnet": "10.20.0.0/24" },
    });
    let web = host.cni(Network::new("web", delegate));
    host.run(&format!("cp {}/host-local /run/cni/bin/delegate", reference.display()));
    // Something that is not a bridge has the bridge's name.
    host.run("ip link add web type veth peer name other");
    let failure = web.attachment(&host.netns("box")).add().expect_err("web is no bridge");
    assert!(failure.says("web"), "{failure}");
    assert_eq!(host.run("ls /var/lib/cni/networks/web 2>/dev/null | grep ^10 || true"), "");
}

#[test]
fn a_container_of_the_reference_bridge_is_detached_by_ours() {
    let Some(reference) = binaries::reference() else {
        skip!("the reference plugins are not installed");
    };
    let host = Host::new();
    let web = host.cni(network());
    let netns = host.netns("box");
    let attachment = web.attachment(&netns);
    let ours = attachment.first_plugin();
    let before = host.snapshot();
    // The day of the upgrade: what is running was attached by the old binary.
    host.run(&format!("cp {}/bridge /run/cni/bin/old-bridge", reference.display()));
    let old = host.plugin("bridge").stdin(ours.configuration()).program("/run/cni/bin/old-bridge");
    let old = old.env("CNI_CONTAINERID", "box").env("CNI_IFNAME", "eth0").env("CNI_NETNS", netns.path());
    let result = old.run("ADD").unwrap();
    assert_eq!(addresses(&result), ["10.20.0.2", "fd20::2"]);
    attachment.del().unwrap();
    // The link was never ours and goes with its namespace, as does the runtime's; the addresses
    // are free at once.
    assert_eq!(reservations(&host), "");
    netns.remove_with_links();
    let after = host.snapshot();
    assert_eq!(after.count("file /var/lib/cni") + after.count("file /run/netcore"), 0, "{after}");
    assert_eq!(after.count("nft"), before.count("nft"), "{after}");
}
