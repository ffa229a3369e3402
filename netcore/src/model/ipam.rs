//! How a network hands out addresses, as the `ipam` section of its configuration says it.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::{Dns, RouteSpec};

/// Who hands out addresses, and from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum IpamConfig {
    /// From ranges, remembered in files on this host.
    HostLocal(HostLocal),
    /// The addresses written here, to whoever asks.
    Static(Static),
    /// Somebody else: an executable that speaks CNI's IPAM protocol.
    #[serde(untagged)]
    Delegate(Delegated),
}

/// An IPAM plugin we do not know but run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The executable's name in `CNI_PATH`.
    #[serde(rename = "type")]
    pub plugin: String,
}

/// The `host-local` section: the reference plugin's keys with the same meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostLocal {
    /// One address is given out of each set; the ranges of a set are tried in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Vec<Range>>,
    /// The older way to write one range, keys in the section itself; becomes the first set.
    #[serde(flatten)]
    pub range: Option<Range>,
    /// Routes for the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Where reservations are kept; `/var/lib/cni/networks` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// A resolv.conf(5) whose settings the container gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<PathBuf>,
}

/// One pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The subnet; its prefix length is that of the addresses given out.
    pub subnet: IpNetwork,
    /// The first address to give out; the subnet's first usable one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// The last address to give out; the subnet's last usable one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given out; the subnet's first usable address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// The `static` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Static {
    /// The addresses, with prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<StaticAddress>,
    /// Routes for the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Resolver settings for the container.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// One address of a `static` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAddress {
    /// Address and prefix length.
    pub address: IpNetwork,
    /// The gateway for routes that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}
