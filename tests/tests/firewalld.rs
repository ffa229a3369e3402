//! Beside a real firewalld: it rejects what it does not know, and forgets what it was told. Traffic
//! is fetched, not rules compared.

use std::os::unix::net::UnixListener;

use netcore_tests::firewalld::{Backend, Event, Firewalld, World, bus};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{fetch, nobody_answers, serve, who_answers};
use netcore_tests::watch::{self, Watching};
use netcore_tests::{Attachment, Host, Network, Outside, Publish, skip, wait_for};
use serde_json::json;

macro_rules! needs_firewalld {
    () => {
        if let Some(reason) = Firewalld::missing() {
            skip!("{reason}");
        }
    };
}

/// Whatever becomes of firewalld, a single repair is enough.
fn one_repair_is_enough(backend: Backend) {
    let mut world = World::new(backend);
    world.works();
    world.is_closed();
    world.is_intact();
    for event in Event::ALL {
        println!("after {event:?}:");
        world.firewalld.undergo(event);
        world.repair();
        world.works();
        world.is_closed();
        world.is_intact();
    }
}

#[test]
fn one_repair_is_enough_whatever_becomes_of_it_with_nftables() {
    needs_firewalld!();
    one_repair_is_enough(Backend::Nftables);
}

#[test]
fn one_repair_is_enough_whatever_becomes_of_it_with_iptables() {
    needs_firewalld!();
    one_repair_is_enough(Backend::Iptables);
}

/// Under `netctl watch` nothing has to be called.
fn nothing_has_to_be_called(backend: Backend) {
    let mut world = World::new(backend);
    let watching = Watching::on(&world.host);
    for event in Event::ALL {
        world.firewalld.undergo(event);
        let answers = || {
            [Outside::HOST_V4, Outside::HOST_V6]
                .into_iter()
                .all(|address| fetch(&*world.outside, address, 8080).is_ok())
        };
        wait_for(&format!("the published port answers after {event:?}"), watch::PATIENCE, answers);
        let is_intact = || netctl(&world.host, "repair-chains --check").code == 0;
        wait_for(&format!("everything is there again after {event:?}"), watch::PATIENCE, is_intact);
        world.works();
        world.is_closed();
    }
    drop(watching);
}

#[test]
fn nothing_has_to_be_called_under_watch_with_nftables() {
    needs_firewalld!();
    nothing_has_to_be_called(Backend::Nftables);
}

#[test]
fn nothing_has_to_be_called_under_watch_with_iptables() {
    needs_firewalld!();
    nothing_has_to_be_called(Backend::Iptables);
}

#[test]
fn what_is_ours_is_mended_while_firewalld_has_no_time() {
    needs_firewalld!();
    let world = World::new(Backend::Nftables);
    let watching = Watching::on(&world.host);
    let reasons = |reason: &str| watching.said().contains(reason);
    wait_for("firewalld is listened to", watch::PATIENCE, || reasons("firewalld is listened to"));
    let busy = world.firewalld.held_up();
    world.host.run("nft delete table inet netcore");
    let told = || watching.events("looked").pop().expect("it was listened to");
    let objects = || told()["objects"].as_array().cloned().unwrap_or_default();
    wait_for("the table is back", watch::PATIENCE, || !objects().is_empty());
    // Nobody has waited for firewalld, which would be named as one that does not answer.
    for object in objects() {
        assert_eq!(object["outcome"]["outcome"], "restored", "{object}");
        assert!(!object["object"].as_str().unwrap().contains("firewalld"), "{object}");
    }
    for address in [Outside::HOST_V4, Outside::HOST_V6] {
        assert_eq!(who_answers(&*world.outside, address, 8080), "web-1");
    }
    drop(busy);
    // What firewalld lets through is closed by our table again.
    let closed = || objects().iter().any(|object| object["found"] == "closed to the outside off");
    wait_for("what is firewalld's is looked at", watch::PATIENCE, closed);
    world.works();
    world.is_closed();
    world.is_intact();
}

