//! dockerd, on a [`Host`] of its own.

use std::process::Command;
use std::time::Duration;

use crate::podman::busybox_rootfs;
use crate::{Daemon, Host, Netns, binaries, wait_for};

const HOME: &str = "/run/dockerd";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running dockerd whose state is in the host's own `/run`, with the image `bb:1`.
pub struct Docker {
    _daemon: Daemon,
    // Behind it: a host ends when all of its processes have, and been waited for.
    host: Host,
}

impl Docker {
    /// Why Docker cannot be used here, if it cannot.
    #[must_use]
    pub fn missing() -> Option<String> {
        let programs = ["dockerd", "docker", "containerd", "runc", "busybox", "iptables-save"];
        let program = programs.into_iter().find(|program| !binaries::installed(program))?;
        Some(format!("{program} is not installed"))
    }

    /// Starts one on `host`, which has processes of its own; with or without the helper that takes
    /// connections to published ports (`userland-proxy`).
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn on(host: &Host, proxy: bool) -> Self {
        // runc refuses machines that have both cgroup versions; this one then has the first only.
        host.run("if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi");
        let settings = format!(
            "{{ \"data-root\": \"{HOME}/data\", \"exec-root\": \"{HOME}/exec\", \"pidfile\": \"{HOME}/pid\",
                \"bip\": \"172.29.0.1/16\", \"default-address-pools\": [{{ \"base\": \"172.30.0.0/16\", \"size\": 24 }}],
                \"storage-driver\": \"vfs\", \"cgroup-parent\": \"{}\", \"userland-proxy\": {proxy} }}",
            cgroup()
        );
        host.run(&format!("mkdir -p {HOME} && cat > {HOME}/daemon.json <<'END'\n{settings}\nEND"));
        let mut command = Command::new("dockerd");
        command.args(["--config-file", &format!("{HOME}/daemon.json")]);
        let daemon = Daemon::start(host.namespaces(), &mut command);
        wait_for("dockerd answers", PATIENCE, || host.try_run("docker version").status.success());
        host.run(&busybox_rootfs(&format!("{HOME}/rootfs")));
        host.run(&format!("docker import -m bb {HOME}/rootfs.tar bb:1"));
        Self { _daemon: daemon, host: host.clone() }
    }

    /// Runs `docker COMMAND`, and gives back what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, command: &str) -> String {
        self.host.run(&format!("docker {command}")).trim().to_owned()
    }

    /// Starts a container that does nothing by itself: what it said, if it does not start.
    ///
    /// # Errors
    /// Then.
    pub fn start(&self, name: &str, options: &str) -> Result<Netns, String> {
        let command = format!(
            "docker run -d --init=false --security-opt apparmor=unconfined --name {name} {options} bb:1 /bin/sleep 1000"
        );
        let output = self.host.try_run(&command);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let format = "{{.NetworkSettings.SandboxKey}}";
        self.host.run(&format!("ln -s \"$(docker inspect -f '{format}' {name})\" /run/netns/{name}"));
        Ok(self.host.adopt(name))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Processes and mounts go with the host; cgroups are the machine's.
        let cgroup = cgroup();
        let _ = self.host.try_run(&format!(
            "docker ps -aq | xargs -r docker rm -f
             for group in /sys/fs/cgroup{cgroup} /sys/fs/cgroup/*{cgroup}; do
                 if [ -d $group ]; then find $group -depth -type d -exec rmdir {{}} +; fi
             done"
        ));
    }
}

/// The cgroup of containers, which nobody else has.
fn cgroup() -> String {
    format!("/netcore-tests-{}", std::process::id())
}
