//! The same of containers on a link of the host's: whom the mode lets them reach, and the host only by a link
//! of its own.

use std::net::{IpAddr, Ipv4Addr};

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Server, serve};
use netcore_tests::{Host, Netns, Network, Outside};
use serde_json::{Value, json};

use super::{Sender, cure, diagnose, passes};

/// Beyond the gateway.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// A host whose `uplink` containers share: `lan-1` and `lan-2` in mode bridge, `near-1` with the host beside it,
/// `shy-1` in mode private.
struct Lan {
    host: Host,
    outside: Outside,
    containers: Vec<(Netns, IpAddr)>,
    servers: Vec<Server>,
}

impl Lan {
    fn new() -> Self {
        let host = Host::new();
        let outside = host.outside();
        outside.run("ip addr add 203.0.113.9/32 dev lo");
        let mut lan = Self { host, outside, containers: Vec::new(), servers: Vec::new() };
        lan.attach("lan", 100, json!({}), &["lan-1", "lan-2"]);
        lan.attach("near", 120, json!({ "hostAccess": true }), &["near-1"]);
        lan.attach("shy", 140, json!({ "mode": "private" }), &["shy-1"]);
        lan.servers.push(serve(&*lan.outside, "outside", 443));
        lan.servers.push(serve(&lan.host, "host", 7001));
        lan
    }

    fn attach(&mut self, name: &str, first: u8, settings: Value, containers: &[&str]) {
        let range = |prefix: &str, length: u8| {
            json!([{
                "subnet": format!("{prefix}0/{length}"), "gateway": format!("{prefix}2"),
                "rangeStart": format!("{prefix}{first}"), "rangeEnd": format!("{prefix}{}", first + 9),
            }])
        };
        let ipam = json!({
            "type": "host-local",
            "ranges": [range("198.51.100.", 24), range("2001:db8:51::", 64)],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        });
        let network = Network::new(name, json!({ "type": "macvlan", "master": "uplink", "ipam": ipam }));
        let settings = settings.as_object().cloned().unwrap_or_default();
        let network =
            self.host.cni(settings.into_iter().fold(network, |network, (key, value)| network.with(&key, value)));
        for name in containers {
            let netns = self.host.netns(name);
            let address = network.attachment(&netns).added().address();
            self.servers.push(serve(&netns, name, 80));
            self.containers.push((netns, address));
        }
    }

    fn container(&self, name: &str) -> &(Netns, IpAddr) {
        self.containers.iter().find(|(netns, _)| netns.name() == name).expect("one of those")
    }

    /// Who sends, and where to: `FROM→TO:PORT`, as `doctor` is asked about it.
    fn ends(&self, flow: &str) -> (Box<dyn Sender + '_>, IpAddr, u16) {
        let (from, rest) = flow.split_once('→').expect("an arrow");
        let (to, port) = rest.rsplit_once(':').expect("a port");
        let from: Box<dyn Sender> = match from {
            "host" => Box::new(&self.host),
            "outside" => Box::new(&*self.outside),
            name => Box::new(&self.container(name).0),
        };
        let to = match to {
            "host" => Outside::HOST_V4,
            "outside" => FAR,
            name => name.parse().unwrap_or_else(|_| self.container(name).1),
        };
        (from, to, port.parse().expect("a number"))
    }

    fn is_answered(&self, flow: &str) -> bool {
        let (from, to, port) = self.ends(flow);
        from.asks(to, port)
    }

    #[track_caller]
    fn is_heard_by_nobody(&self, flow: &str) {
        let (from, to, port) = self.ends(flow);
        from.is_heard_by_nobody(to, port);
    }
}

