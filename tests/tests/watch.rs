//! Under a running `netctl watch`, whatever somebody breaks is mended by itself: the published port
//! answers again. And where nothing is broken, it costs next to nothing.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use netcore_tests::binaries::installed;
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Server, fetch, serve, who_answers};
use netcore_tests::watch::{PATIENCE, Watching};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, needs, skip, wait_for};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

/// A host with two containers, one of them published.
struct World {
    host: Host,
    outside: Outside,
    web: Cni,
    container: Netns,
    published: Attachment,
    neighbour: Attachment,
    _server: Server,
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        let outside = host.outside();
        let web = host.cni(Network::bridge("web", SUBNETS));
        let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
        let published = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
        let neighbour = web.attachment(&neighbour).added();
        let _server = serve(&container, "web-1", 80);
        Self { host, outside, web, container, published, neighbour, _server }
    }

    fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        [&self.published, &self.neighbour].into_iter()
    }

    /// Whether the published port answers from outside, by both IP versions.
    fn answers(&self) -> bool {
        [Outside::HOST_V4, Outside::HOST_V6].into_iter().all(|address| fetch(&*self.outside, address, 8080).is_ok())
    }

    #[track_caller]
    fn answers_again(&self, after: &str) {
        wait_for(&format!("the published port answers after `{after}`"), PATIENCE, || self.answers());
        let intact = || netctl(&self.host, "repair-chains --check").code == 0;
        wait_for(&format!("everything is there again after `{after}`"), PATIENCE, intact);
    }
}

/// What somebody does to the host, and what the watch has to have brought back.
const DAMAGE: &[(&str, &str)] = &[
    ("nft flush ruleset", "firewall table inet netcore"),
    ("nft flush ruleset; ip link set VETH nomaster", "link VETH ↔ eth0"),
    ("ip addr flush dev web; nft flush ruleset", "address fd20::1/64 on web (host)"),
    ("nft delete table inet netcore", "firewall table inet netcore"),
    ("nft flush chain inet netcore prerouting", "firewall table inet netcore"),
    ("nft delete element inet netcore publish4 '{ tcp . 8080 }'", "publish 8080/tcp → 10.20.0.2:80"),
    ("nft delete element inet netcore host_ports6 '{ tcp . 8080 }'", "publish 8080/tcp → [fd20::2]:80"),
    ("nft flush set inet netcore masquerade4", "masquerade 10.20.0.2"),
    ("sysctl -qw net.ipv4.ip_forward=0", "sysctl net.ipv4.ip_forward (host)"),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl net.ipv6.conf.all.forwarding (host)"),
    ("sysctl -qw net.ipv4.conf.web.forwarding=0", "sysctl net.ipv4.conf.web.forwarding (host)"),
    ("ip addr del 10.20.0.1/24 dev web", "address 10.20.0.1/24 on web (host)"),
    ("ip addr flush dev web", "address fd20::1/64 on web (host)"),
    ("ip link set web down", "bridge web"),
    ("ip link del web", "bridge web"),
    ("ip link set VETH nomaster", "link VETH ↔ eth0"),
    ("ip link set VETH down", "link VETH ↔ eth0"),
    ("ip link del VETH", "link VETH ↔ eth0"),
];

#[test]
fn whatever_is_broken_answers_again_by_itself() {
    let world = World::new();
    assert!(world.answers());
    let watching = Watching::on(&world.host);
    for (damage, restored) in DAMAGE {
        let veth = world.published.host_interface();
        let before = watching.events("looked").len();
        world.host.run(&damage.replace("VETH", &veth));
        world.answers_again(damage);
        let restored = restored.replace("VETH", &veth);
        wait_for(&format!("`{restored}` is said to be restored after `{damage}`"), PATIENCE, || {
            let looks = watching.events("looked").split_off(before);
            let mut objects = looks.iter().filter_map(|look| look["objects"].as_array()).flatten();
            objects.any(|object| object["object"] == *restored && object["outcome"]["outcome"] == "restored")
        });
    }
    assert_eq!(who_answers(&world.container, Outside::HOST_V4, 8080), "web-1", "hairpin");
    world.published.check().unwrap();
}

