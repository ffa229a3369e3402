//! A real firewalld is reloaded: how long until ports answer again that we have published, beside
//! ports that a real dockerd has. Each is on a host of its own with a firewalld of its own. What the
//! reload itself takes is firewalld's: time begins when it says that it has reloaded.
//!
//! firewalld takes away every rule of iptables', whose ever it is. Our table of nf_tables stays, so we
//! are measured twice: with that, and with rules that are lost as Docker's are.

use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netcore_tests::docker::Docker;
use netcore_tests::firewalld::{Backend, Firewalld};
use netcore_tests::traffic::{Server, serve};
use netcore_tests::watch::Watching;
use netcore_tests::{Cni, Daemon, Host, Network, Outside, Publish, binaries, wait_for};
use serde_json::json;

use crate::report::{Goal, Report, Unit};

/// How many containers publish a port, a container one.
const CROWDS: [u16; 2] = [1, 10];
const FIRST_PORT: u16 = 10_000;
/// How often a port is tried.
const PACE: Duration = Duration::from_millis(5);
/// How many try at a time, so that one try may take so many times as long: on a busy machine an answer does.
const TRIERS: u32 = 10;
/// What has answered for so long is there to stay.
const CALM: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(120);

/// Why this cannot be measured here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let monitor = || (!binaries::installed("dbus-monitor")).then(|| "dbus-monitor is not installed".to_owned());
    Firewalld::missing().or_else(Docker::missing).or_else(monitor)
}

/// Reloads so often, with every crowd; ours and dockerd's by turns.
pub(crate) fn compare(rounds: usize, report: &mut Report) {
    let mut docker = Side::new(Engine::dockerd);
    let mut ours = [("nftables", "our table"), ("iptables", "our iptables backend")]
        .map(|(backend, title)| (title, Side::new(|host| Engine::ours(host, backend))));
    for crowd in CROWDS {
        docker.fill(crowd);
        ours.iter_mut().for_each(|(_, side)| side.fill(crowd));
        let mut theirs = Vec::new();
        let mut each: [Vec<Outage>; 2] = Default::default();
        for _ in 0..rounds {
            theirs.push(docker.reload());
            for ((_, side), outages) in ours.iter().zip(&mut each) {
                // A watch takes its time with what is lost again and again.
                let _watching = Watching::on(&side.host);
                outages.push(side.reload());
            }
        }
        for ((title, _), outages) in ours.iter().zip(&each) {
            let ports = if crowd == 1 { "1 port".to_owned() } else { format!("{crowd} ports") };
            let scenario = format!("firewalld reloads, {ports}, {title}; reference: {}", docker.engine.name());
            let mut row = |what: &str, of: fn(&Outage) -> Duration, goal| {
                let milliseconds = |of_all: &[Outage]| -> Vec<f64> {
                    of_all.iter().map(|outage| of(outage).as_secs_f64() * 1e3).collect()
                };
                report.beside(
                    &scenario,
                    what,
                    Unit::Milliseconds,
                    [&milliseconds(outages), &milliseconds(&theirs)],
                    goal,
                );
            };
            row("firewalld's own time, median", |outage| outage.reload, Goal::None);
            row("nobody answers, in all, median", |outage| outage.silence, Goal::None);
            row("Reloaded → all answer, median", |outage| outage.after, Goal::Fraction(20.0));
            let worst = outages.iter().map(|outage| outage.after).max().unwrap_or_default();
            report.own(&scenario, "Reloaded → all answer, longest", vec![worst], Some(100.0));
        }
    }
}

/// What became of one reload.
struct Outage {
    /// From the call of `firewall-cmd` until firewalld said that it had reloaded.
    reload: Duration,
    /// From the first port that did not answer until all answered again.
    silence: Duration,
    /// How much of that was after firewalld had said so.
    after: Duration,
}

/// Who publishes ports.
enum Engine {
    Ours(Cni),
    Dockerd(Docker),
}

impl Engine {
    fn ours(host: &Host, backend: &str) -> Self {
        let network = Network::bridge("web", &["10.20.0.0/24"]).with("firewallBackend", json!(backend));
        Self::Ours(host.cni(network))
    }

    fn dockerd(host: &Host) -> Self {
        // Without the helper only rules answer, as with us.
        Self::Dockerd(Docker::on(host, false))
    }

    fn name(&self) -> String {
        match self {
            Self::Ours(_) => "ours".to_owned(),
            Self::Dockerd(docker) => {
                let version = docker.run("version -f '{{.Server.Version}}'");
                format!("dockerd {}", version.split('+').next().unwrap_or_default())
            }
        }
    }

