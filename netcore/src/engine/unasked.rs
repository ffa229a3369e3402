//! What firewalld is still to be asked about. One that has no time, in the middle of a reload for one,
//! answers nobody; so it is first asked whether it is there, beside everything else, and for more only
//! once it has said so.

use std::future::pending;

use futures::channel::oneshot::Receiver;

use crate::kernel::{Linux, Losses};

/// What may be lost with firewalld.
#[derive(Debug, Default)]
pub(super) struct Unasked {
    losses: Losses,
    /// Whether it is there: not known yet.
    asking: Option<Receiver<bool>>,
    /// The same, known.
    is_there: Option<bool>,
}

impl Unasked {
    /// Adds `losses`, and has it asked whether it is there.
    pub(super) fn add(&mut self, losses: Losses, kernel: &Linux) {
        if losses.is_empty() {
            return;
        }
        self.losses.merge(losses);
        if self.is_there.is_none() {
            self.asking.get_or_insert_with(|| kernel.firewalld_is_there());
        }
    }

    /// Waits until it has answered; for ever if nothing was asked. May be cancelled.
    pub(super) async fn answered(&mut self) {
        match &mut self.asking {
            _ if self.is_there.is_some() => {}
            // Whoever was to find out has not: that shows when it is asked for more.
            Some(asking) => self.is_there = Some(asking.await.unwrap_or(true)),
            None => pending().await,
        }
        self.asking = None;
    }

    /// What to ask it about now, if it has answered. Without it there is nothing to ask.
    pub(super) fn take(&mut self) -> Option<Losses> {
        let is_there = self.is_there.take()?;
        let losses = std::mem::take(&mut self.losses);
        is_there.then_some(losses)
    }
}
