//! Rules of others, in words, and what lets a packet past them: an exception in front of them, in the
//! terms of whoever they belong to. Nobody's rule is taken away.

use std::net::IpAddr;

use super::Cure;
use super::evaluate::Blame;
use super::packet::{Packet, Wire};
use crate::model::rules::{Backend, Family, Hook};
use crate::model::{Scene, ZoneBinding};

/// The table of firewalld.
const FIREWALLD: &str = "firewalld";

/// Our own.
const OURS: &str = "netcore";

/// Our own chains in tables of iptables.
const OUR_CHAINS: &str = "NETCORE-";

/// The chains among them that are not.
const ADMINISTRATORS: [&str; 2] = ["user", "NETCORE-USER"];

/// `rule with handle 5 of chain forward in table inet admin`
pub(super) fn describe(blame: &Blame) -> String {
    let Blame { family, table, chain, .. } = blame;
    let place = match blame.backend {
        Backend::Nft => format!("chain {chain} in table {} {table}", family.name()),
        Backend::Legacy => format!("chain {chain} in table {table} of {}", program(blame)),
    };
    let place = match zone(blame) {
        Some("") => format!("{place}, which is firewalld's,"),
        Some(zone) => format!("{place}, which is of zone {zone} of firewalld,"),
        None => place,
    };
    match (blame.handle, blame.backend) {
        (Some(handle), Backend::Nft) => format!("the rule with handle {handle} of {place}"),
        (Some(number), Backend::Legacy) => format!("rule {number} of {place}"),
        (None, _) => format!("the policy of {place}"),
    }
}

/// Takes the rule away that translates what is published.
pub(super) fn remove(blame: &Blame) -> Cure {
    let Blame { family, table, chain, handle, .. } = blame;
    let handle = handle.unwrap_or_default();
    Cure::Command(match blame.backend {
        Backend::Nft => format!("nft delete rule {} {table} {chain} handle {handle}", family.name()),
        Backend::Legacy => format!("{} -t {table} -D {chain} {handle}", program(blame)),
    })
}

/// Lets `packet`, and what is like it, past what stops it.
pub(super) fn admit(blame: &Blame, packet: &Packet, scene: &Scene, on_host: bool) -> Cure {
    if let (Some(zone), true) = (zone(blame), on_host) {
        return firewalld(blame, zone, packet, scene);
    }
    let Blame { family, table, chain, .. } = blame;
    let is_ours = table == OURS || chain.starts_with(OUR_CHAINS);
    if is_ours && !ADMINISTRATORS.contains(&chain.as_str()) {
        let advice = "this is as the network's configuration has it (isolation, internal, ipspoofchk, macspoofchk): \
                      change it there, and attach its containers again";
        return Cure::Advice(advice.to_owned());
    }
    if blame.handle.is_none() && blame.hook == Hook::Forward {
        return by_interface(blame, packet, scene);
    }
    Cure::Command(match (is_iptables(blame), blame.handle) {
        (true, _) => {
            let place = number(blame, scene).map(|number| format!(" {number}")).unwrap_or_default();
            format!("{} -t {table} -I {chain}{place} {} -j ACCEPT", program(blame), iptables_match(packet))
        }
        (false, Some(handle)) => {
            format!("nft insert rule {} {table} {chain} handle {handle} {} accept", family.name(), nft_match(packet))
        }
        (false, None) => format!("nft insert rule {} {table} {chain} {} accept", family.name(), nft_match(packet)),
    })
}

/// Where a policy drops what is passed on: what comes from the containers' bridge and what goes there.
fn by_interface(blame: &Blame, packet: &Packet, scene: &Scene) -> Cure {
    let Blame { family, table, chain, .. } = blame;
    let is_bridge = |wire: &&Wire| scene.by_index(wire.index).is_some_and(|found| found.kind == "bridge");
    let wires = [&packet.came_by, &packet.leaves_by];
    let bridge = wires.iter().filter_map(|wire| wire.as_ref()).find(is_bridge);
    let bridge = bridge.map_or("", |wire| wire.name.as_str());
    Cure::Command(if is_iptables(blame) {
        // Docker leaves this chain to the operator, and asks it first.
        let own = scene
            .rules
            .chains
            .iter()
            .any(|found| found.name == "DOCKER-USER" && found.table == *table && found.backend == blame.backend);
        let (chain, program) = (if own { "DOCKER-USER" } else { chain }, program(blame));
        format!("{program} -I {chain} -o {bridge} -j ACCEPT && {program} -I {chain} -i {bridge} -j ACCEPT")
    } else {
        let insert = format!("nft insert rule {} {table} {chain}", family.name());
        format!("{insert} oifname {bridge} accept && {insert} iifname {bridge} accept")
    })
}

