//! What was switched on the host, and what it was before: one file beside the records, which dies
//! with the kernel state it describes, as they do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lock::Lock;
use crate::error::{Error, Result};
use crate::state_file;

/// What is remembered of the host's settings. Names are paths below `/proc/sys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// What we switched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub switched: BTreeMap<String, Switched>,
    /// Switches of single interfaces that are off although the host forwards: somebody wants them to
    /// be, and the switch of all interfaces, when it is thrown, throws them as well.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub off: BTreeSet<String>,
    /// Those that were on although the host did not forward.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub on_before: BTreeSet<String>,
    /// Whether the switch of all interfaces is being thrown: `off` may have to be switched off again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub throwing: bool,
}

/// A setting that we changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// Its value before.
    pub was: String,
    /// The value we gave it.
    pub set: String,
}

/// The ledger, held: nobody else reads or changes it meanwhile.
#[derive(Debug)]
pub struct HeldLedger {
    /// What it says; [`save`](Self::save) writes it.
    pub ledger: Ledger,
    path: PathBuf,
    lock: Lock,
}

impl HeldLedger {
    /// Waits for, and takes, the ledger at `path`. One that makes no sense is as good as none: it
    /// cannot tell what was before, and is written anew.
    pub(super) fn take(path: PathBuf) -> Result<Self> {
        let lock = Lock::exclusive(&path.with_extension("switches.lock"))?;
        let ledger = match state_file::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ledger::default(),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        Ok(Self { ledger, path, lock })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self) -> Result<()> {
        write(&self.path, &self.ledger).map_err(Error::file("write", &self.path))
    }

    /// Forgets it all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn forget(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", &self.path)(error)),
            _ => {
                self.lock.remove();
                Ok(())
            }
        }
    }
}

fn write(path: &Path, ledger: &Ledger) -> std::io::Result<()> {
    let draft = path.with_extension("switches.draft");
    let attempt = || {
        let mut file = state_file::create(&draft)?;
        file.write_all(&serde_json::to_vec(ledger)?)?;
        fs::rename(&draft, path)
    };
    attempt().inspect_err(|_| {
        // A full disk must not also leave the draft behind.
        let _ = fs::remove_file(&draft);
    })
}
