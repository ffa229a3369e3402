//! Peers in a TOML file that the administrator brings to every node:
//!
//! ```toml
//! node = "a"                        # this node; NETCORE_NODE or the host's name when absent
//!
//! [[peer]]
//! node = "a"
//! underlay = "192.0.2.11"
//! subnets = ["10.244.1.0/24"]
//!
//! [[peer]]
//! node = "b"
//! underlay = "192.0.2.12"
//! subnets = ["10.244.2.0/24"]
//! publicKey = "hSDw…"               # with encryption: what `netctl overlay key` prints there
//! ```

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::{Reading, Source};
use crate::error::{Error, Result};
use crate::model::{Name, OverlayConfig, Peer, PublicKey};

/// The variable that says which node this is where the file does not.
const NODE_VARIABLE: &str = "NETCORE_NODE";

/// The file at a path.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
}

impl File {
    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::Peers { origin: self.path.display().to_string(), reason: reason.into() }
    }
}

/// The file's keys. One that nobody knows is a slip of the pen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    node: Option<Name>,
    #[serde(default)]
    peer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    node: Name,
    underlay: IpAddr,
    subnets: Vec<IpNetwork>,
    #[serde(rename = "publicKey")]
    public_key: Option<PublicKey>,
}

impl Source for File {
    fn read(&self, config: &OverlayConfig) -> Result<Reading> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let reason =
                    format!("{} is not there: write down the nodes and their subnets in it", self.path.display());
                return Err(Error::NoSubnet { network: String::new(), reason });
            }
            Err(error) => return Err(Error::file("read", &self.path)(error)),
        };
        let document: Document = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            let words = error.message().split('\n').map(str::trim).collect::<Vec<_>>().join(", ");
            self.fault(format!("line {line}: {words}"))
        })?;
        if document.peer.is_empty() {
            return Err(self.fault("no [[peer]] is in it, not even this node; the file may be half written"));
        }
        let node = match document.node {
            Some(node) => node,
            None => this_node(&format!("set `node` in {}", self.path.display()))?,
        };
        let peer = |entry: Entry| Peer {
            mac: Peer::endpoint_mac(&entry.node, config.vni),
            node: entry.node,
            subnets: entry.subnets,
            underlay: entry.underlay.to_canonical(),
            vni: config.vni,
            port: config.port,
            generation: 0,
            public_key: entry.public_key,
        };
        Ok(Reading { node, peers: document.peer.into_iter().map(peer).collect() })
    }
}

/// The name of this node where a source does not say it: `NETCORE_NODE`, or the host's. `way_out` is
/// what to do when that is none.
///
/// # Errors
/// [`Error::Invalid`] when it is not a node's name.
pub fn this_node(way_out: &str) -> Result<Name> {
    let (origin, name) = match env::var(NODE_VARIABLE) {
        Ok(name) if !name.is_empty() => (NODE_VARIABLE, name),
        _ => ("the host's name", rustix::system::uname().nodename().to_string_lossy().into_owned()),
    };
    Name::new(&name).map_err(|_| Error::invalid(origin, format!("{name:?}"), format!("a node's name; {way_out}")))
}
