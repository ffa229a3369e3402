//! Many published ports: neither connections nor ADDs take longer for it.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use netcore_tests::traffic::{Server, serve};
use netcore_tests::{Outside, binaries};

use crate::contender::Contender;
use crate::measure::{self, Sample};
use crate::report::Report;
use crate::scenario::Scenario;

const CONNECTIONS: usize = 200;
const FIRST_PORT: u16 = 20_000;

/// One side of the comparison.
struct Side {
    contender: Contender,
    outside: Outside,
    port: u16,
    _server: Server,
}

impl Side {
    fn new(name: &'static str, leases: &Path, ports: u16) -> Self {
        let contender = Contender::new(name, &binaries::under_test(), Scenario::Published, leases, 0);
        let outside = contender.host().outside();
        let container = contender.publish(FIRST_PORT..FIRST_PORT + ports);
        let _server = serve(&container, "many", 80);
        // In the middle: neither the first nor the last.
        Self { contender, outside, port: FIRST_PORT + ports / 2, _server }
    }

    /// Connections a second, one after the other.
    fn rate(&self) -> f64 {
        let to = SocketAddr::new(Outside::HOST_V4, self.port);
        self.outside.enter(|| {
            let began = Instant::now();
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3)).expect("connect");
                stream.read_to_end(&mut Vec::new()).expect("an answer");
            }
            #[allow(clippy::cast_precision_loss, reason = "some hundred")]
            let rate = CONNECTIONS as f64 / began.elapsed().as_secs_f64();
            rate
        })
    }
}

/// `ports` published ports, against one.
pub(crate) fn compare(leases: &Path, ports: u16, iterations: usize, report: &mut Report) {
    let sides = [Side::new("many-ports", leases, ports), Side::new("one-port", leases, 1)];
    let (mut rates, mut samples): ([Vec<f64>; 2], [Vec<Sample>; 2]) = Default::default();
    for iteration in 0..iterations * 4 {
        // By turns, and neither always first.
        for turn in 0..2 {
            let which = (iteration + turn) % 2;
            rates[which].push(sides[which].rate());
        }
    }
    for iteration in 0..iterations {
        for turn in 0..2 {
            let which = (iteration + turn) % 2;
            samples[which].push(sides[which].contender.once(measure::timed).0);
        }
    }
    let scenario = format!("{ports} ports (reference: one, ours)");
    report.rate(&scenario, "connection", [&rates[0], &rates[1]], Some(0.95));
    report.times(&scenario, "ADD wall, median", [&samples[0], &samples[1]], 0.9);
}
