//! Deciding: what is wanted and what is there in, ordered steps out. Pure; carried out by
//! [`apply`](crate::apply).

mod diff;

pub use diff::{Difference, Drift};
