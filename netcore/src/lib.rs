//! Host network plumbing for containers.

pub mod apply;
pub mod driver;
pub mod engine;
pub mod error;
pub mod ipam;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod store;

/// Bridge networks, as programs write them.
pub mod bridge {
    pub use crate::driver::BridgeNetwork as Network;
}

pub use error::{Error, Result};
