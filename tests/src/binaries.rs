//! Where the programs under test are, and those they are compared with.

use std::env;
use std::path::{Path, PathBuf};

/// The plugins under test: every name they answer to, and the program.
pub(crate) const PLUGINS: &[(&str, &str)] = &[
    ("bridge", "bridge"),
    ("container", "container"),
    ("host", "host"),
    ("macvlan", "macvlan"),
    ("none", "none"),
    ("loopback", "none"),
    ("overlay", "overlay"),
];

/// The directory of the binaries under test: `NETCORE_BIN_DIR`, or the profile directory this
/// test was built into.
///
/// # Panics
/// When there is no `bridge` in it.
#[must_use]
pub fn under_test() -> PathBuf {
    let directory = env::var_os("NETCORE_BIN_DIR").map_or_else(profile_directory, PathBuf::from);
    let directory = std::path::absolute(&directory).unwrap_or(directory);
    assert!(
        directory.join("bridge").exists(),
        "there is no plugin in {}: run `make test`, or build the workspace and set NETCORE_BIN_DIR",
        directory.display()
    );
    directory
}

/// The directory of the reference plugins: `NETCORE_REFERENCE_DIR`, or where Debian and Fedora
/// put them. `None` when they are not installed.
#[must_use]
pub fn reference() -> Option<PathBuf> {
    let usual = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"].map(PathBuf::from);
    let candidates = env::var_os("NETCORE_REFERENCE_DIR").map(PathBuf::from).into_iter().chain(usual);
    candidates.into_iter().find(|directory| directory.join("host-local").exists())
}

/// Whether `program` can be run.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).any(|directory| directory.join(program).is_file())
}

/// `target/PROFILE`, from `target/PROFILE/deps/TEST` or `target/PROFILE/PROGRAM`.
fn profile_directory() -> PathBuf {
    let executable = env::current_exe().expect("the path of this program");
    let directory = executable.parent().expect("a program is in a directory");
    let above = |directory: &Path| directory.parent().map(Path::to_path_buf);
    if directory.ends_with("deps") { above(directory).unwrap_or_default() } else { directory.to_path_buf() }
}
