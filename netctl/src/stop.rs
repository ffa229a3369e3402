//! Being told to end.

use std::io;
use std::os::unix::net::UnixStream as Pipe;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// SIGTERM and SIGINT, as something to wait for.
pub(crate) struct Stop(UnixStream);

impl Stop {
    /// From now on, the signals no longer end the process.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let (told, tells) = Pipe::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, tells.try_clone()?)?;
        }
        told.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(told)?))
    }

    /// Waits for one of them.
    pub(crate) async fn told(&mut self) {
        // A pipe that cannot be waited for any more is reason enough to end.
        let _ = self.0.ready(Interest::READABLE).await;
    }
}
