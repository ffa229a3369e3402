//! Namespace files that are bound to another namespace than the one they were made for. A runtime
//! makes a file, lets plugins do their work, and starts the container in what the file is by then.
//!
//! The other namespace is mounted over the file, on top of the runtime's own mount. Taking it away
//! uncovers what was there, so the runtime's unmount and unlink work as if nothing had been. A
//! mount carries no mark: whose it is follows from the record, and from which namespace it shows.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::netns::Netns;
use crate::error::{Error, Result};
use crate::model::{Binding, NamespaceId, Object};

/// Which namespace is at `path`; the caller's own without one.
pub(super) fn identify(path: Option<&Path>) -> Result<NamespaceId> {
    path.map_or_else(Netns::current, Netns::open)?.id()
}

/// Those of `wanted` whose file shows the namespace it should.
pub(super) fn observe(wanted: &[&Binding]) -> Vec<Object> {
    let is_bound = |binding: &&&Binding| identify(Some(&binding.path)).is_ok_and(|id| id == binding.to.id);
    wanted.iter().filter(is_bound).map(|binding| Object::Binding((*binding).clone())).collect()
}

/// Binds the file.
pub(super) fn create(binding: &Binding) -> Result<()> {
    let fault = |path: &Path, reason: &str, source| Error::Netns { path: path.into(), reason: reason.into(), source };
    let namespace = binding.to.found_at.as_ref().map_or_else(Netns::current, Netns::open)?;
    if namespace.id()? != binding.to.id {
        let path = binding.to.found_at.as_deref().unwrap_or(Path::new("(own)"));
        return Err(fault(path, "became another namespace while it was being shared: try again", None));
    }
    let source = format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd());
    match mount_bind(source, &binding.path) {
        Ok(()) => Ok(()),
        // What is no file in a mount of ours cannot be mounted on, though it is there.
        Err(Errno::INVAL | Errno::NOENT) if binding.path.exists() => Err(fault(
            &binding.path,
            "belongs to a process that runs already, and cannot be bound to another; have the runtime make a \
             namespace file like /run/netns/NAME before the container starts, or start the container in the other \
             namespace itself (--network=host, hostNetwork: true)",
            None,
        )),
        Err(code) => {
            let source = std::io::Error::from(code);
            Err(fault(&binding.path, &format!("cannot be bound to {}: {source}", binding.to), Some(source)))
        }
    }
}

/// Uncovers what the file was before.
pub(super) fn remove(binding: &Binding) -> Result<()> {
    match unmount(&binding.path, UnmountFlags::DETACH) {
        // The runtime has been faster.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(code) => Err(Error::Kernel {
            operation: "remove",
            object: Object::Binding(binding.clone()).to_string(),
            source: code.into(),
            detail: None,
        }),
    }
}
