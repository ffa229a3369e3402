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
    /// Why all of the firewall has to be looked at.
    firewall: BTreeSet<String>,
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

/// How much has to be looked at for losses to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What belongs to those whose [marks](Losses::marks) and [ports](Losses::ports) are known.
    OfSomebody,
    /// All of the firewall.
    Firewall,
    /// The host's addresses, and what may go with them unheard: not every kernel tells of routes that were
    /// from an address.
    Addresses,
    /// All there is.
    Everything,
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
        self.reasons().next().is_none() && self.marks.is_empty() && self.ports.is_empty()
    }

    /// How much has to be looked at. Links that go are heard of by themselves.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let of_somebody = !self.marks.is_empty() || !self.ports.is_empty();
        match (self.firewall.is_empty(), self.bared.is_empty()) {
            _ if !self.reasons.is_empty() => Scope::Everything,
            (true, true) => Scope::OfSomebody,
            (false, true) if !of_somebody => Scope::Firewall,
            (true, false) if !of_somebody => Scope::Addresses,
            _ => Scope::Everything,
        }
    }

    /// Has everything looked at, because of `reason`.
    pub fn everything(&mut self, reason: impl Into<String>) {
        self.reasons.insert(reason.into());
    }

    /// Has all of the firewall looked at, because of `reason`.
    pub(super) fn of_firewall(&mut self, reason: impl Into<String>) {
        self.firewall.insert(reason.into());
    }

    /// Forwarding was switched on everywhere, also where it was off.
    pub(super) fn thrown(&mut self) {
        self.thrown = true;
        self.everything("forwarding was switched on everywhere");
    }

    /// Whether forwarding was switched on for all interfaces, and so for those where it was off: here, or in what was
    /// heard `later`, which leaves that to this.
    pub fn threw_all(&mut self, later: &mut Self) -> bool {
        self.thrown |= std::mem::take(&mut later.thrown);
        self.thrown
    }

    /// Whether everything has to be looked at, or all of the firewall, and why.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        let bared = if self.bared.is_empty() { None } else { Some("an address was removed") };
        self.reasons.iter().chain(&self.firewall).map(String::as_str).chain(bared)
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
        self.firewall.extend(other.firewall);
        self.marks.extend(other.marks);
        self.ports.extend(other.ports);
        self.bared.extend(other.bared);
        self.thrown |= other.thrown;
        self.culprit = other.culprit.or(self.culprit.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_more_than_the_firewall_is_not_its_alone() {
        let mut rules = Losses::default();
        assert!(rules.is_empty() && rules.scope() == Scope::OfSomebody);
        rules.of_firewall("rules were changed");
        assert!(!rules.is_empty() && rules.scope() == Scope::Firewall);
        assert_eq!(rules.reasons().collect::<Vec<_>>(), ["rules were changed"]);
        let more: [fn(&mut Losses); 5] = [
            |losses| losses.everything("a route went"),
            |losses| losses.lost(Mark::of_host()),
            |losses| losses.unplugged(7, "veth7".to_owned()),
            |losses| losses.bared(7),
            Losses::thrown,
        ];
        for add in more {
            let (mut before, mut after) = (rules.clone(), Losses::default());
            add(&mut after);
            before.merge(after.clone());
            after.merge(rules.clone());
            assert_eq!((before.scope(), after.scope()), (Scope::Everything, Scope::Everything), "{before:?}");
            assert!(after.reasons().any(|reason| reason == "rules were changed"));
        }
        // Heard again, for itself.
        let mut again = Losses::default();
        again.of_firewall("an element was removed");
        rules.merge(again);
        assert_eq!(rules.scope(), Scope::Firewall);
    }

    #[test]
    fn an_address_that_goes_concerns_addresses_unless_its_link_goes_too() {
        let mut bared = Losses::default();
        bared.bared(7);
        assert_eq!(bared.scope(), Scope::Addresses);
        let mut with_port = bared.clone();
        with_port.unplugged(8, "veth8".to_owned());
        assert_eq!(with_port.scope(), Scope::Everything);
        with_port.gone(7);
        assert_eq!(with_port.scope(), Scope::OfSomebody);
        bared.gone(7);
        assert!(bared.is_empty());
    }
}
