//! What was good last, on disk: one file a network, written whole and renamed into place. It
//! outlives a reboot, so that containers start again whatever has become of the source.
//!
//! The file is a line of JSON that says all, and one for each node that changed since: what a change
//! costs does not grow with the number of nodes. A last line without its end is a write that a
//! crash cut off, and is as if it had not begun.
//!
//! ```text
//! /var/lib/netcore/overlay/NETWORK.json   the snapshot
//! /var/lib/netcore/overlay/NETWORK.lock   held while it is read from its source, or applied
//! /var/lib/netcore/overlay/NETWORK.key    the node's private key, in an encrypted overlay; NETWORK.key-lock
//!                                         is held while it is made
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Name, Peer};
use crate::state_file;
use crate::store::Lock;

use super::Change;

/// Where snapshots are kept unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/netcore/overlay";

const VERSION: u32 = 1;

/// The nodes of an overlay, as they were believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this format; 1.
    version: u32,
    /// Which of the nodes is this one.
    pub node: Name,
    /// All of them.
    pub peers: Vec<Peer>,
}

impl Snapshot {
    /// What `node` knows.
    #[must_use]
    pub fn new(node: Name, peers: Vec<Peer>) -> Self {
        Self { version: VERSION, node, peers }
    }

    /// This node among its peers.
    #[must_use]
    pub fn own(&self) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == self.node)
    }
}

/// A line after the first: what a node is from then on, which may be nothing.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Peer(Peer),
    Gone(Name),
}

/// The directory of snapshots.
#[derive(Clone, Debug)]
pub struct Snapshots {
    directory: PathBuf,
}

impl Snapshots {
    /// The snapshots in `directory`, which need not exist yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Waits for, and takes, the right to change what is known, or done, about the peers of
    /// `network`: whoever applies a snapshot holds it, so that no older one comes after.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock(&self, network: &Name) -> Result<Lock> {
        Lock::exclusive(&self.path(network).with_extension("lock"))
    }

    /// What was good last about `network`.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Record`] when it makes no sense, or is of
    /// another version. It is left in place.
    pub fn load(&self, network: &Name) -> Result<Option<Snapshot>> {
        let path = self.path(network);
        let text = match state_file::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let way_out = "remove it to have it made anew from its source";
        let fault = |reason: String| Error::Record { path: path.clone(), reason };
        let garbled = |error: serde_json::Error| fault(format!("{error}; {way_out}"));
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // A file of one line may be somebody's own, who did not end it.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(&text[..], |end| &text[..end]);
        let mut lines = whole.split(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let Version { version } = serde_json::from_slice(first).map_err(garbled)?;
        if version != VERSION {
            return Err(fault(format!(
                "is of version {version}, this program knows version {VERSION}: use the other program, or {way_out}"
            )));
        }
        let mut snapshot: Snapshot = serde_json::from_slice(first).map_err(garbled)?;
        let lines: Vec<Line> =
            lines.map(serde_json::from_slice).collect::<std::result::Result<_, _>>().map_err(garbled)?;
        if !lines.is_empty() {
            let mut peers: BTreeMap<Name, Peer> =
                snapshot.peers.into_iter().map(|peer| (peer.node.clone(), peer)).collect();
            for line in lines {
                match line {
                    Line::Peer(peer) => drop(peers.insert(peer.node.clone(), peer)),
                    Line::Gone(node) => drop(peers.remove(&node)),
                }
            }
            snapshot.peers = peers.into_values().collect();
        }
        Ok(Some(snapshot))
    }

    /// Adds `change` to what is there about `network`; as much of it as was written counts when the
    /// power fails. The caller holds the [lock](Self::lock), and has committed what `change` is a
    /// change of.
    ///
    /// # Errors
    /// [`Error::File`]. The file is to be [committed](Self::commit) as a whole then.
    pub fn append(&self, network: &Name, change: &Change) -> Result<()> {
        let path = self.path(network);
        let gone = change.gone.iter().filter(|gone| change.come.iter().all(|come| come.node != gone.node));
        let lines = gone.map(|peer| Line::Gone(peer.node.clone()));
        let mut text = Vec::new();
        for line in lines.chain(change.come.iter().cloned().map(Line::Peer)) {
            serde_json::to_writer(&mut text, &line)
                .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
            text.push(b'\n');
        }
        let write = || {
            let mut file = fs::File::options().append(true).open(&path)?;
            file.write_all(&text)?;
            file.sync_data()
        };
        write().map_err(Error::file("write", &path))
    }

    /// Makes `snapshot` what was good last about `network`, whole or not at all, also when the
    /// power fails. The caller holds the [lock](Self::lock).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn commit(&self, network: &Name, snapshot: &Snapshot) -> Result<()> {
        let path = self.path(network);
        let draft = path.with_extension("draft");
        let mut text = serde_json::to_vec(snapshot)
            .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
        text.push(b'\n');
        let write = || {
            let mut file = state_file::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| {
            // The write's error is the one to tell.
            let _ = fs::remove_file(&draft);
            Error::file("write", &path)(error)
        })
    }

    /// The networks there is a snapshot of, by name.
    ///
    /// # Errors
    /// [`Error::File`] when the directory cannot be read.
    pub fn networks(&self) -> Result<Vec<Name>> {
        let listing = match fs::read_dir(&self.directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("read", &self.directory)(error)),
        };
        let names = listing.flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".json")?.parse().ok()
        });
        let mut names: Vec<Name> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Forgets what is known of `network`. The caller holds the [lock](Self::lock).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, network: &Name) -> Result<()> {
        match fs::remove_file(self.path(network)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", self.path(network))(error)),
            _ => Ok(()),
        }
    }

    /// Where the snapshot of `network` is.
    #[must_use]
    pub fn path(&self, network: &Name) -> PathBuf {
        Path::new(&self.directory).join(format!("{network}.json"))
    }
}
