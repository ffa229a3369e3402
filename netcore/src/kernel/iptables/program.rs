//! Running iptables: finding the programs, what they print, what they refuse.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::listing::Listing;
use crate::error::{Error, Result};
use crate::model::{Variant, program};
use crate::state_file;

/// Where programs of the system are, beside what `PATH` says: runtimes call plugins with less.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// How long iptables waits for another one, in seconds.
const PATIENCE: u32 = 60;

/// Held while we look at tables and change them, so that two of us do not make the same change.
/// It is nobody else's: what others change is safe by iptables' own lock, which it waits for.
const LOCK: &str = "/run/netcore.iptables.lock";

/// One iptables, for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Program {
    pub(super) variant: Variant,
    pub(super) v6: bool,
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        program(self.variant, self.v6)
    }

    /// Whether it is installed.
    pub(super) fn is_installed(self) -> bool {
        self.find("save").is_ok()
    }

    /// What is in its tables. Nothing is changed by looking, and no table made.
    pub(super) fn list(self) -> Result<Listing> {
        let mut command = Command::new(self.find("save")?);
        let output = command.stdin(Stdio::null()).output();
        let printed = self.outcome("read", output)?;
        Ok(Listing::parse(&String::from_utf8_lossy(&printed)))
    }

    /// Carries out `script`, each of its tables as one transaction, and leaves everything else as
    /// it is.
    pub(super) fn restore(self, script: &str) -> Result<()> {
        let mut command = Command::new(self.find("restore")?);
        command.arg("--noflush").arg(format!("--wait={PATIENCE}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut run = || {
            let mut child = command.spawn()?;
            let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
            // One that has ended before it read everything says why itself.
            let output = child.wait_with_output()?;
            if output.status.success() { written.map(|()| output) } else { Ok(output) }
        };
        let output = run();
        self.outcome("change", output).map(drop)
    }

    fn outcome(self, operation: &'static str, output: io::Result<Output>) -> Result<Vec<u8>> {
        let object = format!("{}'s tables", self.name());
        let refused = |source| Error::Kernel { operation, object, source, detail: None };
        match output {
            Ok(output) if output.status.success() => Ok(output.stdout),
            Ok(output) => Err(refused(io::Error::other(complaint(&output)))),
            Err(error) => Err(refused(error)),
        }
    }

    /// The file of `iptables-nft-save` and its like; plain `iptables-save` if it is that variant.
    fn find(self, verb: &str) -> Result<PathBuf> {
        let family = if self.v6 { "ip6tables" } else { "iptables" };
        let name = format!("{family}-{}-{verb}", self.variant);
        let plain = || installed(&format!("{family}-{verb}")).filter(|path| variant_of(path) == Some(self.variant));
        installed(&name).or_else(plain).ok_or_else(|| Error::Conflict {
            object: self.name().to_owned(),
            found: format!("there is no program {name} on this host"),
            way_out: "install iptables, or have the firewall be nftables (\"firewallBackend\": \"nftables\")"
                .to_owned(),
        })
    }
}

/// Which iptables a host uses: the one that `iptables` is, or whichever is there.
pub(super) fn variant_of_host() -> Option<Variant> {
    let named = installed("iptables").and_then(|path| variant_of(&path));
    named.or_else(|| Variant::ALL.into_iter().find(|variant| Program { variant: *variant, v6: false }.is_installed()))
}

/// Waits for the right to look at tables and then change them.
pub(super) fn lock() -> Result<File> {
    let lock = state_file::create(LOCK.as_ref()).and_then(|file| file.lock().map(|()| file));
    lock.map_err(Error::file("lock", LOCK))
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Which variant a program is: by the file that all programs of one are links to, or else by what
/// it says of itself.
fn variant_of(program: &Path) -> Option<Variant> {
    let file = program.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?;
    if let Some(variant) = Variant::ALL.into_iter().find(|variant| name.contains(variant.as_str())) {
        return Some(variant);
    }
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    // Before 1.8 there was only one.
    Some(if String::from_utf8_lossy(&said.stdout).contains("nf_tables") { Variant::Nft } else { Variant::Legacy })
}

/// What a program said when it failed, on one line.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    let words = lines.collect::<Vec<_>>().join(" ");
    if words.is_empty() { output.status.to_string() } else { words }
}
