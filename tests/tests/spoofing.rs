//! With `macspoofchk` and `ipspoofchk`, a container sends from its own addresses or not at all:
//! what is spoofed is dropped and counted, what is honest passes.

use std::net::{Ipv4Addr, Ipv6Addr};

use netcore_tests::frames::{MacBytes, Wire, arp, ethernet, icmp6, ipv4_udp, tagged};
use netcore_tests::traffic::{Udp, fetch, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Network, Outside, Publish};
use serde_json::json;

const DUAL: &[&str] = &["10.20.0.0/24", "fd20::/64"];
/// The first container's addresses.
const MAC: MacBytes = [0x0a, 0x58, 10, 20, 0, 2];
const V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0858, 0x0aff, 0xfe14, 2);
/// Those of somebody else: the gateway, for instance.
const OTHER_MAC: MacBytes = [2, 0, 0, 0, 0, 1];
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1);
const OTHER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NOBODY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NOBODY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

fn guarded(mac: bool, ip: bool) -> Network {
    Network::bridge("web", DUAL).with("macspoofchk", json!(mac)).with("ipspoofchk", json!(ip))
}

fn udp(from: MacBytes, source: Ipv4Addr) -> Vec<u8> {
    ipv4_udp(from, source, Ipv4Addr::BROADCAST, (4000, 4000), b"spoofed")
}

/// Frames in the name of another MAC address, and the rule that drops each.
fn of_another_mac() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a frame from another MAC address", udp(OTHER_MAC, V4)),
        ("a frame from another MAC address", icmp6(OTHER_MAC, V6, 128, V6)),
        ("a frame from another MAC address", ethernet(OTHER_MAC, 0x88b5, b"of no known kind")),
        ("ARP in the name of another MAC address", arp(MAC, OTHER_MAC, V4, OTHER_V4)),
    ]
}

/// Frames in the name of another IP address.
fn of_another_address() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("ARP in the name of another address", arp(MAC, MAC, OTHER_V4, V4)),
        ("ARP in the name of another address", arp(MAC, MAC, OTHER_V4, OTHER_V4)),
        ("ARP that claims another address", arp(MAC, MAC, NOBODY4, OTHER_V4)),
        ("IPv4 from another address", udp(MAC, OTHER_V4)),
        ("IPv4 from another address", tagged(&udp(MAC, OTHER_V4), 7)),
        ("IPv6 from another address", icmp6(MAC, OTHER_V6, 128, V6)),
        ("IPv6 from another address", icmp6(MAC, OTHER_LINK_LOCAL, 134, V6)),
        ("IPv6 from another address", icmp6(MAC, OTHER_V6, SOLICITATION, V6)),
        ("neighbour discovery that claims another address", icmp6(MAC, NOBODY6, SOLICITATION, OTHER_V6)),
        ("neighbour discovery in the name of another address", icmp6(MAC, V6, ADVERTISEMENT, OTHER_V6)),
        ("neighbour discovery in the name of another address", icmp6(MAC, LINK_LOCAL, ADVERTISEMENT, OTHER_LINK_LOCAL)),
        ("an address under two tags", tagged(&tagged(&udp(MAC, OTHER_V4), 7), 8)),
    ]
}

/// What a container sends in its own name, or in nobody's.
fn honest() -> Vec<Vec<u8>> {
    vec![
        udp(MAC, V4),
        arp(MAC, MAC, V4, OTHER_V4),
        arp(MAC, MAC, V4, V4),
        arp(MAC, MAC, NOBODY4, V4),
        // DHCP (RFC 2131).
        ipv4_udp(MAC, NOBODY4, Ipv4Addr::BROADCAST, (68, 67), b"discover"),
        icmp6(MAC, V6, 128, V6),
        icmp6(MAC, V6, SOLICITATION, OTHER_V6),
        icmp6(MAC, V6, ADVERTISEMENT, V6),
        icmp6(MAC, LINK_LOCAL, SOLICITATION, OTHER_V6),
        icmp6(MAC, LINK_LOCAL, ADVERTISEMENT, LINK_LOCAL),
        // Duplicate address detection, and multicast listener reports that go with it.
        icmp6(MAC, NOBODY6, SOLICITATION, V6),
        icmp6(MAC, NOBODY6, SOLICITATION, LINK_LOCAL),
        icmp6(MAC, NOBODY6, 143, LINK_LOCAL),
    ]
}

