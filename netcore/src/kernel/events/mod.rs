//! What the kernel says of changes that others make: to the rule set, to links, addresses and
//! routes, and to forwarding.
//!
//! Two sockets listen. Most of what happens on a host where containers come and go is of no
//! interest: of links and settings, the kernel itself is told which messages to deliver
//! (`filter`); of the rule set, all are delivered, and what was only added is passed over
//! (`rule_set`). What remains says whose something was by its mark, where it carries one
//! (`Losses`), so that whoever mends need not look at everything.

mod filter;
mod iptables;
mod losses;
mod routing;
mod rule_set;
mod socket;
mod unannounced;

use std::io;
use std::time::Duration;

use nftnl_sys::libc;

pub use losses::{Culprit, Losses, Scope};
pub(super) use routing::{NETCONFA_FORWARDING, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL};
pub(super) use socket::{Message, Socket};

use super::linux::Linux;
use crate::error::{Error, Result};

/// How long to let messages gather after some that were of no interest: in a storm of them, a
/// look at each would cost more than all of them together.
const GATHER: Duration = Duration::from_millis(10);

/// Hears what is changed in the namespace it was opened in.
#[derive(Debug)]
pub struct Events {
    routing: Socket,
    /// Nothing is heard of the rule set on a kernel without nf_tables.
    rule_set: Option<Socket>,
    /// What was read of the rule set's messages and is not finished: a transaction's end tells who
    /// made it.
    transaction: Losses,
    /// What our own changes of the rule set are known by.
    own_port: Option<u32>,
}

impl Linux {
    /// Hears from now on what is changed by others than this kernel's user.
    ///
    /// # Errors
    /// [`Error::Kernel`] without `CAP_NET_ADMIN`, or when the kernel cannot be listened to.
    pub fn events(&self) -> Result<Events> {
        let failed = |source: io::Error| {
            let detail = (source.raw_os_error() == Some(libc::EPERM))
                .then(|| "hearing of changes needs root (CAP_NET_ADMIN)".to_owned());
            Error::Kernel { operation: "listen to", object: "netlink".to_owned(), source, detail }
        };
        let rule_set = match Socket::open(libc::NETLINK_NETFILTER, &rule_set::GROUPS, &[]) {
            Ok(socket) => Some(socket),
            Err(error) if [Some(libc::EPROTONOSUPPORT), Some(libc::EINVAL)].contains(&error.raw_os_error()) => None,
            Err(error) => return Err(failed(error)),
        };
        let routing = Socket::open(libc::NETLINK_ROUTE, &routing::GROUPS, &filter::interesting()).map_err(failed)?;
        let own_port = if rule_set.is_some() { self.rule_set_port().ok() } else { None };
        Ok(Events { routing, rule_set, transaction: Losses::default(), own_port })
    }
}

impl Events {
    /// Whether changes of the rule set are heard; not on a kernel without nf_tables.
    #[must_use]
    pub fn hears_rule_set(&self) -> bool {
        self.rule_set.is_some()
    }

    /// Waits until others have changed something that may matter. What was heard is added to
    /// `losses`, also when this is cancelled.
    ///
    /// # Errors
    /// [`Error::Kernel`] when listening fails for good.
    pub async fn heard(&mut self, losses: &mut Losses) -> Result<()> {
        loop {
            match &self.rule_set {
                Some(rule_set) => {
                    let (one, other) = (std::pin::pin!(self.routing.readable()), std::pin::pin!(rule_set.readable()));
                    futures::future::select(one, other).await.factor_first().0
                }
                None => self.routing.readable().await,
            }
            .map_err(unheard)?;
            self.take(losses)?;
            if !losses.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Adds to `losses` what was heard so far, without waiting.
    ///
    /// # Errors
    /// [`Error::Kernel`] when listening fails for good.
    pub fn take(&mut self, losses: &mut Losses) -> Result<()> {
        let overflowed = self.routing.drain(|message| routing::read(message, losses)).map_err(unheard)?;
        if overflowed {
            losses.everything("more has happened than could be heard");
        }
        if let Some(rule_set) = &mut self.rule_set {
            let (transaction, own_port) = (&mut self.transaction, self.own_port);
            let overflowed =
                rule_set.drain(|message| rule_set::read(message, own_port, transaction, losses)).map_err(unheard)?;
            if overflowed {
                *transaction = Losses::default();
                losses.everything("more has happened to the firewall than could be heard");
            }
        }
        Ok(())
    }
}

fn unheard(source: io::Error) -> Error {
    Error::Kernel { operation: "listen to", object: "netlink".to_owned(), source, detail: None }
}
