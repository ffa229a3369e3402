//! Who reaches whom, by packets: every level of `isolation`, `internal`, and the administrator's own
//! chain, over IPv4 and IPv6.

use std::net::IpAddr;

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Server, Udp, nobody_answers, serve, who_answers};
use netcore_tests::{Attachment, Host, Netns, Network, Outside, Publish};
use serde_json::{Value, json};

/// A container that serves port 80 under its name.
struct Container {
    netns: Netns,
    attachment: Attachment,
    _server: Server,
}

impl Container {
    /// Its address of one family.
    fn address(&self, v6: bool) -> IpAddr {
        self.attachment.addresses().into_iter().find(|address| address.is_ipv6() == v6).expect("an address")
    }
}

/// A host with two networks, `web` with two containers, of which `web-1` publishes its port as 8080,
/// and `db` with one; and an outside that has routes to all containers.
struct World {
    host: Host,
    outside: Outside,
    web: [Container; 2],
    db: Container,
    _world: Server,
}

const FAMILIES: [bool; 2] = [false, true];

impl World {
    fn new(web_keys: &[(&str, Value)], db_keys: &[(&str, Value)]) -> Self {
        let host = Host::new();
        let outside = host.outside();
        outside.run(
            "ip route add 10.20.0.0/24 via 198.51.100.1; ip route add 10.30.0.0/24 via 198.51.100.1
             ip -6 route add fd20::/64 via 2001:db8:51::1; ip -6 route add fd30::/64 via 2001:db8:51::1",
        );
        let network = |name: &str, subnets: &[&str], keys: &[(&str, Value)]| {
            let plain = Network::bridge(name, subnets);
            host.cni(keys.iter().fold(plain, |network, (key, value)| network.with(key, value.clone())))
        };
        let web = network("web", &["10.20.0.0/24", "fd20::/64"], web_keys);
        let db = network("db", &["10.30.0.0/24", "fd30::/64"], db_keys);
        let container = |cni: &netcore_tests::Cni, name: &str, publish: Option<Publish>| {
            let netns = host.netns(name);
            let attachment = publish.into_iter().fold(cni.attachment(&netns), Attachment::publish).added();
            let server = serve(&netns, name, 80);
            Container { netns, attachment, _server: server }
        };
        let publish = |port| Some(Publish::tcp(port, 80));
        let containers = [container(&web, "web-1", publish(8080)), container(&web, "web-2", None)];
        let db = container(&db, "db-1", None);
        let world = serve(&*outside, "world", 7000);
        Self { web: containers, db, outside, _world: world, host }
    }

    /// What works at every level: neighbours, the host, the way out and back.
    #[track_caller]
    fn works_as_always(&self) {
        for v6 in FAMILIES {
            let [one, two] = &self.web;
            assert_eq!(who_answers(&two.netns, one.address(v6), 80), "web-1", "a neighbour");
            assert_eq!(who_answers(&self.host, one.address(v6), 80), "web-1", "the host");
            assert_eq!(who_answers(&one.netns, if v6 { Outside::V6 } else { Outside::V4 }, 7000), "world");
            assert_eq!(who_answers(&self.db.netns, if v6 { Outside::V6 } else { Outside::V4 }, 7000), "world");
        }
        self.is_published();
    }

    /// The published port answers everybody, by the host's address.
    #[track_caller]
    fn is_published(&self) {
        for v6 in FAMILIES {
            let address = if v6 { Outside::HOST_V6 } else { Outside::HOST_V4 };
            assert_eq!(who_answers(&self.web[0].netns, address, 8080), "web-1", "from itself");
            assert_eq!(who_answers(&self.web[1].netns, address, 8080), "web-1", "from a neighbour");
        }
        self.is_published_elsewhere();
    }

    #[track_caller]
    fn is_published_elsewhere(&self) {
        for v6 in FAMILIES {
            let address = if v6 { Outside::HOST_V6 } else { Outside::HOST_V4 };
            assert_eq!(who_answers(&*self.outside, address, 8080), "web-1", "from outside");
            assert_eq!(who_answers(&self.host, address, 8080), "web-1", "from the host");
            assert_eq!(who_answers(&self.db.netns, address, 8080), "web-1", "from another network");
        }
    }

    /// From `from` straight to the first container of `web`.
    #[track_caller]
    fn reaches_web(&self, from: &Netns, expected: bool) {
        for v6 in FAMILIES {
            let address = self.web[0].address(v6);
            if expected {
                assert_eq!(who_answers(from, address, 80), "web-1");
            } else {
                nobody_answers(from, address, 80);
                assert!(Udp::open(from, v6).probe(address, 80).is_err(), "nor over UDP");
            }
        }
    }
}

#[test]
fn open_is_what_a_configuration_has_that_says_nothing() {
    let world = World::new(&[], &[]);
    world.works_as_always();
    world.reaches_web(&world.db.netns, true);
    world.reaches_web(&world.outside, true);
}

#[test]
fn containers_of_other_networks_do_not_reach_an_isolated_one() {
    for (key, value) in [("isolation", "network"), ("ingressPolicy", "same-bridge")] {
        let world = World::new(&[(key, json!(value))], &[]);
        world.works_as_always();
        world.reaches_web(&world.db.netns, false);
        world.reaches_web(&world.outside, true);
        for v6 in FAMILIES {
            assert_eq!(who_answers(&world.web[0].netns, world.db.address(v6), 80), "db-1", "the other is open");
        }
    }
}

#[test]
fn a_network_without_masquerade_or_ports_is_another_network_too() {
    let world = World::new(&[("isolation", json!("network"))], &[("ipMasq", json!(false))]);
    world.reaches_web(&world.db.netns, false);
}

