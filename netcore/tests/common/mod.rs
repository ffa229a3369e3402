//! A host for tests of the engine: a kernel in memory, and files in a directory that goes with it.

#![allow(dead_code, reason = "each test that shares this uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::path::PathBuf;

use netcore::bridge;
use netcore::engine::Engine;
use netcore::kernel::Memory;
use netcore::model::{Attachment, IpamConfig};
use netcore::store::Store;

pub(crate) struct Host {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) kernel: Memory,
    pub(crate) engine: Engine<Memory>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Memory::new();
        let engine = Engine::new(kernel.clone(), Store::new(directory.path().join("records")));
        Self { directory, kernel, engine }
    }

    pub(crate) fn network(&self, name: &str, subnet: &str) -> bridge::Network {
        let leases = self.directory.path().join("leases");
        bridge::Network::new(name).unwrap().subnet(subnet).unwrap().masquerade().configure_ipam(|ipam| {
            if let IpamConfig::HostLocal(host_local) = ipam {
                host_local.data_dir = Some(leases);
            }
        })
    }

    /// The reservations on disk, by address.
    pub(crate) fn leases(&self, network: &str) -> Vec<String> {
        let mut names = names(self.directory.path().join("leases").join(network));
        names.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
        names
    }

    pub(crate) fn records(&self) -> Vec<String> {
        names(self.directory.path().join("records"))
    }
}

fn names(directory: PathBuf) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(crate) fn wish(container: &str) -> Attachment {
    Attachment::new(container.parse().unwrap(), Some(format!("/run/netns/{container}").into()))
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