/// iptables-nft is heard as nf_tables is, whether it keeps our rules or only lets us pass.
#[test]
fn what_is_done_to_iptables_is_mended_by_itself() {
    let world = World::new();
    let db = world.host.cni(Network::bridge("db", &["10.30.0.0/24"]).with("firewallBackend", "iptables".into()));
    let published = db.attachment(&world.host.netns("db-1")).publish(Publish::tcp(8090, 80)).added();
    let _server = serve(&world.host.adopt("db-1"), "db-1", 80);
    let watching = Watching::on(&world.host);
    for damage in [
        "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP",
        "iptables-nft -F",
        "iptables-nft -I FORWARD -j REJECT",
        "iptables-nft -t nat -F",
        "nft delete table ip nat",
    ] {
        world.host.run(damage);
        world.answers_again(damage);
        wait_for(damage, PATIENCE, || fetch(&*world.outside, Outside::HOST_V4, 8090).is_ok());
    }
    assert!(watching.restored() > 0);
    published.check().unwrap();
}

#[test]
fn it_is_said_who_did_it() {
    let world = World::new();
    let watching = Watching::on(&world.host);
    world.host.run("nft delete table inet netcore");
    world.answers_again("nft delete table");
    wait_for("it is said", PATIENCE, || watching.restored() > 0);
    let looks = watching.events("looked");
    let look = looks.iter().find(|look| look["objects"].as_array().is_some_and(|objects| !objects.is_empty()));
    assert_eq!(look.expect("a repair")["by"]["name"], "nft", "{looks:?}");
}

#[test]
fn containers_that_come_and_go_are_no_trouble() {
    let world = World::new();
    let watching = Watching::on(&world.host);
    let netns: Vec<Netns> = (0..20).map(|number| world.host.netns(&format!("c{number}"))).collect();
    let cpu = watching.cpu();
    let added: Vec<Attachment> = netns
        .iter()
        .zip(10_000..)
        .map(|(netns, port)| world.web.attachment(netns).publish(Publish::tcp(port, 80)).added())
        .collect();
    // Something it has to hear, after everything else.
    world.host.run("nft delete element inet netcore publish4 '{ tcp . 8080 }'");
    world.answers_again("twenty containers");
    let looks = watching.events("looked");
    assert_eq!(looks.len(), 1, "what is added is not looked at: {looks:?}");
    assert_eq!(watching.restored(), 1, "{looks:?}");
    eprintln!("20 ADDs and a repair cost the watch {:?}", watching.cpu() - cpu);
    added.iter().for_each(|attachment| attachment.del().expect("DEL"));
    world.host.run("nft delete element inet netcore publish4 '{ tcp . 8080 }'");
    world.answers_again("twenty containers have gone");
    assert_eq!(watching.restored(), 2, "{:?}", watching.events("looked"));
    let looks = watching.events("looked");
    assert!(looks.iter().all(|look| look["reasons"] == serde_json::json!([])), "nothing but what went: {looks:?}");
}

#[test]
fn who_fights_it_is_named_and_it_does_so_less_and_less_often() {
    let world = World::new();
    let watching = Watching::on(&world.host);
    wait_for("a fight is seen", PATIENCE, || {
        // Gone or not: somebody insists.
        let _ = world.host.try_run("nft delete table inet netcore");
        watching.events("looked").iter().any(|look| look["fight"]["times"].as_u64() > Some(6))
    });
    let looks = watching.events("looked");
    let pauses: Vec<u64> = looks.iter().filter_map(|look| look["fight"]["pause_milliseconds"].as_u64()).collect();
    assert!(pauses.is_sorted() && pauses.first() == Some(&100), "{pauses:?}");
    assert_eq!(looks.last().map(|look| &look["by"]["name"]), Some(&serde_json::json!("nft")));
    world.answers_again("a fight");
}

#[test]
fn what_could_not_be_heard_is_found_by_looking() {
    let world = World::new();
    let watching = Watching::on(&world.host);
    watching.signal("STOP");
    world.host.run(
        "ip link add busy type veth peer name peer
         for i in $(seq 100); do
             for j in $(seq 250); do echo addr add 10.$i.$j.1/32 dev busy; echo addr del 10.$i.$j.1/32 dev busy; done
         done > /run/batch
         ip -batch /run/batch
         nft delete table inet netcore",
    );
    watching.signal("CONT");
    world.answers_again("more than it could hear");
    let said = watching.said();
    assert!(said.contains("more has happened than could be heard"), "{said}");
}

