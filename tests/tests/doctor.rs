//! What `doctor` says is what packets do: for every fault, traffic is sent and does not get through,
//! the fault is named, its cure is run as it was printed, and then the same traffic gets through.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Place, Server, Udp, fetch, nobody_answers, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, binaries, skip, wait_for};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2));

/// A host with a container that publishes a port, a neighbour of it, and the world outside.
struct World {
    host: Host,
    outside: Outside,
    web: Cni,
    container: Netns,
    neighbour: Netns,
    published: Attachment,
    _servers: [Server; 3],
    _other: Attachment,
}

impl World {
    fn new() -> Self {
        Self::on(Host::new())
    }

    fn on(host: Host) -> Self {
        let outside = host.outside();
        let web = host.cni(Network::bridge("web", SUBNETS));
        let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
        let published =
            web.attachment(&container).publish(Publish::tcp(8080, 80)).publish(Publish::udp(8080, 80)).added();
        let other = web.attachment(&neighbour).added();
        let servers =
            [serve(&container, "web-1", 80), serve(&neighbour, "web-2", 80), serve(&*outside, "outside", 443)];
        Self { host, outside, web, container, neighbour, published, _servers: servers, _other: other }
    }

    /// A line with the names of this host's links.
    fn line(&self, text: &str) -> String {
        text.replace("VETH", &self.published.host_interface())
    }

    /// Runs a command as `doctor` printed it.
    fn cure(&self, command: &str) {
        let netctl = binaries::under_test().join("netctl");
        self.host.run(&command.replace("netctl ", &format!("{} ", netctl.display())));
    }

    /// What `doctor` says about one flow: its exit code, what stops it, and the cure.
    #[track_caller]
    fn diagnose(&self, flow: &str) -> (i32, String, Option<String>) {
        let told = netctl(&self.host, &format!("--json doctor --flow '{flow}'"));
        assert!(matches!(told.code, 0 | 1 | 3), "{flow}: {}{}", told.text, told.complaint);
        let diagnosis = &told.json()[0];
        let stopped = &diagnosis["stopped"];
        let text = format!("{}: {} {}", stopped["at"].as_str().unwrap_or("-"), stopped["by"], diagnosis["doubts"]);
        (told.code, text, stopped["cure"]["command"].as_str().map(str::to_owned))
    }

    #[track_caller]
    fn passes(&self, flow: &str) {
        let told = netctl(&self.host, &format!("doctor -v --flow '{flow}'"));
        assert_eq!(told.code, 0, "{flow}:\n{}{}", told.text, told.complaint);
    }
}

/// Traffic, and how `doctor` is asked about it.
struct Traffic {
    flow: &'static str,
    from: fn(&World) -> Box<dyn Sender + '_>,
    to: IpAddr,
    port: u16,
}

/// Anywhere that packets are sent from.
trait Sender {
    fn asks(&self, to: IpAddr, port: u16) -> bool;
    fn is_heard_by_nobody(&self, to: IpAddr, port: u16);
}

impl<P: Place> Sender for &P {
    fn asks(&self, to: IpAddr, port: u16) -> bool {
        fetch(*self, to, port).is_ok()
    }

    fn is_heard_by_nobody(&self, to: IpAddr, port: u16) {
        nobody_answers(*self, to, port);
    }
}

const IN: Traffic =
    Traffic { flow: "outside→host:8080", from: |world| Box::new(&*world.outside), to: Outside::HOST_V4, port: 8080 };
const IN6: Traffic = Traffic { flow: "outside->[2001:db8:51::1]:8080/tcp", to: Outside::HOST_V6, ..IN };
const LOCAL: Traffic =
    Traffic { flow: "host→host:8080", from: |world| Box::new(&world.host), to: LOOPBACK, port: 8080 };
const OUT: Traffic =
    Traffic { flow: "web-1→outside:443", from: |world| Box::new(&world.container), to: Outside::V4, port: 443 };
