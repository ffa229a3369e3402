//! What may be lost, and to whom.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use crate::model::Mark;

/// What others may have taken away or changed, as far as what was heard of it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Why everything has to be looked at; only what is named below if there is no reason.
    reasons: BTreeSet<String>,
    /// Whose something was.
    marks: BTreeSet<Mark>,
    /// Ports that have left their bridge, by name, with their indices.
    ports: HashMap<u32, String>,
    /// Links, by index, that have lost an address.
    bared: BTreeSet<u32>,
    /// Links, by index, that have gone.
    gone: BTreeSet<u32>,
    /// Whether forwarding was switched on for all interfaces.
    thrown: bool,
    /// Who changed the rule set last.
    culprit: Option<Culprit>,
}

/// The process that changed the rule set, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// Its id, as seen from the first process namespace.
    pub pid: u32,
    /// Its command (`comm`).
    pub name: String,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl Losses {
    /// Whether nothing was heard that may matter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.marks.is_empty() && self.ports.is_empty() && self.bared.is_empty()
    }

    /// Has everything looked at, because of `reason`.
    pub fn everything(&mut self, reason: impl Into<String>) {
        self.reasons.insert(reason.into());
    }

    /// Forwarding was switched on everywhere, also where it was off.
    pub(super) fn thrown(&mut self) {
        self.thrown = true;
        self.everything("forwarding was switched on everywhere");
    }

    /// Whether forwarding was switched on for all interfaces, and so for those where it was off.
    #[must_use]
    pub fn threw_all(&self) -> bool {
        self.thrown
    }

    /// Whether everything has to be looked at, and why.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        let bared = if self.bared.is_empty() { None } else { Some("an address was removed") };
        self.reasons.iter().map(String::as_str).chain(bared)
    }

    /// Whose something was, as far as it was marked.
    #[must_use]
    pub fn marks(&self) -> &BTreeSet<Mark> {
        &self.marks
    }

    /// The ports that have left their bridges.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.ports.values().map(String::as_str)
    }

    /// Who changed the rule set last, of those who took something away.
    #[must_use]
    pub fn culprit(&self) -> Option<&Culprit> {
        self.culprit.as_ref()
    }

    /// Whether something that was marked was lost.
    pub(super) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Something of `mark`'s was taken away.
    pub fn lost(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }

    /// A port has left its bridge; it may be about to go altogether.
    pub(super) fn unplugged(&mut self, index: u32, name: String) {
        self.ports.insert(index, name);
    }

    /// A link has lost an address; it may be about to go altogether.
    pub(super) fn bared(&mut self, index: u32) {
        self.bared.insert(index);
    }

    /// A link has gone, with all that was heard of it before.
    pub(super) fn gone(&mut self, index: u32) {
        self.ports.remove(&index);
        self.bared.remove(&index);
        self.gone.insert(index);
    }

    /// What was lost was lost to `culprit`.
    pub(super) fn to(&mut self, culprit: Culprit) {
        self.culprit = Some(culprit);
    }

    /// Adds `other`, which was heard later.
    pub fn merge(&mut self, other: Self) {
        other.gone.into_iter().for_each(|index| self.gone(index));
        self.reasons.extend(other.reasons);
        self.marks.extend(other.marks);
        self.ports.extend(other.ports);
        self.bared.extend(other.bared);
        self.thrown |= other.thrown;
        self.culprit = other.culprit.or(self.culprit.take());
    }
}