#[test]
fn a_supervisor_is_told_how_it_is_and_it_ends_when_it_is_told() {
    let world = World::new();
    let supervisor = world.host.enter(|| UnixDatagram::bind("/run/notify")).expect("bind /run/notify");
    supervisor.set_nonblocking(true).expect("not to wait");
    let mut said = String::new();
    let mut told = || {
        let mut some = [0; 4096];
        while let Ok(length) = supervisor.recv(&mut some) {
            said += &format!("{}\n", String::from_utf8_lossy(&some[..length]));
        }
        said.clone()
    };
    // Not the journal, whatever we are run under.
    let before = "unset JOURNAL_STREAM; export NOTIFY_SOCKET=/run/notify WATCHDOG_USEC=200000";
    let mut watching = Watching::with(&world.host, before, "");
    wait_for("it says that it is alive, twice", PATIENCE, || told().matches("WATCHDOG=1").count() > 1);
    let told_first = told();
    let ready = told_first.find("READY=1").expect("ready");
    assert!(told_first[..ready].contains("STATUS=intact; 2 looked at"), "{told_first}");
    world.host.run("sysctl -qw net.ipv4.ip_forward=0");
    world.answers_again("forwarding was switched off");
    wait_for("it is said", PATIENCE, || {
        told();
        watching.said().contains("sysctl net.ipv4.ip_forward (host) was value 0: restored")
    });
    assert!(watching.said().contains("watching over 2 attachments"), "{}", watching.said());
    watching.signal("TERM");
    assert_eq!(watching.ended(), Some(0), "{}", watching.said());
    wait_for("it says that it ends", PATIENCE, || told().contains("STOPPING=1"));
    wait_for("it is said that it ends", PATIENCE, || watching.said().ends_with("stopped\n"));
}

/// What its unit leaves it.
#[test]
fn the_capabilities_of_its_unit_are_enough() {
    let unit = include_str!("../../netctl/netctl-watch.service");
    let capabilities = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a set");
    let set: String = capabilities.split(' ').map(|name| name.replace("CAP_", ",+").to_lowercase()).collect();
    let world = World::new();
    let before = format!("exec() {{ command exec setpriv --no-new-privs --bounding-set=-all{set} \"$@\"; }}");
    let watching = Watching::with(&world.host, &before, "--json");
    wait_for("the watch has begun", PATIENCE, || !watching.events("watching").is_empty());
    for damage in ["nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0", "ip link del VETH", "ip link del web"] {
        world.host.run(&damage.replace("VETH", &world.published.host_interface()));
        world.answers_again(damage);
    }
    assert_eq!(watching.events("failed").len(), 0, "{}", watching.said());
}

#[test]
fn without_permission_it_says_so() {
    let host = Host::new();
    let before = "exec() { command exec setpriv --bounding-set -all --inh-caps -all \"$@\"; }";
    let mut watching = Watching::with(&host, before, "");
    assert_eq!(watching.ended(), Some(4));
    wait_for("it says why", PATIENCE, || watching.said().contains("CAP_NET_ADMIN"));
}

/// A bus that comes only when the watch is there already, and somebody on it who is firewalld by name:
/// what matters here is what it says.
#[test]
fn what_firewalld_says_is_heard_once_there_is_a_bus() {
    // The bus gives the name away as firewalld's own files say.
    if let Some(program) = ["dbus-daemon", "firewalld"].into_iter().find(|program| !installed(program)) {
        skip!("{program} is not installed");
    }
    let world = World::new();
    let watching = Watching::on(&world.host);
    let looked = |reason: &str| {
        let looks = watching.events("looked");
        looks.iter().filter(|look| look["reasons"].to_string().contains(reason)).count()
    };
    let _bus = world.host.run_beside("mkdir -p /run/dbus; exec dbus-daemon --system --nofork --nopidfile");
    // The kernel tells nobody of this; what firewalld says does.
    let off = "sysctl -qw net.ipv4.conf.web.route_localnet=0";
    let on = || world.host.run("sysctl -n net.ipv4.conf.web.route_localnet").trim() == "1";
    let say = |signal: &str| {
        let script = format!(
            "import dbus, dbus.lowlevel, time
bus = dbus.SystemBus()
bus.request_name('org.fedoraproject.FirewallD1')
if '{signal}':
    bus.send_message(dbus.lowlevel.SignalMessage(
        '/org/fedoraproject/FirewallD1', 'org.fedoraproject.FirewallD1', '{signal}'))
bus.flush()
time.sleep(0.2)"
        );
        world.host.try_run(&format!("/usr/bin/python3 -c \"{script}\"")).status.success()
    };
    wait_for("the bus is heard", PATIENCE, || {
        world.host.run(off);
        say("") && looked("firewalld has started") > 0
    });
    wait_for("it is looked at when firewalld starts", PATIENCE, on);
    let before = looked("firewalld was reloaded");
    world.host.run(off);
    assert!(say("Reloaded"));
    wait_for("it is looked at when firewalld has reloaded", PATIENCE, || looked("firewalld was reloaded") > before);
    wait_for("what was off is on", PATIENCE, on);
}