const OUT6: Traffic = Traffic {
    flow: "web-1→[2001:db8:51::2]:443",
    from: |world| Box::new(&world.container),
    to: Outside::V6,
    port: 443,
};
const SIDEWAYS: Traffic =
    Traffic { flow: "web-2→web-1:80", from: |world| Box::new(&world.neighbour), to: CONTAINER, port: 80 };
const HAIRPIN: Traffic = Traffic {
    flow: "web-2→198.51.100.1:8080",
    from: |world| Box::new(&world.neighbour),
    to: Outside::HOST_V4,
    port: 8080,
};

const SIDE: Traffic = Traffic {
    flow: "203.0.113.9→192.0.2.1:8080",
    from: |world| Box::new(&*world.outside),
    to: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    port: 8080,
};

const HOST: Traffic = Traffic { flow: "outside→host:7777", port: 7777, ..IN };

const ALL: [&Traffic; 7] = [&IN, &IN6, &LOCAL, &OUT, &OUT6, &SIDEWAYS, &HAIRPIN];

/// What somebody does, the traffic that it stops, and what `doctor` says about it.
struct Fault {
    done: &'static str,
    /// In the container instead of on the host.
    inside: bool,
    stops: &'static Traffic,
    named: &'static [&'static str],
}

const fn on_host(done: &'static str, stops: &'static Traffic, named: &'static [&'static str]) -> Fault {
    Fault { done, inside: false, stops, named }
}

const fn inside(done: &'static str, stops: &'static Traffic, named: &'static [&'static str]) -> Fault {
    Fault { done, inside: true, stops, named }
}

/// Breaks, sends, diagnoses, cures as printed, sends again.
#[track_caller]
fn prove(world: &World, fault: &Fault) {
    let Fault { done, stops, named, .. } = fault;
    assert!((stops.from)(world).asks(stops.to, stops.port), "before `{done}`: no answer to {}", stops.flow);
    world.passes(stops.flow);
    let command = world.line(done);
    if fault.inside {
        world.container.run(&command)
    } else {
        world.host.run(&command)
    };
    (stops.from)(world).is_heard_by_nobody(stops.to, stops.port);
    let mut cured = false;
    // What lets a packet in need not let its answer out.
    for _ in 0..3 {
        let (code, told, cure) = world.diagnose(stops.flow);
        if code == 0 {
            break;
        }
        assert_eq!(code, 1, "after `{done}`: {told}");
        let is_named = named.iter().all(|words| told.contains(&world.line(words)));
        assert!(cured || is_named, "after `{done}`: {named:?} not in {told}");
        let cure = cure.unwrap_or_else(|| panic!("after `{done}`: no command in {told}"));
        world.cure(&cure);
        cured = true;
    }
    assert!(cured, "after `{done}`: {} does not pass, and nothing is found", stops.flow);
    assert!((stops.from)(world).asks(stops.to, stops.port), "`{done}` is not cured: no answer to {}", stops.flow);
    world.passes(stops.flow);
}

#[test]
fn what_gets_through_is_said_to() {
    let world = World::new();
    for traffic in ALL {
        assert!((traffic.from)(&world).asks(traffic.to, traffic.port), "no answer to {}", traffic.flow);
        world.passes(traffic.flow);
    }
    let udp = Udp::open(&*world.outside, false);
    udp.ask(Outside::HOST_V4, 8080).unwrap();
    world.passes("outside→host:8080/udp");
    world.passes("outside→web-1:80/udp");
    world.passes("outside→web-1:80");
    world.passes("host→web-1:80");
    world.passes("198.51.100.2->198.51.100.3:8080");
    // And all that should, without asking for anything in particular.
    for arguments in ["doctor", "doctor web", "doctor web-1"] {
        let told = netctl(&world.host, arguments).ended(0);
        assert!(told.says(&["outside→host:8080/tcp", "passes"]), "{}", told.text);
        assert!(told.says(&["web-1→outside:443/tcp", "passes"]), "{}", told.text);
    }
    netctl(&world.host, "doctor nobody").ended(2);
    netctl(&world.host, "doctor --flow nonsense").ended(2);
}

