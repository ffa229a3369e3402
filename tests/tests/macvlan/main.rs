//! The macvlan plugin with real packets: the host's `eth0` leads to a switch in a namespace of
//! its own, behind which another station is. Who reaches whom is what the modes are about.

mod damage;
mod input;
mod vlan;

use std::net::IpAddr;
use std::time::Duration;

use netcore_tests::netctl::netctl;
use netcore_tests::podman::Podman;
use netcore_tests::traffic::{nobody_answers, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Failure, Host, Netns, Network, Snapshot, skip, traffic, wait_for};
use serde_json::{Value, json};

const HOST: [u8; 4] = [192, 0, 2, 1];
const STATION: [u8; 4] = [192, 0, 2, 9];

/// A host on a network: `eth0` is 192.0.2.1 and fd40::1, the station 192.0.2.9 and fd40::9.
struct Lan {
    switch: Netns,
    station: Netns,
    host: Host,
}

impl Lan {
    fn new() -> Self {
        let host = Host::new();
        Self::around(host)
    }

    fn around(host: Host) -> Self {
        let (switch, station) = (host.netns("switch"), host.netns("station"));
        host.run(
            "ip link add eth0 type veth peer name port1 netns switch
             ip addr add 192.0.2.1/24 dev eth0
             ip addr add fd40::1/64 dev eth0 nodad
             ip link set eth0 up",
        );
        switch.run(
            "ip link add sw0 type bridge
             ip link set port1 master sw0 up
             ip link add port2 type veth peer name eth0 netns station
             ip link set port2 master sw0 up
             ip link set sw0 up",
        );
        station.run(
            "ip addr add 192.0.2.9/24 dev eth0
             ip addr add fd40::9/64 dev eth0 nodad
             ip link set eth0 up; ip link set lo up",
        );
        let lan = Self { switch, station, host };
        lan.host.run("ip route add default via 192.0.2.9");
        // The switch's ports forward once they have been seen to have a carrier.
        let answers = || lan.host.try_run(&format!("ping -n -c1 -W1 {}", IpAddr::from(STATION))).status.success();
        wait_for("the station to answer", Duration::from_secs(20), answers);
        lan
    }

    fn network(&self, settings: Value) -> Cni {
        self.host.cni(network("lan", settings))
    }

    fn container(&self, network: &Cni, name: &str) -> Container {
        let netns = self.host.netns(name);
        let attachment = network.attachment(&netns).added();
        let server = serve(&netns, name, 80);
        Container { netns, attachment, _server: server }
    }
}

