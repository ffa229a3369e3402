//! Finds the archives that a plugin is linked from: libnftnl and the unwinder (of libgcc_s), which a
//! program that aborts on panic never calls, are linked in wherever they are installed; with those
//! of the C library too, `plugins/link.rs` links a plugin statically.
//!
//! The linker finds what is written here before it looks where the system keeps its libraries. What
//! is not there is linked as usual.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The libraries of the C library that a Rust program asks for. Since glibc 2.34 all but the first
/// two are empty.
const C_LIBRARY: [&str; 6] = ["c", "m", "dl", "pthread", "rt", "util"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(static_nftnl)");
    let Some(ours) = env::var_os("OUT_DIR").map(PathBuf::from) else { return Ok(()) };
    println!("cargo:rustc-link-search=native={}", ours.display());
    let unwinder = archive("gcc_eh");
    if unwinder.is_some() {
        // A linker script: what asks for the shared libgcc_s gets the archive.
        fs::write(ours.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
    }
    let Some(nftnl) = archive("nftnl") else { return Ok(()) };
    fs::write(ours.join("libnftnl.so"), format!("INPUT({})\n", nftnl.display()))?;
    // What it stands on is `mnl.rs`, but for what a plugin does not call.
    println!("cargo:rustc-cfg=static_nftnl");
    println!("cargo:rustc-link-lib=mnl");
    let c: Option<Vec<PathBuf>> = C_LIBRARY.into_iter().map(archive).collect();
    if let (Some(c), Some(_)) = (c, unwinder) {
        let archives = ours.join("archives");
        fs::create_dir_all(&archives)?;
        for (name, path) in C_LIBRARY.iter().zip(c) {
            fs::write(archives.join(format!("lib{name}.so")), format!("INPUT({})\n", path.display()))?;
        }
        fs::write(archives.join("libmnl.so"), "INPUT()\n")?;
        println!("cargo:archives={}", archives.display());
    }
    Ok(())
}

/// Where the C compiler would find the archive of the library `name`.
fn archive(name: &str) -> Option<PathBuf> {
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let answer = Command::new(compiler).arg(format!("-print-file-name=lib{name}.a")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    // What it does not find it repeats as it was asked.
    (path.is_absolute() && Path::exists(&path)).then_some(path)
}
