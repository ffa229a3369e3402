//! The rules that a dockerd has written, by its version, as iptables-save(8) prints them.

use crate::docker_api::{Docker, Network, Port};

/// A chain that is Docker's, or in which it has rules.
#[derive(Debug, Default)]
pub(crate) struct WantedChain {
    pub(crate) name: &'static str,
    /// Whether the chain is Docker's own.
    pub(crate) is_own: bool,
    /// Its rules in their order: without what comes before `-j`'s chain name, `-A NAME`.
    pub(crate) rules: Vec<WantedRule>,
}

/// One rule.
#[derive(Debug)]
pub(crate) struct WantedRule {
    pub(crate) text: String,
    /// Whether it stands at the end, behind whatever else there is.
    pub(crate) is_last: bool,
}

/// The tables by name, each with its chains.
pub(crate) type Wanted = Vec<(String, Vec<WantedChain>)>;

/// The last major version that puts isolation into two stages of FORWARD's own.
const LAST_WITH_STAGES: u32 = 27;
/// The first that asks DOCKER-FORWARD everything, without stages.
const FIRST_WITHOUT_STAGES: u32 = 29;

/// What `docker` has written. A version whose layout is not known is refused: a rule too many in a
/// firewall is worse than one too few.
pub(crate) fn of(docker: &Docker) -> Result<Wanted, String> {
    if docker.is_hands_off {
        return Ok(Vec::new());
    }
    let major = docker.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    match major {
        17..=LAST_WITH_STAGES => Ok(vec![filter_with_stages(docker), nat(docker)]),
        FIRST_WITHOUT_STAGES.. => Ok(vec![filter_without_stages(docker), nat(docker), raw(docker)]),
        _ => Err(format!(
            "Docker {} writes its rules in a way this program does not know: restart it to have them back",
            docker.version
        )),
    }
}

impl WantedChain {
    fn own(name: &'static str) -> Self {
        Self { name, is_own: true, rules: Vec::new() }
    }

    fn builtin(name: &'static str) -> Self {
        Self { name, is_own: false, rules: Vec::new() }
    }

    fn add(&mut self, text: impl Into<String>) {
        self.rules.push(WantedRule { text: text.into(), is_last: false });
    }

    fn append(&mut self, text: impl Into<String>) {
        self.rules.push(WantedRule { text: text.into(), is_last: true });
    }
}

