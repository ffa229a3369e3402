//! A clock that jumps, under an agent that follows etcd: nothing is lost by it, and nobody is told
//! nonsense.

use std::time::{Duration, Instant};

use netcore_tests::etcd::Trust;
use netcore_tests::mesh::{Mesh, PATIENCE, Pings};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::ping;
use netcore_tests::wait_for;

/// What the agent of `node` says about itself.
fn agent(mesh: &Mesh, node: usize) -> serde_json::Value {
    netctl(&mesh.node(node).host, "--json overlay status").json()[0]["agent"].clone()
}

/// By how many hours the clock of the agent of `node` was off when it was heard last.
fn hours_off(mesh: &Mesh, node: usize) -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    agent(mesh, node)["lastHandshake"].as_f64().map_or(f64::NAN, |heard| (heard - now) / 3600.0)
}

/// How long ago the source was heard, as the status of `node` tells it.
fn silence(mesh: &Mesh, node: usize) -> u64 {
    let told = netctl(&mesh.node(node).host, "overlay status");
    let number = told.text.split_once("last heard ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{}", told.text))
}

/// The pauses before the next attempt that the agent of `node` spoke of, in seconds.
fn pauses(mesh: &Mesh, node: usize) -> Vec<f64> {
    let said = mesh.node(node).said();
    let pause = |line: &str| line.split_once("the next attempt is in ")?.1.strip_suffix(" s")?.parse().ok();
    said.lines().filter_map(pause).collect()
}

#[test]
fn the_clock_jumps_by_hours() {
    let begin = Instant::now();
    let mut mesh = Mesh::new(Trust::None);
    for (node, clock) in [(1, "+5h"), (2, "-3h")] {
        mesh.add();
        mesh.node_mut(node).start_with_clock(clock);
        mesh.await_subnet(node);
    }
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let is_off = |mesh: &Mesh, hours: f64| (hours_off(mesh, 1) - hours).abs() < 0.5;
    wait_for("the clock is five hours ahead", PATIENCE, || is_off(&mesh, 5.0));
    let pings = Pings::start(&one.netns, two.address());
    let sane = |mesh: &Mesh| {
        for node in [1, 2] {
            let silence = silence(mesh, node);
            assert!(silence <= begin.elapsed().as_secs() + 1, "n{node} heard etcd {silence} s ago");
        }
        one.attachment.check().unwrap();
    };
    sane(&mesh);
    // While it follows, in both directions, and to where no clock should be.
    for (clock, hours) in [("-6h", -6.0), ("+100h", 100.0), ("-600000h", f64::NAN)] {
        mesh.node(1).set_clock(clock);
        // A lease is renewed every twenty seconds, and etcd is heard then.
        let jumped = || if hours.is_nan() { hours_off(&mesh, 1).is_nan() } else { is_off(&mesh, hours) };
        wait_for(clock, PATIENCE, jumped);
        assert_eq!(agent(&mesh, 1)["connected"], true);
        sane(&mesh);
    }
    // While etcd is away.
    mesh.etcd.kill();
    mesh.node(1).await_words("what was known stays");
    for clock in ["+24h", "-24h", "+0"] {
        mesh.node(1).set_clock(clock);
        let late = mesh.container(1, "late");
        ping(&late.netns, two.address());
        late.attachment.del().unwrap();
        late.netns.remove();
        sane(&mesh);
    }
    mesh.etcd.start();
    wait_for("it is followed again", PATIENCE, || agent(&mesh, 1)["connected"] == true);
    for node in [1, 2] {
        let pauses = pauses(&mesh, node);
        assert!(!pauses.is_empty() && pauses.iter().all(|pause| (0.0..=15.0).contains(pause)), "{pauses:?}");
    }
    // A clock that is wrong makes no other node than one that is right.
    let three = mesh.join();
    let new = mesh.container(three, "new");
    mesh.await_ways(&[1, 2, three]);
    ping(&new.netns, one.address());
    ping(&new.netns, two.address());
    wait_for("all is well", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 0);
    sane(&mesh);
    assert!(pings.stop() > 10);
}

#[test]
fn certificates_are_no_good_while_the_clock_is_wrong() {
    let mut mesh = Mesh::of(2, Trust::Certificates);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let pings = Pings::start(&one.netns, two.address());
    for (clock, words) in [("+1000h", "certificate expired"), ("-1000h", "certificate not valid yet")] {
        mesh.node_mut(1).kill();
        mesh.node_mut(1).start_with_clock(clock);
        mesh.node(1).await_words(words);
        mesh.node(1).await_words("what was known stays");
        let told = netctl(&mesh.node(1).host, "overlay status").ended(1);
        assert!(told.says(&["fault", words]), "{}", told.text);
        one.attachment.check().unwrap();
        mesh.node(1).set_clock("+0");
        wait_for("the clock is right again", Duration::from_secs(120), || agent(&mesh, 1)["connected"] == true);
        netctl(&mesh.node(1).host, "overlay status").ended(0);
    }
    assert!(pings.stop() > 10);
}
