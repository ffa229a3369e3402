//! The host's switches: what an attachment switches on is switched back behind the last network,
//! and what the operator has switched off for single interfaces stays off, whoever throws the switch
//! of all.

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{fetch, serve};
use netcore_tests::watch::{PATIENCE, Watching};
use netcore_tests::{Cni, Host, Netns, Network, Outside, Publish, wait_for};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];
const OF_ALL: &str = "net.ipv4.ip_forward";
const OF_SIDE: &str = "net.ipv4.conf.side.forwarding";
const V6_OF_ALL: &str = "net.ipv6.conf.all.forwarding";

fn read(host: &Host, name: &str) -> String {
    host.run(&format!("sysctl -n {name}")).trim().to_owned()
}

/// A host with a way out and another interface.
fn host() -> (Host, Outside) {
    let host = Host::new();
    let outside = host.outside();
    host.run("ip link add side type veth peer name side0; ip link set side up; ip link set side0 up");
    (host, outside)
}

fn passing(host: &Host, name: &str) -> Cni {
    host.cni(Network::bridge(name, SUBNETS).with("removeEmptyBridge", json!(true)))
}

#[test]
fn a_host_that_did_not_forward_does_not_when_the_last_network_has_gone() {
    let (host, _outside) = host();
    let before = host.snapshot();
    let web = passing(&host, "web");
    let db = host.cni(Network::bridge("db", &["10.30.0.0/24"]).with("removeEmptyBridge", json!(true)));
    let (one, other) = (host.netns("web-1"), host.netns("db-1"));
    let (first, second) = (web.attachment(&one).added(), db.attachment(&other).added());
    assert_eq!([OF_ALL, V6_OF_ALL].map(|name| read(&host, name)), ["1", "1"]);
    first.del().unwrap();
    assert_eq!([OF_ALL, V6_OF_ALL].map(|name| read(&host, name)), ["1", "1"], "another network needs it");
    second.del().unwrap();
    assert_eq!([OF_ALL, V6_OF_ALL].map(|name| read(&host, name)), ["0", "0"]);
    one.remove();
    other.remove();
    let after = host.snapshot();
    assert!(!before.difference(&after).contains("sysctl"), "{}", before.difference(&after));
    host.run("test ! -e /run/netcore.switches");
}

#[test]
fn what_others_have_switched_since_is_theirs() {
    let (host, _outside) = host();
    let web = passing(&host, "web");
    let attachment = web.attachment(&host.netns("web-1")).added();
    host.run(&format!("sysctl -qw {V6_OF_ALL}=2"));
    attachment.del().unwrap();
    assert_eq!([OF_ALL, V6_OF_ALL].map(|name| read(&host, name)), ["0", "2"]);
}

#[test]
fn what_is_off_for_one_interface_stays_off() {
    let (host, outside) = host();
    host.run(&format!("sysctl -qw {OF_ALL}=1 {OF_SIDE}=0"));
    let web = passing(&host, "web");
    let container: Netns = host.netns("web-1");
    let attachment = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
    let _server = serve(&container, "web-1", 80);
    assert_eq!(read(&host, OF_SIDE), "0", "after ADD");
    host.run(&format!("sysctl -qw {OF_ALL}=0"));
    let told = netctl(&host, "repair-chains").ended(0);
    assert!(told.says(&["host", OF_SIDE, "switched on with all", "restored"]), "{}", told.text);
    assert_eq!([OF_ALL, OF_SIDE].map(|name| read(&host, name)), ["1", "0"], "after a repair");
    fetch(&*outside, Outside::HOST_V4, 8080).expect("an answer");

    let watching = Watching::on(&host);
    let mended = || watching.events("looked").iter().filter(|look| look.to_string().contains(OF_SIDE)).count();
    for thrown in [format!("{OF_ALL}=0 {OF_ALL}=1"), format!("{OF_ALL}=0")] {
        let before = mended();
        host.run(&format!("sysctl -qw {thrown}"));
        wait_for(&format!("{thrown} is mended"), PATIENCE, || mended() > before);
        assert_eq!([OF_ALL, OF_SIDE].map(|name| read(&host, name)), ["1", "0"], "after {thrown}");
        fetch(&*outside, Outside::HOST_V4, 8080).expect("an answer");
    }
    // Somebody means it, and what the watch hears of its own doing, and looks at, is not taken for somebody's.
    host.run(&format!("sysctl -qw {OF_SIDE}=1"));
    wait_for("a look after the one that mended", PATIENCE, || {
        let looks = watching.events("looked");
        looks.last().is_some_and(|look| !look.to_string().contains(OF_SIDE))
    });
    assert_eq!(read(&host, OF_SIDE), "1");
    netctl(&host, "repair-chains").ended(0);
    assert_eq!(read(&host, OF_SIDE), "1");
    attachment.del().unwrap();
    assert_eq!(read(&host, OF_ALL), "0", "that is what somebody made it, and we switched on again");
}

#[test]
fn who_forwards_between_single_interfaces_only_goes_on_doing_so() {
    let (host, outside) = host();
    host.run("sysctl -qw net.ipv4.conf.uplink.forwarding=1");
    let web = passing(&host, "web");
    let container = host.netns("web-1");
    let attachment = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
    let _server = serve(&container, "web-1", 80);
    fetch(&*outside, Outside::HOST_V4, 8080).expect("an answer");
    assert_eq!([OF_ALL, OF_SIDE].map(|name| read(&host, name)), ["1", "0"]);
    attachment.del().unwrap();
    assert_eq!([OF_ALL, OF_SIDE, "net.ipv4.conf.uplink.forwarding"].map(|name| read(&host, name)), ["0", "0", "1"]);
}

#[test]
fn what_is_persisted_is_complete_stays_behind_the_last_network_and_can_be_taken_back() {
    let (host, _outside) = host();
    host.run(&format!("mkdir -p /run/etc && mount --bind /run/etc /etc; sysctl -qw {OF_ALL}=1 {OF_SIDE}=0"));
    let web = passing(&host, "web");
    let attachment = web.attachment(&host.netns("web-1")).added();
    netctl(&host, "repair-chains --persist").ended(0);
    let text = host.run("cat /etc/sysctl.d/99-netcore.conf");
    assert!(text.contains("\nnet.ipv4.ip_forward = 1\n"), "{text}");
    host.run(&format!("sysctl -qw {OF_ALL}=0; sysctl -qp /etc/sysctl.d/99-netcore.conf"));
    assert_eq!([OF_ALL, OF_SIDE, V6_OF_ALL].map(|name| read(&host, name)), ["1", "0", "1"], "{text}");
    attachment.del().unwrap();
    assert_eq!(read(&host, V6_OF_ALL), "1", "what is set at every start is not switched back");
    let told = netctl(&host, "repair-chains --unpersist").ended(0);
    assert!(told.says(&["/etc/sysctl.d/99-netcore.conf was removed"]), "{}", told.text);
    host.run("test ! -e /etc/sysctl.d/99-netcore.conf");
    netctl(&host, "repair-chains --unpersist").ended(0);
}
