//! What was made is missed when it is gone, and goes whatever else has gone.

use netcore_tests::features::Feature;
use netcore_tests::traffic::ping;
use serde_json::json;

use super::{HOST, Lan, network, nothing_left};

#[test]
fn check_names_any_single_thing_that_is_missing() {
    let lan = Lan::new();
    let network = lan.network(json!({ "mtu": 1400, "bcqueuelen": 2000 }));
    for (damage, words) in [
        ("ip addr del 192.0.2.100/24 dev eth0", &["192.0.2.100/24"][..]),
        ("ip addr del fd40::100/64 dev eth0", &["fd40::100/64"]),
        ("ip route del default", &["0.0.0.0/0", "192.0.2.9"]),
        ("ip -6 route del default", &["::/0", "fd40::9"]),
        ("ip link set eth0 down", &["eth0", "down"]),
        ("ip link set eth0 mtu 1300", &["eth0", "1300", "1400"]),
        ("ip link set eth0 address 02:00:00:00:00:99", &["eth0", "02:00:00:00:00:99"]),
        ("ip link set eth0 type macvlan mode private", &["eth0", "private", "bridge"]),
        ("ip link set eth0 type macvlan bcqueuelen 10", &["eth0", "bcqueuelen", "10", "2000"]),
        ("ip link set eth0 down; ip link set eth0 name eth9; ip link set eth9 up", &["eth0", "missing"]),
        ("ip link del eth0", &["eth0", "missing"]),
    ] {
        // The same address each time.
        lan.host.run("rm -rf /var/lib/cni/networks");
        let netns = lan.host.netns("box");
        let attachment = network.attachment(&netns).added();
        attachment.check().unwrap_or_else(|failure| panic!("before `{damage}`: {failure}"));
        netns.run(damage);
        let failure = attachment.check().expect_err(damage);
        let missing: Vec<_> = words.iter().filter(|word| !failure.says(word)).collect();
        assert!(missing.is_empty(), "`{damage}`: does not name {missing:?}: {failure}");
        attachment.del().unwrap_or_else(|failure| panic!("DEL after `{damage}`: {failure}"));
        netns.remove();
    }
}

/// The same for what the host has of a network, and for the VLAN that was made below it.
#[test]
fn check_names_any_single_thing_of_the_hosts_that_is_missing() {
    let lan = Lan::new();
    let before = lan.host.snapshot();
    let vlan = Feature::Vlan.missing().is_none();
    let on_eth0: &[(&str, &[&str])] = &[
        ("ip route del 192.0.2.100 dev SHIM", &["route 192.0.2.100/32", "SHIM", "missing"]),
        ("ip -6 route del fd40::100 dev SHIM", &["route fd40::100/128", "SHIM", "missing"]),
        ("ip addr del 192.0.2.1/32 dev SHIM", &["address 192.0.2.1/32", "SHIM", "missing"]),
        ("ip addr del fd40::1/128 dev SHIM", &["address fd40::1/128", "SHIM", "missing"]),
        ("sysctl -qw net.ipv4.conf.SHIM.arp_filter=0", &["net.ipv4.conf.SHIM.arp_filter"]),
        ("ip link set SHIM down", &["SHIM", "state is down"]),
        ("ip link set SHIM type macvlan mode private", &["SHIM", "mode is private"]),
        ("ip link set SHIM alias ''", &["SHIM", "alias"]),
        ("ip link del SHIM", &["link SHIM (host) on eth0", "missing"]),
        ("ip link del eth0", &["eth0", "missing"]),
    ];
    let on_vlan: &[(&str, &[&str])] = &[
        ("ip link set eth0.10 down", &["VLAN 10 of eth0 as eth0.10", "state is down"]),
        ("ip link del eth0.10", &["VLAN 10 of eth0 as eth0.10", "missing"]),
    ];
    let cases = on_vlan.iter().filter(|_| vlan).map(|case| ("eth0.10", case));
    for (master, (damage, words)) in cases.chain(on_eth0.iter().map(|case| ("eth0", case))) {
        lan.host.run("rm -rf /var/lib/cni/networks");
        let settings = json!({ "master": master, "hostAccess": true, "hostAddresses": ["192.0.2.1", "fd40::1"] });
        let network = lan.network(settings);
        let netns = lan.host.netns("box");
        let attachment = network.attachment(&netns).added();
        attachment.check().unwrap_or_else(|failure| panic!("before `{damage}`: {failure}"));
        let shim = lan.host.run("ip -br link show type macvlan | cut -d@ -f1");
        let named = |text: &str| text.replace("SHIM", shim.trim());
        lan.host.run(&named(damage));
        let failure = attachment.check().expect_err(damage);
        let missing: Vec<_> = words.iter().map(|word| named(word)).filter(|word| !failure.says(word)).collect();
        assert!(missing.is_empty(), "`{damage}`: does not name {missing:?}: {failure}");
        attachment.del().unwrap_or_else(|failure| panic!("DEL after `{damage}`: {failure}"));
        netns.remove();
        match *damage {
            "ip link del eth0" => {}
            // Without our mark it is not ours to remove.
            damage if damage.contains("alias") => drop(lan.host.run(&named("ip link del SHIM"))),
            _ => nothing_left(&before, &lan.host),
        }
    }
}

