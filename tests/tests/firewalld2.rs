//! Beside a firewalld that lets through nothing but its own forward-ports
//! (`StrictForwardPorts=yes`). Run by `make test-firewalld2`, where there is one that knows the word.

use netcore_tests::firewalld::{Backend, Event, Firewalld, World};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{nobody_answers, who_answers};
use netcore_tests::{Host, Outside};

fn world(backend: Backend, strict: bool) -> World {
    let (host, outside) = World::host();
    Firewalld::prepare(&host, backend);
    set_strict(&host, strict);
    let firewalld = Firewalld::start_on(&host);
    World::beside(host, outside, firewalld)
}

fn set_strict(host: &Host, strict: bool) {
    let value = if strict { "yes" } else { "no" };
    host.run(&format!(
        "sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts={value}/' /etc/firewalld/firewalld.conf
         grep -q '^StrictForwardPorts={value}$' /etc/firewalld/firewalld.conf"
    ));
}

fn forward_ports(world: &World) -> usize {
    world.firewalld.command("--zone=netcore --list-rich-rules").lines().filter(|rule| rule.contains("8080")).count()
}

/// What the host itself sends to a published port is not forwarded, and a strict firewalld lets none of
/// it through by itself.
#[track_caller]
fn works(world: &World, strict: bool) {
    if strict { world.works_for_others() } else { world.works() }
}

fn everything_works(backend: Backend, strict: bool) {
    let mut world = world(backend, strict);
    assert_eq!(forward_ports(&world), if strict { 2 } else { 0 }, "one a family");
    works(&world, strict);
    world.is_closed();
    world.is_intact();
    for event in Event::ALL {
        println!("after {event:?}:");
        world.firewalld.undergo(event);
        world.repair();
        works(&world, strict && event != Event::Stop);
        world.is_closed();
        world.is_intact();
    }
    // They have the attachment's lifetime.
    world.published.del().unwrap();
    assert_eq!(forward_ports(&world), 0);
    nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
}

#[test]
fn strict_with_nftables() {
    everything_works(Backend::Nftables, true);
}

#[test]
fn strict_with_iptables() {
    everything_works(Backend::Iptables, true);
}

#[test]
fn not_strict_with_nftables() {
    everything_works(Backend::Nftables, false);
}

#[test]
fn not_strict_with_iptables() {
    everything_works(Backend::Iptables, false);
}

/// A zone's forward-port is for what comes by the zone: firewalld translates none of what the host
/// sends, and being strict it rejects whatever of that anybody has translated. Only a policy from HOST
/// opens that, by the port alone; which is the administrator's to say.
#[test]
fn what_the_host_itself_sends_is_let_through_by_a_policy_of_the_administrators() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let world = world(backend, true);
        let to = world.published.address();
        world.firewalld.command(&format!("--zone=public --add-forward-port=port=9090:proto=tcp:toport=80:toaddr={to}"));
        assert_eq!(
            who_answers(&*world.outside, Outside::HOST_V4, 9090),
            "web-1",
            "{backend:?}: one of firewalld's own"
        );
        nobody_answers(&world.host, Outside::HOST_V4, 9090);
        assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1", "{backend:?}");
        nobody_answers(&world.host, Outside::HOST_V4, 8080);
        nobody_answers(&world.host, [127, 0, 0, 1], 8080);
        if backend == Backend::Nftables {
            let told = netctl(&world.host, "doctor --flow host→host:8080").ended(1);
            assert!(
                told.says(&["filter_OUTPUT_dnat"]) && told.says(&["cure", "StrictForwardPorts=no"]),
                "{}",
                told.text
            );
        }

        // No address that anybody has: what counts is the port.
        let rule = "rule family=ipv4 destination address=192.0.0.8 forward-port port=8080 protocol=tcp to-port=80 \
                    to-addr=192.0.0.8";
        for command in [
            "--permanent --new-policy=host-published",
            "--permanent --policy=host-published --add-ingress-zone=HOST",
            "--permanent --policy=host-published --add-egress-zone=ANY",
            &format!("--permanent --policy=host-published --add-rich-rule='{rule}'"),
            "--reload",
        ] {
            world.firewalld.command(command);
        }
        world.repair();
        assert_eq!(who_answers(&world.host, Outside::HOST_V4, 8080), "web-1", "{backend:?}: by its address");
        assert_eq!(who_answers(&world.host, [127, 0, 0, 1], 8080), "web-1", "{backend:?}: by 127.0.0.1");
        world.works_for_others();
        world.is_closed();
        world.is_intact();
    }
}

#[test]
fn a_firewalld_that_becomes_strict_is_told_by_a_repair() {
    let world = world(Backend::Nftables, false);
    set_strict(&world.host, true);
    world.firewalld.command("--reload");
    nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
    let told = netctl(&world.host, "repair-chains --check").ended(1);
    assert!(told.says(&["web/web-1", "firewalld forward-port 8080/tcp", "missing"]), "{}", told.text);
    world.published.check().expect_err("CHECK says so, too");
    world.repair();
    works(&world, true);
    world.is_intact();
    // And no longer.
    set_strict(&world.host, false);
    world.firewalld.command("--reload");
    world.works();
    world.is_intact();
    assert_eq!(forward_ports(&world), 0);
}
