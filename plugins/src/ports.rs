//! `portMappings`, as runtimes send them (CNI conventions, "portMappings"), with the `range` that
//! podman's newer backend knows.

use std::net::IpAddr;

use netcore::model::{PortMapping, Protocol};
use netcore::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::decode::{decapitalised, decode};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    host_port: i64,
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
    #[serde(default = "one")]
    range: i64,
}

fn one() -> i64 {
    1
}

/// The mappings in `list`, which is the configuration's field `at`; what is there twice counts
/// once.
///
/// # Errors
/// [`Error::Invalid`] naming the entry's field: a port that is none, a range that leaves the port
/// space, a protocol without ports, a host port that leads to two places.
pub(crate) fn mappings(at: &str, list: &Value) -> Result<Vec<PortMapping>> {
    let entries: Vec<Entry> = decode(at, &decapitalised(list))?;
    let mut mappings: Vec<PortMapping> = Vec::with_capacity(entries.len());
    for (position, entry) in entries.into_iter().enumerate() {
        let at = format!("{at}[{position}]");
        let mapping = entry.mapping(&at)?;
        if mappings.contains(&mapping) {
            continue;
        }
        if let Some(other) = mappings.iter().find(|other| overlap(other, &mapping)) {
            let value = mapping.to_string();
            return Err(Error::invalid(
                format!("{at}.hostPort"),
                value,
                format!("apart from {other} in the same list"),
            ));
        }
        mappings.push(mapping);
    }
    Ok(mappings)
}

impl Entry {
    fn mapping(self, at: &str) -> Result<PortMapping> {
        let port = |field: &str, value: i64, expected: &str| {
            u16::try_from(value).map_err(|_| Error::invalid(format!("{at}.{field}"), value, expected))
        };
        const PORT: &str = "a port from 1 to 65535";
        let mapping = PortMapping {
            host_port: port("hostPort", self.host_port, PORT)?,
            container_port: port("containerPort", self.container_port, PORT)?,
            protocol: self.protocol(at)?,
            host_address: self.host_address(at)?,
            count: port("range", self.range, "a number of ports from 1 to 65535")?,
        };
        match mapping.fault() {
            None => Ok(mapping),
            Some((field, value, expected)) => Err(Error::invalid(format!("{at}.{field}"), value, expected)),
        }
    }

    fn protocol(&self, at: &str) -> Result<Protocol> {
        if self.protocol.is_empty() {
            return Ok(Protocol::Tcp);
        }
        let parsed = self.protocol.parse();
        parsed.map_err(|_| Error::invalid(format!("{at}.protocol"), format!("{:?}", self.protocol), "tcp, udp or sctp"))
    }

    fn host_address(&self, at: &str) -> Result<Option<IpAddr>> {
        if self.host_ip.is_empty() {
            return Ok(None);
        }
        let parsed = self.host_ip.parse().map(Some);
        let expected = "an IP address of the host, or nothing for all of them";
        parsed.map_err(|_| Error::invalid(format!("{at}.hostIP"), format!("{:?}", self.host_ip), expected))
    }
}

fn overlap(one: &PortMapping, other: &PortMapping) -> bool {
    let end = |mapping: &PortMapping| u32::from(mapping.host_port) + u32::from(mapping.count);
    one.protocol == other.protocol
        && one.host_address == other.host_address
        && u32::from(one.host_port) < end(other)
        && u32::from(other.host_port) < end(one)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(entry: Value) -> String {
        mappings("portMappings", &json!([entry])).unwrap_err().to_string()
    }

    #[test]
    fn containerd_writes_its_fields_large() {
        let list = json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]);
        assert_eq!(mappings("portMappings", &list).unwrap(), [PortMapping::tcp(8080, 80)]);
    }

    #[test]
    fn entries_mean_what_runtimes_mean() {
        let list = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
            {"hostPort": 9000, "containerPort": 9000, "protocol": "sctp", "hostIP": "::1", "range": 10},
            {"hostPort": 443, "containerPort": 8443},
            {"hostPort": 443, "containerPort": 8443, "protocol": "tcp"},
        ]);
        let read: Vec<_> = mappings("portMappings", &list).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(read, ["8080→80/tcp", "127.0.0.1:53→5353/udp", "[::1]:9000-9009→9000-9009/sctp", "443→8443/tcp"]);
    }

    #[test]
    fn what_cannot_be_published_is_named() {
        let port = "is not a port from 1 to 65535";
        for bad in [0_i64, -1, 65536, 1 << 40] {
            assert_eq!(
                refusal(json!({"hostPort": bad, "containerPort": 80})),
                format!("portMappings[0].hostPort: {bad} {port}")
            );
            assert_eq!(
                refusal(json!({"hostPort": 80, "containerPort": bad})),
                format!("portMappings[0].containerPort: {bad} {port}")
            );
        }
        assert_eq!(
            refusal(json!({"hostPort": 65530, "containerPort": 80, "range": 7})),
            "portMappings[0].hostPort: 65530+7 is not a range that ends at or below 65535"
        );
        assert_eq!(
            refusal(json!({"hostPort": 80, "containerPort": 65530, "range": 7})),
            "portMappings[0].containerPort: 65530+7 is not a range that ends at or below 65535"
        );
        assert_eq!(
            refusal(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            "portMappings[0].protocol: \"icmp\" is not tcp, udp or sctp"
        );
        assert_eq!(
            refusal(json!({"hostPort": 80, "containerPort": 80, "hostIP": "localhost"})),
            "portMappings[0].hostIP: \"localhost\" is not an IP address of the host, or nothing for all of them"
        );
        assert_eq!(
            refusal(json!({"hostPort": "80", "containerPort": 80})),
            "portMappings[0].hostPort: \"80\" is not a whole number"
        );
    }

    #[test]
    fn a_host_port_leads_to_one_place() {
        let list = json!([
            {"hostPort": 8000, "containerPort": 80, "range": 10},
            {"hostPort": 8009, "containerPort": 443},
        ]);
        assert_eq!(
            mappings("portMappings", &list).unwrap_err().to_string(),
            "portMappings[1].hostPort: 8009→443/tcp is not apart from 8000-8009→80-89/tcp in the same list"
        );
        let list = json!([
            {"hostPort": 53, "containerPort": 53}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            {"hostPort": 53, "containerPort": 54, "hostIP": "127.0.0.1"},
        ]);
        assert_eq!(mappings("portMappings", &list).unwrap().len(), 3);
    }
}
