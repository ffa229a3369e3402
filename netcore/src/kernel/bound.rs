//! What firewalld was asked to remember: the interfaces that we have bound permanently, each with its
//! network's mark. A permanent binding outlives its bridge where firewalld does not run when that
//! goes, or the host restarts; and firewalld does not say who has made it.
//!
//! ```text
//! /var/lib/netcore/firewalld/INTERFACE   the mark of the network
//! ```

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::firewalld::Firewalld;
use super::linux::Linux;
use super::seen;
use crate::error::{Error, Result};
use crate::model::{InterfaceName, Mark, Object, Place, ZoneBinding};
use crate::state_file;

const DIRECTORY: &str = "/var/lib/netcore/firewalld";

fn path(link: &InterfaceName) -> PathBuf {
    Path::new(DIRECTORY).join(link.as_str())
}

/// Remembers that `link` is bound because of `mark`.
pub(super) fn remember(link: &InterfaceName, mark: &Mark) -> Result<()> {
    let path = path(link);
    // Whoever binds again, after a reload, may not be allowed to write here.
    if state_file::read(&path).is_ok_and(|text| text == mark.as_str().as_bytes()) {
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(DIRECTORY)?;
        state_file::create(&path)?.write_all(mark.as_str().as_bytes())
    };
    write().map_err(Error::file("write", &path))
}

/// Forgets it: it is not bound any more.
pub(super) fn forget(link: &InterfaceName) -> Result<()> {
    match fs::remove_file(path(link)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", path(link))(error)),
        _ => Ok(()),
    }
}

/// The bindings of interfaces that are gone, as far as firewalld has them. Without it, nobody knows.
pub(super) async fn left_behind(kernel: &Linux, firewalld: &Firewalld) -> Result<Vec<Object>> {
    let mut left = Vec::new();
    for (link, mark) in all()? {
        let there = seen::known(kernel, Place::Host, &link).await;
        if there.map_err(|refusal| refusal.error("read", format_args!("link {link}")))?.is_some() {
            continue;
        }
        match firewalld.has_bound(&link) {
            Some(true) => left.push(Object::Zone(ZoneBinding::of(link, mark))),
            // Somebody has taken it out.
            Some(false) => forget(&link)?,
            None => break,
        }
    }
    Ok(left)
}

/// Every interface that is remembered. What is not of our writing is left out.
fn all() -> Result<Vec<(InterfaceName, Mark)>> {
    let listing = match fs::read_dir(DIRECTORY) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", DIRECTORY)(error)),
    };
    let remembered = listing.flatten().filter_map(|entry| {
        let mark = String::from_utf8(state_file::read(&entry.path()).ok()?).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, Mark::parse(&mark)?))
    });
    Ok(remembered.collect())
}
