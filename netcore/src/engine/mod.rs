//! The front door. Every verb is the same few lines: what should the kernel hold for this
//! (driver), what does it hold (observe), and what is to be done about the difference (plan,
//! apply). The verbs differ only in what they do with the answer.
//!
//! What an attachment owns is made all or nothing, and taken away piece by piece whatever fails.
//! What attachments share (the bridge, the firewall's table) is made by whoever comes first and
//! never undone while somebody else may have begun to rely on it: the network's lock is held
//! shared while an attachment changes, and exclusively when the last one has gone.

mod admission;
mod attached;
mod diagnose;
mod firewalld;
mod follow;
mod leftovers;
mod missed;
mod overlay;
mod patience;
mod preview;
mod repair;
mod resolve;
mod shares;
mod sharing;
mod switches;
mod unasked;
mod watch;

use std::collections::HashSet;
use std::path::Path;

use crate::apply::{apply, apply_all, apply_shared};
use crate::driver::{self, Desired};
use crate::error::{Error, Result};
use crate::ipam::{self, Ipam, Request};
use crate::kernel::{Kernel, Linux};
use crate::model::{
    Attachment, AttachmentId, IpamConfig, Key, Lease, Link, LinkKind, Mac, Mark, Name, NatRule, Network, Object, Phase,
    Place, State,
};
use crate::peers::{self, Snapshots};
use crate::plan::{Step, drift, plan, removal, to_observe};
use crate::store::{DEFAULT_DIRECTORY, Lock, Record, Store};

pub use crate::store::Record as Standing;
pub use attached::{Attached, Interface};
pub use diagnose::{Cure, Diagnosis, Passed, Stopped};
pub use follow::{Follower, Heard};
pub use preview::Preview;
pub use repair::{Outcome, Repair, RepairOptions, Repaired};
pub use shares::Share;
pub use watch::{Fight, Mended, Watch};

/// Attaches containers to networks, and looks after what it made.
pub struct Engine<K: Kernel = Linux> {
    kernel: K,
    store: Store,
    snapshots: Snapshots,
    delegate: Option<Box<dyn Ipam>>,
}

/// Where it is remembered that the rule set was found intact. Beside the records, not among them:
/// it may go at any time.
const DEFAULT_MEMORY: &str = "/run/netcore.verified";

/// What others are known to have changed about an interface since it was attached, and that is
/// therefore no drift: a chained plugin that tunes it, for instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The MAC address the container's interface was given.
    pub mac: Option<Mac>,
    /// The MTU it was given, in bytes.
    pub mtu: Option<u32>,
}

impl Engine<Linux> {
    /// An engine for this host: the namespace of the calling thread, with records under
    /// `/run/netcore`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel cannot be reached.
    pub fn open() -> Result<Self> {
        let kernel = Linux::host().remembering(DEFAULT_MEMORY);
        Ok(Self::new(kernel, Store::new(DEFAULT_DIRECTORY)))
    }
}

impl<K: Kernel> Engine<K> {
    /// An engine on `kernel` that keeps its records in `store`.
    pub fn new(kernel: K, store: Store) -> Self {
        Self { kernel, store, snapshots: Snapshots::new(peers::DEFAULT_DIRECTORY), delegate: None }
    }

    /// Has what is known of overlays kept in `snapshots`.
    #[must_use]
    pub fn with_snapshots(self, snapshots: Snapshots) -> Self {
        Self { snapshots, ..self }
    }

    /// What is known of overlays.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Has addresses of networks whose `ipam` is none of ours handed out by `delegate`.
    #[must_use]
    pub fn with_ipam(mut self, delegate: Box<dyn Ipam>) -> Self {
        self.delegate = Some(delegate);
        self
    }

