//! A look at `CNI_NETNS` before anything is done.

use std::io;
use std::path::Path;

use netcore::{Error, Result};
use rustix::fs::{FsWord, Stat, stat, statfs};

/// `NSFS_MAGIC` (linux/magic.h): what namespace files live on.
const NSFS_MAGIC: FsWord = 0x6e73_6673;
/// A plugin asks on its first thread, which has never been elsewhere.
const OWN: &str = "/proc/self/ns/net";

/// Refuses a `path` that is not a namespace.
///
/// # Errors
/// [`Error::Netns`].
pub(crate) fn expect(path: &Path) -> Result<()> {
    let refused = |reason: &str, source| Error::Netns { path: path.into(), reason: reason.into(), source };
    let system = statfs(path).map_err(|errno| {
        let source = io::Error::from(errno);
        refused(&format!("cannot be opened, {source}"), Some(source))
    })?;
    if system.f_type != NSFS_MAGIC {
        return Err(refused("not a namespace: expected a path like /run/netns/NAME or /proc/PID/ns/net", None));
    }
    Ok(())
}

/// Refuses a `path` that is the namespace we are in ourselves: what is done for a container
/// would be done to the host.
///
/// # Errors
/// [`Error::Netns`].
pub(crate) fn expect_foreign(path: &Path) -> Result<()> {
    let (Ok(there), Ok(here)) = (stat(path), stat(OWN)) else { return Ok(()) };
    let identity = |file: &Stat| (file.st_dev, file.st_ino);
    if identity(&there) != identity(&here) {
        return Ok(());
    }
    Err(Error::Netns {
        path: path.into(),
        reason: "it is the plugin's own: expected a container's namespace, or CNI_NETNS_OVERRIDE=1".into(),
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_recognised_by_any_path() {
        for own in ["/proc/self/ns/net".to_owned(), format!("/proc/{}/ns/net", std::process::id())] {
            let refusal = expect_foreign(Path::new(&own)).unwrap_err().to_string();
            assert!(refusal.contains(&own) && refusal.contains("the plugin's own"), "{refusal}");
        }
        assert!(expect_foreign(Path::new("/proc/self/ns/mnt")).is_ok());
    }

    #[test]
    fn a_file_is_not_a_namespace() {
        let refusal = expect(Path::new("/etc/passwd")).unwrap_err().to_string();
        assert!(refusal.contains("/etc/passwd: not a namespace"), "{refusal}");
        let refusal = expect(Path::new("/run/netns/no-such")).unwrap_err().to_string();
        assert!(refusal.contains("No such file"), "{refusal}");
        assert!(expect(Path::new("/proc/self/ns/net")).is_ok());
    }
}
