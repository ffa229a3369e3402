//! On the way in: everything is made, or nothing is left of it.

use super::{Attached, Engine, desired, firewalld, request, resolve, validate};
use crate::apply::{apply, apply_shared};
use crate::driver::{self, Desired};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Attachment, IpamConfig, Lease, Network, Object, Phase, Place};
use crate::plan::{Step, plan};
use crate::store::Record;

impl<K: Kernel> Engine<K> {
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
