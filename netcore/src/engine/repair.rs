//! `repair`: everything the records ask for, back in place, whatever became of it.
//!
//! One look at the whole host first, without a lock: where nothing is wrong, nobody waits. What
//! looks wrong may be an attachment in the making or on its way out, so those attachments are
//! locked, read again and looked at again before anything is done. What is missing of the
//! firewall comes back in one transaction for all of them.
//!
//! What is inside a container is its own: plugins chained behind us tune it, and so does what runs
//! there. It is made anew only when the link that leads there is gone.

mod hold;
mod wishes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::hold::Held;
pub(super) use self::wishes::{Extent, Part, Reach, is_on_host};
use self::wishes::{Wishes, is_everybodys, stands_alone};
use super::switches::Thrown;
use super::{Engine, desired};
use crate::apply::apply_each;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Key, Link, LinkKind, Name, NatRule, Object};
use crate::plan::{Drift, Step, drift, plan_around};
use crate::store::{self, Record};

/// What a [repair](Engine::repair) is to do.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// The network to look at; every one when `None`.
    pub network: Option<Name>,
    /// Only look.
    pub check: bool,
}

/// What a repair found, and did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repair {
    /// How many attachments were looked at.
    pub attachments: usize,
    /// Every object that was not as it should be.
    pub objects: Vec<Repaired>,
    /// Records that could not be used, and stay in place: what is wrong with each.
    pub faults: Vec<String>,
}

impl Repair {
    /// How many objects ended as `outcome` says.
    #[must_use]
    pub fn count(&self, outcome: impl Fn(&Outcome) -> bool) -> usize {
        self.objects.iter().filter(|object| outcome(&object.outcome)).count()
    }

    /// Adds what was found and done of another part of the same records.
    pub(super) fn merge(&mut self, other: Self) {
        self.attachments = self.attachments.max(other.attachments);
        self.objects.extend(other.objects);
        let new = other.faults.into_iter().filter(|fault| !self.faults.contains(fault));
        self.faults.extend(new.collect::<Vec<_>>());
    }
}

/// An object that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Whose it is: `network/container` (and `/interface` if it is not eth0), `network` for what its
    /// attachments share, `host` for what all networks share.
    pub who: String,
    /// The object, in words.
    pub object: String,
    /// How it was found, in words: `missing`, or what differs.
    pub found: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It was left as it is: this was only a check.
    Left,
    /// It is as it should be again.
    Restored,
    /// It is not.
    Failed {
        /// Why, and what can be done about it.
        reason: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.pad("left"),
            Self::Restored => f.pad("restored"),
            Self::Failed { reason } => write!(f, "not restored: {reason}"),
        }
    }
}

/// What a repair begins with.
struct Survey<K> {
    host: K,
    records: Vec<Record>,
    /// What is wrong with those that could not be read.
    faults: Vec<Error>,
}

/// Rules that replaced others of another shape have lost the elements of theirs, and a tunnel the
/// ways through it, which shows only at a second look. There is nothing to be found at a third.
const ROUNDS: usize = 2;

impl<K: Kernel> Engine<K> {
    /// Brings back everything the records ask for: the firewall's table and what stands in it,
    /// bridges with their addresses, the host's ends of links, routes and settings of the host.
    /// What is not ours is not touched; what cannot be restored does not keep the rest from it.
    ///
    /// # Errors
    /// [`Error::File`] when the records cannot be listed, [`Error::Kernel`] when the kernel does
    /// not answer. Everything else is in the report.
    pub async fn repair(&self, options: &RepairOptions) -> Result<Repair> {
        let survey = self.survey(options.network.as_ref(), Reach::ALL).await?;
        let everything = options.network.is_none();
        // Nobody listens.
        let mut nothing_thrown = || Ok(false);
        let thrown: Option<Thrown<'_>> = if everything { Some(&mut nothing_thrown) } else { None };
        let mut report = self.repair_surveyed(survey, options.check, Reach::ALL, thrown).await?;
        if everything {
            self.report_sweep(options.check, &mut report).await?;
        }
        Ok(report)
    }

    /// As [`repair`](Self::repair), of that `part` of everything; if forwarding was `thrown` on for all interfaces,
    /// those where it was off come off again.
    pub(super) async fn repair_all(&self, part: Part, thrown: Option<Thrown<'_>>) -> Result<Repair> {
        let reach = Reach { extent: Extent::Everything, part };
        let survey = self.survey(None, reach).await?;
        let mut report = self.repair_surveyed(survey, false, reach, thrown).await?;
        if part != Part::Ours {
            self.report_sweep(false, &mut report).await?;
        }
        Ok(report)
    }

    /// As [`repair`](Self::repair), within that `reach`, for those who know that nothing else was lost.
    pub(super) async fn repair_within(&self, reach: Reach) -> Result<Repair> {
        let (records, faults) = self.store.records(None)?;
        self.repair_records((records, faults), reach).await
    }

