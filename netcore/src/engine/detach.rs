//! On the way out: what is an attachment's own goes piece by piece, whatever fails, and the same may be
//! asked again.

use std::collections::HashSet;
use std::path::Path;

use super::tidy::expendable;
use super::{Engine, Locks, desired, firewalld, request};
use crate::apply::{apply_all, apply_shared};
use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{
    Attachment, AttachmentId, IpamConfig, Key, Mark, Name, NatRule, Network, Object, Phase, Place, State,
};
use crate::plan::{Step, plan, removal, to_observe};
use crate::store::Record;

impl<K: Kernel> Engine<K> {
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

    /// Removes what is the attachment's own, then its lease, then its record: an address is free
    /// only once nothing answers to it any more, and the record goes when all is done, unless there is
    /// a `fault` with it.
    pub(super) async fn withdraw(&self, record: &Record, locks: Locks, fault: Option<Error>) -> Vec<Error> {
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
    pub(super) async fn remove(&self, netns: Option<&Path>, objects: &[Object]) -> Vec<Error> {
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
}
