//! Links the plugins with as few shared libraries as the machine allows. A plugin lives for two
//! milliseconds, and each library costs the dynamic loader a tenth of one: libnftnl is linked in
//! where its archive is installed, and so is the unwinder (of libgcc_s), which a program that
//! aborts on panic never calls.
//!
//! The linker finds both in a directory of ours before it looks where the system keeps them. What
//! is not there is linked as usual.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(ours) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    if let Some(archive) = archive("libnftnl.a") {
        let link = ours.join("libnftnl.a");
        let _ = fs::remove_file(&link);
        if std::os::unix::fs::symlink(archive, link).is_ok() {
            // An archive does not say what it stands on.
            println!("cargo:rustc-link-lib=mnl");
        }
    }
    if archive("libgcc_eh.a").is_some() {
        // A linker script: what asks for the shared libgcc_s gets the archive.
        let _ = fs::write(ours.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n");
    }
    println!("cargo:rustc-link-search=native={}", ours.display());
}

/// Where the C compiler would find the archive `name`.
fn archive(name: &str) -> Option<PathBuf> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let answer = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    // What it does not find it repeats as it was asked.
    (path.is_absolute() && Path::exists(&path)).then_some(path)
}
