//! Taking from the table what is ours.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;

use nftnl_sys::libc;

use super::element::{self, Element};
use super::ruleset::TABLE;
use super::socket::{ATTEMPTS, Messages, Outcome};
use super::sys::{ElementMessage, RawElement};
use super::{Nft, TABLE_NAME, tables};
use crate::error::{Error, Result};
use crate::model::{NatRule, Table};

/// What is to be removed, and whether connections may have been made by it.
struct Ours {
    going: Vec<Element>,
    used: bool,
}

/// What tells an element from every other: where it is, and its key.
fn identity(element: &Element) -> (Table, &'static CStr, RawElement) {
    (element.set.table, element.set.name, element.raw.only_key())
}

impl Nft {
    /// Removes `rules`, all or none, in one transaction. What is gone already is a success; an
    /// element that does not carry the rule's own mark is somebody else's and stays. If the rule
    /// set is among `rules`, the whole table goes, with all that is in it.
    ///
    /// Says whether connections may have been made by what was removed. One that was gone already
    /// cannot tell any more.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel refuses, [`Error::Busy`] when others kept changing the
    /// firewall.
    pub fn remove(&self, rules: &[&NatRule]) -> Result<bool> {
        let tables = tables(rules);
        if !tables.is_empty() {
            return tables.into_iter().try_for_each(|table| self.remove_table(table)).map(|()| true);
        }
        let mut once = HashSet::new();
        let mut wanted = Vec::new();
        for rule in rules {
            let element = Element::of(rule)?.filter(|element| once.insert(identity(element)));
            wanted.extend(element.map(|element| (element, element::claim(rule))));
        }
        for _ in 0..ATTEMPTS {
            // Whose an element is cannot be part of its removal, so nothing may change between
            // looking and removing.
            let generation = self.generation()?;
            let mut changes = Messages::new();
            let Ours { going, used } = self.ours(&wanted)?;
            for element in going {
                changes.add(libc::NFT_MSG_DELSETELEM, 0, &ElementMessage::new(element.set, &element.raw.only_key()));
            }
            if changes.is_empty() {
                return Ok(used);
            }
            match self.socket.commit(&mut changes, Some(generation))? {
                Outcome::Done => return Ok(used),
                Outcome::Outdated => {}
                Outcome::Refused(refused) => {
                    let refused = refused.into_iter().next();
                    return Err(refused.map_or_else(super::garbled, |(_, why)| why.into_error("remove", TABLE_NAME)));
                }
            }
        }
        Err(Error::Busy { object: TABLE_NAME.to_owned(), attempts: ATTEMPTS })
    }

    /// Those of `wanted` that are there and ours, and the claims that nobody else stands on.
    fn ours(&self, wanted: &[(Element, Option<Element>)]) -> Result<Ours> {
        let elements: Vec<_> = wanted.iter().map(|(element, _)| element).collect();
        let seen = self.look_up(&elements)?;

        let (mut going, mut claims, mut used) = (Vec::new(), Vec::new(), false);
        for ((element, claim), seen) in wanted.iter().zip(&seen) {
            match seen {
                Some(seen) if seen.mark() != element.mark() => continue,
                Some(seen) => {
                    used |= seen.packets != 0;
                    going.push(element.clone());
                }
                None => used = true,
            }
            claims.extend(claim.as_ref().map(|claim| (element.set, claim)));
        }
        let claim_elements: Vec<_> = claims.iter().map(|(_, claim)| *claim).collect();
        let seen_claims = self.look_up(&claim_elements)?;
        // There may be as many as there are ports.
        let mut known: HashSet<_> = going.iter().map(identity).collect();
        let mut publishers: HashMap<&CStr, Vec<Element>> = HashMap::new();
        for ((set, claim), seen) in claims.into_iter().zip(seen_claims) {
            if seen.is_none_or(|seen| seen.raw.data != claim.raw.data) || known.contains(&identity(claim)) {
                continue;
            }
            // A port on every address has one publisher, which is going. Single addresses have one each.
            let others = match publishers.entry(set.name) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) if element::is_publish_at(set) => unknown.insert(self.list(set)?),
                Entry::Vacant(unknown) => unknown.insert(Vec::new()),
            };
            let stays = |other: &Element| !known.contains(&identity(other));
            if !others.iter().any(|other| other.raw.key.ends_with(&claim.raw.key) && stays(other)) {
                known.insert(identity(claim));
                going.push(claim.clone());
            }
        }
        Ok(Ours { going, used })
    }

    fn remove_table(&self, table: Table) -> Result<()> {
        let mut changes = Messages::new();
        changes.add(libc::NFT_MSG_DELTABLE, 0, &nftnl::Table::new(TABLE, table.family()));
        match self.socket.commit(&mut changes, None)? {
            Outcome::Refused(refused) => match refused.into_iter().next() {
                Some((_, why)) if !why.is(libc::ENOENT) => Err(why.into_error("remove", TABLE_NAME)),
                _ => Ok(()),
            },
            Outcome::Done | Outcome::Outdated => Ok(()),
        }
    }
}
