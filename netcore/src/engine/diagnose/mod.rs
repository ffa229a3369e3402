//! `diagnose`: would this traffic get through, and if not, what is the first thing on its way that stops
//! it?
//!
//! A packet that does not exist is followed where a real one would go: `journey` says where it starts and
//! what should become of it; `walk` takes it through the `host` and into or out of a `container`, and
//! then its answer all the way back. `lan` is what is different on a link of the host's. Routing is asked of the kernel itself. Firewall rules, whoever made
//! them, are run over the packet by `evaluate`; what is not understood of them becomes a doubt. When something of ours is missing, what a check finds is the explanation, and a
//! repair the cure.

mod container;
mod cure;
mod evaluate;
mod hooks;
mod host;
mod journey;
mod lan;
mod packet;
mod refusal;
mod rule;
#[cfg(test)]
mod tests;
mod walk;
mod world;

use std::fmt;

use serde::Serialize;

use super::Engine;
use crate::error::{Error, Result};
use crate::kernel::Inspect;
use crate::model::{Flow, Name};
use walk::Walk;
use world::World;

/// What became of a flow that was followed.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The flow.
    pub flow: String,
    /// What it got past, in order.
    pub passed: Vec<Passed>,
    /// What stops it; nothing when it would pass.
    pub stopped: Option<Stopped>,
    /// What may stop it, and cannot be told.
    pub doubts: Vec<String>,
}

impl Diagnosis {
    /// Whether the flow would pass, without a doubt.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.stopped.is_none() && self.doubts.is_empty()
    }
}

/// A part of the way that is as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// Where: `host`, or the container.
    pub at: String,
    /// What.
    pub what: String,
}

/// What stops a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Where: `host`, or the container.
    pub at: String,
    /// What, as precisely as it can be named.
    pub by: String,
    /// What mends it.
    pub cure: Cure,
}

/// What mends something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cure {
    /// A command line for a shell on the host.
    Command(String),
    /// What to do, where there is no command for it.
    Advice(String),
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(text) | Self::Advice(text) => f.write_str(text),
        }
    }
}

impl Cure {
    /// Bringing back what the records ask for.
    fn repair() -> Self {
        Self::Command("netctl repair-chains".to_owned())
    }
}

/// Why a walk ends before its end.
enum Halt {
    Stopped(Box<Stopped>),
    /// The way goes on where it cannot be followed, and why.
    Lost(String),
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Halt {
    fn at(at: &str, by: impl Into<String>, cure: Cure) -> Self {
        Self::Stopped(Box::new(Stopped { at: at.to_owned(), by: by.into(), cure }))
    }
}

impl<K: Inspect> Engine<K> {
    /// Follows `flow`; or without one, the traffic that should get through for `about`, a container or
    /// a network: to each of its published ports from outside and from the host, and from the
    /// container to the outside, over IPv6 only where the host has a way out by it. Without either, that of
    /// every container on a bridge, or with a default route on a link of the host's. Changes nothing, and sends nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such container or network, [`Error::File`] when the records
    /// cannot be listed, [`Error::Kernel`] when the kernel does not answer.
    pub async fn diagnose(&self, about: Option<&Name>, flow: Option<&Flow>) -> Result<Vec<Diagnosis>> {
        let world = World::look(self).await?;
        let mut diagnoses = Vec::new();
        for journey in journey::plan(&world, about, flow)? {
            let mut walk = Walk::new(&world, &journey);
            let outcome = walk.follow().await;
            let (passed, mut doubts) = (walk.passed, walk.doubts);
            let stopped = match outcome {
                Ok(()) => None,
                Err(Halt::Lost(why)) => {
                    doubts.push(why);
                    None
                }
                Err(Halt::Stopped(stopped)) => Some(*stopped),
                Err(Halt::Failed(error)) => return Err(error),
            };
            diagnoses.push(Diagnosis { flow: journey.flow.to_string(), passed, stopped, doubts });
        }
        Ok(diagnoses)
    }
}
