//! Who reaches the containers of a network, and whom they reach: the words of a configuration
//! ([`Isolation`], [`IngressPolicy`]), what the firewall makes of them ([`Barrier`]), and which
//! firewall that is ([`FirewallBackend`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// From where the containers of a network are reached. Published ports are, at every level, by an
/// address of the host. A level holds for the bridge: networks that share one get the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// From everywhere.
    #[default]
    Open,
    /// Not from containers of other networks.
    Network,
    /// Not from outside either.
    Strict,
}

/// The key of the reference `firewall` plugin, with its meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngressPolicy {
    /// Connections from everywhere are let in.
    #[default]
    #[serde(alias = "")]
    Open,
    /// Not those from other bridges.
    SameBridge,
    /// Nor those from the same bridge.
    Isolated,
}

impl IngressPolicy {
    /// What it says about other networks.
    #[must_use]
    pub fn isolation(self) -> Isolation {
        match self {
            Self::Open => Isolation::Open,
            Self::SameBridge | Self::Isolated => Isolation::Network,
        }
    }
}

/// A firewall that can do our work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallBackend {
    /// nf_tables, in tables of our own.
    Nftables,
    /// iptables, in chains of our own.
    Iptables,
}

/// A word that is none of [`FirewallBackend`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not \"nftables\" or \"iptables\"")]
pub struct InvalidFirewallBackend(pub String);

impl fmt::Display for FirewallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl FromStr for FirewallBackend {
    type Err = InvalidFirewallBackend;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            other => Err(InvalidFirewallBackend(other.to_owned())),
        }
    }
}

/// What is kept off a bridge, or on it. Nothing is kept from connections that are established,
/// from what stays within the network, nor, but for the last, from published ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Barrier {
    /// Containers of other networks do not reach it.
    Networks,
    /// What comes from outside, and not from a container, does not reach it.
    Outside,
    /// As `Outside`, for as long as another firewall lets everything through to it at our request.
    Admitted,
    /// Nothing is passed on from it, or to it.
    Internal,
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Networks => "isolation from other networks",
            Self::Outside => "isolation from outside",
            Self::Admitted => "isolation of what is admitted",
            Self::Internal => "isolation from both sides",
        })
    }
}