#[test]
fn a_binding_that_was_lost_is_named_and_comes_back() {
    needs_firewalld!();
    let world = World::new(Backend::Nftables);
    for (damage, found) in [
        ("firewall-cmd --zone=netcore --remove-interface=web", "zone none"),
        ("firewall-cmd --permanent --zone=netcore --remove-interface=web", "permanent zone none"),
        ("nft flush set inet netcore admitted", "closed to the outside off"),
        ("nft delete table inet netcore", "closed to the outside off"),
    ] {
        world.host.run(damage);
        world.published.check().expect_err(damage);
        let told = netctl(&world.host, "repair-chains --check").ended(1);
        assert!(told.says(&["web ", "firewalld zone netcore of web", found]), "`{damage}`: {}", told.text);
        if damage.contains("remove-interface") && !damage.contains("permanent") {
            nobody_answers(&world.container, Outside::V4, 7000);
        }
        world.repair();
        world.works();
        world.is_closed();
        world.is_intact();
    }
    // It is what keeps a reload from cutting the containers off.
    world.firewalld.command("--reload");
    world.works();
}

#[test]
fn a_bridge_is_bound_when_it_is_made_and_unbound_when_it_goes() {
    needs_firewalld!();
    let world = World::new(Backend::Nftables);
    let bound = || world.firewalld.bound();
    assert_eq!(bound(), ("web".to_owned(), "web".to_owned()));
    world.published.del().unwrap();
    assert_eq!(bound(), ("web".to_owned(), "web".to_owned()));
    world.other.del().unwrap();
    assert_eq!(bound(), (String::new(), String::new()));
    assert!(!world.host.run("nft list set inet netcore admitted").contains("web"));
    // And again.
    let again = world.web.attachment(&world.neighbour).added();
    assert_eq!(bound(), ("web".to_owned(), "web".to_owned()));
    again.del().unwrap();
    assert_eq!(bound(), (String::new(), String::new()));
}

#[test]
fn isolation_holds_beside_it() {
    needs_firewalld!();
    let world = World::new(Backend::Nftables);
    let network = |name: &str, subnet: &str, key: &str, value| {
        let network = Network::bridge(name, &[subnet]).with("removeEmptyBridge", json!(true));
        world.host.cni(network.with(key, value))
    };
    let (strict, internal) = (world.host.netns("strict-1"), world.host.netns("internal-1"));
    let in_strict = network("strict", "10.30.0.0/24", "isolation", json!("strict")).attachment(&strict).added();
    let in_internal = network("internal", "10.40.0.0/24", "internal", json!(true)).attachment(&internal).added();
    let _servers = [serve(&strict, "strict-1", 80), serve(&internal, "internal-1", 80)];
    nobody_answers(&world.container, in_strict.address(), 80);
    nobody_answers(&world.container, in_internal.address(), 80);
    assert_eq!(who_answers(&strict, world.published.address(), 80), "web-1", "an open network");
    assert_eq!(who_answers(&strict, Outside::V4, 7000), "outside");
    nobody_answers(&internal, Outside::V4, 7000);
    in_strict.check().unwrap();
    in_internal.check().unwrap();
}

/// Makes `attachment`, which succeeds, and gives back what was complained about.
fn added(attachment: &mut Attachment) -> String {
    let mut said = String::new();
    let result = attachment.add_by(|plugin| {
        let output = plugin.call("ADD");
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        plugin.outcome("ADD", &output)
    });
    result.unwrap_or_else(|failure| panic!("ADD: {failure}"));
    said
}

#[test]
fn an_interface_in_another_zone_stays_there_and_is_warned_about() {
    needs_firewalld!();
    let (host, _outside) = World::host();
    let firewalld = Firewalld::on(&host, Backend::Nftables);
    firewalld.command("--zone=trusted --add-interface=web");
    let web = World::web(&host);
    let netns = host.netns("web-1");
    let mut attachment = web.attachment(&netns);
    let said = added(&mut attachment);
    assert!(said.contains("web is in zone trusted and stays there"), "{said}");
    assert_eq!(firewalld.command("--get-zone-of-interface=web"), "trusted");
    attachment.check().unwrap();
    netctl(&host, "repair-chains --check").ended(0);
    attachment.del().unwrap();
    assert_eq!(firewalld.command("--get-zone-of-interface=web"), "trusted");
}

