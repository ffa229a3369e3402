//! Adding to the table, and making and mending the table itself.

use std::collections::HashSet;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nftnl_sys::libc;

use super::element::{self, Element};
use super::socket::{ATTEMPTS, Messages, Outcome, Refused};
use super::survey::{self, Survey};
use super::sys::ElementMessage;
use super::{Nft, TABLE_NAME, tables};
use crate::error::{Error, Result};
use crate::model::{Mark, NatRule, Table};

/// An element to be added, and the rule that needs it.
struct Addition<'a> {
    rule: &'a NatRule,
    element: Element,
}

/// A transaction in the making: its messages, and which rule each is for, if not for the rule
/// set.
struct Changes<'a> {
    messages: Messages,
    rules: Vec<Option<&'a NatRule>>,
}

impl Nft {
    /// Adds `rules`, all or none, in one transaction. The rule set, if it is among them, is made
    /// or mended as far as it needs to be. What is there already as it is wanted is a success.
    ///
    /// # Errors
    /// [`Error::PortTaken`] when another owner has published a port, or its host address is taken
    /// by a publish on every address, or the other way round. [`Error::Conflict`] when a hairpin
    /// subnet, or a cluster's range, overlaps another that is not the same. [`Error::Kernel`] when the
    /// kernel refuses, also when the table is not there. [`Error::Busy`] when others kept changing the firewall.
    pub fn create(&self, rules: &[&NatRule]) -> Result<()> {
        let additions = additions(rules)?;
        let tables = tables(rules);
        // The kernel tells what is in the way: only then it is looked at, and worked around.
        let mut settle = false;
        for _ in 0..ATTEMPTS {
            let mut changes = Changes { messages: Messages::new(), rules: Vec::new() };
            let generation = if !tables.is_empty() || settle { Some(self.generation()?) } else { None };
            let mut depends_on_what_was_read = settle;
            for table in &tables {
                let survey = Survey::take(&self.socket, *table)?;
                if survey.as_ref().is_none_or(|survey| !survey.damage().is_empty()) {
                    survey::repair(*table, survey.as_ref(), &mut changes.messages);
                    depends_on_what_was_read = true;
                }
            }
            changes.rules.resize(changes.messages.len(), None);
            if settle {
                self.settle(&additions, &mut changes)?;
            } else {
                additions.iter().for_each(|addition| changes.add(addition));
            }
            if changes.messages.is_empty() {
                return Ok(());
            }
            let generation = generation.filter(|_| depends_on_what_was_read);
            match self.socket.commit(&mut changes.messages, generation)? {
                Outcome::Done => return Ok(()),
                Outcome::Outdated => {}
                Outcome::Refused(refused) if !settle && refused.iter().all(|(_, refused)| refused.is(libc::EEXIST)) => {
                    settle = true;
                }
                Outcome::Refused(refused) => return Err(self.explain(refused, &changes, &additions)?),
            }
        }
        Err(Error::Busy { object: TABLE_NAME.to_owned(), attempts: ATTEMPTS })
    }