#[test]
fn nobody_reaches_an_unpublished_port_of_a_strict_network() {
    let world = World::new(&[("isolation", json!("strict"))], &[]);
    world.works_as_always();
    world.reaches_web(&world.db.netns, false);
    world.reaches_web(&world.outside, false);
    // Nor one that is published, by another way than the host's address.
    for v6 in FAMILIES {
        nobody_answers(&*world.outside, world.web[1].address(v6), 80);
    }
}

#[test]
fn isolated_containers_do_not_reach_their_neighbours_either() {
    let world = World::new(&[("ingressPolicy", json!("isolated"))], &[]);
    world.is_published_elsewhere();
    world.reaches_web(&world.web[1].netns, false);
    world.reaches_web(&world.db.netns, false);
    world.reaches_web(&world.outside, true);
}

#[test]
fn an_internal_network_has_no_way_out_nor_in() {
    let world = World::new(&[("internal", json!(true))], &[]);
    let [one, two] = &world.web;
    for v6 in FAMILIES {
        assert_eq!(who_answers(&two.netns, one.address(v6), 80), "web-1", "a neighbour");
        assert_eq!(who_answers(&world.host, one.address(v6), 80), "web-1", "the host");
        // Also for whoever knows the way.
        let (gateway, out) = if v6 { ("fd20::1", Outside::V6) } else { ("10.20.0.1", Outside::V4) };
        let family = if v6 { "-6" } else { "-4" };
        one.netns.run(&format!("ip {family} route replace default via {gateway}"));
        nobody_answers(&one.netns, out, 7000);
        nobody_answers(&one.netns, world.db.address(v6), 80);
        nobody_answers(&*world.outside, if v6 { Outside::HOST_V6 } else { Outside::HOST_V4 }, 8080);
    }
    world.reaches_web(&world.db.netns, false);
    world.reaches_web(&world.outside, false);
    for v6 in FAMILIES {
        assert_eq!(who_answers(&world.db.netns, if v6 { Outside::V6 } else { Outside::V4 }, 7000), "world");
    }
}

#[test]
fn frames_on_a_bridge_pass_also_where_the_firewall_sees_them() {
    let world = World::new(&[("isolation", json!("strict"))], &[]);
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !world.host.try_run(&format!("test -e {switch}")).status.success() {
        netcore_tests::skip!("the kernel has no br_netfilter");
    }
    world.host.run("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1");
    world.reaches_web(&world.web[1].netns, true);
    world.is_published();
    world.reaches_web(&world.db.netns, false);
    world.reaches_web(&world.outside, false);
}

#[test]
fn what_is_missing_is_named_and_comes_back() {
    let world = World::new(&[("isolation", json!("strict"))], &[("internal", json!(true))]);
    for (damage, named) in [
        ("nft flush set inet netcore isolated", ["web", "isolation from other networks of web", "missing"]),
        ("nft flush set inet netcore closed", ["web", "isolation from outside of web", "missing"]),
        ("nft flush set inet netcore internal", ["db", "isolation from both sides of db", "missing"]),
        ("nft flush set inet netcore within", ["web", "traffic within web", "missing"]),
        ("nft flush chain inet netcore forward", ["host", "firewall table inet netcore", "from another network"]),
        ("nft flush ruleset", ["host", "firewall table inet netcore", "missing"]),
    ] {
        world.host.run(damage);
        if !damage.contains("within") {
            world.web[0].attachment.check().and(world.db.attachment.check()).expect_err("CHECK notices");
        }
        assert!(netctl(&world.host, "repair-chains --check").ended(1).says(&named), "{damage}");
        netctl(&world.host, "repair-chains").ended(0);
        netctl(&world.host, "repair-chains --check").ended(0);
        world.web[0].attachment.check().unwrap();
        world.reaches_web(&world.outside, false);
        world.reaches_web(&world.db.netns, false);
        world.reaches_web(&world.web[1].netns, true);
    }
}

#[test]
fn the_administrators_chain_has_the_first_word_and_survives_repair() {
    let world = World::new(&[("isolation", json!("strict"))], &[]);
    world.host.run(
        "nft add rule inet netcore user ip saddr 198.51.100.2 tcp dport 80 accept
         nft add rule inet netcore user ip6 saddr 2001:db8:51::2 drop",
    );
    let let_in_and_out = || {
        assert_eq!(who_answers(&*world.outside, world.web[1].address(false), 80), "web-2", "let in");
        nobody_answers(&*world.outside, Outside::HOST_V6, 8080);
        assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
    };
    let_in_and_out();
    netctl(&world.host, "repair-chains --check").ended(0);
    for damage in ["nft flush chain inet netcore forward", "nft flush chain inet netcore publish"] {
        world.host.run(damage);
        netctl(&world.host, "repair-chains").ended(0);
        let_in_and_out();
    }
}

#[test]
fn a_barrier_stands_until_nobody_asks_for_it() {
    let host = Host::new();
    let web = |isolation: &str| {
        let web = Network::bridge("web", &["10.20.0.0/24"]);
        host.cni(web.with("isolation", json!(isolation)))
    };
    let (one, two, three) = (host.netns("one"), host.netns("two"), host.netns("three"));
    let isolated = || host.run("nft list set inet netcore isolated").contains("\"web\"");
    let first = web("strict").attachment(&one).added();
    // The configuration is edited, and containers are replaced one by one.
    let second = web("open").attachment(&two).added();
    assert!(isolated(), "the first asks for it");
    first.check().unwrap();
    second.check().unwrap();
    first.del().unwrap();
    assert!(!isolated(), "nobody does");
    second.check().unwrap();
    let third = web("network").attachment(&three).added();
    assert!(isolated());
    second.del().unwrap();
    third.check().unwrap();
    assert!(isolated());
    third.del().unwrap();
    assert!(!isolated());
}