    /// Attaches a container to `network`: everything the driver says there should be is there
    /// afterwards, or nothing new is.
    ///
    /// # Errors
    /// Whatever kept it from being made. What had been done is undone.
    pub async fn attach(&self, network: &Network, mut attachment: Attachment) -> Result<Attached> {
        validate(network)?;
        let Some(netns) = attachment.netns.as_deref() else {
            return Err(Error::invalid("netns", "nothing", "the path of the container's network namespace"));
        };
        let kernel = self.kernel.enter(Some(netns)).await?;
        let network = &resolve::resolve(&kernel, network).await?;
        let locks = self.lock(network, &attachment)?;
        if self.store.load(network, &attachment.id)?.is_some() {
            return Err(Error::AlreadyAttached {
                network: network.name.to_string(),
                attachment: attachment.id.to_string(),
            });
        }
        let (network, mut warnings) = self.locate(network).await?;
        warnings.extend(driver::curtail(&network, &mut attachment));
        let backend = self.kernel.backend(driver::firewall(&network))?;
        let record = Record::new(network, attachment).with_backend(backend);
        let mut work = Work::new(record);
        match self.build(&kernel, &mut work).await {
            Ok(attached) => Ok(Attached { warnings: [warnings, work.warnings].concat(), ..attached }),
            Err(failure) => {
                let mut errors = vec![failure];
                errors.extend(self.withdraw(&work.record, locks, None).await);
                errors.extend(self.tidy(&work.record.network, &work.made_shared).await.err());
                errors.extend(self.tidy_host(&work.record).await.err());
                Err(Error::several(errors))
            }
        }
    }

    /// Takes a container off `network`, as far as that is still to be done. What was recorded
    /// when it was attached counts; without a record, or with one that cannot be read, the marks in
    /// the kernel do.
    ///
    /// # Errors
    /// Everything that could not be removed, and a record that cannot be read while something may be
    /// left that only it tells of. The rest is removed, and the same call may be made again.
    pub async fn detach<I>(&self, network: &Network, id: I) -> Result<()>
    where
        I: TryInto<AttachmentId>,
        Error: From<I::Error>,
    {
        self.detach_from(network, id, None).await
    }

    /// As [`detach`](Self::detach), for a caller who knows the container's namespace: without a
    /// record, marks are looked for in there as well.
    ///
    /// # Errors
    /// As [`detach`](Self::detach).
    pub async fn detach_from<I>(&self, network: &Network, id: I, netns: Option<&Path>) -> Result<()>
    where
        I: TryInto<AttachmentId>,
        Error: From<I::Error>,
    {
        let attachment = Attachment::new(id.try_into()?, netns.map(Path::to_owned));
        let locks = self.lock(network, &attachment)?;
        let (known, fault) = match self.store.load(network, &attachment.id) {
            Ok(known) => (known, None),
            Err(fault) => (None, Some(fault).filter(|_| self.is_needed(network, &attachment))),
        };
        let is_known = known.is_some();
        let record = known.unwrap_or_else(|| Record::new(driver::anywhere(network), attachment));
        let mut errors = self.withdraw(&record, locks, fault).await;
        if !is_known {
            // It may have published something or not, and whoever detaches twice is to succeed twice:
            // a repair finds what is missing.
            let _ = self.hand_over_ports(&record).await;
        } else if !record.attachment.publish.is_empty() {
            errors.extend(self.hand_over_ports(&record).await.err());
        }
        let shared = match desired(&record) {
            Ok(desired) if is_known => Ok(desired.network),
            // Whoever detached the last one may have died before this.
            _ => self.marked_as_shared(&record.network.name).await,
        };
        match shared {
            Ok(shared) => {
                let expendable = expendable(&record.network, shared);
                errors.extend(self.tidy(&record.network, &expendable).await.err());
            }
            Err(error) => errors.push(error),
        }
        errors.extend(self.tidy_host(&record).await.err());
        Error::from_list(errors)
    }

    /// Whether everything an attachment stands on is as it was made.
    ///
    /// # Errors
    /// [`Error::Drift`] with every object that is missing or different, [`Error::NotAttached`]
    /// without a record.
    pub async fn check<I>(&self, network: &Network, id: I) -> Result<()>
    where
        I: TryInto<AttachmentId>,
        Error: From<I::Error>,
    {
        self.check_after(network, id, &Changed::default()).await
    }

