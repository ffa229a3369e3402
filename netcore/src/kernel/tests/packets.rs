//! What neighbours hear, and what connection tracking forgets.

use std::io::Read;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::conntrack::{self, Published};
use super::*;
use crate::error::Error;
use crate::model::Protocol;

#[test]
fn new_addresses_are_announced() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        let filter = "arp or (icmp6 and ip6[40] == 136)";
        let mut tcpdump = Command::new("tcpdump")
            .args(["-lnei", "br-web", "-c", "4", filter])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says "listening" once it is.
        let mut listening = [0; 9];
        tcpdump.stderr.as_mut().unwrap().read_exact(&mut listening).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        kernel.settle(&wanted).await.unwrap();
        let mut heard = String::new();
        tcpdump.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
        tcpdump.wait().unwrap();
        assert!(heard.contains("0a:58:0a:14:00:02 > ff:ff:ff:ff:ff:ff"), "{heard}");
        assert!(heard.contains("Request who-has 10.20.0.2 tell 10.20.0.2"), "{heard}");
        assert!(heard.contains("fd00:20::2 > ff02::1: ICMP6, neighbor advertisement, tgt is fd00:20::2"), "{heard}");
        // The gateway's, too: a bridge that was made anew has another address than the old one.
        assert!(heard.contains("Request who-has 10.20.0.1 tell 10.20.0.1"), "{heard}");
        assert!(heard.contains("fd00:20::1 > ff02::1: ICMP6, neighbor advertisement, tgt is fd00:20::1"), "{heard}");
        assert_eq!(ip(Some("web-1"), "-4 neigh"), "");
    });
}

#[test]
fn a_port_forwards_once_it_has_settled() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        let start = Instant::now();
        kernel.settle(&wanted).await.unwrap();
        println!("settled after {:?}", start.elapsed());
        let shown = ip(None, "-d link show dev veth1");
        assert!(shown.contains("state forwarding"), "{shown}");
        // What is gone is not waited for.
        ip(None, "link del veth1");
        kernel.settle(&wanted).await.unwrap();
    });
}

#[test]
fn a_port_that_is_late_is_waited_for() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        kernel.settle(&wanted).await.unwrap();
        ip(Some("web-1"), "link set eth0 down");
        let late = Command::new("sh").args(["-c", "sleep 0.2; ip -n web-1 link set eth0 up"]).spawn();
        let start = Instant::now();
        kernel.settle(&wanted[..2]).await.unwrap();
        let waited = start.elapsed();
        assert!(ip(None, "-d link show dev veth1").contains("state forwarding"));
        assert!((Duration::from_millis(150)..Duration::from_millis(900)).contains(&waited), "{waited:?}");
        late.unwrap().wait().unwrap();
    });
}

#[test]
fn an_address_somebody_else_has_is_refused_after_detection() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let mut wanted = attachment();
        wanted.truncate(3);
        create_all(&kernel, &wanted).await;
        kernel.settle(&wanted).await.unwrap();
        ip(None, "addr add fd00:20::2/64 dev br-web nodad");
        let taken = Object::Address(Address { dad: true, ..address(Place::Sandbox, "eth0", "fd00:20::2/64") });
        let free = Object::Address(Address { dad: true, ..address(Place::Sandbox, "eth0", "fd00:20::3/64") });
        create_all(&kernel, &[taken.clone(), free.clone()]).await;
        kernel.settle(std::slice::from_ref(&free)).await.unwrap();
        assert!(!ip(Some("web-1"), "addr show to fd00:20::3").contains("tentative"));
        match kernel.settle(&[taken]).await {
            Err(Error::Conflict { object, .. }) => assert!(object.contains("fd00:20::2/64 on eth0"), "{object}"),
            other => panic!("{other:?}"),
        }
    });
}

pub(super) fn track(protocol: &str, to: &str, port: u16) -> bool {
    let from = if to.contains(':') { "fd00::99" } else { "192.0.2.99" };
    let port = port.to_string();
    let mut words = vec!["-I", "-p", protocol, "-s", from, "-d", to, "--sport", "1234", "--dport", &port, "-t", "100"];
    if protocol == "tcp" {
        words.extend(["--state", "ESTABLISHED"]);
    }
    Command::new("conntrack").args(words).output().unwrap().status.success()
}

fn tracked() -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let output = Command::new("conntrack").args(["-L", "-f", family]).output().unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let word = |key: &str| line.split(key).nth(1).unwrap().split(' ').next().unwrap().to_owned();
            let protocol = line.split(' ').next().unwrap();
            lines.push(format!("{protocol} {} {}", word("dst="), word("dport=")));
        }
    }
    lines.sort();
    lines
}

#[test]
fn connections_to_a_port_are_forgotten_and_others_are_not() {
    on_a_host(|| {
        if !track("udp", "10.0.0.1", 53) {
            println!("skipped: this kernel has no connection tracking");
            return;
        }
        for (protocol, to, port) in [
            ("udp", "10.0.0.1", 8080),
            ("tcp", "10.0.0.1", 8080),
            ("tcp", "10.0.0.2", 8080),
            ("tcp", "10.0.0.1", 8081),
            ("tcp", "fd00::1", 8080),
        ] {
            assert!(track(protocol, to, port));
        }
        let port = |protocol, host_address: Option<&str>, port, v6| Published {
            protocol,
            host_address: host_address.map(|address| address.parse::<IpAddr>().unwrap()),
            port,
            v6,
        };
        assert_eq!(conntrack::flush(&[port(Protocol::Tcp, Some("10.0.0.9"), 8080, false)]).unwrap(), 0);
        assert_eq!(conntrack::flush(&[port(Protocol::Tcp, Some("10.0.0.1"), 8080, false)]).unwrap(), 1);
        assert_eq!(
            tracked(),
            ["tcp 10.0.0.1 8081", "tcp 10.0.0.2 8080", "tcp fd00::1 8080", "udp 10.0.0.1 53", "udp 10.0.0.1 8080"]
        );
        let several = [
            port(Protocol::Tcp, None, 8080, false),
            port(Protocol::Udp, None, 8080, false),
            port(Protocol::Tcp, None, 8080, true),
        ];
        assert_eq!(conntrack::flush(&several).unwrap(), 3);
        assert_eq!(tracked(), ["tcp 10.0.0.1 8081", "udp 10.0.0.1 53"]);
        // The answer to what went to the container comes from the container.
        assert_eq!(conntrack::flush_address("10.0.0.7".parse().unwrap()).unwrap(), 0);
        assert_eq!(conntrack::flush_address("10.0.0.1".parse().unwrap()).unwrap(), 2);
        assert_eq!(conntrack::flush(&several).unwrap(), 0);
        assert_eq!(tracked(), [""; 0]);
    });
}
