//! What an agent says about itself to whoever asks for the status: a file under `/run`, and a lock
//! that it holds while it is there.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use netcore::model::Name;
use netcore::state_file;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

const DIRECTORY: &str = "/run/netcore.overlay";

/// An agent's view of its source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The agent's process.
    pub(crate) pid: u32,
    /// Which node it is for.
    pub(crate) node: String,
    /// Where it hears from: the member of etcd, or the file.
    pub(crate) source: String,
    /// Whether the source can be heard.
    pub(crate) connected: bool,
    /// When it was heard last, in seconds since 1970; never when absent.
    pub(crate) last_handshake: Option<u64>,
    /// The same in seconds since the machine started: how long ago that is, whatever has become of
    /// the clock since.
    pub(crate) last_handshake_uptime: Option<u64>,
    /// Why it cannot be heard, or why this node cannot be a part of the overlay.
    pub(crate) trouble: Option<String>,
    /// What is wrong with what other nodes say.
    pub(crate) faults: Vec<String>,
}

impl State {
    /// Notes that the source was heard now.
    pub(crate) fn heard(&mut self) {
        // A clock before 1970 is as good as none.
        self.last_handshake = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
        self.last_handshake_uptime = Some(uptime());
    }

    /// For how many seconds the source has not been heard.
    pub(crate) fn silence(&self) -> Option<u64> {
        Some(uptime().saturating_sub(self.last_handshake_uptime?))
    }
}

/// Seconds since the machine started, those that it slept among them (sysinfo(2)).
fn uptime() -> u64 {
    u64::try_from(rustix::system::sysinfo().uptime).unwrap_or(0)
}

/// The right to be the agent of a network on this host.
pub(crate) struct Seat {
    _lock: File,
    network: Name,
    written: Option<State>,
}

impl Seat {
    /// Takes it.
    pub(crate) fn take(network: &Name) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::from(netcore_error(&path(network, "lock"), error));
        fs::create_dir_all(DIRECTORY).map_err(failed)?;
        let (lock, _) = state_file::lockable(&path(network, "lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock, network: network.clone(), written: None }),
            Err(fs::TryLockError::WouldBlock) => {
                let message = format!("{network}: an agent is at work on this host; it does this, or stop it first");
                Err(Failure { exit: Exit::Nothing, message })
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Says how things are, if that is news.
    pub(crate) fn tell(&mut self, state: &State) {
        if self.written.as_ref() == Some(state) {
            return;
        }
        let draft = path(&self.network, "draft");
        let write = || {
            let mut file = state_file::create(&draft)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            fs::rename(&draft, path(&self.network, "json"))
        };
        // A full /run keeps nobody from doing what counts.
        if write().is_ok() {
            self.written = Some(state.clone());
        }
    }
}

/// What the agent of `network` says, if one is at work.
pub(crate) fn of(network: &Name) -> Option<State> {
    let lock = state_file::open(&path(network, "lock")).ok()?.0;
    match lock.try_lock_shared() {
        Err(fs::TryLockError::WouldBlock) => {}
        _ => return None,
    }
    serde_json::from_slice(&state_file::read(&path(network, "json")).ok()?).ok()
}

fn path(network: &Name, kind: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(format!("{network}.{kind}"))
}

fn netcore_error(path: &std::path::Path, source: std::io::Error) -> std::io::Error {
    let kind = source.kind();
    let hint = if kind == ErrorKind::PermissionDenied { " (this needs root)" } else { "" };
    std::io::Error::new(kind, format!("{}: {source}{hint}", path.display()))
}
