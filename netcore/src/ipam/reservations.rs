//! Reservations on disk, as the reference `host-local` plugin keeps them, so that either can take
//! over from the other: `DATADIR/NETWORK/ADDRESS` holds the container's id, CR LF and the
//! interface; `last_reserved_ip.N` the address given out last of the set N; `lock` is held
//! (flock(2)) while anything changes.
//!
//! Ours are written whole and synced before they get their name, so nobody ever sees half of one,
//! and the disk is not waited for under the lock. They also carry a [`Stamp`] as an extended
//! attribute, which the reference neither sees nor minds.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::stamp::Stamp;
use crate::error::{Error, Result};
use crate::model::{AttachmentId, Name};

/// The one name a reservation may have before it has its own, on filesystems that cannot do
/// without. It exists only under the lock, so one that is found is a leftover.
const DRAFT: &str = ".netcore-draft";

/// What a reservation's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nothing: what a power cut leaves of a file that was not synced (no bytes, or zeros).
    /// Nobody leaves one on purpose, so the address is free.
    Nobody,
    /// A container and its interface. Early versions of the reference wrote the container alone.
    Container {
        /// The container's id.
        container: String,
        /// The interface in the container.
        interface: Option<String>,
    },
    /// Something that is not for us to interpret, and not for us to remove.
    Foreign,
}

impl Holder {
    fn parse(content: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(content) else { return Self::Foreign };
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        if text.is_empty() {
            return Self::Nobody;
        }
        let (container, interface) = match text.split_once("\r\n") {
            Some((container, interface)) => (container, Some(interface)),
            None => (text, None),
        };
        let is_word = |word: &str| !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c.is_control());
        if is_word(container) && interface.is_none_or(is_word) {
            Self::Container { container: container.to_owned(), interface: interface.map(str::to_owned) }
        } else {
            Self::Foreign
        }
    }

    /// Whether this is `id`, by container and interface.
    pub(super) fn is(&self, id: &AttachmentId) -> bool {
        matches!(self, Self::Container { container, interface: Some(interface) }
            if container == id.container.as_str() && interface == id.interface.as_str())
    }

    /// Whether this is the container of `id`, from before interfaces were written down.
    pub(super) fn is_container_of(&self, id: &AttachmentId) -> bool {
        matches!(self, Self::Container { container, interface: None } if container == id.container.as_str())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Container { container, interface: Some(interface) } => write!(f, "{container}/{interface}"),
            Self::Container { container, interface: None } => f.write_str(container),
            Self::Foreign => f.write_str("somebody else (its file is not a reservation of host-local)"),
        }
    }
}

/// One reservation, as it was found.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Who has the address.
    pub(super) holder: Holder,
    /// The file; none where there is something else of that name.
    file: Option<OwnedFd>,
}

impl Reservation {
    const FOREIGN: Self = Self { holder: Holder::Foreign, file: None };

    /// When and for which namespace the address was given out, if we did it.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let mut bytes = [0; 4096];
        let length = fs::fgetxattr(self.file.as_ref()?, Stamp::ATTRIBUTE, &mut bytes).ok()?;
        Stamp::parse(&bytes[..length])
    }
}

/// The reservations of one network.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens the directory of `network`, if there is one.
    pub(super) fn open(data_dir: &Path, network: &Name) -> Result<Option<Self>> {
        let path = data_dir.join(network.as_str());
        match fs::openat(CWD, &path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { path, fd })),
            // Where there cannot be a directory there is none, and nothing to give back.
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::file("open", path)(errno.into())),
        }
    }

    /// Opens the directory of `network`; makes it first if there is none.
    pub(super) fn create(data_dir: &Path, network: &Name) -> Result<Self> {
        if let Some(directory) = Self::open(data_dir, network)? {
            return Ok(directory);
        }
        let path = data_dir.join(network.as_str());
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(Error::file("create", &path))?;
        Self::open(data_dir, network)?.ok_or_else(|| Error::file("open", path)(Errno::NOENT.into()))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn failed(&self, operation: &'static str, name: &str) -> impl FnOnce(Errno) -> Error {
        let failed = Error::file(operation, self.at(name));
        move |errno| failed(errno.into())
    }

    /// Writes and syncs a reservation for `id` without giving it a name yet. `None` where the
    /// filesystem has no files without names; [`Locked::draft`] then does it.
    pub(super) fn draft(&self, id: &AttachmentId, stamp: Option<&Stamp>) -> Result<Option<Draft<'_>>> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match fs::openat(&self.fd, ".", flags, Mode::from_raw_mode(0o644)) {
            Ok(fd) => {
                let file = self.fill(fd, id, stamp)?;
                Ok(Some(Draft { directory: self, unnamed: Some(file) }))
            }
            // Filesystems that do not know O_TMPFILE, and kernels that take it for O_DIRECTORY.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.failed("write a reservation to", "")(errno)),
        }
    }

    fn fill(&self, fd: OwnedFd, id: &AttachmentId, stamp: Option<&Stamp>) -> Result<File> {
        let failed = || Error::file("write a reservation to", &self.path);
        let mut file = File::from(fd);
        file.write_all(format!("{}\r\n{}", id.container, id.interface).as_bytes()).map_err(failed())?;
        if let Some(stamp) = stamp {
            match fs::fsetxattr(&file, Stamp::ATTRIBUTE, &stamp.to_bytes(), XattrFlags::empty()) {
                // Filesystems without attributes: the reservation is as good as the reference's.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(failed()(errno.into())),
            }
        }
        file.sync_all().map_err(failed())?;
        Ok(file)
    }

    /// Waits until nobody else changes reservations of this network. The lock goes with the
    /// returned value.
    pub(super) fn lock(&self) -> Result<Locked<'_>> {
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            fs::openat(&self.fd, "lock", flags, Mode::from_raw_mode(0o750)).map_err(self.failed("open", "lock"))?;
        rustix::io::retry_on_intr(|| fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(self.failed("lock", "lock"))?;
        Ok(Locked { directory: self, _lock: file })
    }

    /// The reservation of `address`, if there is one.
    pub(super) fn get(&self, address: IpAddr) -> Result<Option<Reservation>> {
        let name = address.to_string();
        // Nothing that somebody put here may block or lead us elsewhere.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match fs::openat(&self.fd, &name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Ok(Some(Reservation::FOREIGN)),
            Err(errno) => return Err(self.failed("read", &name)(errno)),
        };
        // Names are short: what does not fit is not host-local's.
        let mut content = [0; 512];
        let holder = match rustix::io::read(&file, &mut content) {
            Ok(length) if length == content.len() => Holder::Foreign,
            Ok(length) => Holder::parse(&content[..length]),
            Err(Errno::ISDIR) => return Ok(Some(Reservation::FOREIGN)),
            Err(errno) => return Err(self.failed("read", &name)(errno)),
        };
        if holder == Holder::Nobody {
            let found = fs::fstat(&file).map_err(self.failed("read", &name))?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Ok(Some(Reservation::FOREIGN));
            }
        }
        Ok(Some(Reservation { holder, file: Some(file) }))
    }

    /// Whether there is a file for `address`, whatever it says.
    pub(super) fn has(&self, address: IpAddr) -> Result<bool> {
        let name = address.to_string();
        match fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("read", &name)(errno)),
        }
    }

    /// Every address there is a file for. The one thing here that takes longer the more there
    /// are. Other files are not ours to look at.
    pub(super) fn addresses(&self) -> Result<HashSet<IpAddr>> {
        let failed = || self.failed("list", "");
        // Listing starts where the descriptor stands, so it gets one of its own.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed())?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut entries = fs::RawDir::new(fd, buffer.spare_capacity_mut());
        let mut addresses = HashSet::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed())?;
            if let Some(address) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
                addresses.insert(address);
            }
        }
        Ok(addresses)
    }

    /// The address given out last of the set number `set`.
    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        // No more than a hint: without it, or with rubbish in it, the round starts anew.
        let name = format!("last_reserved_ip.{set}");
        let file =
            fs::openat(&self.fd, &name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).take(64).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

