//! The bridge plugin with real packets: containers among themselves, out to the world, and every
//! way in through a published port.

use std::time::{Duration, Instant};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netcore_tests::traffic::{Udp, fetch, nobody_answers, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, skip, traffic};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V4: &[&str] = &["10.20.0.0/24"];
const V6: &[&str] = &["fd20::/64"];
const DUAL: &[&str] = &["10.20.0.0/24", "fd20::/64"];

/// A host with a network `web` over `subnets`, and the outside.
fn with_outside(subnets: &[&str]) -> (Host, Outside, Cni) {
    let host = Host::new();
    let outside = host.outside();
    let web = host.cni(Network::bridge("web", subnets));
    (host, outside, web)
}

/// A container that serves port 80 under its name, published as asked.
struct Container {
    netns: Netns,
    attachment: Attachment,
    _server: traffic::Server,
}

impl Container {
    fn on(host: &Host, network: &Cni, name: &str, publish: &[Publish]) -> Self {
        let netns = host.netns(name);
        let wish = publish.iter().cloned().fold(network.attachment(&netns), Attachment::publish);
        let attachment = wish.added();
        let server = serve(&netns, name, 80);
        Self { netns, attachment, _server: server }
    }

    fn address(&self) -> IpAddr {
        self.attachment.address()
    }
}

/// Two containers of `subnets` reach each other, their gateway, the host and the world, which
/// sees the host's address; the host reaches them.
fn containers_are_connected(subnets: &[&str]) {
    let (host, outside, web) = with_outside(subnets);
    let one = Container::on(&host, &web, "one", &[]);
    let two = Container::on(&host, &web, "two", &[]);
    let _world = serve(&*outside, "world", 80);
    assert_eq!(one.attachment.addresses().len(), subnets.len());

    for (mine, yours) in one.attachment.addresses().into_iter().zip(two.attachment.addresses()) {
        let (world, host_address, gateway): (IpAddr, IpAddr, IpAddr) = match mine {
            IpAddr::V4(_) => (Outside::V4, Outside::HOST_V4, [10, 20, 0, 1].into()),
            IpAddr::V6(_) => (Outside::V6, Outside::HOST_V6, "fd20::1".parse().unwrap()),
        };
        ping(&one.netns, yours);
        ping(&one.netns, gateway);
        ping(&host, mine);
        let answer = fetch(&one.netns, yours, 80).unwrap();
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("two", mine), "a neighbour sees the true source");
        let answer = fetch(&two.netns, world, 80).unwrap();
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", host_address), "the world sees the host");
    }
    one.attachment.del().unwrap();
    two.attachment.del().unwrap();
}

#[test]
fn two_containers_on_ipv4() {
    containers_are_connected(V4);
}

#[test]
fn two_containers_on_ipv6() {
    containers_are_connected(V6);
}

#[test]
fn two_containers_on_both() {
    containers_are_connected(DUAL);
}

#[test]
fn two_networks_on_one_host_are_not_masqueraded_to_each_other() {
    let (host, _outside, web) = with_outside(V4);
    let db = host.cni(Network::bridge("db", &["10.30.0.0/24"]));
    let one = Container::on(&host, &web, "one", &[]);
    let two = Container::on(&host, &db, "two", &[]);
    let answer = fetch(&one.netns, two.address(), 80).unwrap();
    assert_eq!(answer.client.ip(), one.address());
}

