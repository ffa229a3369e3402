//! The operator's tool on a host.

use std::process::Output;

use serde_json::Value;

use crate::{Host, binaries};

/// What a call of `netctl` led to.
pub struct Told {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub text: String,
    /// What it complained about.
    pub complaint: String,
}

impl Told {
    /// Fails unless it ended with `code`.
    ///
    /// # Panics
    /// Then, with what it said.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.text, self.complaint);
        self
    }

    /// Whether it printed all of `words` on one line.
    #[must_use]
    pub fn says(&self, words: &[&str]) -> bool {
        self.text.lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// Calls `netctl` with `arguments` on `host`.
#[must_use]
pub fn netctl(host: &Host, arguments: &str) -> Told {
    let program = binaries::under_test().join("netctl");
    let Output { status, stdout, stderr } = host.try_run(&format!("{} {arguments}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Told { code: status.code().unwrap_or(-1), text: text(&stdout), complaint: text(&stderr) }
}
