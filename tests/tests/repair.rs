//! Whatever somebody else breaks on the host is named by `repair-chains --check`, and healed by one
//! `repair-chains`: traffic is fetched, not rules compared.

use std::fs;
use std::time::Duration;

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Server, advertise_router, nobody_answers, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, wait_for};

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

/// A host with two containers, one of them published.
struct World {
    host: Host,
    outside: Outside,
    web: Cni,
    container: Netns,
    published: Attachment,
    other: Attachment,
    _servers: [Server; 2],
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        let outside = host.outside();
        let web = host.cni(Network::bridge("web", SUBNETS));
        let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
        let published = web
            .attachment(&container)
            .publish(Publish::tcp(8080, 80))
            .publish(Publish::tcp(8081, 80).on(Outside::HOST_V4))
            .added();
        let other = web.attachment(&neighbour).added();
        let servers = [serve(&container, "web-1", 80), serve(&*outside, "outside", 7000)];
        Self { host, outside, web, container, published, other, _servers: servers }
    }

    /// Fetches from every side.
    #[track_caller]
    fn works(&self) {
        for (address, port) in [(Outside::HOST_V4, 8080), (Outside::HOST_V6, 8080), (Outside::HOST_V4, 8081)] {
            assert_eq!(who_answers(&*self.outside, address, port), "web-1");
        }
        assert_eq!(who_answers(&self.host, [127, 0, 0, 1], 8080), "web-1");
        assert_eq!(who_answers(&self.container, Outside::V4, 7000), "outside");
        assert_eq!(who_answers(&self.container, Outside::V6, 7000), "outside");
        ping(&self.container, self.other.address());
    }
}

/// What somebody does to the host, and what a check has to say about it, each on one line.
const DAMAGE: &[(&str, &[&[&str]])] = &[
    (
        "nft flush ruleset",
        &[
            &["host", "firewall table inet netcore", "missing"],
            &["web/web-1", "publish 8080/tcp → 10.20.0.2:80", "missing"],
            &["web/web-2", "masquerade 10.20.0.3", "missing"],
            &["web ", "firewall member web", "missing"],
        ],
    ),
    ("nft delete table inet netcore", &[&["host", "firewall table inet netcore", "missing"]]),
    ("nft flush table inet netcore", &[&["host", "firewall table inet netcore", "rule"]]),
    ("nft flush map inet netcore publish4", &[&["web/web-1", "publish 8080/tcp → 10.20.0.2:80", "missing"]]),
    ("nft delete element inet netcore publish6 '{ tcp . 8080 }'", &[&["web/web-1", "[fd20::2]:80", "missing"]]),
    ("nft flush set inet netcore masquerade4", &[&["web/web-1", "masquerade 10.20.0.2", "missing"]]),
    ("sysctl -qw net.ipv4.ip_forward=0", &[&["host", "net.ipv4.ip_forward", "0"]]),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", &[&["host", "net.ipv6.conf.all.forwarding", "0"]]),
    ("sysctl -qw net.ipv4.conf.web.forwarding=0", &[&["web ", "net.ipv4.conf.web.forwarding", "0"]]),
    ("sysctl -qw net.ipv4.conf.web.route_localnet=0", &[&["web ", "net.ipv4.conf.web.route_localnet", "0"]]),
    ("ip addr del 10.20.0.1/24 dev web", &[&["web ", "10.20.0.1/24", "missing"]]),
    ("ip addr del fd20::1/64 dev web", &[&["web ", "fd20::1/64", "missing"]]),
    ("ip link set web down", &[&["web ", "bridge web", "down"]]),
    ("ip link del web", &[&["web ", "bridge web", "missing"], &["web/web-2", "link veth", "bridge none"]]),
    ("ip link set VETH down", &[&["web/web-1", "link VETH", "down"]]),
    ("ip link set VETH nomaster", &[&["web/web-1", "link VETH", "bridge none"]]),
    ("ip link del VETH", &[&["web/web-1", "link VETH", "missing"]]),
    ("nft flush ruleset; ip link del web; sysctl -qw net.ipv4.ip_forward=0", &[&["web ", "bridge web", "missing"]]),
];

