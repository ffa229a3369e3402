//! Files of ours that somebody has spoilt: what is in the place of one is never waited for, and a
//! record that cannot be read keeps nobody from detaching.

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{serve, who_answers};
use netcore_tests::{Host, Network, Outside, Publish, Snapshot};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

/// What may be at a path, and how it is said to be there.
const INTRUDERS: &[(&str, &str)] = &[
    ("mkfifo", "a FIFO"),
    ("mkdir", "a directory"),
    ("ln -s /etc/passwd", "a symbolic link"),
    ("mknod -m 600", "a device"),
];

fn put(host: &Host, intruder: &str, path: &str) {
    let number = if intruder.starts_with("mknod") { " c 1 3" } else { "" };
    host.run(&format!("mkdir -p $(dirname {path}); rm -rf {path}; {intruder} {path}{number}"));
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", SUBNETS).version("1.1.0").with("removeEmptyBridge", json!(true)));
    let container = host.netns("web-1");
    let passwd = host.run("cat /etc/passwd");
    for path in [
        "/run/netcore.switches",
        "/run/netcore.switches.lock",
        "/run/netcore.switches.draft",
        "/run/netcore/web/network.lock",
        "/run/netcore/web/web-1@eth0.bridge.json",
        "/run/netcore/web/web-1@eth0.bridge.lock",
        "/run/netcore/web/web-1@eth0.bridge.draft",
    ] {
        for (intruder, what) in INTRUDERS {
            host.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
            put(&host, intruder, path);
            let mut attachment = web.attachment(&container).publish(Publish::tcp(8080, 80));
            let failure = attachment.add().expect_err("ADD has no use for it");
            let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
            assert!(failure.says(file) && failure.says(what), "{path}: {failure}");
            host.run(&format!("rm -rf {path}"));
            attachment.added().del().unwrap_or_else(|failure| panic!("{path}: {failure}"));
            assert_eq!(host.snapshot().count("link"), Host::new().snapshot().count("link"), "{path}");
        }
    }
    assert_eq!(host.run("cat /etc/passwd"), passwd);
}

/// It is only a memory, and nobody's attachment depends on it.
#[test]
fn without_the_memory_of_an_intact_rule_set_it_is_looked_at() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", SUBNETS));
    let container = host.netns("web-1");
    for (intruder, what) in INTRUDERS {
        put(&host, intruder, "/run/netcore.verified");
        let attachment = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
        host.run("nft flush chain inet netcore prerouting");
        assert!(attachment.check().expect_err("the rules are gone").says("inet netcore"), "{what}");
        netctl(&host, "repair-chains").ended(0);
        attachment.check().unwrap();
        attachment.del().unwrap();
    }
}

const RECORD: &str = "/run/netcore/web/web-1@eth0.bridge.json";

/// What may have become of a record, and whether it goes with its attachment: a newer program's may
/// tell of something that only that knows.
const SPOILT: &[(&str, bool)] = &[
    ("truncate -s 200 RECORD", true),
    ("truncate -s 0 RECORD", true),
    ("cp /bin/true RECORD", true),
    ("cp /run/netcore/web/web-2@eth0.bridge.json RECORD", true),
    ("rm RECORD; mkfifo RECORD", true),
    ("rm RECORD; ln -s /etc/passwd RECORD", true),
    ("sed -i 's/\"version\":1/\"version\":2/' RECORD", false),
];

#[test]
fn a_record_that_cannot_be_read_keeps_nobody_from_detaching() {
    let host = Host::new();
    let outside = host.outside();
    let web = host.cni(Network::bridge("web", SUBNETS).version("1.1.0"));
    let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
    let other = web.attachment(&neighbour).publish(Publish::tcp(8081, 80)).added();
    let _server = serve(&neighbour, "web-2", 80);
    let passwd = host.run("cat /etc/passwd");
    let attachment = || web.attachment(&container).publish(Publish::tcp(8080, 80)).publish(Publish::udp(53, 53));
    attachment().added().del().unwrap();
    let before = host.snapshot();
    for (number, (damage, goes)) in SPOILT.iter().enumerate() {
        let spoilt = attachment().added();
        host.run(&damage.replace("RECORD", RECORD));
        let named = spoilt.check().expect_err("CHECK has nothing to compare with");
        assert!(named.says(RECORD), "{damage}: {named}");
        let again = attachment().add().expect_err("it is attached already");
        assert!(again.says(RECORD), "{damage}: {again}");
        let told = netctl(&host, "repair-chains").ended(3);
        assert!(told.says(&[RECORD]) || told.complaint.contains(RECORD), "{damage}: {}{}", told.text, told.complaint);
        let done = match number % 3 {
            0 => spoilt.del(),
            1 => spoilt.clone().without_netns().del(),
            _ => web.gc(&[&other]),
        };
        if *goes {
            done.unwrap_or_else(|failure| panic!("{damage}: {failure}"));
        } else {
            let failure = done.expect_err("a newer program may have made more");
            assert!(failure.says(RECORD) && failure.says("newer program"), "{damage}: {failure}");
            host.run(&format!("test -f {RECORD} && rm {RECORD}"));
        }
        spoilt.del().unwrap_or_else(|failure| panic!("{damage}, again: {failure}"));
        let now: Snapshot = host.snapshot();
        before.assert_same(&now, damage);
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8081), "web-2", "{damage}");
        other.check().unwrap();
    }
    assert_eq!(host.run("cat /etc/passwd"), passwd);
}

/// A container on two networks publishes its port by the first. Whatever became of that one's record,
/// the other takes over.
#[test]
fn the_port_of_a_network_whose_record_is_spoilt_is_taken_over() {
    let host = Host::new();
    let outside = host.outside();
    let [web, db] = [("web", "10.20.0.0/24"), ("db", "10.30.0.0/24")]
        .map(|(name, subnet)| host.cni(Network::bridge(name, &[subnet])));
    let container = host.netns("web-1");
    let _server = serve(&container, "web-1", 80);
    for damage in [format!("truncate -s 200 {RECORD}"), format!("rm {RECORD}")] {
        let first = web.attachment(&container).publish(Publish::tcp(8080, 80)).added();
        let second = db.attachment(&container).interface("eth1").publish(Publish::tcp(8080, 80)).added();
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1");
        host.run(&damage);
        first.del().unwrap();
        container.run("ip route replace default via 10.30.0.1");
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "web-1", "{damage}");
        second.check().unwrap();
        second.del().unwrap();
    }
}

/// A mount carries no mark: as long as one may be there, the record is not forgotten.
#[test]
fn what_only_a_record_tells_of_is_not_forgotten_with_it() {
    let host = Host::new();
    let own = host.cni(Network::new("own", json!({ "type": "host" })).version("1.1.0"));
    let netns = host.netns("box");
    let attachment = own.attachment(&netns).added();
    let record = "/run/netcore/own/box@eth0.host.json";
    host.run(&format!("truncate -s 100 {record}"));
    let failure = attachment.del().expect_err("the namespace's file shows the host's");
    assert!(failure.says(record), "{failure}");
    host.run("umount /run/netns/box");
    attachment.del().unwrap();
    host.run(&format!("test ! -e {record}"));
}