    /// As [`repair`](Self::repair), of those records alone, as they were read, and within that `reach`.
    pub(super) async fn repair_records(
        &self,
        (records, faults): (Vec<Record>, Vec<Error>),
        reach: Reach,
    ) -> Result<Repair> {
        let host = self.kernel.enter(None).await?;
        self.repair_surveyed(Survey { host, records, faults }, false, reach, None).await
    }

    /// The records, all or those of `network`, and the host, at which a look at all they ask for has begun.
    async fn survey(&self, network: Option<&Name>, reach: Reach) -> Result<Survey<K>> {
        let paths = self.store.paths(network)?;
        let host = match reach.part {
            // It knows of links by name alone.
            Part::Firewallds => self.kernel.enter(None).await?,
            Part::Whole | Part::Ours => self.kernel.survey(paths.len()).await?,
        };
        let (records, faults) = self.store.read(&paths);
        Ok(Survey { host, records, faults })
    }

    /// Repairs within that `reach`; if forwarding was `thrown` on for all interfaces, those where it was off come
    /// off again. Nothing is known of that with a part of the records.
    async fn repair_surveyed(
        &self,
        Survey { host, records, faults }: Survey<K>,
        check: bool,
        reach: Reach,
        thrown: Option<Thrown<'_>>,
    ) -> Result<Repair> {
        let faults = faults.iter().map(Error::to_string).collect();
        let mut report = Repair { attachments: records.len(), objects: Vec::new(), faults };

        let mut wishes = self.wishes(records, &mut report);
        wishes.narrow(reach);
        let seen = wishes.observe(&host).await?;
        let drifts = drift(&wishes.objects, &seen);
        let suspects: HashSet<usize> = drifts.iter().filter_map(|drift| wishes.owner_of(&drift.object)).collect();
        let thrown = thrown.filter(|_| !check);
        if suspects.is_empty() {
            if let Some(thrown) = thrown {
                report.objects.extend(kept_off(self.keep_off(&host, &wishes.objects, thrown).await?));
            }
            return Ok(report);
        }
        let switches: Vec<Object> =
            wishes.objects.iter().filter(|object| matches!(object, Object::Sysctl(_))).cloned().collect();
        let Wishes { mut records, objects, owners } = wishes;
        let all = suspects.len() == records.len();
        let mut place = 0..;
        records.retain(|_| place.next().is_some_and(|place| suspects.contains(&place)));
        let Held { records, unchanged, locks: _locks } = self.hold(records, &mut report).await;
        let _ways = self.hold_ways(records.iter().map(|record| &record.network))?;
        let mut wishes =
            if all && unchanged { Wishes { records, objects, owners } } else { self.wishes(records, &mut report) };
        wishes.narrow(reach);
        if drifts.iter().all(|drift| stands_alone(&drift.object)) {
            // To look at a thousand links once more would take longer than all the rest.
            wishes.objects.retain(stands_alone);
        }
        for _ in 0..ROUNDS {
            if !self.mend(&host, &wishes, check, &mut report).await? {
                break;
            }
        }
        if let Some(thrown) = thrown {
            report.objects.extend(kept_off(self.keep_off(&host, &switches, thrown).await?));
        }
        Ok(report)
    }

    /// Has the host's switches that the records ask for (forwarding, for one) set from its next start
    /// on, by a file of ours under `/etc/sysctl.d`; that file, or `None` when they ask for none. What
    /// is off for single interfaces stays off, and the host keeps its advertised ways out.
    ///
    /// # Errors
    /// [`Error::Conflict`] naming the file and line that would undo it, [`Error::File`].
    pub fn persist(&self) -> Result<Option<PathBuf>> {
        let (records, _) = self.store.records(None)?;
        let wishes = self.wishes(records, &mut Repair::default());
        let mut settings: BTreeMap<String, String> = wishes
            .objects
            .iter()
            .filter_map(|object| match object {
                Object::Sysctl(setting) if is_everybodys(object) => Some((setting.name.clone(), setting.value.clone())),
                _ => None,
            })
            .collect();
        if settings.is_empty() {
            return Ok(None);
        }
        let ledger = self.store.ledger()?.ledger;
        let ways_out = ledger.switched.into_iter().filter(|(name, _)| name.ends_with("/accept_ra"));
        settings.extend(ways_out.map(|(name, switched)| (name, switched.set)));
        let on: HashSet<&String> = wishes.objects.iter().filter_map(switched_on).collect();
        settings.extend(ledger.off.into_iter().filter(|name| !on.contains(name)).map(|name| (name, "0".to_owned())));
        store::persist(Path::new("/"), &settings).map(Some)
    }

    /// Takes back what [`persist`](Self::persist) wrote: the file that was, or `None` if there was none.
    /// The switches themselves stay as they are.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the file is not of our writing, [`Error::File`].
    pub fn unpersist(&self) -> Result<Option<PathBuf>> {
        store::unpersist(Path::new("/"))
    }

