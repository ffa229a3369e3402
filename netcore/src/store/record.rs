//! One record: what it says, and the file it is.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Attachment, Backend, Lease, Network};
use crate::state_file;

/// What was asked for, and what was promised in return: enough to find, mend or remove
/// everything that was made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format; 1.
    version: u32,
    /// The network as it was when the attachment was made.
    pub network: Network,
    /// The attachment as it was asked for.
    pub attachment: Attachment,
    /// What address management gave it; `None` until it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What its share of the firewall is written in, whatever the default becomes.
    #[serde(default, skip_serializing_if = "Backend::is_nftables")]
    pub backend: Backend,
    /// The file it was read from, as that was.
    #[serde(skip)]
    pub(super) stamp: Stamp,
}

/// Which file a record was read from: a record is written whole, as a new file. Two records that say
/// the same are the same, wherever they were read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    file: Option<(u64, i64, i64, u64)>,
    /// When the file's directory had last changed before the file was read, as far as that tells.
    directory: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self { file: Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len())), directory: None }
    }

    /// Whether the file at `path` is still that one; `directory` is when its directory last changed, if
    /// that is known.
    pub(super) fn is_of(&self, path: &Path, directory: Option<SystemTime>) -> bool {
        directory.is_some() && directory == self.directory
            || fs::metadata(path).is_ok_and(|there| self.file.is_some() && self.file == Self::of(&there).file)
    }
}

impl PartialEq for Stamp {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Stamp {}

pub(super) const VERSION: u32 = 1;

impl Record {
    /// A record of the wish alone.
    #[must_use]
    pub fn new(network: Network, attachment: Attachment) -> Self {
        Self {
            version: VERSION,
            network,
            attachment,
            lease: None,
            backend: Backend::default(),
            stamp: Stamp::default(),
        }
    }

    /// The same, from a directory that had last changed at `directory`.
    pub(super) fn out_of(mut self, directory: Option<SystemTime>) -> Self {
        self.stamp.directory = directory;
        self
    }

    /// The same, written in `backend`.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }
}

/// What every version of a record begins with.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) version: u32,
}

/// The record at `path`, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    let attempt = || {
        let (mut file, metadata) = state_file::open(path)?;
        // Written whole and renamed, it does not grow.
        let mut text = vec![0; usize::try_from(metadata.len()).unwrap_or_default()];
        file.read_exact(&mut text)?;
        Ok::<_, std::io::Error>((text, Stamp::of(&metadata)))
    };
    let (text, stamp) = match attempt() {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let fault = |reason: String| Error::Record { path: path.to_owned(), reason };
    match serde_json::from_slice::<Record>(&text) {
        Ok(record) if record.version == VERSION => Ok(Some(Record { stamp, ..record })),
        outcome => {
            let garbled = |error: serde_json::Error| fault(format!("{error}; it goes when the attachment is detached"));
            let Version { version } = serde_json::from_slice(&text).map_err(garbled)?;
            if version != VERSION {
                return Err(fault(format!(
                    "is of version {version}, this program knows version {VERSION}: use the newer program"
                )));
            }
            outcome.map(Some).map_err(garbled)
        }
    }
}
