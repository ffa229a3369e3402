//! Addresses on interfaces.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{InterfaceName, Place};

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Where the interface is.
    pub place: Place,
    /// The interface.
    pub link: InterfaceName,
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// Whether an IPv6 address goes through duplicate address detection before it is used
    /// (the opposite of `IFA_F_NODAD`).
    #[serde(default)]
    pub dad: bool,
    /// What becomes of other addresses on the interface.
    #[serde(default)]
    pub rivals: Rivals,
}

/// What becomes of addresses on the same interface that contradict a wanted one: any other IPv4
/// address, or an IPv6 one of an overlapping subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rivals {
    /// They stay.
    #[default]
    Allow,
    /// They are an error.
    Refuse,
    /// They are removed.
    Replace,
}
