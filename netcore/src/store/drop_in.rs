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

/// What our file begins with.
const HEADER: &str = "# What the networks of netcore need; written by `netctl repair-chains --persist`.\n";

/// Whether there is a file of ours.
pub(crate) fn is_persisted(root: &Path) -> bool {
    path(root).exists()
}

/// Takes away what [`persist`] wrote; the file, or `None` if there is none.
///
/// # Errors
/// [`Error::Conflict`] when the file is not of our writing, [`Error::File`].
pub(crate) fn unpersist(root: &Path) -> Result<Option<PathBuf>> {
    let path = path(root);
    match fs::read_to_string(&path) {
        Ok(text) if text.starts_with(HEADER) => {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
            Ok(Some(path))
        }
        Ok(_) => Err(Error::Conflict {
            object: path.display().to_string(),
            found: "it does not begin as the file that was written".to_owned(),
            way_out: "look at it, and remove it by hand".to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(DIRECTORIES[0]).join(NAME)
}

/// Another name of `net/ipv4/ip_forward`.
const ALIAS: &str = "net/ipv4/conf/all/forwarding";

/// Writes `settings`, paths below `/proc/sys` and their values, so that they hold from the next start
/// on; `root` is `/`. Returns the file.
///
/// # Errors
/// [`Error::Conflict`] when a file that is read later says otherwise: nothing is written then, since
/// it would not help. [`Error::File`] when a file cannot be read or written.
pub(crate) fn persist(root: &Path, settings: &BTreeMap<String, String>) -> Result<PathBuf> {
    let path = path(root);
    for later in later_files(root)? {
        let text = fs::read_to_string(&later).map_err(Error::file("read", &later))?;
        for (number, line) in text.lines().enumerate() {
            let Some((name, value)) = assignment(line) else { continue };
            let defeated = settings.iter().find(|(wanted, set)| **set != value && means(&name, wanted));
            if let Some((wanted, set)) = defeated {
                return Err(Error::Conflict {
                    object: format!("{} = {set} in {}", wanted.replace('/', "."), path.display()),
                    found: format!("line {} of {}, which is read later, says {value}", number + 1, later.display()),
                    way_out: "remove that line".to_owned(),
                });
            }
        }
    }
    let mut text = HEADER.to_owned();
    // What throws the switches of single interfaces comes before those.
    let (single, all): (Vec<_>, Vec<_>) = settings.iter().partition(|(name, _)| is_of_one(name));
    for (name, value) in all.into_iter().chain(single) {
        // Dots, as everybody writes it, unless an interface's name has one.
        let name = if name.contains('.') { name.clone() } else { name.replace('/', ".") };
        text += &format!("{name} = {value}\n");
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

/// The file that has the last word on the setting `name`, a path below `/proc/sys`, when
/// `sysctl --system` reads all of them: its path, the line, and the value; `root` is `/`.
///
/// # Errors
/// [`Error::File`] when a directory or a file cannot be read.
pub(crate) fn who_sets(root: &Path, name: &str) -> Result<Option<(PathBuf, usize, String)>> {
    let name = if name == ALIAS { "net/ipv4/ip_forward" } else { name };
    let mut last = None;
    for path in files(root, |_| true)? {
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        for (number, line) in text.lines().enumerate() {
            if let Some((found, value)) = assignment(line)
                && found == name
            {
                last = Some((path.clone(), number + 1, value));
            }
        }
    }
    Ok(last)
}

/// The files that are read after ours, in that order.
fn later_files(root: &Path) -> Result<Vec<PathBuf>> {
    files(root, |name| name > NAME)
}

/// The files with a name that `is_wanted`, and the one that is read last, in the order they are read.
fn files(root: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
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
            if name.ends_with(".conf") && is_wanted(&name) {
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
    let name = if name == ALIAS { "net/ipv4/ip_forward".to_owned() } else { name };
    Some((name, value.trim().to_owned()))
}

/// Whether a setting is a single interface's.
fn is_of_one(name: &str) -> bool {
    name.contains("/conf/") && !name.contains("/conf/all/")
}

/// Whether `pattern`, as glob(7) has it as far as `*` goes, means the setting `name`, also under its
/// other name.
fn means(pattern: &str, name: &str) -> bool {
    glob(pattern, name) || name == "net/ipv4/ip_forward" && glob(pattern, "net/ipv4/conf/all/forwarding")
}

/// A `*` stands for any text without a slash.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(after) = name.strip_prefix(start) else { return false };
            let end = after.find('/').unwrap_or(after.len());
            (0..=end).any(|skipped| after.get(skipped..).is_some_and(|after| glob(rest, after)))
        }
    }
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
    fn the_file_with_the_last_word_is_found() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(who_sets(root.path(), "net/ipv4/ip_forward").unwrap(), None);
        write(root.path(), "usr/lib/sysctl.d/50-default.conf", "net.ipv4.ip_forward = 1\n");
        write(root.path(), "etc/sysctl.d/99-cis.conf", "# hardening\nnet.ipv4.conf.all.forwarding=0\n");
        write(root.path(), "run/sysctl.d/10-cloud.conf", "net.ipv4.ip_forward=1\n");
        let (path, line, value) = who_sets(root.path(), "net/ipv4/ip_forward").unwrap().unwrap();
        assert_eq!((path, line, value.as_str()), (root.path().join("etc/sysctl.d/99-cis.conf"), 2, "0"));
        write(root.path(), "etc/sysctl.conf", "net.ipv4.ip_forward=1\n");
        assert_eq!(who_sets(root.path(), "net/ipv4/ip_forward").unwrap().unwrap().2, "1");
    }

    #[test]
    fn a_later_file_that_says_otherwise_is_named_and_nothing_is_written() {
        for (file, line) in [
            ("usr/lib/sysctl.d/99-sysctl.conf", "net.ipv4.ip_forward=0"),
            ("run/sysctl.d/zz.conf", " -net/ipv4/ip_forward = 0 "),
            ("etc/sysctl.conf", "net.ipv4.conf.all.forwarding = 0"),
            ("etc/sysctl.d/99-z.conf", "-net.ipv4.conf.*.forwarding = 0"),
        ] {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), file, &format!("; a comment\n{line}\n"));
            let refusal = persist(root.path(), &forward()).unwrap_err().to_string();
            assert!(refusal.contains(&format!("line 2 of {}", root.path().join(file).display())), "{refusal}");
            assert!(!root.path().join("etc/sysctl.d/99-netcore.conf").exists());
        }
    }

    #[test]
    fn what_is_off_for_one_interface_stays_off_behind_the_switch_of_all() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = forward();
        settings.insert("net/ipv4/conf/eth1.10/forwarding".to_owned(), "0".to_owned());
        let path = persist(root.path(), &settings).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with("\nnet.ipv4.ip_forward = 1\nnet/ipv4/conf/eth1.10/forwarding = 0\n"), "{text}");
    }

    #[test]
    fn what_was_written_is_taken_back_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(unpersist(root.path()).unwrap(), None);
        let path = persist(root.path(), &forward()).unwrap();
        assert!(is_persisted(root.path()));
        assert_eq!(unpersist(root.path()).unwrap(), Some(path.clone()));
        assert!(!path.exists());
        write(root.path(), "etc/sysctl.d/99-netcore.conf", "net.ipv4.ip_forward=0\n");
        unpersist(root.path()).unwrap_err();
        assert!(path.exists());
    }

    #[test]
    fn a_star_stands_for_one_part_of_a_name() {
        assert!(glob("net/ipv4/conf/*/forwarding", "net/ipv4/conf/eth0.1/forwarding"));
        assert!(glob("net/ipv4/conf/e*0/*", "net/ipv4/conf/eth0/forwarding"));
        assert!(!glob("net/*/forwarding", "net/ipv4/conf/eth0/forwarding") && !glob("net/*", "kernel/panic"));
    }

    #[test]
    fn a_file_that_another_one_replaces_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "usr/lib/sysctl.d/99-z.conf", "net.ipv4.ip_forward=0");
        write(root.path(), "etc/sysctl.d/99-z.conf", "net.ipv4.ip_forward=1");
        persist(root.path(), &forward()).unwrap();
    }
}
