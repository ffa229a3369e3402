//! A cluster whose nodes find each other by a real etcd: hosts on one wire, each with an agent, and
//! one more that etcd runs on.

use std::fs;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cluster::{Container, Wire, plugged, switch};
use crate::etcd::{Etcd, PKI, PREFIX, Trust};
use crate::traffic::Place;
use crate::{Cni, Daemon, Host, Network, Publish, binaries, wait_for};

/// How long anything may take that needs a connection: what lost one waits before the next.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node finds its configuration.
pub const CONFLIST: &str = "/run/mesh.conflist";

/// Where a node's own clock is.
const CLOCK: &str = "/run/clock";

/// Hosts 1, 2, … on one wire with etcd, all in the cluster 10.244.0.0/16, fd24::/48.
pub struct Mesh {
    /// Their registry.
    pub etcd: Etcd,
    /// The network between them.
    pub wire: Wire,
    switch: Host,
    nodes: Vec<Node>,
}

/// A host of the cluster, with its agent.
pub struct Node {
    /// The host.
    pub host: Host,
    /// Its name.
    pub name: String,
    /// Its agent, while it runs.
    pub agent: Option<Daemon>,
}

impl Mesh {
    /// A cluster without nodes.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self::over(Wire::V4, 1, trust)
    }

    /// The same on another wire, or with more members of etcd.
    #[must_use]
    pub fn over(wire: Wire, members: usize, trust: Trust) -> Self {
        let switch = switch();
        let member = |member| plugged(&switch, &format!("member{member}"), wire.registry(member));
        let etcd = Etcd::new((0..members).map(member).collect(), wire, trust);
        Self { etcd, wire, switch, nodes: Vec::new() }
    }

    /// One with `count` nodes that have their subnets.
    #[must_use]
    pub fn of(count: usize, trust: Trust) -> Self {
        Self::new(trust).with(count)
    }

    /// The same with `count` more nodes that have their subnets.
    #[must_use]
    pub fn with(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.join();
        }
        self
    }

    /// One more node, which has its subnet when this returns.
    pub fn join(&mut self) -> usize {
        let number = self.add();
        self.node_mut(number).start();
        self.await_subnet(number);
        number
    }

    /// One more host, without an agent.
    pub fn add(&mut self) -> usize {
        let number = self.nodes.len() + 1;
        let host = plugged(&self.switch, &format!("port{number}"), self.wire.address(number));
        if self.etcd.trust == Trust::Certificates {
            for name in ["ca.pem", "node.pem", "node.key"] {
                let path = format!("{PKI}/{name}");
                let content = self.etcd.host().enter(|| fs::read(&path)).expect("read a certificate");
                host.enter(|| fs::create_dir_all(PKI).and_then(|()| fs::write(&path, content))).expect("copy it");
            }
        }
        let node = Node { host, name: format!("n{number}"), agent: None };
        node.configure(&self.network());
        self.nodes.push(node);
        number
    }

    /// What the hosts are plugged into, by its ports `port1`, `port2`, … and, for etcd, `member0`.
    #[must_use]
    pub fn switch(&self) -> &Host {
        &self.switch
    }

    /// Waits until containers could be attached on `node`.
    pub fn await_subnet(&self, node: usize) {
        let cni = self.cni(node);
        let node = self.node(node);
        let start = std::time::Instant::now();
        while let Err(failure) = cni.status() {
            assert!(start.elapsed() < PATIENCE, "{failure}\n{}", node.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The node with that number, from 1.
    #[must_use]
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// The same, to start and stop its agent.
    pub fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> Network {
        let overlay = json!({
            "type": "overlay", "vni": 42, "cidr": ["10.244.0.0/16", "fd24::/48"], "ipMasq": true,
            "source": self.etcd.source(), "removeEmptyBridge": true,
            "capabilities": { "portMappings": true },
        });
        Network::new("mesh", overlay).version("1.1.0")
    }

    /// The network on `node`.
    #[must_use]
    pub fn cni(&self, node: usize) -> Cni {
        self.node(node).host.cni(self.network())
    }

    /// A container on `node`.
    #[must_use]
    pub fn container(&self, node: usize, name: &str) -> Container {
        self.publishing(node, name, &[])
    }

    /// A container on `node` with published ports.
    #[must_use]
    pub fn publishing(&self, node: usize, name: &str, publish: &[Publish]) -> Container {
        Container::of(&self.node(node).host, &self.cni(node), name, publish)
    }

    /// Has etcd know of `nodes` that are not there.
    pub fn simulate(&self, nodes: std::ops::Range<usize>) {
        let all: Vec<usize> = nodes.collect();
        for some in all.chunks(50) {
            let mut script = "\n".to_owned();
            for node in some {
                let subnet = simulated_subnet(*node);
                script += &format!("put {PREFIX}/subnets/{} m{node}\n", subnet.replace('/', "-"));
                let record = simulated(*node, &format!("198.18.{}.{}", node / 250, node % 250 + 1));
                script += &format!("put {PREFIX}/nodes/m{node} {record}\n");
            }
            self.etcd.host().enter(|| fs::write("/run/script", script + "\n\n")).expect("write a script");
            self.etcd.ctl("txn </run/script");
        }
    }

    /// Makes `address` that of a node that is not there.
    pub fn move_simulated(&self, node: usize, address: &str) {
        self.etcd.ctl(&format!("put {PREFIX}/nodes/m{node} '{}'", simulated(node, address)));
    }

    /// To how many others `node` has a way: by the last that is made of each, its IPv6 route.
    #[must_use]
    pub fn ways(&self, node: usize) -> usize {
        self.node(node).host.run("ip -6 route show proto 78").lines().count()
    }

    /// Takes every way through its tunnel from `node`.
    pub fn take_ways(&self, node: usize) {
        self.node(node).host.run(
            "bridge fdb show dev vxlan42 | sed -E 's/^(\\S+).* (dst \\S+).*/fdb del \\1 dev vxlan42 \\2 self/' | bridge -batch -
             ip route flush proto 78; ip -6 route flush proto 78
             ip neigh flush dev vxlan42 nud permanent; ip -6 neigh flush dev vxlan42 nud permanent",
        );
        assert_eq!(self.ways(node), 0);
    }

    /// The time on a processor that the agent of node 1 takes to follow one change of one that is not
    /// there, out of `changes`.
    pub fn follow_changes(&self, changes: usize) -> Duration {
        let (before, _) = self.node(1).spent();
        for change in 0..changes {
            let address = format!("198.51.{}.{}", 100 + change / 250, 1 + change % 250);
            self.move_simulated(5, &address);
            let leads_there =
                || self.node(1).host.run("bridge fdb show dev vxlan42").contains(&format!("dst {address} "));
            wait_for("the change is followed", PATIENCE, leads_there);
        }
        let (after, _) = self.node(1).spent();
        (after - before) / changes as u32
    }

    /// Waits until every node of `these` knows the way to every other, by its tunnel.
    pub fn await_ways(&self, these: &[usize]) {
        for one in these {
            for other in these.iter().filter(|other| *other != one) {
                let address = format!("dst {} ", self.wire.address(*other));
                let node = self.node(*one);
                let start = std::time::Instant::now();
                while !node.host.run("bridge fdb show dev vxlan42 || :").contains(&address) {
                    assert!(start.elapsed() < PATIENCE, "n{one} finds no way to n{other}:\n{}", node.said());
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

impl Node {
    /// Writes down what the node's network is.
    pub fn configure(&self, network: &Network) {
        self.host.enter(|| fs::write(CONFLIST, network.conflist())).expect("write the configuration");
    }

    /// Starts its agent.
    pub fn start(&mut self) {
        self.start_with(&format!("--node {} --underlay eth0", self.name));
    }

    /// Starts its agent with other arguments.
    pub fn start_with(&mut self, arguments: &str) {
        self.agent = Some(Daemon::start(self.host.namespaces(), &mut agent(arguments)));
    }

    /// Starts its agent as systemd does, which listens at `socket`, with no more than the
    /// capabilities that its unit leaves it.
    ///
    /// # Panics
    /// When the unit leaves it all.
    pub fn start_for_systemd(&mut self, socket: &str) {
        let unit = include_str!("../../netctl/netctl-overlay@.service");
        let capabilities = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a set");
        let set: String = capabilities.split(' ').map(|name| name.replace("CAP_", ",+").to_lowercase()).collect();
        let agent = agent(&format!("--node {} --underlay eth0", self.name));
        let mut command = Command::new("setpriv");
        command.args(["--no-new-privs", &format!("--bounding-set=-all{set}")]);
        command.arg(agent.get_program()).args(agent.get_args());
        self.agent = Some(Daemon::start(self.host.namespaces(), command.env("NOTIFY_SOCKET", socket)));
    }

    /// Starts its agent with a clock of its own, which [`Node::set_clock`] may set again.
    ///
    /// # Panics
    /// Without libfaketime.
    pub fn start_with_clock(&mut self, clock: &str) {
        self.set_clock(clock);
        let found = self.host.run("find /usr/lib /usr/lib64 -name libfaketimeMT.so.1 2>/dev/null || :");
        let library = found.lines().next().expect("libfaketime: tests/install-packages test");
        let mut command = agent(&format!("--node {} --underlay eth0", self.name));
        // What is said of the time that passes stays true, as it does in the kernel.
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", CLOCK);
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        self.agent = Some(Daemon::start(self.host.namespaces(), &mut command));
    }

    /// Sets its agent's clock to the machine's and `clock`, such as `+5h`.
    ///
    /// # Panics
    /// When it cannot be written down.
    pub fn set_clock(&self, clock: &str) {
        // Replaced in one go: it is read whenever the agent looks at the clock.
        self.host
            .enter(|| fs::write("/run/clock.new", clock).and_then(|()| fs::rename("/run/clock.new", CLOCK)))
            .expect("set the clock");
    }

    /// Kills its agent, which has no chance to say anything.
    pub fn kill(&mut self) {
        self.agent = None;
    }

    /// What its agent has taken: time on a processor, and memory at its most, in KiB.
    ///
    /// # Panics
    /// When none is at work.
    #[must_use]
    pub fn spent(&self) -> (Duration, u64) {
        let pid = self.agent.as_ref().expect("an agent").pid();
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("what the kernel counted");
        let (schedule, status) = (read("schedstat"), read("status"));
        let nanoseconds = schedule.split_whitespace().next().and_then(|first| first.parse().ok());
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        (Duration::from_nanos(nanoseconds.expect("nanoseconds")), peak.expect("a number of kB"))
    }

    /// What its agent said.
    #[must_use]
    pub fn said(&self) -> String {
        self.agent.as_ref().map(Daemon::said).unwrap_or_default()
    }

    /// Waits until its agent has said `words`.
    ///
    /// # Panics
    /// When it does not.
    pub fn await_words(&self, words: &str) {
        let start = std::time::Instant::now();
        while !self.said().contains(words) {
            assert!(start.elapsed() < PATIENCE, "{}: {words:?} was not said:\n{}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn agent(arguments: &str) -> Command {
    let mut command = Command::new(binaries::under_test().join("netctl"));
    command.args(["overlay", "agent", "--config", CONFLIST]).args(arguments.split_whitespace());
    command
}

fn simulated_subnet(node: usize) -> String {
    format!("fd24:0:0:{:x}::/64", 0x100 + node)
}

/// What a node that is not there says about itself.
fn simulated(node: usize, address: &str) -> Value {
    let mac = format!("02:ff:00:00:{:02x}:{:02x}", node / 256, node % 256);
    json!({
        "version": 1, "node": format!("m{node}"), "subnets": [simulated_subnet(node)], "underlay": address,
        "mac": mac, "vni": 42, "port": 4789,
    })
}

/// A ping every ten milliseconds, from when it is made until [`Pings::stop`].
pub struct Pings {
    child: Child,
    output: Option<JoinHandle<String>>,
}

impl Pings {
    /// Begins with it.
    ///
    /// # Panics
    /// When `ping` cannot be started.
    #[must_use]
    pub fn start(from: &impl Place, to: IpAddr) -> Self {
        let mut command = Command::new("ping");
        command.args(["-n", "-i", "0.01", &to.to_string()]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).env("PATH", crate::host::PATH);
        let mut child = from.place().enter(|| command.spawn()).expect("start ping");
        let output = child.stdout.take().expect("piped");
        let output = std::thread::spawn(move || std::io::read_to_string(output).unwrap_or_default());
        Self { child, output: Some(output) }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When one was not answered.
    pub fn stop(mut self) -> usize {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("stop ping");
        let output = self.output.take().map(|output| output.join().expect("its output")).unwrap_or_default();
        let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<usize>().ok();
        let answered: Vec<usize> = output.lines().filter_map(number).collect();
        // The last one may have been under way.
        let missing: Vec<usize> =
            (1..answered.last().copied().unwrap_or(0)).filter(|one| !answered.contains(one)).collect();
        assert!(missing.is_empty(), "{} of {} pings were lost: {missing:?}", missing.len(), answered.len());
        assert!(!answered.is_empty(), "no ping was answered: {output}");
        answered.len()
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