/// A macvlan network of both families on `eth0`, with `settings` in place of others.
fn network(name: &str, settings: Value) -> Network {
    let plugin = json!({
        "type": "macvlan", "master": "eth0",
        "ipam": {
            "type": "host-local",
            "ranges": [
                [{ "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": "192.0.2.9" }],
                [{ "subnet": "fd40::/64", "rangeStart": "fd40::100", "gateway": "fd40::9" }],
            ],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    });
    let settings = settings.as_object().cloned().unwrap_or_default();
    let network = Network::new(name, plugin);
    settings.into_iter().fold(network, |network, (key, value)| network.with(&key, value))
}

struct Container {
    netns: Netns,
    attachment: Attachment,
    _server: traffic::Server,
}

impl Container {
    fn addresses(&self) -> Vec<IpAddr> {
        self.attachment.addresses()
    }
}

/// Nothing of ours is left.
#[track_caller]
fn nothing_left(before: &Snapshot, host: &Host) {
    before.assert_same(&host.snapshot(), "after the last DEL");
}

/// ADD of a container is refused with all of `words`, and leaves nothing.
#[track_caller]
fn refused(lan: &Lan, network: &Cni, name: &str, words: &[&str]) {
    let netns = lan.host.netns(name);
    refused_in(lan, network.attachment(&netns), words);
    assert_eq!(netns.run("ip -o link show type macvlan"), "");
    netns.remove();
}

#[track_caller]
fn refused_in(lan: &Lan, mut attachment: Attachment, words: &[&str]) -> Failure {
    let before = lan.host.snapshot();
    let failure = attachment.add().expect_err("it should be refused");
    before.assert_same(&lan.host.snapshot(), &format!("after `{failure}`"));
    let missing: Vec<_> = words.iter().filter(|word| !failure.says(word)).collect();
    assert!(missing.is_empty(), "does not say {missing:?}: {failure}");
    failure
}

#[test]
fn containers_reach_each_other_and_the_outside_but_not_the_host() {
    let lan = Lan::new();
    let network = lan.network(json!({ "mtu": 1400 }));
    let before = lan.host.snapshot();
    let (one, two) = (lan.container(&network, "one"), lan.container(&network, "two"));
    let _station = serve(&lan.station, "station", 80);
    let _host = serve(&lan.host, "host", 80);
    for (mine, yours) in one.addresses().into_iter().zip(two.addresses()) {
        let (station, host): (IpAddr, IpAddr) = if mine.is_ipv4() {
            (STATION.into(), HOST.into())
        } else {
            ("fd40::9".parse().unwrap(), "fd40::1".parse().unwrap())
        };
        assert_eq!(who_answers(&one.netns, yours, 80), "two");
        assert_eq!(who_answers(&one.netns, station, 80), "station");
        assert_eq!(who_answers(&lan.station, mine, 80), "one");
        nobody_answers(&one.netns, host, 80);
        nobody_answers(&lan.host, mine, 80);
    }
    let result = one.attachment.result();
    assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(1), "{result:#}");
    assert_eq!((&result["interfaces"][0]["name"], &result["ips"][0]["interface"]), (&json!("eth0"), &json!(0)));
    assert_eq!(result["interfaces"][0]["mac"], "0a:58:c0:00:02:64", "it follows from the address");
    one.netns.run("ip -d link show eth0 | grep -q 'macvlan mode bridge' && ip link show eth0 | grep -q 'mtu 1400'");
    for container in [one, two] {
        container.attachment.check().unwrap();
        container.attachment.del().unwrap();
        container.attachment.del().unwrap();
        assert_eq!(container.netns.run("ip -o link show type macvlan"), "", "the link is gone, the namespace is not");
        let Container { netns, _server, .. } = container;
        drop(_server);
        netns.remove();
    }
    nothing_left(&before, &lan.host);
}

#[test]
fn with_host_access_the_host_is_reached_too() {
    let lan = Lan::new();
    let network = lan.network(json!({ "hostAccess": true }));
    let before = lan.host.snapshot();
    let (one, two) = (lan.container(&network, "one"), lan.container(&network, "two"));
    let _station = serve(&lan.station, "station", 80);
    let host_server = serve(&lan.host, "host", 80);
    for (mine, yours) in one.addresses().into_iter().zip(two.addresses()) {
        let (station, host): (IpAddr, IpAddr) = if mine.is_ipv4() {
            (STATION.into(), HOST.into())
        } else {
            ("fd40::9".parse().unwrap(), "fd40::1".parse().unwrap())
        };
        assert_eq!(who_answers(&one.netns, host, 80), "host");
        assert_eq!(who_answers(&lan.host, mine, 80), "one");
        let answer = traffic::fetch(&lan.host, mine, 80).unwrap();
        assert_eq!(answer.client.ip(), host, "the host is known by its address");
        assert_eq!(who_answers(&one.netns, yours, 80), "two");
        assert_eq!(who_answers(&one.netns, station, 80), "station");
        // What the host has with others stays as it was.
        assert_eq!(who_answers(&lan.station, host, 80), "host");
        assert_eq!(who_answers(&lan.host, station, 80), "station");
    }
    lan.host.run("ip route show 192.0.2.100 | grep -q 'proto 78'");
    drop(host_server);
    one.attachment.check().unwrap();
    for container in [one, two] {
        container.attachment.del().unwrap();
        let Container { netns, _server, .. } = container;
        drop(_server);
        netns.remove();
    }
    nothing_left(&before, &lan.host);
}

/// Whether the one container on the master reaches the other, and the outside.
fn in_mode(mode: &str, hairpin: bool) -> bool {
    let lan = Lan::new();
    if hairpin {
        lan.switch.run("bridge link set dev port1 hairpin on");
    }
    let network = lan.network(json!({ "mode": mode }));
    let (one, two) = (lan.container(&network, "one"), lan.container(&network, "two"));
    let _station = serve(&lan.station, "station", 80);
    assert_eq!(who_answers(&one.netns, STATION, 80), "station");
    let reached = traffic::fetch(&one.netns, two.addresses()[0], 80);
    one.attachment.check().unwrap();
    one.attachment.del().unwrap();
    two.attachment.del().unwrap();
    reached.is_ok_and(|answer| answer.server == "two")
}

