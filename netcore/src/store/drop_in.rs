//! Settings that outlive a restart: our file among those that sysctl.d(5) names, which are read in
//! the order of their names, whatever directory they are in; the last one to name a setting wins.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Our file.
const NAME: &str = "99-netcore.conf";

/// Where such files are; of two with one name, that of the earlier directory counts.
const DIRECTORIES: [&str; 5] =
    ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"];

/// Read after all others by `sysctl --system`, by its own name only.
const LAST: &str = "etc/sysctl.conf";

/// Writes `settings`, paths below `/proc/sys` and their values, so that they hold from the next start
/// on; `root` is `/`. Returns the file.
///
/// # Errors
/// [`Error::Conflict`] when a file that is read later says otherwise: nothing is written then, since
/// it would not help. [`Error::File`] when a file cannot be read or written.
pub(crate) fn persist(root: &Path, settings: &BTreeMap<String, String>) -> Result<PathBuf> {
    let path = root.join(DIRECTORIES[0]).join(NAME);
    for later in later_files(root)? {
        let text = fs::read_to_string(&later).map_err(Error::file("read", &later))?;
        for (number, line) in text.lines().enumerate() {
            let Some((name, value)) = assignment(line) else { continue };
            if settings.get(&name).is_some_and(|wanted| *wanted != value) {
                return Err(Error::Conflict {
                    object: format!("{} = {} in {}", name.replace('/', "."), settings[&name], path.display()),
                    found: format!("line {} of {}, which is read later, says {value}", number + 1, later.display()),
                    way_out: "remove that line".to_owned(),
                });
            }
        }
    }
    let mut text = String::from("# What the networks of netcore need; written by `netctl repair-chains --persist`.\n");
    for (name, value) in settings {
        text += &format!("{} = {value}\n", name.replace('/', "."));
    }
    let directory = root.join(DIRECTORIES[0]);
    fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let draft = directory.join(format!(".{NAME}.new"));
    let write = || {
        let mut file = fs::File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    write().map_err(|error| {
        // What is half written must not stay; the write's error is the one to tell.
        let _ = fs::remove_file(&draft);
        Error::file("write", &path)(error)
    })?;
    Ok(path)
}

/// The files that are read after ours, in that order.
fn later_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES.map(|directory| root.join(directory)) {
        let listing = match fs::read_dir(&directory) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("list", directory)(error)),
        };
        for entry in listing {
            let entry = entry.map_err(Error::file("list", &directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".conf") && name.as_str() > NAME {
                files.entry(name).or_insert(entry.path());
            }
        }
    }
    let last = root.join(LAST);
    // A link to nowhere, or to /dev/null, says nothing.
    Ok(files.into_values().chain([last]).filter(|path| path.is_file()).collect())
}

/// The setting and value of a line of sysctl.d(5). Either of `/` and `.` separates, the first one of
/// the line decides; `net.ipv4.conf.all.forwarding` is another name of `net.ipv4.ip_forward`.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.trim_start_matches('-').split_once('=')?;
    let name = name.trim();
    let dotted = name.find(['/', '.']).is_some_and(|place| name[place..].starts_with('.'));
    let name = if dotted { name.replace('.', "/") } else { name.to_owned() };
    let name = if name == "net/ipv4/conf/all/forwarding" { "net/ipv4/ip_forward".to_owned() } else { name };
    Some((name, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward() -> BTreeMap<String, String> {
        [("net/ipv4/ip_forward".to_owned(), "1".to_owned())].into()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_written_is_what_sysctl_reads() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "etc/sysctl.d/10-cloud.conf", "net.ipv4.ip_forward = 0\n");
        write(root.path(), "usr/lib/sysctl.d/99-other.conf", "# net.ipv4.ip_forward=0\nkernel.panic=0\n");
        let path = persist(root.path(), &forward()).unwrap();
        assert_eq!(path, root.path().join("etc/sysctl.d/99-netcore.conf"));
        assert!(fs::read_to_string(&path).unwrap().ends_with("\nnet.ipv4.ip_forward = 1\n"));
        assert_eq!(persist(root.path(), &forward()).unwrap(), path);
        assert_eq!(fs::read_dir(root.path().join("etc/sysctl.d")).unwrap().count(), 2);
    }

    #[test]
    fn a_later_file_that_says_otherwise_is_named_and_nothing_is_written() {
        for (file, line) in [
            ("usr/lib/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward=0"),
            ("run/sysctl.d/zz.conf", " -net/ipv4/ip_forward = 0 "),
            ("etc/sysctl.conf", "net.ipv4.conf.all.forwarding = 0"),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), file, &format!("; a comment\n{line}\n"));
            let refusal = persist(root.path(), &forward()).unwrap_err().to_string();
            assert!(refusal.contains(&format!("line 2 of {}", root.path().join(file).display())), "{refusal}");
            assert!(!root.path().join("etc/sysctl.d/99-netcore.conf").exists());
        }
    }

    #[test]
    fn a_file_that_another_one_replaces_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/lib/sysctl.d/99-z.conf", "net.ipv4.ip_forward=0");
        write(root.path(), "etc/sysctl.d/99-z.conf", "net.ipv4.ip_forward=1");
        persist(root.path(), &forward()).unwrap();
    }
}
