//! Addresses on interfaces.

use std::net::IpAddr;

use futures::future::try_join_all;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::linux::Linux;
use super::rtnl::{Refusal, Rtnl, forgive};
use super::seen::{self, Interfaces};
use super::sysctl;
use crate::error::{Error, Result};
use crate::model::{Address, InterfaceName, Object, Place, Rivals, Sysctl};

/// What is there of `wanted`, and the rivals of those whose rivals matter.
pub(super) async fn observe(kernel: &Linux, interfaces: &Interfaces, wanted: &[&Address]) -> Result<Vec<Object>> {
    let mut links: Vec<(Place, &InterfaceName, bool)> =
        wanted.iter().map(|address| (address.place, &address.link, address.address.is_ipv6())).collect();
    links.sort_unstable();
    links.dedup();
    let look = links.into_iter().map(|(place, link, v6)| async move {
        let Some(interface) = interfaces.get(place, link) else { return Ok::<_, Error>(Vec::new()) };
        let Some(rtnl) = kernel.at(place)? else { return Ok(Vec::new()) };
        let present = on_interface(&rtnl, interface.index, v6)
            .await
            .map_err(|refusal| refusal.error("read", format_args!("addresses of {link} ({place})")))?;
        let wanted: Vec<&&Address> = wanted
            .iter()
            .filter(|address| address.place == place && address.link == *link && address.address.is_ipv6() == v6)
            .collect();
        let matters = |present: &Present| {
            wanted.iter().any(|wanted| {
                wanted.address == present.address
                    || wanted.rivals != Rivals::Allow && are_rivals(wanted.address, present.address)
            })
        };
        Ok(present
            .into_iter()
            .filter(matters)
            .map(|present| {
                Object::Address(Address {
                    place,
                    link: link.clone(),
                    address: present.address,
                    dad: present.address.is_ipv6() && !present.flags.contains(AddressFlags::Nodad),
                    rivals: Rivals::Allow,
                })
            })
            .collect())
    });
    Ok(try_join_all(look).await?.concat())
}

/// Any two IPv4 addresses on one interface contradict one another, IPv6 ones only within one
/// subnet: there, an interface has several by design.
fn are_rivals(wanted: IpNetwork, other: IpNetwork) -> bool {
    match (wanted, other) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(wanted), IpNetwork::V6(other)) => wanted.overlaps(other),
        _ => false,
    }
}

/// An address as the kernel reports it.
pub(super) struct Present {
    pub(super) address: IpNetwork,
    pub(super) flags: AddressFlags,
}

/// The addresses of one family on the interface with the index `index`.
pub(super) async fn on_interface(rtnl: &Rtnl, index: u32, v6: bool) -> Result<Vec<Present>, Refusal> {
    let mut query = AddressMessage::default();
    query.header.family = family(v6);
    query.header.index = index;
    match rtnl.dump(RouteNetlinkMessage::GetAddress(query)).await {
        Ok(answers) => Ok(answers.iter().filter_map(|answer| from_answer(answer, index)).collect()),
        // Gone meanwhile.
        Err(refusal) if refusal.is(&[Errno::NODEV]) => Ok(Vec::new()),
        Err(refusal) => Err(refusal),
    }
}

/// The host's addresses on `link` that others know: global ones that are here to stay.
pub(super) async fn of_host(kernel: &Linux, link: &InterfaceName) -> Result<Vec<IpAddr>> {
    let failed = |refusal: Refusal| refusal.error("read", format_args!("addresses of {link} ({})", Place::Host));
    let rtnl = kernel.required(Place::Host)?;
    let Some(seen) = seen::by_name(&rtnl, link).await.map_err(failed)? else { return Ok(Vec::new()) };
    let mut addresses = Vec::new();
    for v6 in [false, true] {
        let present = on_interface(&rtnl, seen.index, v6).await.map_err(failed)?;
        let lasting = present.iter().filter(|present| !v6 || !present.flags.contains(AddressFlags::Secondary));
        addresses.extend(lasting.map(|present| present.address.ip()).filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }));
    }
    Ok(addresses)
}

