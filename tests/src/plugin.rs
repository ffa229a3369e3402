//! A plugin as a runtime calls it, and the error it answers with.

use std::fmt;
use std::io::Write;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;

use serde_json::Value;

use crate::host::{PATH, PLUGIN_DIRECTORY};
use crate::{Host, binaries};

/// A plugin about to be called.
#[derive(Clone)]
pub struct Plugin {
    host: Host,
    program: String,
    environment: Vec<(String, String)>,
    stdin: Vec<u8>,
}

impl Plugin {
    pub(crate) fn new(host: Host, name: &str) -> Self {
        let reference = binaries::reference().map(|directory| directory.display().to_string());
        let path = [Some(PLUGIN_DIRECTORY.to_owned()), reference].into_iter().flatten().collect::<Vec<_>>();
        let ours = binaries::PLUGINS.iter().any(|(ours, _)| *ours == name);
        let directory = if ours { PLUGIN_DIRECTORY } else { path.last().expect("never empty") };
        let environment = vec![("CNI_PATH".to_owned(), path.join(":")), ("PATH".to_owned(), PATH.to_owned())];
        Self { host, program: format!("{directory}/{name}"), environment, stdin: Vec::new() }
    }

    /// The plugin's type, which is the name of its program.
    #[must_use]
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or_default()
    }

    /// Another program in its place.
    #[must_use]
    pub fn program(mut self, path: &str) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// With `name` set to `value`, instead of what it was.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self = self.env_remove(name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without `name`.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.environment.retain(|(key, _)| key != name);
        self
    }

    /// With `stdin` as the configuration.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Calls it, and gives back what it printed: `null` for nothing.
    ///
    /// # Errors
    /// When it exits with an error.
    pub fn run(&self, verb: &str) -> Result<Value, Failure> {
        self.outcome(verb, &self.call(verb))
    }

    /// Calls it, and gives back all it said.
    ///
    /// # Panics
    /// When it cannot be called.
    #[must_use]
    pub fn call(&self, verb: &str) -> Output {
        let child = self.host.enter(|| self.command(verb).spawn());
        let mut child = child.unwrap_or_else(|error| panic!("start {}: {error}", self.program));
        let mut stdin = child.stdin.take().expect("piped");
        thread::scope(|scope| {
            // A plugin need not read what it is given; that is no error of ours.
            scope.spawn(move || drop(stdin.write_all(&self.stdin)));
            child.wait_with_output().expect("wait for a plugin")
        })
    }

    /// What a call of it that ended with `output` came to.
    ///
    /// # Errors
    /// When it exited with an error.
    pub fn outcome(&self, verb: &str, output: &Output) -> Result<Value, Failure> {
        Failure::or_result(&self.program, verb, output.status, &output.stdout, &output.stderr)
    }

    /// The command that calls it, with its pipes; for those who want to interfere. It must be
    /// spawned on the host.
    #[must_use]
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("CNI_COMMAND", verb).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The configuration it gets.
    #[must_use]
    pub fn configuration(&self) -> &[u8] {
        &self.stdin
    }
}

/// A plugin's error, as the specification has it on stdout.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The code.
    pub code: u64,
    /// The message.
    pub message: String,
    /// More; may be empty.
    pub details: String,
    /// The `cniVersion` it came in.
    pub version: String,
    call: Box<str>,
    stderr: Box<str>,
}

impl Failure {
    fn or_result(program: &str, verb: &str, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<Value, Self> {
        let call = format!("{verb} by {program}");
        let stdout = String::from_utf8_lossy(stdout);
        let stderr = String::from_utf8_lossy(stderr);
        let printed = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| {
                panic!("{call} printed something that is not JSON ({error}):\n{text}\n{stderr}")
            }),
        };
        if status.success() {
            return Ok(printed);
        }
        let text = |key: &str| printed[key].as_str().unwrap_or_default().to_owned();
        let code = printed["code"]
            .as_u64()
            .unwrap_or_else(|| panic!("{call} failed ({status}) without a code:\n{stdout}\n{stderr}"));
        Err(Self {
            code,
            message: text("msg"),
            details: text("details"),
            version: text("cniVersion"),
            call: call.into(),
            stderr: stderr.into(),
        })
    }

    /// Whether the message or the details say `text`.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        self.message.contains(text) || self.details.contains(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: code {}: {}", self.call, self.code, self.message)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        if self.stderr.is_empty() { Ok(()) } else { write!(f, "\n{}", self.stderr) }
    }
}
