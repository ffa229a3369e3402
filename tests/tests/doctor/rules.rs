//! Rules of everybody's: named as those who made them know them, and got past without taking any away.

use netcore_tests::firewalld::{Backend, Firewalld};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{nobody_answers, serve, who_answers};
use netcore_tests::{Host, Network, Outside, Publish, skip};
use serde_json::json;

use super::{ALL, Fault, HOST, IN, LOCAL, OUT, SIDEWAYS, SUBNETS, World, inside, on_host, prove};

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

/// Where iptables is the firewall, the same is said of its chains.
#[test]
fn under_the_iptables_backend_it_is_the_same() {
    let network = json!({ "type": "bridge", "bridge": "web", "isDefaultGateway": true, "ipMasq": true,
        "firewallBackend": "iptables", "capabilities": { "portMappings": true },
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": SUBNETS[0] }], [{ "subnet": SUBNETS[1] }]] } });
    let world = World::on(Host::new(), Network::new("web", network));
    for traffic in ALL {
        assert!((traffic.from)(&world).asks(traffic.to, traffic.port), "no answer to {}", traffic.flow);
        world.passes(traffic.flow);
    }
    for fault in [
        on_host("iptables -t nat -F NETCORE-DNAT", &IN, &["publish 8080/tcp → 10.20.0.2:80 (iptables-", "missing"]),
        on_host("iptables -t nat -F; iptables -t nat -X", &OUT, &["host:", "missing"]),
        on_host("iptables -F; iptables -X; iptables -P FORWARD DROP", &IN, &["the policy of chain FORWARD in table"]),
    ] {
        prove(&world, &fault);
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
    let told = netctl(&world.host, "doctor inner").ended(3);
    assert!(told.complaint.contains("nothing is published of inner"), "{}", told.complaint);
    netctl(&world.host, "doctor apart").ended(0);
    let rule = "nft add rule inet netcore user ip saddr 198.51.100.0/24 tcp dport 80 drop";
    prove(&world, &on_host(rule, &IN, &["of chain user in table inet netcore drops it"]));
}

/// firewalld, by its zones and in its own words.
#[test]
fn what_firewalld_rejects_is_named_by_its_zone() {
    if let Some(reason) = Firewalld::missing() {
        skip!("{reason}");
    }
    for backend in Backend::ALL {
        let world = World::on(Host::with_processes(), Network::bridge("web", SUBNETS));
        let _server = serve(&world.host, "host", 7777);
        let _firewalld = Firewalld::on(&world.host, backend);
        // What is published is translated, which is reason enough for firewalld.
        assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
        world.passes(IN.flow);
        // In iptables, we let our own pass by ourselves.
        let out = match backend {
            Backend::Iptables => "netctl repair-chains",
            Backend::Nftables => "firewall-cmd --zone=netcore --change-interface=web",
        };
        for (stops, what) in [(&OUT, out), (&HOST, "--add-port=7777/tcp")] {
            assert!(!(stops.from)(&world).asks(stops.to, stops.port), "{backend:?}: {}", stops.flow);
            let (code, told, cure) = world.diagnose(stops.flow);
            assert_eq!(code, 1, "{backend:?}: {told}");
            assert!(told.contains("which is of zone public of firewalld, rejects it"), "{backend:?}: {told}");
            let cure = cure.expect("a command");
            assert!(cure.contains(what), "{backend:?}: {cure}");
            world.cure(&cure);
            assert!((stops.from)(&world).asks(stops.to, stops.port), "{backend:?}: `{cure}` is no cure");
            world.passes(stops.flow);
        }
    }
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
    // Neither is a way that cannot be followed.
    let lan = json!({ "type": "macvlan", "master": "uplink", "mode": "vepa",
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100" }]] } });
    let lan = world.host.cni(Network::new("lan", lan));
    let _attached = ["lan-1", "lan-2"].map(|name| lan.attachment(&world.host.netns(name)).added());
    let told = netctl(&world.host, "doctor --flow 'lan-1->lan-2:80'").ended(3);
    assert!(told.says(&["doubt", "whether the switch behind uplink sends frames back"]), "{}", told.text);
}
