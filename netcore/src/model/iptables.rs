//! What is said in iptables' own tables: which of the two iptables it is, our rules where it is the
//! backend, and the admission that is asked of it where it is not.

use std::fmt;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{InterfaceName, Mark, NatRule};

/// The two programs called iptables. Each has tables of its own in the kernel, and rules of one
/// are not seen by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// `iptables-nft`: tables of nf_tables, called `ip` and `ip6`.
    Nft,
    /// `iptables-legacy`: those of ip_tables and ip6_tables.
    Legacy,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// As the programs' names have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the firewall's share of an attachment is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Our own tables of nf_tables.
    #[default]
    Nftables,
    /// iptables' tables.
    Iptables(Variant),
}

impl Backend {
    /// Whether this is what there is when nothing is said.
    #[must_use]
    pub fn is_nftables(&self) -> bool {
        *self == Self::Nftables
    }
}

/// A rule of ours as one iptables has it, in the tables of one family. What
/// [`NatRule::Ruleset`] is there are our chains, what leads to them, and their fixed rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iptables {
    /// Which iptables.
    pub variant: Variant,
    /// Whether it is `ip6tables`.
    pub v6: bool,
    /// What the rule does.
    #[serde(flatten)]
    pub rule: NatRule,
}

impl Iptables {
    /// The program's name, as its user knows it.
    #[must_use]
    pub fn program(&self) -> &'static str {
        program(self.variant, self.v6)
    }
}

/// The name of an iptables, as its user knows it.
#[must_use]
pub fn program(variant: Variant, v6: bool) -> &'static str {
    match (variant, v6) {
        (Variant::Nft, false) => "iptables-nft",
        (Variant::Nft, true) => "ip6tables-nft",
        (Variant::Legacy, false) => "iptables-legacy",
        (Variant::Legacy, true) => "ip6tables-legacy",
    }
}

/// What comes and goes by a link of ours passes iptables' `FORWARD`, whichever iptables drops
/// there what nobody lets pass. An accept in our own table would not help: a drop of anybody's is
/// final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The link that containers are behind.
    pub link: InterfaceName,
    /// Whether it is about IPv6.
    pub v6: bool,
    /// Only what comes to the link from this range, by whatever way; everything that comes from the
    /// link, and what was published or belongs to a connection, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNetwork>,
    /// Whose it is.
    pub mark: Mark,
}

impl fmt::Display for Iptables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            NatRule::Ruleset { .. } => write!(f, "firewall chains NETCORE-* ({})", self.program()),
            rule => write!(f, "{rule} ({})", self.program()),
        }
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = if self.v6 { "ip6tables" } else { "iptables" };
        match self.from {
            None => write!(f, "admission of {} ({program} FORWARD)", self.link),
            Some(range) => write!(f, "admission from {range} to {} ({program} FORWARD)", self.link),
        }
    }
}
