//! An overlay whose nodes find each other by a real etcd, on hosts that are namespaces on one wire.

use std::net::IpAddr;

use netcore_tests::cluster::{Container, Wire, send_a_megabyte};
use netcore_tests::etcd::Trust;
use netcore_tests::mesh::Mesh;
use netcore_tests::traffic::{fetch, ping, serve, who_answers};
use netcore_tests::{Outside, Publish};

/// Every container reaches every other, with true sources, by packets of every size.
fn all_pairs_talk(containers: &[&Container], wire: Wire) {
    for one in containers {
        for other in containers {
            if one.netns.name() == other.netns.name() {
                continue;
            }
            for (mine, yours) in one.attachment.addresses().into_iter().zip(other.attachment.addresses()) {
                ping(&one.netns, yours);
                let answer = fetch(&one.netns, yours, 80).unwrap();
                assert_eq!((answer.server.as_str(), answer.client.ip()), (other.netns.name(), mine));
                send_a_megabyte(&one.netns, &other.netns, yours, 7);
                let full = |bytes: usize| {
                    let command = format!("ping -n -c1 -W2 -M do -s {bytes} {yours}");
                    one.netns.try_run(&command).status.success()
                };
                let payload = wire.room() - if yours.is_ipv4() { 28 } else { 48 };
                assert!(full(payload), "a full packet to {yours}");
                assert!(!full(payload + 1), "a packet that does not fit");
            }
        }
        one.attachment.check().unwrap();
    }
}

fn three_nodes_talk(trust: Trust) {
    three_nodes_talk_over(Wire::V4, trust);
}

fn three_nodes_talk_over(wire: Wire, trust: Trust) {
    let mesh = Mesh::over(wire, 1, trust).with(3);
    let published = [Publish::tcp(8080, 80)];
    let publish = |node: usize| if node == 1 { &published[..] } else { &[] };
    let container = |node: usize| mesh.publishing(node, &format!("box{node}"), publish(node));
    let containers: Vec<Container> = (1..=3).map(container).collect();
    mesh.await_ways(&[1, 2, 3]);
    all_pairs_talk(&containers.iter().collect::<Vec<_>>(), wire);
    // A published port, by its host's address on the wire and through the tunnel.
    let [one, two, _] = &containers[..] else { panic!("three containers") };
    assert_eq!(who_answers(&mesh.node(2).host, wire.address(1), 8080), "box1");
    assert_eq!(who_answers(&two.netns, wire.address(1), 8080), "box1");
    // The outside sees the host, of either family.
    let outside = mesh.node(1).host.outside();
    let _world = serve(&*outside, "world", 80);
    for (world, seen) in [(Outside::V4, Outside::HOST_V4), (Outside::V6, Outside::HOST_V6)] {
        let answer = fetch(&one.netns, world, 80).unwrap();
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", seen));
    }
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "box1");
    for (address, mine) in one.addresses().into_iter().zip(two.addresses()) {
        let gateway = gateway(address);
        let answer = fetch(&two.netns, gateway, 8080).unwrap();
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("box1", mine), "by {gateway}");
    }
}

/// The first address of the /24 or /64 that `address` is of.
fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) & !0xff | 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64 | 1).into()),
    }
}

#[test]
fn three_nodes_find_each_other_and_talk() {
    three_nodes_talk(Trust::None);
}

#[test]
fn three_nodes_find_each_other_over_ipv6() {
    three_nodes_talk_over(Wire::V6, Trust::None);
}

#[test]
fn three_nodes_find_each_other_by_certificates() {
    three_nodes_talk(Trust::Certificates);
}

#[test]
fn three_nodes_find_each_other_by_a_password() {
    three_nodes_talk(Trust::Password);
}