    /// As [`check`](Self::check), but what is `changed` is as it should be.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub async fn check_after<I>(&self, network: &Network, id: I, changed: &Changed) -> Result<()>
    where
        I: TryInto<AttachmentId>,
        Error: From<I::Error>,
    {
        let id = id.try_into()?;
        let Some(record) = self.store.load(network, &id)? else {
            return Err(Error::NotAttached {
                network: network.name.to_string(),
                attachment: id.to_string(),
                records: self.store.directory().to_owned(),
            });
        };
        let mut wanted = desired(&record)?.all();
        wanted.extend(self.ways(&record.network)?);
        expect(&mut wanted, changed);
        let netns = record.attachment.netns.as_deref();
        let netns = netns.filter(|_| wanted.iter().any(Object::reaches_into_sandbox));
        let kernel = self.kernel.enter(netns).await?;
        let drifts = drift(&wanted, &kernel.observe(&wanted).await?);
        let mut errors = Vec::new();
        if !drifts.is_empty() {
            errors.push(Error::Drift(drifts));
        }
        if let Some(ipam) = self.ipam(&record.network)? {
            errors.extend(ipam.check(&request(&record)).err());
        }
        Error::from_list(errors)
    }

    /// Detaches everything of `network` but the `valid` attachments: those with a record, those
    /// that only left marks in the kernel, and reservations nobody stands behind.
    ///
    /// # Errors
    /// Everything that could not be removed. The rest is removed.
    pub async fn gc(&self, network: &Network, valid: &[AttachmentId]) -> Result<()> {
        let network = &driver::anywhere(network);
        let mut errors = Vec::new();
        for id in self.store.attachments(network)? {
            if !valid.contains(&id) {
                errors.extend(self.detach(network, id).await.err());
            }
        }
        let survivors: Vec<Mark> = valid.iter().map(|id| id.mark(&network.name)).collect();
        let shared = Mark::of_network(&network.name);
        let mut stray = self.kernel.marked(&network.name).await?;
        stray.retain(|object| object.mark().is_some_and(|mark| *mark != shared && !survivors.contains(mark)));
        errors.extend(self.remove(None, &stray).await);
        match self.marked_as_shared(&network.name).await {
            Ok(shared) => errors.extend(self.tidy(network, &expendable(network, shared)).await.err()),
            Err(error) => errors.push(error),
        }
        match self.sweep().await {
            Ok(swept) => errors.extend(swept.into_iter().filter_map(|(_, done)| done.err())),
            Err(error) => errors.push(error),
        }
        if errors.is_empty()
            && let Some(ipam) = self.ipam(network)?
        {
            errors.extend(ipam.gc(&network.name, valid).err());
        }
        Error::from_list(errors)
    }

    /// Whether `network` could take another attachment now.
    ///
    /// # Errors
    /// Why not.
    pub async fn status(&self, network: &Network) -> Result<()> {
        validate(network)?;
        let (network, _) = self.locate(network).await?;
        self.kernel.backend(driver::firewall(&network))?;
        match self.ipam(&network)? {
            Some(ipam) => ipam.status(&network.name),
            None => Ok(()),
        }
    }

    /// Every attachment there is a record of, or those to `network`; and what is wrong with records
    /// that cannot be used.
    ///
    /// # Errors
    /// [`Error::File`] when the records cannot be listed.
    pub fn attachments(&self, network: Option<&Name>) -> Result<(Vec<Standing>, Vec<Error>)> {
        self.store.records(network)
    }

