//! One thing to do to the kernel: what it is, how it reads, and how it is undone.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Difference;
use crate::model::Object;

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Make an object that is missing.
    Create(Object),
    /// Change one that differs.
    Update {
        /// As it is.
        was: Box<Object>,
        /// As it should be.
        object: Object,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// Remove one.
    Remove(Object),
}

impl Step {
    /// The object this step is about, as it will be, or as it is when it goes.
    #[must_use]
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Update { object, .. } | Self::Remove(object) => object,
        }
    }

    /// The step that takes this one back.
    #[must_use]
    pub fn undo(&self) -> Step {
        match self {
            Self::Create(object) => Self::Remove(object.clone()),
            Self::Update { was, object, differences } => Self::Update {
                was: Box::new(object.clone()),
                object: (**was).clone(),
                differences: differences.iter().map(Difference::reversed).collect(),
            },
            Self::Remove(object) => Self::Create(object.clone()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(object) => write!(f, "create {object}"),
            Self::Update { object, differences, .. } => {
                write!(f, "change {object}: ")?;
                for (position, change) in differences.iter().enumerate() {
                    let separator = if position == 0 { "" } else { ", " };
                    write!(f, "{separator}{} {} → {}", change.field, change.have, change.want)?;
                }
                Ok(())
            }
            Self::Remove(object) => write!(f, "remove {object}"),
        }
    }
}