/// The address in an answer or notification, if it is on the interface with the index `index`.
pub(super) fn from_answer(answer: &RouteNetlinkMessage, index: u32) -> Option<Present> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    if message.header.index != index {
        return None;
    }
    let (mut address, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side's.
    let address = IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Present { address, flags })
}

/// Makes `address`.
pub(super) async fn create(kernel: &Linux, address: &Address) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("create", show(address));
    let rtnl = kernel.required(address.place)?;
    let index = index(kernel, address).await.map_err(failed)?.ok_or_else(|| failed(Errno::NODEV.into()))?;
    let message = message(index, address);
    let add = || rtnl.change(RouteNetlinkMessage::NewAddress(message.clone()), NLM_F_CREATE | NLM_F_EXCL);
    let outcome = match add().await {
        // Container runtimes switch IPv6 off in every namespace they make; an address that was
        // asked for switches it on again, for its interface.
        Err(refusal) if refusal.is(&[Errno::ACCESS]) && address.address.is_ipv6() => {
            sysctl::write(kernel, &enable_ipv6(address))?;
            add().await
        }
        outcome => outcome,
    };
    match outcome {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => {
            let present = on_interface(&rtnl, index, address.address.is_ipv6()).await.map_err(failed)?;
            match present.iter().find(|present| present.address.ip() == address.address.ip()) {
                Some(same) if same.address == address.address => Ok(()),
                Some(other) => Err(Error::Conflict {
                    object: show(address).to_string(),
                    found: format!("it is there as {}", other.address),
                    way_out: "remove that one, or ask for the same prefix length".to_owned(),
                }),
                None => Err(failed(refusal)),
            }
        }
        outcome => outcome.map_err(failed),
    }
}

fn enable_ipv6(address: &Address) -> Sysctl {
    Sysctl { place: address.place, name: format!("net/ipv6/conf/{}/disable_ipv6", address.link), value: "0".to_owned() }
}

/// Removes `address`; what is gone already is a success.
pub(super) async fn remove(kernel: &Linux, address: &Address) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("remove", show(address));
    let Some(rtnl) = kernel.at(address.place)? else { return Ok(()) };
    let Some(index) = index(kernel, address).await.map_err(failed)? else { return Ok(()) };
    let outcome = rtnl.change(RouteNetlinkMessage::DelAddress(message(index, address)), 0).await;
    forgive(outcome, &[Errno::ADDRNOTAVAIL, Errno::NODEV]).map_err(failed)
}

async fn index(kernel: &Linux, address: &Address) -> Result<Option<u32>, Refusal> {
    Ok(seen::known(kernel, address.place, &address.link).await?.map(|link| link.index))
}

fn message(index: u32, address: &Address) -> AddressMessage {
    let ip = address.address.ip();
    let mut message = AddressMessage::default();
    message.header.family = family(ip.is_ipv6());
    message.header.prefix_len = address.address.prefix();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    match address.address {
        // Networks of one or two addresses have no broadcast address (RFC 3021).
        IpNetwork::V4(v4) if v4.prefix() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNetwork::V6(_) if !address.dad => message.header.flags = AddressHeaderFlags::Nodad,
        _ => {}
    }
    message
}

/// `AF_INET6` or `AF_INET`.
pub(super) fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

/// The address as messages name it.
pub(super) fn show(address: &Address) -> Object {
    Object::Address(address.clone())
}

/// Fails when an address among `addresses` turned out to be somebody else's (RFC 4862 §5.4.5).
pub(super) fn refuse_duplicate(address: &Address, present: &Present) -> Result<()> {
    if !present.flags.contains(AddressFlags::Dadfailed) {
        return Ok(());
    }
    Err(Error::Conflict {
        object: show(address).to_string(),
        found: "another host on the network has this address (duplicate address detection, RFC 4862)".to_owned(),
        way_out: "detach, and ask for another address".to_owned(),
    })
}

/// Whether duplicate address detection has not finished yet.
pub(super) fn is_tentative(present: &Present) -> bool {
    present.flags.contains(AddressFlags::Tentative) && !present.flags.contains(AddressFlags::Dadfailed)
}
