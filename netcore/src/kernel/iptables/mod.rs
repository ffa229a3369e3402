//! iptables, both of them: as the backend where it is asked for or the kernel has no nf_tables, and
//! where somebody's `FORWARD` drops what nobody lets pass.
//!
//! What there is is read with `iptables-save` (`listing`), what there should be is drafted against
//! it (`draft`, with our `chains` and what the drivers' `rules` are in iptables' words), and the
//! difference goes to `iptables-restore --noflush` as one script (`program`). Rules carry their
//! owner's mark as a comment. The kernel refuses nothing here by itself, so looking and changing are
//! done under a lock of our own. No program is run where the kernel has none of the tables (`tables`).

mod chains;
mod draft;
mod forward;
mod listed;
mod listing;
mod program;
mod rule;
mod rules;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Admission, Iptables, Name, NatRule, Object, Variant};

use chains::{CHAINS, TABLES};
use draft::Draft;
use listing::Listing;
use program::{Program, variant_of_host};

pub(super) use listed::{Listed, Lister};
pub(super) use tables::{Tables, legacy_may_close_forward};

/// How often a change is drafted, while others change the same tables.
const ATTEMPTS: u32 = 8;

/// Tables that were read, each once.
struct Listings<'a>(BTreeMap<Program, Arc<Listing>>, Lister<'a>);

impl Listings<'_> {
    fn of(&mut self, program: Program) -> Result<&Listing> {
        match self.0.entry(program) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => Ok(unknown.insert(self.1.list(program)?)),
        }
    }
}

impl Iptables {
    fn run_by(&self) -> Program {
        Program { variant: self.variant, v6: self.v6 }
    }
}

/// Which of `rules` are there, and what they look like; and which of `admissions` are given, or not
/// needed.
pub(super) fn observe(
    rules: &[&Iptables],
    admissions: &[&Admission],
    tables: &Tables,
    lister: Lister<'_>,
) -> Result<Vec<Object>> {
    let mut listings = Listings(BTreeMap::new(), lister);
    let mut seen = Vec::new();
    for wanted in rules {
        let listing = readable(wanted.run_by(), listings.of(wanted.run_by())?)?;
        let found = rules::seen(listing, &wanted.rule, wanted.v6)?;
        seen.extend(found.map(|rule| Object::Iptables(Iptables { rule, variant: wanted.variant, v6: wanted.v6 })));
    }
    for admission in admissions {
        let mut kept_out = false;
        for program in tables.with_forward(admission.v6) {
            kept_out |= match listings.of(program) {
                Ok(listing) => forward::is_kept_out(listing, admission),
                // What the kernel says without it is the policy.
                Err(_) if !program.is_installed() => tables.drops(program),
                Err(error) => return Err(error),
            };
        }
        if !kept_out {
            seen.push(Object::Admission((*admission).clone()));
        }
    }
    Ok(seen)
}

/// Makes `rules`, and gives `admissions` where they are needed.
pub(super) fn create(
    rules: &[&Iptables],
    admissions: &[&Admission],
    tables: &Tables,
    lister: Lister<'_>,
) -> Result<()> {
    let mut work: BTreeMap<Program, (Vec<&NatRule>, Vec<&Admission>)> = BTreeMap::new();
    for wanted in rules {
        work.entry(wanted.run_by()).or_default().0.push(&wanted.rule);
    }
    for admission in admissions {
        for program in tables.with_forward(admission.v6) {
            work.entry(program).or_default().1.push(admission);
        }
    }
    for (program, (rules, admissions)) in work {
        change(program, lister, |listing, draft| {
            if !rules.is_empty() {
                readable(program, listing)?;
            }
            rules.iter().try_for_each(|rule| make(draft, rule, program.v6))?;
            let needed = admissions.iter().filter(|admission| forward::is_kept_out(listing, admission));
            needed.for_each(|admission| forward::admit(draft, admission));
            Ok(())
        })?;
    }
    Ok(())
}

/// Removes those of `rules` that carry their own mark, and takes back `admissions`.
pub(super) fn remove(
    rules: &[&Iptables],
    admissions: &[&Admission],
    tables: &Tables,
    lister: Lister<'_>,
) -> Result<()> {
    let mut work: BTreeMap<Program, (Vec<&NatRule>, Vec<&Admission>)> = BTreeMap::new();
    for unwanted in rules {
        work.entry(unwanted.run_by()).or_default().0.push(&unwanted.rule);
    }
    for admission in admissions {
        // Without the program there is nothing that it has made.
        for program in tables.with_our_forward(admission.v6).filter(|program| program.is_installed()) {
            work.entry(program).or_default().1.push(admission);
        }
    }
    let mut errors = Vec::new();
    for (program, (rules, admissions)) in work {
        let outcome = change(program, lister, |listing, draft| {
            for rule in &rules {
                for (chain, rule) in rules::of(rule, program.v6)? {
                    draft.take(chain, &rule);
                }
            }
            admissions.iter().for_each(|admission| forward::withdraw(listing, draft, admission));
            Ok(())
        });
        errors.extend(outcome.err());
    }
    Error::from_list(errors)
}

