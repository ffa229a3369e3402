//! VLANs on one bridge, by packets: who hears whom, the gateway in each, and what is left.

use std::net::{IpAddr, Ipv4Addr};

use netcore_tests::frames::{Wire, ethernet, tagged};
use netcore_tests::traffic::{fetch, ping, serve, who_answers};
use netcore_tests::{Attachment, Host, Netns, Network, Outside, Publish, skip};
use serde_json::{Value, json};

/// Why VLANs cannot be had here; the kernel of `make test-kernel` has them.
fn missing() -> Option<String> {
    let host = Host::new();
    // A kernel without takes `vlan_filtering 1` all the same, and ignores it.
    let try_all = "ip link add probe type bridge vlan_filtering 1
        bridge vlan add dev probe vid 10 self
        ip link add link probe name probe.10 type vlan id 10";
    let probed = host.try_run(try_all);
    if probed.status.success() {
        return None;
    }
    assert!(std::env::var_os("NETCORE_TEST_KERNEL").is_none(), "this kernel should have VLANs: {probed:?}");
    Some("needs VLAN filtering on bridges and 8021q: not in this kernel, runs under make test-kernel".to_owned())
}

/// The network in one VLAN of the bridge `br0`.
fn in_vlan(name: &str, id: u16, subnets: &[&str]) -> Network {
    Network::bridge(name, subnets).with("bridge", json!("br0")).with("vlan", json!(id))
}

fn ten() -> Network {
    in_vlan("ten", 10, &["10.10.0.0/24", "fd10::/64"])
}

fn twenty() -> Network {
    in_vlan("twenty", 20, &["10.20.0.0/24", "fd20::/64"])
}

fn trunk(vlans: Value) -> Network {
    Network::new("trunk", json!({ "type": "bridge", "bridge": "br0", "vlanTrunk": vlans }))
}

fn join(host: &Host, network: Network, name: &str) -> (Netns, Attachment) {
    let netns = host.netns(name);
    let attachment = host.cni(network).attachment(&netns).added();
    (netns, attachment)
}

/// A broadcast that says who sent it.
fn shout(number: u8) -> Vec<u8> {
    ethernet([2, 0, 0, 0, 0, number], 0x88b5, &[number; 50])
}

#[test]
fn vlans_do_not_hear_each_other_and_a_trunk_carries_both() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let ((a, _a), (b, in_ten)) = (join(&host, ten(), "a"), join(&host, ten(), "b"));
    let ((c, in_twenty), (d, _d)) = (join(&host, twenty(), "c"), join(&host, twenty(), "d"));
    let (t, _t) = join(&host, trunk(json!([{ "id": 10 }, { "minID": 20, "maxID": 29 }])), "t");
    let wire = |netns: &Netns| Wire::open(netns, "eth0");
    let (at_a, at_b, at_c, at_d) = (wire(&a), wire(&b), wire(&c), wire(&d));

    at_a.send(&shout(1));
    at_b.heard_before(&shout(1), &[]);
    at_d.send(&shout(2));
    assert!(at_c.heard_before(&shout(2), &[shout(1)]).is_empty(), "VLAN 20 hears VLAN 10");
    at_a.send(&shout(3));
    assert!(at_b.heard_before(&shout(3), &[shout(2)]).is_empty(), "VLAN 10 hears VLAN 20");
    for address in in_ten.addresses() {
        ping(&a, address);
    }
    // Not even where the addresses would fit.
    a.run("ip addr add 192.0.2.1/24 dev eth0");
    c.run("ip addr add 192.0.2.2/24 dev eth0");
    assert!(!a.try_run("ping -c1 -W1 192.0.2.2").status.success());

    t.run(
        "ip link add link eth0 name eth0.10 type vlan id 10; ip link set eth0.10 up
         ip link add link eth0 name eth0.20 type vlan id 20; ip link set eth0.20 up
         ip addr add 10.10.0.200/24 dev eth0.10; ip addr add 10.20.0.200/24 dev eth0.20",
    );
    ping(&t, in_ten.address());
    ping(&t, in_twenty.address());
    // What it is not a member of does not get in.
    let at_t = wire(&t);
    at_t.send(&tagged(&shout(4), 30));
    at_t.send(&tagged(&shout(5), 10));
    assert!(at_b.heard_before(&shout(5), &[shout(4)]).is_empty());
    at_d.send(&shout(6));
    assert!(at_c.heard_before(&shout(6), &[shout(4), shout(5)]).is_empty());
}

