//! File locks (flock(2)) that can be cleaned away.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::state_file;

/// A held lock; dropping it lets go, and so does the end of the process.
#[derive(Debug)]
pub struct Lock {
    /// Keeps the lock; never read.
    _file: File,
    path: PathBuf,
}

impl Lock {
    pub(crate) fn exclusive(path: &Path) -> Result<Self> {
        Self::take(path, File::lock)
    }

    pub(super) fn shared(path: &Path) -> Result<Self> {
        Self::take(path, File::lock_shared)
    }

    /// The lock if nobody holds it, without waiting.
    pub(super) fn exclusive_at_once(path: &Path) -> Result<Option<Self>> {
        let (file, held) = open(path)?;
        match file.try_lock() {
            Ok(()) if is_in_place(&held, path)? => Ok(Some(Self { _file: file, path: path.to_owned() })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
        }
    }

    /// Lets go, and removes the file. Only the holder of an exclusive lock may do so: whoever
    /// waits for the file finds that it is not the one in the directory any more, and begins anew.
    pub fn remove(self) {
        // Left behind it would be taken again by the next who comes.
        let _ = fs::remove_file(&self.path);
    }

    fn take(path: &Path, wait: fn(&File) -> std::io::Result<()>) -> Result<Self> {
        loop {
            let (file, held) = open(path)?;
            wait(&file).map_err(Error::file("lock", path))?;
            if is_in_place(&held, path)? {
                return Ok(Self { _file: file, path: path.to_owned() });
            }
        }
    }
}

/// Whether the file `held` is still the one in the directory.
fn is_in_place(held: &Metadata, path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("lock", path)(error)),
    }
}

fn open(path: &Path) -> Result<(File, Metadata)> {
    loop {
        match state_file::lockable(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == ErrorKind::NotFound => create_directory_of(path)?,
            Err(error) => return Err(Error::file("open", path)(error)),
        }
    }
}

/// The directory is missing at first, and again after it went with the network's last attachment.
fn create_directory_of(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    match fs::create_dir_all(directory) {
        // Somebody makes or removes it at the same time; opening the file again will tell.
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(()),
        other => other.map_err(Error::file("create", directory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_lock_that_is_removed_after_use_still_keeps_everybody_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network").join("x.lock");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Lock::exclusive(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        lock.remove();
                        let _ = fs::remove_dir(path.parent().unwrap());
                    }
                });
            }
        });
    }
}
