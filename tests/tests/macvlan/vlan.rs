//! VLANs as masters: made when they are missing, shared, and removed.

use std::sync::Barrier;
use std::thread;

use netcore_tests::features::Feature;
use netcore_tests::traffic::{nobody_answers, ping, who_answers};
use netcore_tests::{Attachment, Netns, needs, skip};
use serde_json::json;

use super::{Lan, network, nothing_left, refused};

#[test]
fn a_vlan_that_cannot_be_made_is_said() {
    if Feature::Vlan.missing().is_none() {
        skip!("this kernel has 802.1Q");
    }
    let lan = Lan::new();
    refused(&lan, &lan.network(json!({ "master": "eth0.10" })), "one", &["eth0.10", "8021q", "CONFIG_VLAN_8021Q"]);
}

#[test]
fn a_vlan_is_made_once_shared_and_removed_with_its_last_user() {
    needs!(Vlan);
    let lan = Lan::new();
    lan.station.run("ip link add link eth0 name eth0.10 type vlan id 10; ip addr add 192.0.2.19/24 dev eth0.10");
    lan.station.run("ip addr flush dev eth0; ip link set eth0.10 up");
    let before = lan.host.snapshot();
    let network = lan.network(json!({ "master": "eth0.10" }));
    let netns: Vec<Netns> = (0..32).map(|number| lan.host.netns(&format!("c{number}"))).collect();
    let start = Barrier::new(netns.len());
    let added: Vec<Attachment> = thread::scope(|scope| {
        let add = |netns| {
            start.wait();
            network.attachment(netns).added()
        };
        let threads: Vec<_> = netns.iter().map(|netns| scope.spawn(move || add(netns))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(lan.host.run("ip -br link show type vlan").lines().count(), 1, "32 made one");
    added.iter().for_each(|attachment| attachment.check().unwrap());
    ping(&netns[0], added[31].address());
    ping(&netns[0], [192, 0, 2, 19]);

    // Another network's user keeps it.
    let other = lan.host.cni(self::network("other", json!({ "master": "eth0.10", "ipam": {} })));
    let guest = lan.host.netns("guest");
    let guest_attachment = other.attachment(&guest).added();
    thread::scope(|scope| {
        added.iter().for_each(|attachment| drop(scope.spawn(|| attachment.del().unwrap())));
    });
    guest_attachment.check().unwrap();
    lan.host.run("ip link show eth0.10");
    guest_attachment.del().unwrap();
    netns.into_iter().chain([guest]).for_each(Netns::remove);
    nothing_left(&before, &lan.host);

    // One that somebody else made stays; one that is taken away is missed, and DEL works.
    lan.host.run("ip link add link eth0 name eth0.10 type vlan id 10; ip link set eth0.10 up");
    let box_ = lan.host.netns("box");
    let attachment = network.attachment(&box_).added();
    attachment.del().unwrap();
    lan.host.run("ip link del eth0.10");
    let attachment = network.attachment(&box_).added();
    lan.host.run("ip link del eth0.10");
    assert!(attachment.check().expect_err("the VLAN is gone").says("eth0.10"));
    attachment.del().unwrap();
}

#[test]
fn vlans_on_one_master_do_not_hear_each_other() {
    needs!(Vlan);
    let lan = Lan::new();
    let ten = lan.host.cni(network("ten", json!({ "master": "eth0.10" })));
    let twenty = lan.host.cni(network("twenty", json!({ "master": "eth0.20" })));
    let (one, two) = (lan.container(&ten, "one"), lan.container(&ten, "two"));
    let three = lan.container(&twenty, "three");
    assert_eq!(who_answers(&one.netns, two.addresses()[0], 80), "two");
    // The same address as one's, and another network altogether.
    three.netns.run("ip addr add 192.0.2.200/24 dev eth0");
    nobody_answers(&two.netns, [192, 0, 2, 200], 80);
    nobody_answers(&three.netns, two.addresses()[0], 80);
    for container in [one, two, three] {
        container.attachment.del().unwrap();
    }
}