    async fn build(&self, kernel: &K, work: &mut Work) -> Result<Attached> {
        let network = work.record.network.clone();
        work.record.lease = self.namespace_for(&network, &work.record.attachment)?.map(Lease::sharing);
        match self.ipam(&network)? {
            None => self.store.save(&work.record)?,
            Some(ipam) => {
                if matches!(network.ipam, Some(IpamConfig::Delegate(_))) {
                    self.store.save(&work.record)?;
                    // Who asks the network for an address (dhcp) does so over the link that will carry it.
                    let mut unpublished = work.record.clone();
                    unpublished.attachment.publish.clear();
                    let mut links = desired(&unpublished)?;
                    links.retain(|object| object.phase() == Phase::Links);
                    self.make(kernel, &links, work).await?;
                }
                let lease = ipam.allocate(&request(&work.record))?;
                work.record.lease = Some(driver::complete(&network, lease));
                // An address without a record is given back by whoever detaches or collects garbage; there
                // is nothing else yet.
                self.store.save(&work.record)?;
            }
        }
        let desired = desired(&work.record)?;
        self.make(kernel, &desired, work).await?;
        self.open_ways(kernel, &network).await?;
        if work.record.lease.as_ref().is_some_and(|lease| lease.namespace.is_some()) {
            // What the sandbox is by now, not what it was when it was entered.
            let kernel = self.kernel.enter(work.record.attachment.netns.as_deref()).await?;
            return Ok(Attached::sharing(&work.record, kernel.interfaces(Place::Sandbox).await?));
        }
        let links: Vec<Object> = desired.all().into_iter().filter(|object| object.phase() == Phase::Links).collect();
        let mut seen = kernel.recall(&links).await?;
        seen.0.retain(|object| links.iter().any(|link| link.key() == object.key()));
        Ok(Attached::new(&work.record, &seen))
    }

    /// Makes what is missing of `desired`, and notes in `work` what of it the network's attachments share, and
    /// what others were asked for and did not do.
    async fn make(&self, kernel: &K, desired: &Desired, work: &mut Work) -> Result<()> {
        let all = desired.all();
        let actual = kernel.observe(&all).await?;
        let wanted: Vec<Object> = desired.shared().cloned().collect();
        let (shared, asked) = firewalld::split(plan(&wanted, &actual)?);
        let (own, asked_for_own) = firewalld::split(plan(&desired.attachment, &actual)?);
        let made = shared.iter().chain(&asked).filter(|step| matches!(step, Step::Create(_))).map(Step::object);
        work.made_shared.extend(made.filter(|object| desired.network.contains(object)).cloned());
        let switching = self.before_switching(kernel, &shared, &wanted).await?;
        apply_shared(kernel, &shared).await?;
        let switched = self.after_switching(kernel, switching).await?;
        switched.into_iter().try_for_each(|(_, done)| done)?;
        apply(kernel, &own).await?;
        work.warnings.extend(firewalld::declined(&all, &actual));
        work.warnings.extend(firewalld::ask(kernel, &[asked, asked_for_own].concat()).await);
        Ok(())
    }

    /// Removes what is the attachment's own, then its lease, then its record: an address is free
    /// only once nothing answers to it any more, and the record goes when all is done, unless there is
    /// a `fault` with it.
    async fn withdraw(&self, record: &Record, locks: Locks, fault: Option<Error>) -> Vec<Error> {
        // Who asked the network for an address (dhcp) gives it back over the link that carried it.
        let by_delegate = matches!(record.network.ipam, Some(IpamConfig::Delegate(_)));
        let mut errors = Vec::new();
        if by_delegate {
            let outcome = self.silence(record).await.and_then(|()| self.release(record));
            errors.extend(outcome.err());
        }
        errors.extend(self.dismantle(record).await);
        if errors.is_empty() && !by_delegate {
            errors.extend(self.release(record).err());
        }
        errors.extend(fault);
        if errors.is_empty() {
            errors.extend(self.store.remove(&record.network, &record.attachment.id).err());
        }
        if errors.is_empty() {
            locks.attachment.remove();
        }
        errors
    }

