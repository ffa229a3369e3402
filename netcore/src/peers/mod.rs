//! Who else is in an overlay. A [`Source`] says which nodes there are; what it says is looked at
//! ([`accept()`]), and what holds is committed to disk as a [`Snapshot`], which is all that
//! attaching a container ever waits for.
//!
//! A source that cannot be read, or that contradicts itself, changes nothing: the last good
//! snapshot stays. A file is read by whoever attaches a container; a registry is followed by the
//! node's agent, which commits snapshots by the same door.

mod accept;
mod file;
mod key;
mod registry;
mod roll;
mod snapshot;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::model::{Name, OverlayConfig, Peer, PeerSource};

pub use accept::accept;
pub use file::{File, this_node};
pub use registry::{Entry, Event, Keys, Registration, Registry, Said};
pub use roll::{Change, Roll};
pub use snapshot::{DEFAULT_DIRECTORY, Snapshot, Snapshots};

/// Where it is written down which node has which subnet.
pub trait Source {
    /// What is written there now.
    ///
    /// # Errors
    /// [`Error::NoSubnet`] when nothing is there yet, [`Error::Peers`] when it makes no sense,
    /// [`Error::File`].
    fn read(&self, config: &OverlayConfig) -> Result<Reading>;
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which of the nodes is this one.
    pub node: Name,
    /// All of them, as they describe themselves.
    pub peers: Vec<Peer>,
}

/// The peers of an overlay as they are to be used now, and what went wrong on the way to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The peers.
    pub snapshot: Snapshot,
    /// Why an older state is used than the source has.
    pub warnings: Vec<String>,
}

impl Snapshots {
    /// The peers of `network`: what the source says where it can be asked without waiting, and
    /// otherwise, or when it makes no sense, what was good last.
    ///
    /// # Errors
    /// [`Error::NoSubnet`] when there is nothing yet, the source's own fault when nothing was
    /// ever good, [`Error::Record`] when the last snapshot cannot be understood.
    pub fn current(&self, network: &Name, config: &OverlayConfig) -> Result<Current> {
        let _lock = self.lock(network)?;
        let last = self.load(network)?;
        let read = match &config.source {
            PeerSource::File(path) => File::new(path).read(config).and_then(|reading| whole(path, config, reading)),
            PeerSource::Etcd(_) => {
                return match last {
                    Some(snapshot) => Ok(Current { snapshot, warnings: Vec::new() }),
                    None => Err(Error::NoSubnet {
                        network: network.to_string(),
                        reason: format!(
                            "nothing is known of the other nodes yet, since the agent has not run ({} is not there): \
                             start `netctl overlay agent`",
                            self.path(network).display()
                        ),
                    }),
                };
            }
        };
        match (read, last) {
            (Ok(snapshot), last) => {
                if last.as_ref() != Some(&snapshot) {
                    self.commit(network, &snapshot)?;
                }
                Ok(Current { snapshot, warnings: Vec::new() })
            }
            (Err(fault), Some(last)) => {
                let warning = format!("{fault}; the peers that were good last are used instead");
                Ok(Current { snapshot: last, warnings: vec![warning] })
            }
            (Err(Error::NoSubnet { reason, .. }), None) => {
                Err(Error::NoSubnet { network: network.to_string(), reason })
            }
            (Err(fault), None) => Err(fault),
        }
    }
}

/// A file is taken as a whole or not at all: one wrong entry may be the half of an edit.
fn whole(path: &std::path::Path, config: &OverlayConfig, reading: Reading) -> Result<Snapshot> {
    let (peers, faults) = accept(config, &reading.node, reading.peers);
    if faults.is_empty() {
        return Ok(Snapshot::new(reading.node, peers));
    }
    let reasons: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Err(Error::Peers { origin: path.display().to_string(), reason: reasons.join("; ") })
}