/// How many frames the rule has dropped.
fn dropped(host: &Host, rule: &str) -> u64 {
    let rules = host.run("nft list table bridge netcore");
    let line = rules.lines().find(|line| line.contains(&format!("\"{rule}\""))).unwrap_or_else(|| panic!("{rules}"));
    let count = line.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no counter in {line}"))
}

/// Containers `one` and `two` on `network`; `one` sends, and `two` listens.
fn pair(host: &Host, network: Network) -> (Cni, Attachment, Wire, Wire) {
    let web = host.cni(network);
    let (one, two) = (host.netns("one"), host.netns("two"));
    let attachment = web.attachment(&one).added();
    let _other = web.attachment(&two).added();
    assert_eq!(attachment.addresses(), [std::net::IpAddr::from(V4), V6.into()]);
    let wires = (Wire::open(&one, "eth0"), Wire::open(&two, "eth0"));
    (web, attachment, wires.0, wires.1)
}

/// Sends each of `spoofed`, none of which may arrive, and each of which its rule has to count.
fn all_are_dropped_and_counted(host: &Host, one: &Wire, two: &Wire, spoofed: Vec<(&'static str, Vec<u8>)>) {
    for (rule, frame) in spoofed {
        let before = dropped(host, rule);
        one.send(&frame);
        // Frames do not overtake one another, so once this one is there the other would be.
        let marker = udp(MAC, V4);
        one.send(&marker);
        assert!(two.heard_before(&marker, std::slice::from_ref(&frame)).is_empty(), "{rule}: {frame:02x?} arrived");
        assert_eq!(dropped(host, rule), before + 1, "{rule} counts {frame:02x?}");
    }
}

fn all_arrive<'a>(one: &Wire, two: &Wire, frames: impl IntoIterator<Item = &'a Vec<u8>>) {
    for frame in frames {
        one.send(frame);
        two.heard_before(frame, &[]);
    }
}

#[test]
fn what_is_spoofed_is_dropped_and_counted_and_what_is_honest_passes() {
    let host = Host::new();
    let (_web, _attachment, one, two) = pair(&host, guarded(true, true));
    all_arrive(&one, &two, &honest());
    all_are_dropped_and_counted(&host, &one, &two, of_another_mac());
    all_are_dropped_and_counted(&host, &one, &two, of_another_address());
    all_arrive(&one, &two, &honest());
}

#[test]
fn each_check_stands_alone_and_without_any_everything_passes() {
    let arrives = |frames: Vec<(&str, Vec<u8>)>| frames.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>();
    let host = Host::new();
    let (_web, _attachment, one, two) = pair(&host, guarded(true, false));
    all_are_dropped_and_counted(&host, &one, &two, of_another_mac());
    // A tag that the wire shows differently is another story's.
    let untagged = |frame: &&Vec<u8>| frame[12..14] != [0x81, 0];
    all_arrive(&one, &two, arrives(of_another_address()).iter().filter(untagged));

    let host = Host::new();
    let (_web, _attachment, one, two) = pair(&host, guarded(false, true));
    all_are_dropped_and_counted(&host, &one, &two, of_another_address());
    all_arrive(&one, &two, &arrives(of_another_mac()));

    let host = Host::new();
    let (_web, _attachment, one, two) = pair(&host, guarded(false, false));
    all_arrive(&one, &two, &arrives(of_another_mac()));
    assert!(!host.run("nft list tables").contains("bridge netcore"), "nothing is made that nobody asked for");
}

#[test]
fn a_container_that_is_checked_is_connected_as_any_other() {
    let host = Host::new();
    let outside = host.outside();
    // Duplicate address detection has to go through, or ADD would not return.
    let web = host.cni(guarded(true, true).with("enabledad", json!(true)));
    let (one, two) = (host.netns("one"), host.netns("two"));
    let attachment = web.attachment(&one).publish(Publish::tcp(8080, 80)).publish(Publish::udp(8080, 80)).added();
    let other = web.attachment(&two).added();
    let _servers = (serve(&one, "one", 80), serve(&two, "two", 80), serve(&*outside, "world", 80));
    for address in other.addresses() {
        ping(&one, address);
        assert_eq!(fetch(&one, address, 80).unwrap().server, "two");
    }
    ping(&one, OTHER_V4);
    ping(&one, OTHER_V6);
    assert_eq!(who_answers(&one, Outside::V4, 80), "world");
    assert_eq!(who_answers(&one, Outside::V6, 80), "world");
    for address in attachment.addresses() {
        assert_eq!(who_answers(&two, address, 80), "one");
    }
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "one");
    assert_eq!(who_answers(&one, Outside::HOST_V4, 8080), "one", "also by way of the host to itself");
    assert_eq!(Udp::open(&*outside, false).ask(Outside::HOST_V4, 8080).unwrap().server, "one");
    // By the addresses the kernel gives by itself, too.
    two.run("ping -c1 -W3 fe80::858:aff:fe14:2%eth0");
    attachment.check().unwrap();
    let rules = host.run("nft list table bridge netcore");
    let drops = rules.lines().filter(|line| line.contains("counter packets"));
    for line in drops {
        assert!(line.contains("counter packets 0 "), "an honest container was not let: {line}");
    }
}

