//! What an operator copies to a node.

use std::fs;
use std::process::Command;

use netcore_tests::binaries;

const PLUGINS: [&str; 6] = ["bridge", "container", "host", "macvlan", "none", "overlay"];

/// The program header of the dynamic loader (`PT_INTERP`, elf(5)).
const INTERPRETER: u32 = 3;

#[test]
fn a_plugin_needs_no_library_of_its_node() {
    let asked = Command::new("cc").arg("-print-file-name=libnftnl.a").output().expect("run the C compiler");
    if !String::from_utf8_lossy(&asked.stdout).starts_with('/') {
        println!("skipped: libnftnl is not here as an archive");
        return;
    }
    if binaries::under_test().ends_with("debug") {
        println!("skipped: a debug build is not linked statically");
        return;
    }
    for plugin in PLUGINS {
        let path = binaries::under_test().join(plugin);
        let program = fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        assert!(!headers(&program).contains(&INTERPRETER), "{plugin} asks for a dynamic loader");
    }
}

/// The kinds of the program headers of a 64-bit ELF file.
fn headers(program: &[u8]) -> Vec<u32> {
    let number = |at: usize, bytes: usize| {
        program[at..at + bytes].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (first, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).map(|header| number(first + header * size, 4)).map(|kind| kind.try_into().expect("four bytes")).collect()
}
