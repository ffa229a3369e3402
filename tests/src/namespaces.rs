//! Being somewhere else: a thread that joins namespaces, does its work there, and ends. The
//! caller never leaves its own.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network and a mount namespace, and perhaps a process one, held open.
#[derive(Clone)]
pub struct Namespaces {
    network: Arc<OwnedFd>,
    mounts: Arc<OwnedFd>,
    processes: Option<Arc<OwnedFd>>,
}

impl Namespaces {
    /// A new network namespace and private mounts: `/run`, `/var/lib/cni` and
    /// `/var/lib/netcore` empty, `/sys` the new
    /// network's.
    pub(crate) fn new() -> Self {
        for directory in ["/var/lib/cni", "/var/lib/netcore"] {
            std::fs::create_dir_all(directory)
                .unwrap_or_else(|error| panic!("create {directory} to mount on: {error}"));
        }
        thread::scope(|scope| scope.spawn(Self::unshare).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn unshare() -> Self {
        unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
        let none = None::<&std::ffi::CStr>;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("make mounts private");
        // podman keeps its locks in /dev/shm.
        for directory in ["/run", "/var/lib/cni", "/var/lib/netcore", "/dev/shm"] {
            mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"mode=755"))
                .unwrap_or_else(|error| panic!("mount tmpfs on {directory}: {error}"));
        }
        // Engines need the cgroups, which would vanish below a new /sys.
        std::fs::create_dir_all("/run/cgroup").expect("create /run/cgroup");
        rustix::mount::mount_bind_recursive("/sys/fs/cgroup", "/run/cgroup").expect("keep the cgroups");
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), none).expect("mount sysfs");
        rustix::mount::mount_bind_recursive("/run/cgroup", "/sys/fs/cgroup").expect("bring back the cgroups");
        rustix::mount::unmount("/run/cgroup", rustix::mount::UnmountFlags::DETACH).expect("unmount /run/cgroup");
        for directory in ["/run/netns", "/run/lock"] {
            std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("create {directory}: {error}"));
        }
        Self {
            network: open(Path::new("/proc/thread-self/ns/net")),
            mounts: open(Path::new("/proc/thread-self/ns/mnt")),
            processes: None,
        }
    }

    /// The same mounts with the network namespace at `path`, as seen from here.
    pub(crate) fn with_network(&self, path: &str) -> Self {
        let network = self.enter(|| open(Path::new(path)));
        Self { network, ..self.clone() }
    }

    /// The same, with commands started in the process namespace of `pid`.
    pub(crate) fn with_processes_of(&self, pid: u32) -> Self {
        let processes = Some(open(Path::new(&format!("/proc/{pid}/ns/pid"))));
        Self { processes, ..self.clone() }
    }

    /// Runs `work` there, and gives back what it returned; commands it starts are there too. A
    /// panic is passed on.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let there = || {
            self.join();
            work()
        };
        thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Moves the calling thread; it must be one that ends afterwards.
    fn join(&self) {
        unshare(UnshareFlags::FS); // a mount namespace is joined only by threads with a root of their own
        let join = |fd: &OwnedFd, kind, what| {
            move_into_link_name_space(fd.as_fd(), Some(kind))
                .unwrap_or_else(|error| panic!("join the {what}: {error}"));
        };
        join(&self.mounts, LinkNameSpaceType::Mount, "mount namespace");
        join(&self.network, LinkNameSpaceType::Network, "network namespace");
        if let Some(processes) = &self.processes {
            join(processes, LinkNameSpaceType::ProcessID, "process namespace");
        }
    }
}

fn open(path: &Path) -> Arc<OwnedFd> {
    Arc::new(File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display())).into())
}

fn unshare(flags: UnshareFlags) {
    // SAFETY: the calling thread was started for this and ends without handing out a file
    // descriptor table, the one thing `unshare` could pull from under safe code (FILES is not set).
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect("unshare (the tests need root)");
}
