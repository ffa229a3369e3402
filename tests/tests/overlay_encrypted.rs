//! An encrypted overlay with real packets: what containers of several hosts tell each other, and what
//! the wire between them sees of it.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use netcore_tests::cluster::{Cluster, Container, Wire, send_a_megabyte};
use netcore_tests::etcd::{PREFIX, Trust};
use netcore_tests::features::Feature;
use netcore_tests::frames::Recorder;
use netcore_tests::mesh::{Mesh, PATIENCE};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{fetch, ping};
use netcore_tests::{Cni, Network, needs, skip, wait_for};
use serde_json::json;

const KEY_FILE: &str = "/var/lib/netcore/overlay/mesh.key";

/// What a megabyte is made of: nothing like it is in what is encrypted.
const LETTER: u8 = 7;

fn encrypted(cluster: &Cluster) -> Network {
    cluster.network().with("encryption", json!("wireguard"))
}

fn cni(cluster: &Cluster, host: usize) -> Cni {
    cluster.host(host).cni(encrypted(cluster))
}

/// The node's own key, made now if it has none.
fn key(cluster: &Cluster, host: usize) -> String {
    netctl(cluster.host(host), "overlay key mesh").ended(0).text.trim_end().to_owned()
}

fn entry(cluster: &Cluster, host: usize, key: &str) -> String {
    format!("{}publicKey = \"{key}\"\n", cluster.entry(host))
}

/// Three hosts that know each other's keys.
fn cluster(wire: Wire) -> Cluster {
    let cluster = Cluster::of(3, wire);
    let peers: String = (1..=3).map(|host| entry(&cluster, host, &key(&cluster, host))).collect();
    for host in 1..=3 {
        cluster.tell(host, &format!("node = \"n{host}\"\n{peers}"));
    }
    cluster
}

fn container(cluster: &Cluster, host: usize, name: &str) -> Container {
    Container::of(cluster.host(host), &cni(cluster, host), name, &[])
}

/// Waits for `one` to reach `other`, whose node may have lost the session between the two: it makes
/// another one, and much sooner than the 15 seconds that `one`'s would otherwise take to notice.
fn reaches(one: &Container, other: &Container, after: &str) {
    let ping = format!("ping -n -c1 -W1 {}", other.addresses()[0]);
    wait_for(after, Duration::from_secs(12), || one.netns.try_run(&ping).status.success());
}

/// Whether a frame is one of WireGuard's, or what neighbours have to say before there can be any.
fn is_discreet(frame: &[u8]) -> bool {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0806 => true,
        0x0800 | 0x86dd => is_discreet_packet(&frame[14..]),
        _ => false,
    }
}

/// As [`is_discreet`], of an IP packet.
fn is_discreet_packet(packet: &[u8]) -> bool {
    let (protocol, transport) = match packet[0] >> 4 {
        4 => (packet[9], &packet[usize::from(packet[0] & 15) * 4..]),
        _ => (packet[6], &packet[40..]),
    };
    match protocol {
        // UDP of its port, with one of its four messages (whitepaper, section 5.4).
        17 => {
            let port = |place: usize| u16::from_be_bytes([transport[place], transport[place + 1]]);
            (port(0), port(2)) == (4789, 4789) && matches!(transport[8..12], [1..=4, 0, 0, 0])
        }
        // A node whose tunnel is not up yet says so, and quotes what it was sent (RFC 792, RFC 4443).
        1 => transport[0] == 3 && is_discreet_packet(&transport[8..]),
        58 if transport[0] == 1 => is_discreet_packet(&transport[8..]),
        // Neighbour discovery; and who listens to which groups, behind a hop-by-hop option.
        58 => (133..=137).contains(&transport[0]),
        0 => transport[0] == 58,
        _ => false,
    }
}