    /// Repairs what differs from `wishes`; says whether another look may show more.
    async fn mend(&self, host: &K, wishes: &Wishes, check: bool, report: &mut Repair) -> Result<bool> {
        let seen = wishes.observe(host).await?;
        let drifts = drift(&wishes.objects, &seen);
        let (mut steps, obstacles) = plan_around(&wishes.objects, &seen);
        // A pair is made from both its ends, together with what is to be inside.
        let cut_off: Vec<usize> = steps
            .iter()
            .filter_map(|step| is_lost_pair(step).then(|| wishes.owner_of(step.object())).flatten())
            .collect();
        steps.retain(|step| !is_lost_pair(step));

        let mut outcomes: HashMap<Key, Outcome> = HashMap::new();
        for obstacle in obstacles {
            outcomes.insert(obstacle.object.key(), Outcome::Failed { reason: obstacle.error.to_string() });
        }
        if !check {
            let switching = self.before_switching(host, &steps, &wishes.objects).await?;
            let done = apply_each(host, &steps).await;
            report.objects.extend(kept_off(self.after_switching(host, switching).await?));
            for (step, done) in steps.iter().zip(&done) {
                outcomes.insert(step.object().key(), outcome(done));
            }
            for place in cut_off {
                let record = &wishes.records[place];
                let key = |object: &&Object| matches!(object, Object::Link(Link { kind: LinkKind::Veth(_), .. }));
                let done = self.reconnect(record).await;
                let links = desired(record)?.attachment;
                outcomes.extend(links.iter().filter(key).map(|object| (object.key(), outcome(&done))));
            }
            let changed: Vec<Object> = steps
                .iter()
                .zip(&done)
                .filter(|(step, done)| done.is_ok() && !matches!(step, Step::Remove(_)))
                .map(|(step, _)| step.object().clone())
                .collect();
            if let Err(error) = host.settle(&changed).await {
                report.faults.push(error.to_string());
            }
        }
        let is_replaced = |step: &Step| match step {
            Step::Update { object: Object::Nat(NatRule::Ruleset { .. }), .. } => true,
            Step::Update { object: Object::Link(link), .. } => matches!(link.kind, LinkKind::Vxlan(_)),
            _ => false,
        };
        let any_replaced = !check && steps.iter().any(is_replaced);
        for drift in drifts {
            let outcome = outcomes.remove(&drift.object.key()).unwrap_or(Outcome::Left);
            let who = wishes.who(&drift.object);
            report.objects.push(Repaired { who, object: drift.object.to_string(), found: found(&drift), outcome });
        }
        Ok(any_replaced)
    }

    fn wishes(&self, records: Vec<Record>, report: &mut Repair) -> Wishes {
        Wishes::of(records, |network| self.ways(network), report)
    }

    /// Makes an attachment's link anew, with everything inside the container that went with it.
    async fn reconnect(&self, record: &Record) -> Result<()> {
        let id = &record.attachment.id;
        let gone = |reason: &str| Error::Netns {
            path: record.attachment.netns.clone().unwrap_or_default(),
            reason: format!("{reason}; detach {id} and attach it again"),
            source: None,
        };
        let netns = record.attachment.netns.as_deref().ok_or_else(|| gone("is not known"))?;
        if netns.starts_with("/proc") {
            return Err(gone("may be another process' by now"));
        }
        let kernel = self.kernel.enter(Some(netns)).await.map_err(|error| gone(&format!("is gone ({error})")))?;
        let own = desired(record)?.attachment;
        let (steps, obstacles) = plan_around(&own, &kernel.observe(&own).await?);
        let mut errors: Vec<Error> = obstacles.into_iter().map(|obstacle| obstacle.error).collect();
        errors.extend(apply_each(&kernel, &steps).await.into_iter().filter_map(Result::err));
        Error::from_list(errors)?;
        kernel.settle(&own).await
    }
}

/// The name of a setting that is to be on.
fn switched_on(object: &Object) -> Option<&String> {
    match object {
        Object::Sysctl(setting) if setting.value == "1" => Some(&setting.name),
        _ => None,
    }
}

/// Switches of single interfaces that went on with that of all, and are off again.
fn kept_off(done: Vec<(Step, Result<()>)>) -> impl Iterator<Item = Repaired> {
    done.into_iter().map(|(step, done)| {
        let object = step.object().to_string();
        Repaired { who: "host".to_owned(), object, found: "switched on with all".to_owned(), outcome: outcome(&done) }
    })
}

fn is_lost_pair(step: &Step) -> bool {
    matches!(step, Step::Create(Object::Link(Link { kind: LinkKind::Veth(_), .. })))
}

fn found(drift: &Drift) -> String {
    if drift.is_missing() {
        return "missing".to_owned();
    }
    let differences: Vec<String> =
        drift.differences.iter().map(|difference| format!("{} {}", difference.field, difference.have)).collect();
    differences.join(", ")
}

pub(super) fn outcome(done: &Result<()>) -> Outcome {
    match done {
        Ok(()) => Outcome::Restored,
        Err(error) => Outcome::Failed { reason: error.to_string() },
    }
}
