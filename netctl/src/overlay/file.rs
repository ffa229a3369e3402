//! Noticing that a file has changed, also when it was replaced by another, as editors do.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};

/// How long a file has to be left alone before it is read: it is seldom written in one go.
const QUIET: Duration = Duration::from_millis(50);

/// Notices changes of one file.
pub(crate) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    names: Vec<OsString>,
    /// It has changed, and nobody knows yet.
    pending: bool,
}

impl Watch {
    /// Begins to watch the file at `path`, which need not be there; its directory has to be.
    pub(crate) fn of(path: &Path) -> Result<Self, Failure> {
        let failed = |directory: &Path, error: io::Error| {
            let message = format!("watch {}: {error}", directory.display());
            Failure { exit: Exit::Nothing, message }
        };
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|error| failed(path, error.into()))?;
        let mut names = Vec::new();
        // A link is replaced where it is, or written to where it leads.
        for place in [Some(path.to_owned()), path.canonicalize().ok()].into_iter().flatten() {
            let directory: PathBuf = place.parent().unwrap_or(Path::new("/")).to_owned();
            let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
            add_watch(&inotify, &directory, what | WatchFlags::CREATE)
                .map_err(|error| failed(&directory, error.into()))?;
            names.extend(place.file_name().map(ToOwned::to_owned));
        }
        // SAFETY: an `OwnedFd` is open and the same until it is dropped, and nothing here takes it out.
        let inotify = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
        Ok(Self { inotify: inotify.map_err(io::Error::from)?, names, pending: false })
    }

    /// Waits until the file has changed, and is left alone. Nothing is lost when this is not waited
    /// for to its end.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        while !self.pending {
            self.pending = self.events().await?;
        }
        while timeout(QUIET, self.events()).await.is_ok() {}
        self.pending = false;
        Ok(())
    }

    /// Waits for events, and reads them; whether one is about the file.
    async fn events(&mut self) -> io::Result<bool> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(guard.get_inner(), &mut buffer);
            let mut ours = None;
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map(|name| name.to_bytes().to_owned());
                        // Without a name, the directory itself or the whole queue is meant.
                        let is_ours = name
                            .is_none_or(|name| self.names.iter().any(|own| own.as_encoded_bytes() == name.as_slice()));
                        ours = Some(ours.unwrap_or(false) || is_ours);
                    }
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            guard.clear_ready();
            if let Some(ours) = ours {
                return Ok(ours);
            }
        }
    }
}
