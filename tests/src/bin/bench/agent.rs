//! An overlay's agent among many nodes in a real etcd: what it takes to begin, and to follow one change.
//! The reference has nothing of the kind.

use std::time::{Duration, Instant};

use netcore_tests::etcd::Trust;
use netcore_tests::mesh::{Mesh, PATIENCE};
use netcore_tests::{binaries, wait_for};

use crate::Options;
use crate::report::{Goal, Report, Unit};

/// How many times more nodes there are for the second figure of a change.
const FOLD: usize = 10;
/// How much more a change may take among so many: not to grow, as far as this can be measured.
const CHANGE_GOAL: f64 = 1.5;

pub(crate) fn converge(options: &Options, report: &mut Report) {
    if !binaries::installed("etcd") || !binaries::installed("etcdctl") {
        eprintln!("bench: etcd is not installed (`make bench` installs it): the overlay's agent is left out");
        return;
    }
    let (nodes, changes, starts) = if options.quick { (200, 50, 3) } else { (1000, 250, 11) };
    eprintln!("bench: overlay's agent, {nodes} nodes");
    let mut mesh = Mesh::of(1, Trust::None);
    // The tunnel is there while there is a container.
    let _container = mesh.container(1, "box");
    let grow = |mesh: &Mesh, from: usize, to: usize| {
        mesh.simulate(from..to);
        wait_for("all nodes are known", PATIENCE, || mesh.ways(1) == to);
        mesh.follow_changes(changes).as_secs_f64() * 1000.0
    };
    let few = grow(&mesh, 0, nodes / FOLD);
    let many = grow(&mesh, nodes / FOLD, nodes);

    // From nothing: no snapshot, no ways.
    let (mut times, mut cpus, mut peaks): (Vec<Duration>, Vec<Duration>, Vec<f64>) = Default::default();
    for _ in 0..starts {
        mesh.node_mut(1).kill();
        mesh.node(1).host.run("rm -r /var/lib/netcore/overlay");
        mesh.take_ways(1);
        let start = Instant::now();
        mesh.node_mut(1).start();
        wait_for("every way is there", PATIENCE, || mesh.ways(1) == nodes);
        times.push(start.elapsed());
        let (cpu, peak) = mesh.node(1).spent();
        cpus.push(cpu);
        peaks.push(peak as f64 / 1024.0);
    }
    let title = format!("overlay's agent, {nodes} nodes in etcd");
    report.own(&title, "from nothing to every way, median", times, None);
    report.own(&title, "CPU of that, median", cpus, None);
    report.beside(&title, "peak memory, median", Unit::Mebibytes, [&peaks, &[]], Goal::None);
    let what = format!("CPU of a change, beside {} nodes", nodes / FOLD);
    report.beside(&title, &what, Unit::Milliseconds, [&[many], &[few]], Goal::NoMoreThan(CHANGE_GOAL));
}
