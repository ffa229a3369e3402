//! Processes that run beside a test, and end with it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Namespaces;
use crate::host::PATH;

/// The first process of a process namespace: it lives until its standard input is closed, also
/// by our end, and everything in the namespace dies with it.
pub(crate) struct Init {
    child: Child,
    first: u32,
    stdin: Option<ChildStdin>,
}

impl Init {
    /// Starts one in `namespaces`, with a `/proc` that shows it.
    pub(crate) fn start(namespaces: &Namespaces) -> Self {
        // `unshare` stays outside as the parent; the shell it forks is process 1 and, as bash
        // does, reaps what is left to it.
        let script =
            "mount -t proc proc /proc && echo up && while ! read -t 3600 line; do [ $? -gt 128 ] || exit 0; done";
        let mut child = namespaces.enter(|| {
            Command::new("unshare")
                .args(["--pid", "--fork", "--kill-child", "bash", "-c", script])
                .env("PATH", PATH)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("start `unshare`")
        });
        let mut up = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut up).expect("read from the first process");
        assert_eq!(up, "up\n", "the first process of the host did not come up");
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let children = std::fs::read_to_string(&children).unwrap_or_else(|error| panic!("read {children}: {error}"));
        let first = children.trim().parse().unwrap_or_else(|_| panic!("{children:?} is not one process"));
        let stdin = child.stdin.take();
        Self { child, first, stdin }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.first
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// A process that runs until it is dropped. What it says is kept.
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `command` in `namespaces`; it is killed with us.
    pub(crate) fn start(namespaces: &Namespaces, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env("PATH", PATH);
        let mut child =
            namespaces.enter(|| command.spawn()).unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let mut stderr = child.stderr.take().expect("piped");
        let said = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&said);
        let listener = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut some) {
                kept.lock().expect("no panic holds it").push_str(&String::from_utf8_lossy(&some[..length]));
            }
        });
        Self { child, said, listener: Some(listener) }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, and waits until it has; what it said.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn terminate(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("ask a process to end");
        self.child.wait().expect("wait for a process to end");
        // It has said all it will.
        let _ = self.listener.take().map(JoinHandle::join);
        self.said()
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic holds it").clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its own children may hold the pipe open: they end with the host, and this thread then.
        drop(self.listener.take());
    }
}

/// Waits for `what` to be so.
///
/// # Panics
/// When it is not within `patience`.
pub fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