fn all_pairs_talk_in_secret(wire: Wire) {
    let cluster = cluster(wire);
    let recorders: Vec<Recorder> =
        (1..=3).map(|port| Recorder::start(cluster.switch(), &format!("port{port}"))).collect();
    let containers: Vec<Container> = (1..=3).map(|host| container(&cluster, host, &format!("box{host}"))).collect();
    let mut sent = 0;
    for (number, one) in containers.iter().enumerate() {
        for (_, other) in containers.iter().enumerate().filter(|(other, _)| *other != number) {
            for (mine, yours) in one.addresses().into_iter().zip(other.addresses()) {
                ping(&one.netns, yours);
                let answer = fetch(&one.netns, yours, 80).unwrap();
                assert_eq!(answer.client.ip(), mine, "the cluster sees true sources");
                send_a_megabyte(&one.netns, &other.netns, yours, LETTER);
                sent += 1 << 20;
                let payload = wire.encrypted_room() - if yours.is_ipv4() { 28 } else { 48 };
                let full = |bytes: usize| {
                    one.netns.try_run(&format!("ping -n -M do -c1 -W3 -s {bytes} {yours}")).status.success()
                };
                assert!(full(payload), "a full packet of {} bytes to {yours}", wire.encrypted_room());
                assert!(!full(payload + 1), "a packet of {} bytes does not fit", wire.encrypted_room() + 1);
            }
        }
        one.attachment.check().unwrap();
    }
    let answer = fetch(cluster.host(1), containers[1].addresses()[0], 80).unwrap();
    assert_eq!(answer.client.ip().to_string(), "10.244.1.1", "a host reaches containers elsewhere");

    // Every byte passes two of the three ports.
    let heard: Vec<Vec<u8>> = recorders.into_iter().flat_map(Recorder::stop).collect();
    let bytes: usize = heard.iter().map(Vec::len).sum();
    assert!(bytes > sent, "{bytes} bytes were heard of at least {}", 2 * sent);
    for frame in &heard {
        assert!(is_discreet(frame), "{frame:02x?}");
        let told = frame.windows(32).any(|part| part == [LETTER; 32]) || frame.windows(4).any(|part| part == b"box1");
        assert!(!told, "{frame:02x?}");
    }
}

#[test]
fn containers_of_three_hosts_talk_in_secret_over_ipv4() {
    needs!(Wireguard);
    all_pairs_talk_in_secret(Wire::V4);
}

#[test]
fn containers_of_three_hosts_talk_in_secret_over_ipv6() {
    needs!(Wireguard);
    all_pairs_talk_in_secret(Wire::V6);
}

#[test]
fn what_is_encrypted_is_checked_mended_and_tidied() {
    needs!(Wireguard);
    let cluster = cluster(Wire::V4);
    let host = cluster.host(1);
    let before = host.snapshot();
    let one = container(&cluster, 1, "box1");
    let two = container(&cluster, 2, "box2");
    ping(&one.netns, two.addresses()[0]);
    let third = key(&cluster, 3);
    let stranger = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    let damage = [
        (format!("wg set wgvni42 peer {third} remove"), format!("wireguard peer {third} dev wgvni42 (host): missing")),
        (format!("wg set wgvni42 peer {third} endpoint 192.0.2.99:4789"), "endpoint is 192.0.2.99:4789".to_owned()),
        (format!("wg set wgvni42 peer {third} allowed-ips 10.244.3.0/24"), "allowed IPs is 10.244.3.0/24".to_owned()),
        (
            format!("wg set wgvni42 peer {stranger} allowed-ips 10.244.3.0/24"),
            "allowed IPs is fd24:0:0:3::/64".to_owned(),
        ),
        ("wg set wgvni42 listen-port 5000".to_owned(), "UDP port is 5000".to_owned()),
        ("wg genkey >/run/other; wg set wgvni42 private-key /run/other".to_owned(), "public key is ".to_owned()),
        ("ip route del 10.244.3.0/24".to_owned(), "route 10.244.3.0/24 dev wgvni42".to_owned()),
        ("ip link set wgvni42 mtu 1400".to_owned(), "MTU is 1400".to_owned()),
        ("ip link set wgvni42 down".to_owned(), "wireguard wgvni42".to_owned()),
        ("ip link del wgvni42".to_owned(), "wireguard wgvni42 (UDP port 4789): missing".to_owned()),
    ];
    let another = host.netns("another");
    for (command, words) in damage {
        one.attachment.check().unwrap_or_else(|failure| panic!("before `{command}`: {failure}"));
        host.run(&command);
        let failure = one.attachment.check().expect_err(&command);
        assert!(failure.says(&words), "`{command}`: {failure}");
        let healer = cni(&cluster, 1).attachment(&another).added();
        one.attachment.check().unwrap_or_else(|failure| panic!("ADD mends `{command}`: {failure}"));
        reaches(&two, &one, &command);
        assert_eq!(host.run("wg show wgvni42 peers").lines().count(), 2, "strangers go: {command}");
        healer.del().unwrap();

        host.run(&command);
        netctl(host, "repair-chains --check").ended(1);
        netctl(host, "repair-chains").ended(0);
        one.attachment.check().unwrap_or_else(|failure| panic!("repair mends `{command}`: {failure}"));
        reaches(&two, &one, &command);
    }

    // A node that left: what it sends is not even answered.
    let file = |nodes: &[usize]| {
        let peers: String = nodes.iter().map(|node| entry(&cluster, *node, &key(&cluster, *node))).collect();
        cluster.tell(1, &format!("node = \"n1\"\n{peers}"));
    };
    file(&[1, 3]);
    let healer = cni(&cluster, 1).attachment(&another).added();
    assert!(!two.netns.try_run(&format!("ping -n -c1 -W1 {}", one.addresses()[0])).status.success());
    file(&[1, 2, 3]);
    healer.del().unwrap();
    let healer = cni(&cluster, 1).attachment(&another).added();
    reaches(&two, &one, "node 2 left and came back");

    healer.del().unwrap();
    for _ in 0..2 {
        one.attachment.del().unwrap();
    }
    host.run("ip netns del another; ip netns del box1");
    let after = host.snapshot();
    for left in ["wgvni", "br-mesh", "10.244", "fd24"] {
        assert!(!after.mentions(left), "{left} is left:\n{}", before.difference(&after));
    }
}