#[test]
fn private_does_not_talk_whatever_the_switch_does() {
    assert!(!in_mode("private", false));
    assert!(!in_mode("private", true));
}

#[test]
fn vepa_goes_out_to_the_switch() {
    assert!(!in_mode("vepa", false), "the switch sends nothing back");
    assert!(in_mode("vepa", true), "the switch sends it back");
}

#[test]
fn passthru_is_alone() {
    let lan = Lan::new();
    let network = lan.network(json!({ "mode": "passthru" }));
    let before = lan.host.snapshot();
    let one = lan.container(&network, "one");
    let _station = serve(&lan.station, "station", 80);
    assert_eq!(who_answers(&one.netns, STATION, 80), "station");
    one.attachment.check().unwrap();
    let master = lan.host.run("ip -br link show eth0");
    let mine = one.netns.run("ip -br link show eth0");
    assert_eq!(master.split_whitespace().nth(2), mine.split_whitespace().nth(2), "it has the master's MAC address");
    refused(&lan, &network, "two", &["eth0", "passthru", "one"]);
    let other = lan.host.cni(self::network("other", json!({})));
    refused(&lan, &other, "three", &["eth0", "passthru"]);
    one.attachment.del().unwrap();
    let two = lan.container(&network, "four");
    two.attachment.del().unwrap();
    for container in [one, two] {
        let Container { netns, _server, .. } = container;
        drop(_server);
        netns.remove();
    }
    nothing_left(&before, &lan.host);
}

#[test]
fn the_default_master_is_the_default_routes() {
    let lan = Lan::new();
    let network = lan.network(json!({ "master": "" }));
    let one = lan.container(&network, "one");
    ping(&one.netns, STATION);
    // Which one it was is remembered.
    lan.host.run("ip route del default");
    one.attachment.check().unwrap();
    refused(&lan, &network, "two", &["master", "default route"]);
    one.attachment.del().unwrap();
    lan.host.run("ip -6 route add default via fd40::9");
    let three = lan.container(&network, "three");
    ping(&three.netns, STATION);
    three.attachment.del().unwrap();
}

#[test]
fn a_plan_knows_the_default_master_and_the_vlan_that_is_to_be_made() {
    let lan = Lan::new();
    let plan = |name: &str, settings: Value, arguments: &str| {
        let conflist = network(name, settings).conflist();
        lan.host.enter(|| std::fs::write("/run/lan.conflist", conflist).unwrap());
        let before = lan.host.snapshot();
        let told = netctl(&lan.host, &format!("plan /run/lan.conflist {arguments}"));
        before.assert_same(&lan.host.snapshot(), "after a plan");
        told
    };
    let told = plan("lan", json!({ "master": "", "hostAccess": true }), "").ended(0);
    assert!(told.says(&["lease 192.0.2.100/24"]), "{}", told.text);
    assert!(told.says(&["create link eth0 (container) on eth0"]), "{}", told.text);
    assert!(told.says(&["create route 192.0.2.100/32"]), "{}", told.text);
    let told = plan("vlan", json!({ "master": "eth0.10" }), "").ended(0);
    assert!(told.says(&["create VLAN 10 of eth0 as eth0.10"]), "{}", told.text);
    let told = plan("vlan", json!({ "master": "eth9" }), "").ended(3);
    assert!(told.says(&["master", "eth9"]), "{}", told.text);
    lan.host.run("ip route del default");
    let told = plan("lan", json!({ "master": "" }), "").ended(3);
    assert!(told.says(&["master", "default route"]), "{}", told.text);
}

#[test]
fn a_master_in_the_container() {
    let lan = Lan::new();
    let network = lan.network(json!({ "linkInContainer": true, "master": "wire" }));
    let netns = lan.host.netns("one");
    lan.switch.run("ip link add port3 type veth peer name wire netns one; ip link set port3 master sw0 up");
    netns.run("ip link set wire up");
    let attachment = network.attachment(&netns).interface("net1").added();
    // The switch takes a moment to see the new port.
    netcore_tests::wait_for("the port forwards", std::time::Duration::from_secs(5), || {
        netns.try_run("ping -c1 -W1 192.0.2.9").status.success()
    });
    attachment.check().unwrap();
    netns.run("ip link set net1 down");
    assert!(attachment.check().expect_err("net1 is down").says("net1"));
    attachment.del().unwrap();
    assert_eq!(netns.run("ip -o link show type macvlan"), "");
    netns.run("ip link show wire");
}

