//! VLANs on a bridge: which a container's port is in, and the gateway in the same one. As the
//! reference names it, the gateway of VLAN 10 on `cni0` is `cni0.10`; here it is that VLAN of the
//! bridge itself.

use super::{Bridge, BridgeConfig, Error, Link, LinkKind, Mark, Object, Place, Result};
use crate::model::{InterfaceName, PortVlans, Vlan, VlanTrunk, Vlans};

/// IEEE 802.1Q keeps 0 and 4095 for itself.
const IDS: std::ops::RangeInclusive<u16> = 1..=4094;

pub(super) fn validate(config: &BridgeConfig) -> Result<()> {
    if config.vlan != 0 && !IDS.contains(&config.vlan) {
        return Err(Error::invalid("vlan", config.vlan, "a VLAN id from 1 to 4094, or 0 for none"));
    }
    let mut pieces: Vec<(u16, u16)> = Vec::new();
    for (position, entry) in config.vlan_trunk.iter().enumerate() {
        for (first, last) in entry_pieces(entry, &format!("vlanTrunk[{position}]"))? {
            if let Some((from, to)) = pieces.iter().find(|(from, to)| first <= *to && *from <= last) {
                return Err(Error::invalid(
                    format!("vlanTrunk[{position}]"),
                    shown(first, last),
                    format!("without those named before: it overlaps {}", shown(*from, *to)),
                ));
            }
            pieces.push((first, last));
        }
    }
    if config.vlan != 0 && !config.vlan_trunk.is_empty() {
        return Err(Error::invalid("vlanTrunk", "a list", "absent when vlan is set: a port has the one or the other"));
    }
    if has_vlans(config) && config.promisc_mode {
        return Err(Error::invalid(
            "promiscMode",
            "true",
            "compatible with vlan and vlanTrunk (the host would take in the frames of every VLAN): leave one of them out",
        ));
    }
    if config.vlan != 0 && config.is_gateway() && gateway_name(config).is_none() {
        return Err(Error::invalid(
            "bridge",
            format!("\"{}\"", config.bridge()),
            format!("short enough for its gateway in VLAN {0}, BRIDGE.{0}, to have at most 15 bytes", config.vlan),
        ));
    }
    Ok(())
}

/// The first and last VLAN of each piece of `entry`, which the user knows as `path`.
fn entry_pieces(entry: &VlanTrunk, path: &str) -> Result<Vec<(u16, u16)>> {
    for (key, id) in [("id", entry.id), ("minID", entry.min_id), ("maxID", entry.max_id)] {
        if let Some(id) = id.filter(|id| !IDS.contains(id)) {
            return Err(Error::invalid(format!("{path}.{key}"), id, "a VLAN id from 1 to 4094"));
        }
    }
    let range = match (entry.min_id, entry.max_id) {
        (Some(first), Some(last)) if first > last => {
            return Err(Error::invalid(format!("{path}.minID"), first, format!("at most maxID, which is {last}")));
        }
        (Some(first), Some(last)) => Some((first, last)),
        (Some(_), None) => return Err(Error::invalid(format!("{path}.maxID"), "a missing value", "beside minID")),
        (None, Some(_)) => return Err(Error::invalid(format!("{path}.minID"), "a missing value", "beside maxID")),
        (None, None) if entry.id.is_none() => {
            return Err(Error::invalid(path, "an entry without VLANs", "an id, or minID and maxID"));
        }
        (None, None) => None,
    };
    let pieces: Vec<_> = entry.id.map(|id| (id, id)).into_iter().chain(range).collect();
    match pieces[..] {
        [(id, _), (first, last)] if (first..=last).contains(&id) => Err(Error::invalid(
            format!("{path}.id"),
            id,
            format!("outside of {}, which names it again", shown(first, last)),
        )),
        _ => Ok(pieces),
    }
}

fn shown(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Whether ports hear only some VLANs of the bridge.
pub(super) fn has_vlans(config: &BridgeConfig) -> bool {
    config.vlan != 0 || !config.vlan_trunk.is_empty()
}

/// The VLANs of a container's port.
pub(super) fn of_port(config: &BridgeConfig) -> Option<PortVlans> {
    let access = (config.vlan != 0).then(|| Vlans::access(config.vlan));
    let trunk = config.vlan_trunk.iter().flat_map(|entry| {
        let range = entry.min_id.zip(entry.max_id).map(|(first, last)| Vlans::tagged(first, last));
        entry.id.map(|id| Vlans::tagged(id, id)).into_iter().chain(range)
    });
    has_vlans(config).then(|| PortVlans {
        members: Vlans::merged(trunk.chain(access)),
        only: config.preserve_default_vlan == Some(false),
    })
}

/// The bridge as it has to be for that.
pub(super) fn bridge(config: &BridgeConfig) -> Bridge {
    let gateway = config.vlan != 0 && config.is_gateway();
    Bridge {
        promiscuous: config.promisc_mode,
        vlan_filtering: has_vlans(config),
        vlans: if gateway { vec![Vlans::tagged(config.vlan, config.vlan)] } else { Vec::new() },
    }
}

/// The link that carries the gateway addresses: the bridge, or its VLAN.
pub(super) fn gateway(config: &BridgeConfig) -> InterfaceName {
    // A name that is too long was refused before anything was made by it.
    gateway_name(config).unwrap_or_else(|| config.bridge())
}

fn gateway_name(config: &BridgeConfig) -> Option<InterfaceName> {
    match config.vlan {
        0 => Some(config.bridge()),
        id => InterfaceName::new(format!("{}.{id}", config.bridge())).ok(),
    }
}

/// The gateway's link, where that is not the bridge itself.
pub(super) fn gateway_link(config: &BridgeConfig, mark: &Mark) -> Option<Object> {
    (config.vlan != 0 && config.is_gateway()).then(|| {
        Object::Link(Link {
            place: Place::Host,
            name: gateway(config),
            kind: LinkKind::Vlan(Vlan { parent: config.bridge(), id: config.vlan }),
            mark: Some(mark.clone()),
            mac: None,
            mtu: None,
            up: true,
            port: None,
        })
    })
}
