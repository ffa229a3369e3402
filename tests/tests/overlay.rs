//! An overlay with real packets: three hosts on one wire, each a namespace with namespaces of its
//! own, and a file that says which has which subnet.

use std::io::Write;
use std::net::IpAddr;

use netcore_tests::cluster::{Cluster, Container, FILE, Wire, send_a_megabyte};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{fetch, nobody_answers, ping, serve, who_answers};
use netcore_tests::{Netns, Network, Outside, Publish};
use serde_json::json;

fn all_pairs_talk(wire: Wire) {
    let cluster = Cluster::new(wire);
    let containers: Vec<Container> = (1..=3).map(|host| cluster.container(host, &format!("box{host}"), &[])).collect();
    for (number, one) in containers.iter().enumerate() {
        assert_eq!(one.addresses().len(), 2, "{:?}", one.attachment.result());
        assert!(one.addresses()[0].to_string().starts_with(&format!("10.244.{}.", number + 1)));
        for (other_number, other) in containers.iter().enumerate() {
            if number == other_number {
                continue;
            }
            for (mine, yours) in one.addresses().into_iter().zip(other.addresses()) {
                ping(&one.netns, yours);
                let answer = fetch(&one.netns, yours, 80).unwrap();
                assert_eq!(answer.client.ip(), mine, "the cluster sees true sources");
                send_a_megabyte(&one.netns, &other.netns, yours, 7);
                // ICMP and IP headers are part of the packet; one byte more does not fit.
                let payload = wire.room() - if yours.is_ipv4() { 28 } else { 48 };
                let full = |bytes: usize| {
                    one.netns.try_run(&format!("ping -n -M do -c1 -W3 -s {bytes} {yours}")).status.success()
                };
                assert!(full(payload), "a full packet of {} bytes to {yours}", wire.room());
                assert!(!full(payload + 1), "a packet of {} bytes does not fit", wire.room() + 1);
            }
        }
        one.attachment.check().unwrap();
    }
    // A host reaches containers elsewhere, by its own address in the overlay.
    let answer = fetch(cluster.host(1), containers[1].addresses()[0], 80).unwrap();
    assert_eq!(answer.client.ip().to_string(), "10.244.1.1");
    let answer = fetch(cluster.host(1), containers[1].addresses()[1], 80).unwrap();
    assert_eq!(answer.client.ip().to_string(), "fd24:0:0:1::1");
}

#[test]
fn containers_of_three_hosts_talk_over_ipv4() {
    all_pairs_talk(Wire::V4);
}

#[test]
fn containers_of_three_hosts_talk_over_ipv6() {
    all_pairs_talk(Wire::V6);
}

#[test]
fn only_what_leaves_the_cluster_is_masqueraded_and_published_ports_are_reached_through_it() {
    ways_in_and_out(Wire::V4);
}

#[test]
fn the_same_over_an_ipv6_underlay() {
    ways_in_and_out(Wire::V6);
}

fn ways_in_and_out(wire: Wire) {
    let cluster = Cluster::new(wire);
    let outside = cluster.host(1).outside();
    let _world = serve(&*outside, "world", 80);
    let one = cluster.container(1, "box1", &[Publish::tcp(8080, 80)]);
    let two = cluster.container(2, "box2", &[]);

    let answer = fetch(&one.netns, Outside::V4, 80).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", Outside::HOST_V4));
    let answer = fetch(&one.netns, Outside::V6, 80).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", Outside::HOST_V6));
    let answer = fetch(&one.netns, two.addresses()[0], 80).unwrap();
    assert_eq!(answer.client.ip(), one.addresses()[0]);

    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "box1", "from outside");
    assert_eq!(who_answers(&two.netns, cluster.wire.address(1), 8080), "box1", "by the wire");
    let answer = fetch(&two.netns, "10.244.1.1".parse::<IpAddr>().unwrap(), 8080).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("box1", two.addresses()[0]), "through the overlay");
    let answer = fetch(cluster.host(2), "10.244.1.1".parse::<IpAddr>().unwrap(), 8080).unwrap();
    assert_eq!(answer.server, "box1", "from another host, through the overlay");
    one.attachment.del().unwrap();
    nobody_answers(&two.netns, cluster.wire.address(1), 8080);
}

