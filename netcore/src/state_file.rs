//! Opening files of ours. Something else may be in the place of one: a FIFO would have us wait for
//! ever, a symbolic link lead us elsewhere. None of that is read, written or waited for; it is
//! named.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// What has no file behind it is neither followed nor waited for (open(2)).
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// What the file says.
///
/// # Errors
/// Those of opening and reading, and that something else than a regular file is there.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, there) = open(path)?;
    // One byte more, so that the end is found without asking for more room.
    let mut bytes = Vec::with_capacity(usize::try_from(there.len()).unwrap_or_default().saturating_add(1));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file, to be read.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    regular(path, File::options().read(true))
}

/// The file, made if it is not there, without what it said.
///
/// # Errors
/// As [`read`].
pub fn create(path: &Path) -> io::Result<File> {
    regular(path, File::options().write(true).create(true).truncate(true)).map(|(file, _)| file)
}

/// The file, made if it is not there, to be locked.
///
/// # Errors
/// As [`read`].
pub fn lockable(path: &Path) -> io::Result<(File, Metadata)> {
    regular(path, File::options().write(true).create(true).truncate(false))
}

fn regular(path: &Path, options: &mut OpenOptions) -> io::Result<(File, Metadata)> {
    let options = options.custom_flags(FLAGS.bits().cast_signed());
    let file = options.open(path).map_err(|error| match Errno::from_io_error(&error) {
        // A link; a directory; a FIFO that nobody reads, or a socket.
        Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
            fs::symlink_metadata(path).map_or(error, |there| refusal(path, there.file_type()))
        }
        _ => error,
    })?;
    let there = file.metadata()?;
    if there.is_file() { Ok((file, there)) } else { Err(refusal(path, there.file_type())) }
}

fn refusal(path: &Path, kind: FileType) -> io::Error {
    let what = if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    // It may be the draft of what the caller speaks of.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} is in the place of {name}: remove it"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    #[test]
    fn nothing_but_a_file_is_read_or_written() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("a directory")).unwrap();
        symlink(at("elsewhere"), at("a symbolic link")).unwrap();
        mknodat(CWD, at("a FIFO"), Kind::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _listener = UnixListener::bind(at("a socket")).unwrap();
        let mut kinds = vec!["a directory", "a symbolic link", "a FIFO", "a socket"];
        // /dev/null's number.
        match mknodat(CWD, at("a device"), Kind::CharacterDevice, Mode::from_raw_mode(0o600), 0x103) {
            Ok(()) => kinds.push("a device"),
            Err(error) => eprintln!("no device: {error}"),
        }
        for what in kinds {
            let path = at(what);
            let refusals =
                [read(&path).map(drop), create(&path).map(drop), lockable(&path).map(drop)].map(Result::unwrap_err);
            for refusal in refusals {
                assert!(refusal.to_string().starts_with(what), "{what}: {refusal}");
            }
        }
        assert!(!at("elsewhere").exists());
    }

    #[test]
    fn a_file_is_made_read_and_emptied() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        create(&path).unwrap().write_all(b"text").unwrap();
        lockable(&path).unwrap();
        assert_eq!(read(&path).unwrap(), b"text");
        create(&path).unwrap();
        assert_eq!(read(&path).unwrap(), b"");
    }
}