/// What the kernel tells nobody, while a record asks for it.
#[test]
fn what_nobody_announces_is_found_by_looking_now_and_then() {
    let world = World::new();
    let watching = Watching::on(&world.host);
    world.host.run("sysctl -qw net.ipv4.conf.web.route_localnet=0");
    wait_for("127.0.0.1 answers again", PATIENCE, || fetch(&world.host, [127, 0, 0, 1], 8080).is_ok());
    let looks = watching.events("looked");
    assert_eq!(looks.len(), 1, "only where something is wrong: {looks:?}");
    assert!(looks[0]["reasons"][0].as_str().is_some_and(|reason| reason.contains("does not announce")), "{looks:?}");
}

/// Of iptables-legacy one hears nothing, whether it keeps our rules or only lets us pass. It is run while
/// there is something to ask it, and not any more afterwards.
#[test]
fn what_is_done_to_iptables_legacy_is_mended_by_itself() {
    needs!(IptablesLegacy);
    let world = World::new();
    world.host.use_iptables_legacy();
    world.host.run(
        "mkdir /run/spies
         printf '#!/bin/sh\necho run >> /run/runs\nexec /usr/sbin/iptables-legacy-save\n' \
             > /run/spies/iptables-legacy-save
         chmod +x /run/spies/*; touch /run/runs",
    );
    let watching = Watching::with(&world.host, "export PATH=/run/spies:$PATH", "--json");
    wait_for("the watch has begun", PATIENCE, || !watching.events("watching").is_empty());
    let runs = || world.host.run("wc -l < /run/runs").trim().parse::<u32>().expect("a number");
    // Somebody closes the one FORWARD that a container of ours has nothing else to do with.
    world.host.run("iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP");
    world.answers_again("iptables-legacy -P FORWARD DROP");
    world.host.run("iptables-legacy -F");
    world.answers_again("iptables-legacy -F");

    let db = world.host.cni(Network::bridge("db", &["10.30.0.0/24"]).with("firewallBackend", "iptables".into()));
    let published = db.attachment(&world.host.netns("db-1")).publish(Publish::tcp(8090, 80)).added();
    let record = world.host.run("cat /run/netcore/db/*.json");
    assert!(record.contains(r#""backend":{"iptables":"legacy"}"#), "{record}");
    let _server = serve(&world.host.adopt("db-1"), "db-1", 80);
    let db_answers = || fetch(&*world.outside, Outside::HOST_V4, 8090).is_ok();
    assert!(db_answers());
    world.host.run("iptables-legacy -t nat -F");
    wait_for("what iptables-legacy has published answers again", PATIENCE, db_answers);
    published.check().unwrap();

    published.del().unwrap();
    world.attachments().for_each(|attachment| attachment.del().unwrap());
    // Something else that nobody announces: it is looked at twice.
    let plugin = json!({ "type": "macvlan", "hostAccess": true, "master": "uplink",
        "ipam": { "type": "host-local", "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100" } });
    let _lan = world.host.cni(Network::new("lan", plugin)).attachment(&world.host.netns("lan-1")).added();
    let arp_filter = world.host.run("cd /proc/sys/net/ipv4/conf; grep -lx 1 */arp_filter").trim().to_owned();
    let before = runs();
    for _ in 0..2 {
        world.host.run(&format!("echo 0 > /proc/sys/net/ipv4/conf/{arp_filter}"));
        let is_on = || world.host.run(&format!("cat /proc/sys/net/ipv4/conf/{arp_filter}")).trim() == "1";
        wait_for("the setting is back", PATIENCE, is_on);
    }
    assert_eq!(runs(), before, "nobody has anything to ask of iptables-legacy any more");
}

#[test]
fn it_looks_as_often_as_it_is_told_to() {
    let world = World::new();
    let _watching = Watching::with(&world.host, "", "--every 1");
    // The kernel tells nobody.
    world.host.run("sysctl -qw net.ipv4.conf.web.route_localnet=0");
    let on = || world.host.run("sysctl -n net.ipv4.conf.web.route_localnet").trim() == "1";
    wait_for("it is looked at by itself", Duration::from_secs(60), on);
}
