//! Network namespaces: making them, finding them, and doing something inside one.
//!
//! A namespace by name lives where iproute2 keeps its own, bound to a file under
//! [`Netns::DIRECTORY`], so that either can use what the other made. What a caller wants
//! done inside a namespace happens on a thread of its own: a thread that changed its namespace ends
//! there, and the caller's never changes. Only what this library itself does in some microseconds
//! is done on the caller's thread, which goes in and comes back.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, fstatfs};
use rustix::io::Errno;
use rustix::ioctl;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::error::{Error, Result};
use crate::model::{Attachment, AttachmentId, InvalidName, Name, NamespaceId};

/// `NSFS_MAGIC` (linux/magic.h): the file system namespaces are files of.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The same for the first thread of a process, where it takes the kernel half as many steps.
const OWN_OF_FIRST: &str = "/proc/self/ns/net";

/// The index of `lo`, the first interface of every namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A network namespace, kept alive for as long as this value lives.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: Option<PathBuf>,
}

impl Netns {
    /// Where namespaces with names are: iproute2's `NETNS_RUN_DIR`.
    pub const DIRECTORY: &str = "/run/netns";

    /// Makes a namespace with `lo` up and binds it to `NAME` under [`Netns::DIRECTORY`], as
    /// `ip netns add` does. Nothing is left behind when that fails.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::Netns`] when the name is taken, or when the
    /// kernel refuses.
    pub fn create(name: &str) -> Result<Self> {
        let path = named(name)?;
        prepare_directory().map_err(refused(Path::new(Self::DIRECTORY), "cannot be prepared for namespaces"))?;
        let spot =
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
        match spot {
            Ok(_) => {}
            Err(Errno::EXIST) => return Err(fault(&path, "exists already: choose another name, or remove it first")),
            Err(code) => return Err(refused(&path, "cannot be created")(code.into())),
        }
        let born = on_a_thread(|| {
            let fd = give_birth()?;
            mount_bind(OWN, &path)?;
            Ok(fd)
        });
        match born {
            Ok(fd) => Ok(Self { fd, path: Some(path) }),
            Err(source) => {
                // The name is not taken by a namespace, so it must not look as if it were.
                let _ = fs::remove_file(&path);
                Err(refused(&path, "cannot be created")(source))
            }
        }
    }

    /// The namespace at `path`: a file under [`Netns::DIRECTORY`], `/proc/PID/ns/net`, or any
    /// other file a namespace is bound to.
    ///
    /// # Errors
    /// [`Error::Netns`] when there is no such file, or it is not a network namespace.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        // Not to wait for the other end of a pipe, nor to adopt a terminal.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|code| refused(&path, "cannot be opened")(code.into()))?;
        check(fd.as_fd(), &path)?;
        Ok(Self { fd, path: Some(path) })
    }

    /// The namespace called `name` under [`Netns::DIRECTORY`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, and as [`Netns::open`].
    pub fn by_name(name: &str) -> Result<Self> {
        Self::open(named(name)?)
    }

    /// The namespace of the process `pid`. Its [`path`](Netns::path) is good for as long as the
    /// process lives.
    ///
    /// # Errors
    /// As [`Netns::open`].
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace `fd` stands for; it has no path.
    ///
    /// # Errors
    /// [`Error::Netns`] when `fd` is not a network namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        check(fd.as_fd(), Path::new("(file descriptor)"))?;
        Ok(Self { fd, path: None })
    }

    /// The namespace of the calling thread; it has no path.
    ///
    /// # Errors
    /// [`Error::Netns`] when `/proc` is not there to ask.
    pub fn current() -> Result<Self> {
        Self::open(OWN).map(|netns| Self { path: None, ..netns })
    }

    /// Where the namespace was found.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether both are the same namespace, whatever their paths.
    ///
    /// # Errors
    /// [`Error::Netns`] when the kernel does not say.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        Ok(self.id()? == other.id()?)
    }

    /// Which namespace this is.
    ///
    /// # Errors
    /// [`Error::Netns`] when the kernel does not say.
    pub fn id(&self) -> Result<NamespaceId> {
        let stat = fstat(&self.fd).map_err(|code| refused(self.shown(), "cannot be looked at")(code.into()))?;
        Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
    }

    /// The wish of `container` to be attached by `eth0`, or, as `"web-1/net1"`, by the interface
    /// it names.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::Netns`] when this namespace has no path, which
    /// another process would need to find it.
    pub fn attachment(&self, container: &str) -> Result<Attachment> {
        let id: AttachmentId = container
            .parse()
            .map_err(|error: InvalidName| Error::invalid("container", &error.value, error.expected))?;
        let Some(path) = &self.path else {
            return Err(fault(self.shown(), "has no path to attach it by: open it by a path"));
        };
        Ok(Attachment::new(id, Some(path.clone())))
    }

    /// Runs `work` on a thread inside the namespace and hands back what it returns. A panic of
    /// `work` goes on in the caller.
    ///
    /// # Errors
    /// [`Error::Netns`] when the namespace cannot be entered; `work` has not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
        .map_err(refused(self.shown(), "cannot be entered"))
    }

    /// As [`Netns::run`], but on the calling thread, which is back where it was when `work` returns or
    /// panics: for what takes microseconds, where starting a thread would be most of the time.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub(super) fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(home) = Home::leave() else { return self.run(work) };
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|code| refused(self.shown(), "cannot be entered")(code.into()))?;
        let done = work();
        drop(home);
        Ok(done)
    }

    /// Removes the name `name` from [`Netns::DIRECTORY`]; the namespace itself goes with its
    /// last user. A name that is not there is a success.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::Netns`] when the kernel refuses.
    pub fn remove(name: &str) -> Result<()> {
        unbind(&named(name)?)
    }

    /// Removes the file this namespace is bound to, if it has one.
    ///
    /// # Errors
    /// [`Error::Netns`] when the kernel refuses, as it does for `/proc/PID/ns/net`.
    pub fn delete(self) -> Result<()> {
        self.path.as_deref().map_or(Ok(()), unbind)
    }

    fn shown(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new("(file descriptor)"))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Netns { path: path.to_owned(), reason: reason.into(), source: None }
}

