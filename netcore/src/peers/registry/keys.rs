//! What the keys of an overlay are called, and what can become of them.

use ipnetwork::IpNetwork;

use crate::model::Name;

/// The keys of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key is about.
pub(super) enum Key {
    Node(Name),
    Subnet(IpNetwork),
}

impl Keys {
    /// Those that begin with `prefix`.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The range, from the first to before the second, of what makes a peer. Who is alive is not in
    /// it: that changes often, and nothing follows from it.
    #[must_use]
    pub fn followed(&self) -> (String, String) {
        // '0' comes after '/', and "alive" before "nodes" before "subnets".
        (format!("{}/nodes/", self.prefix), format!("{}/subnets0", self.prefix))
    }

    /// What the keys of nodes that are at work begin with.
    #[must_use]
    pub fn all_alive(&self) -> String {
        format!("{}/alive/", self.prefix)
    }

    /// Where it says that the agent of `node` is at work.
    #[must_use]
    pub fn alive(&self, node: &Name) -> String {
        format!("{}{node}", self.all_alive())
    }

    /// What `node` says about itself.
    #[must_use]
    pub fn node(&self, node: &Name) -> String {
        format!("{}/nodes/{node}", self.prefix)
    }

    /// Whose `subnet` is.
    #[must_use]
    pub fn subnet(&self, subnet: &IpNetwork) -> String {
        format!("{}/subnets/{}-{}", self.prefix, subnet.network(), subnet.prefix())
    }

    /// What `key` is about, if it makes a peer.
    pub(super) fn parse(&self, key: &str) -> Option<Key> {
        let (kind, name) = key.strip_prefix(&self.prefix)?.strip_prefix('/')?.split_once('/')?;
        match kind {
            "nodes" => name.parse().ok().map(Key::Node),
            "subnets" => {
                let (address, length) = name.rsplit_once('-')?;
                IpNetwork::new(address.parse().ok()?, length.parse().ok()?).ok().map(Key::Subnet)
            }
            _ => None,
        }
    }
}

/// A key and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// When the key was made, as the registry counts.
    pub created: u64,
}

/// A change in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was written.
    Put(Entry),
    /// A key is gone.
    Deleted(String),
}
