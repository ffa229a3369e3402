//! `netctl watch` beside a test.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{Daemon, Host, binaries, wait_for};

/// How long a machine with other things to do may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `netctl watch --json`; it is killed when dropped.
pub struct Watching {
    daemon: Daemon,
}

impl Watching {
    /// Starts one on `host`, and waits until it has looked at everything once.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn on(host: &Host) -> Self {
        let watching = Self::with(host, "", "--json");
        wait_for("the watch has begun", PATIENCE, || watching.daemon.said().contains("\"event\":\"watching\""));
        watching
    }

    /// Starts one with those `arguments`, in the environment that the shell commands in `before`
    /// make.
    #[must_use]
    pub fn with(host: &Host, before: &str, arguments: &str) -> Self {
        let program = binaries::under_test().join("netctl");
        let script = format!("{before}\nexec {} watch {arguments} >&2", program.display());
        Self { daemon: Daemon::start(host.namespaces(), Command::new("bash").args(["-ec", &script])) }
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.daemon.said()
    }

    /// What it has said so far, if that is JSON: the events of that name.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn events(&self, name: &str) -> Vec<Value> {
        let said = self.said();
        // The last line may not be finished yet.
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let events =
            whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
        events.filter(|event: &Value| event["event"] == name).collect()
    }

    /// How many objects it has brought back so far.
    #[must_use]
    pub fn restored(&self) -> usize {
        let count = |event: &Value| {
            let objects = event["objects"].as_array().map_or(&[][..], Vec::as_slice);
            objects.iter().filter(|object| object["outcome"]["outcome"] == "restored").count()
        };
        self.events("looked").iter().map(count).sum()
    }

    /// The CPU time it has used so far, user and system (`/proc/PID/stat`).
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        // Nanoseconds on a CPU, the first field (Documentation/scheduler/sched-stats.rst).
        let path = format!("/proc/{}/schedstat", self.daemon.pid());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or_else(|| panic!("{path} says {text:?}")))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.daemon.pid().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("start `kill`");
        assert!(status.success(), "kill -s {signal} {pid}: {status}");
    }

    /// Waits until it has ended, and says how.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait_for("the watch ends", PATIENCE, || {
            code = self.daemon.ended();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}
