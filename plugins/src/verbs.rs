//! What the protocol asks of whatever does the work: the engine, or in tests, one that remembers
//! what it was asked.

use std::path::PathBuf;

use netcore::Result;
use netcore::model::{
    Attachment, AttachmentId, Dns, InterfaceName, LeasedAddress, Mac, Network, PortMapping, RouteSpec,
};

/// The verbs that touch the kernel.
pub(crate) trait Verbs {
    /// ADD.
    fn attach(&self, network: &Network, attachment: Attachment) -> Result<Attached>;
    /// DEL.
    fn detach(&self, network: &Network, id: &AttachmentId) -> Result<()>;
    /// CHECK; what later plugins of a chain have `changed` is as it should be.
    fn check(&self, network: &Network, id: &AttachmentId, changed: &Changed) -> Result<()>;
    /// GC.
    fn gc(&self, network: &Network, valid: &[AttachmentId]) -> Result<()>;
    /// STATUS.
    fn status(&self, network: &Network) -> Result<()>;
}

/// A finished attachment.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) id: AttachmentId,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) addresses: Vec<LeasedAddress>,
    pub(crate) routes: Vec<RouteSpec>,
    pub(crate) dns: Dns,
    pub(crate) publish: Vec<PortMapping>,
}

/// An interface an attachment stands on.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: InterfaceName,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u32>,
    pub(crate) sandbox: Option<PathBuf>,
}

/// What others have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u32>,
}