#[test]
fn a_container_on_two_networks_has_both() {
    let (host, _outside, web) = with_outside(V4);
    let mut db = Network::bridge("db", &["10.30.0.0/24"]);
    db = db.with("ipam", serde_json::json!({ "type": "host-local", "subnet": "10.30.0.0/24" }));
    let db = host.cni(db);
    let one = Container::on(&host, &web, "one", &[]);
    let second = db.attachment(&one.netns).interface("eth1").added();
    let other = Container::on(&host, &db, "other", &[]);
    assert_eq!(who_answers(&one.netns, other.address(), 80), "other");
    second.del().unwrap();
    assert_eq!(who_answers(&host, one.address(), 80), "one");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let (host, outside, web) = with_outside(V4);
    let one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80)]);
    let two = Container::on(&host, &web, "two", &[]);
    let gateway = IpAddr::from([10, 20, 0, 1]);

    let answer = fetch(&*outside, Outside::HOST_V4, 8080).expect("from outside");
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("one", Outside::V4), "with its true source");
    assert_eq!(who_answers(&*outside, Outside::HOST_OTHER_V4, 8080), "one");
    assert_eq!(who_answers(&host, Outside::HOST_V4, 8080), "one", "from the host by its address");
    assert_eq!(who_answers(&host, gateway, 8080), "one", "from the host by its address on the bridge");
    assert_eq!(who_answers(&host, LOOPBACK, 8080), "one", "from the host over 127.0.0.1");
    assert_eq!(who_answers(&one.netns, Outside::HOST_V4, 8080), "one", "from the container itself");
    assert_eq!(who_answers(&one.netns, gateway, 8080), "one", "from the container itself, by the gateway");
    assert_eq!(who_answers(&two.netns, Outside::HOST_V4, 8080), "one", "from a neighbour");
    assert_eq!(who_answers(&two.netns, gateway, 8080), "one", "from a neighbour, by the gateway");

    one.attachment.del().unwrap();
    nobody_answers(&*outside, Outside::HOST_V4, 8080);
    nobody_answers(&host, LOOPBACK, 8080);
}

#[test]
fn a_published_port_is_reached_over_ipv6() {
    let (host, outside, web) = with_outside(DUAL);
    let one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80)]);
    let two = Container::on(&host, &web, "two", &[]);
    let gateway: IpAddr = "fd20::1".parse().unwrap();

    let answer = fetch(&*outside, Outside::HOST_V6, 8080).expect("from outside");
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("one", Outside::V6), "with its true source");
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one", "and over IPv4");
    assert_eq!(who_answers(&host, Outside::HOST_V6, 8080), "one", "from the host by its address");
    assert_eq!(who_answers(&one.netns, Outside::HOST_V6, 8080), "one", "from the container itself");
    assert_eq!(who_answers(&two.netns, gateway, 8080), "one", "from a neighbour");
}

#[test]
fn another_network_reaches_a_published_port() {
    let (host, _outside, web) = with_outside(V4);
    let db = host.cni(Network::bridge("db", &["10.30.0.0/24"]));
    let _one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80)]);
    let two = Container::on(&host, &db, "two", &[]);
    assert_eq!(who_answers(&two.netns, Outside::HOST_V4, 8080), "one");
}

#[test]
fn a_port_published_on_one_address_is_not_on_the_others() {
    let (host, outside, web) = with_outside(V4);
    let one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80).on(Outside::HOST_OTHER_V4)]);
    let two = Container::on(&host, &web, "two", &[Publish::tcp(8080, 80).on(Outside::HOST_V4)]);
    assert_eq!(who_answers(&*outside, Outside::HOST_OTHER_V4, 8080), "one");
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "two");
    assert_eq!(who_answers(&host, Outside::HOST_OTHER_V4, 8080), "one");
    assert_eq!(who_answers(&one.netns, Outside::HOST_OTHER_V4, 8080), "one");
    two.attachment.del().unwrap();
    nobody_answers(&*outside, Outside::HOST_V4, 8080);
    nobody_answers(&host, LOOPBACK, 8080);
    assert_eq!(who_answers(&*outside, Outside::HOST_OTHER_V4, 8080), "one");
}

#[test]
fn several_ports_and_a_run_of_them() {
    let (host, outside, web) = with_outside(V4);
    // Runtimes write a range as one entry a port.
    let mut ports: Vec<_> = (0..8).map(|offset| Publish::tcp(9000 + offset, 80)).collect();
    ports.push(Publish::udp(9000, 80));
    let _one = Container::on(&host, &web, "one", &ports);
    for port in 9000..9008 {
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, port), "one");
    }
    nobody_answers(&*outside, Outside::HOST_V4, 9008);
    assert_eq!(Udp::open(&*outside, false).ask(Outside::HOST_V4, 9000).unwrap().server, "one");
}

