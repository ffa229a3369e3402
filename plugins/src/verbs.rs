//! What the protocol asks of whatever does the work: the engine, or in tests, one that remembers
//! what it was asked.

use std::path::Path;

use netcore::Result;
use netcore::engine::{Attached, Changed};
use netcore::model::{Attachment, AttachmentId, Name, Network};

/// The verbs that touch the kernel.
pub(crate) trait Verbs {
    /// ADD.
    fn attach(&self, network: &Network, attachment: Attachment) -> Result<Attached>;
    /// DEL, from the container's namespace if that is known.
    fn detach(&self, network: &Network, id: &AttachmentId, netns: Option<&Path>) -> Result<()>;
    /// CHECK; what later plugins of a chain have `changed` is as it should be.
    fn check(&self, network: &Network, id: &AttachmentId, changed: &Changed) -> Result<()>;
    /// GC.
    fn gc(&self, network: &Network, valid: &[AttachmentId]) -> Result<()>;
    /// Whether one of our networks has put `container` into the host's namespace.
    fn is_on_host(&self, container: &Name) -> Result<bool>;
    /// STATUS.
    fn status(&self, network: &Network) -> Result<()>;
}
