//! Who has started us and wants to know how we are: sd_notify(3), by its documented protocol, and
//! the watchdog of systemd.service(5).

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Hears nothing if nobody wants to.
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often to say that we are alive.
    pace: Option<Duration>,
}

impl Supervisor {
    pub(crate) fn of_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|address| connect(&address));
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let patience = number("WATCHDOG_USEC").filter(|patience| meant && *patience > 0 && socket.is_some());
        Self { socket, pace: patience.map(|patience| Duration::from_micros(patience / 2)) }
    }

    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// One line for whoever asks how we are.
    pub(crate) fn status(&self, text: &str) {
        self.say(&format!("STATUS={}", text.replace('\n', " ")));
    }

    pub(crate) fn alive(&self) {
        if self.pace.is_some() {
            self.say("WATCHDOG=1");
        }
    }

    /// Waits until it is time to say so again.
    pub(crate) async fn tick(&self) {
        match self.pace {
            Some(pace) => tokio::time::sleep(pace).await,
            None => std::future::pending().await,
        }
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket {
            // Whoever does not listen any more does not need to know.
            let _ = socket.send(what.as_bytes());
        }
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn connect(address: &OsStr) -> Option<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        _ => SocketAddr::from_pathname(address).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    // A supervisor may be busy for a moment; one that never reads is not waited for.
    socket.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
    Some(socket)
}
