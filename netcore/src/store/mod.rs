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
mod many;
mod record;
mod turnover;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::record::{VERSION, Version, read};
use crate::error::{Error, Result};
use crate::model::{AttachmentId, Mode, Name, Network};
use crate::state_file;

pub(crate) use drop_in::{is_persisted, persist, unpersist, who_sets};
pub use ledger::{HeldLedger, Ledger, Switched};
pub use lock::Lock;
pub use record::Record;

/// Where records live unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/run/netcore";

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

    pub(super) fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("netcore"));
        (directory, store)
    }

    pub(super) fn record(container: &str) -> Record {
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
    fn a_forgotten_network_leaves_no_directory() {
        let (_directory, store) = store();
        let web = Name::new("web").unwrap();
        let lock = store.lock_network(&web).unwrap();
        store.forget_network(&web, lock);
        assert!(!store.directory().join("web").exists());
    }
}
