//! Our plugins and the reference's (with `portmap` for published ports) side by side: the same
//! operations on the same machine in the same minute, turn by turn, as whole processes, which is
//! how a runtime pays for them.
//!
//! `bench [--quick] [--json] [--iterations N] [--only PART]`, PART being plugins, overlay,
//! agent, repair, watch, reload or ports; `make bench` runs it.

mod agent;
mod contender;
mod measure;
mod overlay;
mod ports;
mod reload;
mod report;
mod scenario;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use contender::Contender;
use measure::{Cost, Sample};
use netcore_tests::binaries;
use report::Report;
use scenario::Scenario;

struct Options {
    quick: bool,
    json: bool,
    iterations: usize,
    only: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { quick: false, json: false, iterations: 0, only: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--iterations" => {
                    let count = arguments.next().unwrap_or_default();
                    let wrong = || format!("--iterations {count:?}: a number of at least 1 is needed");
                    options.iterations = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
                }
                "--only" => options.only = arguments.next(),
                other => return Err(format!("{other:?} is not --quick, --json, --iterations N or --only PART")),
            }
        }
        if options.iterations == 0 {
            options.iterations = if options.quick { 10 } else { 100 };
        }
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }

    /// How many containers there are already.
    fn crowds(&self, scenario: Scenario) -> &'static [usize] {
        if self.quick || !scenario.has_crowds() { &[0] } else { &[0, 100, 500] }
    }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("bench: {reason}");
            return ExitCode::from(2);
        }
    };
    let Some(reference) = binaries::reference() else {
        eprintln!("bench: the reference plugins are not installed (`make bench` installs them)");
        return ExitCode::FAILURE;
    };
    if let Some(program) = measure::missing() {
        eprintln!("bench: {program} is not installed (`make bench` installs it)");
        return ExitCode::FAILURE;
    }
    // Leases go to the disk that programs are built on: what syncing them costs is part of it.
    let leases = Leases::beside_this_program();
    let mut report = Report::new(options.iterations);
    if options.wants("plugins") {
        plugins(&reference, &options, &leases, &mut report);
    }
    if options.wants("overlay") {
        overlay::compare(&options, &leases, &mut report);
    }
    if options.wants("agent") {
        agent::converge(&options, &mut report);
    }
    if options.wants("repair") {
        repair(&options, &leases, &mut report);
    }
    if options.wants("watch") {
        let crowd = if options.quick { 100 } else { 1000 };
        eprintln!("bench: watch, {crowd} containers");
        watch::heal(&leases.0, crowd, &mut report);
        watch::storm(&leases.0, crowd, &mut report);
    }
    if options.wants("reload") {
        match reload::missing() {
            Some(reason) => eprintln!("bench: reload is left out: {reason}"),
            None => {
                eprintln!("bench: a firewalld that reloads");
                reload::compare(if options.quick { 2 } else { 5 }, &mut report);
            }
        }
    }
    if options.wants("ports") {
        let ports = if options.quick { 1000 } else { 10_000 };
        eprintln!("bench: {ports} ports");
        ports::compare(&leases.0, ports, options.iterations.min(20), &mut report);
    }
    if options.json {
        println!("{}", report.json())
    } else {
        println!("{report}")
    }
    ExitCode::SUCCESS
}

/// ADD and DEL of every mode.
fn plugins(reference: &Path, options: &Options, leases: &Leases, report: &mut Report) {
    for scenario in Scenario::ALL {
        for &crowd in options.crowds(scenario) {
            eprintln!("bench: {}, {crowd} containers", scenario.name());
            let pair = [
                Contender::new("ours", &binaries::under_test(), scenario, &leases.0, crowd),
                Contender::new("reference", reference, scenario, &leases.0, crowd),
            ];
            one_by_one(&pair, options, scenario, crowd, report);
            if crowd == 0 && scenario.has_crowds() {
                sixteen_at_a_time(&pair, options, scenario, report);
            }
        }
    }
}

/// One ADD and one DEL after the other, ours and theirs by turns.
fn one_by_one(pair: &[Contender; 2], options: &Options, scenario: Scenario, crowd: usize, report: &mut Report) {
    let mut samples: [[Vec<Sample>; 2]; 2] = Default::default();
    let mut costs: [[Cost; 2]; 2] = Default::default();
    for _ in 0..options.iterations {
        for (contender, samples) in pair.iter().zip(&mut samples) {
            let (added, deleted) = contender.once(measure::timed);
            samples[0].push(added);
            samples[1].push(deleted);
        }
    }
    for (contender, costs) in pair.iter().zip(&mut costs) {
        *costs = contender.costs();
    }
    let title = format!("{}, {crowd} containers", scenario.name());
    for (verb, name) in ["ADD", "DEL"].into_iter().enumerate() {
        let goals = scenario.goals(name);
        let by_verb = [&samples[0][verb], &samples[1][verb]].map(|samples| samples.as_slice());
        report.operation(&title, name, by_verb, [&costs[0][verb], &costs[1][verb]], &goals);
    }
}

/// `netctl repair-chains` on a full host whose rules somebody has flushed. The reference has nothing
/// of the kind.
fn repair(options: &Options, leases: &Leases, report: &mut Report) {
    let (crowd, rounds) = if options.quick { (100, 5) } else { (1000, 15) };
    eprintln!("bench: repair, {crowd} containers");
    let ours = Contender::new("repaired", &binaries::under_test(), Scenario::Published, &leases.0, crowd);
    let (flushed, intact): (Vec<_>, Vec<_>) = (0..rounds).map(|_| ours.repair()).unzip();
    let scenario = format!("repair-chains, {crowd} containers with a port");
    let wall = |samples: &[Sample]| samples.iter().map(|sample| sample.wall).collect();
    let cpu = |samples: &[Sample]| samples.iter().map(|sample| sample.cpu).collect();
    report.own(&scenario, "after nft flush ruleset, median", wall(&flushed), Some(100.0));
    report.own(&scenario, "after nft flush ruleset, CPU, median", cpu(&flushed), None);
    report.own(&scenario, "nothing to do, median", wall(&intact), None);
}

/// Sixteen runtimes at once.
fn sixteen_at_a_time(pair: &[Contender; 2], options: &Options, scenario: Scenario, report: &mut Report) {
    let batches = if options.quick { 1 } else { 5 };
    let mut rates: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..batches {
        for (contender, rates) in pair.iter().zip(&mut rates) {
            let (added, deleted) = contender.together(16, if options.quick { 1 } else { 3 });
            rates[0].push(added);
            rates[1].push(deleted);
        }
    }
    let title = format!("{}, 16 at a time", scenario.name());
    for (verb, name) in ["ADD", "DEL"].into_iter().enumerate() {
        report.rate(&title, name, [&rates[0][verb], &rates[1][verb]], (name == "ADD").then_some(4.0));
    }
}

/// A directory of its own for reservations, removed at the end.
struct Leases(PathBuf);

impl Leases {
    fn beside_this_program() -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let directory = program.with_file_name(format!("bench-leases-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("create a directory for leases");
        Self(directory)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
