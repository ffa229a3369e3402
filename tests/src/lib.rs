//! End to end, on real kernels: a [`Host`] is a network namespace with mounts of its own that
//! stands in for a machine; containers are [`Netns`] on it; [`Cni`] runs plugins the way a
//! runtime does; [`traffic`] sends real packets; [`Snapshot`] says what an operation left behind.
//!
//! ```no_run
//! use netcore_tests::{Host, Network};
//! use serde_json::json;
//!
//! let host = Host::new();
//! let web = host.cni(Network::new("web", json!({
//!     "type": "bridge", "isGateway": true,
//!     "ipam": { "type": "host-local", "subnet": "10.20.0.0/24" },
//! })));
//! let one = web.attachment(&host.netns("web-1")).added();
//! host.run(&format!("ping -c 1 {}", one.address()));
//! one.del().unwrap();
//! ```
//!
//! Nothing here touches the machine's own namespaces, and nothing outlives a test, also not one
//! that panics: namespaces live as long as the file descriptors that hold them.

pub mod binaries;
pub mod cluster;
mod cni;
pub mod containerd;
pub mod docker;
pub mod etcd;
pub mod features;
pub mod firewalld;
pub mod frames;
mod host;
pub mod mesh;
mod namespaces;
pub mod netctl;
mod plugin;
pub mod podman;
mod processes;
pub mod seccomp;
mod snapshot;
pub mod traffic;
pub mod watch;

pub use cni::{Attachment, Cni, Network, Publish};
pub use host::{Host, Netns, Outside};
pub use namespaces::Namespaces;
pub use plugin::{Failure, Plugin};
pub use processes::{Daemon, wait_for};
pub use snapshot::Snapshot;

/// Ends a test that cannot run here, saying why; the count of skipped tests comes from this line.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("skipped: {}: {}", module_path!(), format!($($reason)*));
        return;
    }};
}
