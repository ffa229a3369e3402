//! The front door. Every verb is the same few lines: what should the kernel hold for this
//! (driver), what does it hold (observe), and what is to be done about the difference (plan,
//! apply). The verbs differ only in what they do with the answer.
//!
//! What an attachment owns is made all or nothing, and taken away piece by piece whatever fails.
//! What attachments share (the bridge, the firewall's table) is made by whoever comes first and
//! never undone while somebody else may have begun to rely on it: the network's lock is held
//! shared while an attachment changes, and exclusively when the last one has gone.

mod admission;
mod attach;
mod attached;
mod detach;
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
mod tidy;
mod unasked;
mod watch;

use crate::driver::{self, Desired};
use crate::error::{Error, Result};
use crate::ipam::{self, Ipam, Request};
use crate::kernel::{Kernel, Linux};
use crate::model::{Attachment, AttachmentId, IpamConfig, Lease, Link, LinkKind, Mac, Name, Network, Object, Place};
use crate::peers::{self, Snapshots};
use crate::plan::drift;
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
