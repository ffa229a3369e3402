//! VLANs: links that are one VLAN of another, and the VLANs that a bridge and its ports are in.
//!
//! What a bridge's VLANs are is asked and said in messages of the bridge's own family
//! (`AF_BRIDGE`), which the kernel only lists for all bridges together. They are read where VLANs
//! are wanted, and nowhere else.

use std::collections::HashMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind, InfoVlan,
    LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::link::{BIRTH_GROUP, DEFAULT_GROUP, of_name, set_up, share, show};
use super::linux::Linux;
use super::rtnl::{Refusal, Rtnl};
use super::seen;
use crate::error::{Error, Result};
use crate::model::{Bridge, Link, LinkKind, Object, Place, PortVlans, Vlan, Vlans, vlan};

/// The VLANs that IEEE 802.1Q has numbers for.
const FIRST: u16 = 1;
const LAST: u16 = 4094;

/// Makes `link`, a VLAN of a link that is there.
pub(super) async fn create(kernel: &Linux, link: &Link, vlan: &Vlan) -> Result<()> {
    let rtnl = kernel.required(link.place)?;
    let failed = |refusal: Refusal| refusal.error("create", show(link));
    let parent = seen::by_name(&rtnl, &vlan.parent).await.map_err(failed)?;
    let Some(parent) = parent else { return Err(failed(Errno::NODEV.into())) };
    let mut message = of_name(link);
    set_up(&mut message, link.up);
    message.attributes.push(LinkAttribute::Link(parent.index));
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan.id)])),
    ]));
    match rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
        // One of that name is shared; one of another name that has the VLAN already is not found.
        Err(refusal) if refusal.is(&[Errno::EXIST]) => {
            return match seen::by_name(&rtnl, &link.name).await.map_err(failed)? {
                Some(_) => share(&rtnl, link).await,
                None => Err(Error::Conflict {
                    object: show(link).to_string(),
                    found: format!("VLAN {} of {} is there under another name", vlan.id, vlan.parent),
                    way_out: "use that link, or remove it".to_owned(),
                }),
            };
        }
        Err(refusal) if refusal.is(&[Errno::OPNOTSUPP]) => {
            return Err(Error::Unsupported {
                field: format!("VLAN {} of {}", vlan.id, vlan.parent),
                value: link.name.to_string(),
                way_out: format!(
                    "there is no such link, and this kernel cannot make it: it lacks 802.1Q (CONFIG_VLAN_8021Q, \
                     module 8021q); load the module, or make {} in another way",
                    link.name
                ),
            });
        }
        outcome => outcome.map_err(failed)?,
    }
    let mut finish = of_name(link);
    finish.attributes.extend(link.mark.as_ref().map(|mark| LinkAttribute::IfAlias(mark.to_string())));
    finish.attributes.push(LinkAttribute::Group(DEFAULT_GROUP));
    if let Err(refusal) = rtnl.change(RouteNetlinkMessage::NewLink(finish), 0).await {
        let _ = rtnl.change(RouteNetlinkMessage::DelLink(of_name(link)), 0).await;
        return Err(failed(refusal));
    }
    Ok(())
}

/// Refuses a link that has the name but is another VLAN, or of another link: neither can change.
pub(super) fn expect(link: &Link, had: &Vlan, want: &Vlan) -> Result<()> {
    if had == want {
        return Ok(());
    }
    Err(Error::Conflict {
        object: show(link).to_string(),
        found: format!("{} is there as VLAN {} of {}", link.name, had.id, had.parent),
        way_out: "remove it, or choose another name".to_owned(),
    })
}

/// The part of a bridge's description that has it filter by VLAN.
pub(super) fn filtering() -> LinkInfo {
    LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]))
}

/// Sees to it that a bridge that was just made, or found, filters by VLAN if it should, and that
/// the host is in its VLANs by it. Kernels that cannot filter refuse, or say nothing and do nothing.
pub(super) async fn reach(rtnl: &Rtnl, link: &Link, bridge: &Bridge) -> Result<()> {
    if !bridge.vlan_filtering {
        return Ok(());
    }
    let failed = |refusal: Refusal| refusal.error("read", show(link));
    let found = seen::by_name(rtnl, &link.name).await.map_err(failed)?;
    let Some(found) = found else { return Err(failed(Errno::NODEV.into())) };
    if found.vlan_filtering != Some(true) {
        return Err(unsupported(link));
    }
    set(rtnl, link, found.index, BridgeFlag::LowerDev, &bridge.vlans).await
}

/// Turns a bridge that is there into one that filters by VLAN; one that is `ours`, or does so
/// already.
pub(super) async fn update_bridge(rtnl: &Rtnl, link: &Link, ours: bool, filters: bool, want: &Bridge) -> Result<()> {
    if want.vlan_filtering && !filters {
        if !ours {
            return Err(Error::Conflict {
                object: show(link).to_string(),
                found: "VLAN filtering is off, and the bridge is not ours to change".to_owned(),
                way_out: format!("`ip link set {} type bridge vlan_filtering 1`, or name another bridge", link.name),
            });
        }
        let mut message = of_name(link);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), filtering()]));
        let changed = rtnl.change(RouteNetlinkMessage::NewLink(message), 0).await;
        changed.map_err(|refusal| match refusal.is(&[Errno::OPNOTSUPP]) {
            true => unsupported(link),
            false => refusal.error("filter VLANs on", show(link)),
        })?;
    }
    reach(rtnl, link, want).await
}

/// What to say where bridges have no VLANs.
pub(super) fn unsupported(link: &Link) -> Error {
    Error::Unsupported {
        field: "vlan, vlanTrunk".to_owned(),
        value: format!("VLAN filtering on bridge {}", link.name),
        way_out: "this kernel's bridges have none (CONFIG_BRIDGE_VLAN_FILTERING); leave both out, or give each VLAN \
                  a bridge of its own"
            .to_owned(),
    }
}

