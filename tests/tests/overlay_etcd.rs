//! An overlay whose nodes find each other by a real etcd, on hosts that are namespaces on one wire.

use std::net::IpAddr;

use netcore_tests::etcd::Trust;
use netcore_tests::mesh::{Container, Mesh, send_a_megabyte};
use netcore_tests::traffic::{fetch, ping};

/// Every container reaches every other, with true sources, by packets of every size.
fn all_pairs_talk(containers: &[&Container]) {
    for one in containers {
        for other in containers {
            if one.netns.name() == other.netns.name() {
                continue;
            }
            for (mine, yours) in one.attachment.addresses().into_iter().zip(other.attachment.addresses()) {
                ping(&one.netns, yours);
                let answer = fetch(&one.netns, yours, 80).unwrap();
                assert_eq!((answer.server.as_str(), answer.client.ip()), (other.netns.name(), mine));
                send_a_megabyte(&one.netns, &other.netns, yours);
                let full = |bytes: usize| {
                    let command = format!("ping -n -c1 -W2 -M do -s {bytes} {yours}");
                    one.netns.try_run(&command).status.success()
                };
                let payload = if matches!(yours, IpAddr::V4(_)) { 1450 - 28 } else { 1450 - 48 };
                assert!(full(payload), "a full packet to {yours}");
                assert!(!full(payload + 1), "a packet that does not fit");
            }
        }
        one.attachment.check().unwrap();
    }
}

fn three_nodes_talk(trust: Trust) {
    let mesh = Mesh::of(3, trust);
    let containers: Vec<Container> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    all_pairs_talk(&containers.iter().collect::<Vec<_>>());
}

#[test]
fn three_nodes_find_each_other_and_talk() {
    three_nodes_talk(Trust::None);
}

#[test]
fn three_nodes_find_each_other_by_certificates() {
    three_nodes_talk(Trust::Certificates);
}

#[test]
fn three_nodes_find_each_other_by_a_password() {
    three_nodes_talk(Trust::Password);
}
