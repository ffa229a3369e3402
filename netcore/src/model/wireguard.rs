//! The objects of encrypted tunnels (WireGuard, linux/wireguard.h).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{InterfaceName, Place, PublicKey};

/// What a WireGuard interface has beside what every link has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wireguard {
    /// The UDP port it listens on.
    pub port: u16,
    /// Who it is; none as long as it has no private key.
    pub key: Option<PublicKey>,
    /// Where its private key is read from when it is made: the key itself is in no description.
    pub key_file: PathBuf,
}

/// Somebody whom a WireGuard interface talks to: which addresses are theirs, and where they are. What
/// comes from them is taken only if it is from one of these addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardPeer {
    /// Where the interface is.
    pub place: Place,
    /// The interface.
    pub link: InterfaceName,
    /// Who they are.
    pub key: PublicKey,
    /// Their address and UDP port in the underlay; none before it is known.
    pub endpoint: Option<SocketAddr>,
    /// What is theirs.
    pub allowed: Vec<IpNetwork>,
    /// Seen alone: whether they have proved who they are within the life of a session. They are
    /// where they were heard from then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub heard: bool,
}

impl fmt::Display for WireguardPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wireguard peer {} dev {} ({})", self.key, self.link, self.place)
    }
}

impl WireguardPeer {
    /// What is theirs, in words that do not depend on an order.
    pub(crate) fn allowed_words(&self) -> String {
        let mut words: Vec<String> = self.allowed.iter().map(IpNetwork::to_string).collect();
        words.sort_unstable();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}
