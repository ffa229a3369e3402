//! One of the two: its plugins on a machine of its own, with so many containers already.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use netcore_tests::{Attachment, Cni, Host, Netns, Plugin, Publish, binaries};

use crate::measure::{self, CALM, Cost, Sample};
use crate::scenario::Scenario;

pub(crate) struct Contender {
    name: &'static str,
    host: Host,
    network: Cni,
    plugins: PathBuf,
    publish: bool,
    probe: Netns,
}

impl Contender {
    /// Plugins from `plugins`, leases below `leases`, `crowd` containers attached.
    pub(crate) fn new(name: &'static str, plugins: &Path, scenario: Scenario, leases: &Path, crowd: usize) -> Self {
        let host = Host::new();
        let leases = leases.join(format!("{name}-{}-{crowd}", scenario as u8));
        let reference = binaries::reference().is_some_and(|reference| reference == plugins);
        let network = host.cni(scenario.network(&host, &leases, reference));
        let probe = host.netns("probe");
        let publish = scenario.publishes();
        let contender = Self { name, host, network, plugins: plugins.to_owned(), publish, probe };
        contender.warm();
        contender.fill(crowd);
        contender
    }

    /// Where it all happens.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// A container that publishes all of `ports` as its port 80.
    pub(crate) fn publish(&self, ports: std::ops::Range<u16>) -> Netns {
        let netns = self.host.netns("many");
        let mut attachment = self.network.attachment(&netns);
        for port in ports {
            attachment = attachment.publish(Publish::tcp(port, 80));
        }
        self.add(&mut attachment);
        netns
    }

    /// Makes what the first ADD makes: the bridge and the tables. Not counted.
    fn warm(&self) {
        for _ in 0..3 {
            self.once(measure::timed);
        }
    }

    /// One ADD and one DEL, each process of them called by `call`: what that says, summed up.
    pub(crate) fn once<T: std::iter::Sum>(
        &self,
        call: impl Fn(&Host, &Plugin, &str) -> (Result<serde_json::Value, netcore_tests::Failure>, T),
    ) -> (T, T) {
        let mut attachment = self.attachment(&self.probe, 40_000);
        let mut said = Vec::new();
        let run = |verb: &str, plugin: Plugin, said: &mut Vec<T>| {
            let (outcome, one) = call(&self.host, &self.theirs(plugin), verb);
            said.push(one);
            outcome
        };
        let added = attachment.add_by(|plugin| run("ADD", plugin, &mut said));
        added.unwrap_or_else(|failure| panic!("{}: {failure}", self.name));
        let added = said.drain(..).sum();
        let deleted = attachment.del_by(|plugin| run("DEL", plugin, &mut said));
        deleted.unwrap_or_else(|failure| panic!("{}: {failure}", self.name));
        (added, said.into_iter().sum())
    }

    /// Peak memory and programs run, of ADD and of DEL. Measured apart from the time.
    pub(crate) fn costs(&self) -> [Cost; 2] {
        let mut costs: [Cost; 2] = Default::default();
        for _ in 0..5 {
            let (added, deleted) = self.once(measure::peak_memory);
            costs[0].peak_kib = costs[0].peak_kib.max(added.0);
            costs[1].peak_kib = costs[1].peak_kib.max(deleted.0);
        }
        (costs[0].programs, costs[1].programs) = self.once(measure::programs);
        costs
    }

    /// How long `netctl repair-chains` takes after the rules were flushed, and again at once.
    pub(crate) fn repair(&self) -> (Sample, Sample) {
        let repair = || {
            let mut command = Command::new(self.plugins.join("netctl"));
            command.args(["repair-chains", "--json"]);
            measure::process(&self.host, command)
        };
        self.host.run("nft flush ruleset");
        // The kernel gives back what was flushed once nft has ended, and that is nobody's time but nft's.
        thread::sleep(CALM);
        (repair(), repair())
    }