#[test]
fn what_was_ours_and_is_gone_is_named() {
    let world = World::new();
    let faults = [
        on_host("nft delete table inet netcore", &IN, &["host:", "firewall table inet netcore: missing"]),
        on_host("nft flush ruleset", &LOCAL, &["firewall table inet netcore: missing"]),
        on_host("nft flush chain inet netcore publish", &IN, &["firewall table inet netcore"]),
        on_host(
            "nft delete element inet netcore publish4 '{ tcp . 8080 }'",
            &IN,
            &["publish 8080/tcp → 10.20.0.2:80: missing"],
        ),
        on_host(
            "nft delete element inet netcore publish6 '{ tcp . 8080 }'",
            &IN6,
            &["publish 8080/tcp → [fd20::2]:80: missing"],
        ),
        on_host("nft flush set inet netcore masquerade4", &OUT, &["masquerade 10.20.0.2: missing"]),
        on_host("sysctl -qw net.ipv4.ip_forward=0", &IN, &["net.ipv4.ip_forward"]),
        on_host("sysctl -qw net.ipv4.conf.web.forwarding=0", &OUT, &["net.ipv4.conf.web.forwarding"]),
        on_host("sysctl -qw net.ipv6.conf.all.forwarding=0", &IN6, &["net.ipv6.conf.all.forwarding"]),
        on_host("sysctl -qw net.ipv4.conf.web.route_localnet=0", &LOCAL, &["net.ipv4.conf.web.route_localnet"]),
        on_host("ip addr del 10.20.0.1/24 dev web", &IN, &["10.20.0.1/24"]),
        on_host("ip link set web down", &IN, &["bridge web"]),
        on_host("ip link set VETH down", &IN, &["link VETH", "down"]),
        on_host("ip link set VETH nomaster", &IN, &["link VETH", "bridge none"]),
        on_host("ip link del VETH", &IN, &["link VETH", "missing"]),
    ];
    faults.iter().for_each(|fault| prove(&world, fault));
}

#[test]
fn what_is_wrong_on_the_host_and_was_never_ours_is_named() {
    let world = World::new();
    let faults = [
        on_host("sysctl -qw net.ipv4.conf.uplink.forwarding=0", &IN, &["net.ipv4.conf.uplink.forwarding is 0"]),
        on_host("bridge link set dev VETH state 0", &IN, &["lets nothing through port VETH"]),
        on_host(
            "ip neigh replace 10.20.0.2 lladdr 02:00:00:00:00:99 nud permanent dev web",
            &IN,
            &["neighbour 10.20.0.2 on web is set to 02:00:00:00:00:99"],
        ),
    ];
    faults.iter().for_each(|fault| prove(&world, fault));
}

#[test]
fn what_is_wrong_in_the_container_is_named() {
    let world = World::new();
    let faults = [
        inside(
            "ip addr del 10.20.0.2/24 dev eth0; ip route add default dev eth0",
            &IN,
            &["container web-1:", "address 10.20.0.2/24 is missing"],
        ),
        inside("ip route replace default via 10.20.0.3", &IN, &["container web-1:", "route 0.0.0.0/0"]),
        inside("ip route del default", &OUT, &["container web-1:", "no route to 198.51.100.2"]),
        inside("ip -6 route del default", &OUT6, &["container web-1:", "no route to 2001:db8:51::2"]),
        inside("ip link set eth0 down", &SIDEWAYS, &["container web-1:", "link eth0 is down"]),
    ];
    faults.iter().for_each(|fault| prove(&world, fault));
}

