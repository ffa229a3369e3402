//! What was asked for, one record an attachment, written whole and renamed into place. Records
//! live under `/run`, so they die with the kernel state they describe.
//!
//! ```text
//! /run/netcore/NETWORK/CONTAINER@INTERFACE.MODE.json   the record
//! /run/netcore/NETWORK/CONTAINER@INTERFACE.MODE.lock   held while the attachment changes
//! /run/netcore/.host.lock                              the same for what attachments of several
//!                                                      networks share
//! /run/netcore/NETWORK/network.lock                    shared while an attachment changes,
//!                                                      exclusive while what they share goes
//! /run/netcore.switches                                the [`Ledger`] of the host's settings
//! ```
//!
//! The mode is part of the name because several plugins of one chain may attach the same
//! interface of the same container to the same network, each in its own way.

mod drop_in;
mod ledger;
mod lock;
mod record;
mod turnover;

use std::fs;
use std::io::{ErrorKind, Write};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, Builder};
use std::time::SystemTime;

use self::record::{VERSION, Version, read};
use self::turnover::settled_at;
use crate::error::{Error, Result};
use crate::model::{AttachmentId, Mode, Name, Network};
use crate::state_file;

pub(crate) use drop_in::{is_persisted, persist, unpersist, who_sets};
pub use ledger::{HeldLedger, Ledger, Switched};
pub use lock::Lock;
pub use record::Record;

/// Where records live unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/run/netcore";

/// How many records are worth a thread of their own, which takes as long to start as some ten to read.
const A_SHARE: usize = 128;