    /// `width` threads that each attach `depth` containers, and then detach them: operations a
    /// second.
    pub(crate) fn together(&self, width: usize, depth: usize) -> (f64, f64) {
        let names: Vec<String> = (0..width * depth).map(|number| format!("t{number}")).collect();
        let namespaces: Vec<Netns> = names.iter().map(|name| self.host.netns(name)).collect();
        let attachments: Vec<Attachment> =
            namespaces.iter().zip(41_000..).map(|(netns, port)| self.attachment(netns, port)).collect();
        let chunks: Vec<Vec<Attachment>> = attachments.chunks(depth).map(<[Attachment]>::to_vec).collect();
        let (added, chunks) = race(chunks, |mut attachment| {
            self.add(&mut attachment);
            attachment
        });
        let (deleted, _) = race(chunks, |attachment| {
            self.del(&attachment);
            attachment
        });
        drop(namespaces);
        self.host.run(&format!("for name in {}; do ip netns del $name; done", names.join(" ")));
        (added, deleted)
    }

    /// Attaches so many containers, by four threads.
    pub(crate) fn fill(&self, crowd: usize) {
        let namespaces: Vec<Netns> = (0..crowd).map(|number| self.host.netns(&format!("f{number}"))).collect();
        let numbered: Vec<(&Netns, u16)> = namespaces.iter().zip(10_000..).collect();
        thread::scope(|scope| {
            for part in numbered.chunks(numbered.len().div_ceil(4).max(1)) {
                scope.spawn(move || {
                    for (netns, port) in part {
                        self.add(&mut self.attachment(netns, *port));
                    }
                });
            }
        });
    }

    fn attachment(&self, netns: &Netns, port: u16) -> Attachment {
        let attachment = self.network.attachment(netns);
        if self.publish { attachment.publish(Publish::tcp(port, 80)) } else { attachment }
    }

    /// ADD among others. One that fails is taken back and tried again, as a runtime would; that
    /// takes the time it takes.
    fn add(&self, attachment: &mut Attachment) {
        for _ in 0..10 {
            match attachment.add_by(|plugin| self.theirs(plugin).run("ADD")) {
                Ok(_) => return,
                Err(failure) => eprintln!("bench: {} has to try again: {failure}", self.name),
            }
            self.del(attachment);
        }
        panic!("{}: ADD keeps failing", self.name);
    }

    fn del(&self, attachment: &Attachment) {
        for _ in 0..10 {
            match attachment.del_by(|plugin| self.theirs(plugin).run("DEL")) {
                Ok(()) => return,
                Err(failure) => eprintln!("bench: {} has to try again: {failure}", self.name),
            }
        }
        panic!("{}: DEL keeps failing", self.name);
    }

    /// The plugin of the same name of this contender.
    fn theirs(&self, plugin: Plugin) -> Plugin {
        let name = match plugin.name() {
            "loopback" if !self.plugins.join("loopback").exists() => "none".to_owned(),
            name => name.to_owned(),
        };
        plugin.program(&self.plugins.join(name).display().to_string())
    }
}

/// Does `work` on every item, a thread a chunk, all starting together: items a second.
fn race<T: Send>(chunks: Vec<Vec<T>>, work: impl Fn(T) -> T + Sync) -> (f64, Vec<Vec<T>>) {
    let count: usize = chunks.iter().map(Vec::len).sum();
    let start = Barrier::new(chunks.len() + 1);
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let threads: Vec<_> = chunks
            .into_iter()
            .map(|chunk| {
                scope.spawn(move || {
                    start.wait();
                    chunk.into_iter().map(work).collect::<Vec<T>>()
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let done = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        #[allow(clippy::cast_precision_loss, reason = "a few dozen")]
        let rate = count as f64 / began.elapsed().as_secs_f64();
        (rate, done)
    })
}

impl std::iter::Sum for Sample {
    fn sum<I: Iterator<Item = Self>>(samples: I) -> Self {
        samples.fold(Self::default(), |sum, sample| Self { wall: sum.wall + sample.wall, cpu: sum.cpu + sample.cpu })
    }
}