    /// Takes the leased addresses off the container's link, so that nothing answers to them there.
    async fn silence(&self, record: &Record) -> Result<()> {
        let mut leased = desired(record).map(|desired| desired.attachment).unwrap_or_default();
        leased.retain(|object| object.phase() == Phase::Addresses && object.place() == Some(Place::Sandbox));
        let Some(netns) = record.attachment.netns.as_deref().filter(|_| !leased.is_empty()) else { return Ok(()) };
        // What is gone answers to nothing.
        let Ok(kernel) = self.kernel.enter(Some(netns)).await else { return Ok(()) };
        let mut there = kernel.observe(&leased).await?.0;
        there.retain(|object| leased.iter().any(|address| address.key() == object.key()));
        let steps: Vec<Step> = there.into_iter().map(Step::Remove).collect();
        Error::from_list(apply_all(&kernel, &steps).await)
    }

    async fn dismantle(&self, record: &Record) -> Vec<Error> {
        let name = &record.network.name;
        let netns = record.attachment.netns.as_deref();
        let mut own = desired(record).map(|desired| desired.attachment).unwrap_or_default();
        if own.is_empty() || record.lease.is_none() && record.network.ipam.is_some() {
            // Nobody remembers all there should be; what there is carries our mark.
            let mark = record.attachment.id.mark(name);
            let known: HashSet<Key> = own.iter().map(Object::key).collect();
            match self.marked(name, netns).await {
                Ok(objects) => own.extend(
                    objects.into_iter().filter(|object| object.mark() == Some(&mark) && !known.contains(&object.key())),
                ),
                Err(error) => return vec![error],
            }
        }
        let (kernel, actual) = match self.look_at(netns, &own).await {
            Ok(seen) => seen,
            Err(error) => return vec![error],
        };
        let mut errors = apply_all(&kernel, &removal(&own, &actual)).await;
        errors.extend(self.remove_renamed(record, &own, &actual).await);
        errors
    }

    /// What carries a mark of `network`, on the host and in `netns` if that is still there.
    async fn marked(&self, network: &Name, netns: Option<&Path>) -> Result<Vec<Object>> {
        match self.kernel.enter(netns).await {
            Ok(kernel) => kernel.marked(network).await,
            Err(_) => self.kernel.marked(network).await,
        }
    }

    /// Removes those of `objects` that are there and ours, those of the sandbox out of `netns`.
    async fn remove(&self, netns: Option<&Path>, objects: &[Object]) -> Vec<Error> {
        match self.look_at(netns, objects).await {
            Ok((kernel, actual)) => apply_all(&kernel, &removal(objects, &actual)).await,
            Err(error) => vec![error],
        }
    }

    /// Which of `objects` are there, and where they are to be removed from.
    async fn look_at(&self, netns: Option<&Path>, objects: &[Object]) -> Result<(K, State)> {
        let looked_at = to_observe(objects);
        // A namespace is entered only for what does not go with the host's end of a link; one
        // that is gone has taken everything along.
        let netns = netns.filter(|_| looked_at.iter().any(|object| object.place() == Some(Place::Sandbox)));
        let kernel = match self.kernel.enter(netns).await {
            Err(_) if netns.is_some() => self.kernel.enter(None).await?,
            entered => entered?,
        };
        let actual = kernel.observe(&looked_at).await?;
        Ok((kernel, actual))
    }

    /// Removes those links among `own` that are not in `actual`, but there by other names: who
    /// renames a link leaves its mark on it. A namespace that is gone has taken them along.
    async fn remove_renamed(&self, record: &Record, own: &[Object], actual: &State) -> Vec<Error> {
        let seen = actual.by_key();
        let is_there = |link: &&Object| seen.get(&link.key()).is_some_and(|found| found.mark() == link.mark());
        let links = own.iter().filter(|object| object.phase() == Phase::Links);
        let missing: HashSet<&Mark> = links.filter(|link| !is_there(link)).filter_map(Object::mark).collect();
        let Some(netns) = record.attachment.netns.as_deref().filter(|_| !missing.is_empty()) else { return Vec::new() };
        let Ok(kernel) = self.kernel.enter(Some(netns)).await else { return Vec::new() };
        match kernel.marked(&record.network.name).await {
            Ok(mut found) => {
                found.retain(|object| {
                    object.phase() == Phase::Links && object.mark().is_some_and(|mark| missing.contains(mark))
                });
                let actual = State(found);
                apply_all(&kernel, &removal(&actual.0, &actual)).await
            }
            Err(error) => vec![error],
        }
    }

