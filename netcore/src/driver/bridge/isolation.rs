//! Who reaches the containers of a bridge, whom they reach, and by which firewall.

use super::{BridgeConfig, Error, Mark, NatRule, Object, Result, vlan};
use crate::model::{Barrier, FirewallBackend, InterfaceName, Isolation};

pub(super) fn validate(config: &BridgeConfig) -> Result<()> {
    for (key, value) in [("ipMasqBackend", &config.ip_masq_backend), ("firewallBackend", &config.firewall_backend)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty())
            && value.parse::<FirewallBackend>().is_err()
        {
            return Err(Error::invalid(key, format!("{value:?}"), "\"nftables\" or \"iptables\""));
        }
    }
    Ok(())
}

/// Whether anything is kept from anybody.
pub(super) fn is_wanted(config: &BridgeConfig) -> bool {
    config.isolation() != Isolation::Open || config.internal
}

/// The barriers around the bridge. Several networks may share it: a barrier stands as long as one
/// of them asks for it.
pub(super) fn barriers(config: &BridgeConfig) -> Vec<Object> {
    let isolation = config.isolation();
    let barriers = [
        (Barrier::Networks, isolation >= Isolation::Network),
        (Barrier::Outside, isolation >= Isolation::Strict),
        (Barrier::Internal, config.internal),
    ];
    let barrier =
        |barrier| Object::Nat(NatRule::Barrier { bridge: vlan::gateway(config), barrier, mark: Mark::of_host() });
    barriers.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| barrier(kind)).collect()
}

/// What the firewall has to know to tell networks apart: that `gateway` is one, and what stays on it.
pub(super) fn membership(gateway: &InterfaceName, mark: &Mark) -> [Object; 2] {
    [
        NatRule::Member { bridge: gateway.clone(), mark: mark.clone() },
        NatRule::Within { from: gateway.clone(), to: gateway.clone(), mark: mark.clone() },
    ]
    .map(Object::Nat)
}
