//! What a running dockerd says of itself, over its socket (Docker Engine API 1.24 and later). Three
//! questions in HTTP/1.0, after each of which the daemon closes the connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long dockerd may take over an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A dockerd.
#[derive(Debug)]
pub(crate) struct Docker {
    /// Its version.
    pub(crate) version: String,
    /// Its bridge networks, the newest first and the default one last: the order in which it writes rules.
    pub(crate) networks: Vec<Network>,
    /// The ports that its containers publish.
    pub(crate) ports: Vec<Port>,
    /// Whether it has been told to leave iptables alone.
    pub(crate) is_hands_off: bool,
    /// Whether it has rules for what a helper does otherwise (`userland-proxy` is off).
    pub(crate) hairpin: bool,
}

/// A bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) bridge: String,
    /// Its IPv4 subnet.
    pub(crate) subnet: String,
    pub(crate) is_internal: bool,
    /// Whether its containers reach one another (`enable_icc`).
    pub(crate) talks: bool,
    pub(crate) masquerades: bool,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) bridge: String,
    pub(crate) address: Ipv4Addr,
    /// The one host address; every one when `None`.
    pub(crate) host_address: Option<Ipv4Addr>,
    pub(crate) host_port: u16,
    pub(crate) port: u16,
    pub(crate) protocol: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedNetwork {
    name: String,
    id: String,
    created: String,
    scope: String,
    driver: String,
    internal: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    #[serde(default)]
    config: Option<Vec<Subnet>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Subnet {
    #[serde(default)]
    subnet: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(default)]
    created: i64,
    #[serde(default)]
    ports: Vec<ListedPort>,
    network_settings: Settings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPort {
    #[serde(rename = "IP", default)]
    ip: String,
    private_port: u16,
    #[serde(default)]
    public_port: u16,
    #[serde(rename = "Type")]
    protocol: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    networks: BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAddress", default)]
    address: String,
}

/// Asks the dockerd behind `socket`.
pub(crate) fn ask(socket: &Path) -> io::Result<Docker> {
    let Version { version } = get(socket, "/version")?;
    let listed: Vec<ListedNetwork> = get(socket, "/networks")?;
    let containers: Vec<Container> = get(socket, "/containers/json")?;
    let docker = read(version, listed, containers, |bridge| {
        // dockerd sets it where it does without the helper (daemon option `userland-proxy`).
        let switch = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
        fs::read_to_string(switch).is_ok_and(|value| value.trim() == "1")
    });
    Ok(Docker { is_hands_off: is_hands_off(), ..docker })
}

/// Whether dockerd was started with `iptables` off, which it does not say over its socket.
fn is_hands_off() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let mut daemons =
        processes.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "dockerd"));
    let arguments: Vec<String> = daemons
        .next()
        .and_then(|path| fs::read(path.join("cmdline")).ok())
        .map(|line| line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
        .unwrap_or_default();
    if arguments.iter().any(|argument| argument == "--iptables=false") {
        return true;
    }
    let place = arguments.iter().position(|argument| argument == "--config-file");
    let file = place.and_then(|place| arguments.get(place + 1)).map(String::as_str);
    let file = file.or_else(|| arguments.iter().find_map(|argument| argument.strip_prefix("--config-file=")));
    let settings = fs::read(file.unwrap_or("/etc/docker/daemon.json")).ok();
    let settings: Option<serde_json::Value> = settings.and_then(|text| serde_json::from_slice(&text).ok());
    settings.is_some_and(|settings| settings["iptables"] == false)
}

