//! Who stands in whose namespace, for those who look after a host: an owner that is detached
//! leaves its guests in a namespace without its interfaces, and somebody should be told.

use serde::Serialize;

use super::Engine;
use super::sharing::shared;
use crate::error::Result;
use crate::kernel::Kernel;
use crate::model::{AttachmentId, ContainerConfig, Mode, Name, SharedNamespace};
use crate::store::Record;

/// An attachment to a network of mode `container`, and whose namespace it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The guest's network.
    pub network: Name,
    /// The guest.
    pub guest: AttachmentId,
    /// The namespace it shares, as it was found when the guest was attached.
    pub namespace: SharedNamespace,
    /// The container that the namespace belongs to, if one of ours does.
    pub owner: Option<Name>,
    /// Whether the owner has been detached since, or its namespace file has gone: the guest goes on
    /// in a namespace that nobody looks after.
    pub owner_is_gone: bool,
}

impl Share {
    /// Whom it shares with: the container, or where the namespace was found, or its number.
    #[must_use]
    pub fn with(&self) -> String {
        match (&self.owner, &self.namespace.found_at) {
            (Some(owner), _) => owner.to_string(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => self.namespace.id.to_string(),
        }
    }
}

impl<K: Kernel> Engine<K> {
    /// Every attachment that stands in another container's namespace, and whose that is, by network
    /// and name.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when the records cannot be read.
    pub fn shares(&self) -> Result<Vec<Share>> {
        let guests = self.store.of_mode(&Mode::Container(ContainerConfig::default()))?;
        let shares: Result<Vec<Share>> = guests.into_iter().filter_map(|guest| self.share(guest).transpose()).collect();
        let mut shares = shares?;
        shares.sort_by(|one, other| (&one.network, &one.guest).cmp(&(&other.network, &other.guest)));
        Ok(shares)
    }

    fn share(&self, guest: Record) -> Result<Option<Share>> {
        let Some(namespace) = shared(&guest).cloned() else { return Ok(None) };
        let stands_there = |record: &Record| {
            let netns = record.attachment.netns.as_deref().filter(|_| shared(record).is_none());
            netns.is_some_and(|netns| self.kernel.identify(Some(netns)).is_ok_and(|id| id == namespace.id))
        };
        let owners = match &namespace.owner {
            Some(owner) => self.store.of_container(owner)?,
            // It may have been attached after its guest.
            None => self.store.records(None)?.0,
        };
        let attached = owners.iter().find(|record| stands_there(record)).map(|record| &record.attachment.id.container);
        let owner = attached.or(namespace.owner.as_ref()).cloned();
        let is_at = |path| self.kernel.identify(Some(path)).is_ok_and(|id| id == namespace.id);
        let owner_is_gone = match owner {
            Some(_) => attached.is_none(),
            None => !namespace.found_at.as_deref().is_some_and(is_at),
        };
        Ok(Some(Share { network: guest.network.name, guest: guest.attachment.id, namespace, owner, owner_is_gone }))
    }
}
