//! One agent among a thousand nodes: what it takes to begin, to be, and to follow one change. The
//! figures are printed, never judged: `--nocapture` shows them.

use std::time::{Duration, Instant};

use netcore_tests::etcd::Trust;
use netcore_tests::mesh::Mesh;
use netcore_tests::wait_for;

/// How many changes are followed for one figure.
const CHANGES: usize = 50;

#[test]
fn a_thousand_nodes() {
    let mut mesh = Mesh::of(1, Trust::None);
    let one = mesh.container(1, "box1");
    mesh.simulate(0..10);
    wait_for("ten nodes", Duration::from_secs(60), || mesh.ways(1) == 10);
    let few = mesh.follow_changes(CHANGES);
    mesh.simulate(10..1000);
    wait_for("a thousand nodes", Duration::from_secs(60), || mesh.ways(1) == 1000);
    let many = mesh.follow_changes(CHANGES);
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
    assert_eq!(mesh.ways(1), 1000);
    mesh.node_mut(1).kill();
    mesh.take_ways(1);
    let start = Instant::now();
    mesh.node_mut(1).start();
    wait_for("all the ways", Duration::from_secs(120), || mesh.ways(1) == 1000);
    let reached = start.elapsed();
    wait_for("every way", Duration::from_secs(60), || two.attachment.check().is_ok());
    let (cpu, peak) = mesh.node(1).spent();
    println!(
        "1,000 nodes from etcd: known {known:?} after the agent's start, and reached {reached:?} after it ({cpu:?} of a \
         processor, {peak} kB at most); one change costs {many:?} of a processor, among 10 nodes {few:?}"
    );
}