#[test]
fn keys_stay_on_their_nodes_and_wrong_ones_are_named() {
    needs!(Wireguard);
    let cluster = cluster(Wire::V4);
    let host = cluster.host(1);
    let own = key(&cluster, 1);
    assert_eq!(key(&cluster, 1), own, "it is made once");
    let mode = host.enter(|| std::fs::metadata(KEY_FILE).unwrap().mode()) & 0o777;
    assert_eq!(mode, 0o600);
    let private = host.run(&format!("cat {KEY_FILE}")).trim_end().to_owned();
    assert_eq!(host.run(&format!("wg pubkey <{KEY_FILE}")).trim_end(), own);

    let one = container(&cluster, 1, "box1");
    let state = host.run("cat /run/netcore/mesh/*.json /var/lib/netcore/overlay/mesh.json");
    assert!(state.contains(&own) && !state.contains(&private));
    assert!(!netctl(host, "show box1").ended(0).text.contains(&private));
    one.attachment.del().unwrap();

    let late = host.netns("late");
    let refused = |network: Network| host.cni(network).attachment(&late).add().expect_err("a fault");
    let good: String = (1..=3).map(|node| entry(&cluster, node, &key(&cluster, node))).collect();
    let third = key(&cluster, 3);
    host.run("rm /var/lib/netcore/overlay/mesh.json");
    for (file, words) in [
        (
            good.replace(&format!("publicKey = \"{third}\"\n"), ""),
            "peer n3: publicKey: nothing is not its key; `netctl overlay key`",
        ),
        (good.replace(&third, &own), "it is that of node n1"),
        (good.replace(&third, &third[..40]), "is not a public key"),
    ] {
        cluster.tell(1, &format!("node = \"n1\"\n{file}"));
        let failure = refused(encrypted(&cluster));
        assert_eq!((failure.code, failure.says(words)), (7, true), "{failure}");
    }
    let other = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    cluster.tell(1, &format!("node = \"n1\"\n{}", good.replace(&own, other)));
    let failure = refused(encrypted(&cluster));
    assert!(failure.says(&format!("publicKey: {other} is not {own}, which is this node's")), "{failure}");

    cluster.tell(1, &format!("node = \"n1\"\n{good}"));
    let failure = refused(encrypted(&cluster).with("directRouting", json!(true)));
    assert!(failure.says("directRouting: true is not false"), "{failure}");
    let socket = host.enter(|| std::net::UdpSocket::bind("0.0.0.0:4789")).unwrap();
    let failure = refused(encrypted(&cluster));
    assert!(failure.says("UDP port 4789 is in use"), "{failure}");
    drop(socket);
    host.run(&format!("chmod 644 {KEY_FILE}"));
    let failure = refused(encrypted(&cluster));
    assert!(failure.says("others than root may read") && !failure.says(&private), "{failure}");
    host.run(&format!("chmod 600 {KEY_FILE}"));
    container(&cluster, 1, "box2").attachment.check().unwrap();
}

