//! Settings under `/proc/sys`. Those below `net` are the namespace's of the thread that opens
//! them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::linux::Linux;
use crate::error::{Error, Result};
use crate::model::{Object, Place, Sysctl};

const ROOT: &str = "/proc/sys";

/// What is there of `wanted`. A setting the kernel does not have is not there.
pub(super) fn observe(kernel: &Linux, wanted: &[&Sysctl]) -> Result<Vec<Object>> {
    let (host, sandbox): (Vec<&Sysctl>, Vec<&Sysctl>) = wanted.iter().partition(|setting| setting.place == Place::Host);
    let mut seen = read_all(&host)?;
    if let Some(netns) = kernel.sandbox()
        && !sandbox.is_empty()
    {
        seen.extend(netns.visit(|| read_all(&sandbox))??);
    }
    Ok(seen)
}

/// Gives the setting its value.
pub(super) fn write(kernel: &Linux, setting: &Sysctl) -> Result<()> {
    let write = || fs::write(path(setting), &setting.value);
    let outcome = match setting.place {
        Place::Host => write(),
        Place::Sandbox => kernel.required_sandbox()?.visit(write)?,
    };
    outcome.map_err(failed("write", setting))
}

fn read_all(wanted: &[&Sysctl]) -> Result<Vec<Object>> {
    wanted.iter().filter_map(|setting| read(setting).transpose()).collect()
}

fn read(setting: &Sysctl) -> Result<Option<Object>> {
    match fs::read_to_string(path(setting)) {
        Ok(value) => {
            // Lists are written with spaces and read back with tabs.
            let same = value.split_whitespace().eq(setting.value.split_whitespace());
            let value = if same { setting.value.clone() } else { value.trim_end().to_owned() };
            Ok(Some(Object::Sysctl(Sysctl { value, ..setting.clone() })))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", setting)(error)),
    }
}

fn path(setting: &Sysctl) -> PathBuf {
    Path::new(ROOT).join(&setting.name)
}

fn failed(operation: &'static str, setting: &Sysctl) -> impl FnOnce(io::Error) -> Error {
    let object = Object::Sysctl(setting.clone()).to_string();
    move |source| Error::Kernel { operation, object, source, detail: None }
}
