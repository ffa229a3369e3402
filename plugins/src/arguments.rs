//! `CNI_ARGS`: the oldest of the three ways to ask for an address or a MAC, and where
//! Kubernetes' runtimes put the pod's name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use netcore::model::{Mac, Target};

use crate::environment::parse_switch;
use crate::failure::Failure;

/// The keys of `CNI_ARGS` that mean something to us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `IP`: addresses asked for, separated by commas.
    pub(crate) addresses: Vec<IpNetwork>,
    /// `GATEWAY`: their gateways, for the `static` IPAM.
    pub(crate) gateways: Vec<IpAddr>,
    /// `MAC`.
    pub(crate) mac: Option<Mac>,
    /// `CONTAINER`: whose namespace to share, for networks that do.
    pub(crate) join: Option<Target>,
    /// `K8S_*`, as given.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads `KEY=VALUE;KEY=VALUE`.
    ///
    /// # Errors
    /// A [`Failure`] of code 4 for what is not such a pair, for a value that is not of its kind,
    /// and for an unknown key, unless `IgnoreUnknown` says otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut arguments = Self::default();
        let mut unknown = None;
        let mut ignore_unknown = false;
        for pair in text.split(';').filter(|_| !text.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                let expected = "KEY=VALUE; several are separated by ';'";
                return Err(Failure::environment("CNI_ARGS", &format!("{pair:?}"), expected));
            };
            match key {
                "IP" => arguments.addresses = list(key, value, "an IP address, with or without a prefix length")?,
                "GATEWAY" => arguments.gateways = list(key, value, "an IP address")?,
                "MAC" if value.is_empty() => arguments.mac = None,
                "MAC" => {
                    arguments.mac = Some(one(key, value, "a unicast MAC address like \"0a:58:0a:14:00:02\"")?);
                }
                "CONTAINER" if value.is_empty() => arguments.join = None,
                "CONTAINER" => {
                    let expected = "a container's id, the path of a network namespace, or the number of a process";
                    arguments.join = Some(one(key, value, expected)?);
                }
                "IgnoreUnknown" => {
                    ignore_unknown = parse_switch(value).ok_or_else(|| refused(key, value, "1, true, 0 or false"))?;
                }
                _ if key.starts_with("K8S_") => {
                    arguments.labels.insert(key.to_owned(), value.to_owned());
                }
                _ => unknown = unknown.or(Some(pair)),
            }
        }
        match unknown {
            Some(pair) if !ignore_unknown => {
                let known = "one of the known keys: IP, MAC, GATEWAY, CONTAINER, IgnoreUnknown or K8S_*; IgnoreUnknown=1 lets others pass";
                Err(Failure::environment("CNI_ARGS", &format!("{pair:?}"), known))
            }
            _ => Ok(arguments),
        }
    }
}

fn list<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<Vec<T>, Failure> {
    value.split(',').filter(|_| !value.is_empty()).map(|item| one(key, item, expected)).collect()
}

fn one<T: FromStr>(key: &str, value: &str, expected: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| refused(key, value, expected))
}

fn refused(key: &str, value: impl fmt::Debug, expected: &str) -> Failure {
    Failure::environment(&format!("CNI_ARGS {key}"), &format!("{value:?}"), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_asks_for_the_same_address_and_mac() {
        let arguments =
            Arguments::parse("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.88.0.5;MAC=0a:58:0a:58:00:05").unwrap();
        assert_eq!(arguments.addresses, ["10.88.0.5/32".parse().unwrap()]);
        assert_eq!(arguments.mac, Some("0a:58:0a:58:00:05".parse().unwrap()));
        assert_eq!(arguments.labels["K8S_POD_NAME"], "web");
        let two = Arguments::parse("IP=10.88.0.5/16,fd00::5/64;GATEWAY=10.88.0.1").unwrap();
        assert_eq!(two.addresses.len(), 2);
        assert_eq!(two.gateways, ["10.88.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(Arguments::parse("").unwrap(), Arguments::default());
        assert_eq!(Arguments::parse("IP=;MAC=").unwrap(), Arguments::default());
    }

    #[test]
    fn unknown_keys_pass_only_when_told_to() {
        assert!(Arguments::parse("FOO=bar;IgnoreUnknown=true").is_ok());
        assert!(Arguments::parse("IgnoreUnknown=1;FOO=bar").is_ok());
        for strict in ["FOO=bar", "FOO=bar;IgnoreUnknown=0", "ip=10.0.0.1", "ignoreunknown=1"] {
            let failure = Arguments::parse(strict).unwrap_err();
            assert_eq!(failure.code, 4);
            assert!(failure.msg.contains("IgnoreUnknown=1 lets others pass"), "{}", failure.msg);
        }
    }

    #[test]
    fn values_that_are_not_of_their_kind_are_named() {
        let message = |text: &str| Arguments::parse(text).unwrap_err().msg;
        assert_eq!(
            message("IP=10.0.0.1/33"),
            "CNI_ARGS IP: \"10.0.0.1/33\" is not an IP address, with or without a prefix length"
        );
        assert_eq!(
            message("MAC=01:00:5e:00:00:01"),
            "CNI_ARGS MAC: \"01:00:5e:00:00:01\" is not a unicast MAC address like \"0a:58:0a:14:00:02\""
        );
        assert_eq!(message("IgnoreUnknown=maybe"), "CNI_ARGS IgnoreUnknown: \"maybe\" is not 1, true, 0 or false");
        for malformed in ["a;b=c", "=x", "K8S_POD_NAME", ";", "IP=10.0.0.1;"] {
            assert!(message(malformed).contains("is not KEY=VALUE"), "{malformed}");
        }
    }
}
