//! iptables as the firewall, and iptables in the way of another: what others do to its rules is
//! named and healed, and an attachment stays with the backend it was made under.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use netcore_tests::netctl::netctl;
use netcore_tests::seccomp::without_nf_tables;
use netcore_tests::traffic::{Server, Udp, nobody_answers, ping, serve, who_answers};
use netcore_tests::watch::PATIENCE;
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, binaries, needs, wait_for};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

fn web(backend: &str) -> Network {
    Network::bridge("web", SUBNETS).with("firewallBackend", json!(backend))
}

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
    fn new(backend: &str, before: &str) -> Self {
        let host = Host::new();
        let outside = host.outside();
        host.run(before);
        let web = host.cni(web(backend));
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
        assert_eq!(who_answers(&self.container, Outside::HOST_V4, 8080), "web-1", "hairpin");
        assert_eq!(who_answers(&self.container, Outside::V4, 7000), "outside");
        assert_eq!(who_answers(&self.container, Outside::V6, 7000), "outside");
        ping(&self.container, self.other.address());
    }

    /// `damage` is named with `words`, and healed by one repair.
    fn survives(&self, damage: &str, words: &[&str]) {
        self.host.run(damage);
        let found = netctl(&self.host, "repair-chains --check").ended(1);
        assert!(found.says(words), "`{damage}`: no line with {words:?} in:\n{}", found.text);
        netctl(&self.host, "repair-chains").ended(0);
        self.works();
        self.published.check().unwrap_or_else(|failure| panic!("after `{damage}`: {failure}"));
        netctl(&self.host, "repair-chains --check").ended(0);
    }

    fn rules(&self) -> String {
        let programs = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"];
        let listings =
            programs.map(|program| self.host.run(&format!("{program}-save 2>/dev/null | grep -v '^[#:]' || true")));
        listings.concat()
    }
}

#[test]
fn what_is_done_to_its_rules_is_named_and_healed() {
    let world = World::new("iptables", "");
    world.works();
    let host = "firewall chains NETCORE-* (iptables-nft)";
    for (damage, words) in [
        ("iptables -t nat -F", &["host", host, "NETCORE-MASQ", "PREROUTING of nat"][..]),
        ("iptables -F FORWARD", &["host", host, "nothing leads to NETCORE-FORWARD"]),
        ("iptables -t raw -F", &["host", host, "PREROUTING of raw"]),
        ("ip6tables -t nat -F PREROUTING", &["host", "(ip6tables-nft)", "PREROUTING of nat"]),
        (
            "iptables -t nat -F NETCORE-DNAT",
            &["web/web-1", "publish 8080/tcp → 10.20.0.2:80 (iptables-nft)", "missing"],
        ),
        ("iptables -t nat -D NETCORE-MASQ 4", &["web/web-1", "masquerade 10.20.0.2 (iptables-nft)", "missing"]),
        ("iptables -t nat -F NETCORE-HAIRPIN", &["web ", "hairpin 10.20.0.0/24 (iptables-nft)", "missing"]),
        ("iptables -t nat -D NETCORE-MASQ 3", &["web ", "firewall member web (iptables-nft)", "missing"]),
        ("nft flush ruleset", &["web/web-2", "masquerade fd20::3 (ip6tables-nft)", "missing"]),
        ("iptables -F; iptables -X NETCORE-ISOLATION", &["host", host, "chain NETCORE-ISOLATION: missing"]),
        ("iptables -P FORWARD DROP", &["web ", "admission of web (iptables FORWARD)", "missing"]),
        ("iptables -I FORWARD -j DROP", &["host", host, "nothing leads to NETCORE-FORWARD"]),
    ] {
        world.survives(damage, words);
    }
    let rules = world.rules();
    netctl(&world.host, "repair-chains").ended(0);
    assert_eq!(world.rules(), rules, "a repair of nothing changes nothing");
}