#[test]
fn foreign_rules_of_nftables_are_named_by_their_handles() {
    let world = World::new();
    let chain = "nft add table inet admin; nft add chain inet admin guard";
    let faults = [
        (
            "'{ type filter hook forward priority 10; }'; nft add rule inet admin guard tcp dport 80 ct state new drop",
            &IN,
            "rule with handle 2 of chain guard in table inet admin drops it",
        ),
        (
            "'{ type filter hook prerouting priority -150; }'; \
             nft add rule inet admin guard iifname uplink ip daddr 198.51.100.0/24 tcp dport '{ 22, 8000-8100 }' reject",
            &IN,
            "chain guard in table inet admin rejects it",
        ),
        (
            "'{ type filter hook forward priority 0; }'; nft add chain inet admin sub; \
             nft add rule inet admin sub meta nfproto ipv4 counter drop; \
             nft add rule inet admin guard iifname vmap '{ uplink : jump sub }'",
            &IN,
            "of chain sub in table inet admin drops it",
        ),
        (
            "'{ type filter hook forward priority 0; policy drop; }'; nft add rule inet admin guard ct state established accept",
            &OUT,
            "the policy of chain guard in table inet admin drops it",
        ),
        (
            "'{ type filter hook forward priority 0; }'; \
             nft add rule inet admin guard ip saddr 10.20.0.2 ct direction reply drop",
            &IN,
            "chain guard in table inet admin drops the answer",
        ),
        (
            "'{ type filter hook output priority 0; }'; nft add rule inet admin guard oifname lo tcp dport 8000-8999 drop",
            &LOCAL,
            "chain guard in table inet admin drops it",
        ),
    ];
    for (rules, stops, named) in faults {
        let mut rules = rules.to_owned();
        if stops.flow == LOCAL.flow {
            // Before it is translated.
            rules = rules.replace("priority 0", "priority -150");
        }
        let done = format!("{chain} {rules}");
        let fault = Fault { done: Box::leak(done.into_boxed_str()), inside: false, stops, named: &[] };
        let named = Fault { named: Box::leak(Box::new([named])), ..fault };
        prove(&world, &named);
        world.host.run("nft delete table inet admin");
    }
    // In the container, and on the bridge.
    prove(
        &world,
        &inside(
            "nft add table ip own; nft add chain ip own input '{ type filter hook input priority 0; policy drop; }'",
            &SIDEWAYS,
            &["container web-1:", "the policy of chain input in table ip own"],
        ),
    );
    world.container.run("nft flush ruleset");
    let frames = "nft add table bridge admin; nft add chain bridge admin guard '{ type filter hook forward priority 0; }'; \
                  nft add rule bridge admin guard oifname VETH ip daddr 10.20.0.2 drop";
    prove(&world, &on_host(frames, &SIDEWAYS, &["chain guard in table bridge admin drops it"]));
}

#[test]
fn iptables_of_both_kinds_is_named_in_its_own_terms() {
    let world = World::new();
    for kind in ["nft", "legacy"] {
        let done = |rules: &str| -> &'static str {
            Box::leak(rules.replace("iptables", &format!("iptables-{kind}")).into_boxed_str())
        };
        for (rules, stops, named) in [
            ("iptables -P FORWARD DROP", &IN, "the policy of chain FORWARD in table"),
            ("iptables -P FORWARD DROP", &OUT, "the policy of chain FORWARD in table"),
            // By br_netfilter, from one port of the bridge to another.
            ("iptables -P FORWARD DROP", &SIDEWAYS, "the policy of chain FORWARD in table"),
            (
                "iptables -N ADMIN; iptables -A FORWARD -i uplink -j ADMIN; \
                 iptables -A ADMIN -p tcp -m conntrack --ctstate NEW,INVALID -m tcp --dport 80:90 -m comment --comment 'no web' -j REJECT",
                &IN,
                "of chain ADMIN in table",
            ),
            (
                "iptables -t raw -A PREROUTING -p tcp -m multiport --dports 80,8080:8090 ! -i lo -j DROP",
                &IN,
                "of chain PREROUTING in table",
            ),
            (
                "iptables -t nat -I PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination 10.20.0.77:7",
                &IN,
                "sends it to 10.20.0.77:7",
            ),
        ] {
            prove(&world, &Fault { done: done(rules), inside: false, stops, named: Box::leak(Box::new([named])) });
            let flush = "iptables -P FORWARD ACCEPT; for table in filter nat raw; do iptables -t $table -F; iptables -t $table -X; done";
            world.host.run(&flush.replace("iptables", &format!("iptables-{kind}")));
        }
    }
}