    /// Adds to `changes` what is missing of `additions`, and replaces what is a leftover.
    fn settle<'a>(&self, additions: &[Addition<'a>], changes: &mut Changes<'a>) -> Result<()> {
        let elements: Vec<_> = additions.iter().map(|addition| &addition.element).collect();
        for (addition, seen) in additions.iter().zip(self.look_up(&elements)?) {
            let Some(seen) = seen else {
                changes.add(addition);
                continue;
            };
            let same_data = seen.raw.data == addition.element.raw.data;
            match addition.rule {
                _ if addition.is_shared() && same_data => {}
                _ if seen.raw == addition.element.raw => {}
                // An earlier owner of the address has left it behind.
                NatRule::Masquerade { .. } => changes.replace(addition),
                rule if !addition.is_claim() => return Err(taken(rule, seen.mark())),
                rule => match self.publisher_in_the_way(rule)? {
                    Some(publisher) => return Err(taken(rule, publisher.mark())),
                    // The claim has outlived what it was for.
                    None => changes.replace(addition),
                },
            }
        }
        Ok(())
    }

    /// What is published on the port of `rule`: on every address if `rule` is for a single one,
    /// on any single one otherwise.
    fn publisher_in_the_way(&self, rule: &NatRule) -> Result<Option<Element>> {
        let NatRule::Publish { host_address, to, .. } = rule else { return Ok(None) };
        let Some(claim) = element::claim(rule) else { return Ok(None) };
        let port = claim.raw.key;
        let publishers = match host_address {
            Some(_) => {
                let mut wanted = Element { set: element::publish(to.is_ipv6()), raw: Default::default(), packets: 0 };
                wanted.raw.key.clone_from(&port);
                self.look_up(&[&wanted])?.into_iter().flatten().collect()
            }
            None => self.list(element::publish_at(to.is_ipv6()))?,
        };
        Ok(publishers.into_iter().find(|publisher| publisher.raw.key.ends_with(&port)))
    }

    /// Why a transaction was refused although all that was in the way had been looked at.
    fn explain(
        &self,
        refused: Vec<(usize, Refused)>,
        changes: &Changes<'_>,
        additions: &[Addition<'_>],
    ) -> Result<Error> {
        let Some((place, refused)) = refused.into_iter().next() else { return Ok(super::garbled()) };
        let Some(rule) = changes.rules.get(place).copied().flatten() else {
            // No family of that number, or no chains for it.
            let unknown = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::ENOENT].into_iter().any(|code| refused.is(code));
            if unknown && additions.iter().any(|addition| addition.element.set.table == Table::Bridge) {
                return Ok(Error::Unsupported {
                    field: "macspoofchk, ipspoofchk".to_owned(),
                    value: "checking what a bridge port sends".to_owned(),
                    way_out: "this kernel has no nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE); leave them out"
                        .to_owned(),
                });
            }
            return Ok(refused.into_error("create", TABLE_NAME));
        };
        Ok(match rule {
            NatRule::Publish { .. } if refused.is(libc::EEXIST) => taken(rule, rival(rule, additions)),
            NatRule::Hairpin { subnet, .. } | NatRule::Cluster { range: subnet, .. } if refused.is(libc::EEXIST) => {
                match self.overlapping(rule, subnet)? {
                    Some((other, mark)) => Error::Conflict {
                        object: rule.to_string(),
                        found: format!("overlaps {other} of {}", mark.who()),
                        way_out: "give each network a subnet of its own".to_owned(),
                    },
                    None => refused.into_error("create", rule.to_string()),
                }
            }
            rule => refused.into_error("create", rule.to_string()),
        })
    }

    /// The subnet or range that overlaps `subnet`, which `rule` is for, and whose it is.
    fn overlapping(&self, rule: &NatRule, subnet: &IpNetwork) -> Result<Option<(IpNetwork, Mark)>> {
        let Some(wanted) = Element::of(rule)? else { return Ok(None) };
        let subnets = self.list(wanted.set)?.into_iter().filter_map(|element| match element.rule()? {
            NatRule::Hairpin { subnet, mark } | NatRule::Cluster { range: subnet, mark } => Some((subnet, mark)),
            _ => None,
        });
        Ok(subnets.into_iter().find(|(other, _)| other.contains(subnet.network()) || subnet.contains(other.network())))
    }
}

/// What `rules` need of elements, each once.
fn additions<'a>(rules: &[&'a NatRule]) -> Result<Vec<Addition<'a>>> {
    let mut seen = HashSet::new();
    let mut additions = Vec::new();
    for rule in rules {
        for element in Element::of(rule)?.into_iter().chain(element::claim(rule)) {
            if seen.insert((element.set.table, element.set.name, element.raw.clone())) {
                additions.push(Addition { rule, element });
            }
        }
    }
    Ok(additions)
}

impl Addition<'_> {
    fn is_claim(&self) -> bool {
        element::claim(self.rule).is_some_and(|claim| claim.set == self.element.set)
    }

    /// Whether others may have added the same.
    fn is_shared(&self) -> bool {
        self.is_claim() || self.rule.is_shared()
    }
}

impl<'a> Changes<'a> {
    fn add(&mut self, addition: &Addition<'a>) {
        let exclusive = if addition.is_shared() { 0 } else { NLM_F_EXCL };
        self.push(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE | exclusive, addition);
    }

    fn replace(&mut self, addition: &Addition<'a>) {
        self.push(libc::NFT_MSG_DELSETELEM, 0, addition);
        self.add(addition);
    }

    fn push(&mut self, verb: i32, flags: u16, addition: &Addition<'a>) {
        let mut raw = addition.element.raw.clone();
        if verb == libc::NFT_MSG_DELSETELEM {
            raw = raw.only_key();
        }
        self.messages.add(verb, flags, &ElementMessage::new(addition.element.set, &raw));
        self.rules.push(Some(addition.rule));
    }
}

fn taken(rule: &NatRule, holder: Option<Mark>) -> Error {
    match rule {
        NatRule::Publish { host_address, protocol, host_port, .. } => {
            Error::PortTaken { address: *host_address, port: *host_port, protocol: *protocol, holder }
        }
        rule => Error::Conflict { object: rule.to_string(), found: "taken".to_owned(), way_out: String::new() },
    }
}

/// Who else asks for the port of `rule` in the same call.
fn rival(rule: &NatRule, additions: &[Addition<'_>]) -> Option<Mark> {
    let port = |rule: &NatRule| element::claim(rule).map(|claim| (claim.set.name, claim.raw.key));
    let rivals = additions.iter().map(|addition| addition.rule).filter(|other| *other != rule);
    rivals.filter(|other| port(other) == port(rule)).find_map(|other| other.mark().cloned())
}
