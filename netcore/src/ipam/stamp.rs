//! When and for whom an address was given out: the boot, and the container's namespace. No
//! namespace survives a reboot, but reservations do; the stamp is how the two are told apart.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The mark of time on a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The boot the address was given out in.
    boot: Boot,
    /// The container's namespace; empty when it was not known.
    netns: PathBuf,
}

/// One boot of the kernel: its random id (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot(String);

impl Boot {
    /// Where the kernel says which boot this is.
    pub(super) const PATH: &str = "/proc/sys/kernel/random/boot_id";

    /// The boot that `path` names; `None` where it cannot be told.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let id = std::fs::read_to_string(path).ok()?;
        Some(Self(id.trim().to_owned())).filter(|boot| !boot.0.is_empty())
    }
}

impl Stamp {
    /// The extended attribute that holds it: the boot's id, a newline, and the path.
    pub(super) const ATTRIBUTE: &str = "user.netcore.lease";

    /// A stamp for the namespace at `netns`.
    pub(super) fn new(boot: Boot, netns: Option<&Path>) -> Self {
        Self { boot, netns: netns.unwrap_or(Path::new("")).to_owned() }
    }

    /// Reads an attribute; `None` for what no version of ours wrote.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let newline = bytes.iter().position(|byte| *byte == b'\n')?;
        let boot = std::str::from_utf8(&bytes[..newline]).ok()?;
        Some(Self { boot: Boot(boot.to_owned()), netns: OsStr::from_bytes(&bytes[newline + 1..]).into() })
    }

    /// The attribute.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.boot.0.as_bytes(), b"\n", self.netns.as_os_str().as_bytes()].concat()
    }

    /// Whether it is of an earlier boot than `now` and its namespace is gone.
    pub(super) fn is_stale(&self, now: &Boot) -> bool {
        self.boot != *now && !self.names_a_namespace()
    }

    fn names_a_namespace(&self) -> bool {
        // A process of an earlier boot is gone, whoever has its number now.
        !self.netns.starts_with("/proc")
            && rustix::fs::statfs(&self.netns).is_ok_and(|found| found.f_type == NSFS_MAGIC)
    }
}

/// The filesystem namespaces are files of (`NSFS_MAGIC`, linux/magic.h).
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_stale_when_boot_and_namespace_are_gone() {
        let boot = |id: &str| Boot(id.to_owned());
        let stamp = |netns| Stamp::new(boot("then"), netns);
        assert!(!stamp(None).is_stale(&boot("then")));
        assert!(stamp(None).is_stale(&boot("now")));
        assert!(stamp(Some(Path::new("/run/netns/no-such"))).is_stale(&boot("now")));
        assert!(stamp(Some(Path::new("/etc/passwd"))).is_stale(&boot("now")), "a file, but no namespace");
        assert!(stamp(Some(Path::new("/proc/self/ns/net"))).is_stale(&boot("now")), "another process of that number");
        assert_eq!(Stamp::parse(&stamp(Some(Path::new("/run/x"))).to_bytes()), Some(stamp(Some(Path::new("/run/x")))));
        assert_eq!(Stamp::parse(b"rubbish"), None);
        assert!(Boot::read(Path::new(Boot::PATH)).is_some());
    }
}
