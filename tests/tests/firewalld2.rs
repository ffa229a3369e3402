//! Beside a firewalld that lets through nothing but its own forward-ports
//! (`StrictForwardPorts=yes`). Run by `make test-firewalld2`, where there is one that knows the word.

use netcore_tests::firewalld::{Backend, Event, Firewalld, World};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::nobody_answers;
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
/// it through.
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