#[test]
fn without_br_netfilter_bridged_packets_are_not_asked_about() {
    let world = World::new();
    world.host.run("iptables-nft -P FORWARD DROP; sysctl -qw net.bridge.bridge-nf-call-iptables=0");
    assert!((SIDEWAYS.from)(&world).asks(SIDEWAYS.to, SIDEWAYS.port));
    world.passes(SIDEWAYS.flow);
    nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
    assert_eq!(world.diagnose(IN.flow).0, 1);
}

/// What the network's own configuration drops is not to be mended in the firewall.
#[test]
fn a_container_that_sends_as_somebody_else_is_named() {
    let host = Host::new();
    let network = Network::new(
        "strict",
        json!({ "type": "bridge", "bridge": "strict0", "isDefaultGateway": true, "ipMasq": true, "macspoofchk": true,
                "ipam": { "type": "host-local", "subnet": "10.30.0.0/24" } }),
    );
    let outside = host.outside();
    let _server = serve(&*outside, "outside", 443);
    let container = host.netns("liar");
    let _attachment = host.cni(network).attachment(&container).added();
    assert_eq!(who_answers(&container, Outside::V4, 443), "outside");
    netctl(&host, "doctor liar").ended(0);
    container.run(
        "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up; \
                   ip route add default via 10.30.0.1",
    );
    nobody_answers(&container, Outside::V4, 443);
    let told = netctl(&host, "doctor liar").ended(1);
    assert!(told.says(&["in table bridge netcore drops it"]), "{}", told.text);
    assert!(told.says(&["advice", "macspoofchk"]), "{}", told.text);
}

/// What a network is kept from is kept from it, and said so; what the administrator adds is his.
#[test]
fn isolation_is_named_as_what_the_configuration_asks_for() {
    let world = World::new();
    let network = |name: &str, subnet: &str, key: &str, value: serde_json::Value| {
        let mut plugin = json!({ "type": "bridge", "bridge": name, "isDefaultGateway": true, "ipMasq": true,
            "capabilities": { "portMappings": true }, "ipam": { "type": "host-local", "subnet": subnet } });
        plugin[key] = value;
        world.host.cni(Network::new(name, plugin))
    };
    let (apart, inner) = (
        network("apart", "10.40.0.0/24", "isolation", json!("network")),
        network("inner", "10.50.0.0/24", "internal", json!(true)),
    );
    let (one, two) = (world.host.netns("apart-1"), world.host.netns("inner-1"));
    let address = apart.attachment(&one).publish(Publish::tcp(9003, 80)).added().address();
    let _inner = inner.attachment(&two).added();
    let _server = serve(&one, "apart-1", 80);
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 9003), "apart-1");
    world.passes("outside→apart-1:80");
    nobody_answers(&world.container, address, 80);
    let told = netctl(&world.host, "doctor --flow 'web-1→apart-1:80'").ended(1);
    assert!(told.says(&["of chain forward in table inet netcore drops it"]), "{}", told.text);
    assert!(told.says(&["advice", "isolation"]), "{}", told.text);
    nobody_answers(&two, Outside::V4, 443);
    let told = netctl(&world.host, "doctor --flow 'inner-1→outside:443'").ended(1);
    assert!(told.says(&["no route to 198.51.100.2: network inner is internal"]), "{}", told.text);
    // What should get through does.
    netctl(&world.host, "doctor inner").ended(0);
    netctl(&world.host, "doctor apart").ended(0);
    let rule = "nft add rule inet netcore user ip saddr 198.51.100.0/24 tcp dport 80 drop";
    prove(&world, &on_host(rule, &IN, &["of chain user in table inet netcore drops it"]));
}

