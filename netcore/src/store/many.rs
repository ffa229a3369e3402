//! Reading many records: all there are, or all of a network, on as many threads as it is worth.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, Builder};

use super::record::{Record, read};
use super::turnover::settled_at;
use super::{Store, entries, parse_name};
use crate::error::{Error, Result};
use crate::model::{AttachmentId, Name};

/// How many records are worth a thread of their own, which takes as long to start as some ten to read.
const A_SHARE: usize = 128;

impl Store {
    /// Every record, or every record of `network`; and what is wrong with those that cannot be
    /// understood, which stay where they are.
    ///
    /// # Errors
    /// [`Error::File`] when a directory cannot be listed.
    pub fn records(&self, network: Option<&Name>) -> Result<(Vec<Record>, Vec<Error>)> {
        Ok(self.read(&self.paths(network)?))
    }

    /// Where the records are, or those of `network`.
    ///
    /// # Errors
    /// [`Error::File`] when a directory cannot be listed.
    pub(crate) fn paths(&self, network: Option<&Name>) -> Result<Vec<PathBuf>> {
        let networks = match network {
            Some(network) => vec![network.clone()],
            None => self.networks()?,
        };
        let mut paths = Vec::new();
        for network in networks {
            let mut of_network = entries(&self.directory.join(network.as_str()))?;
            of_network.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
            of_network.sort();
            paths.append(&mut of_network);
        }
        Ok(paths)
    }

    /// As [`records`](Self::records), but only those whose network and attachment, as their names
    /// have them, are meant.
    ///
    /// # Errors
    /// [`Error::File`] when a directory cannot be listed.
    pub fn records_of(&self, is_meant: impl Fn(&Name, &AttachmentId) -> bool) -> Result<(Vec<Record>, Vec<Error>)> {
        let mut paths = self.paths(None)?;
        paths.retain(|path| {
            let network = path.parent().and_then(Path::file_name).and_then(|name| Name::new(name.to_str()?).ok());
            network.zip(parse_name(path)).is_some_and(|(network, (id, _))| is_meant(&network, &id))
        });
        Ok(self.read(&paths))
    }

    /// The records at `paths`, in that order; and what is wrong with those that cannot be understood.
    pub(crate) fn read(&self, paths: &[PathBuf]) -> (Vec<Record>, Vec<Error>) {
        let mut shares = paths.chunks(paths.len().div_ceil(threads_for(paths.len())).max(1));
        let own = shares.next().unwrap_or_default();
        thread::scope(|scope| {
            let begin = |paths| Builder::new().spawn_scoped(scope, move || self.read_each(paths)).ok();
            let others: Vec<_> = shares.map(|paths| (paths, begin(paths))).collect();
            let (mut records, mut faults) = self.read_each(own);
            for (paths, thread) in others {
                let (read, failed) = match thread {
                    Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    None => self.read_each(paths),
                };
                records.extend(read);
                faults.extend(failed);
            }
            (records, faults)
        })
    }

    fn read_each(&self, paths: &[PathBuf]) -> (Vec<Record>, Vec<Error>) {
        let (mut records, mut faults) = (Vec::with_capacity(paths.len()), Vec::new());
        for of_network in paths.chunk_by(|one, next| one.parent() == next.parent()) {
            let turnover = of_network[0].parent().and_then(settled_at);
            for path in of_network {
                match read(path).and_then(|read| read.map(|record| self.in_place(record, path)).transpose()) {
                    Ok(Some(record)) => records.push(record.out_of(turnover)),
                    // Gone meanwhile.
                    Ok(None) => {}
                    Err(error) => faults.push(error),
                }
            }
        }
        (records, faults)
    }
}

/// On how many threads that many records are read.
fn threads_for(records: usize) -> usize {
    match records / A_SHARE {
        // The question alone takes reading some files.
        0 => 1,
        shares => thread::available_parallelism().map_or(1, NonZero::get).min(shares),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{record, store};
    use super::*;

    #[test]
    fn many_records_come_in_order_whoever_reads_them() {
        let (_directory, store) = store();
        let names: Vec<String> = (0..3 * A_SHARE).map(|number| format!("web-{number:03}")).collect();
        let records: Vec<Record> = names.iter().map(|name| record(name)).collect();
        let _lock = store.lock_network(&records[0].network.name).unwrap();
        records.iter().for_each(|record| store.save(record).unwrap());
        assert_eq!(store.records(None).unwrap().0, records);
        let torn = |record: &Record| store.file(&record.network, &record.attachment.id, "json");
        for place in [0, A_SHARE, 3 * A_SHARE - 1] {
            fs::write(torn(&records[place]), "{").unwrap();
        }
        let (read, faults) = store.records(None).unwrap();
        assert_eq!(read, [&records[1..A_SHARE], &records[A_SHARE + 1..3 * A_SHARE - 1]].concat());
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(faults.len() == 3 && faults[0].contains("web-000") && faults[2].contains("web-383"), "{faults:?}");
    }

    #[test]
    fn records_of_a_directory_that_did_not_change_are_unchanged() {
        let (_directory, store) = store();
        let [one, other] = ["web-1", "web-2"].map(record);
        let _lock = store.lock_network(&one.network.name).unwrap();
        store.save(&one).unwrap();
        store.save(&other).unwrap();
        let turnover = || store.turnover_of(&one.network.name);
        assert_eq!(turnover(), None, "just now");
        let blurred = store.records(None).unwrap().0;
        while turnover().is_none() {
            std::thread::yield_now();
        }
        let read = store.records(None).unwrap().0;
        // A file that is not the one that was read is only looked at where the directory does not tell.
        fs::write(store.file(&one.network, &one.attachment.id, "json"), "{}").unwrap();
        assert!(store.is_unchanged(&read[0], turnover()) && !store.is_unchanged(&blurred[0], turnover()));
        assert!(store.is_unchanged(&read[1], turnover()) && store.is_unchanged(&blurred[1], turnover()));
        store.save(&other).unwrap();
        assert!(!store.is_unchanged(&read[0], turnover()) && !store.is_unchanged(&read[1], turnover()));
    }
}
