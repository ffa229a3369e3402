//! The seam to the firewall: what [`Linux`](super::Linux) asks of nf_tables, and what follows
//! for connections that exist already.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::model::{Name, NatRule, Object, Protocol, Table};

use super::conntrack::{self, Published};
use super::nft::Nft;
use super::verified::Verified;

/// The conversation with nf_tables, opened when it is first needed and then kept.
#[derive(Default)]
pub(super) struct Firewall {
    nft: Mutex<Option<Nft>>,
    verified: Verified,
}

impl Firewall {
    /// One that remembers in `file` when it found the rule set intact.
    pub(super) fn remembering(file: PathBuf) -> Self {
        Self { nft: Mutex::default(), verified: Verified::in_file(file) }
    }

    fn with<T>(&self, work: impl FnOnce(&Nft) -> Result<T>) -> Result<T> {
        let mut kept = self.nft.lock().unwrap_or_else(PoisonError::into_inner);
        let nft = match kept.take() {
            Some(nft) => nft,
            None => Nft::open()?,
        };
        work(kept.insert(nft))
    }

    /// The netlink port that changes are made by.
    pub(super) fn port(&self) -> Result<u32> {
        self.with(Nft::port)
    }

    /// What is there of `wanted`.
    pub(super) fn observe(&self, wanted: &[&NatRule]) -> Result<Vec<Object>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let seen = self.with(|nft| self.look(nft, wanted))?;
        Ok(seen.into_iter().map(Object::Nat).collect())
    }

    /// As [`Nft::observe`], but the rule set of `inet netcore`, which every published port needs, is not
    /// read if it is known to be intact.
    fn look(&self, nft: &Nft, wanted: &[&NatRule]) -> Result<Vec<NatRule>> {
        let (rule_set, mut looked_up): (Vec<&NatRule>, Vec<&NatRule>) =
            wanted.iter().partition(|rule| matches!(rule, NatRule::Ruleset { table: Table::Inet, .. }));
        if rule_set.is_empty() {
            return nft.observe(wanted);
        }
        let (namespace, generation) = (nft.namespace_cookie(), nft.generation()?);
        if self.verified.is_intact_at(namespace, generation) {
            let mut seen = nft.observe(&looked_up)?;
            seen.push(NatRule::Ruleset { table: Table::Inet, damage: Vec::new() });
            return Ok(seen);
        }
        looked_up.extend(rule_set);
        let seen = nft.observe(&looked_up)?;
        let intact = seen
            .iter()
            .any(|rule| matches!(rule, NatRule::Ruleset { table: Table::Inet, damage } if damage.is_empty()));
        if intact && nft.generation()? == generation {
            self.verified.found_intact_at(namespace, generation);
        }
        Ok(seen)
    }

    /// Does `work`, which is one transaction of elements at most. If it is all that has happened
    /// to an intact rule set, the rule set is intact after it.
    fn transact<T>(&self, work: impl FnOnce(&Nft) -> Result<T>) -> Result<T> {
        self.with(|nft| {
            let (namespace, before) = (nft.namespace_cookie(), nft.generation()?);
            let intact = self.verified.is_intact_at(namespace, before);
            let done = work(nft)?;
            if intact && nft.generation()? == before.wrapping_add(1) {
                self.verified.found_intact_at(namespace, before.wrapping_add(1));
            }
            Ok(done)
        })
    }

    /// Makes `rules` in one transaction. What was sent to a UDP port before it was published went
    /// to the host, and would go on doing so; that is forgotten, so that the next packet is looked
    /// at anew. Protocols with connections need no such thing: a new connection is looked at anyway.
    pub(super) fn create(&self, rules: &[&NatRule]) -> Result<()> {
        self.transact(|nft| nft.create(rules))?;
        let mut published = published(rules);
        published.retain(|port| port.protocol == Protocol::Udp);
        conntrack::flush(&published).map(drop)
    }

    /// Turns `was` into `rule`; both have the same key.
    pub(super) fn update(&self, was: &NatRule, rule: &NatRule) -> Result<()> {
        self.remove(&[was])?;
        self.create(&[rule])
    }

    /// Removes `rules` in one transaction. Connections that came by a withdrawn port are cut, or
    /// they would swallow the traffic of whoever gets the port, or the address, next.
    pub(super) fn remove(&self, rules: &[&NatRule]) -> Result<()> {
        let used = self.transact(|nft| nft.remove(rules))?;
        let published = rules.iter().filter_map(|rule| match rule {
            NatRule::Publish { to, .. } if used => Some(to.ip()),
            _ => None,
        });
        let targets: BTreeSet<IpAddr> = published.collect();
        targets.into_iter().try_for_each(|target| conntrack::flush_address(target).map(drop))
    }

    /// Everything of the firewall that carries a mark of `network`.
    pub(super) fn marked(&self, network: &Name) -> Result<Vec<Object>> {
        let marked = self.with(|nft| nft.marked(network))?;
        Ok(marked.into_iter().map(Object::Nat).collect())
    }
}

impl fmt::Debug for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firewall").finish_non_exhaustive()
    }
}

fn published(rules: &[&NatRule]) -> Vec<Published> {
    rules
        .iter()
        .filter_map(|rule| match rule {
            NatRule::Publish { host_address, protocol, host_port, to, .. } => {
                Some(Published { protocol: *protocol, host_address: *host_address, port: *host_port, v6: to.is_ipv6() })
            }
            _ => None,
        })
        .collect()
}