#[test]
fn the_gateway_is_in_the_vlan() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let outside = host.outside();
    let cni = host.cni(ten().with("macspoofchk", json!(true)).with("ipspoofchk", json!(true)));
    let netns = host.netns("a");
    let attachment = cni.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
    let (_c, _in_twenty) = join(&host, twenty(), "c");
    let _servers = (serve(&netns, "a", 80), serve(&*outside, "world", 80));
    ping(&netns, Ipv4Addr::new(10, 10, 0, 1));
    ping(&host, attachment.address());
    let gateways = host.run("ip -br addr show dev br0.10");
    assert!(gateways.contains("10.10.0.1/24") && gateways.contains("fd10::1/64"), "{gateways}");
    assert!(!host.run("ip -br addr show dev br0").contains("10.10.0.1"), "the bridge itself is not the gateway");
    let answer = fetch(&netns, Outside::V4, 80).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", Outside::HOST_V4));
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "a");
    assert_eq!(who_answers(&host, IpAddr::V4(Ipv4Addr::LOCALHOST), 8080), "a");
    assert_eq!(who_answers(&netns, Outside::HOST_V4, 8080), "a", "also by way of the host to itself");
    attachment.check().unwrap();
}

#[test]
fn the_default_vlan_is_kept_unless_it_must_not_be() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let vlans = |attachment: &Attachment| {
        let listed = host.run(&format!("bridge vlan show dev {}", attachment.host_interface()));
        listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).fold(
            Vec::new(),
            |mut all, words| {
                all.push(words.into_iter().filter(|word| !word.starts_with("veth")).collect::<Vec<_>>().join(" "));
                all
            },
        )
    };
    let listed = json!([{ "id": 5 }, { "minID": 7, "maxID": 8 }]);
    for (network, expected) in [
        (ten(), vec!["1 Egress Untagged", "10 PVID Egress Untagged"]),
        (ten().with("preserveDefaultVlan", json!(false)), vec!["10 PVID Egress Untagged"]),
        (trunk(listed.clone()), vec!["1 PVID Egress Untagged", "5", "7", "8"]),
        (trunk(listed).with("preserveDefaultVlan", json!(false)), vec!["5", "7", "8"]),
    ] {
        let (netns, attachment) = join(&host, network, "box");
        assert_eq!(vlans(&attachment), expected);
        attachment.check().unwrap();
        attachment.del().unwrap();
        netns.remove_with_links();
    }
}