#[test]
fn who_is_reached_is_said_to_be() {
    let lan = Lan::new();
    for flow in [
        "lan-1→lan-2:80",
        "lan-1→near-1:80",
        "near-1→lan-1:80",
        "lan-1→outside:443",
        "lan-1→198.51.100.2:443",
        "lan-1→2001:db8:51::2:443",
        "shy-1→198.51.100.2:443",
        "outside→lan-1:80",
        "outside→shy-1:80",
        "near-1→host:7001",
        "near-1→2001:db8:51::1:7001",
        "host→near-1:80",
    ] {
        assert!(lan.is_answered(flow), "no answer: {flow}");
        passes(&lan.host, flow);
    }
    for (flow, named) in [
        ("host→lan-1:80", "the host and its macvlan containers do not reach each other over uplink"),
        ("lan-1→host:7001", "the host and its macvlan containers do not reach each other over uplink"),
        ("lan-1→2001:db8:51::1:7001", "the host and its macvlan containers do not reach each other over uplink"),
        ("shy-1→lan-1:80", "mode private keeps containers on uplink from each other"),
        ("lan-1→shy-1:80", "mode private keeps containers on uplink from each other"),
        ("lan-1→lan-2:81", "container lan-2: \"nobody listens on port 81/tcp\""),
    ] {
        lan.is_heard_by_nobody(flow);
        let (code, told, _) = diagnose(&lan.host, flow);
        assert!(code == 1 && told.contains(named), "{flow}: {told}");
    }
    // Nobody has to ask for each.
    for arguments in ["doctor", "doctor lan-1"] {
        let told = netctl(&lan.host, arguments).ended(0);
        assert!(told.says(&["lan-1→outside:443/tcp", "passes"]), "{}", told.text);
    }
    // The host's rules for what it passes on are not on this way.
    lan.host.run(
        "nft add table inet f; nft add chain inet f forward '{ type filter hook forward priority 0; policy drop; }'",
    );
    assert!(lan.is_answered("lan-1→outside:443"));
    passes(&lan.host, "lan-1→outside:443");
}

/// Has somebody drop what comes by the master.
fn dropped(table: &str, what: &str) -> String {
    format!(
        "nft add table netdev {table}
         nft add chain netdev {table} in '{{ type filter hook ingress device uplink priority 0; }}'
         nft add rule netdev {table} in {what} drop"
    )
}

#[test]
fn what_stops_it_is_named_and_its_cure_cures() {
    let lan = Lan::new();
    let near = lan.container("near-1").1;
    let beside = lan.host.run("ip -br link show type macvlan | sed -n 's/@.*//; s/ .*//; p'");
    let beside = beside.trim();
    for (place, done, flow, named) in [
        ("lan-2", "ip link set eth0 down", "lan-1→lan-2:80", "link eth0 is down"),
        ("lan-1", "ip route del default", "lan-1→outside:443", "no route to 203.0.113.1"),
        ("lan-2", "ip addr flush dev eth0", "lan-1→lan-2:80", "address 198.51.100.101/24 is missing"),
        ("lan-1", "ip link set eth0 type macvlan mode private", "lan-2→lan-1:80", "mode"),
        (
            "lan-1",
            "nft add table inet f; nft add chain inet f in '{ type filter hook input priority 0; }'; nft add rule inet f in tcp dport 80 drop",
            "outside→lan-1:80",
            "of chain in in table inet f drops it",
        ),
        // What goes from one link to another comes by the master, too.
        ("host", &dropped("f", "ip daddr 198.51.100.100 tcp dport 80"), "outside→lan-1:80", "table netdev f drops it"),
        ("host", &dropped("g", "ip daddr 198.51.100.101 tcp dport 80"), "lan-1→lan-2:80", "table netdev g drops it"),
        ("host", &dropped("h", "ip daddr 198.51.100.120 tcp dport 80"), "host→near-1:80", "table netdev h drops it"),
        ("host", &dropped("i", "tcp dport 7001"), "near-1→host:7001", "table netdev i drops it"),
        ("host", "ip link set uplink down", "lan-1→198.51.100.2:443", "link uplink is down"),
        ("host", &format!("ip link set {beside} down"), "near-1→host:7001", beside),
        ("host", &format!("ip link del {beside}"), "host→near-1:80", beside),
        ("host", &format!("ip route del {near} dev {beside}"), "host→near-1:80", "route 198.51.100.120/32"),
    ] {
        assert!(lan.is_answered(flow), "before `{done}`: no answer: {flow}");
        passes(&lan.host, flow);
        match place {
            "host" => lan.host.run(done),
            name => lan.container(name).0.run(done),
        };
        lan.is_heard_by_nobody(flow);
        let mut told = Vec::new();
        for _ in 0..3 {
            let (code, text, command) = diagnose(&lan.host, flow);
            if code == 0 {
                break;
            }
            assert!(code == 1 && (!told.is_empty() || text.contains(named)), "after `{done}`: {text}");
            told.push(text);
            cure(&lan.host, &command.unwrap_or_else(|| panic!("after `{done}`: no command: {told:?}")));
        }
        assert!(!told.is_empty(), "after `{done}`: nothing is found");
        assert!(lan.is_answered(flow), "`{done}` is not cured: {told:?}");
        passes(&lan.host, flow);
    }
    // Nothing on the host cures what is on the other side.
    lan.outside.run("ip link set uplink down");
    lan.is_heard_by_nobody("lan-1→outside:443");
    let (code, told, cure) = diagnose(&lan.host, "lan-1→outside:443");
    assert!(code == 1 && cure.is_none() && told.contains("link uplink has no carrier"), "{told}");
}
