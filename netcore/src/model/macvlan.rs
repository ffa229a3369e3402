//! What is particular to macvlan networks: their settings, and the two kinds of link they are
//! made of.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{InterfaceName, Mac, Place};

/// The settings of a macvlan network: the reference `macvlan` plugin's keys with the same meaning
/// and defaults, and two of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MacvlanConfig {
    /// The link that containers get a share of; that of the default route when absent. One that
    /// is not there and is called `LINK.ID` is made as an 802.1Q link on `LINK`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_absent")]
    pub master: Option<InterfaceName>,
    /// Whom containers reach.
    pub mode: MacvlanMode,
    /// MTU of the container's link in bytes, at most the master's; 0 takes the master's.
    pub mtu: u32,
    /// The container's MAC address.
    pub mac: Option<Mac>,
    /// The master is in the container's namespace.
    pub link_in_container: bool,
    /// How many broadcasts may wait for delivery (`IFLA_MACVLAN_BC_QUEUE_LEN`); 0 takes the
    /// kernel's default.
    #[serde(rename = "bcqueuelen")]
    pub bc_queue_len: u32,
    /// The host and its containers reach each other, by a link of the host's own beside theirs.
    pub host_access: bool,
    /// The host's addresses that `host_access` is about; those of the master when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_addresses: Vec<IpAddr>,
}

/// How the reference plugin writes "the default".
fn empty_is_absent<'de, D: Deserializer<'de>>(from: D) -> Result<Option<InterfaceName>, D::Error> {
    match Option::<String>::deserialize(from)?.as_deref() {
        None | Some("") => Ok(None),
        Some(name) => InterfaceName::new(name).map(Some).map_err(serde::de::Error::custom),
    }
}

/// Whom the containers on one master reach (`IFLA_MACVLAN_MODE`, linux/if_link.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MacvlanMode {
    /// Each other, directly.
    #[default]
    Bridge,
    /// Not each other, whatever the switch does.
    Private,
    /// Each other by way of the switch, if that sends frames back (IEEE 802.1Qbg).
    Vepa,
    /// There is one container, which has the master for itself.
    Passthru,
}

/// A word that is none of [`MacvlanMode`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not bridge, private, vepa or passthru")]
pub struct InvalidMacvlanMode(pub String);

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
        })
    }
}

impl FromStr for MacvlanMode {
    type Err = InvalidMacvlanMode;

    fn from_str(text: &str) -> Result<Self, InvalidMacvlanMode> {
        match text {
            "" | "bridge" => Ok(Self::Bridge),
            "private" => Ok(Self::Private),
            "vepa" => Ok(Self::Vepa),
            "passthru" => Ok(Self::Passthru),
            _ => Err(InvalidMacvlanMode(text.to_owned())),
        }
    }
}

impl TryFrom<String> for MacvlanMode {
    type Error = InvalidMacvlanMode;
    fn try_from(text: String) -> Result<Self, InvalidMacvlanMode> {
        text.parse()
    }
}

impl From<MacvlanMode> for String {
    fn from(mode: MacvlanMode) -> String {
        mode.to_string()
    }
}

/// A link with a MAC address of its own on another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    /// The link below.
    pub parent: InterfaceName,
    /// Where that one is.
    pub parent_place: Place,
    /// Whom it reaches.
    pub mode: MacvlanMode,
    /// How many broadcasts may wait for it; any when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bc_queue_len: Option<u32>,
}

/// The frames of one VLAN on another link (IEEE 802.1Q).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The link below, in the same namespace.
    pub parent: InterfaceName,
    /// The VLAN, 1 to 4094.
    pub id: u16,
}

impl Vlan {
    /// The VLAN ids there are (IEEE 802.1Q-2022, table 9-2).
    pub const IDS: std::ops::RangeInclusive<u32> = 1..=4094;

    /// The link and the number in a name like `eth0.10`; whether the number is among
    /// [`Self::IDS`] is another question.
    #[must_use]
    pub fn split(name: &InterfaceName) -> Option<(InterfaceName, u32)> {
        let (parent, id) = name.as_str().rsplit_once('.')?;
        Some((InterfaceName::new(parent).ok()?, id.parse().ok()?))
    }

    /// The VLAN that a link called `name` is by its name, if it is one.
    #[must_use]
    pub fn of_name(name: &InterfaceName) -> Option<Self> {
        let (parent, id) = Self::split(name)?;
        Self::IDS.contains(&id).then_some(Self { parent, id: u16::try_from(id).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_vlan() {
        let of = |name: &str| {
            Vlan::of_name(&InterfaceName::new(name).unwrap()).map(|vlan| (vlan.parent.to_string(), vlan.id))
        };
        assert_eq!(of("eth0.10"), Some(("eth0".into(), 10)));
        assert_eq!(of("br.lan.4094"), Some(("br.lan".into(), 4094)));
        for other in ["eth0", "eth0.", "eth0.x", "eth0.0", "eth0.4095", "eth0.-1", ".10"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn an_empty_master_or_mode_is_the_default() {
        let config: MacvlanConfig = serde_json::from_str(r#"{"master": "", "mode": ""}"#).unwrap();
        assert_eq!(config, MacvlanConfig::default());
        let fault = serde_json::from_str::<MacvlanConfig>(r#"{"mode": "source"}"#).unwrap_err().to_string();
        assert!(fault.starts_with("\"source\" is not bridge, private, vepa or passthru"), "{fault}");
    }
}
