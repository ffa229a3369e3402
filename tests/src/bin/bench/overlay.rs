//! The overlay beside what it is built of: its ADD beside that of our own bridge, and what goes
//! through it beside bare VXLANs, made with `ip`: one that bridges the same two containers, and one
//! between the hosts themselves, without any container.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use netcore_tests::cluster::{Cluster, Wire};
use netcore_tests::traffic::Place;
use netcore_tests::{binaries, wait_for};

use crate::contender::Contender;
use crate::report::{Goal, Report, Unit};
use crate::scenario::Scenario;
use crate::{Leases, Options, measure};

/// At most so many times the bridge's ADD.
const ADD_GOAL: f64 = 1.2;
/// At least so much of a bare VXLAN's throughput.
const THROUGHPUT_GOAL: f64 = 0.95;

/// The containers' addresses in a bridge that spans both hosts by a VXLAN.
const CONTAINERS: [&str; 2] = ["10.251.0.1", "10.251.0.2"];
/// The hosts' addresses on a VXLAN of their own.
const HOSTS: [&str; 2] = ["10.250.0.1", "10.250.0.2"];

pub(crate) fn compare(options: &Options, leases: &Leases, report: &mut Report) {
    operations(options, leases, report);
    throughput(options, report);
}

fn operations(options: &Options, leases: &Leases, report: &mut Report) {
    eprintln!("bench: overlay and bridge");
    let ours = binaries::under_test();
    let pair = [Scenario::Overlay, Scenario::Bridge].map(|mode| Contender::new("overlay", &ours, mode, &leases.0, 0));
    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    for _ in 0..options.iterations {
        for (contender, [walls, cpus, deletes]) in pair.iter().zip(&mut times) {
            let (added, deleted) = contender.once(measure::timed);
            walls.push(milliseconds(added.wall));
            cpus.push(milliseconds(added.cpu));
            deletes.push(milliseconds(deleted.wall));
        }
    }
    let [[overlay_add, overlay_cpu, overlay_del], [bridge_add, bridge_cpu, bridge_del]] = times;
    let title = "overlay beside our bridge";
    report.beside(
        title,
        "ADD wall, median",
        Unit::Milliseconds,
        [&overlay_add, &bridge_add],
        Goal::NoMoreThan(ADD_GOAL),
    );
    report.beside(
        title,
        "ADD CPU, median",
        Unit::Milliseconds,
        [&overlay_cpu, &bridge_cpu],
        Goal::NoMoreThan(ADD_GOAL),
    );
    report.beside(title, "DEL wall, median", Unit::Milliseconds, [&overlay_del, &bridge_del], Goal::None);
}

fn throughput(options: &Options, report: &mut Report) {
    if !binaries::installed("iperf3") {
        eprintln!("bench: iperf3 is not installed (`make bench` installs it): the overlay's throughput is left out");
        return;
    }
    eprintln!("bench: overlay, throughput");
    let cluster = Cluster::of(2, Wire::V4);
    cluster.write(&[1, 2]);
    let [one, two] = [1, 2].map(|host| cluster.container(host, "box", &[]));
    for (own, other) in [(1, 2), (2, 1)] {
        let (from, to) = (cluster.wire.address(own), cluster.wire.address(other));
        let (mac, other_mac) = (format!("02:00:00:00:99:0{own}"), format!("02:00:00:00:99:0{other}"));
        let host = cluster.host(own);
        // Between the containers, and between the hosts themselves.
        host.run(&format!(
            "ip link add hand type bridge; ip link set hand up
             ip link add through mtu 1450 type vxlan id 98 dstport 4789 local {from} remote {to}
             ip link set through master hand up
             ip link add port mtu 1450 type veth peer name eth1 mtu 1450 netns box; ip link set port master hand up
             ip link add bare address {mac} mtu 1450 type vxlan id 99 dstport 4789 local {from} nolearning
             ip addr add {}/24 dev bare; ip link set bare up
             bridge fdb add {other_mac} dev bare dst {to}
             ip neigh add {} lladdr {other_mac} dev bare nud permanent",
            HOSTS[own - 1],
            HOSTS[other - 1],
        ));
        let container = if own == 1 { &one.netns } else { &two.netns };
        // Whether a server is there is asked over `lo`.
        container
            .run(&format!("ip link set lo up; ip addr add {}/24 dev eth1; ip link set eth1 up", CONTAINERS[own - 1]));
    }
    let in_container = Iperf::serve(&two.netns);
    let on_host = Iperf::serve(cluster.host(2));
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (rounds, seconds) = if options.quick { (3, 1) } else { (11, 2) };
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        rates[0].push(in_container.gigabits(&one.netns, two.addresses()[0], seconds));
        rates[1].push(in_container.gigabits(&one.netns, address(CONTAINERS[1]), seconds));
        rates[2].push(on_host.gigabits(cluster.host(1), address(HOSTS[1]), seconds));
    }
    let title = "TCP beside a VXLAN made with ip";
    let mut row =
        |what, other: usize, goal| report.beside(title, what, Unit::Gigabits, [&rates[0], &rates[other]], goal);
    row("same containers, median", 1, Goal::Times(THROUGHPUT_GOAL));
    row("from host to host, no container", 2, Goal::None);
}

/// An iperf3 server, until it is dropped.
struct Iperf(Child);

impl Iperf {
    fn serve(place: &impl Place) -> Self {
        let mut command = Command::new("iperf3");
        command.args(["-s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = place.place().enter(|| command.spawn()).expect("start iperf3");
        let listens = || place.place().enter(|| std::net::TcpStream::connect("127.0.0.1:5201").is_ok());
        wait_for("iperf3 listens", std::time::Duration::from_secs(10), listens);
        Self(server)
    }

    fn gigabits(&self, from: &impl Place, to: IpAddr, seconds: u32) -> f64 {
        let client = || {
            let mut command = Command::new("iperf3");
            command.args(["-J", "-c", &to.to_string(), "-t", &seconds.to_string()]).output()
        };
        for _ in 0..100 {
            let output = from.place().enter(client).expect("start iperf3");
            let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("iperf3 prints JSON");
            if let Some(bits) = said["end"]["sum_received"]["bits_per_second"].as_f64() {
                return bits / 1e9;
            }
            // It takes the server a moment to be done with the client before.
            let error = said["error"].as_str().unwrap_or_default();
            assert!(error.contains("busy"), "iperf3 to {to}: {error}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("iperf3 at {to} stays busy");
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