#[test]
fn nodes_tell_each_other_their_keys_by_etcd() {
    needs!(Wireguard);
    let mut mesh = Mesh::new(Trust::None);
    let network = mesh.network().with("encryption", json!("wireguard"));
    let own = |mesh: &Mesh, node: usize| mesh.node(node).host.cni(network.clone());
    let join = |mesh: &mut Mesh| {
        let node = mesh.add();
        mesh.node(node).configure(&network);
        mesh.node_mut(node).start();
        wait_for("it has a subnet", PATIENCE, || own(mesh, node).status().is_ok());
        Container::of(&mesh.node(node).host, &own(mesh, node), &format!("box{node}"), &[])
    };
    let (one, two) = (join(&mut mesh), join(&mut mesh));
    let recorder = Recorder::start(mesh.switch(), "port2");
    reaches(&one, &two, "they know each other");
    for (mine, yours) in one.addresses().into_iter().zip(two.addresses()) {
        let answer = fetch(&one.netns, yours, 80).unwrap();
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("box2", mine));
        send_a_megabyte(&one.netns, &two.netns, yours, LETTER);
        let payload = Wire::V4.encrypted_room() - if yours.is_ipv4() { 28 } else { 48 };
        one.netns.run(&format!("ping -n -M do -c1 -W3 -s {payload} {yours}"));
    }
    let heard = recorder.stop();
    let bytes: usize = heard.iter().map(Vec::len).sum();
    assert!(bytes > 1 << 20, "{bytes} bytes were heard of more than {}", 2 << 20);
    assert!(heard.iter().all(|frame| !frame.windows(32).any(|part| part == [LETTER; 32])), "it is encrypted");
    let registry = mesh.etcd.ctl(&format!("get {PREFIX}/ --prefix"));
    for node in [1, 2] {
        let host = &mesh.node(node).host;
        let key = netctl(host, "overlay key mesh").ended(0).text;
        assert!(registry.contains(key.trim_end()), "{registry}");
        assert!(!registry.contains(host.run(&format!("cat {KEY_FILE}")).trim_end()), "a private key is in etcd");
    }

    // Without etcd, what was known stays; who comes after it is back is known to all.
    mesh.etcd.kill();
    mesh.node(1).await_words("what was known stays");
    let late = Container::of(&mesh.node(1).host, &own(&mesh, 1), "late", &[]);
    ping(&late.netns, two.address());
    mesh.etcd.start();
    let three = join(&mut mesh);
    for other in [&one, &two] {
        reaches(&three, other, "the third knows the others");
        reaches(other, &three, "and they know it");
    }
    // A record whose key is another's is left out, and the others live.
    let record = mesh.etcd.ctl(&format!("get {PREFIX}/nodes/n3 --print-value-only"));
    let key = |node: usize| netctl(&mesh.node(node).host, "overlay key mesh").ended(0).text.trim_end().to_owned();
    let lie = record.trim_end().replace(&key(3), &key(2));
    mesh.node_mut(3).kill();
    mesh.etcd.ctl(&format!("put {PREFIX}/nodes/n3 '{lie}'"));
    mesh.node(1).await_words("it is that of node n2");
    one.attachment.check().unwrap();
    ping(&one.netns, two.address());
}

#[test]
fn a_kernel_that_cannot_encrypt_is_said_to_be_one() {
    if Feature::Wireguard.is_here() {
        skip!("this kernel has WireGuard; others show what is said without it");
    }
    let cluster = cluster(Wire::V4);
    let host = cluster.host(1);
    let netns = host.netns("box");
    let before = host.snapshot();
    let network = cni(&cluster, 1);
    let refused =
        [network.attachment(&netns).add().expect_err("no WireGuard"), network.status().expect_err("no WireGuard")];
    for failure in refused {
        assert!(failure.says("encryption: wireguard is not supported; this kernel has no WireGuard"), "{failure}");
    }
    before.assert_same(&host.snapshot(), "nothing was made");
}
