//! Several hosts on one wire, and the overlay between them: each is a namespace with namespaces of
//! its own, and a file says which has which subnet.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::traffic::{Place, Server, serve};
use crate::{Attachment, Cni, Host, Netns, Network, Publish};

/// Where every host of a [`Cluster`] has the file of its peers.
pub const FILE: &str = "/run/mesh.toml";

/// The network that carries the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// 192.0.2.0/24.
    V4,
    /// 2001:db8:2::/64.
    V6,
}

impl Wire {
    /// The address of a host, which are counted from 1.
    #[must_use]
    pub fn address(self, host: usize) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([192, 0, 2, 10 + host as u8]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, host as u16]),
        }
    }

    /// The address of a member of etcd, which are counted from 0.
    #[must_use]
    pub fn registry(self, member: usize) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([192, 0, 2, 100 + member as u8]),
            Self::V6 => IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 1, member as u16]),
        }
    }

    /// What a VXLAN tunnel leaves of an Ethernet's MTU, in bytes.
    #[must_use]
    pub fn room(self) -> usize {
        match self {
            Self::V4 => 1450,
            Self::V6 => 1430,
        }
    }

    /// What WireGuard leaves of it.
    #[must_use]
    pub fn encrypted_room(self) -> usize {
        match self {
            Self::V4 => 1440,
            Self::V6 => 1420,
        }
    }
}

/// Hosts 1, 2, … on one wire, all of them in the cluster 10.244.0.0/16, fd24::/48.
pub struct Cluster {
    /// The network between them.
    pub wire: Wire,
    switch: Host,
    hosts: Vec<Host>,
}

impl Cluster {
    /// Three hosts that know each other by their [file](FILE).
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        let cluster = Self::of(3, wire);
        cluster.write(&[1, 2, 3]);
        cluster
    }

    /// As many hosts as `count` says, which have no file yet.
    #[must_use]
    pub fn of(count: usize, wire: Wire) -> Self {
        let switch = switch();
        let join = |number: usize| plugged(&switch, &format!("port{number}"), wire.address(number));
        Self { wire, hosts: (1..=count).map(join).collect(), switch }
    }

    /// What the hosts are plugged into, by its ports `port1`, `port2`, …
    #[must_use]
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// The host of that number, from 1.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// Tells every host that these are the nodes.
    pub fn write(&self, nodes: &[usize]) {
        let peers: String = nodes.iter().map(|node| self.entry(*node)).collect();
        for number in 1..=self.hosts.len() {
            self.tell(number, &format!("node = \"n{number}\"\n{peers}"));
        }
    }

    /// The file's entry for the host of that number.
    #[must_use]
    pub fn entry(&self, node: usize) -> String {
        let underlay = self.wire.address(node);
        format!(
            "[[peer]]\nnode = \"n{node}\"\nunderlay = \"{underlay}\"\nsubnets = [\"10.244.{node}.0/24\", \"fd24:0:0:{node}::/64\"]\n"
        )
    }

    /// Puts `text` into one host's file.
    ///
    /// # Panics
    /// When that fails.
    pub fn tell(&self, host: usize, text: &str) {
        self.host(host).enter(|| fs::write(FILE, text)).expect("write the file of peers");
    }

    /// The overlay.
    #[must_use]
    pub fn network(&self) -> Network {
        let overlay = json!({
            "type": "overlay", "vni": 42, "cidr": ["10.244.0.0/16", "fd24::/48"], "ipMasq": true,
            "source": { "file": FILE }, "removeEmptyBridge": true,
            "capabilities": { "portMappings": true },
        });
        Network::new("mesh", overlay).version("1.1.0")
    }

    /// The overlay, on one host.
    #[must_use]
    pub fn cni(&self, host: usize) -> Cni {
        self.host(host).cni(self.network())
    }

    /// A container on one host, with a server on port 80 that says its name.
    #[must_use]
    pub fn container(&self, host: usize, name: &str, publish: &[Publish]) -> Container {
        Container::of(self.host(host), &self.cni(host), name, publish)
    }
}

/// What hosts are plugged into.
pub(crate) fn switch() -> Host {
    let switch = Host::new();
    switch.run("ip link add wire type bridge && ip link set wire up");
    switch
}

/// A new host, whose eth0 has `address` and leads to `port` of `switch`.
pub(crate) fn plugged(switch: &Host, port: &str, address: IpAddr) -> Host {
    let host = Host::new();
    let length = if address.is_ipv4() { "24" } else { "64 nodad" };
    host.run("ip link add eth0 type veth peer name port");
    // A process that stands in the other namespace gives it a name that `ip` takes.
    let mut anchor = switch.enter(|| Command::new("sleep").arg("60").spawn()).expect("start sleep");
    host.run(&format!("ip link set port netns {} name {port}", anchor.id()));
    let _ = anchor.kill();
    let _ = anchor.wait();
    switch.run(&format!("ip link set {port} master wire up"));
    host.run(&format!("ip addr add {address}/{length} dev eth0 && ip link set eth0 up"));
    host
}

/// A container on one of several hosts, attached, that serves its name on port 80.
pub struct Container {
    /// Its namespace.
    pub netns: Netns,
    /// Its attachment.
    pub attachment: Attachment,
    _server: Server,
}

impl Container {
    /// A container called `name` on `host`, in `network`.
    #[must_use]
    pub fn of(host: &Host, network: &Cni, name: &str, publish: &[Publish]) -> Self {
        let netns = host.netns(name);
        let wish = publish.iter().cloned().fold(network.attachment(&netns), Attachment::publish);
        let attachment = wish.added();
        let server = serve(&netns, name, 80);
        Self { netns, attachment, _server: server }
    }

    /// The first of its addresses.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.attachment.address()
    }

    /// Its addresses, in the order of the network's ranges.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.attachment.addresses()
    }
}

/// One megabyte of `byte` from `from` to `address`, counted there.
///
/// # Panics
/// When less arrives.
pub fn send_a_megabyte(from: &impl Place, to: &Netns, address: IpAddr, byte: u8) {
    let length = 1 << 20;
    let patience = Some(Duration::from_secs(60));
    let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 9000))).expect("listen on port 9000");
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(patience).expect("a timeout");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("read");
        all.len()
    });
    from.place().enter(|| {
        let to = SocketAddr::new(address, 9000);
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).expect("connect to port 9000");
        stream.set_write_timeout(patience).expect("a timeout");
        stream.write_all(&vec![byte; length]).expect("write");
    });
    assert_eq!(receiver.join().expect("the receiver"), length);
}