#[test]
fn nodes_on_one_segment_need_no_tunnel() {
    let cluster = Cluster::new(Wire::V4);
    let network = || cluster.network().with("directRouting", json!(true)).with("cidr", json!("10.244.0.0/16"));
    let v4_only = |node: usize| cluster.entry(node).replace(&format!(", \"fd24:0:0:{node}::/64\""), "");
    for host in 1..=3 {
        let peers: String = (1..=3).map(v4_only).collect();
        cluster.tell(host, &format!("node = \"n{host}\"\n{peers}"));
    }
    let before = cluster.host(1).snapshot();
    // A hardened host: what comes without a tunnel is not from one of its own bridges.
    cluster.host(2).run("iptables-nft -P FORWARD DROP");
    let one = Container::of(cluster.host(1), &cluster.host(1).cni(network()), "box1", &[]);
    let two = Container::of(cluster.host(2), &cluster.host(2).cni(network()), "box2", &[]);
    let routes = cluster.host(1).run("ip route show 10.244.2.0/24");
    assert!(routes.contains("via 192.0.2.12 dev eth0 proto 78"), "{routes}");
    assert_eq!(cluster.host(1).run("bridge fdb show dev vxlan42"), "");
    let answer = fetch(&one.netns, two.addresses()[0], 80).unwrap();
    assert_eq!(answer.client.ip(), one.addresses()[0], "and nothing is masqueraded");
    one.attachment.check().unwrap();
    cluster.host(1).run("ip route del 10.244.2.0/24");
    assert!(one.attachment.check().unwrap_err().says("route 10.244.2.0/24 via 192.0.2.12 dev eth0"));
    one.attachment.del().unwrap();
    cluster.host(1).run("ip netns del box1");
    let after = cluster.host(1).snapshot();
    assert!(!after.mentions("10.244") && !after.mentions("vxlan"), "{}", before.difference(&after));
}

