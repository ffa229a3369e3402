//! What records ask for of the host, each object once, and whose it is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::Repair;
use crate::engine::desired;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::model::{AttachmentId, Iptables, Key, Link, LinkKind, Name, NatRule, Network, Object, Phase, Place, State};
use crate::store::Record;

/// How many objects of the host an attachment has, as a rule: a link, and what the firewall holds for it and for
/// a port or two.
const OBJECTS: usize = 4;

/// How much of what records ask for is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Extent {
    /// All of it.
    Everything,
    /// What is mended by itself, whatever the links are like: settings and the firewall.
    WhatStandsAlone,
    /// All but the attachments' own links, which are by far the most.
    AllButOwnLinks,
}

/// By whom what records ask for is brought about. firewalld answers when it has time, and in the middle
/// of a reload that is when the reload is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Part {
    /// Ours, and firewalld's behind it.
    Whole,
    /// What is ours to do.
    Ours,
    /// What firewalld is asked for.
    Firewallds,
}

/// What is looked at of what records ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Reach {
    pub(in crate::engine) extent: Extent,
    pub(in crate::engine) part: Part,
}

impl Reach {
    /// All of it.
    pub(super) const ALL: Self = Self { extent: Extent::Everything, part: Part::Whole };
}

/// What records ask for of the host.
pub(super) struct Wishes {
    pub(super) records: Vec<Record>,
    /// Each object once.
    pub(super) objects: Vec<Object>,
    /// By what identifies it, the first record that asks for an object, and whether it is shared.
    pub(super) owners: HashMap<Key, (usize, bool)>,
}

impl Wishes {
    /// `ways` says how networks reach other nodes.
    pub(super) fn of(
        records: Vec<Record>,
        ways: impl Fn(&Network) -> Result<Vec<Object>>,
        report: &mut Repair,
    ) -> Self {
        let expected = records.len() * OBJECTS;
        let (objects, owners) = (Vec::with_capacity(expected), HashMap::with_capacity(expected));
        let mut wishes = Self { records, objects, owners };
        let mut opened: HashSet<&Name> = HashSet::new();
        for (place, record) in wishes.records.iter().enumerate() {
            // An attachment in the making has no lease yet, and one that stayed so is nobody's: the
            // next detach takes it away.
            if record.network.ipam.is_some() && record.lease.is_none() {
                continue;
            }
            let desired = match desired(record) {
                Ok(desired) => desired,
                Err(error) => {
                    report.faults.push(format!("{}: {error}", who(record)));
                    continue;
                }
            };
            let ways = if opened.insert(&record.network.name) { ways(&record.network) } else { Ok(Vec::new()) };
            let ways = ways.unwrap_or_else(|error| {
                report.faults.push(format!("{}: {error}", record.network.name));
                Vec::new()
            });
            let parts = [(desired.host, true), (desired.network, true), (ways, true), (desired.attachment, false)];
            for (objects, shared) in parts {
                for object in objects.into_iter().filter(is_on_host) {
                    if let Entry::Vacant(new) = wishes.owners.entry(object.key()) {
                        new.insert((place, shared));
                        wishes.objects.push(object);
                    }
                }
            }
        }
        wishes
    }

    /// What is there of it. The container's end of a pair is not looked at, and taken to be as it
    /// should be.
    pub(super) async fn observe<K: Kernel>(&self, host: &K) -> Result<State> {
        let mut seen = host.observe(&self.objects).await?;
        let wanted: HashMap<Key, &LinkKind> = self
            .objects
            .iter()
            .filter_map(|object| match object {
                Object::Link(Link { kind: kind @ LinkKind::Veth(_), .. }) => Some((object.key(), kind)),
                _ => None,
            })
            .collect();
        for object in &mut seen.0 {
            let key = object.key();
            if let Object::Link(Link { kind: kind @ LinkKind::Veth(_), .. }) = object
                && let Some(wanted) = wanted.get(&key)
            {
                kind.clone_from(wanted);
            }
        }
        Ok(seen)
    }

    /// Leaves what is within `reach`.
    pub(super) fn narrow(&mut self, reach: Reach) {
        let owners = &self.owners;
        self.objects.retain(|object| {
            let is_firewallds = object.phase() == Phase::Firewalld;
            let part = match reach.part {
                Part::Whole => true,
                Part::Ours => !is_firewallds,
                Part::Firewallds => is_firewallds,
            };
            part && match reach.extent {
                Extent::Everything => true,
                Extent::WhatStandsAlone => stands_alone(object),
                Extent::AllButOwnLinks => {
                    object.phase() != Phase::Links || owners.get(&object.key()).is_some_and(|(_, shared)| *shared)
                }
            }
        });
    }

    pub(super) fn owner_of(&self, object: &Object) -> Option<usize> {
        self.owners.get(&object.key()).map(|(place, _)| *place)
    }

    pub(super) fn who(&self, object: &Object) -> String {
        match self.owners.get(&object.key()) {
            Some((place, shared)) if !is_everybodys(object) => {
                let record = &self.records[*place];
                if *shared { record.network.name.to_string() } else { who(record) }
            }
            _ => "host".to_owned(),
        }
    }
}

fn who(record: &Record) -> String {
    let id = &record.attachment.id;
    let name = format!("{}/{}", record.network.name, id.container);
    if id.interface.as_str() == AttachmentId::DEFAULT_INTERFACE { name } else { format!("{name}/{}", id.interface) }
}

/// Whether an object is there for all networks, and not for one.
pub(super) fn is_everybodys(object: &Object) -> bool {
    match object {
        Object::Nat(NatRule::Ruleset { .. }) | Object::Iptables(Iptables { rule: NatRule::Ruleset { .. }, .. }) => true,
        Object::Sysctl(setting) => !setting.name.contains("/conf/") || setting.name.contains("/conf/all/"),
        _ => false,
    }
}

/// Whether an object is the host's own. What is inside a container is its runtime's by now.
pub(in crate::engine) fn is_on_host(object: &Object) -> bool {
    !matches!(object, Object::Binding(_)) && object.place().is_none_or(|place| place == Place::Host)
}

/// Whether an object is mended by itself, whatever the links are like.
pub(super) fn stands_alone(object: &Object) -> bool {
    object.phase() >= Phase::Sysctls
}
