//! What a repair locks before it does anything, and whether its records are still as they were.

use std::collections::HashMap;
use std::time::SystemTime;

use super::{Engine, Repair};
use crate::engine::shares_host;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::model::Name;
use crate::store::{Lock, Record};

/// From how many attachments of a network on the network is locked instead of each of them.
const MANY: usize = 64;

/// Records that nobody changes meanwhile.
pub(super) struct Held {
    pub(super) records: Vec<Record>,
    /// Whether all that were asked for are there, as they were before.
    pub(super) unchanged: bool,
    /// Keep them so; let go of in this order, the attachments' own first.
    pub(super) locks: Vec<Lock>,
}

/// The locks of what attachments have in common, each taken once for all of them.
#[derive(Default)]
struct Shared {
    networks: HashMap<Name, OfNetwork>,
    host: Option<Lock>,
}

/// What the attachments of a network have in common.
struct OfNetwork {
    lock: Lock,
    /// Whether that is a lock of all its attachments.
    whole: bool,
    /// When its records last changed, if none does now.
    turnover: Option<SystemTime>,
}

/// A record that is locked.
enum Found {
    AsItWas(Record),
    Changed(Record),
    Gone(Record),
}

impl<K: Kernel> Engine<K> {
    /// Locks what `records` are about, and reads them again if they were changed: an attachment may
    /// have come about, or gone, meanwhile.
    pub(super) async fn hold(&self, records: Vec<Record>, report: &mut Repair) -> Held {
        let (mut locks, mut left) = (Vec::new(), Vec::new());
        let (mut shared, mut unchanged) = (Shared::default(), true);
        let counts = counts(&records);
        let hold = |record: Record| {
            let many = counts.get(&record.network.name).is_some_and(|count| *count >= MANY);
            let found = self.hold_one(record, many, &mut shared);
            unchanged &= matches!(found, Ok((_, Found::AsItWas(_))));
            match found {
                Ok((lock, Found::AsItWas(record) | Found::Changed(record))) => {
                    locks.extend(lock);
                    return Some(record);
                }
                Ok((lock, Found::Gone(record))) => {
                    if let Some(lock) = lock {
                        lock.remove();
                    }
                    left.push(record.network);
                }
                Err(error) => report.faults.push(error.to_string()),
            }
            None
        };
        // They stay where they are in memory, which a thousand of them are a megabyte of.
        let held: Vec<Record> = records.into_iter().filter_map(hold).collect();
        let Shared { mut networks, host } = shared;
        networks.retain(|name, _| held.iter().any(|record| record.network.name == *name));
        for network in left {
            // Looking for the lock has made its directory anew.
            report.faults.extend(self.tidy(&network, &[]).await.err().map(|error| error.to_string()));
        }
        locks.extend(networks.into_values().map(|of_network| of_network.lock).chain(host));
        Held { records: held, unchanged, locks }
    }

    /// Locks what `record` is about; its own lock is only taken, and given back, if its network is not
    /// locked as a whole.
    fn hold_one(&self, record: Record, many: bool, shared: &mut Shared) -> Result<(Option<Lock>, Found)> {
        let (network, id) = (&record.network, &record.attachment.id);
        let (whole, turnover) = match shared.networks.get(&network.name) {
            Some(OfNetwork { whole, turnover, .. }) => (*whole, *turnover),
            None => {
                let (lock, whole) = self.lock_for(&network.name, many)?;
                let turnover = if whole { self.store.turnover_of(&network.name) } else { None };
                shared.networks.insert(network.name.clone(), OfNetwork { lock, whole, turnover });
                (whole, turnover)
            }
        };
        if shared.host.is_none() && shares_host(network, &record.attachment) {
            shared.host = Some(self.store.share_host()?);
        }
        let own = if whole { None } else { Some(self.store.lock_attachment(network, id)?) };
        if self.store.is_unchanged(&record, turnover) {
            return Ok((own, Found::AsItWas(record)));
        }
        let now = self.store.load(network, id)?;
        Ok((own, now.map_or(Found::Gone(record), Found::Changed)))
    }

    /// Where `many` attachments of a network are meant and none is changing, one lock stands for all. It
    /// is not waited for: among attachments that come and go it might never be free. Networks come in
    /// the order of their names, so no two repairs wait for each other.
    fn lock_for(&self, network: &Name, many: bool) -> Result<(Lock, bool)> {
        if many && let Some(whole) = self.store.lock_calm_network(network)? {
            return Ok((whole, true));
        }
        Ok((self.store.share_network(network)?, false))
    }
}

/// How many records there are of each network.
fn counts(records: &[Record]) -> HashMap<Name, usize> {
    let mut counts: HashMap<Name, usize> = HashMap::new();
    for of_one in records.chunk_by(|one, next| one.network.name == next.network.name) {
        *counts.entry(of_one[0].network.name.clone()).or_default() += of_one.len();
    }
    counts
}