/// A bridge that goes while firewalld is not there to be told: it is told later.
#[test]
fn a_binding_of_a_bridge_that_is_gone_is_taken_back() {
    needs_firewalld!();
    let mut world = World::new(Backend::Nftables);
    let admins = "--permanent --zone=netcore --add-interface=admins0";
    world.firewalld.command(admins);
    let gone = |world: &World| {
        world.published.del().unwrap();
        world.other.del().unwrap();
        assert!(!world.host.try_run("ip link show web").status.success(), "the bridge is gone");
    };
    let come = |world: &mut World| {
        world.published = world.web.attachment(&world.container).publish(Publish::tcp(8080, 80)).added();
        world.other = world.web.attachment(&world.neighbour).added();
    };
    let bound = |world: &World| world.firewalld.bound().1;
    let left = |world: &mut World| {
        world.firewalld.undergo(Event::Stop);
        gone(world);
        netctl(&world.host, "repair-chains --check").ended(0);
        world.firewalld.undergo(Event::Start);
    };

    left(&mut world);
    assert!(bound(&world).contains("web"), "nobody has told firewalld");
    let told = netctl(&world.host, "repair-chains --check").ended(1);
    assert!(told.says(&["web ", "firewalld zone netcore of web", "left behind"]), "{}", told.text);
    netctl(&world.host, "repair-chains").ended(0);
    assert_eq!(bound(&world), "admins0", "what is not ours stays");
    netctl(&world.host, "repair-chains --check").ended(0);
    // It was not forgotten for a bridge that is there again.
    come(&mut world);
    assert!(bound(&world).contains("web"));
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
    left(&mut world);
    world.web.gc(&[]).unwrap();
    assert_eq!(bound(&world), "admins0", "by GC");

    come(&mut world);
    let _watching = Watching::on(&world.host);
    left(&mut world);
    wait_for("the watch has it taken back", watch::PATIENCE, || bound(&world) == "admins0");

    // One that is asked for is nothing left behind, whatever has become of the bridge.
    come(&mut world);
    world.host.run("ip link del web");
    world.repair();
    assert!(bound(&world).contains("web"));
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8080), "web-1");
    gone(&world);
    assert_eq!(bound(&world), "admins0");
    world.host.run("test -z \"$(ls /var/lib/netcore/firewalld)\"");
}

#[test]
fn what_firewalld_does_not_do_is_said_and_the_rest_is_done() {
    needs_firewalld!();
    for (obstacle, words) in [
        (
            "echo '<whitelist/>' >/etc/firewalld/lockdown-whitelist.xml; firewall-cmd --reload
             firewall-cmd --lockdown-on",
            "ACCESS_DENIED",
        ),
        (
            "rm /usr/lib/firewalld/*/netcore*.xml; firewall-cmd --reload",
            "see that /usr/lib/firewalld/zones/netcore.xml",
        ),
    ] {
        let (host, outside) = World::host();
        let _firewalld = Firewalld::on(&host, Backend::Nftables);
        host.run(obstacle);
        let netns = host.netns("web-1");
        let mut attachment = World::web(&host).attachment(&netns).publish(Publish::tcp(8080, 80));
        let said = added(&mut attachment);
        for half in ["firewalld: bind web to zone netcore: ", "firewalld: bind web permanently to zone netcore: "] {
            assert!(said.lines().any(|line| line.contains(half)), "{half}: {said}");
        }
        assert!(said.contains(words), "{said}");
        let _server = serve(&netns, "web-1", 80);
        // firewalld lets through what is published.
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1");
        host.run("nft delete table inet netcore");
        let told = netctl(&host, "repair-chains").ended(3);
        assert!(told.says(&["firewalld zone netcore of web", "not restored", words]), "{}", told.text);
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1");
        attachment.del().unwrap();
        assert!(host.snapshot().count("link veth") <= 1, "all but the uplink is gone");
    }
}

#[test]
fn a_bus_without_firewalld_is_nothing_to_speak_of() {
    needs_firewalld!();
    let host = Host::with_processes();
    let _bus = bus(&host);
    let netns = host.netns("web-1");
    let mut attachment = World::web(&host).attachment(&netns).publish(Publish::tcp(8080, 80));
    assert_eq!(added(&mut attachment), "");
    attachment.check().unwrap();
    netctl(&host, "repair-chains --check").ended(0);
    attachment.del().unwrap();
}

#[test]
fn a_bus_that_says_nothing_is_given_up_and_the_rest_is_done() {
    let host = Host::new();
    let outside = host.outside();
    let mute = host.enter(|| {
        std::fs::create_dir_all("/run/dbus").unwrap();
        UnixListener::bind("/run/dbus/system_bus_socket").unwrap()
    });
    let netns = host.netns("web-1");
    let mut attachment = World::web(&host).attachment(&netns).publish(Publish::tcp(8080, 80));
    let said = added(&mut attachment);
    assert!(said.contains("firewalld: bind web to zone netcore: no answer in time; see what firewalld"), "{said}");
    let _server = serve(&netns, "web-1", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1");
    drop(mute);
    host.run("rm /run/dbus/system_bus_socket");
    netctl(&host, "repair-chains --check").ended(0);
    attachment.del().unwrap();
}