/// CHECK names any one rule that is missing.
/// As a firewall does that reloads: between our look and our change.
#[test]
fn what_others_take_while_it_is_changed_comes_back_with_it() {
    let world = World::new("iptables", "");
    world.host.run(
        "mkdir /run/spies
         cat > /run/spies/iptables-nft-restore <<'END'
#!/bin/sh
echo run >> /run/runs
test \"$(wc -l < /run/runs)\" != 1 || { iptables-nft -t nat -F; iptables-nft -t nat -X; }
exec /usr/sbin/iptables-nft-restore \"$@\"
END
         chmod +x /run/spies/*
         iptables-nft -t nat -F NETCORE-MASQ",
    );
    let program = binaries::under_test().join("netctl");
    world.host.run(&format!("PATH=/run/spies:$PATH {} repair-chains", program.display()));
    assert_eq!(world.host.run("wc -l < /run/runs").trim(), "2");
    // What was there at the first look and went then is for the next repair, or the watch, which has heard of it.
    netctl(&world.host, "repair-chains").ended(0);
    world.works();
}

#[test]
fn every_single_rule_is_missed() {
    let world = World::new("iptables", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    for program in ["iptables", "ip6tables"] {
        let rules = world.host.run(&format!("{program}-save"));
        let mut table = "";
        for line in rules.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            }
            let Some(rule) = line.strip_prefix("-A ").filter(|rule| rule.contains("netcore:")) else { continue };
            world.host.run(&format!("{program} -t {table} -D {rule}"));
            let of_other = rule.contains("/web-2/");
            let checked = if of_other { world.other.check() } else { world.published.check() };
            assert!(checked.is_err(), "{program}: nobody missed {rule}");
            netctl(&world.host, "repair-chains").ended(0);
            world
                .published
                .check()
                .and_then(|()| world.other.check())
                .unwrap_or_else(|failure| panic!("{rule}: {failure}"));
        }
    }
    world.works();
}

#[test]
fn where_somebody_closes_forward_ours_are_let_through() {
    needs!(IptablesLegacy);
    for flavour in ["nft", "legacy"] {
        let world = World::new("nftables", "");
        let both = |line: &str| {
            world.host.run(&format!("iptables-{flavour} {line}; ip6tables-{flavour} {line}"));
        };
        both("-P FORWARD DROP");
        nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
        nobody_answers(&world.container, Outside::V4, 7000);
        let failure = world.published.check().expect_err("nothing passes");
        assert!(failure.says("admission of web"), "{failure}");
        both("-P FORWARD ACCEPT");
        world.published.check().unwrap();
        world.survives(
            &format!("iptables-{flavour} -P FORWARD DROP; ip6tables-{flavour} -P FORWARD DROP"),
            &["web ", "admission of web (ip6tables FORWARD)", "missing"],
        );
        // What was not published stays closed.
        world.outside.run("ip route add 10.20.0.0/24 via 198.51.100.1");
        nobody_answers(&*world.outside, world.published.address(), 80);
        world.survives(&format!("iptables-{flavour} -F"), &["web ", "admission of web (iptables FORWARD)", "missing"]);
        // The administrator's own rules come first, and stay.
        both("-A NETCORE-USER -p tcp --dport 7000 -j REJECT");
        nobody_answers(&world.container, Outside::V4, 7000);
        netctl(&world.host, "repair-chains").ended(0);
        nobody_answers(&world.container, Outside::V4, 7000);
        world.published.del().unwrap();
        ping(&world.host, world.other.address());
        assert!(world.rules().contains("-i web"), "the last one still needs it");
        world.other.del().unwrap();
        let left = world.rules();
        assert!(!left.contains("NETCORE-FORWARD"), "{left}");
        assert!(left.contains("NETCORE-USER -p tcp"), "{left}");
        both("-F NETCORE-USER");
        world.other.clone().added().del().unwrap();
        assert!(!world.rules().contains("NETCORE"), "{}", world.rules());
    }
}

/// Two networks on one bridge, which is let pass for both.
fn on_one_bridge(host: &Host) -> [Cni; 2] {
    [("blue", 10), ("red", 100)].map(|(name, first)| {
        let ranges = json!([
            [{ "subnet": SUBNETS[0], "rangeStart": format!("10.20.0.{first}") }],
            [{ "subnet": SUBNETS[1], "rangeStart": format!("fd20::{first}") }],
        ]);
        let network = Network::bridge(name, SUBNETS).with("bridge", json!("both"));
        let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
        host.cni(network.with("ipam", json!({ "type": "host-local", "ranges": ranges, "routes": routes })))
    })
}

#[test]
fn networks_on_one_bridge_are_let_through_as_long_as_either_has_containers() {
    let host = Host::new();
    let outside = host.outside();
    host.run("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    let rules = || host.run("iptables-save; ip6tables-save");
    let networks = on_one_bridge(&host);
    let netns = [host.netns("c-1"), host.netns("c-2")];
    let _servers = [serve(&netns[0], "first", 80), serve(&netns[1], "second", 80)];
    for first in [0, 1] {
        let (one, two) = (&networks[first], &networks[1 - first]);
        let one = one.attachment(&netns[0]).publish(Publish::tcp(8080, 80)).added();
        let two = two.attachment(&netns[1]).publish(Publish::tcp(8081, 80)).added();
        let answers = |port, name| {
            for address in [Outside::HOST_V4, Outside::HOST_V6] {
                assert_eq!(who_answers(&*outside, address, port), name);
            }
        };
        answers(8080, "first");
        answers(8081, "second");
        // Whoever asked for it first goes first.
        one.del().unwrap();
        answers(8081, "second");
        two.check().unwrap();
        two.del().unwrap();
        assert!(!rules().contains("NETCORE"), "{}", rules());
    }
}

/// The last container of one network goes while the first of the other comes.
#[test]
fn networks_on_one_bridge_do_not_take_each_others_way() {
    let host = Host::new();
    let outside = host.outside();
    host.run("iptables -P FORWARD DROP");
    let [blue, red] = on_one_bridge(&host);
    let (leaving, coming) = (host.netns("c-1"), host.netns("c-2"));
    let _server = serve(&coming, "second", 80);
    let leaves = blue.attachment(&leaving).added();
    // Whoever changes rules waits for us.
    host.run(
        "cp /usr/sbin/xtables-nft-multi /run/multi
         printf '#!/bin/bash\ncase $0 in *-restore)
             touch /run/waits; while [ ! -e /run/go ]; do read -t 0.01 <> <(:); done
         esac\nexec -a ${0##*/} /run/multi \"$@\"\n' > /run/slow
         chmod +x /run/slow; mount --bind /run/slow /usr/sbin/xtables-nft-multi",
    );
    let comes = thread::scope(|scope| {
        let leaves = scope.spawn(|| leaves.del());
        wait_for("the way is about to be taken back", PATIENCE, || host.try_run("test -e /run/waits").status.success());
        let comes = scope.spawn(|| red.attachment(&coming).publish(Publish::tcp(8080, 80)).added());
        // It has found its way open, or waits itself: it is known to both in any case.
        let record = "grep -q lease /run/netcore/red/*.json";
        wait_for("the other has its lease", PATIENCE, || host.try_run(record).status.success());
        let begun = Instant::now();
        wait_for("it is there, or waits", PATIENCE, || comes.is_finished() || begun.elapsed() > Duration::from_secs(2));
        host.run("touch /run/go");
        leaves.join().expect("no panic").unwrap();
        comes.join().expect("no panic")
    });
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "second");
    comes.check().unwrap();
    comes.del().unwrap();
    let rules = host.run("iptables-save");
    assert!(!rules.contains("NETCORE"), "{rules}");
}