/// Puts the port `link` into `vlans`, and out of others if it is to be in no others.
pub(super) async fn join(rtnl: &Rtnl, link: &Link, vlans: &PortVlans) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("read", show(link));
    let found = seen::by_name(rtnl, &link.name).await.map_err(failed)?;
    let Some(found) = found else { return Err(failed(Errno::NODEV.into())) };
    if vlans.only {
        let message = of_port(found.index, BridgeFlag::Controller, &gaps(&vlans.members));
        let left = rtnl.change(RouteNetlinkMessage::DelLink(message), 0).await;
        left.map_err(|refusal| refusal.error("take out of other VLANs", show(link)))?;
    }
    set(rtnl, link, found.index, BridgeFlag::Controller, &vlans.members).await
}

async fn set(rtnl: &Rtnl, link: &Link, index: u32, of: BridgeFlag, vlans: &[Vlans]) -> Result<()> {
    if vlans.is_empty() {
        return Ok(());
    }
    let message = of_port(index, of, vlans);
    let added = rtnl.change(RouteNetlinkMessage::SetLink(message), 0).await;
    added.map_err(|refusal| refusal.error("put into its VLANs", format_args!("{} ({})", show(link), vlan::list(vlans))))
}

/// A message about `vlans` of a bridge's port, or of the bridge itself.
fn of_port(index: u32, of: BridgeFlag, vlans: &[Vlans]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let infos = vlans.iter().flat_map(infos).map(AfSpecBridge::VlanInfo);
    let spec = std::iter::once(AfSpecBridge::Flags(of)).chain(infos).collect();
    message.attributes.push(LinkAttribute::AfSpecBridge(spec));
    message
}

fn infos(vlans: &Vlans) -> Vec<BridgeVlanInfo> {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlans.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlans.untagged);
    if vlans.first == vlans.last {
        return vec![BridgeVlanInfo { flags, vid: vlans.first }];
    }
    vec![
        BridgeVlanInfo { flags: flags | BridgeVlanInfoFlags::RangeBegin, vid: vlans.first },
        BridgeVlanInfo { flags: flags | BridgeVlanInfoFlags::RangeEnd, vid: vlans.last },
    ]
}

/// All VLANs but those of `members`, which are in order. The kernel does not mind being told to
/// take a port out of one it is not in.
fn gaps(members: &[Vlans]) -> Vec<Vlans> {
    let ends = members.iter().map(|vlans| vlans.last + 1);
    let starts = members.iter().map(|vlans| vlans.first - 1);
    std::iter::once(FIRST)
        .chain(ends)
        .zip(starts.chain([LAST]))
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| Vlans::tagged(first, last))
        .collect()
}

/// Whether VLANs of a bridge or a port are part of what is wanted.
pub(super) fn matters(wanted: &Object) -> bool {
    let Object::Link(link) = wanted else { return false };
    let of_bridge = matches!(&link.kind, LinkKind::Bridge(bridge) if bridge.vlan_filtering);
    of_bridge || link.port.as_ref().is_some_and(|port| port.vlans.is_some())
}

/// The VLANs of every bridge and port on the host, by index.
pub(super) async fn all(kernel: &Linux) -> Result<HashMap<u32, Vec<Vlans>>> {
    let rtnl = kernel.required(Place::Host)?;
    let mut query = LinkMessage::default();
    query.header.interface_family = AddressFamily::Bridge;
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
    let answers = rtnl.dump(RouteNetlinkMessage::GetLink(query)).await;
    let answers = match answers {
        // Not even bridges are known.
        Err(refusal) if refusal.is(&[Errno::OPNOTSUPP]) => Vec::new(),
        answers => answers.map_err(|refusal| refusal.error("list", "VLANs of bridge ports"))?,
    };
    let mut vlans: HashMap<u32, Vec<Vlans>> = HashMap::new();
    for answer in answers {
        let RouteNetlinkMessage::NewLink(message) = answer else { continue };
        for attribute in &message.attributes {
            if let LinkAttribute::AfSpecBridge(spec) = attribute {
                vlans.entry(message.header.index).or_default().extend(read(spec));
            }
        }
    }
    Ok(vlans.into_iter().map(|(index, vlans)| (index, Vlans::merged(vlans))).collect())
}

fn read(spec: &[AfSpecBridge]) -> Vec<Vlans> {
    let mut vlans = Vec::new();
    let mut first = None;
    for fact in spec {
        let AfSpecBridge::VlanInfo(info) = fact else { continue };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(info.vid);
            continue;
        }
        vlans.push(Vlans {
            first: first.take().unwrap_or(info.vid),
            last: info.vid,
            pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
        });
    }
    vlans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_and_around_is_left() {
        let tagged = |pairs: &[(u16, u16)]| pairs.iter().map(|(a, b)| Vlans::tagged(*a, *b)).collect::<Vec<_>>();
        assert_eq!(gaps(&[Vlans::access(10)]), tagged(&[(1, 9), (11, 4094)]));
        assert_eq!(gaps(&tagged(&[(1, 5), (8, 4094)])), tagged(&[(6, 7)]));
        assert_eq!(gaps(&tagged(&[(1, 4094)])), []);
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        for vlans in [vec![Vlans::access(10)], vec![Vlans::tagged(5, 5), Vlans::tagged(100, 199)]] {
            let spec: Vec<_> = vlans.iter().flat_map(infos).map(AfSpecBridge::VlanInfo).collect();
            assert_eq!(read(&spec), vlans);
        }
    }
}
