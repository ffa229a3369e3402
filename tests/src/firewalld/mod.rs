//! firewalld on a [`Host`], with a D-Bus of its own: the same files as on the machine and our
//! packaged ones, changed as a test needs them.

mod world;

use std::process::Command;
use std::time::Duration;

use crate::processes::Daemon;
use crate::{Host, binaries, wait_for};

pub use world::World;

/// What firewalld writes its rules with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables.
    Nftables,
    /// iptables; every rule of anybody's goes when it reloads.
    Iptables,
}

impl Backend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nftables, Self::Iptables];

    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// What becomes of firewalld in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `firewall-cmd --reload`.
    Reload,
    /// `firewall-cmd --complete-reload`: connections go, too.
    CompleteReload,
    /// `systemctl restart firewalld`.
    Restart,
    /// `systemctl stop firewalld`.
    Stop,
    /// `systemctl start firewalld`.
    Start,
}

impl Event {
    /// All, in an order in which they can happen.
    pub const ALL: [Self; 5] = [Self::Reload, Self::CompleteReload, Self::Restart, Self::Stop, Self::Start];
}

/// Our packaged zone and policy.
const ZONE: &str = include_str!("../../../netcore/firewalld/zones/netcore.xml");
const POLICY: &str = include_str!("../../../netcore/firewalld/policies/netcore-in.xml");

/// Starting and reloading takes a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running firewalld; it ends when it is dropped, and so does its bus.
pub struct Firewalld {
    daemon: Option<Daemon>,
    _bus: Daemon,
    // Behind them: a host ends when all of its processes have, and been waited for.
    host: Host,
}

impl Firewalld {
    /// Why firewalld cannot be used here, if it cannot.
    #[must_use]
    pub fn missing() -> Option<String> {
        let programs = ["dbus-daemon", "firewalld", "firewall-cmd"];
        let missing = programs.into_iter().find(|program| !binaries::installed(program));
        missing.map(|program| format!("{program} is not installed"))
    }

    /// Starts firewalld on `host`, which has processes of its own, with `backend`, its uplink
    /// in the default zone `public`, and our zone and policy installed.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn on(host: &Host, backend: Backend) -> Self {
        Self::prepare(host, backend);
        Self::start_on(host)
    }

    /// Lays out firewalld's files on `host`, without starting it.
    pub fn prepare(host: &Host, backend: Backend) {
        host.run(&format!(
            "for directory in /etc/firewalld /usr/lib/firewalld; do
                 mkdir -p /run/files$directory
                 cp -a $directory/. /run/files$directory
                 mount --bind /run/files$directory $directory
             done
             rm -f /etc/firewalld/zones/* /etc/firewalld/policies/* /usr/lib/firewalld/*/netcore*.xml
             sed -i 's/^FirewallBackend=.*/FirewallBackend={}/' /etc/firewalld/firewalld.conf
             mkdir -p /run/dbus",
            backend.name()
        ));
        host.enter(|| {
            for (path, text) in [("zones/netcore.xml", ZONE), ("policies/netcore-in.xml", POLICY)] {
                let path = format!("/usr/lib/firewalld/{path}");
                std::fs::write(&path, text).unwrap_or_else(|error| panic!("write {path}: {error}"));
            }
        });
    }

    /// Starts a bus and firewalld on a `host` where its files were [laid out](Self::prepare).
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_on(host: &Host) -> Self {
        let bus = bus(host);
        let mut firewalld = Self { daemon: None, _bus: bus, host: host.clone() };
        firewalld.start();
        firewalld
    }

    /// Starts it, after it was stopped.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self) {
        let mut command = Command::new("firewalld");
        command.args(["--nofork", "--nopid", "--log-target", "console"]);
        let mut daemon = Daemon::start(self.host.namespaces(), &mut command);
        wait_for("firewalld runs", PATIENCE, || {
            assert!(daemon.ended().is_none(), "firewalld ended: {}", daemon.said());
            self.host.try_run("firewall-cmd --state").stdout.starts_with(b"running")
        });
        self.daemon = Some(daemon);
    }

    /// Stops it, as its unit is stopped: its rules go with it.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.terminate();
        }
    }

    /// Has `event` happen, and waits until it is over.
    ///
    /// # Panics
    /// When it does not come about.
    pub fn undergo(&mut self, event: Event) {
        match event {
            Event::Reload => drop(self.command("--reload")),
            Event::CompleteReload => drop(self.command("--complete-reload")),
            Event::Restart => {
                self.stop();
                self.start();
            }
            Event::Stop => self.stop(),
            Event::Start => self.start(),
        }
    }

    /// Keeps it from doing anything, as a long reload does, until what is returned is dropped.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn held_up(&self) -> HeldUp {
        let held_up = HeldUp(self.daemon.as_ref().expect("it runs").pid());
        held_up.signal("STOP");
        held_up
    }

    /// Calls `firewall-cmd`, and gives back what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn command(&self, arguments: &str) -> String {
        self.host.run(&format!("firewall-cmd {arguments}")).trim().to_owned()
    }

    /// The interfaces of our zone, now and after a reload.
    #[must_use]
    pub fn bound(&self) -> (String, String) {
        let list = |manner| self.command(&format!("{manner} --zone=netcore --list-interfaces"));
        (list(""), list("--permanent"))
    }
}

/// A firewalld that does nothing.
pub struct HeldUp(u32);

impl HeldUp {
    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.0.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -s {signal} {}", self.0);
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.signal("CONT");
    }
}

/// Starts a system bus on `host`, where nobody offers anything yet.
#[must_use]
pub fn bus(host: &Host) -> Daemon {
    host.run("mkdir -p /run/dbus");
    let mut command = Command::new("dbus-daemon");
    command.args(["--system", "--nofork", "--nopidfile"]);
    let bus = Daemon::start(host.namespaces(), &mut command);
    wait_for("the bus is there", PATIENCE, || host.try_run("test -S /run/dbus/system_bus_socket").status.success());
    bus
}