/// Seen with 20.10.
fn filter_with_stages(docker: &Docker) -> (String, Vec<WantedChain>) {
    let mut forward = WantedChain::builtin("FORWARD");
    let mut containers = WantedChain::own("DOCKER");
    let mut first = WantedChain::own("DOCKER-ISOLATION-STAGE-1");
    let mut second = WantedChain::own("DOCKER-ISOLATION-STAGE-2");
    let mut user = WantedChain::own("DOCKER-USER");
    forward.add("-j DOCKER-USER");
    forward.add("-j DOCKER-ISOLATION-STAGE-1");
    for Network { bridge, subnet, is_internal, talks, .. } in &docker.networks {
        if *is_internal {
            first.add(format!("! -s {subnet} -o {bridge} -j DROP"));
            first.add(format!("! -d {subnet} -i {bridge} -j DROP"));
        } else {
            forward.add(format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
            forward.add(format!("-o {bridge} -j DOCKER"));
            forward.add(format!("-i {bridge} ! -o {bridge} -j ACCEPT"));
            first.add(format!("-i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2"));
            second.add(format!("-o {bridge} -j DROP"));
        }
        if *talks {
            forward.add(format!("-i {bridge} -o {bridge} -j ACCEPT"));
        }
    }
    for Network { bridge, .. } in docker.networks.iter().filter(|network| !network.talks) {
        forward.append(format!("-i {bridge} -o {bridge} -j DROP"));
    }
    docker.ports.iter().for_each(|port| containers.append(accept(port)));
    first.append("-j RETURN");
    second.append("-j RETURN");
    user.append("-j RETURN");
    ("filter".to_owned(), vec![forward, containers, first, second, user])
}

/// As the sources of 29 have it.
fn filter_without_stages(docker: &Docker) -> (String, Vec<WantedChain>) {
    let mut forward = WantedChain::builtin("FORWARD");
    let mut containers = WantedChain::own("DOCKER");
    let mut all = WantedChain::own("DOCKER-FORWARD");
    let mut known = WantedChain::own("DOCKER-CT");
    let mut internal = WantedChain::own("DOCKER-INTERNAL");
    let mut bridges = WantedChain::own("DOCKER-BRIDGE");
    forward.add("-j DOCKER-USER");
    forward.add("-j DOCKER-FORWARD");
    all.add("-j DOCKER-CT");
    all.add("-j DOCKER-INTERNAL");
    all.add("-j DOCKER-BRIDGE");
    docker.ports.iter().for_each(|port| containers.add(accept(port)));
    for Network { bridge, subnet, is_internal, .. } in &docker.networks {
        if *is_internal {
            internal.add(format!("! -s {subnet} -o {bridge} -j DROP"));
            internal.add(format!("! -d {subnet} -i {bridge} -j DROP"));
            continue;
        }
        known.add(format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        bridges.add(format!("-o {bridge} -j DOCKER"));
        all.append(format!("-i {bridge} -j ACCEPT"));
        containers.append(format!("! -i {bridge} -o {bridge} -j DROP"));
    }
    ("filter".to_owned(), vec![forward, WantedChain::own("DOCKER-USER"), containers, all, known, internal, bridges])
}

fn nat(docker: &Docker) -> (String, Vec<WantedChain>) {
    let mut arriving = WantedChain::builtin("PREROUTING");
    let mut own = WantedChain::builtin("OUTPUT");
    let mut leaving = WantedChain::builtin("POSTROUTING");
    let mut containers = WantedChain::own("DOCKER");
    arriving.append("-m addrtype --dst-type LOCAL -j DOCKER");
    let loopback = if docker.hairpin { "" } else { "! -d 127.0.0.0/8 " };
    own.append(format!("{loopback}-m addrtype --dst-type LOCAL -j DOCKER"));
    for Network { bridge, subnet, masquerades, .. } in docker.networks.iter().filter(|network| !network.is_internal) {
        if docker.hairpin {
            leaving.add(format!("-o {bridge} -m addrtype --src-type LOCAL -j MASQUERADE"));
        }
        if *masquerades {
            leaving.add(format!("-s {subnet} ! -o {bridge} -j MASQUERADE"));
            if !docker.hairpin {
                containers.add(format!("-i {bridge} -j RETURN"));
            }
        }
    }
    for Port { bridge, address, host_address, host_port, port, protocol } in &docker.ports {
        let mut rule = host_address.map(|address| format!("-d {address}/32 ")).unwrap_or_default();
        if !docker.hairpin {
            rule += &format!("! -i {bridge} ");
        }
        containers.append(format!(
            "{rule}-p {protocol} -m {protocol} --dport {host_port} -j DNAT --to-destination {address}:{port}"
        ));
        leaving.append(format!(
            "-s {address}/32 -d {address}/32 -p {protocol} -m {protocol} --dport {port} -j MASQUERADE"
        ));
    }
    ("nat".to_owned(), vec![arriving, own, leaving, containers])
}

fn raw(docker: &Docker) -> (String, Vec<WantedChain>) {
    let mut arriving = WantedChain::builtin("PREROUTING");
    let mut addresses: Vec<_> = docker.ports.iter().map(|port| (port.address, &port.bridge)).collect();
    addresses.dedup();
    for (address, bridge) in addresses {
        arriving.append(format!("-d {address}/32 ! -i {bridge} -j DROP"));
    }
    ("raw".to_owned(), vec![arriving])
}

fn accept(Port { bridge, address, port, protocol, .. }: &Port) -> String {
    format!("-d {address}/32 ! -i {bridge} -o {bridge} -p {protocol} -m {protocol} --dport {port} -j ACCEPT")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::docker_api::tests::example;

    /// The rules as iptables-save prints them, in any order.
    fn rules(wanted: &Wanted) -> BTreeSet<String> {
        let chains = wanted.iter().flat_map(|(table, chains)| chains.iter().map(move |chain| (table, chain)));
        chains
            .flat_map(|(table, chain)| {
                chain.rules.iter().map(move |rule| format!("{table}: -A {} {}", chain.name, rule.text))
            })
            .collect()
    }

    /// What iptables-save printed beside that dockerd.
    fn saved(text: &str) -> BTreeSet<String> {
        let mut table = "";
        let mut rules = BTreeSet::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if line.starts_with("-A ") {
                rules.insert(format!("{table}: {line}"));
            }
        }
        rules
    }

    #[test]
    fn the_rules_of_20_10_are_those_it_has_written() {
        let proxied = of(&example(false)).unwrap();
        assert_eq!(rules(&proxied), saved(include_str!("../tests/docker/20.10-proxy.rules")));
        let hairpin = of(&example(true)).unwrap();
        assert_eq!(rules(&hairpin), saved(include_str!("../tests/docker/20.10-hairpin.rules")));
    }

    #[test]
    fn of_one_that_leaves_iptables_alone_nothing_is_missing() {
        let docker = Docker { is_hands_off: true, ..example(false) };
        assert!(of(&docker).unwrap().is_empty());
    }

    #[test]
    fn a_version_that_is_not_known_is_refused() {
        let mut docker = example(false);
        for version in ["28.1.0", "1.13.1", "unknown"] {
            docker.version = version.to_owned();
            assert!(of(&docker).unwrap_err().contains("restart it"), "{version}");
        }
        docker.version = "29.0.1".to_owned();
        let rules = rules(&of(&docker).unwrap());
        assert!(rules.contains("filter: -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        assert!(rules.contains("raw: -A PREROUTING -d 172.29.0.2/32 ! -i docker0 -j DROP"));
    }
}