#[test]
fn gc_keeps_the_survivors_and_removes_the_rest_and_what_they_shared() {
    let lan = Lan::new();
    let before = lan.host.snapshot();
    let settings = json!({ "hostAccess": true });
    let network = lan.host.cni(self::network("lan", settings).version("1.1.0"));
    let [stays, goes, gone] = ["stays", "goes", "gone"].map(|name| lan.host.netns(name));
    let [kept, _left, _lost] = [&stays, &goes, &gone].map(|netns| network.attachment(netns).added());
    gone.remove();
    network.gc(&[&kept]).unwrap();
    kept.check().unwrap();
    assert_eq!(goes.run("ip -o link show type macvlan"), "");
    let routes = lan.host.run("ip route show proto 78");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    ping(&stays, HOST);
    network.gc(&[]).unwrap();
    assert_eq!(stays.run("ip -o link show type macvlan"), "");
    stays.remove();
    goes.remove();
    nothing_left(&before, &lan.host);
}

#[test]
fn del_succeeds_whatever_is_gone() {
    let lan = Lan::new();
    let before = lan.host.snapshot();
    let network = lan.network(json!({ "hostAccess": true }));
    let netns = lan.host.netns("no-record");
    let attachment = network.attachment(&netns).added();
    lan.host.run("rm -rf /run/netcore");
    attachment.without_result().del().unwrap();
    assert_eq!(netns.run("ip -o link show type macvlan"), "", "the mark is enough to find it");
    netns.remove();
    nothing_left(&before, &lan.host);

    let netns = lan.host.netns("no-namespace");
    let attachment = network.attachment(&netns).added();
    netns.remove();
    attachment.del().unwrap();
    nothing_left(&before, &lan.host);

    let netns = lan.host.netns("no-environment");
    let attachment = network.attachment(&netns).added();
    attachment.without_netns().del().unwrap();
    netns.remove();
    nothing_left(&before, &lan.host);

    let netns = lan.host.netns("no-master");
    let attachment = network.attachment(&netns).added();
    lan.host.run("ip link del eth0");
    assert!(attachment.check().expect_err("the master is gone").says("eth0"));
    attachment.del().unwrap();
    let after = lan.host.snapshot();
    assert_eq!(after.count("file /run/netcore") + after.count("file /var/lib/cni"), 0, "{after}");
}

/// Its name is the container's to change, its mark is not.
#[test]
fn a_link_that_was_renamed_is_missed_by_check_and_found_by_del() {
    let lan = Lan::new();
    let before = lan.host.snapshot();
    let network = lan.network(json!({ "hostAccess": true }));
    let netns = lan.host.netns("box");
    let attachment = network.attachment(&netns).added();
    netns.run("ip link set eth0 down; ip link set eth0 name wan; ip link set wan up; ip link add eth0 type bridge");
    assert!(attachment.check().expect_err("eth0 is wan").says("eth0"));
    attachment.del().unwrap();
    assert_eq!(netns.run("ip -o link show type macvlan"), "", "ours is gone");
    netns.run("ip link show eth0"); // and that of somebody else is not
    netns.remove();
    nothing_left(&before, &lan.host);
}
