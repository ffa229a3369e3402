//! Host network plumbing for containers: namespaces, bridges, addresses and published ports, as
//! one description of what the kernel should hold, and one engine that makes, checks and removes
//! it.
//!
//! ```no_run
//! use netcore::{Engine, Netns, bridge};
//!
//! # async fn example() -> netcore::Result<()> {
//! let engine = Engine::open()?; // records under /run/netcore
//! let web = bridge::Network::new("web")?.subnet("10.20.0.0/24")?.masquerade();
//! let sandbox = Netns::create("web-1")?;
//! let attached = engine.attach(&web, sandbox.attachment("web-1")?.publish(8080, 80)).await?;
//! println!("{attached}"); // eth0 10.20.0.2/24 via 10.20.0.1, 8080→80/tcp
//! engine.check(&web, "web-1").await?; // every object; what differs is named
//! engine.detach(&web, "web-1").await?;
//! # Ok(())
//! # }
//! ```
//!
//! Data walks one way: [`model`] → [`driver`] → [`plan`] → [`apply`] → [`kernel`], and what the
//! kernel holds comes back to `plan` by observation. The [`engine`] is the front door.

pub mod apply;
pub mod driver;
pub mod engine;
pub mod error;
pub mod ipam;
pub mod kernel;
pub mod model;
pub mod peers;
pub mod plan;
pub mod state_file;
pub mod store;

/// Bridge networks, as programs write them.
pub mod bridge {
    pub use crate::driver::BridgeNetwork as Network;
}

pub use engine::Engine;
pub use error::{Error, Result};
pub use kernel::Netns;