#[test]
fn where_docker_owns_forward_its_chain_for_others_is_used() {
    let docker = "iptables -P FORWARD DROP
        iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
        iptables -N DOCKER-FORWARD; iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-FORWARD";
    let world = World::new("nftables", docker);
    world.works();
    let rules = world.rules();
    assert!(
        rules
            .contains("-A DOCKER-USER -m comment --comment \"netcore:*\" -j NETCORE-FORWARD\n-A DOCKER-USER -j RETURN"),
        "{rules}"
    );
    assert!(!rules.contains("-A FORWARD -m comment"), "{rules}");
}

#[test]
fn an_attachment_stays_with_its_backend() {
    let world = World::new("iptables", "");
    // The default changes under what is there.
    let changed = world.host.cni(web("nftables"));
    let third = changed.attachment(&world.host.netns("web-3")).publish(Publish::tcp(8083, 80)).added();
    let _server = serve(&world.host.adopt("web-3"), "web-3", 80);
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8083), "web-3");
    world.works();
    assert!(world.host.run("nft list map inet netcore publish4").contains("8083"));
    assert!(!world.rules().contains("8083"));
    netctl(&world.host, "repair-chains --check").ended(0);
    world.survives("iptables -t nat -F", &["firewall chains NETCORE-* (iptables-nft)"]);
    world.survives("nft flush ruleset", &["host", "firewall table inet netcore", "missing"]);
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8083), "web-3");
    let as_before = changed.attachment(&world.container);
    as_before.del().unwrap();
    assert!(!world.rules().contains("web-1/eth0"), "{}", world.rules());
    nobody_answers(&*world.outside, Outside::HOST_V4, 8080);
    assert_eq!(who_answers(&*world.outside, Outside::HOST_V4, 8083), "web-3");
    third.del().unwrap();
    world.other.del().unwrap();
}

