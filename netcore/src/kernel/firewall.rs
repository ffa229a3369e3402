//! The seam to the firewall: what [`Linux`](super::Linux) asks of nf_tables and of iptables, and what
//! follows for connections that exist already.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::model::{Admission, Backend, FirewallBackend, Iptables, Name, NatRule, Object, Protocol, Table};

use super::conntrack::{self, Published};
use super::iptables::{self, Listed, Lister, Tables};
use super::nft::Nft;
use super::verified::Verified;

/// The conversation with nf_tables, opened when it is first needed and then kept.
#[derive(Default)]
pub(super) struct Firewall {
    nft: Mutex<Option<Nft>>,
    verified: Verified,
    listed: Listed,
}

/// Objects of the firewall, by who holds them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules<'a> {
    pub(super) nft: Vec<&'a NatRule>,
    pub(super) iptables: Vec<&'a Iptables>,
    pub(super) admissions: Vec<&'a Admission>,
}

impl Rules<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.nft.is_empty() && !self.concern_iptables()
    }

    fn concern_iptables(&self) -> bool {
        !self.iptables.is_empty() || !self.admissions.is_empty()
    }

    /// What is done, whoever does it.
    fn all(&self) -> Vec<&NatRule> {
        self.nft.iter().copied().chain(self.iptables.iter().map(|rule| &rule.rule)).collect()
    }
}

impl Firewall {
    /// One that remembers in `file` when it found the rule set intact.
    pub(super) fn remembering(file: PathBuf) -> Self {
        Self { verified: Verified::in_file(file), ..Self::default() }
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
    pub(super) fn observe(&self, wanted: &Rules<'_>) -> Result<Vec<Object>> {
        let mut seen = Vec::new();
        if !wanted.nft.is_empty() {
            seen.extend(self.with(|nft| self.look(nft, &wanted.nft))?.into_iter().map(Object::Nat));
        }
        if wanted.concern_iptables() {
            seen.extend(self.of_iptables(|tables, lister| {
                iptables::observe(&wanted.iptables, &wanted.admissions, tables, lister)
            })?);
        }
        Ok(seen)
    }

    /// Does `work` with iptables: which tables it has, and what is in them.
    fn of_iptables<T>(&self, work: impl FnOnce(&Tables, Lister<'_>) -> Result<T>) -> Result<T> {
        let generation = || self.with(Nft::generation).ok();
        work(&self.tables()?, Lister::new(&self.listed, &generation))
    }

    /// Which tables iptables has.
    fn tables(&self) -> Result<Tables> {
        match self.with(Nft::iptables_chains) {
            Ok(nft) => Ok(Tables::beside(nft)),
            Err(error) if Nft::is_not_in_kernel(&error) => Ok(Tables::beside(Default::default())),
            Err(error) => Err(error),
        }
    }

    /// What a new attachment's share is written in.
    pub(super) fn backend(&self, asked: Option<FirewallBackend>) -> Result<Backend> {
        if asked == Some(FirewallBackend::Nftables) {
            return Ok(Backend::Nftables);
        }
        let nf_tables = match self.with(|_| Ok(())) {
            Err(error) if Nft::is_not_in_kernel(&error) => false,
            // Who may not look is told so when it comes to changes.
            _ => true,
        };
        if asked.is_none() && nf_tables {
            return Ok(Backend::Nftables);
        }
        iptables::variant(nf_tables).map(Backend::Iptables)
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

    /// Makes `rules`, those of nf_tables in one transaction. What was sent to a UDP port before it was published went
    /// to the host, and would go on doing so; that is forgotten, so that the next packet is looked
    /// at anew. Protocols with connections need no such thing: a new connection is looked at anyway.
    pub(super) fn create(&self, rules: &Rules<'_>) -> Result<()> {
        if !rules.nft.is_empty() {
            self.transact(|nft| nft.create(&rules.nft))?;
        }
        if rules.concern_iptables() {
            self.of_iptables(|tables, lister| iptables::create(&rules.iptables, &rules.admissions, tables, lister))?;
        }
        let mut published = published(&rules.all());
        published.retain(|port| port.protocol == Protocol::Udp);
        conntrack::flush(&published).map(drop)
    }

    /// Turns `was` into `rules`; both have the same keys.
    pub(super) fn update(&self, was: &Rules<'_>, rules: &Rules<'_>) -> Result<()> {
        self.remove(was)?;
        self.create(rules)
    }

    /// Removes `rules`, those of nf_tables in one transaction. Connections that came by a withdrawn port are cut, or
    /// they would swallow the traffic of whoever gets the port, or the address, next.
    pub(super) fn remove(&self, rules: &Rules<'_>) -> Result<()> {
        let mut errors = Vec::new();
        // Only nf_tables tells whether somebody came by a port.
        let mut used = true;
        if !rules.nft.is_empty() {
            match self.transact(|nft| nft.remove(&rules.nft)) {
                Ok(counted) => used = counted || !rules.iptables.is_empty(),
                Err(error) => errors.push(error),
            }
        }
        if rules.concern_iptables() {
            let done =
                self.of_iptables(|tables, lister| iptables::remove(&rules.iptables, &rules.admissions, tables, lister));
            errors.extend(done.err());
        }
        if errors.is_empty() {
            let targets: BTreeSet<IpAddr> = rules
                .all()
                .into_iter()
                .filter_map(|rule| match rule {
                    NatRule::Publish { to, .. } if used => Some(to.ip()),
                    _ => None,
                })
                .collect();
            errors.extend(targets.into_iter().filter_map(|target| conntrack::flush_address(target).err()));
        }
        Error::from_list(errors)
    }

    /// Everything of the firewall that carries a mark of `network`.
    pub(super) fn marked(&self, network: &Name) -> Result<Vec<Object>> {
        let mut marked: Vec<Object> = match self.with(|nft| nft.marked(network)) {
            Ok(marked) => marked.into_iter().map(Object::Nat).collect(),
            Err(error) if Nft::is_not_in_kernel(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        marked.extend(self.of_iptables(|tables, lister| iptables::marked(network, tables, lister))?);
        Ok(marked)
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