#[test]
fn neighbours_learn_whose_the_address_is_now() {
    let lan = Lan::new();
    lan.station.run("ip neigh replace 192.0.2.100 lladdr 02:00:00:00:00:aa dev eth0 nud stale");
    lan.station.run("ip neigh replace fd40::100 lladdr 02:00:00:00:00:aa dev eth0 nud stale");
    let one = lan.network(json!({})).attachment(&lan.host.netns("one")).added();
    netcore_tests::wait_for("the announcements arrive", std::time::Duration::from_secs(3), || {
        let known = lan.station.run("ip neigh show");
        let of =
            |address: &str| known.lines().any(|line| line.starts_with(address) && line.contains("0a:58:c0:00:02:64"));
        of("192.0.2.100 ") && of("fd40::100 ")
    });
    one.del().unwrap();
}

/// An IPAM plugin that is executed finds the link up, as `dhcp` needs it.
#[test]
fn a_delegate_finds_the_link_it_is_asked_for() {
    let lan = Lan::new();
    let network = lan.network(json!({ "ipam": { "type": "asks-over-the-link" } }));
    let script = r#"#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
cat >/dev/null
mac() { nsenter --net="$CNI_NETNS" ip -br link show "$CNI_IFNAME" up | awk '{print $3}'; }
case $CNI_COMMAND in
ADD) mac >/run/asked; grep -q : /run/asked || exit 1
     echo '{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.77/24"}]}' ;;
DEL) mac >/run/released
     nsenter --net="$CNI_NETNS" ip -o addr show dev "$CNI_IFNAME" scope global >/run/answers ;;
esac
"#;
    lan.host.enter(|| {
        std::fs::write("/run/cni/bin/asks-over-the-link", script).unwrap();
    });
    lan.host.run("chmod +x /run/cni/bin/asks-over-the-link");
    let one = lan.container(&network, "one");
    assert_eq!(who_answers(&lan.station, [192, 0, 2, 77], 80), "one");
    let asked = lan.host.run("cat /run/asked");
    assert_eq!(one.netns.run("ip -br link show eth0 | awk '{print $3}'"), asked, "the MAC address stays");
    one.attachment.del().unwrap();
    assert_eq!(lan.host.run("cat /run/released"), asked, "the address is given back over the link");
    assert_eq!(lan.host.run("cat /run/answers"), "", "when nothing answers to it any more");
    assert_eq!(one.netns.run("ip -o link show type macvlan"), "");

    lan.host.run("sed -i 's/^ADD)/ADD) exit 1;/' /run/cni/bin/asks-over-the-link");
    refused(&lan, &network, "two", &["asks-over-the-link"]);
}

#[test]
fn podman_runs_a_container_on_a_macvlan_network() {
    if let Some(reason) = Podman::missing() {
        skip!("{reason}");
    }
    let lan = Lan::around(Host::with_processes());
    let network = network("lan", json!({ "capabilities": { "ips": true } })).version("0.4.0");
    let podman = Podman::on(&lan.host, &[network]);
    podman.run("run -d --name one --network lan localhost/bb:1 /bin/sleep 1000000");
    podman.run("run -d --name two --network lan --ip 192.0.2.150 localhost/bb:1 /bin/sleep 1000000");
    let one = podman.netns("one");
    let server = serve(&one, "one", 80);
    assert_eq!(podman.address("two", "lan"), IpAddr::from([192, 0, 2, 150]));
    assert_eq!(who_answers(&lan.station, podman.address("one", "lan"), 80), "one");
    assert_eq!(who_answers(&podman.netns("two"), podman.address("one", "lan"), 80), "one");
    drop((server, one));
    podman.run("rm -f -t 0 one two");
    let now = lan.host.snapshot();
    assert_eq!(now.count("file /run/netcore") + now.count("file /var/lib/cni/networks"), 0, "{now}");
}