#[test]
fn a_port_that_is_taken_is_refused_and_says_by_whom() {
    let world = World::new("iptables", "");
    let before = world.host.snapshot();
    for port in [Publish::tcp(8080, 80), Publish::tcp(8080, 80).on(Outside::HOST_V4), Publish::tcp(8081, 80)] {
        let netns = world.host.netns("late");
        let mut late = world.web.attachment(&netns).publish(port.clone());
        let failure = late.add().expect_err("it is taken");
        assert!(failure.says("web/web-1/eth0") && failure.says("already published"), "{port:?}: {failure}");
        late.del().unwrap();
        netns.remove();
    }
    before.assert_same(&world.host.snapshot(), "after ADDs that were refused");
    world.works();
}

#[test]
fn a_connection_to_a_withdrawn_port_is_forgotten() {
    let world = World::new("iptables", "");
    let netns = world.host.netns("udp-1");
    let first = world.web.attachment(&netns).publish(Publish::udp(5353, 80)).added();
    let server = serve(&netns, "first", 80);
    let client = Udp::open(&*world.outside, false);
    assert_eq!(client.ask(Outside::HOST_V4, 5353).unwrap().server, "first");
    first.del().unwrap();
    drop(server);
    let netns = world.host.netns("udp-2");
    let _second = world.web.attachment(&netns).publish(Publish::udp(5353, 80)).added();
    let _server = serve(&netns, "second", 80);
    assert_eq!(client.ask(Outside::HOST_V4, 5353).unwrap().server, "second");
}

#[test]
fn sixteen_at_once_on_chains_that_are_not_there_yet() {
    const COUNT: usize = 16;
    let host = Host::new();
    let outside = host.outside();
    let web = host.cni(web("iptables"));
    let netns: Vec<Netns> = (0..COUNT).map(|number| host.netns(&format!("c{number}"))).collect();
    let start = Barrier::new(COUNT);
    let added: Vec<Attachment> = thread::scope(|scope| {
        let wishes = netns.iter().zip(9000..).map(|(netns, port)| {
            let (wish, start) = (web.attachment(netns).publish(Publish::tcp(port, 80)), &start);
            scope.spawn(move || {
                start.wait();
                wish.added()
            })
        });
        let threads: Vec<_> = wishes.collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let _servers: Vec<Server> = netns.iter().map(|netns| serve(netns, netns.name(), 80)).collect();
    for ((attachment, netns), port) in added.iter().zip(&netns).zip(9000..) {
        attachment.check().unwrap();
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, port), netns.name());
    }
    thread::scope(|scope| added.iter().for_each(|attachment| _ = scope.spawn(|| attachment.del().unwrap())));
    let left = host.run("iptables-save; ip6tables-save");
    assert!(!left.contains("/eth0"), "{left}");
}

