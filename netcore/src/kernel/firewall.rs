//! The seam to the firewall: what [`Linux`](super::Linux) asks of nf_tables, and what follows
//! for connections that exist already.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::error::Result;
use crate::model::{Name, NatRule, Object, Protocol};

use super::conntrack::{self, Published};
use super::nft::Nft;

/// What is there of `wanted`.
pub(super) fn observe(wanted: &[&NatRule]) -> Result<Vec<Object>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Nft::open()?.observe(wanted)?.into_iter().map(Object::Nat).collect())
}

/// Makes `rules` in one transaction. What was sent to a UDP port before it was published went to
/// the host, and would go on doing so; that is forgotten, so that the next packet is looked at
/// anew. Protocols with connections need no such thing: a new connection is looked at anyway.
pub(super) fn create(rules: &[&NatRule]) -> Result<()> {
    Nft::open()?.create(rules)?;
    let mut published = published(rules);
    published.retain(|port| port.protocol == Protocol::Udp);
    conntrack::flush(&published).map(drop)
}

/// Turns `was` into `rule`; both have the same key.
pub(super) fn update(was: &NatRule, rule: &NatRule) -> Result<()> {
    match rule {
        // Making the table again repairs what is damaged of it.
        NatRule::Ruleset { .. } => create(&[rule]),
        _ => {
            remove(&[was])?;
            create(&[rule])
        }
    }
}

/// Removes `rules` in one transaction. Connections that came by a withdrawn port are cut, or they
/// would swallow the traffic of whoever gets the port, or the address, next.
pub(super) fn remove(rules: &[&NatRule]) -> Result<()> {
    Nft::open()?.remove(rules)?;
    let targets: BTreeSet<IpAddr> = rules
        .iter()
        .filter_map(|rule| match rule {
            NatRule::Publish { to, .. } => Some(to.ip()),
            _ => None,
        })
        .collect();
    targets.into_iter().try_for_each(|target| conntrack::flush_address(target).map(drop))
}

/// Everything of the firewall that carries a mark of `network`.
pub(super) fn marked(network: &Name) -> Result<Vec<Object>> {
    Ok(Nft::open()?.marked(network)?.into_iter().map(Object::Nat).collect())
}

fn published(rules: &[&NatRule]) -> Vec<Published> {
    rules
        .iter()
        .filter_map(|rule| match rule {
            NatRule::Publish { host_address, protocol, host_port, to, .. } => {
                Some(Published { protocol: *protocol, host_address: *host_address, port: *host_port, v6: to.is_ipv6() })
            }
            _ => None,
        })
        .collect()
}
