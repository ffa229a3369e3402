//! One agent among a thousand nodes: what it takes to begin, to be, and to follow one change. The
//! figures are printed, never judged: `--nocapture` shows them.

use std::fs;
use std::time::{Duration, Instant};

use netcore_tests::etcd::Trust;
use netcore_tests::mesh::Mesh;
use netcore_tests::wait_for;

/// How many changes are followed for one figure.
const CHANGES: usize = 50;

/// Time on a processor, and memory at its most, of the agent of `node`.
fn spent(mesh: &Mesh, node: usize) -> (Duration, u64) {
    let pid = mesh.node(node).agent.as_ref().unwrap().pid();
    let schedule = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let nanoseconds = schedule.split_whitespace().next().unwrap().parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (Duration::from_nanos(nanoseconds), peak.trim().trim_end_matches(" kB").parse().unwrap())
}

fn leads_to(mesh: &Mesh, address: &str) -> bool {
    mesh.node(1).host.run("bridge fdb show dev vxlan42").contains(&format!("dst {address} "))
}

/// The time on a processor that following one change takes, among as many nodes as there are.
fn follow_changes(mesh: &Mesh) -> Duration {
    let (before, _) = spent(mesh, 1);
    for change in 0..CHANGES {
        let address = format!("198.51.100.{}", 1 + change);
        mesh.move_simulated(5, &address);
        wait_for("the change is followed", Duration::from_secs(60), || leads_to(mesh, &address));
    }
    let (after, _) = spent(mesh, 1);
    (after - before) / CHANGES as u32
}

#[test]
fn a_thousand_nodes() {
    let mut mesh = Mesh::of(1, Trust::None);
    let one = mesh.container(1, "box1");
    let count =
        |mesh: &Mesh| mesh.node(1).host.run("bridge fdb show dev vxlan42 | wc -l").trim().parse::<usize>().unwrap();

    mesh.simulate(0..10);
    wait_for("ten nodes", Duration::from_secs(60), || count(&mesh) == 10);
    let few = follow_changes(&mesh);
    mesh.simulate(10..1000);
    wait_for("a thousand nodes", Duration::from_secs(60), || count(&mesh) == 1000);
    let many = follow_changes(&mesh);
    one.attachment.check().unwrap();

    // From nothing: no snapshot, no ways.
    mesh.node_mut(1).kill();
    one.attachment.del().unwrap();
    mesh.node(1).host.run("rm -r /var/lib/netcore/overlay");
    let start = Instant::now();
    mesh.node_mut(1).start();
    mesh.await_subnet(1);
    let known = start.elapsed();
    // From a snapshot whose ways are not there: the device was deleted with them.
    let two = mesh.container(1, "box2");
    assert_eq!(count(&mesh), 1000);
    mesh.node_mut(1).kill();
    mesh.node(1).host.run("bridge fdb show dev vxlan42 | while read mac rest; do bridge fdb del $mac dev vxlan42 $(echo $rest | grep -o 'dst [^ ]*') self; done; ip route flush proto 78; ip neigh flush dev vxlan42 nud permanent");
    assert_eq!(count(&mesh), 0);
    let start = Instant::now();
    mesh.node_mut(1).start();
    wait_for("all the ways", Duration::from_secs(120), || count(&mesh) == 1000);
    let reached = start.elapsed();
    wait_for("every way", Duration::from_secs(60), || two.attachment.check().is_ok());
    let (cpu, peak) = spent(&mesh, 1);
    println!(
        "1,000 nodes from etcd: known {known:?} after the agent's start, and reached {reached:?} after it ({cpu:?} of a \
         processor, {peak} kB at most); one change costs {many:?} of a processor, among 10 nodes {few:?}"
    );
}