/// The directory of records.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in `directory`, which need not exist yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Waits for, and takes, the right to change `id`'s attachment to `network`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock_attachment(&self, network: &Network, id: &AttachmentId) -> Result<Lock> {
        Lock::exclusive(&self.file(network, id, "lock"))
    }

    /// Waits until nobody takes away what the attachments of `network` share, and keeps it so.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn share_network(&self, network: &Name) -> Result<Lock> {
        Lock::shared(&self.network_lock(network))
    }

    /// Waits until no attachment of `network` is changing, and keeps it so.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock_network(&self, network: &Name) -> Result<Lock> {
        Lock::exclusive(&self.network_lock(network))
    }

    /// As [`lock_network`](Self::lock_network) if no attachment of `network` is changing; nothing, at
    /// once, if one is.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock_calm_network(&self, network: &Name) -> Result<Option<Lock>> {
        Lock::exclusive_at_once(&self.network_lock(network))
    }

    /// Waits until nobody takes away what attachments of several networks share, and keeps it so.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn share_host(&self) -> Result<Lock> {
        Lock::shared(&self.host_lock())
    }

    /// Waits until no attachment is changing that shares anything with those of other networks,
    /// and keeps it so.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn lock_host(&self) -> Result<Lock> {
        Lock::exclusive(&self.host_lock())
    }

    /// Whether anything is remembered of the host's settings.
    #[must_use]
    pub fn has_ledger(&self) -> bool {
        self.ledger_path().exists()
    }

    /// Waits for, and takes, what is remembered of the host's settings.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn ledger(&self) -> Result<HeldLedger> {
        HeldLedger::take(self.ledger_path())
    }

    /// Beside the records, so that a directory without networks is empty.
    fn ledger_path(&self) -> PathBuf {
        self.directory.with_extension("switches")
    }

    /// The record of `id` on `network`, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Record`] when it makes no sense.
    pub fn load(&self, network: &Network, id: &AttachmentId) -> Result<Option<Record>> {
        let path = self.file(network, id, "json");
        read(&path)?.map(|record| self.in_place(record, &path)).transpose()
    }

    /// Whether the record of `id` on `network` is of another version than those we write.
    #[must_use]
    pub fn is_of_another_version(&self, network: &Network, id: &AttachmentId) -> bool {
        let text = state_file::read(&self.file(network, id, "json")).unwrap_or_default();
        serde_json::from_slice(&text).is_ok_and(|Version { version }| version != VERSION)
    }

    /// `record`, which was read from `path`, if it belongs there.
    fn in_place(&self, record: Record, path: &Path) -> Result<Record> {
        if self.file(&record.network, &record.attachment.id, "json") == path {
            return Ok(record);
        }
        let (id, network) = (&record.attachment.id, &record.network.name);
        let reason = format!("is of {id} on network {network}, and not in its place: another program has put it there");
        Err(Error::Record { path: path.to_owned(), reason })
    }

    /// Whether `record` is there as it was read; with the [`turnover`](Self::turnover_of) of its network, if
    /// nobody changes any of those records, that of many is known at once.
    #[must_use]
    pub fn is_unchanged(&self, record: &Record, turnover: Option<SystemTime>) -> bool {
        record.stamp.is_of(&self.file(&record.network, &record.attachment.id, "json"), turnover)
    }

    /// Writes `record`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, record: &Record) -> Result<()> {
        let path = self.file(&record.network, &record.attachment.id, "json");
        let draft = path.with_extension("draft");
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::Record { path: path.clone(), reason: error.to_string() })?;
        let write = || {
            let mut file = state_file::create(&draft)?;
            file.write_all(&text)?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| {
            // A full disk must not also leave the draft behind; the write's error is the one to tell.
            let _ = fs::remove_file(&draft);
            Error::file("write", &path)(error)
        })
    }

    /// Removes the record of `id` on `network`; without one, that is done already.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, network: &Network, id: &AttachmentId) -> Result<()> {
        for extension in ["draft", "json"] {
            let path = self.file(network, id, extension);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file("remove", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Who is attached to `network` in its mode, by the names of their records; and whose attach
    /// ended before a record was whole.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn attachments(&self, network: &Network) -> Result<Vec<AttachmentId>> {
        let directory = self.directory.join(network.name.as_str());
        let of_mode = |(id, mode): (AttachmentId, String)| (mode == network.mode.name()).then_some(id);
        let entries = entries(&directory)?;
        let named = entries.iter().filter_map(|path| parse_name(path).or_else(|| parse(path, ".draft")));
        let mut ids: Vec<AttachmentId> = named.filter_map(of_mode).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The records of `container` on any network; those that cannot be understood are left out.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn of_container(&self, container: &Name) -> Result<Vec<Record>> {
        self.find(|id, _| id.container == *container)
    }

    /// The records of all networks of the kind of `mode`; those that cannot be understood are
    /// left out.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn of_mode(&self, mode: &Mode) -> Result<Vec<Record>> {
        self.find(|_, name| name == mode.name())
    }

    /// The records whose names are as wanted.
    fn find(&self, is_wanted: impl Fn(&AttachmentId, &str) -> bool) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for network in self.networks()? {
            for path in entries(&self.directory.join(network.as_str()))? {
                if parse_name(&path).is_some_and(|(id, mode)| is_wanted(&id, &mode)) {
                    records.extend(read(&path).ok().flatten());
                }
            }
        }
        Ok(records)
    }

    /// Whether there is a record that `is_meant`. Reads no more of them than it takes, those of the
    /// network `likely` before others.
    ///
    /// # Errors
    /// [`Error::File`], and [`Error::Record`] when one that cannot be understood may be meant.
    pub fn any(&self, likely: Option<&Name>, is_meant: impl Fn(&Record) -> bool) -> Result<bool> {
        let mut networks = self.networks()?;
        networks.sort_by_key(|network| Some(network) != likely);
        for network in networks {
            for path in entries(&self.directory.join(network.as_str()))? {
                if parse_name(&path).is_some() && read(&path)?.is_some_and(|record| is_meant(&record)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

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

    /// Whether anybody is attached to `network`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn has_attachments(&self, network: &Name) -> Result<bool> {
        let directory = self.directory.join(network.as_str());
        match fs::read_dir(&directory) {
            Ok(mut listing) => Ok(listing.any(|entry| entry.is_ok_and(|entry| parse_name(&entry.path()).is_some()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file("list", directory)(error)),
        }
    }

    /// The networks that have had attachments since the host started.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn networks(&self) -> Result<Vec<Name>> {
        let file_name = |path: &PathBuf| path.file_name()?.to_str().and_then(|name| Name::new(name).ok());
        // What else is kept beside the networks' directories is no network.
        let mut names: Vec<Name> =
            entries(&self.directory)?.iter().filter(|path| path.is_dir()).filter_map(file_name).collect();
        names.sort();
        Ok(names)
    }

    /// Forgets `network`, of which nothing is left. Others may be waiting for `lock`; they
    /// notice and begin anew.
    pub fn forget_network(&self, network: &Name, lock: Lock) {
        lock.remove();
        // Fails, as it should, while anything is in it.
        let _ = fs::remove_dir(self.directory.join(network.as_str()));
    }

    /// The directory, for messages.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn file(&self, network: &Network, id: &AttachmentId, extension: &str) -> PathBuf {
        // Neither kind of name contains '@', and no mode a '.': no two attachments share a file.
        let name = format!("{}@{}.{}.{extension}", id.container, id.interface, network.mode.name());
        self.directory.join(network.name.as_str()).join(name)
    }

    /// No network is called so.
    fn host_lock(&self) -> PathBuf {
        self.directory.join(".host.lock")
    }

    fn network_lock(&self, network: &Name) -> PathBuf {
        self.directory.join(network.as_str()).join("network.lock")
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

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", directory)(error)),
    };
    listing.map(|entry| Ok(entry.map_err(Error::file("list", directory))?.path())).collect()
}

/// Whose record `path` is, and of which mode, if it is one.
fn parse_name(path: &Path) -> Option<(AttachmentId, String)> {
    parse(path, ".json")
}

fn parse(path: &Path, extension: &str) -> Option<(AttachmentId, String)> {
    let (attachment, mode) = path.file_name()?.to_str()?.strip_suffix(extension)?.rsplit_once('.')?;
    let (container, interface) = attachment.split_once('@')?;
    Some((AttachmentId::new(container, interface).ok()?, mode.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Attachment, Mode, NoneConfig};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("netcore"));
        (directory, store)
    }

    fn record(container: &str) -> Record {
        let network = Network {
            name: Name::new("web").unwrap(),
            mode: Mode::None(NoneConfig {}),
            ipam: None,
            dns: Default::default(),
        };
        Record::new(network, Attachment::new(container.parse().unwrap(), None))
    }

    #[test]
    fn what_is_saved_is_loaded_until_it_is_removed() {
        let (_directory, store) = store();
        let record = record("web-1");
        let (network, id) = (&record.network, &record.attachment.id);
        let _lock = store.lock_attachment(network, id).unwrap();
        store.save(&record).unwrap();
        assert_eq!(store.load(network, id).unwrap().as_ref(), Some(&record));
        assert_eq!(store.attachments(network).unwrap(), std::slice::from_ref(id));
        assert_eq!(store.networks().unwrap(), std::slice::from_ref(&network.name));
        assert_eq!(store.of_container(&id.container).unwrap(), std::slice::from_ref(&record));
        store.remove(network, id).unwrap();
        store.remove(network, id).unwrap();
        assert_eq!(store.load(network, id).unwrap(), None);
    }

    #[test]
    fn a_record_of_a_newer_version_or_a_torn_one_is_named_and_left_in_place() {
        let (_directory, store) = store();
        let record = record("web-1");
        let (network, id) = (&record.network, &record.attachment.id);
        let _lock = store.lock_attachment(network, id).unwrap();
        let path = store.file(network, id, "json");
        for (text, reason) in [("{\"version\": 2}", "version 2"), ("{\"vers", "EOF"), ("", "EOF")] {
            fs::write(&path, text).unwrap();
            let message = store.load(network, id).unwrap_err().to_string();
            assert!(message.contains(reason) && message.contains("web-1@eth0.none.json"), "{message}");
            assert!(path.exists());
        }
    }

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
    fn a_calm_network_is_locked_at_once_and_one_in_use_is_not() {
        let (_directory, store) = store();
        let web = Name::new("web").unwrap();
        let calm = || store.lock_calm_network(&web).unwrap();
        let attaching = store.share_network(&web).unwrap();
        assert!(calm().is_none());
        drop(attaching);
        let whole = calm();
        assert!(whole.is_some() && calm().is_none());
        drop(whole);
        let _attaching = store.share_network(&web).unwrap();
    }

    #[test]
    fn a_record_is_unchanged_until_it_is_written_again() {
        let (_directory, store) = store();
        let wish = record("web-1");
        let (network, id) = (&wish.network, &wish.attachment.id);
        let _lock = store.lock_attachment(network, id).unwrap();
        store.save(&wish).unwrap();
        let read = store.load(network, id).unwrap().unwrap();
        assert!(store.is_unchanged(&read, None) && !store.is_unchanged(&wish, None), "what was not read has no file");
        store.save(&wish).unwrap();
        assert!(!store.is_unchanged(&read, None));
        let read = store.load(network, id).unwrap().unwrap();
        store.remove(network, id).unwrap();
        assert!(!store.is_unchanged(&read, None));
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

    #[test]
    fn a_forgotten_network_leaves_no_directory() {
        let (_directory, store) = store();
        let web = Name::new("web").unwrap();
        let lock = store.lock_network(&web).unwrap();
        store.forget_network(&web, lock);
        assert!(!store.directory().join("web").exists());
    }
}
