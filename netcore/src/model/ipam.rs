//! How a network hands out addresses, as the `ipam` section of its configuration says it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::section::{self, Section};
use super::{Dns, RouteSpec};
use crate::error::{Error, Result};

/// Who hands out addresses, and from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// An IPAM plugin we do not know but run. Its settings are its own: nothing but the name is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delegated {
    /// The executable's name in `CNI_PATH`.
    #[serde(rename = "type")]
    pub plugin: String,
}

/// The `host-local` section: the reference plugin's keys with the same meaning.
///
/// One address is given out of each set of ranges. The sets count in the order of
/// [`ip_ranges`](Self::ip_ranges), [`range`](Self::range), [`ranges`](Self::ranges); their number
/// is in the name of the file that remembers a set's last address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostLocal {
    /// Sets of ranges; the ranges of a set are tried in turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Vec<Range>>,
    /// The older way to write a set of one range, keys in the section itself.
    #[serde(flatten)]
    pub range: Option<Range>,
    /// Sets the runtime brings along (`runtimeConfig.ipRanges`, capability `ipRanges`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<Vec<Range>>,
    /// Routes for the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Where reservations are kept; `/var/lib/cni/networks` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// A resolv.conf(5) whose settings the container gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<PathBuf>,
}

/// One pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The subnet; its prefix length is that of the addresses given out.
    pub subnet: IpNetwork,
    /// The first address to give out; the subnet's first usable one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// The last address to give out; the subnet's last usable one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given out; the subnet's first usable address when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// The `static` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Static {
    /// The addresses, with prefix length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<StaticAddress>,
    /// Gateways for addresses that name none, each for the subnet it is in (`CNI_ARGS`, `GATEWAY`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Routes for the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Resolver settings for the container.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
}

/// One address of a `static` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StaticAddress {
    /// Address and prefix length.
    pub address: IpNetwork,
    /// The gateway for routes that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl IpamConfig {
    /// Reads an `ipam` section.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the key (`ipam.ranges[0][1].rangeStart`), its value and what
    /// would be accepted. Whether the ranges make sense together is not looked at here.
    pub fn from_json(value: &Value) -> Result<Self> {
        let section = Section::new("ipam", value)?;
        match section.text("type")? {
            Some("host-local") => Ok(Self::HostLocal(HostLocal::read(&section)?)),
            Some("static") => Ok(Self::Static(Static::read(&section)?)),
            // The name becomes a path below CNI_PATH.
            Some(plugin) if !plugin.contains('/') && plugin != "." && plugin != ".." => {
                Ok(Self::Delegate(Delegated { plugin: plugin.to_owned() }))
            }
            Some(path) => Err(Error::invalid("ipam.type", path, "a plugin's file name, without a directory")),
            None => Err(Error::invalid("ipam.type", "nothing", "host-local, static, or the name of an IPAM plugin")),
        }
    }
}

impl<'de> Deserialize<'de> for IpamConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl HostLocal {
    /// What of `data_dir` cannot be where reservations are kept, and what could.
    #[must_use]
    pub fn misplaced(data_dir: Option<&Path>) -> Option<(&Path, &'static str)> {
        let expected = "an absolute path: whoever releases an address may be started elsewhere";
        data_dir.filter(|directory| !directory.is_absolute()).map(|directory| (directory, expected))
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        // Without a subnet the other three keys of the older form mean nothing to the reference,
        // and files with a stray gateway beside `ranges` are out there.
        let range = if section.has("subnet") { Some(Range::read(section)?) } else { None };
        Ok(Self {
            range,
            ranges: section.list("ranges", Range::read_set)?,
            ip_ranges: section.list("ipRanges", Range::read_set)?,
            routes: section.list("routes", read_route)?,
            data_dir: section.text("dataDir")?.map(PathBuf::from),
            resolv_conf: section.text("resolvConf")?.map(PathBuf::from),
        })
    }

    /// Takes the sets of ranges a runtime brings along, `runtimeConfig.ipRanges` of its request.
    /// They come before those of the configuration.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the key (`runtimeConfig.ipRanges[0][0].subnet`).
    pub fn take_ip_ranges(&mut self, ip_ranges: &Value) -> Result<()> {
        self.ip_ranges = section::list("runtimeConfig.ipRanges", ip_ranges, Range::read_set)?;
        Ok(())
    }
}

impl Range {
    /// All of `subnet`.
    #[must_use]
    pub fn all_of(subnet: IpNetwork) -> Self {
        Self { subnet, range_start: None, range_end: None, gateway: None }
    }

    fn read_set(path: &str, value: &Value) -> Result<Vec<Self>> {
        section::list(path, value, |path, range| Self::read(&Section::new(path, range)?))
    }

    fn read(section: &Section<'_>) -> Result<Self> {
        let missing = || Error::invalid(section.field("subnet"), "nothing", "a subnet, such as 10.20.0.0/16");
        Ok(Self {
            subnet: section.network("subnet")?.ok_or_else(missing)?,
            range_start: section.address("rangeStart")?,
            range_end: section.address("rangeEnd")?,
            gateway: section.address("gateway")?,
        })
    }
}

