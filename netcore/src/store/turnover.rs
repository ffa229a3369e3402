//! When records came and went last, without reading them.

use std::fs;
use std::io::ErrorKind;
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
                Ok(there) if there.is_dir() => {
                    let changed = there.modified().ok();
                    let is_settled = |at: &SystemTime| at.elapsed().is_ok_and(|age| age > BLUR);
                    turnover.push((name, changed.filter(is_settled)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("read", directory)(error)),
            }
        }
        Ok(turnover)
    }
}
