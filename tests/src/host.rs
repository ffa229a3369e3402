//! A machine, as far as networking can tell: a network namespace with its own `/run`,
//! `/var/lib/cni` and `/sys`.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use crate::binaries;
use crate::processes::Init;
use crate::{Cni, Daemon, Namespaces, Network, Plugin, Snapshot, wait_for};

/// Where plugins are found on a [`Host`]: ours, under every name they answer to.
pub(crate) const PLUGIN_DIRECTORY: &str = "/run/cni/bin";

/// A machine. Clones are the same one; it is gone with the last of them.
#[derive(Clone)]
pub struct Host {
    namespaces: Namespaces,
    // Kept alive: when it ends, so does every process of the host.
    _init: Option<Arc<Init>>,
}

impl Host {
    /// A machine that has just started: `lo` is up, forwarding off, no rules, no state.
    ///
    /// # Panics
    /// Without root.
    #[must_use]
    pub fn new() -> Self {
        let host = Self { namespaces: Namespaces::new(), _init: None };
        // New namespaces inherit IPv4 settings from the machine's.
        host.run("ip link set lo up; sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
        host
    }

    /// The same with a process namespace: for engines, whose processes go on by themselves.
    /// They end with the host.
    #[must_use]
    pub fn with_processes() -> Self {
        let host = Self::new();
        let init = Init::start(&host.namespaces);
        Self { namespaces: host.namespaces.with_processes_of(init.pid()), _init: Some(Arc::new(init)) }
    }

    /// Has `iptables` be `iptables-legacy` on this machine.
    pub fn use_iptables_legacy(&self) {
        self.run(
            "cp -a /etc/alternatives /run/alternatives
             for name in iptables ip6tables; do
                 ln -sf /usr/sbin/$name-legacy /run/alternatives/$name
                 for verb in save restore; do
                     ln -sf /usr/sbin/$name-legacy-$verb /run/alternatives/$name-$verb
                 done
             done
             mount --bind /run/alternatives /etc/alternatives",
        );
    }

    /// Puts the plugins under test into [`PLUGIN_DIRECTORY`].
    pub(crate) fn install_plugins(&self) {
        let binaries = binaries::under_test();
        self.enter(|| {
            if fs::exists(PLUGIN_DIRECTORY).unwrap_or(false) {
                return;
            }
            fs::create_dir_all(PLUGIN_DIRECTORY).expect("create the plugin directory");
            for (name, program) in binaries::PLUGINS {
                symlink(binaries.join(program), format!("{PLUGIN_DIRECTORY}/{name}")).expect("link a plugin");
            }
        });
    }

    /// Runs `work` on this machine.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.namespaces.enter(work)
    }

    /// Runs a shell command on this machine, and gives back what it printed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, command: &str) -> String {
        run(&self.namespaces, command)
    }

    /// Runs a shell command that may fail.
    #[must_use]
    pub fn try_run(&self, command: &str) -> Output {
        try_run(&self.namespaces, command)
    }

    /// Starts a shell command on this machine that goes on beside the test, and is killed when what is
    /// returned is dropped. It has to `exec` what goes on.
    #[must_use]
    pub fn run_beside(&self, command: &str) -> Daemon {
        Daemon::start(&self.namespaces, Command::new("bash").args(["-ec", command]))
    }

    /// A container's namespace, new and empty, at `/run/netns/NAME`.
    #[must_use]
    pub fn netns(&self, name: &str) -> Netns {
        self.run(&format!("ip netns add {name}"));
        self.adopt(name)
    }

    /// The container's namespace that somebody else made at `/run/netns/NAME`.
    #[must_use]
    pub fn adopt(&self, name: &str) -> Netns {
        let path = format!("/run/netns/{name}");
        Netns { namespaces: self.namespaces.with_network(&path), name: name.to_owned(), path, host: self.clone() }
    }

    /// The world outside this machine, on a link to it. See [`Outside`].
    #[must_use]
    pub fn outside(&self) -> Outside {
        let netns = self.netns("outside");
        self.run(
            "ip link add uplink type veth peer name uplink netns outside
             ip addr add 198.51.100.1/24 dev uplink
             ip addr add 198.51.100.3/24 dev uplink
             ip addr add 2001:db8:51::1/64 dev uplink nodad
             ip link set uplink up",
        );
        netns.run(
            "ip link set lo up
             ip addr add 198.51.100.2/24 dev uplink
             ip addr add 2001:db8:51::2/64 dev uplink nodad
             ip link set uplink up",
        );
        self.run("ip route add default via 198.51.100.2; ip -6 route add default via 2001:db8:51::2");
        Outside { netns }
    }

    /// The `network`, as a runtime on this machine that drives our plugins.
    #[must_use]
    pub fn cni(&self, network: Network) -> Cni {
        self.install_plugins();
        Cni::new(self.clone(), network)
    }

    /// One plugin, to be called by hand.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Plugin {
        self.install_plugins();
        Plugin::new(self.clone(), name)
    }

    /// What there is on this machine now, as far as an attachment could change it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self)
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// A container's network namespace on a [`Host`].
#[derive(Clone)]
pub struct Netns {
    namespaces: Namespaces,
    name: String,
    path: String,
    host: Host,
}

impl Netns {
    /// Its name, which the tests also use as the container's id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs `work` in it.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.namespaces.enter(work)
    }

    /// Runs a shell command in it, and gives back what it printed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, command: &str) -> String {
        run(&self.namespaces, command)
    }

    /// Runs a shell command in it that may fail.
    #[must_use]
    pub fn try_run(&self, command: &str) -> Output {
        try_run(&self.namespaces, command)
    }

    /// Removes it from its path, as a runtime does that forgot to detach it first.
    pub fn remove(self) {
        let (host, name) = (self.host.clone(), self.name.clone());
        drop(self);
        host.run(&format!("ip netns del {name}"));
    }

    /// As [`Netns::remove`], and waits for its links to go: the kernel takes its time.
    ///
    /// # Panics
    /// When one stays.
    pub fn remove_with_links(self) {
        let host = self.host.clone();
        let links = || host.snapshot().count("link veth");
        let own = self.run("ip -br link show type veth").lines().count();
        let left = links() - own;
        self.remove();
        wait_for("the links of a namespace go with it", Duration::from_secs(3), || links() <= left);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
}

/// The world outside: 198.51.100.2 and 2001:db8:51::2, on a link to a host that is
/// 198.51.100.1 (and .3) and 2001:db8:51::1 and has its default routes there. It knows no route
/// to any container.
pub struct Outside {
    netns: Netns,
}

impl Outside {
    /// Its IPv4 address.
    pub const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
    /// Its IPv6 address.
    pub const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 2));
    /// The host's IPv4 address.
    pub const HOST_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
    /// Another one.
    pub const HOST_OTHER_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 3));
    /// The host's IPv6 address.
    pub const HOST_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1));
}

impl std::ops::Deref for Outside {
    type Target = Netns;
    fn deref(&self) -> &Netns {
        &self.netns
    }
}

fn try_run(namespaces: &Namespaces, command: &str) -> Output {
    namespaces.enter(|| {
        let mut shell = Command::new("timeout");
        shell.args(["60", "sh", "-ec", command]).env("PATH", PATH);
        shell.output().unwrap_or_else(|error| panic!("start a shell for `{command}`: {error}"))
    })
}

pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn run(namespaces: &Namespaces, command: &str) -> String {
    let output = try_run(namespaces, command);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}` failed ({}):\n{printed}{complaint}", output.status);
    printed
}
