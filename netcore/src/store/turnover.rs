//! When records came and went last, without reading them.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Store, entries};
use crate::error::{Error, Result};
use crate::model::Name;

/// What has changed within this time may change once more without its clock moving on: the kernel
/// stamps files by the tick (10 ms at most).
const BLUR: Duration = Duration::from_millis(50);

impl Store {
    /// The networks with records, and when one of these last came, changed or went. Nothing is said of
    /// those where that was just now. Every one is written as a new file, so this is when their
    /// directory changed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn turnover(&self) -> Result<Vec<(Name, Option<SystemTime>)>> {
        let mut turnover = Vec::new();
        for directory in entries(&self.directory)? {
            let name = directory.file_name().and_then(|name| Name::new(name.to_str()?).ok());
            let Some(name) = name else { continue };
            match fs::metadata(&directory) {
                Ok(there) if there.is_dir() => turnover.push((name, settled(&there))),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("read", directory)(error)),
            }
        }
        Ok(turnover)
    }

    /// As [`turnover`](Self::turnover), of `network` alone.
    #[must_use]
    pub fn turnover_of(&self, network: &Name) -> Option<SystemTime> {
        settled_at(&self.directory.join(network.as_str()))
    }
}

/// When files in `directory` last came, changed their names or went, unless that was just now.
pub(super) fn settled_at(directory: &Path) -> Option<SystemTime> {
    fs::metadata(directory).ok().as_ref().and_then(settled)
}

fn settled(directory: &Metadata) -> Option<SystemTime> {
    let changed = directory.modified().ok()?;
    changed.elapsed().is_ok_and(|age| age > BLUR).then_some(changed)
}
