//! Who gets which address. [`Ipam`] is all the engine knows; [`HostLocal`] gives addresses out of
//! ranges and remembers them in the reference plugin's own files, [`Static`] gives what is written
//! down, and a delegate, which is somebody else's executable, is handed in by whoever can run it.
//!
//! Everything here is blocking file I/O of a few short calls. Nothing on the way in reads more as
//! a network fills up.

mod host_local;
mod range;
mod reservations;
mod resolv_conf;
mod stamp;
mod static_;
#[cfg(test)]
mod tests;

pub use host_local::HostLocal;
pub use static_::Static;

use crate::error::{Error, Result};
use crate::model::{self, Attachment, AttachmentId, IpamConfig, Lease, Name};

/// Gives addresses to attachments, and takes them back.
pub trait Ipam: Send + Sync {
    /// Reserves addresses for an attachment, one from each set, those that were asked for among
    /// them; or, on any error, none.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::PoolExhausted`],
    /// [`Error::AddressTaken`], [`Error::File`],
    /// [`Error::Delegate`].
    fn allocate(&self, request: &Request<'_>) -> Result<Lease>;

    /// What [`allocate`](Self::allocate) would give if it were asked now, without giving it;
    /// `None` when that cannot be known beforehand.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    fn preview(&self, request: &Request<'_>) -> Result<Option<Lease>>;

    /// Takes an attachment's addresses back. That it has none is a success, so this can be
    /// repeated.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Delegate`]. Whatever
    /// else can be released has been released then.
    fn release(&self, request: &Request<'_>) -> Result<()>;

    /// Whether an attachment still has its addresses.
    ///
    /// # Errors
    /// [`Error::Conflict`] or [`Error::AddressTaken`],
    /// which name the address.
    fn check(&self, request: &Request<'_>) -> Result<()>;

    /// Whether `network` has an address left for one more attachment, as far as can be told.
    ///
    /// # Errors
    /// [`Error::PoolExhausted`], and what is wrong with the
    /// configuration, if something is.
    fn status(&self, network: &Name) -> Result<()>;

    /// Takes back what belongs to none of the attachments in `valid`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Delegate`]. Whatever
    /// else can be released has been released then.
    fn gc(&self, network: &Name, valid: &[AttachmentId]) -> Result<()>;
}

impl<T: Ipam + ?Sized> Ipam for &T {
    fn allocate(&self, request: &Request<'_>) -> Result<Lease> {
        (**self).allocate(request)
    }

    fn preview(&self, request: &Request<'_>) -> Result<Option<Lease>> {
        (**self).preview(request)
    }

    fn release(&self, request: &Request<'_>) -> Result<()> {
        (**self).release(request)
    }

    fn check(&self, request: &Request<'_>) -> Result<()> {
        (**self).check(request)
    }

    fn status(&self, network: &Name) -> Result<()> {
        (**self).status(network)
    }

    fn gc(&self, network: &Name, valid: &[AttachmentId]) -> Result<()> {
        (**self).gc(network, valid)
    }
}

/// What an address is wanted, or no longer wanted, for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The network.
    pub network: &'a Name,
    /// The attachment, with the addresses it asks for and its namespace.
    pub attachment: &'a Attachment,
    /// What it was given, where that is known: releasing it then takes no search.
    pub lease: Option<&'a Lease>,
}

/// Whether addresses could be given out by `config`: ranges that are ranges, apart from each
/// other, gateways in their subnets. Says nothing of a delegate's.
///
/// # Errors
/// [`Error::Invalid`], which names the field, its value and what would be
/// accepted.
pub fn validate(config: &IpamConfig) -> Result<()> {
    match config {
        IpamConfig::HostLocal(config) => {
            if let Some((directory, expected)) = model::HostLocal::misplaced(config.data_dir.as_deref()) {
                return Err(Error::invalid("ipam.dataDir", directory.display(), expected));
            }
            range::sets(config).map(drop)
        }
        IpamConfig::Static(config) => static_::validate(config),
        IpamConfig::Delegate(_) => Ok(()),
    }
}