/// firewalld, by its zones and in its own words.
#[test]
fn what_firewalld_rejects_is_named_by_its_zone() {
    for program in ["firewalld", "firewall-cmd", "dbus-daemon"] {
        if !binaries::installed(program) {
            skip!("{program} is not installed");
        }
    }
    for backend in ["nftables", "iptables"] {
        let world = World::on(Host::with_processes());
        let _server = serve(&world.host, "host", 7777);
        world.host.run(&format!(
            "mkdir -p /run/firewalld /run/log /run/dbus; cp -a /etc/firewalld/. /run/firewalld/
             mount --bind /run/firewalld /etc/firewalld; mount --bind /run/log /var/log
             sed -i 's/^FirewallBackend=.*/FirewallBackend={backend}/' /etc/firewalld/firewalld.conf
             dbus-daemon --system --fork; firewalld --nofork --nopid >/run/firewalld.log 2>&1 &"
        ));
        wait_for("firewalld runs", Duration::from_secs(60), || {
            world.host.try_run("firewall-cmd --state").status.success()
        });
        // What is published is translated, which is reason enough for firewalld.
        assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
        world.passes(IN.flow);
        for (stops, what) in
            [(&OUT, "firewall-cmd --zone=trusted --change-interface=web"), (&HOST, "--add-port=7777/tcp")]
        {
            assert!(!(stops.from)(&world).asks(stops.to, stops.port), "{backend}: {}", stops.flow);
            let (code, told, cure) = world.diagnose(stops.flow);
            assert_eq!(code, 1, "{backend}: {told}");
            assert!(told.contains("which is of zone public of firewalld, rejects it"), "{backend}: {told}");
            let cure = cure.expect("a command");
            assert!(cure.contains(what), "{backend}: {cure}");
            world.cure(&cure);
            assert!((stops.from)(&world).asks(stops.to, stops.port), "{backend}: `{cure}` is no cure");
            world.passes(stops.flow);
        }
    }
}

#[test]
fn a_listener_that_is_missing_or_shy_is_named() {
    let world = World::new();
    let netns = world.host.netns("web-3");
    netns.run("ip link set lo up");
    let attachment = world.web.attachment(&netns).publish(Publish::tcp(9001, 81)).publish(Publish::tcp(9002, 82));
    let address = attachment.added().address();
    nobody_answers(&*world.outside, Outside::HOST_V4, 9001);
    let (code, told, _) = world.diagnose("outside→web-3:81");
    assert_eq!(code, 1);
    assert!(told.contains("container web-3: \"nobody listens on port 81/tcp\""), "{told}");
    let _server = serve(&netns, "web-3", 81);
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 9001), "web-3");
    world.passes("outside→web-3:81");

    let _shy = netns.enter(|| TcpListener::bind((LOOPBACK, 82))).unwrap();
    nobody_answers(&*world.outside, Outside::HOST_V4, 9002);
    let (code, told, _) = world.diagnose("outside→web-3:82");
    assert_eq!(code, 1);
    assert!(told.contains("port 82/tcp is listened on at 127.0.0.1 only"), "{told}");
    // As it advises: on the container's own address.
    let open = netns.enter(|| TcpListener::bind((address, 82))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| open.accept().and_then(|(mut client, peer)| write!(client, "web-3 {peer}")));
        assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 9002), "web-3");
    });
    world.passes("outside→web-3:82");
}

