//! All interfaces of the host, listed beside the caller, who has something else to do meanwhile: the kernel takes as
//! long to tell of a thousand as it takes to read their records.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use futures::FutureExt;

use super::{Seen, message};
use crate::error::Result;
use crate::kernel::rtnl::{Refusal, Rtnl};

/// A listing that has begun, until somebody takes it.
#[derive(Debug)]
pub(in crate::kernel) struct Listing(Mutex<Option<JoinHandle<Listed>>>);

/// Nothing, should listing ever come to wait for anything.
type Listed = Option<Result<Vec<Seen>, Refusal>>;

impl Listing {
    /// Begins one, unless there can be no thread for it: then whoever wants a listing has to wait for theirs.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not let itself be asked.
    pub(in crate::kernel) fn begin() -> Result<Option<Self>> {
        let rtnl = Rtnl::open(None)?;
        let thread = thread::Builder::new().spawn(move || message::named(&rtnl, |_| true).now_or_never());
        Ok(thread.ok().map(|thread| Self(Mutex::new(Some(thread)))))
    }

    /// What was there when it was listed. It is told once: to look again is to ask anew.
    pub(in crate::kernel) fn take(&self) -> Listed {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        thread.join().ok().flatten()
    }
}
