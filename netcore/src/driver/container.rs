//! `container`: the sandbox is another container's namespace. As [`host`], but that
//! the owner is somebody with interfaces, addresses and published ports of their own.

use super::{Desired, host};
use crate::error::{Error, Result};
use crate::model::{Attachment, Lease, Network};

pub(super) fn validate(network: &Network) -> Result<()> {
    match network.ipam {
        None => Ok(()),
        Some(_) => Err(Error::invalid(
            "ipam",
            "a section",
            "absent: containers have the addresses of the owner, and no others",
        )),
    }
}

pub(super) fn desired(attachment: &Attachment, lease: &Lease) -> Result<Desired> {
    match attachment.publish.first() {
        None => Ok(host::desired(attachment, lease)),
        Some(mapping) => Err(Error::Unsupported {
            field: "portMappings".to_owned(),
            value: mapping.to_string(),
            way_out: "the address is the owner's, and so are its ports: publish them where the owner is attached"
                .to_owned(),
        }),
    }
}
