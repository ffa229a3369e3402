//! `watch`: a repair whenever others have changed something, by itself.
//!
//! Listening begins before the first look, so that nothing is missed in between. What was heard is
//! left to settle for a moment, since changes come in bunches; then what may be lost is looked at,
//! and mended, by [`repair`](Engine::repair) or the same for a few attachments. What cannot be heard
//! is looked at now and then (`missed`). An attachment on its way out looks like a loss until its
//! record is gone: that is found out under its lock.
//!
//! What firewalld is asked for comes last, when it has time ([`Unasked`]): what is ours to bring back
//! does not wait for that.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use serde::Serialize;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::missed::Missed;
use super::patience::{Patience, Pause};
use super::repair::{Extent, Part, Reach};
use super::switches::Thrown;
use super::unasked::Unasked;
use super::{Engine, Outcome, Repair};
use crate::error::Result;
use crate::kernel::{Culprit, Events, Losses, Scope};
use crate::model::Mark;

/// How long nothing more must have been heard before everything is looked at.
const QUIET: Duration = Duration::from_millis(10);
/// The same for what is some attachment's own: detaching takes the kernel about this long.
const QUIET_OF_ONE: Duration = Duration::from_millis(40);
/// How long to wait for that at most.
const UNREST: Duration = Duration::from_millis(200);
/// How long ago the last look must be for what is lost of the firewall's rules to be looked at without
/// waiting: a transaction is whole when it is heard of, and nobody who attaches or detaches takes rules
/// away. What follows is left to settle.
const CALM: Duration = Duration::from_millis(500);
/// How long a firewalld that has time takes to say so, so that all can be told at once.
const GRACE: Duration = Duration::from_millis(20);

/// Watches over what the records ask for. See [`Engine::watch`].
pub struct Watch<'a> {
    engine: &'a Engine,
    events: Events,
    /// What may be lost, and since when it is known.
    losses: Losses,
    since: Option<Instant>,
    /// What was heard last, and is not among the losses yet.
    heard: Losses,
    /// What firewalld is still to be asked about.
    unasked: Unasked,
    patience: Patience,
    missed: Missed,
    /// How often to look without having heard anything.
    every: Option<Duration>,
    looked: Instant,
}

/// What came of one look.
#[derive(Clone, Debug, Serialize)]
pub struct Mended {
    /// What was found, and what became of it.
    #[serde(flatten)]
    pub repair: Repair,
    /// Why everything was looked at; nothing if it was only what is somebody's own.
    pub reasons: Vec<String>,
    /// Who changed the rule set before, where the kernel told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Culprit>,
    /// From the first that was heard of it until it was mended.
    #[serde(rename = "milliseconds", serialize_with = "as_milliseconds")]
    pub took: Duration,
    /// How long to wait before the next repair, and how often the same was brought back in a row:
    /// something fights it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fight: Option<Fight>,
}

/// The same thing is lost again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fight {
    /// How often in a row it was brought back.
    pub times: u32,
    /// How long it stays lost next time, at most, before it is brought back.
    #[serde(rename = "pause_milliseconds", serialize_with = "as_milliseconds")]
    pub pause: Duration,
}

impl Engine {
    /// Begins to watch. Nothing has been looked at yet: everything is, by the first
    /// [`mend`](Watch::mend).
    ///
    /// ```no_run
    /// # async fn example() -> netcore::Result<()> {
    /// let engine = netcore::Engine::open()?;
    /// let mut watch = engine.watch()?;
    /// loop {
    ///     let mended = watch.mend().await?;
    ///     println!("{} looked at", mended.repair.attachments);
    ///     watch.trouble().await?;
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) without `CAP_NET_ADMIN`, or when the kernel cannot be
    /// listened to.
    pub fn watch(&self) -> Result<Watch<'_>> {
        let mut losses = Losses::default();
        losses.everything("the watch begins");
        Ok(Watch {
            engine: self,
            events: self.kernel.events()?,
            losses,
            since: None,
            heard: Losses::default(),
            unasked: Unasked::default(),
            patience: Patience::default(),
            missed: Missed::new(),
            every: None,
            looked: Instant::now(),
        })
    }

    /// A repair of that `part` of what `losses` say; `thrown` is as for [`repair_all`](Self::repair_all).
    async fn repair_losses(&self, losses: &Losses, part: Part, thrown: Option<Thrown<'_>>) -> Result<Repair> {
        match losses.scope() {
            Scope::OfSomebody => {}
            Scope::Firewall => return self.repair_within(Reach { extent: Extent::WhatStandsAlone, part }).await,
            Scope::Addresses => return self.repair_within(Reach { extent: Extent::AllButOwnLinks, part }).await,
            Scope::Everything => return self.repair_all(part, thrown).await,
        }
        let marks = losses.marks();
        let ports: Vec<&str> = losses.ports().collect();
        let records = self.store.records_of(|network, id| {
            marks.contains(&id.mark(network))
                || marks.contains(&Mark::of_network(network))
                || !ports.is_empty() && ports.contains(&id.host_interface(network).as_str())
        })?;
        self.repair_records(records, Reach { extent: Extent::Everything, part }).await
    }
}