    fn release(&self, record: &Record) -> Result<()> {
        match self.ipam(&record.network)? {
            Some(ipam) => ipam.release(&request(record)),
            None => Ok(()),
        }
    }

    /// A container on several networks publishes its ports by one of them. When that one is left,
    /// those it stays on take over.
    async fn hand_over_ports(&self, left: &Record) -> Result<()> {
        for other in self.store.of_container(&left.attachment.id.container)? {
            let (network, id) = (&other.network, &other.attachment.id);
            let _locks = self.lock(network, &other.attachment)?;
            // It may have gone before the locks were taken.
            let Some(record) = self.store.load(network, id)? else { continue };
            let mut published = desired(&record)?.attachment;
            published.retain(|object| {
                matches!(object.rule(), Some(NatRule::Publish { .. })) || matches!(object, Object::ForwardPort(_))
            });
            let steps = plan(&published, &self.kernel.observe(&published).await?)?;
            let (steps, asked) = firewalld::split(steps);
            apply_shared(&self.kernel, &steps).await?;
            // Nobody listens any more to what is refused; a repair tries again.
            firewalld::ask(&self.kernel, &asked).await;
        }
        Ok(())
    }

    /// What the attachments of `network` share, as far as its marks tell; nothing while there are
    /// some.
    async fn marked_as_shared(&self, network: &Name) -> Result<Vec<Object>> {
        if self.store.has_attachments(network)? {
            return Ok(Vec::new());
        }
        let shared = Mark::of_network(network);
        let mut marked = self.kernel.marked(network).await?;
        marked.retain(|object| object.mark() == Some(&shared));
        Ok(marked)
    }

    /// Cleans up behind the last attachment of a network: of what attachments share, those of
    /// `expendable` that carry the network's mark go as well.
    async fn tidy(&self, network: &Network, expendable: &[Object]) -> Result<()> {
        let name = &network.name;
        if self.store.has_attachments(name)? {
            return Ok(());
        }
        let lock = self.store.lock_network(name)?;
        if self.store.has_attachments(name)? {
            return Ok(());
        }
        let marked = expendable.iter().filter(|object| object.mark().is_some()).cloned();
        let (admissions, marked): (Vec<Object>, Vec<Object>) =
            marked.partition(|object| matches!(object, Object::Admission(_)));
        let (links, others): (Vec<Object>, Vec<Object>) =
            marked.into_iter().partition(|object| object.phase() == Phase::Links);
        Error::from_list(self.remove(None, &links).await)?;
        // A bridge that others still use stays, and so does what the firewall knows of it.
        let stays = self.kernel.observe(&links).await?;
        let is_of_what_stays = |object: &Object| match object.rule() {
            Some(NatRule::Member { bridge, .. }) => stays.link(Place::Host, bridge).is_some(),
            _ => false,
        };
        if !others.iter().any(is_of_what_stays) {
            Error::from_list(self.remove(None, &others).await)?;
            if !links.is_empty() {
                self.close_ways(network).await?;
            }
        }
        self.take_back(name, admissions).await?;
        self.store.forget_network(name, lock);
        // Whoever removed the last of it may have died before this.
        let went = expendable.iter().any(|object| !matches!(object, Object::Admission(_)));
        let goes = went || driver::is_shared_for_a_time(network);
        if goes { self.switch_back().await } else { Ok(()) }
    }

    /// Cleans up behind the last attachment of any network: of what those of several networks
    /// share with `left`, what no record needs any more.
    async fn tidy_host(&self, left: &Record) -> Result<()> {
        let mut unused = desired(left).map(|desired| desired.host).unwrap_or_default();
        if unused.is_empty() {
            return Ok(());
        }
        let _lock = self.store.lock_host()?;
        unused = self.unneeded(&left.network.name, unused);
        Error::from_list(self.remove(None, &unused).await)
    }