#[test]
fn the_file_is_followed_on_the_next_attachment() {
    let cluster = Cluster::new(Wire::V4);
    cluster.write(&[1, 2]);
    let one = cluster.container(1, "box1", &[]);
    let two = cluster.container(2, "box2", &[]);
    ping(&one.netns, two.addresses()[0]);
    let ways = |host: usize| {
        let host = cluster.host(host);
        let count = |command: &str| host.run(command).lines().count();
        (
            count("ip -4 neigh show dev vxlan42 nud permanent; ip -6 neigh show dev vxlan42 nud permanent"),
            count("bridge fdb show dev vxlan42"),
            count("ip route show proto 78; ip -6 route show proto 78"),
        )
    };
    assert_eq!(ways(1), (2, 1, 2));

    cluster.write(&[1, 2, 3]);
    let three = cluster.container(3, "box3", &[]);
    let another = cluster.container(1, "another", &[]);
    assert_eq!(ways(1), (4, 2, 4), "a third node came");
    ping(&one.netns, three.addresses()[0]);
    ping(&another.netns, three.addresses()[1]);

    // Whatever is in there now, the last good state goes on, and new containers start.
    let good = format!("node = \"n1\"\n{}{}{}", cluster.entry(1), cluster.entry(2), cluster.entry(3));
    for bad in
        [&good[..good.len() - 20], "", "node = 5", &good.replace("10.244.3", "10.9.3"), &good.replace("n3", "n2")]
    {
        cluster.tell(1, bad);
        let late = cluster.host(1).netns("late");
        let plugin = cluster.cni(1).attachment(&late).first_plugin();
        let output = cluster.host(1).enter(|| {
            let mut child = plugin.command("ADD").spawn().unwrap();
            child.stdin.take().unwrap().write_all(plugin.configuration()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{bad:?}: {}", String::from_utf8_lossy(&output.stdout));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with("mesh: /run/mesh.toml: ") && said.contains("good last"), "{bad:?}: {said}");
        assert_eq!(ways(1), (4, 2, 4));
        cluster.cni(1).attachment(&late).del().unwrap();
        late.remove();
    }

    cluster.tell(1, &format!("node = \"n1\"\n{}{}", cluster.entry(1), cluster.entry(2)));
    let _last = cluster.container(1, "last", &[]);
    assert_eq!(ways(1), (2, 1, 2), "the third node went");
    ping(&one.netns, two.addresses()[0]);
    assert!(!one.netns.try_run(&format!("ping -n -c1 -W1 {}", three.addresses()[0])).status.success());
}

#[test]
fn check_names_what_is_gone_and_the_next_attachment_or_a_repair_brings_it_back() {
    let cluster = Cluster::new(Wire::V4);
    let one = cluster.container(1, "box1", &[]);
    let host = cluster.host(1);
    let mac = host.run("bridge fdb show dev vxlan42 | grep 192.0.2.12 | cut -d' ' -f1");
    let mac = mac.trim();
    let damage = [
        ("ip neigh del 10.244.2.1 dev vxlan42".to_owned(), "neighbour 10.244.2.1 dev vxlan42"),
        ("ip neigh replace 10.244.2.1 lladdr 02:00:00:00:00:01 dev vxlan42 nud permanent".to_owned(), "MAC is"),
        ("ip -6 neigh del fd24:0:0:2::1 dev vxlan42".to_owned(), "neighbour fd24:0:0:2::1 dev vxlan42"),
        (format!("bridge fdb del {mac} dev vxlan42 dst 192.0.2.12 self"), "dst 192.0.2.12"),
        (format!("bridge fdb replace {mac} dev vxlan42 dst 192.0.2.99 self"), "node is 192.0.2.99"),
        ("ip route del 10.244.3.0/24".to_owned(), "route 10.244.3.0/24"),
        ("ip -6 route del fd24:0:0:3::/64".to_owned(), "route fd24:0:0:3::/64"),
        ("ip link set vxlan42 mtu 1400".to_owned(), "MTU is 1400"),
        ("ip link set vxlan42 address 02:00:00:00:00:09".to_owned(), "MAC is 02:00:00:00:00:09"),
        ("sysctl -qw net.ipv4.conf.vxlan42.forwarding=0".to_owned(), "net.ipv4.conf.vxlan42.forwarding"),
        ("ip link set vxlan42 down".to_owned(), "vxlan vxlan42"),
        ("ip link del vxlan42".to_owned(), "vxlan vxlan42 (VNI 42): missing"),
        (
            "nft delete element inet netcore cluster4 '{ 10.244.0.0/16 . 10.244.0.0/16 }'".to_owned(),
            "cluster 10.244.0.0/16",
        ),
    ];
    let another = host.netns("another");
    for (command, words) in damage {
        one.attachment.check().unwrap_or_else(|failure| panic!("before `{command}`: {failure}"));
        host.run(&command);
        let failure = one.attachment.check().expect_err(&command);
        assert!(failure.says(words), "`{command}`: {failure}");
        let healer = cluster.cni(1).attachment(&another).added();
        one.attachment.check().unwrap_or_else(|failure| panic!("ADD mends `{command}`: {failure}"));
        healer.del().unwrap();

        host.run(&command);
        netctl(host, "repair-chains --check").ended(1);
        netctl(host, "repair-chains").ended(0);
        one.attachment.check().unwrap_or_else(|failure| panic!("repair mends `{command}`: {failure}"));
    }
}

#[test]
fn the_last_attachment_takes_everything_along() {
    let cluster = Cluster::new(Wire::V6);
    let host = cluster.host(1);
    let before = host.snapshot();
    let one = cluster.container(1, "box1", &[Publish::tcp(8080, 80)]);
    let two = cluster.container(1, "box2", &[]);
    one.attachment.del().unwrap();
    two.attachment.check().unwrap();
    for _ in 0..2 {
        two.attachment.del().unwrap();
    }
    let Container { netns: first, .. } = one;
    let Container { netns: second, .. } = two;
    first.remove();
    second.remove();
    let after = host.snapshot();
    for left in ["vxlan", "br-mesh", "10.244", "fd24", "file"] {
        assert!(!after.mentions(left), "{left} is left:\n{}", before.difference(&after));
    }
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let cluster = Cluster::new(Wire::V4);
    let host = cluster.host(1);
    let netns = host.netns("box");
    let before = host.snapshot();
    let try_with = |network: Network| {
        let failure = host.cni(network).attachment(&netns).add().expect_err("a fault");
        before.assert_same(&host.snapshot(), &failure.message);
        failure
    };
    for vni in [0, 1 << 24] {
        let failure = try_with(cluster.network().with("vni", json!(vni)));
        assert_eq!((failure.code, failure.says("vni")), (7, true), "{failure}");
    }
    let failure = try_with(cluster.network().with("cidr", json!("10.244.0.0")));
    assert_eq!((failure.code, failure.says("cidr")), (7, true), "{failure}");
    let failure = try_with(cluster.network().with("mtu", json!(1500)));
    assert_eq!((failure.code, failure.says("1450")), (7, true), "{failure}");

    // No subnet, for one reason or another: STATUS 50, ADD 11.
    host.run("rm -rf /var/lib/netcore/overlay");
    let etcd = json!({ "etcd": { "endpoints": ["https://192.0.2.1:2379"], "prefix": "/netcore/mesh" } });
    let waiting = [
        (cluster.network().with("source", json!({ "file": "/run/none.toml" })), "/run/none.toml"),
        (cluster.network().with("source", etcd), "agent"),
    ];
    for (network, words) in waiting {
        let failure = host.cni(network.clone()).status().expect_err("STATUS");
        assert_eq!((failure.code, failure.says(words)), (50, true), "{failure}");
        let failure = try_with(network);
        assert_eq!((failure.code, failure.says(words)), (11, true), "{failure}");
    }
    cluster.tell(1, &format!("node = \"n1\"\n{}", cluster.entry(2)));
    let failure = try_with(cluster.network());
    assert_eq!((failure.code, failure.says("node n1 has no subnet yet")), (11, true), "{failure}");

    // Nothing was ever good here but what is committed by now; a new host knows nothing.
    host.run("rm -rf /var/lib/netcore/overlay");
    let good = format!("node = \"n1\"\n{}{}", cluster.entry(1), cluster.entry(2));
    let faults = [
        (good[..good.len() - 20].to_owned(), "line "),
        (good.replace("10.244.2.0", "10.9.2.0"), "peer n2: subnets: 10.9.2.0/24 is not inside the cluster's range"),
        (good.replace("10.244.2.0/24", "10.244.0.0/20"), "overlaps 10.244.1.0/24 of node n1"),
        (good.replace("\"n2\"", "\"n1\""), "named once"),
        (good.replace("192.0.2.12", "10.244.9.9"), "outside the overlay's own range"),
        (good.replace("subnets", "subnet"), "subnet"),
    ];
    for (text, words) in faults {
        cluster.tell(1, &text);
        let failure = try_with(cluster.network());
        assert_eq!((failure.code, failure.says(words)), (7, true), "{failure}");
        assert!(failure.says(FILE), "{failure}");
    }

    cluster.write(&[1, 2, 3]);
    host.run("mkdir -p /var/lib/netcore/overlay && echo '{\"version\": 2}' > /var/lib/netcore/overlay/mesh.json");
    let failure = try_with(cluster.network());
    assert_eq!((failure.code, failure.says("version 2")), (5, true), "{failure}");
    host.run("rm /var/lib/netcore/overlay/mesh.json");

    // The port is somebody's.
    let socket = host.enter(|| std::net::UdpSocket::bind("0.0.0.0:4789")).unwrap();
    let failure = try_with(cluster.network());
    assert_eq!((failure.code, failure.says("UDP port 4789 is in use")), (104, true), "{failure}");
    drop(socket);
    host.run("ip link add other type vxlan id 42 dstport 4789 local 192.0.2.11 nolearning && ip link set other up");
    let failure = host.cni(cluster.network()).attachment(&netns).add().expect_err("VNI 42 is taken");
    assert_eq!((failure.code, failure.says("other has VNI 42")), (104, true), "{failure}");
    host.run("ip link del other");

    // The name comes from the environment where the file does not say it.
    let peers: String = (1..=3).map(|node| cluster.entry(node)).collect();
    cluster.tell(1, &peers);
    let attachment = host.cni(cluster.network()).attachment(&netns);
    let result = attachment.first_plugin().env("NETCORE_NODE", "n1").run("ADD").unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    assert!(address.starts_with("10.244.1."), "{address}");
    attachment.del().unwrap();
}

#[test]
fn what_goes_wrong_later_leaves_what_runs_alone() {
    let cluster = Cluster::new(Wire::V4);
    let host = cluster.host(1);
    let one = cluster.container(1, "box1", &[]);
    let two = cluster.container(2, "box2", &[]);
    let late = host.netns("late");
    let kept = "/var/lib/netcore/overlay/mesh.json";
    let other_version = format!("cp {kept} /run/kept; sed -i 's/\"version\":1/\"version\":2/' {kept}");
    let half = format!("head -c 99 /run/kept >{kept}");
    let restore = format!("cp /run/kept {kept}");
    let faults = [
        (cluster.network(), other_version.as_str(), 5, "is of version 2, this program knows version 1"),
        (cluster.network(), &half, 5, "remove it to have it made anew"),
        (cluster.network().with("vni", json!(0)), &restore, 7, "vni: 0 is not"),
        (cluster.network().with("vni", json!(1 << 24)), "true", 7, "vni: 16777216 is not"),
        (cluster.network().with("port", json!(0)), "true", 7, "port: 0 is not"),
        (cluster.network().with("port", json!(70000)), "true", 7, "port: 70000 is not"),
    ];
    for (network, damage, code, words) in faults {
        host.run(damage);
        let before = host.snapshot();
        let failure = host.cni(network).attachment(&late).add().expect_err(words);
        assert_eq!((failure.code, failure.says(words)), (code, true), "{failure}");
        before.assert_same(&host.snapshot(), words);
        ping(&one.netns, two.addresses()[0]);
        ping(&two.netns, one.addresses()[1]);
    }

    // Whatever the clock did between two edits: contents count, not times.
    for (time, nodes) in [("2099-01-01", &[1, 2][..]), ("1999-01-01", &[1, 2, 3]), ("1970-01-02", &[1, 2])] {
        cluster.write(nodes);
        host.run(&format!("touch -d {time} {FILE} {kept}"));
        let attachment = cluster.cni(1).attachment(&late).added();
        assert_eq!(host.run("bridge fdb show dev vxlan42").lines().count(), nodes.len() - 1, "at {time}");
        attachment.check().unwrap();
        attachment.del().unwrap();
    }
    one.attachment.check().unwrap();
    one.attachment.del().unwrap();
}

#[test]
fn five_thousand_peers_from_a_file_are_reached_and_tidied() {
    let cluster = Cluster::new(Wire::V4);
    let peer = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        format!(
            "[[peer]]\nnode = \"m{number}\"\nunderlay = \"198.18.{high}.{low}\"\nsubnets = [\"10.{}.{}.0/24\"]\n",
            high + 100,
            low
        )
    };
    let own = "[[peer]]\nnode = \"n1\"\nunderlay = \"192.0.2.11\"\nsubnets = [\"10.99.1.0/24\"]\n";
    let peers: String = (0..5000).map(peer).collect();
    cluster.tell(1, &format!("node = \"n1\"\n{own}{peers}"));
    let host = cluster.host(1);
    let mesh = host.cni(cluster.network().with("cidr", json!("10.0.0.0/8")));
    let (one, two) = (host.netns("box1"), host.netns("box2"));
    let timed = |netns: &Netns| {
        let start = std::time::Instant::now();
        let attachment = mesh.attachment(netns).added();
        (attachment, start.elapsed())
    };
    let (first, cold) = timed(&one);
    assert_eq!(host.run("ip route show proto 78 | wc -l").trim(), "5000");
    let (second, warm) = timed(&two);
    println!("5,000 peers from a file: first attachment {cold:?}, the next {warm:?}");
    second.check().unwrap();
    second.del().unwrap();
    first.del().unwrap();
}
