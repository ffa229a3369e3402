//! What is missing, switched off or wrong, on the host and in the container.

use std::io::Write;
use std::net::TcpListener;

use netcore_tests::traffic::{Udp, nobody_answers, serve, who_answers};
use netcore_tests::{Outside, Publish};

use super::{Fault, IN, IN6, LOCAL, LOOPBACK, OUT, OUT6, SIDE, SIDEWAYS, World, inside, on_host, prove};

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
