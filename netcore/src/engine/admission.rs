//! Taking back what was asked of others' firewalls: it is for the link, and networks share links.

use super::Engine;
use crate::apply::apply_shared;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Name, Object};
use crate::plan::plan;

impl<K: Kernel> Engine<K> {
    /// Takes back those of `admissions` that no record asks for, behind the last attachment of
    /// `network`.
    ///
    /// An attachment to another network on the same link may come about meanwhile, and have found
    /// its admission given. It had its record by then, so it is found by looking once more, and gets
    /// back what it relies on.
    pub(super) async fn take_back(&self, network: &Name, admissions: Vec<Object>) -> Result<()> {
        let unneeded = self.unneeded(network, admissions);
        Error::from_list(self.remove(None, &unneeded).await)?;
        if self.store.networks()?.iter().all(|other| other == network) {
            return Ok(());
        }
        let seen = self.kernel.observe(&unneeded).await?;
        let lost: Vec<Object> =
            unneeded.into_iter().filter(|object| !seen.by_key().contains_key(&object.key())).collect();
        // Where nothing has to be let pass, nothing was lost, and no record is read.
        if lost.is_empty() {
            return Ok(());
        }
        let unneeded = self.unneeded(network, lost.clone());
        let needed: Vec<Object> = lost.into_iter().filter(|object| !unneeded.contains(object)).collect();
        apply_shared(&self.kernel, &plan(&needed, &seen)?).await
    }
}
