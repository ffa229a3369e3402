//! Who reaches the containers of a bridge, whom they reach, and by which firewall.

use super::{BridgeConfig, Error, Result};
use crate::model::FirewallBackend;

pub(super) fn validate(config: &BridgeConfig) -> Result<()> {
    for (key, value) in [("ipMasqBackend", &config.ip_masq_backend), ("firewallBackend", &config.firewall_backend)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty())
            && value.parse::<FirewallBackend>().is_err()
        {
            return Err(Error::invalid(key, format!("{value:?}"), "\"nftables\" or \"iptables\""));
        }
    }
    match config.backend() {
        Some((key, value)) if value.parse() == Ok(FirewallBackend::Iptables) => Err(Error::Unsupported {
            field: key.to_owned(),
            value: format!("{value:?}"),
            way_out: "leave it out, or write \"nftables\": this version uses nf_tables alone".to_owned(),
        }),
        _ => Ok(()),
    }
}