#[test]
fn udp_is_published() {
    let (host, outside, web) = with_outside(DUAL);
    let one = Container::on(&host, &web, "one", &[Publish::udp(5353, 80)]);
    let answer = Udp::open(&*outside, false).ask(Outside::HOST_V4, 5353).expect("from outside");
    assert_eq!((answer.server.as_str(), answer.client.ip()), ("one", Outside::V4));
    assert_eq!(Udp::open(&*outside, true).ask(Outside::HOST_V6, 5353).unwrap().server, "one");
    assert_eq!(Udp::open(&host, false).ask(Outside::HOST_V4, 5353).unwrap().server, "one");
    assert_eq!(Udp::open(&host, false).ask(LOOPBACK, 5353).unwrap().server, "one");
    assert_eq!(Udp::open(&one.netns, false).ask(Outside::HOST_V4, 5353).unwrap().server, "one");
    nobody_answers(&*outside, Outside::HOST_V4, 5353);
}

#[test]
fn sctp_is_published() {
    let (host, outside, web) = with_outside(V4);
    let one = Container::on(&host, &web, "one", &[Publish::tcp(3868, 80).protocol("sctp")]);
    let association = traffic::sctp_init(&*outside, &one.netns, Outside::HOST_V4, 3868);
    match association {
        Ok(port) => assert_eq!(port, 80, "the container gets the packet at its own port"),
        Err(reason) if !traffic::kernel_tracks_sctp(&host) => skip!("the kernel does not track SCTP: {reason}"),
        Err(reason) => panic!("the SCTP packet did not arrive: {reason}"),
    }
}

#[test]
fn a_port_published_on_loopback_cannot_be_reached_from_another_machine() {
    let (host, outside, web) = with_outside(V4);
    let _one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80).on(LOOPBACK), Publish::tcp(8081, 80)]);
    let two = Container::on(&host, &web, "two", &[]);
    assert_eq!(who_answers(&host, LOOPBACK, 8080), "one");
    assert_eq!(who_answers(&host, LOOPBACK, 8081), "one");
    nobody_answers(&*outside, Outside::HOST_V4, 8080);

    // An attacker on the wire sends to 127.0.0.1 by way of the host; some hosts even have
    // route_localnet on their uplink (kube-proxy sets it).
    host.run("sysctl -qw net.ipv4.conf.uplink.route_localnet=1");
    for (attacker, link, gateway) in [(&*outside, "uplink", "198.51.100.1"), (&two.netns, "eth0", "10.20.0.1")] {
        attacker.run(&format!(
            "sysctl -qw net.ipv4.conf.all.route_localnet=1
             ip link set lo down
             ip route replace 127.0.0.0/8 via {gateway} dev {link}"
        ));
        nobody_answers(attacker, LOOPBACK, 8080);
        nobody_answers(attacker, LOOPBACK, 8081);
    }
    assert_eq!(who_answers(&host, LOOPBACK, 8080), "one", "and the host still reaches it");
}

#[test]
fn only_traffic_for_the_host_is_caught() {
    let (host, outside, web) = with_outside(DUAL);
    let _one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80), Publish::udp(8080, 80)]);
    let two = Container::on(&host, &web, "two", &[]);
    let _world = serve(&*outside, "world", 8080);
    let _neighbour = serve(&two.netns, "two", 8080);
    assert_eq!(who_answers(&two.netns, Outside::V4, 8080), "world", "a container's way out is not a way in");
    assert_eq!(who_answers(&two.netns, Outside::V6, 8080), "world");
    assert_eq!(Udp::open(&two.netns, false).ask(Outside::V4, 8080).unwrap().server, "world");
    assert_eq!(who_answers(&host, Outside::V4, 8080), "world", "nor is the host's own");
    assert_eq!(who_answers(&host, two.address(), 8080), "two", "nor what goes to a neighbour");
    // What is routed through the host to a container is that container's.
    outside.run("ip route add 10.20.0.0/24 via 198.51.100.1");
    assert_eq!(who_answers(&*outside, two.address(), 8080), "two");
}

