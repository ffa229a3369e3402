//! What was good last, on disk: one file a network, written whole and renamed into place. It
//! outlives a reboot, so that containers start again whatever has become of the source.
//!
//! ```text
//! /var/lib/netcore/overlay/NETWORK.json   the snapshot
//! /var/lib/netcore/overlay/NETWORK.lock   held while it is read from its source, or applied
//! /var/lib/netcore/overlay/NETWORK.key    the node's private key, in an encrypted overlay
//! ```

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Name, Peer};
use crate::store::Lock;

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
        let text = match fs::read(&path) {
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
        let Version { version } = serde_json::from_slice(&text).map_err(garbled)?;
        if version != VERSION {
            return Err(fault(format!(
                "is of version {version}, this program knows version {VERSION}: use the other program, or {way_out}"
            )));
        }
        serde_json::from_slice(&text).map(Some).map_err(garbled)
    }

    /// Makes `snapshot` what was good last about `network`, whole or not at all, also when the
    /// power fails. The caller holds the [lock](Self::lock).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn commit(&self, network: &Name, snapshot: &Snapshot) -> Result<()> {
        let path = self.path(network);
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec(snapshot)
            .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
        let write = || {
            let mut file = fs::File::create(&draft)?;
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

    /// Where the snapshot of `network` is.
    #[must_use]
    pub fn path(&self, network: &Name) -> PathBuf {
        Path::new(&self.directory).join(format!("{network}.json"))
    }
}