    /// Those of `objects` that no record asks for as something shared. If one does, it is most
    /// likely one of the network `likely`; one that cannot be understood may.
    fn unneeded(&self, likely: &Name, mut objects: Vec<Object>) -> Vec<Object> {
        objects.retain(|object| {
            let needs = |record: &Record| {
                desired(record).is_ok_and(|other| other.shared().any(|one| one.key() == object.key()))
            };
            matches!(self.store.any(Some(likely), needs), Ok(false))
        });
        objects
    }

    fn lock(&self, network: &Network, attachment: &Attachment) -> Result<Locks> {
        let shared = self.store.share_network(&network.name)?;
        let own = self.store.lock_attachment(network, &attachment.id)?;
        let host = if shares_host(network, attachment) { Some(self.store.share_host()?) } else { None };
        Ok(Locks { attachment: own, _network: shared, _host: host })
    }

    fn ipam<'a>(&'a self, network: &'a Network) -> Result<Option<Box<dyn Ipam + 'a>>> {
        let Some(config) = &network.ipam else { return Ok(None) };
        match (config, &self.delegate) {
            (IpamConfig::HostLocal(config), _) => Ok(Some(Box::new(ipam::HostLocal::new(config)))),
            (IpamConfig::Static(config), _) => Ok(Some(Box::new(ipam::Static::new(config)))),
            (IpamConfig::Delegate(_), Some(delegate)) => Ok(Some(Box::new(delegate.as_ref()))),
            (IpamConfig::Delegate(delegated), None) => Err(Error::Unsupported {
                field: "ipam.type".to_owned(),
                value: format!("{:?}", delegated.plugin),
                way_out: "use \"host-local\" or \"static\", or hand the engine an Ipam of your own".to_owned(),
            }),
        }
    }
}

/// An attach under way.
struct Work {
    record: Record,
    /// What it made that attachments share.
    made_shared: Vec<Object>,
    /// What others did not do for it.
    warnings: Vec<String>,
}

impl Work {
    fn new(record: Record) -> Self {
        Self { record, made_shared: Vec::new(), warnings: Vec::new() }
    }
}

/// Dropped in this order: the attachment's lock first.
struct Locks {
    attachment: Lock,
    _network: Lock,
    _host: Option<Lock>,
}

fn validate(network: &Network) -> Result<()> {
    driver::validate(network)?;
    network.ipam.as_ref().map_or(Ok(()), ipam::validate)
}

/// Whether `attachment` shares anything with those of other networks.
fn shares_host(network: &Network, attachment: &Attachment) -> bool {
    driver::desired(network, attachment, &Lease::default()).is_ok_and(|desired| !desired.host.is_empty())
}

fn desired(record: &Record) -> Result<Desired> {
    let nothing = Lease::default();
    let lease = record.lease.as_ref().unwrap_or(&nothing);
    Ok(driver::desired(&record.network, &record.attachment, lease)?.under(record.backend, lease))
}

/// Those of what the attachments of `network` `shared` that go with the last of them: all, or what
/// others are asked for, which is for no longer than it is needed.
fn expendable(network: &Network, mut shared: Vec<Object>) -> Vec<Object> {
    shared.retain(|object| driver::is_shared_for_a_time(network) || matches!(object, Object::Admission(_)));
    shared
}

fn request(record: &Record) -> Request<'_> {
    Request { network: &record.network.name, attachment: &record.attachment, lease: record.lease.as_ref() }
}

/// Puts what is known to have changed in place of what was made.
fn expect(wanted: &mut [Object], changed: &Changed) {
    for object in wanted {
        if let Object::Link(Link { kind: LinkKind::Veth(veth), .. }) = object {
            veth.peer_mac = changed.mac.or(veth.peer_mac);
            veth.peer_mtu = changed.mtu.or(veth.peer_mtu);
        }
        if let Object::Link(link @ Link { place: Place::Sandbox, kind: LinkKind::Macvlan(_), .. }) = object {
            link.mac = changed.mac.or(link.mac);
            link.mtu = changed.mtu.or(link.mtu);
        }
    }
}