/// A reservation that is written but has no name, and so is nobody's yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    directory: &'a Directory,
    unnamed: Option<File>,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.unnamed.is_none() {
            // What it was linked to has names of its own; a leftover is harmless.
            let _ = fs::unlinkat(&self.directory.fd, DRAFT, AtFlags::empty());
        }
    }
}

/// The reservations of a network while nobody else changes them.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    directory: &'a Directory,
    _lock: OwnedFd,
}

impl<'a> Locked<'a> {
    /// As [`Directory::draft`], with a passing name that only the lock makes safe.
    pub(super) fn draft(&self, id: &AttachmentId, stamp: Option<&Stamp>) -> Result<Draft<'a>> {
        let directory = self.directory;
        // Never opened if it is there: it may be the other name of somebody's reservation.
        self.forget_draft()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = fs::openat(&directory.fd, DRAFT, flags, Mode::from_raw_mode(0o644))
            .map_err(directory.failed("create", DRAFT))?;
        let draft = Draft { directory, unnamed: None };
        directory.fill(fd, id, stamp)?;
        Ok(draft)
    }

    /// Reserves `address` by giving `draft` its name; `false` when there is a file of that name.
    pub(super) fn reserve(&self, draft: &Draft<'_>, address: IpAddr) -> Result<bool> {
        let (fd, name) = (&self.directory.fd, address.to_string());
        let linked = match &draft.unnamed {
            None => fs::linkat(fd, DRAFT, fd, &name, AtFlags::empty()),
            Some(file) => match fs::linkat(file, "", fd, &name, AtFlags::EMPTY_PATH) {
                // Not everybody may link by descriptor alone (CAP_DAC_READ_SEARCH).
                Err(Errno::NOENT | Errno::PERM) => {
                    use std::os::fd::AsRawFd;
                    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                    fs::linkat(CWD, path, fd, &name, AtFlags::SYMLINK_FOLLOW)
                }
                linked => linked,
            },
        };
        match linked {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.directory.failed("reserve", &name)(errno)),
        }
    }

    /// Gives up `address`. The caller knows whose it is. None there is a success.
    pub(super) fn remove(&self, address: IpAddr) -> Result<()> {
        let name = address.to_string();
        match fs::unlinkat(&self.directory.fd, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.directory.failed("remove", &name)(errno)),
        }
    }

    /// Remembers the address given out last of the set number `set`.
    pub(super) fn set_last_reserved(&self, set: usize, address: IpAddr) -> Result<()> {
        let name = format!("last_reserved_ip.{set}");
        let text = address.to_string();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let written = fs::openat(&self.directory.fd, &name, flags, Mode::from_raw_mode(0o644))
            .map_err(io::Error::from)
            .and_then(|fd| {
                // Overwritten before it is cut: what fitted once fits again on a full disk.
                let mut file = File::from(fd);
                file.write_all(text.as_bytes())?;
                let length = text.len() as u64;
                if file.metadata()?.len() > length { file.set_len(length) } else { Ok(()) }
            });
        written.map_err(Error::file("write", self.directory.at(&name)))
    }

    /// Removes what a process that died left unnamed.
    pub(super) fn forget_draft(&self) -> Result<()> {
        match fs::unlinkat(&self.directory.fd, DRAFT, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.directory.failed("remove", DRAFT)(errno)),
        }
    }
}
