//! Behind the last attachment: what a network's attachments share, and what networks share.

use super::{Engine, desired};
use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Mark, Name, NatRule, Network, Object, Phase, Place};
use crate::store::Record;

impl<K: Kernel> Engine<K> {
    /// What the attachments of `network` share, as far as its marks tell; nothing while there are
    /// some.
    pub(super) async fn marked_as_shared(&self, network: &Name) -> Result<Vec<Object>> {
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
    pub(super) async fn tidy(&self, network: &Network, expendable: &[Object]) -> Result<()> {
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
    pub(super) async fn tidy_host(&self, left: &Record) -> Result<()> {
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
    pub(super) fn unneeded(&self, likely: &Name, mut objects: Vec<Object>) -> Vec<Object> {
        objects.retain(|object| {
            let needs = |record: &Record| {
                desired(record).is_ok_and(|other| other.shared().any(|one| one.key() == object.key()))
            };
            matches!(self.store.any(Some(likely), needs), Ok(false))
        });
        objects
    }
}

/// Those of what the attachments of `network` `shared` that go with the last of them: all, or what
/// others are asked for, which is for no longer than it is needed.
pub(super) fn expendable(network: &Network, mut shared: Vec<Object>) -> Vec<Object> {
    shared.retain(|object| driver::is_shared_for_a_time(network) || matches!(object, Object::Admission(_)));
    shared
}