#[test]
fn a_taken_host_port_is_refused_and_named() {
    let (host, outside, web) = with_outside(V4);
    let one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80)]);
    let before = host.snapshot();
    let other = host.netns("two");
    let mut second = web.attachment(&other).publish(Publish::tcp(8080, 80));
    let failure = second.add().expect_err("the port is taken");
    assert!(failure.says("8080") && failure.says("one"), "names the port and its holder: {failure}");
    host.run("ip netns del two");
    before.assert_same(&host.snapshot(), "after a refused ADD");
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    one.attachment.check().unwrap();
}

#[test]
fn a_port_on_every_address_and_the_same_on_one_exclude_each_other() {
    let (host, _outside, web) = with_outside(V4);
    let _one = Container::on(&host, &web, "one", &[Publish::tcp(8080, 80)]);
    let other = host.netns("two");
    let failure = web.attachment(&other).publish(Publish::tcp(8080, 80).on(Outside::HOST_V4)).add();
    let failure = failure.expect_err("8080 is taken on every address");
    assert!(failure.says("8080") && failure.says("one"), "{failure}");
    let _three = Container::on(&host, &web, "three", &[Publish::tcp(8081, 80).on(Outside::HOST_V4)]);
    let failure =
        web.attachment(&other).publish(Publish::tcp(8081, 80)).add().expect_err("8081 is taken on one address");
    assert!(failure.says("8081") && failure.says("three"), "{failure}");
}

#[test]
fn a_new_container_gets_its_udp_traffic_at_once() {
    let (host, outside, web) = with_outside(V4);
    // A client that never tires keeps a conntrack entry alive.
    let client = Udp::open(&*outside, false);
    client.probe(Outside::HOST_V4, 5353).expect_err("nobody is there yet");
    let one = Container::on(&host, &web, "one", &[Publish::udp(5353, 80)]);
    assert_eq!(client.ask(Outside::HOST_V4, 5353).expect("the old entry is gone").server, "one");
    one.attachment.del().unwrap();
    let _two = Container::on(&host, &web, "two", &[Publish::udp(5353, 80)]);
    assert_eq!(client.ask(Outside::HOST_V4, 5353).expect("so is the first container's").server, "two");
}

#[test]
fn isolated_ports_reach_the_host_and_not_each_other() {
    let (host, outside, _) = with_outside(V4);
    let web = host.cni(Network::bridge("web", V4).with("portIsolation", serde_json::json!(true)));
    let one = Container::on(&host, &web, "one", &[]);
    let two = Container::on(&host, &web, "two", &[]);
    let _world = serve(&*outside, "world", 80);
    nobody_answers(&one.netns, two.address(), 80);
    assert_eq!(who_answers(&host, one.address(), 80), "one");
    assert_eq!(who_answers(&one.netns, Outside::V4, 80), "world");
}

/// A neighbour that knows an address well follows it to its next holder, whose MAC is another.
fn an_address_that_moves_is_announced(subnet: &str, address: &str) {
    let (host, _outside, web) = with_outside(&[subnet]);
    let one = Container::on(&host, &web, "one", &[]);
    let (first, second) = (host.netns("first"), host.netns("second"));
    let wish = |netns: &Netns, mac: &str| {
        web.attachment(netns).args(&format!("IgnoreUnknown=1;IP={address};MAC=02:00:00:00:00:{mac}")).added()
    };
    let holder = wish(&first, "01");
    ping(&one.netns, holder.address());
    holder.del().unwrap();
    // The kernel asks again before it gives up on an entry that it has doubts about.
    one.netns.run(&format!(
        "ip neigh change {address} dev eth0 nud permanent; ip neigh change {address} dev eth0 nud reachable"
    ));
    let holder = wish(&second, "02");
    ping(&one.netns, holder.address());
}

