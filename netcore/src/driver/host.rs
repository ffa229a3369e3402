//! `host`: the sandbox is the host's namespace. A namespace file that the runtime has made for the
//! container is bound to the host's before the container starts; nothing else is made.

use super::Desired;
use crate::error::{Error, Result};
use crate::model::{Attachment, Binding, Lease, Network, Object};

pub(super) fn validate(network: &Network) -> Result<()> {
    match network.ipam {
        None => Ok(()),
        Some(_) => {
            Err(Error::invalid("ipam", "a section", "absent: containers have the addresses of the host, and no others"))
        }
    }
}

/// What it takes for the sandbox to be the namespace that is shared, whosever it is.
pub(super) fn desired(attachment: &Attachment, lease: &Lease) -> Desired {
    let binding = lease.namespace.as_ref().filter(|namespace| !namespace.given).zip(attachment.netns.as_ref());
    let binding = binding.map(|(namespace, path)| Binding { path: path.clone(), to: namespace.clone() });
    Desired { attachment: binding.map(Object::Binding).into_iter().collect(), ..Desired::default() }
}
