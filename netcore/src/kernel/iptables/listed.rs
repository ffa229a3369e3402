//! What the programs have printed, for as long as it holds. What iptables-nft has is nf_tables', whose
//! generation number tells whether anybody has changed anything since; of iptables-legacy nothing tells, so
//! that is read each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::listing::Listing;
use super::program::Program;
use crate::error::Result;
use crate::model::Variant;

/// Listings of iptables-nft, and the generation of the rule set that each is of.
#[derive(Debug, Default)]
pub(in crate::kernel) struct Listed(Mutex<BTreeMap<Program, (u32, Arc<Listing>)>>);

/// Lists tables, unless they are known.
#[derive(Clone, Copy)]
pub(in crate::kernel) struct Lister<'a> {
    known: &'a Listed,
    /// The present generation of nf_tables' rule set; `None` if the kernel does not say.
    generation: &'a dyn Fn() -> Option<u32>,
}

impl<'a> Lister<'a> {
    pub(in crate::kernel) fn new(known: &'a Listed, generation: &'a dyn Fn() -> Option<u32>) -> Self {
        Self { known, generation }
    }

    /// What is in the tables of `program`.
    pub(super) fn list(self, program: Program) -> Result<Arc<Listing>> {
        self.known_or(program, || program.list())
    }

    fn known_or(self, program: Program, read: impl FnOnce() -> Result<Listing>) -> Result<Arc<Listing>> {
        let now = if program.variant == Variant::Nft { (self.generation)() } else { None };
        let mut known = self.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&program) {
            Some((then, listing)) if Some(*then) == now => return Ok(Arc::clone(listing)),
            _ => {}
        }
        let listing = Arc::new(read()?);
        // Somebody may have changed it while it was read.
        if let Some(now) = now.filter(|now| (self.generation)() == Some(*now)) {
            known.insert(program, (now, Arc::clone(&listing)));
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn tables_are_read_again_when_somebody_may_have_changed_them() {
        let (known, now, reads) = (Listed::default(), Cell::new(Some(1)), Cell::new(0));
        let generation = || now.get();
        let lister = Lister::new(&known, &generation);
        let look = |variant, meanwhile: fn(u32) -> u32| {
            let read = || {
                reads.set(reads.get() + 1);
                now.set(now.get().map(meanwhile));
                Ok(Listing::default())
            };
            lister.known_or(Program { variant, v6: false }, read).unwrap();
            reads.take()
        };
        assert_eq!([look(Variant::Nft, |now| now), look(Variant::Nft, |now| now)], [1, 0]);
        now.set(Some(2));
        assert_eq!([look(Variant::Nft, |now| now), look(Variant::Nft, |now| now)], [1, 0]);
        // While they are read.
        now.set(Some(3));
        assert_eq!(
            [look(Variant::Nft, |now| now + 1), look(Variant::Nft, |now| now), look(Variant::Nft, |now| now)],
            [1, 1, 0]
        );
        // Of these nothing is heard; and without nf_tables, of nothing.
        assert_eq!([look(Variant::Legacy, |now| now), look(Variant::Legacy, |now| now)], [1, 1]);
        now.set(None);
        assert_eq!([look(Variant::Nft, |now| now), look(Variant::Nft, |now| now)], [1, 1]);
    }
}