#[test]
fn an_ipv4_address_that_moves_is_announced() {
    an_address_that_moves_is_announced("10.20.0.0/24", "10.20.0.77");
}

#[test]
fn an_ipv6_address_that_moves_is_announced() {
    an_address_that_moves_is_announced("fd20::/64", "fd20::77");
}

#[test]
fn without_ipam_there_is_a_link_and_no_address() {
    let host = Host::new();
    let plain = host.cni(Network::new("plain", serde_json::json!({ "type": "bridge", "bridge": "plain" })));
    let (one, two) = (host.netns("one"), host.netns("two"));
    let first = plain.attachment(&one).added();
    let _second = plain.attachment(&two).added();
    first.check().unwrap();
    one.run("ip addr add 10.9.0.1/24 dev eth0");
    two.run("ip addr add 10.9.0.2/24 dev eth0");
    ping(&one, [10, 9, 0, 2]);
}

/// A bridge whose link-local address goes through detection asks for no neighbour, and IPv6
/// traffic that comes by the host waits for a second or more. Without detection the kernel's own
/// work queue takes a few milliseconds.
#[test]
fn ipv6_does_not_wait_for_detection() {
    let (host, _outside, web) = with_outside(DUAL);
    let one = Container::on(&host, &web, "one", &[]);
    let added = Instant::now();
    while !(host.run("ip -6 addr show dev web tentative") + &one.netns.run("ip -6 addr show dev eth0 tentative"))
        .is_empty()
    {
        assert!(
            added.elapsed() < Duration::from_millis(500),
            "still detecting: {}",
            host.run("ip -6 addr show dev web")
        );
    }
}

#[test]
fn only_the_containers_end_of_a_pair_has_addresses() {
    let host = Host::new();
    let settings = |mtu| serde_json::json!({ "type": "bridge", "bridge": "plain", "mtu": mtu });
    let netns = host.netns("one");
    // Below 1280 bytes (RFC 8200) there is no IPv6 on a link, and nothing to be said about it.
    for mtu in [1500, 1200] {
        let attachment = host.cni(Network::new("plain", settings(mtu))).attachment(&netns).added();
        let veth = attachment.host_interface();
        assert_eq!(host.run(&format!("ip -6 addr show dev {veth}")), "", "MTU {mtu}");
        let of_container = netns.run("ip -6 addr show dev eth0 scope link");
        assert_eq!(of_container.contains("fe80::"), mtu == 1500, "MTU {mtu}: {of_container:?}");
        attachment.check().unwrap();
        attachment.del().unwrap();
    }
}

#[test]
fn a_result_has_what_was_made() {
    let (host, _outside, web) = with_outside(DUAL);
    let one = Container::on(&host, &web, "one", &[]);
    let result = one.attachment.result();
    let text =
        |key: &str| result["interfaces"].as_array().unwrap().iter().map(|link| link[key].clone()).collect::<Vec<_>>();
    let names = text("name");
    assert_eq!(names.len(), 3, "bridge, host end, container end: {result:#}");
    assert_eq!((names[0].as_str(), names[2].as_str()), (Some("web"), Some("eth0")));
    assert_eq!(result["interfaces"][2]["sandbox"], one.netns.path());
    let mac = one.netns.run("cat /sys/class/net/eth0/address 2>/dev/null || ip -br link show eth0 | awk '{print $3}'");
    assert_eq!(result["interfaces"][2]["mac"], mac.trim());
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 2);
    }
    let gateways: Vec<IpAddr> =
        result["ips"].as_array().unwrap().iter().map(|ip| ip["gateway"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(gateways, [IpAddr::from([10, 20, 0, 1]), IpAddr::from(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1))]);
}
