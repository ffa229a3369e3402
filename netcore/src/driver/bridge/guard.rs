//! What a container may send: its own MAC address, its own IP addresses.

use super::{BridgeConfig, Error, Lease, Mac, Mark, NatRule, Network, Object, Result};
use crate::model::{Check, InterfaceName, Source, Table, link_local};

pub(super) fn validate(config: &BridgeConfig, network: &Network) -> Result<()> {
    if config.ip_spoof_check && network.ipam.is_none() {
        return Err(Error::invalid(
            "ipspoofchk",
            "true",
            "compatible with a network without ipam (a container has no address of its own to send from): \
             set macspoofchk instead",
        ));
    }
    Ok(())
}

/// Whether anything is checked.
pub(super) fn is_wanted(config: &BridgeConfig) -> bool {
    config.mac_spoof_check || config.ip_spoof_check
}

/// The rules, which all networks share.
pub(super) fn ruleset() -> Object {
    Object::Nat(NatRule::Ruleset { table: Table::Bridge, damage: Vec::new() })
}

/// What `port`, behind which is a container with the address `mac`, may send. What it may is said
/// before that it is checked.
pub(super) fn of_port(
    config: &BridgeConfig,
    port: &InterfaceName,
    mac: Mac,
    lease: &Lease,
    mark: &Mark,
) -> impl Iterator<Item = Object> {
    let (mut sources, mut checks) = (Vec::new(), Vec::new());
    if config.mac_spoof_check {
        sources.push(Source::Mac(mac));
        checks.push(Check::Mac);
    }
    if config.ip_spoof_check {
        sources.extend(lease.addresses.iter().map(|leased| Source::Address(leased.address.ip())));
        // Neighbours find one another by it, and the kernel gives one to every interface.
        sources.push(Source::Address(link_local(mac).into()));
        checks.push(Check::Address);
    }
    let source = |source| NatRule::Source { port: port.clone(), source, mark: mark.clone() };
    let check = |check| NatRule::Guard { port: port.clone(), check, mark: mark.clone() };
    let rules: Vec<_> = sources.into_iter().map(source).chain(checks.into_iter().map(check)).collect();
    rules.into_iter().map(Object::Nat)
}
