//! podman 4 with its CNI backend, on a [`Host`] of its own.

use std::fs;
use std::process::Output;

use crate::host::PLUGIN_DIRECTORY;
use crate::{Host, Netns, Network, binaries};

const HOME: &str = "/run/podman";
const NETWORKS: &str = "/run/podman/networks";

/// A podman whose state is in the host's own `/run`.
pub struct Podman {
    host: Host,
}

impl Podman {
    /// Why podman cannot be used here, if it cannot.
    #[must_use]
    pub fn missing() -> Option<String> {
        let programs = ["podman", "crun", "conmon", "busybox"];
        if let Some(program) = programs.into_iter().find(|program| !binaries::installed(program)) {
            return Some(format!("{program} is not installed"));
        }
        let version = std::process::Command::new("podman").arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        // podman 5 no longer speaks CNI.
        (!version.contains(" 4.")).then(|| format!("CNI needs podman 4, this is {version}"))
    }

    /// Sets podman up on `host` with `networks` and the image `localhost/bb:1`.
    ///
    /// # Panics
    /// When podman does not work at all.
    #[must_use]
    pub fn on(host: &Host, networks: &[Network]) -> Self {
        host.install_plugins();
        let reference =
            binaries::reference().map(|path| format!(", {:?}", path.display().to_string())).unwrap_or_default();
        let containers = format!(
            "[containers]\ncgroups=\"disabled\"\ndefault_ulimits=[]\npids_limit=0\n\
             [engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"crun\"\n\
             [network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[\"{PLUGIN_DIRECTORY}\"{reference}]\n\
             network_config_dir=\"{NETWORKS}\"\n"
        );
        let storage = format!("[storage]\ndriver=\"vfs\"\nrunroot=\"{HOME}/run\"\ngraphroot=\"{HOME}/graph\"\n");
        host.enter(|| {
            fs::create_dir_all(NETWORKS).expect("create podman's directory");
            fs::write(format!("{HOME}/containers.conf"), containers).expect("write containers.conf");
            fs::write(format!("{HOME}/storage.conf"), storage).expect("write storage.conf");
            for (number, network) in networks.iter().enumerate() {
                fs::write(format!("{NETWORKS}/{number}.conflist"), network.conflist()).expect("write a conflist");
            }
        });
        let podman = Self { host: host.clone() };
        // crun refuses machines that have both cgroup versions; this one then has the first only.
        host.run("if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi");
        host.run(&busybox_rootfs("/run/podman/rootfs"));
        podman.run("import -q /run/podman/rootfs.tar localhost/bb:1");
        podman
    }

    /// Makes `network` known, as `podman network create` does.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn add_network(&self, name: &str, network: &Network) {
        let path = format!("{NETWORKS}/{name}.conflist");
        self.host.enter(|| fs::write(path, network.conflist()).expect("write a conflist"));
    }

    /// Runs `podman COMMAND`, and gives back what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, command: &str) -> String {
        self.host.run(&Self::command(command)).trim().to_owned()
    }

    /// Runs `podman COMMAND`, which may fail.
    #[must_use]
    pub fn try_run(&self, command: &str) -> Output {
        self.host.try_run(&Self::command(command))
    }

    /// The network namespace of a running container.
    #[must_use]
    pub fn netns(&self, container: &str) -> Netns {
        let path = self.run(&format!("inspect -f '{{{{.NetworkSettings.SandboxKey}}}}' {container}"));
        self.host.adopt(path.rsplit('/').next().unwrap_or_default())
    }

    /// The address of a running container on `network`.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn address(&self, container: &str, network: &str) -> std::net::IpAddr {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let address = self.run(&format!("inspect -f '{format}' {container}"));
        address.parse().unwrap_or_else(|_| panic!("{container} has {address:?} for an address on {network}"))
    }

    fn command(command: &str) -> String {
        format!(
            "HOME={HOME} CONTAINERS_CONF={HOME}/containers.conf CONTAINERS_STORAGE_CONF={HOME}/storage.conf podman {command}"
        )
    }
}

/// Commands that make a root file system of busybox at `directory`, and `directory.tar` of it.
pub(crate) fn busybox_rootfs(directory: &str) -> String {
    format!(
        "mkdir -p {directory}/bin {directory}/etc {directory}/tmp
         cp \"$(command -v busybox)\" {directory}/bin/busybox
         for name in sh sleep ls cat; do ln -s busybox {directory}/bin/$name; done
         tar -C {directory} -cf {directory}.tar ."
    )
}
