//! What a repair locks before it does anything, and whether its records are still as they were.

use std::collections::HashMap;

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
    /// By network, and whether it is locked as a whole.
    networks: HashMap<Name, (Lock, bool)>,
    host: Option<Lock>,
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
        let (mut held, mut locks, mut left) = (Vec::with_capacity(records.len()), Vec::new(), Vec::new());
        let (mut shared, mut unchanged) = (Shared::default(), true);
        let counts = counts(&records);
        for record in records {
            let many = counts.get(&record.network.name).is_some_and(|count| *count >= MANY);
            match self.hold_one(record, many, &mut shared) {
                Ok((lock, Found::AsItWas(record))) => {
                    held.push(record);
                    locks.extend(lock);
                }
                Ok((lock, Found::Changed(record))) => {
                    unchanged = false;
                    held.push(record);
                    locks.extend(lock);
                }
                Ok((lock, Found::Gone(record))) => {
                    unchanged = false;
                    if let Some(lock) = lock {
                        lock.remove();
                    }
                    left.push(record.network);
                }
                Err(error) => {
                    unchanged = false;
                    report.faults.push(error.to_string());
                }
            }
        }
        let Shared { mut networks, host } = shared;
        networks.retain(|name, _| held.iter().any(|record| record.network.name == *name));
        for network in left {
            // Looking for the lock has made its directory anew.
            report.faults.extend(self.tidy(&network, &[]).await.err().map(|error| error.to_string()));
        }
        locks.extend(networks.into_values().map(|(lock, _)| lock).chain(host));
        Held { records: held, unchanged, locks }
    }

    /// Locks what `record` is about; its own lock is only taken, and given back, if its network is not
    /// locked as a whole.
    fn hold_one(&self, record: Record, many: bool, shared: &mut Shared) -> Result<(Option<Lock>, Found)> {
        let (network, id) = (&record.network, &record.attachment.id);
        let whole = match shared.networks.get(&network.name) {
            Some((_, whole)) => *whole,
            None => {
                let (lock, whole) = self.lock_for(&network.name, many)?;
                shared.networks.insert(network.name.clone(), (lock, whole));
                whole
            }
        };
        if shared.host.is_none() && shares_host(network, &record.attachment) {
            shared.host = Some(self.store.share_host()?);
        }
        let own = if whole { None } else { Some(self.store.lock_attachment(network, id)?) };
        if self.store.is_unchanged(&record) {
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
