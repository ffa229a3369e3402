//! What one process costs: itself and everything it starts and waits for.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use netcore_tests::{Failure, Host, Plugin, binaries};
use serde_json::Value;

/// How long to leave a machine alone for what was done before to be over.
pub(crate) const CALM: Duration = Duration::from_secs(1);

/// Time of one operation.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sample {
    /// From before the process is started until it has ended.
    pub(crate) wall: Duration,
    /// User and system time, its children's included.
    pub(crate) cpu: Duration,
}

/// What is the same each time.
#[derive(Default)]
pub(crate) struct Cost {
    /// The largest resident set of any one of its processes, in KiB.
    pub(crate) peak_kib: u64,
    /// How many programs were run.
    pub(crate) programs: u64,
}

type Outcome = Result<Value, Failure>;

/// Calls `plugin` and takes the time.
pub(crate) fn timed(host: &Host, plugin: &Plugin, verb: &str) -> (Outcome, Sample) {
    let (output, sample) = ended(host, plugin.command(verb), plugin.configuration());
    (plugin.outcome(verb, &output), sample)
}

/// Runs `command` on `host` and takes the time.
///
/// # Panics
/// When it fails.
pub(crate) fn process(host: &Host, mut command: Command) -> Sample {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (output, sample) = ended(host, command, &[]);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    sample
}

/// The largest of several.
pub(crate) struct Peak(pub(crate) u64);

impl std::iter::Sum for Peak {
    fn sum<I: Iterator<Item = Self>>(peaks: I) -> Self {
        Self(peaks.map(|peak| peak.0).max().unwrap_or_default())
    }
}

/// What is needed beside the plugins and not there.
pub(crate) fn missing() -> Option<&'static str> {
    ["time", "strace"].into_iter().find(|program| !binaries::installed(program))
}

/// Calls `plugin` under time(1) and takes its peak memory. Not from our own wait4(2): what we
/// start counts our memory as its own until it execs, and time(1) is small.
pub(crate) fn peak_memory(host: &Host, plugin: &Plugin, verb: &str) -> (Outcome, Peak) {
    let (outcome, report) = watched(host, plugin, verb, &["time", "-f", "%M", "-o", WATCHER_LOG]);
    (outcome, Peak(report.trim().parse().expect("time(1) prints KiB")))
}

/// Calls `plugin` under strace(1) and counts what is executed.
pub(crate) fn programs(host: &Host, plugin: &Plugin, verb: &str) -> (Outcome, u64) {
    let strace = ["strace", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o", WATCHER_LOG];
    let (outcome, log) = watched(host, plugin, verb, &strace);
    let count = log.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0")).count();
    (outcome, count.try_into().expect("a few"))
}

const WATCHER_LOG: &str = "/run/bench-watcher";

/// Calls `plugin` under `watcher`, and gives back what that wrote.
fn watched(host: &Host, plugin: &Plugin, verb: &str, watcher: &[&str]) -> (Outcome, String) {
    let called = plugin.command(verb);
    let mut command = Command::new(watcher[0]);
    command.args(&watcher[1..]).arg(called.get_program());
    command.env_clear().envs(called.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (output, _) = ended(host, command, plugin.configuration());
    let log = host.enter(|| fs::read_to_string(WATCHER_LOG)).expect("read the watcher's log");
    (plugin.outcome(verb, &output), log)
}

/// Runs `command` on `host` until it has ended.
#[expect(clippy::zombie_processes, reason = "waited for with wait4, for what it used")]
fn ended(host: &Host, mut command: Command, stdin: &[u8]) -> (Output, Sample) {
    host.enter(|| {
        let began = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let mut into = child.stdin.take().expect("piped");
        into.write_all(stdin).expect("a plugin reads its configuration");
        drop(into);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("read from a plugin");
        let (status, usage) = wait(child.id());
        let wall = began.elapsed();
        child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("read from a plugin");
        let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
        (Output { status, stdout, stderr }, Sample { wall, cpu })
    })
}

/// Waits for a child, with what it used (wait4(2)).
fn wait(pid: u32) -> (ExitStatus, libc::rusage) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live, writable memory of the right types, and all zeroes is a
    // valid `rusage`, should the call not fill it in. The child is ours and nobody else waits for it.
    let (waited, usage) = unsafe { (libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()), usage.assume_init()) };
    assert_eq!(waited, pid, "wait for a plugin: {}", std::io::Error::last_os_error());
    (ExitStatus::from_raw(status), usage)
}

fn duration(time: libc::timeval) -> Duration {
    let micros = time.tv_sec * 1_000_000 + time.tv_usec;
    Duration::from_micros(micros.try_into().unwrap_or_default())
}