#[test]
fn a_container_without_addresses_has_a_mac_of_its_own() {
    let host = Host::new();
    let network = Network::new("web", json!({ "type": "bridge", "bridge": "web", "macspoofchk": true }));
    let web = host.cni(network);
    let (one, two) = (host.netns("one"), host.netns("two"));
    let attachment = web.attachment(&one).added();
    let _other = web.attachment(&two).added();
    one.run("ip addr add 192.0.2.1/24 dev eth0");
    two.run("ip addr add 192.0.2.2/24 dev eth0");
    ping(&one, Ipv4Addr::new(192, 0, 2, 2));
    one.run("ip link set eth0 address 02:00:00:00:00:99");
    assert!(!one.try_run("ping -c1 -W1 192.0.2.2").status.success(), "another MAC address is not its own");
    attachment.del().unwrap();
}

#[test]
fn check_names_every_element_and_rule() {
    let host = Host::new();
    let web = host.cni(guarded(true, true));
    for (damage, named) in [
        ("flush set bridge netcore mac_checked", "MAC check of VETH"),
        ("flush set bridge netcore address_checked", "address check of VETH"),
        ("flush set bridge netcore macs", "source 0a:58:0a:14:00:"),
        ("flush set bridge netcore addresses4", "source 10.20.0."),
        ("delete element bridge netcore addresses6 { \"VETH\" . GLOBAL }", "source fd20::"),
        ("delete element bridge netcore addresses6 { \"VETH\" . LINKLOCAL }", "source fe80::"),
        ("flush chain bridge netcore macs_of_others", "a frame from another MAC address"),
        ("delete table bridge netcore", "firewall table bridge netcore"),
    ] {
        let netns = host.netns("box");
        let attachment = web.attachment(&netns).added();
        attachment.check().unwrap();
        let veth = attachment.host_interface();
        let set = host.run("nft list set bridge netcore addresses6");
        let element = |prefix: &str| {
            let mine = format!("\"{veth}\" . 0x{prefix}");
            let at = set.find(&mine).unwrap_or_else(|| panic!("{mine} in {set}")) + mine.len() - prefix.len() - 2;
            set[at..].split(' ').next().unwrap_or_default().to_owned()
        };
        let damage = damage.replace("GLOBAL", &element("fd20")).replace("LINKLOCAL", &element("fe80"));
        host.run(&format!("nft '{}'", damage.replace("VETH", &veth)));
        let failure = attachment.check().expect_err(&damage);
        assert!(failure.says(&named.replace("VETH", &veth)), "`{damage}`: {failure}");
        attachment.del().unwrap();
        netns.remove_with_links();
    }
}

#[test]
fn nothing_of_an_attachment_is_left() {
    let host = Host::new();
    let web = host.cni(guarded(true, true).version("1.1.0"));
    // The table stays, as does the bridge.
    let netns = host.netns("first");
    web.attachment(&netns).added().del().unwrap();
    netns.remove_with_links();
    let before = host.snapshot();
    for way_out in ["del", "without a namespace", "without a record", "gc"] {
        let netns = host.netns("box");
        let attachment = web.attachment(&netns).added();
        match way_out {
            "without a namespace" => netns.remove_with_links(),
            "without a record" => {
                host.run("rm -r /run/netcore");
                attachment.del().unwrap();
                netns.remove_with_links();
            }
            "gc" => {
                web.gc(&[]).unwrap();
                netns.remove_with_links();
            }
            _ => {
                attachment.del().unwrap();
                netns.remove_with_links();
            }
        }
        attachment.del().unwrap();
        before.assert_same(&host.snapshot(), way_out);
    }
}
