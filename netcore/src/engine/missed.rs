//! What a watch cannot hear of, looked at now and then instead, and only while some record asks for
//! such a thing. What records ask for is kept as long as none comes or goes, so that a look costs a
//! directory's time stamp, a setting read, and iptables only where the kernel has tables of
//! iptables-legacy.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::repair::is_on_host;
use super::{Engine, Outcome, Repair, desired};
use crate::error::Result;
use crate::kernel::Kernel;
use crate::model::{Key, Name, Object};
use crate::plan::drift;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// The same for what could not be brought back.
const LONG_PERIOD: Duration = Duration::from_secs(60);

/// What may be lost unheard.
#[derive(Debug)]
pub(super) struct Missed {
    /// What the records of a network ask for of this kind, and when one of them changed last.
    known: HashMap<Name, (SystemTime, Vec<Object>)>,
    next: Instant,
}

impl Missed {
    /// Nothing has been looked at yet.
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), next: Instant::now() + PERIOD }
    }

    /// When it is time to look.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// What could not be brought back is not looked at again so soon.
    pub(super) fn mended(&mut self, repair: &Repair) {
        if repair.count(|outcome| matches!(outcome, Outcome::Failed { .. })) > 0 {
            self.next = Instant::now() + LONG_PERIOD;
        }
    }

    /// Looks, and says whether something is not as it should be, or cannot be seen.
    pub(super) async fn is_any_lost(&mut self, engine: &Engine) -> bool {
        let looked = self.look(engine).await;
        self.next = Instant::now() + PERIOD;
        looked.unwrap_or(true)
    }

    async fn look(&mut self, engine: &Engine) -> Result<bool> {
        let turnover = engine.store.turnover()?;
        self.known.retain(|name, _| turnover.iter().any(|(there, _)| there == name));
        let (mut wanted, mut once): (Vec<Object>, HashSet<Key>) = Default::default();
        for (network, changed) in turnover {
            let known = self.known.get(&network).filter(|(at, _)| Some(*at) == changed).map(|(_, objects)| objects);
            let fresh = if known.is_some() { None } else { Some(wishes(engine, &network)?) };
            let objects = known.or(fresh.as_ref()).into_iter().flatten();
            wanted.extend(objects.filter(|object| once.insert(object.key())).cloned());
            if let Some(fresh) = fresh {
                self.known.insert(network, (changed.unwrap_or(SystemTime::UNIX_EPOCH), fresh));
            }
        }
        engine.kernel.retain_missed(&mut wanted);
        if wanted.is_empty() {
            return Ok(false);
        }
        let host = engine.kernel.enter(None).await?;
        Ok(!drift(&wanted, &host.observe(&wanted).await?).is_empty())
    }
}

/// What the records of `network` ask for that a watch may miss. Those that cannot be understood are named
/// by every repair.
fn wishes(engine: &Engine, network: &Name) -> Result<Vec<Object>> {
    let (records, _) = engine.store.records(Some(network))?;
    let complete = records.iter().filter(|record| record.lease.is_some() || record.network.ipam.is_none());
    let mut once = HashSet::new();
    let mut missed = Vec::new();
    for record in complete {
        let all = desired(record).map(|desired| desired.all()).unwrap_or_default();
        let is_missed = |object: &Object| is_on_host(object) && engine.kernel.may_miss(object);
        missed.extend(all.into_iter().filter(|object| is_missed(object) && once.insert(object.key())));
    }
    Ok(missed)
}
