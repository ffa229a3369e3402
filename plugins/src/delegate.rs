//! Address management by another plugin: an executable in `CNI_PATH` that gets the configuration
//! as we got it, and speaks the same protocol (CNI spec 1.1.0, "Section 4: Plugin Delegation").

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use netcore::ipam::{Ipam, Request};
use netcore::model::{Attachment, AttachmentId, Lease, LeasedAddress, Name};
use netcore::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::decode::{drop_nulls, shown};
use crate::failure::{ENVIRONMENT, INTERNAL, UNDECODABLE};
use crate::result::Success;
use crate::versions::Version;

/// The most we read of an answer.
const LIMIT: u64 = 1 << 20;

/// An IPAM plugin that is run, not linked.
#[derive(Clone, Debug)]
pub(crate) struct Delegate {
    /// Its name, without a directory.
    pub(crate) plugin: String,
    /// `CNI_PATH`.
    pub(crate) path: String,
    /// The configuration, to the byte.
    pub(crate) configuration: Vec<u8>,
    /// The configuration's version.
    pub(crate) version: Version,
}

impl Ipam for Delegate {
    /// ADD. When it fails, the plugin is told to forget what it may have done (CNI spec 1.1.0,
    /// "Delegated plugin execution procedure").
    fn allocate(&self, request: &Request<'_>) -> Result<Lease> {
        let lease = self.run("ADD", Some(request.attachment)).and_then(|answer| self.lease(&answer));
        if lease.is_err() {
            // The first error is the one to tell.
            let _ = self.run("DEL", Some(request.attachment));
        }
        lease
    }

    fn preview(&self, _: &Request<'_>) -> Result<Option<Lease>> {
        Ok(None)
    }

    fn release(&self, request: &Request<'_>) -> Result<()> {
        self.run("DEL", Some(request.attachment)).map(drop)
    }

    fn check(&self, request: &Request<'_>) -> Result<()> {
        self.run("CHECK", Some(request.attachment)).map(drop)
    }

    fn status(&self, _network: &Name) -> Result<()> {
        self.run("STATUS", None).map(drop)
    }

    /// GC: the survivors are in the configuration.
    fn gc(&self, _network: &Name, _valid: &[AttachmentId]) -> Result<()> {
        self.run("GC", None).map(drop)
    }
}

impl Delegate {
    fn lease(&self, answer: &[u8]) -> Result<Lease> {
        let mut value: Value = serde_json::from_slice(answer)
            .map_err(|error| self.failed(UNDECODABLE, format!("its answer is not JSON: {error}"), excerpt(answer)))?;
        drop_nulls(&mut value);
        let success = Success::parse("result", &value, self.version)
            .map_err(|failure| self.failed(failure.code, failure.msg, excerpt(answer)))?;
        if success.ips.is_empty() {
            return Err(self.failed(INTERNAL, "it gave no address".to_owned(), excerpt(answer)));
        }
        let addresses = success.ips.into_iter();
        Ok(Lease {
            addresses: addresses.map(|ip| LeasedAddress { address: ip.address, gateway: ip.gateway }).collect(),
            routes: success.routes,
            dns: success.dns,
            namespace: None,
        })
    }

    /// Runs the plugin to its end, and returns what it wrote to stdout.
    fn run(&self, verb: &str, attachment: Option<&Attachment>) -> Result<Vec<u8>> {
        let executable = self.find()?;
        let mut command = Command::new(&executable);
        command.env("CNI_COMMAND", verb).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(attachment) = attachment {
            let netns = attachment.netns.as_deref().unwrap_or(std::path::Path::new(""));
            command
                .env("CNI_CONTAINERID", attachment.id.container.as_str())
                .env("CNI_IFNAME", attachment.id.interface.as_str())
                .env("CNI_NETNS", netns);
        }
        let file_error = |operation| {
            let path = executable.clone();
            move |source| Error::File { operation, path, source }
        };
        let mut child = command.spawn().map_err(file_error("execute"))?;
        let answer = self.converse(&mut child).map_err(file_error("talk to"));
        let status = child.wait().map_err(file_error("wait for"))?;
        let answer = answer?;
        if status.success() { Ok(answer) } else { Err(self.refusal(&answer, status)) }
    }

    /// Writes the configuration and reads the answer, each at its own pace: either may be larger
    /// than a pipe.
    fn converse(&self, child: &mut Child) -> std::io::Result<Vec<u8>> {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        std::thread::scope(|scope| {
            let writer = stdin.map(|mut stdin| scope.spawn(move || stdin.write_all(&self.configuration)));
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(LIMIT).read_to_end(&mut answer)?;
            }
            match writer.map(|writer| writer.join()) {
                // A plugin need not read what it does not need.
                Some(Ok(Err(error))) if error.kind() != ErrorKind::BrokenPipe => Err(error),
                _ => Ok(answer),
            }
        })
    }

    /// The plugin's own words, if it has any.
    fn refusal(&self, answer: &[u8], status: ExitStatus) -> Error {
        #[derive(Deserialize)]
        struct Refusal {
            code: u32,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }

        match serde_json::from_slice(answer) {
            Ok(Refusal { code, msg, details }) => self.failed(code, msg, details),
            Err(_) => self.failed(INTERNAL, format!("{status}, without a CNI error"), excerpt(answer)),
        }
    }

    /// The plugin's executable.
    ///
    /// # Errors
    /// [`Error::Delegate`] of code 4 when it is in none of the directories of `CNI_PATH`.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let directories = self.path.split(':').filter(|directory| !directory.is_empty());
        directories.map(|directory| PathBuf::from(directory).join(&self.plugin)).find(|file| file.is_file()).ok_or_else(
            || {
                let message = format!("no such executable in CNI_PATH ({})", self.path);
                self.failed(ENVIRONMENT, message, String::new())
            },
        )
    }

    fn failed(&self, code: u32, message: String, details: String) -> Error {
        Error::Delegate { plugin: self.plugin.clone(), code, message, details }
    }
}

fn excerpt(answer: &[u8]) -> String {
    if answer.is_empty() { String::new() } else { shown(&Value::String(String::from_utf8_lossy(answer).into_owned())) }
}

#[cfg(test)]
mod tests;