impl Static {
    fn read(section: &Section<'_>) -> Result<Self> {
        Ok(Self {
            addresses: section.list("addresses", |path, value| StaticAddress::read(&Section::new(path, value)?))?,
            gateways: section.value("gateways", "a list of IP addresses")?,
            routes: section.list("routes", read_route)?,
            dns: section.value("dns", "resolver settings")?,
        })
    }
}

impl StaticAddress {
    fn read(section: &Section<'_>) -> Result<Self> {
        let missing = || Error::invalid(section.field("address"), "nothing", "an address, such as 10.20.0.5/16");
        Ok(Self { address: section.network("address")?.ok_or_else(missing)?, gateway: section.address("gateway")? })
    }
}

fn read_route(path: &str, value: &Value) -> Result<RouteSpec> {
    section::whole(path, value, "a route")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(section: Value) -> String {
        IpamConfig::from_json(&section).unwrap_err().to_string()
    }

    #[test]
    fn a_malformed_section_is_refused_by_the_name_of_its_key() {
        let malformed = [
            (json!({"type": "host-local", "subnet": "10.1.0.0/33"}), "ipam.subnet: \"10.1.0.0/33\""),
            (json!({"type": "host-local", "subnet": "10.1.0.0"}), "ipam.subnet: \"10.1.0.0\""),
            (json!({"type": "host-local", "subnet": 10}), "ipam.subnet: 10"),
            (json!({"type": "host-local", "ranges": [[{}]]}), "ipam.ranges[0][0].subnet: nothing"),
            (json!({"type": "host-local", "ranges": [{}]}), "ipam.ranges[0]: {} is not a list"),
            (
                json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64", "rangeStart": "x"}]]}),
                "ipam.ranges[1][0].rangeStart: \"x\"",
            ),
            (json!({"type": "host-local", "routes": [{"dst": "everywhere"}]}), "ipam.routes[0]:"),
            (json!({"type": "host-local", "dataDir": ["a"]}), "ipam.dataDir: [\"a\"]"),
            (
                json!({"type": "static", "addresses": [{"address": "10.1.0.5"}]}),
                "ipam.addresses[0].address: \"10.1.0.5\"",
            ),
            (json!({"type": "static", "addresses": [{"gateway": "10.1.0.1"}]}), "ipam.addresses[0].address: nothing"),
            (json!({"type": "static", "dns": {"nameservers": "1.1.1.1"}}), "ipam.dns:"),
            (json!({"type": "../static"}), "ipam.type: ../static"),
            (json!({}), "ipam.type: nothing"),
            (json!("host-local"), "ipam: \"host-local\" is not an object"),
        ];
        for (section, start) in malformed {
            let refusal = refusal(section);
            assert!(refusal.starts_with(start), "{refusal}");
        }
        let by_serde = serde_json::from_str::<IpamConfig>(r#"{"type": "host-local", "subnet": "x/8"}"#);
        assert!(by_serde.unwrap_err().to_string().starts_with("ipam.subnet: \"x/8\" is not"));
    }

    #[test]
    fn a_section_survives_being_written_down() {
        let sections = [
            json!({"type": "host-local", "subnet": "10.1.0.0/16", "rangeStart": "10.1.1.1", "gateway": "10.1.0.1",
                   "ranges": [[{"subnet": "fd00::/64"}, {"subnet": "fd01::/64", "rangeEnd": "fd01::ff"}]],
                   "ipRanges": [[{"subnet": "10.2.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
                   "dataDir": "/run/leases", "resolvConf": "/etc/resolv.conf"}),
            json!({"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}],
                   "gateways": ["fd00::1"], "dns": {"nameservers": ["10.1.0.1"]}}),
            json!({"type": "dhcp"}),
        ];
        for section in sections {
            let config = IpamConfig::from_json(&section).unwrap();
            assert_eq!(serde_json::to_value(&config).unwrap(), section);
        }
    }

    #[test]
    fn empty_and_unknown_keys_do_not_matter() {
        let section = json!({"type": "host-local", "subnet": "10.1.0.0/16", "gateway": "", "rangeEnd": null,
                             "ranges": null, "dataDir": "", "comment": 1});
        let expected = HostLocal { range: Some(Range::all_of("10.1.0.0/16".parse().unwrap())), ..Default::default() };
        assert_eq!(IpamConfig::from_json(&section).unwrap(), IpamConfig::HostLocal(expected));
        let delegate = json!({"type": "whereabouts", "range": {"its": "own"}});
        assert_eq!(
            IpamConfig::from_json(&delegate).unwrap(),
            IpamConfig::Delegate(Delegated { plugin: "whereabouts".to_owned() })
        );
    }

    #[test]
    fn the_ranges_of_a_runtime_are_named_as_such() {
        let mut config = HostLocal::default();
        config.take_ip_ranges(&json!([[{"subnet": "10.7.0.0/24"}]])).unwrap();
        assert_eq!(config.ip_ranges, [[Range::all_of("10.7.0.0/24".parse().unwrap())]]);
        let refusal = config.take_ip_ranges(&json!([[{"subnet": "10.7.0.0/24", "gateway": 1}]])).unwrap_err();
        assert!(refusal.to_string().starts_with("runtimeConfig.ipRanges[0][0].gateway: 1 "), "{refusal}");
    }
}