#[test]
fn a_record_that_is_lost_does_not_keep_rules_from_going() {
    let world = World::new("iptables", "");
    world.host.run("rm /run/netcore/web/web-1@eth0.bridge.json");
    world.published.del().unwrap();
    assert!(!world.rules().contains("web-1/eth0"), "{}", world.rules());
    assert!(world.rules().contains("web-2/eth0"));
}

#[test]
fn without_iptables_it_says_what_to_do() {
    let host = Host::new();
    // A host's programs without iptables.
    host.run(
        "for directory in /usr/sbin /usr/bin; do
             for name in $directory/ip*tables* $directory/xtables*; do
                 [ ! -f $name ] || [ -L $name ] || mount --bind /dev/null $name
             done
         done",
    );
    let web = host.cni(web("iptables").version("1.1.0"));
    let told = web.status().expect_err("STATUS knows");
    assert!(told.says("install iptables"), "{told}");
    let mut refused = web.attachment(&host.netns("web-1"));
    let failure = refused.add().expect_err("there is no iptables");
    assert!(failure.says("iptables") && failure.says("install iptables"), "{failure}");
    // What does not need it works.
    let fine = host.cni(Network::bridge("db", &["10.30.0.0/24"])).attachment(&host.netns("db-1")).added();
    fine.check().unwrap();
    fine.del().unwrap();
}

/// A kernel without nf_tables: the same configuration, which says nothing, works.
#[test]
fn where_the_kernel_has_no_nf_tables_it_is_iptables_by_itself() {
    needs!(IptablesLegacy);
    without_nf_tables(|| {
        let host = Host::new();
        assert!(!host.try_run("nft list ruleset").status.success(), "there is no nf_tables");
        let outside = host.outside();
        let web = host.cni(Network::bridge("web", SUBNETS));
        let container = host.netns("web-1");
        let attachment = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
        let _servers = [serve(&container, "web-1", 80), serve(&*outside, "outside", 7000)];
        let works = || {
            assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1");
            assert_eq!(who_answers(&*outside, Outside::HOST_V6, 8080), "web-1");
            assert_eq!(who_answers(&host, [127, 0, 0, 1], 8080), "web-1");
            assert_eq!(who_answers(&container, Outside::V4, 7000), "outside");
            attachment.check().unwrap();
        };
        works();
        let record = host.run("cat /run/netcore/web/web-1@eth0.bridge.json");
        assert!(record.contains(r#""backend":{"iptables":"legacy"}"#), "{record}");
        host.run("iptables-legacy -t nat -F; iptables-legacy -P FORWARD DROP");
        nobody_answers(&*outside, Outside::HOST_V4, 8080);
        netctl(&host, "repair-chains --check").ended(1);
        netctl(&host, "repair-chains").ended(0);
        works();
        attachment.del().unwrap();
        let left = host.run("iptables-legacy-save; ip6tables-legacy-save");
        assert!(!left.contains("/eth0") && !left.contains("ACCEPT\n"), "{left}");
    });
}

/// Where iptables has no tables, it is not even started.
#[test]
fn no_program_is_run_where_there_is_nothing_to_ask() {
    let host = Host::new();
    host.run(
        "printf '#!/bin/sh\\necho $0 >> /run/started\\n' > /run/spy; chmod +x /run/spy
         mount --bind /run/spy /usr/sbin/xtables-nft-multi
         mount --bind /run/spy /usr/sbin/xtables-legacy-multi
         iptables-save; mv /run/started /run/started-by-hand",
    );
    let web = host.cni(Network::bridge("web", SUBNETS).version("1.1.0"));
    let attachment = web.attachment(&host.netns("web-1")).publish(Publish::tcp(8080, 80)).added();
    attachment.check().unwrap();
    host.run("nft flush ruleset");
    netctl(&host, "repair-chains").ended(0);
    attachment.del().unwrap();
    web.gc(&[]).unwrap();
    host.run("test ! -e /run/started");
}
