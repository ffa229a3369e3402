//! Addresses by DHCP (RFC 2131): the reference's `dhcp` plugin and its daemon, which ask over the
//! container's own link, and a server on the other side of the master.

use std::net::IpAddr;
use std::time::Duration;

use netcore_tests::traffic::{serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, binaries, skip, wait_for};
use serde_json::{Value, json};

const SERVER: [u8; 4] = [192, 0, 2, 9];
const ONLY: [u8; 4] = [192, 0, 2, 150];

/// A host whose `eth0` leads to a server that has one address to give.
struct Lan {
    host: Host,
    server: Netns,
}

/// Why there is no DHCP here, if there is none.
fn missing() -> Option<String> {
    if !binaries::reference().is_some_and(|directory| directory.join("dhcp").exists()) {
        return Some("the reference dhcp plugin is not installed".to_owned());
    }
    (!binaries::installed("busybox")).then(|| "busybox is not installed".to_owned())
}

impl Lan {
    fn new() -> Self {
        let host = Host::with_processes();
        let server = host.netns("server");
        host.run("ip link add eth0 type veth peer name eth0 netns server; ip link set eth0 up");
        server.run("ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.9/24 dev eth0");
        let configuration = "interface eth0\nstart 192.0.2.150\nend 192.0.2.150\nmax_leases 1\n\
                             lease_file /run/udhcpd.leases\npidfile /run/udhcpd.pid\n\
                             option subnet 255.255.255.0\noption router 192.0.2.9\noption lease 3600\n";
        host.enter(|| std::fs::write("/run/udhcpd.conf", configuration).unwrap());
        // It asks by ARP whether an address is free, and waits for the answer: 10 ms.
        server.run("touch /run/udhcpd.leases; setsid busybox udhcpd -f -a 10 /run/udhcpd.conf >/run/udhcpd.log 2>&1 &");
        let daemon = binaries::reference().unwrap().join("dhcp");
        host.run(&format!("setsid {} daemon >/run/dhcp.log 2>&1 &", daemon.display()));
        wait_for("the daemon listens", Duration::from_secs(10), || {
            host.try_run("test -S /run/cni/dhcp.sock").status.success()
        });
        Self { host, server }
    }

    fn network(&self, plugin: Value) -> Cni {
        self.host.cni(Network::new("lan", plugin))
    }

    /// What went wrong, as the daemon and the server saw it.
    fn logs(&self) -> String {
        self.host.run("cat /run/dhcp.log /run/udhcpd.log")
    }

    fn attached(&self, network: &Cni, netns: &Netns) -> Attachment {
        let mut attachment = network.attachment(netns);
        attachment.add().unwrap_or_else(|failure| panic!("{failure}\n{}", self.logs()));
        attachment
    }
}

#[test]
fn macvlan_containers_have_addresses_of_a_server_and_give_them_back() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let lan = Lan::new();
    let network = lan.network(json!({ "type": "macvlan", "master": "eth0", "ipam": { "type": "dhcp" } }));
    let before = lan.host.snapshot();
    for name in ["one", "two"] {
        // There is but one address: the second container has it because the first gave it back.
        let netns = lan.host.netns(name);
        let attachment = lan.attached(&network, &netns);
        assert_eq!(attachment.address(), IpAddr::from(ONLY), "{}", attachment.result());
        netns.run("ip addr show eth0 | grep -q 192.0.2.150/24; ip route show default | grep -q 'via 192.0.2.9'");
        attachment.check().unwrap();
        let inside = serve(&netns, name, 80);
        let outside = serve(&lan.server, "server", 80);
        assert_eq!(who_answers(&netns, SERVER, 80), "server");
        assert_eq!(who_answers(&lan.server, ONLY, 80), name);
        drop((inside, outside));
        attachment.del().unwrap_or_else(|failure| panic!("{failure}\n{}", lan.logs()));
        assert_eq!(netns.run("ip -o link show type macvlan"), "");
        attachment.del().unwrap();
        netns.remove();
    }
    before.assert_same(&lan.host.snapshot(), "after the last DEL");
}

/// What a daemon that does not answer may hold is not known to be free: DEL says so until it does.
#[test]
fn without_the_daemon_there_is_no_attachment_and_with_it_nothing_is_left() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let lan = Lan::new();
    let network = lan.network(json!({ "type": "macvlan", "master": "eth0", "ipam": { "type": "dhcp" } }));
    let netns = lan.host.netns("one");
    let before = lan.host.snapshot();
    lan.host.run("mv /run/cni/dhcp.sock /run/cni/away");
    let attachment = network.attachment(&netns);
    for failure in [attachment.clone().add(), attachment.del().map(|()| Value::Null)] {
        let failure = failure.expect_err("nobody asks for an address");
        assert!(failure.says("IPAM plugin dhcp") && failure.says("/run/cni/dhcp.sock"), "{failure}");
        assert_eq!(netns.run("ip -o link show type macvlan"), "");
    }
    lan.host.run("mv /run/cni/away /run/cni/dhcp.sock");
    attachment.del().unwrap();
    before.assert_same(&lan.host.snapshot(), "after DEL");
}