#[test]
fn check_names_every_vlan_that_is_gone() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let only = || ten().with("preserveDefaultVlan", json!(false));
    let some = || trunk(json!([{ "minID": 100, "maxID": 199 }]));
    for (network, damage, named) in [
        (ten(), "bridge vlan del dev VETH vid 10", &["VETH", "VLANs is 1 untagged", "10 pvid untagged"][..]),
        (ten(), "bridge vlan add dev VETH vid 1 pvid untagged", &["VETH", "10 pvid untagged"]),
        (ten(), "bridge vlan add dev VETH vid 10 pvid", &["VETH", "10 pvid untagged"]),
        (only(), "bridge vlan add dev VETH vid 1 untagged", &["VETH", "1 untagged, 10 pvid untagged"]),
        (some(), "bridge vlan del dev VETH vid 150", &["VETH", "100-149, 151-199", "100-199"]),
        (ten(), "bridge vlan del dev br0 vid 10 self", &["bridge br0", "VLANs"]),
        (ten(), "ip link set br0 type bridge vlan_filtering 0", &["bridge br0", "VLAN filtering is off"]),
        (ten(), "ip link del br0.10", &["VLAN 10 of br0 as br0.10: missing"]),
        (ten(), "ip link set br0.10 down", &["br0.10", "state is down"]),
        (ten(), "ip addr del 10.10.0.1/24 dev br0.10", &["10.10.0.1/24"]),
        (ten(), "ip link del br0.10; ip link add link br0 name br0.10 type vlan id 11", &["VLAN is 11, should be 10"]),
    ] {
        let (netns, attachment) = join(&host, network, "box");
        attachment.check().unwrap_or_else(|failure| panic!("before `{damage}`: {failure}"));
        let veth = attachment.host_interface();
        host.run(&damage.replace("VETH", &veth));
        let failure = attachment.check().expect_err(damage);
        for name in named {
            assert!(failure.says(&name.replace("VETH", &veth)), "`{damage}`: no {name} in {failure}");
        }
        attachment.del().unwrap();
        netns.remove_with_links();
        host.run("ip link del br0");
    }
}

#[test]
fn the_last_of_a_vlan_takes_its_gateway_along_and_the_last_of_all_the_bridge() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let tidy = |network: Network| network.with("removeEmptyBridge", json!(true));
    // What every host has once a network was there: the table, forwarding.
    let (netns, first) = join(&host, tidy(ten()), "first");
    first.del().unwrap();
    netns.remove_with_links();
    let before = host.snapshot();
    let ((a, in_ten), (c, in_twenty)) = (join(&host, tidy(ten()), "a"), join(&host, tidy(twenty()), "c"));
    in_twenty.del().unwrap();
    c.remove_with_links();
    let between = host.snapshot();
    assert!(between.mentions("br0.10") && !between.mentions("br0.20"), "{between}");
    in_ten.check().unwrap();
    ping(&host, in_ten.address());
    in_ten.del().unwrap();
    a.remove_with_links();
    before.assert_same(&host.snapshot(), "after both are gone");
}

#[test]
fn a_bridge_of_somebody_else_is_used_but_not_changed() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    host.run("ip link add br0 type bridge; ip link set br0 up");
    let netns = host.netns("box");
    let before = host.snapshot();
    let failure = host.cni(ten()).attachment(&netns).add().expect_err("it does not filter");
    assert!(failure.says("br0") && failure.says("vlan_filtering 1"), "{failure}");
    before.assert_same(&host.snapshot(), "after a refused ADD");
    host.run("ip link set br0 type bridge vlan_filtering 1");
    let attachment = host.cni(ten()).attachment(&netns).added();
    ping(&netns, Ipv4Addr::new(10, 10, 0, 1));
    attachment.del().unwrap();
    // And one of ours becomes one with VLANs when the first network wants them.
    host.run("ip link del br0");
    let (_plain, without) =
        join(&host, Network::bridge("plain", &["10.30.0.0/24"]).with("bridge", json!("br0")), "plain");
    let _with = host.cni(ten()).attachment(&netns).added();
    ping(&netns, Ipv4Addr::new(10, 10, 0, 1));
    ping(&host, without.address());
}

#[test]
fn a_kernel_that_cannot_is_named_and_nothing_is_left() {
    if missing().is_none() {
        skip!("this kernel has VLANs; the development kernel has not");
    }
    let host = Host::new();
    let netns = host.netns("box");
    let before = host.snapshot();
    for network in [ten(), trunk(json!([{ "id": 10 }]))] {
        let failure = host.cni(network.clone()).attachment(&netns).add().expect_err("there is no VLAN filtering");
        assert_eq!(failure.code, 2, "{failure}");
        assert!(failure.says("CONFIG_BRIDGE_VLAN_FILTERING"), "{failure}");
        before.assert_same(&host.snapshot(), "after a refused ADD");
    }
}