#[test]
fn a_port_on_another_address_is_named() {
    let world = World::new();
    let netns = world.host.netns("web-3");
    let _server = serve(&netns, "web-3", 80);
    let _attachment = world.web.attachment(&netns).publish(Publish::tcp(9000, 80).on(Outside::HOST_OTHER_V4)).added();
    nobody_answers(&*world.outside, Outside::HOST_V4, 9000);
    let (code, told, _) = world.diagnose("outside→198.51.100.1:9000");
    assert_eq!(code, 1);
    assert!(told.contains("container web-3 publishes 9000/tcp on 198.51.100.3 only"), "{told}");
    // As it advises.
    assert_eq!(who_answers(&*world.outside, Outside::HOST_OTHER_V4, 9000), "web-3");
    world.passes("outside→198.51.100.3:9000");
    world.passes("outside→web-3:80");
    nobody_answers(&*world.outside, Outside::HOST_V4, 9001);
    let (_, told, _) = world.diagnose("outside→host:9001");
    assert!(told.contains("nobody listens on 198.51.100.1:9001/tcp, and no container publishes it"), "{told}");
}

#[test]
fn the_file_that_switches_forwarding_off_is_named() {
    let world = World::new();
    world.host.run("mkdir -p /run/etc && mount --bind /run/etc /etc && mkdir /etc/sysctl.d");
    world.host.run("printf '# hardening\\nnet.ipv4.ip_forward = 0\\n' > /etc/sysctl.d/99-cis.conf");
    world.host.run("echo net.ipv4.ip_forward=1 > /etc/sysctl.d/10-cloud.conf");
    let named: &[&str] = &["net.ipv4.ip_forward", "line 2 of /etc/sysctl.d/99-cis.conf sets it to 0"];
    prove(&world, &on_host("sysctl -qp /etc/sysctl.d/99-cis.conf", &IN, named));
}

/// What comes by a link that answers would not leave by.
#[test]
fn a_strict_reverse_path_filter_is_named() {
    let world = World::new();
    // The outside sends from an address that is reached by the uplink, over another link.
    world.host.run(
        "ip link add side type veth peer name side netns outside
         ip addr add 192.0.2.1/24 dev side; ip link set side up
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.side.rp_filter=0",
    );
    world.outside.run(
        "ip addr add 192.0.2.2/24 dev side; ip link set side up
         sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.uplink.rp_filter=0
         ip addr add 203.0.113.9/32 dev lo
         ip route replace 192.0.2.1/32 dev side src 203.0.113.9",
    );
    let filter = "sysctl -qw net.ipv4.conf.side.rp_filter=1";
    let named = &["rp_filter of side drops what comes from 203.0.113.9: answers to it leave by uplink"];
    prove(&world, &Fault { done: filter, inside: false, stops: &SIDE, named });
}

/// A client that keeps talking is sent where it was sent before.
#[test]
fn a_remembered_connection_that_leads_elsewhere_is_named() {
    let world = World::new();
    let client = Udp::open(&*world.outside, false);
    world.host.run("nft delete element inet netcore publish4 '{ udp . 8080 }'");
    client.probe(Outside::HOST_V4, 8080).unwrap_err();
    world.host.run(
        "nft add element inet netcore publish4 '{ udp . 8080 comment \"netcore:web/web-1/eth0\" : 10.20.0.2 . 80 }'",
    );
    client.probe(Outside::HOST_V4, 8080).unwrap_err();
    let (code, told, cure) = world.diagnose("outside→host:8080/udp");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("a remembered connection of 198.51.100.2:"), "{told}");
    world.cure(&cure.expect("a command"));
    assert_eq!(client.ask(Outside::HOST_V4, 8080).unwrap().server, "web-1");
    world.passes("outside→host:8080/udp");
}

/// A rule that cannot be evaluated is a doubt, not a verdict.
#[test]
fn what_cannot_be_told_is_said_so() {
    let world = World::new();
    world.host.run(
        "nft add table inet admin; nft add chain inet admin guard '{ type filter hook forward priority 0; }'; \
         nft add rule inet admin guard tcp dport 80 limit rate over 10000/second drop",
    );
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
    let (code, told, _) = world.diagnose(IN.flow);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("rule with handle 2 of chain guard in table inet admin may apply: `limit`"), "{told}");
    // One that is not on the way raises none.
    world.passes(OUT.flow);
}