#[test]
fn every_kind_of_damage_is_named_and_healed_by_one_repair() {
    let world = World::new();
    world.works();
    let mut failures = Vec::new();
    for (damage, named) in DAMAGE {
        let veth = world.published.host_interface();
        world.host.run(&damage.replace("VETH", &veth));
        let found = netctl(&world.host, "repair-chains --check");
        if found.code != 1 {
            failures.push(format!("`{damage}`: check exits {}:\n{}{}", found.code, found.text, found.complaint));
        }
        for words in *named {
            let words: Vec<String> = words.iter().map(|word| word.replace("VETH", &veth)).collect();
            if !found.says(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
                failures.push(format!("`{damage}`: no line with {words:?} in:\n{}", found.text));
            }
        }
        let done = netctl(&world.host, "repair-chains");
        if done.code != 0 || !done.text.contains(" restored in ") {
            failures.push(format!("`{damage}`: repair exits {}:\n{}{}", done.code, done.text, done.complaint));
        }
        world.works();
        world.published.check().unwrap_or_else(|failure| panic!("after `{damage}`: {failure}"));
        netctl(&world.host, "repair-chains --check").ended(0);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_check_changes_nothing() {
    let world = World::new();
    world.host.run("nft flush ruleset; ip addr del 10.20.0.1/24 dev web; sysctl -qw net.ipv4.ip_forward=0");
    let before = world.host.snapshot();
    netctl(&world.host, "repair-chains --check").ended(1);
    netctl(&world.host, "repair-chains --dry-run --json").ended(1);
    before.assert_same(&world.host.snapshot(), "after a check");
    nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
}

#[test]
fn three_repairs_leave_the_same_rules_byte_for_byte() {
    let world = World::new();
    world.host.run("nft flush ruleset");
    let rules = || {
        netctl(&world.host, "repair-chains").ended(0);
        world.host.run("nft -a list ruleset")
    };
    let first = rules();
    assert!(first.contains("table inet netcore"), "{first}");
    assert_eq!((rules(), rules()), (first.clone(), first));
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let world = World::new();
    let theirs = "add table ip admin
        add chain ip admin input '{ type filter hook input priority 0; }'
        add rule ip admin input tcp dport 9 drop";
    world.host.run("nft flush ruleset");
    theirs.lines().for_each(|line| {
        world.host.run(&format!("nft {line}"));
    });
    world.host.run("ip link add theirs type bridge; ip addr add 192.0.2.1/24 dev theirs");
    let rules = world.host.run("nft -a list table ip admin");
    netctl(&world.host, "repair-chains").ended(0);
    world.works();
    assert_eq!(world.host.run("nft -a list table ip admin"), rules);
    // An address of somebody else's where the gateway was is theirs, too.
    world.host.run("ip addr flush dev web; ip addr add 203.0.113.1/24 dev web");
    let told = netctl(&world.host, "repair-chains").ended(3);
    assert!(told.says(&["10.20.0.1/24", "missing", "203.0.113.1/24"]), "{}", told.text);
    world.host.run("ip addr del 203.0.113.1/24 dev web");
    netctl(&world.host, "repair-chains").ended(0);
    world.works();
}

#[test]
fn bad_records_are_named_and_stay_and_the_rest_is_repaired() {
    let world = World::new();
    world.host.run(
        "printf '{\"version\": 9}' > /run/netcore/web/late@eth0.bridge.json
         printf '{\"vers' > /run/netcore/web/torn@eth0.bridge.json
         nft flush ruleset",
    );
    let told = netctl(&world.host, "repair-chains").ended(3);
    assert!(
        told.says(&["late@eth0.bridge.json", "version 9"]) && told.says(&["torn@eth0.bridge.json"]),
        "{}",
        told.text
    );
    world.works();
    world.host.run("test -f /run/netcore/web/late@eth0.bridge.json -a -f /run/netcore/web/torn@eth0.bridge.json");
}

#[test]
fn a_container_that_is_gone_is_said_and_the_rest_is_repaired() {
    let world = World::new();
    let netns = world.host.netns("dead");
    let _dead = world.web.attachment(&netns).added();
    netns.remove_with_links();
    world.host.run("nft flush ruleset");
    let told = netctl(&world.host, "repair-chains").ended(3);
    assert!(told.says(&["web/dead", "missing", "not restored", "detach"]), "{}", told.text);
    world.works();
}

#[test]
fn without_permission_it_says_so() {
    let world = World::new();
    let program = netcore_tests::binaries::under_test().join("netctl");
    let output =
        world.host.try_run(&format!("setpriv --bounding-set -all --inh-caps -all {} repair-chains", program.display()));
    assert_eq!(output.status.code(), Some(4));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("CAP_NET_ADMIN"), "{complaint}");
}

#[test]
fn what_is_attached_is_listed_and_shown() {
    let world = World::new();
    let told = netctl(&world.host, "ls").ended(0);
    assert!(told.says(&["web", "web-1/eth0", "bridge", "10.20.0.2/24 fd20::2/64", "8080→80/tcp"]), "{}", told.text);
    assert_eq!(netctl(&world.host, "ls --json").ended(0).json().as_array().map(Vec::len), Some(2));
    assert_eq!(netctl(&world.host, "ls --network db").ended(0).text, "");
    let told = netctl(&world.host, "show web-1").ended(0);
    assert!(told.says(&["state", "intact"]) && told.says(&["published", "8080→80/tcp"]), "{}", told.text);
    world.container.run("ip route del default");
    let told = netctl(&world.host, "show web/web-1/eth0").ended(1);
    assert!(told.says(&["route 0.0.0.0/0 via 10.20.0.1", "missing"]), "{}", told.text);
    let told = netctl(&world.host, "show nobody").ended(1);
    assert!(told.complaint.contains("nobody is not attached"), "{}", told.complaint);
    netctl(&world.host, "show a/b/c/d").ended(2);
}

#[test]
fn a_plan_says_what_an_add_does_and_does_nothing() {
    let world = World::new();
    let conflist = Network::bridge("db", &["10.30.0.0/24"]).conflist();
    world.host.enter(|| fs::write("/run/db.conflist", conflist).unwrap());
    let before = world.host.snapshot();
    let told = netctl(&world.host, "plan /run/db.conflist --publish 5432:5432").ended(0);
    for words in [
        &["bridge", "lease 10.30.0.2/24 via 10.30.0.1"],
        &["bridge", "create bridge db"],
        &["bridge", "create publish 5432/tcp → 10.30.0.2:5432"],
    ] {
        assert!(told.says(words), "{words:?}: {}", told.text);
    }
    let told = netctl(&world.host, "plan /run/db.conflist --publish 8080:80").ended(3);
    assert!(told.says(&["8080/tcp", "web/web-1/eth0"]), "{}", told.text);
    before.assert_same(&world.host.snapshot(), "after a plan");
    netctl(&world.host, "plan /run/nothing.conflist").ended(2);
    netctl(&world.host, "plan --publish 80 /run/db.conflist").ended(2);
}

/// The way out that a router has advertised is still there when we forward, and when forwarding
/// comes back.
#[test]
fn ipv6_forwarding_does_not_cost_the_host_its_advertised_default_route() {
    let host = Host::new();
    let outside = host.outside();
    host.run("ip -6 route del default");
    let index = outside.run("cat /sys/class/net/uplink/ifindex || ip -o link show uplink | cut -d: -f1");
    let index = index.trim().parse().expect("an index");
    let advertised = || host.run("ip -6 route show default").contains("proto ra");
    wait_for("a router is heard", Duration::from_secs(10), || {
        // It cannot be sent before the link has an address of its own.
        advertise_router(&*outside, index).is_ok() && advertised()
    });
    let web = host.cni(Network::bridge("web", SUBNETS));
    let _attachment = web.attachment(&host.netns("web-1")).added();
    assert_eq!(host.run("sysctl -n net.ipv6.conf.all.forwarding").trim(), "1");
    assert!(advertised(), "after ADD: {}", host.run("ip -6 route"));
    assert_eq!(host.run("sysctl -n net.ipv6.conf.uplink.accept_ra").trim(), "2");
    host.run("sysctl -qw net.ipv6.conf.all.forwarding=0");
    netctl(&host, "repair-chains").ended(0);
    assert!(advertised(), "after a repair: {}", host.run("ip -6 route"));
}

#[test]
fn switches_are_persisted_or_the_file_that_defeats_them_is_named() {
    let world = World::new();
    // An /etc of this host's own.
    world.host.run("mkdir -p /run/etc && mount --bind /run/etc /etc");
    let told = netctl(&world.host, "repair-chains --persist").ended(0);
    assert!(told.says(&["/etc/sysctl.d/99-netcore.conf"]), "{}", told.text);
    world.host.run("sysctl -qw net.ipv4.ip_forward=0; sysctl -qp /etc/sysctl.d/99-netcore.conf");
    netctl(&world.host, "repair-chains").ended(0);
    world.works();
    world.host.run("rm /etc/sysctl.d/99-netcore.conf; echo net.ipv4.ip_forward=0 > /etc/sysctl.d/99-zz-cis.conf");
    let told = netctl(&world.host, "repair-chains --persist").ended(3);
    assert!(told.says(&["line 1 of /etc/sysctl.d/99-zz-cis.conf"]), "{}", told.text);
    world.host.run("test ! -e /etc/sysctl.d/99-netcore.conf");
}