    /// Starts a container `name` whose port 80 is published as `port`.
    fn publish(&self, host: &Host, name: &str, port: u16) -> Server {
        let netns = match self {
            Self::Ours(network) => {
                let netns = host.netns(name);
                let _ = network.attachment(&netns).publish(Publish::tcp(port, 80)).added();
                netns
            }
            Self::Dockerd(docker) => {
                let started = docker.start(name, &format!("-p {port}:80"));
                started.unwrap_or_else(|said| panic!("{name}: {said}"))
            }
        };
        serve(&netns, name, 80)
    }
}

/// A host with a firewalld, and somebody who publishes ports.
struct Side {
    servers: Vec<Server>,
    engine: Engine,
    _firewalld: Firewalld,
    outside: Outside,
    host: Host,
}

impl Side {
    fn new(engine: impl FnOnce(&Host) -> Engine) -> Self {
        let host = Host::with_processes();
        let outside = host.outside();
        let firewalld = Firewalld::on(&host, Backend::Nftables);
        let engine = engine(&host);
        Self { servers: Vec::new(), engine, _firewalld: firewalld, outside, host }
    }

    fn ports(&self) -> Range<u16> {
        FIRST_PORT..FIRST_PORT + u16::try_from(self.servers.len()).expect("a handful")
    }

    /// Adds containers until there are so many.
    fn fill(&mut self, crowd: u16) {
        while self.ports().len() < crowd.into() {
            let port = self.ports().end;
            let server = self.engine.publish(&self.host, &format!("c{port}"), port);
            self.servers.push(server);
        }
    }

    fn reload(&self) -> Outage {
        let monitor = self.monitor();
        let over = AtomicBool::new(false);
        let tries: Vec<Tries> = self.ports().map(|_| Tries::default()).collect();
        let all_answer =
            || tries.iter().all(|tries| tries.answered_since().is_some_and(|since| since.elapsed() > CALM));
        thread::scope(|scope| {
            let _end = End(&over);
            for (port, tries) in self.ports().zip(&tries) {
                for turn in 0..TRIERS {
                    let over = &over;
                    scope.spawn(move || self.outside.enter(|| tries.go_on(port, PACE * turn, over)));
                }
            }
            wait_for("every port answers", PATIENCE, all_answer);
            let began = Instant::now();
            scope.spawn(|| self.host.run("firewall-cmd --reload"));
            while !monitor.said().contains("member=Reloaded") {
                assert!(began.elapsed() < PATIENCE, "firewalld has not reloaded: {}", monitor.said());
                thread::sleep(Duration::from_micros(200));
            }
            let reloaded = Instant::now();
            wait_for("every port answers again", PATIENCE, || reloaded.elapsed() > CALM && all_answer());
            let lost = tries.iter().filter_map(|tries| tries.failed_after(began)).min();
            let healed = tries.iter().filter_map(Tries::answered_since).max().filter(|_| lost.is_some());
            let until_healed = |from: Instant| healed.map_or(Duration::ZERO, |healed| healed.duration_since(from));
            Outage {
                reload: reloaded - began,
                silence: lost.map_or(Duration::ZERO, until_healed),
                after: until_healed(reloaded),
            }
        })
    }

    /// Hears what firewalld says, from when this returns.
    fn monitor(&self) -> Daemon {
        let monitor = self.host.run_beside(
            "exec dbus-monitor --system \"type='signal',interface='org.fedoraproject.FirewallD1',member='Reloaded'\" >&2",
        );
        wait_for("the bus is listened to", PATIENCE, || monitor.said().contains("NameLost"));
        monitor
    }
}

/// Tries to reach one port: when each began and, if it was answered, ended.
#[derive(Default)]
struct Tries(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Tries {
    /// Tries by turns with others until it is `over`, from so `late` on. A packet that is dropped is not sent
    /// again for a second: new ones are.
    fn go_on(&self, port: u16, late: Duration, over: &AtomicBool) {
        let (to, patience) = (SocketAddr::new(Outside::HOST_V4, port), PACE * TRIERS);
        thread::sleep(late);
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let answered = TcpStream::connect_timeout(&to, patience).is_ok().then(Instant::now);
            self.0.lock().expect("no panic holds it").push((began, answered));
            thread::sleep(patience.saturating_sub(began.elapsed()));
        }
    }

    /// The first answer to what was tried after the last failure.
    fn answered_since(&self) -> Option<Instant> {
        let tries = self.0.lock().expect("no panic holds it");
        let last = tries.iter().filter(|(_, answered)| answered.is_none()).map(|(began, _)| *began).max();
        tries
            .iter()
            .filter(|(began, _)| last.is_none_or(|last| *began > last))
            .filter_map(|(_, answered)| *answered)
            .min()
    }

    /// The first failure after `begin`.
    fn failed_after(&self, begin: Instant) -> Option<Instant> {
        let tries = self.0.lock().expect("no panic holds it");
        tries.iter().filter(|(began, answered)| answered.is_none() && *began > begin).map(|(began, _)| *began).min()
    }
}

/// Has those end who try, also when something has gone wrong.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
