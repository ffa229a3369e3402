//! The overlay beside what it is built of: its ADD beside that of our own bridge, and what goes
//! through it beside a bare VXLAN, made with `ip`, between the same two hosts.

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

/// Where the bare VXLAN's ends are.
const BARE: [&str; 2] = ["10.250.0.1", "10.250.0.2"];

pub(crate) fn compare(options: &Options, leases: &Leases, report: &mut Report) {
    operations(options, leases, report);
    throughput(options, report);
}

fn operations(options: &Options, leases: &Leases, report: &mut Report) {
    eprintln!("bench: overlay and bridge");
    let ours = binaries::under_test();
    let pair = [Scenario::Overlay, Scenario::Bridge].map(|mode| Contender::new("overlay", &ours, mode, &leases.0, 0));
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..options.iterations {
        for (contender, [adds, deletes]) in pair.iter().zip(&mut times) {
            let (added, deleted) = contender.once(measure::timed);
            adds.push(added.wall.as_secs_f64() * 1000.0);
            deletes.push(deleted.wall.as_secs_f64() * 1000.0);
        }
    }
    let [[overlay_add, overlay_del], [bridge_add, bridge_del]] = times;
    let title = "overlay beside our bridge";
    report.beside(
        title,
        "ADD wall, median",
        Unit::Milliseconds,
        [&overlay_add, &bridge_add],
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
        cluster.host(own).run(&format!(
            "ip link add bare address 02:00:00:00:99:0{own} mtu 1450 type vxlan id 99 dstport 4789 local {from} nolearning
             ip addr add {}/24 dev bare; ip link set bare up
             bridge fdb add 02:00:00:00:99:0{other} dev bare dst {to}
             ip neigh add {} lladdr 02:00:00:00:99:0{other} dev bare nud permanent",
            BARE[own - 1],
            BARE[other - 1],
        ));
    }
    let through_us = Iperf::serve(&two.netns);
    let by_hand = Iperf::serve(cluster.host(2));
    let bare: IpAddr = BARE[1].parse().expect("an address");
    let (rounds, seconds) = if options.quick { (3, 1) } else { (7, 3) };
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        rates[0].push(through_us.gigabits(&one.netns, two.addresses()[0], seconds));
        rates[1].push(by_hand.gigabits(cluster.host(1), bare, seconds));
    }
    let title = "through the overlay beside a bare VXLAN";
    report.beside(title, "TCP, median", Unit::Gigabits, [&rates[0], &rates[1]], Goal::Times(THROUGHPUT_GOAL));
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
        let output = from.place().enter(client).expect("start iperf3");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("iperf3 prints JSON");
        let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
        bits.unwrap_or_else(|| panic!("iperf3 to {to}: {}", said["error"])) / 1e9
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
