//! Remembers between processes that the rule set was found intact, so that an attachment need not
//! read all of it again.
//!
//! The kernel numbers the generations of a namespace's rule set: every transaction of anybody's
//! makes a new one. What was intact at one generation is intact as long as that is the present
//! one, and after a transaction of ours that led from it to the very next. What another release
//! of ours found intact says nothing of our rule set, so each remembers which one it knows.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::model::fingerprint;
use crate::state_file;

/// Which rule set this is: that of the file the built-in one is held to by a test.
const RULE_SET: u64 = fingerprint(include_bytes!("../../tests/golden/ruleset.nft"));

/// The generation at which the rule set was last found intact, kept in a file.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// Where; nothing is remembered without.
    file: Option<PathBuf>,
    /// What this process has read or written there last: the namespace and the generation.
    last: Mutex<Option<(u64, u32)>>,
}

impl Verified {
    pub(super) fn in_file(file: PathBuf) -> Self {
        Self { file: Some(file), last: Mutex::default() }
    }

    /// Whether the rule set of the namespace of that cookie was intact at `generation`.
    pub(super) fn is_intact_at(&self, namespace: Option<u64>, generation: u32) -> bool {
        let (Some(file), Some(namespace)) = (&self.file, namespace) else { return false };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == Some((namespace, generation)) {
            return true;
        }
        let remembered =
            state_file::read(file).is_ok_and(|line| line == self::line(RULE_SET, namespace, generation).as_bytes());
        if remembered {
            *last = Some((namespace, generation));
        }
        remembered
    }

    /// Remembers that it is. Whoever cannot read this, or reads half of it, looks for itself.
    pub(super) fn found_intact_at(&self, namespace: Option<u64>, generation: u32) {
        if let (Some(file), Some(namespace)) = (&self.file, namespace) {
            let line = line(RULE_SET, namespace, generation);
            let _ = state_file::create(file).and_then(|mut file| file.write_all(line.as_bytes()));
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((namespace, generation));
        }
    }
}

fn line(rule_set: u64, namespace: u64, generation: u32) -> String {
    format!("{rule_set:016x} {namespace} {generation}\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_very_generation_of_the_very_namespace_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("verified");
        let verified = Verified::in_file(file.clone());
        assert!(!verified.is_intact_at(Some(7), 12));
        verified.found_intact_at(Some(7), 12);
        assert!(verified.is_intact_at(Some(7), 12));
        assert!(!verified.is_intact_at(Some(7), 13) && !verified.is_intact_at(Some(8), 12));
        assert!(!verified.is_intact_at(None, 12));
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, whole.strip_suffix("2\n").unwrap()).unwrap();
        // Another process, which knows only the file.
        let verified = Verified::in_file(file);
        assert!(!verified.is_intact_at(Some(7), 12) && !verified.is_intact_at(Some(7), 1));
        assert!(!Verified::default().is_intact_at(Some(7), 12));
    }

    #[test]
    fn what_another_release_found_intact_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("verified");
        let verified = Verified::in_file(file.clone());
        for theirs in [line(RULE_SET ^ 1, 7, 12), "7 12\n".to_owned()] {
            fs::write(&file, theirs).unwrap();
            assert!(!verified.is_intact_at(Some(7), 12));
        }
        fs::write(&file, line(RULE_SET, 7, 12)).unwrap();
        assert!(verified.is_intact_at(Some(7), 12));
        let of_another = include_bytes!("../../tests/golden/guard.nft");
        assert_ne!(RULE_SET, fingerprint(of_another));
    }
}
