//! A node's own key in an encrypted overlay: made on the node when it is first asked for, and never
//! taken off it. It is kept beside the snapshots, as WireGuard's tools keep theirs.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

use super::Snapshots;
use crate::error::{Error, Result};
use crate::model::{Name, NodeKey, PrivateKey};
use crate::store::Lock;

/// Who may read a private key: its owner, who is root.
const MODE: u32 = 0o600;

impl Snapshots {
    /// This node's key in `network`, made now if there is none yet. The caller may hold the
    /// [lock](Self::lock) or not.
    ///
    /// # Errors
    /// [`Error::Record`] when what is there is no key, or others may read it; [`Error::File`].
    pub fn key(&self, network: &Name) -> Result<NodeKey> {
        let file = self.path(network).with_extension("key");
        // Who asks may hold the snapshot's lock.
        let _lock = Lock::exclusive(&file.with_extension("key-lock"))?;
        let public = match read(&file)? {
            Some(key) => key.public(),
            None => {
                let key = make().map_err(Error::file("make", &file))?;
                write(&file, &key).map_err(Error::file("write", &file))?;
                key.public()
            }
        };
        Ok(NodeKey { public, file })
    }
}

fn read(path: &Path) -> Result<Option<PrivateKey>> {
    let fault = |reason: &str| Error::Record { path: path.to_owned(), reason: reason.to_owned() };
    let mode = match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(fault("is no file: remove it to have a key made")),
        Ok(found) => found.mode(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    if mode & 0o077 != 0 {
        return Err(fault(
            "others than root may read this node's private key: remove it to have another one made, and tell the \
             other nodes; or, if nobody has read it, `chmod 600` it",
        ));
    }
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let key = PrivateKey::from_secret_text(&text);
    key.map(Some).ok_or_else(|| fault("is no private key: remove it to have one made, and tell the other nodes"))
}

fn make() -> io::Result<PrivateKey> {
    let mut random = [0; 32];
    // 32 bytes come whole (getrandom(2)); before the kernel has enough entropy, this waits.
    while getrandom(&mut random, GetRandomFlags::empty())? != random.len() {}
    Ok(PrivateKey::from_random(random))
}

/// Whole or not at all: half a key would be another one.
fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let draft = path.with_extension("key-draft");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    // The mode counts only for a file that was not there.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    writeln!(file, "{}", key.to_secret_text())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(directory.path());
        let (mesh, other) = (Name::new("mesh").unwrap(), Name::new("other").unwrap());
        let key = snapshots.key(&mesh).unwrap();
        assert_eq!(snapshots.key(&mesh).unwrap(), key);
        // An agent asks while it writes a snapshot.
        let lock = snapshots.lock(&mesh).unwrap();
        assert_eq!(snapshots.key(&mesh).unwrap(), key);
        drop(lock);
        assert_ne!(snapshots.key(&other).unwrap().public, key.public);
        assert_eq!(fs::metadata(&key.file).unwrap().mode() & 0o777, MODE);
        assert!(!format!("{key:?}").contains(fs::read_to_string(&key.file).unwrap().trim_end()));
        assert!(!fs::exists(key.file.with_extension("key-draft")).unwrap());
    }

    #[test]
    fn a_key_that_others_read_or_that_is_none_is_refused_and_left() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::new(directory.path());
        let mesh = Name::new("mesh").unwrap();
        let file = snapshots.key(&mesh).unwrap().file;
        let refusal = || snapshots.key(&mesh).unwrap_err().to_string();

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refusal().contains("others than root may read"), "{}", refusal());
        fs::set_permissions(&file, fs::Permissions::from_mode(MODE)).unwrap();
        let half = fs::read_to_string(&file).unwrap()[..20].to_owned();
        fs::write(&file, &half).unwrap();
        assert!(refusal().contains("is no private key") && !refusal().contains(&half), "{}", refusal());
        assert_eq!(fs::read_to_string(&file).unwrap(), half);
    }
}
