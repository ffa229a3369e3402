//! `netctl watch`: how soon what somebody broke is mended, and what it costs beside containers that
//! come and go. The reference has nothing of the kind.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use netcore_tests::Outside;
use netcore_tests::binaries;
use netcore_tests::traffic::serve;
use netcore_tests::watch::Watching;

use crate::contender::Contender;
use crate::measure::{self, CALM};
use crate::report::Report;
use crate::scenario::Scenario;

/// How often the same is broken: a watch takes its time with what is broken again and again.
const ROUNDS: usize = 5;

/// From before somebody breaks something until the published port answers again, from outside.
pub(crate) fn heal(leases: &Path, crowd: usize, report: &mut Report) {
    let ours = Contender::new("watched", &binaries::under_test(), Scenario::Published, leases, crowd);
    let (host, outside) = (ours.host(), ours.host().outside());
    let container = host.adopt("f0");
    let _server = serve(&container, "f0", 80);
    let scenario = format!("watch, {crowd} containers with a port");
    for (what, command) in [
        ("nft flush ruleset", "nft flush ruleset"),
        ("one element deleted", "nft delete element inet netcore publish4 '{ tcp . 10000 }'"),
        ("the bridge's address deleted", "ip addr del 10.20.0.1/16 dev bench0"),
    ] {
        let _watching = Watching::on(host);
        let times = (0..ROUNDS).map(|_| {
            // What the watch has done for the last round is over, down to the log.
            std::thread::sleep(CALM);
            let began = Instant::now();
            host.run(command);
            wait_for_answer(&outside);
            began.elapsed()
        });
        let times: Vec<Duration> = times.collect();
        report.own(&scenario, &format!("{what} → answers, median"), times, Some(100.0));
    }
}

/// Asks until somebody answers. A packet that is dropped is not sent again for a second: new ones are.
fn wait_for_answer(outside: &Outside) {
    let to = SocketAddr::new(Outside::HOST_V4, 10_000);
    outside.enter(|| while TcpStream::connect_timeout(&to, Duration::from_millis(5)).is_err() {});
}

/// The CPU time of the watch beside many ADDs, against that of a few ADDs themselves.
pub(crate) fn storm(leases: &Path, many: usize, report: &mut Report) {
    let ours = Contender::new("storm", &binaries::under_test(), Scenario::Published, leases, 0);
    let few: Duration = (0..many / 20).map(|_| ours.once(measure::timed).0.cpu).sum();
    let watching = Watching::on(ours.host());
    let before = watching.cpu();
    ours.fill(many);
    // It may still have something to read.
    std::thread::sleep(Duration::from_secs(1));
    let cost = watching.cpu() - before;
    assert_eq!(watching.restored(), 0, "{}", watching.said());
    let scenario = format!("watch, beside {many} ADDs with a port");
    report.own(
        &scenario,
        &format!("CPU; at most that of {} ADDs", many / 20),
        vec![cost],
        Some(few.as_secs_f64() * 1e3),
    );
}