/// The zone or policy of firewalld's that the rule is of, if it is one of firewalld's: it is part of the
/// names of its chains, in its own table and in those of iptables. Empty for rules of all zones.
fn zone(blame: &Blame) -> Option<&str> {
    let prefixes = ["filter_FWD_", "filter_IN_", "FWD_", "IN_", "filter_FORWARD", "filter_INPUT"];
    let of_chain = prefixes.iter().find_map(|prefix| blame.chain.strip_prefix(prefix));
    if blame.table == FIREWALLD { Some(of_chain.unwrap_or_default()) } else { of_chain.filter(|_| is_iptables(blame)) }
}

/// firewalld's own terms (firewall-cmd(1)).
fn firewalld(blame: &Blame, zone: &str, packet: &Packet, scene: &Scene) -> Cure {
    let twice = |arguments: String| format!("firewall-cmd {arguments} && firewall-cmd --permanent {arguments}");
    let zone = if zone.is_empty() { String::new() } else { format!("--zone={zone} ") };
    Cure::Command(match (blame.hook, &packet.came_by) {
        // Otherwise what was translated passes before it comes to zones.
        (Hook::Forward | Hook::Output, _) if packet.dnat && !packet.is_answer && blame.table == FIREWALLD => {
            "sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf && \
             firewall-cmd --reload"
                .to_owned()
        }
        (Hook::Forward, Some(came_by)) => {
            let is_bridge = scene.by_index(came_by.index).is_some_and(|found| found.kind == "bridge");
            let zone = if is_bridge { ZoneBinding::ZONE } else { "trusted" };
            twice(format!("--zone={zone} --change-interface={}", came_by.name))
        }
        _ => twice(format!("{zone}--add-port={}/{}", packet.destination.port(), packet.protocol)),
    })
}

/// Whether the rule is iptables', of either kind.
pub(super) fn is_iptables(blame: &Blame) -> bool {
    let tables = ["filter", "nat", "mangle", "raw", "security"];
    let is_named_so = matches!(blame.family, Family::Ip | Family::Ip6) && tables.contains(&blame.table.as_str());
    // Chains that iptables jumps to may have any name; in tables of this name, nobody else has any.
    blame.backend == Backend::Legacy || is_named_so
}

fn program(blame: &Blame) -> &'static str {
    match (blame.family, blame.backend) {
        (Family::Ip6, Backend::Nft) => "ip6tables-nft",
        (Family::Ip6, Backend::Legacy) => "ip6tables-legacy",
        (_, Backend::Nft) => "iptables-nft",
        (_, Backend::Legacy) => "iptables-legacy",
    }
}

/// The place of the rule in its chain, from 1.
fn number(blame: &Blame, scene: &Scene) -> Option<usize> {
    let handle = blame.handle?;
    let is_meant = |chain: &&crate::model::rules::Chain| {
        chain.backend == blame.backend
            && chain.family == blame.family
            && chain.table == blame.table
            && chain.name == blame.chain
    };
    let chain = scene.rules.chains.iter().find(is_meant)?;
    chain.rules.iter().position(|rule| rule.handle == handle).map(|place| place + 1)
}

/// The server's address and port, wherever the packet is on its way.
fn server(packet: &Packet) -> (IpAddr, u16) {
    let server = if packet.is_answer { packet.source } else { packet.destination };
    (server.ip(), server.port())
}

fn nft_match(packet: &Packet) -> String {
    let (address, port) = server(packet);
    let family = if address.is_ipv6() { "ip6" } else { "ip" };
    let (end, side) = if packet.is_answer { ("saddr", "sport") } else { ("daddr", "dport") };
    format!("{family} {end} {address} {} {side} {port}", packet.protocol)
}

fn iptables_match(packet: &Packet) -> String {
    let (address, port) = server(packet);
    let (end, side) = if packet.is_answer { ("-s", "--sport") } else { ("-d", "--dport") };
    format!("{end} {address} -p {} {side} {port}", packet.protocol)
}