impl Watch<'_> {
    /// Looks at everything every so often, whatever was heard. What the kernel announces to nobody
    /// (iptables-legacy, and settings other than forwarding) is looked at every ten seconds in any case,
    /// as long as a record asks for some of it.
    #[must_use]
    pub fn every(self, every: Option<Duration>) -> Self {
        Self { every, ..self }
    }

    /// Whether changes of the firewall are heard; not on a kernel without nf_tables.
    #[must_use]
    pub fn hears_firewall(&self) -> bool {
        self.events.hears_rule_set()
    }

    /// Has everything looked at next, because of `reason`: somebody knows of a change that the
    /// kernel does not tell.
    pub fn suspect(&mut self, reason: impl Into<String>) {
        self.losses.everything(reason);
    }

    /// Waits until there is reason to look again, and time for it. May be cancelled at any time:
    /// nothing that was heard is lost.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when listening fails for good.
    pub async fn trouble(&mut self) -> Result<()> {
        while self.losses.is_empty() {
            let every = self.every.and_then(|every| self.looked.checked_add(every));
            let next = every.map_or(self.missed.next(), |every| every.min(self.missed.next()));
            let either = async {
                match select(pin!(self.events.heard(&mut self.heard)), pin!(self.unasked.answered())).await {
                    Either::Left((heard, _)) => heard.map(|()| false),
                    Either::Right(_) => Ok(true),
                }
            };
            let answered = match timeout_at(next.into(), either).await {
                Ok(answered) => answered?,
                Err(_) => {
                    if every == Some(next) {
                        self.heard.everything("it is time");
                    } else if self.missed.is_any_lost(self.engine).await {
                        self.heard.everything("something was changed that the kernel does not announce");
                    }
                    false
                }
            };
            if answered {
                // What firewalld is asked about has settled long ago.
                return Ok(());
            }
            self.losses.merge(std::mem::take(&mut self.heard));
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let settled = (Instant::now() + self.quiet()).min(since + UNREST);
            match timeout_at(settled.into(), self.events.heard(&mut self.heard)).await {
                Ok(heard) => heard?,
                Err(_) => break,
            }
            self.losses.merge(std::mem::take(&mut self.heard));
        }
        if let Some(not_before) = self.patience.not_before() {
            sleep_until(not_before.into()).await;
        }
        Ok(())
    }

    /// How long nothing more must have been heard before what was lost so far is looked at.
    fn quiet(&self) -> Duration {
        match self.losses.scope() {
            Scope::OfSomebody => QUIET_OF_ONE,
            Scope::Firewall if self.looked.elapsed() >= CALM => Duration::ZERO,
            Scope::Firewall | Scope::Addresses | Scope::Everything => QUIET,
        }
    }

    /// Looks at what may be lost, and brings it back.
    ///
    /// # Errors
    /// As [`Engine::repair`]. The same is tried again after the next [`trouble`](Self::trouble).
    pub async fn mend(&mut self) -> Result<Mended> {
        self.events.take(&mut self.losses)?;
        let mut losses = std::mem::take(&mut self.losses);
        let since = self.since.take().unwrap_or_else(Instant::now);
        self.looked = Instant::now();
        match self.repair(&mut losses).await {
            Ok((repair, asked)) => {
                let now = Instant::now();
                self.missed.mended(&repair);
                let restored = repair.objects.iter().filter(|object| object.outcome == Outcome::Restored);
                let pause =
                    self.patience.restored(restored.map(|object| format!("{} {}", object.who, object.object)), now);
                let mut about = asked;
                about.merge(losses);
                Ok(Mended {
                    repair,
                    reasons: about.reasons().map(str::to_owned).collect(),
                    by: about.culprit().cloned(),
                    took: now - since,
                    fight: pause.map(|Pause { length, times }| Fight { times, pause: length }),
                })
            }
            Err(error) => {
                self.patience.failed(Instant::now());
                self.losses.merge(losses);
                self.since = Some(since);
                Err(error)
            }
        }
    }

    /// Repairs what `losses` say, and then what firewalld is asked for, if it has time: also what that
    /// is about. Otherwise that is left for later.
    async fn repair(&mut self, losses: &mut Losses) -> Result<(Repair, Losses)> {
        let mut repair = Repair::default();
        if !losses.is_empty() {
            let known = losses.clone();
            let mut thrown = || {
                self.events.take(&mut self.losses)?;
                Ok(losses.threw_all(&mut self.losses))
            };
            repair = self.engine.repair_losses(&known, Part::Ours, Some(&mut thrown)).await?;
        }
        self.unasked.add(losses.clone(), &self.engine.kernel);
        let answered = timeout(GRACE, self.unasked.answered());
        let more = match select(pin!(answered), pin!(self.events.heard(&mut self.heard))).await {
            Either::Left(_) => Ok(()),
            Either::Right((more, _)) => more,
        };
        more?;
        self.losses.merge(std::mem::take(&mut self.heard));
        let asked = self.unasked.take().unwrap_or_default();
        if !asked.is_empty() {
            repair.merge(self.engine.repair_losses(&asked, Part::Firewallds, None).await?);
        }
        Ok((repair, asked))
    }
}

fn as_milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_millis().try_into().unwrap_or(u64::MAX))
}