fn refused(path: &Path, reason: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Netns { path, reason: format!("{reason}: {source}"), source: Some(source) }
}

fn named(name: &str) -> Result<PathBuf> {
    let name =
        Name::new(name).map_err(|error| Error::invalid("network namespace name", &error.value, error.expected))?;
    Ok(Path::new(Netns::DIRECTORY).join(name.as_str()))
}

/// Runs `work` on a thread of its own, which may end up in another namespace.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// The namespace the calling thread came from, and goes back to when this is dropped.
struct Home(OwnedFd);

impl Home {
    /// Nothing for a thread that could not come back: one that may not enter its own namespace.
    fn leave() -> Option<Self> {
        let own = if rustix::thread::gettid() == rustix::process::getpid() { OWN_OF_FIRST } else { OWN };
        let home = rustix::fs::open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
        Some(Self(home))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // It could be done a moment ago. Going on, the caller would change another's network.
            process::abort();
        }
    }
}

/// Moves the calling thread into a new namespace and brings `lo` up.
fn give_birth() -> io::Result<OwnedFd> {
    // SAFETY: only the network namespace is unshared; the thread keeps sharing its files.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    raise_loopback()?;
    Ok(rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Brings `lo` up in the namespace of the calling thread. One blocking request: there is no
/// runtime on this thread.
fn raise_loopback() -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = LOOPBACK_INDEX;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// Makes [`Netns::DIRECTORY`] a shared mount point, so that namespaces bound there are seen in,
/// and can be removed from, every mount namespace that descends from this one. iproute2 does the
/// same under the same lock.
fn prepare_directory() -> io::Result<()> {
    let directory = Netns::DIRECTORY;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let lock = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let share = || mount_change(directory, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
    match share() {
        // It is not a mount point yet.
        Err(Errno::INVAL) => {
            mount_bind_recursive(directory, directory)?;
            share()?;
        }
        outcome => outcome?,
    }
    Ok(())
}

fn unbind(path: &Path) -> Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // EINVAL: nothing is mounted there (an attempt that was cut short).
        Ok(()) | Err(Errno::NOENT | Errno::INVAL) => {}
        Err(code) => return Err(refused(path, "cannot be unmounted")(code.into())),
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(refused(path, "cannot be removed")(source)),
        _ => Ok(()),
    }
}

/// Refuses what is not a network namespace.
fn check(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let kind = fstatfs(fd).map_err(|code| refused(path, "cannot be looked at")(code.into()))?.f_type;
    if kind as u64 != NSFS_MAGIC {
        return Err(fault(path, "is not a namespace; a network namespace is like /run/netns/NAME or /proc/PID/ns/net"));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and only returns a number.
    let found = unsafe { ioctl::ioctl(fd, NamespaceType) };
    match found.map_err(|code| refused(path, "cannot be asked for its type")(code.into()))? {
        found if found == UnshareFlags::NEWNET.bits() => Ok(()),
        found => Err(fault(path, format!("is a {} namespace, not a network namespace", namespace_name(found)))),
    }
}

fn namespace_name(kind: u32) -> &'static str {
    match UnshareFlags::from_bits_retain(kind) {
        UnshareFlags::NEWNS => "mount",
        UnshareFlags::NEWCGROUP => "cgroup",
        UnshareFlags::NEWUTS => "UTS",
        UnshareFlags::NEWIPC => "IPC",
        UnshareFlags::NEWUSER => "user",
        UnshareFlags::NEWPID => "PID",
        UnshareFlags::NEWTIME => "time",
        _ => "strange",
    }
}

/// `NS_GET_NSTYPE` (linux/nsfs.h): the `CLONE_NEW*` flag of the namespace a file stands for.
struct NamespaceType;

// SAFETY: the request has no argument, so no memory is read or written; its result is the
// return value of the system call.
unsafe impl ioctl::Ioctl for NamespaceType {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> ioctl::Opcode {
        ioctl::opcode::none(0xb7, 0x3)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: ioctl::IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<u32> {
        Ok(output as u32)
    }
}
