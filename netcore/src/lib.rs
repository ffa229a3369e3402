//! Host network plumbing for containers.

pub mod error;
pub mod kernel;
pub mod model;
pub mod plan;

pub use error::{Error, Result};