/// Everything that carries a mark of `network`.
pub(super) fn marked(network: &Name, tables: &Tables, lister: Lister<'_>) -> Result<Vec<Object>> {
    let mut marked = Vec::new();
    for program in tables.with_ours().filter(|program| program.is_installed()) {
        let (variant, v6) = (program.variant, program.v6);
        let listing = lister.list(program)?;
        for (table, chain) in CHAINS {
            let rules = listing.rules(table, chain).iter();
            let read = rules.filter_map(|rule| rules::read(rule).or_else(|| rules::read_shared(chain, rule)));
            marked.extend(read.map(|rule| Object::Iptables(Iptables { variant, v6, rule })));
        }
        let rules = listing.rules(forward::HERE.0, forward::HERE.1).iter();
        marked.extend(rules.filter_map(|rule| forward::read(rule, v6)).map(Object::Admission));
    }
    marked.retain(|object| object.mark().is_some_and(|mark| mark.is_of(network)));
    let mut once = HashSet::new();
    marked.retain(|object| once.insert((object.key(), object.mark().cloned())));
    Ok(marked)
}

/// Changes the tables of `program` by what `work` drafts.
fn change(program: Program, lister: Lister<'_>, work: impl Fn(&Listing, &mut Draft<'_>) -> Result<()>) -> Result<()> {
    let _lock = program::lock()?;
    let list = || lister.list(program);
    on_what_is_there(list, |listing| {
        let mut draft = Draft::of(listing, program.v6);
        work(listing, &mut draft)?;
        draft.script().map_or(Ok(()), |script| program.restore(&script))
    })
}

/// Does `attempt` on what `list` finds; and again, if it fails and others have changed that meanwhile, as
/// a firewall does in many steps that reloads.
fn on_what_is_there(list: impl Fn() -> Result<Arc<Listing>>, attempt: impl Fn(&Listing) -> Result<()>) -> Result<()> {
    let mut listing = list()?;
    for _ in 1..ATTEMPTS {
        let Err(refusal) = attempt(&listing) else { return Ok(()) };
        let now = list()?;
        if *now == *listing {
            return Err(refusal);
        }
        listing = now;
    }
    attempt(&listing)
}

fn make(draft: &mut Draft<'_>, rule: &NatRule, v6: bool) -> Result<()> {
    if matches!(rule, NatRule::Ruleset { .. }) {
        draft.build();
        return Ok(());
    }
    for (chain, line) in rules::of(rule, v6)? {
        // Somebody has taken it since it was looked at, and then hardly that one alone.
        if !draft.has(chain) {
            draft.build();
        }
        if let (NatRule::Publish { host_address, protocol, host_port, .. }, Some(holder)) =
            (rule, rules::holder(draft.rules(chain), rule))
        {
            let holder = holder.mark().cloned();
            return Err(Error::PortTaken { address: *host_address, port: *host_port, protocol: *protocol, holder });
        }
        if matches!(rule, NatRule::Masquerade { .. }) {
            // An earlier owner of the address has left it behind.
            let left: Vec<_> = draft
                .rules(chain)
                .iter()
                .filter(|other| other.does_as(&line) && other.mark().is_some())
                .cloned()
                .collect();
            left.iter().filter(|other| **other != line).for_each(|other| draft.take(chain, other));
        }
        draft.add(chain, line);
    }
    Ok(())
}

/// `listing`, if the tables that we have rules in could be read.
fn readable(program: Program, listing: &Listing) -> Result<&Listing> {
    match listing.unreadable(&TABLES) {
        None => Ok(listing),
        Some(table) => Err(Error::Conflict {
            object: program.name().to_owned(),
            found: format!("somebody has put rules into its table {table} that iptables cannot read"),
            way_out: format!("`nft list table {} {table}` shows them", if program.v6 { "ip6" } else { "ip" }),
        }),
    }
}

/// The iptables that a network's rules are written with where it is the backend.
pub(super) fn variant(nf_tables: bool) -> Result<Variant> {
    match variant_of_host() {
        // Without nf_tables, iptables-nft does nothing.
        Some(Variant::Nft) if !nf_tables => Ok(Variant::Legacy),
        Some(variant) => Ok(variant),
        None => Err(Error::Conflict {
            object: "firewall".to_owned(),
            found: "there is no program iptables on this host".to_owned(),
            way_out: if nf_tables {
                "install iptables, or have it be nftables (\"firewallBackend\": \"nftables\")".to_owned()
            } else {
                "the kernel has no nf_tables (CONFIG_NF_TABLES), so install iptables".to_owned()
            },
        }),
    }
}