fn read(
    version: String,
    mut listed: Vec<ListedNetwork>,
    mut containers: Vec<Container>,
    is_hairpin: impl Fn(&str) -> bool,
) -> Docker {
    listed.retain(|network| network.driver == "bridge" && network.scope == "local");
    listed.sort_by(|a, b| b.created.cmp(&a.created));
    listed.sort_by_key(|network| network.name == "bridge");
    // They are listed the other way round, and their times are whole seconds.
    containers.reverse();
    containers.sort_by_key(|container| container.created);
    let known: BTreeMap<String, Network> =
        listed.iter().filter_map(|one| Some((one.name.clone(), network(one)?))).collect();
    let networks: Vec<Network> = listed.iter().filter_map(|one| known.get(&one.name).cloned()).collect();
    let ports = containers.iter().flat_map(|container| ports(container, &known)).collect();
    let hairpin = networks.iter().any(|network| is_hairpin(&network.bridge));
    Docker { version, networks, ports, is_hands_off: false, hairpin }
}

fn network(listed: &ListedNetwork) -> Option<Network> {
    let option = |name: &str| {
        let name = format!("com.docker.network.bridge.{name}");
        listed.options.as_ref().and_then(|options| options.get(&name)).cloned()
    };
    let is_on = |name: &str| option(name).is_none_or(|value| value == "true");
    let subnets = listed.ipam.config.iter().flatten().map(|config| config.subnet.as_str());
    let subnet = subnets.filter(|subnet| subnet.contains('.')).find(|subnet| subnet.contains('/'))?;
    Some(Network {
        bridge: option("name").unwrap_or_else(|| format!("br-{}", listed.id.get(..12).unwrap_or(&listed.id))),
        subnet: subnet.to_owned(),
        is_internal: listed.internal,
        talks: is_on("enable_icc"),
        masquerades: is_on("enable_ip_masquerade"),
    })
}

/// What a container publishes, by the first of its networks that leads out, in the order of their names:
/// the one that dockerd takes for its gateway.
fn ports(container: &Container, networks: &BTreeMap<String, Network>) -> Vec<Port> {
    let leads_out = |(name, endpoint): (&String, &Endpoint)| {
        let network = networks.get(name).filter(|network| !network.is_internal)?;
        Some((network.bridge.clone(), endpoint.address.parse::<Ipv4Addr>().ok()?))
    };
    let Some((bridge, address)) = container.network_settings.networks.iter().find_map(leads_out) else {
        return Vec::new();
    };
    let port = |listed: &ListedPort| {
        let host_address = match listed.ip.parse().ok()? {
            IpAddr::V4(address) => Some(address).filter(|address| !address.is_unspecified()),
            IpAddr::V6(_) => return None,
        };
        Some(Port {
            bridge: bridge.clone(),
            address,
            host_address,
            host_port: listed.public_port,
            port: listed.private_port,
            protocol: listed.protocol.clone(),
        })
    };
    container.ports.iter().filter(|listed| listed.public_port != 0).filter_map(port).collect()
}

fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> io::Result<T> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let fault = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("GET {path}: {what}"));
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| fault("no HTTP"))?;
    let status = String::from_utf8_lossy(&answer[..end]);
    let status = status.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(fault(status));
    }
    serde_json::from_slice(&answer[end + 4..]).map_err(|error| fault(&error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a dockerd 20.10 with three networks answered.
    pub(crate) fn example(hairpin: bool) -> Docker {
        let networks = serde_json::from_str(include_str!("../tests/docker/networks.json")).unwrap();
        let containers = serde_json::from_str(include_str!("../tests/docker/containers.json")).unwrap();
        read("20.10.24+dfsg1".to_owned(), networks, containers, |_| hairpin)
    }

    #[test]
    fn answers_are_read() {
        let docker = example(false);
        let bridges: Vec<&str> = docker.networks.iter().map(|network| network.bridge.as_str()).collect();
        assert_eq!(bridges, ["br-2576da0c32a2", "br-9ddcdab6cf0d", "br-372a2d73de7f", "docker0"]);
        assert!(!docker.networks[0].talks && !docker.networks[0].masquerades && docker.networks[1].is_internal);
        assert_eq!(docker.ports.len(), 5);
    }
}
