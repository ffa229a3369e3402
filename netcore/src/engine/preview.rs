//! What an attach would do, without doing it.

use serde::Serialize;

use super::{Engine, desired, request, resolve, validate};
use crate::driver;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Attachment, IpamConfig, Lease, Network, Object};
use crate::plan::{Step, plan};
use crate::store::Record;

/// What an attach would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// What it would be given.
    pub lease: Option<Lease>,
    /// What would be done to what attachments share.
    pub shared: Vec<Step>,
    /// What would be made for the attachment itself.
    pub own: Vec<Step>,
}

impl<K: Kernel> Engine<K> {
    /// What [`attach`](Self::attach) would do if it were called now: nothing is reserved or
    /// changed, and no record written. Without a namespace, everything in the container is taken to be missing.
    ///
    /// # Errors
    /// What would keep the attachment from being made; [`Error::Unsupported`] when the addresses
    /// are handed out by somebody who does not tell beforehand.
    pub async fn preview(&self, network: &Network, mut attachment: Attachment) -> Result<Preview> {
        validate(network)?;
        let kernel = self.kernel.enter(attachment.netns.as_deref()).await?;
        if self.store.load(network, &attachment.id)?.is_some() {
            return Err(Error::AlreadyAttached {
                network: network.name.to_string(),
                attachment: attachment.id.to_string(),
            });
        }
        let (network, _) = self.locate(&resolve::resolve(&kernel, network).await?).await?;
        let network = &network;
        driver::curtail(network, &mut attachment);
        let backend = self.kernel.backend(driver::firewall(network))?;
        let mut record = Record::new(network.clone(), attachment).with_backend(backend);
        if record.attachment.netns.is_some() {
            record.lease = self.namespace_for(network, &record.attachment)?.map(Lease::sharing);
        }
        if let Some(config) = &network.ipam {
            let untold = || Error::Unsupported {
                field: "ipam.type".to_owned(),
                value: format!("planning for {:?}", plugin(config)),
                way_out: "only the plugin itself knows what it would give; ask for a network with host-local or static"
                    .to_owned(),
            };
            let lease = match config {
                IpamConfig::Delegate(_) if self.delegate.is_none() => None,
                _ => self.ipam(network)?.map(|ipam| ipam.preview(&request(&record))).transpose()?.flatten(),
            };
            record.lease = Some(driver::complete(network, lease.ok_or_else(untold)?));
        }
        let desired = desired(&record)?;
        let actual = kernel.observe(&desired.all()).await?;
        let shared: Vec<Object> = desired.shared().cloned().collect();
        let (mut shared, own) = (plan(&shared, &actual)?, plan(&desired.attachment, &actual)?);
        shared.extend(self.changed_ways(&kernel, network).await?);
        Ok(Preview { lease: record.lease, shared, own })
    }
}

fn plugin(config: &IpamConfig) -> &str {
    match config {
        IpamConfig::HostLocal(_) => "host-local",
        IpamConfig::Static(_) => "static",
        IpamConfig::Delegate(delegated) => &delegated.plugin,
    }
}
