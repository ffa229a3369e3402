//! Links on other links: macvlan, whose upper link may be in the sandbox while its parent is the
//! host's, and VLAN.
//!
//! A macvlan link for the sandbox is born there, but its request goes through the host's
//! namespace, where the parent is, and before Linux 6.15 the kernel also looks there whether the
//! name is taken. If it is, the link is born under a [name of its own](crate::model::Mark) and
//! gets the real one later, for which the kernel waits a grace period. Alias and state follow in
//! one further request either way.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use super::event_loop;
use super::link::{BIRTH_GROUP, DEFAULT_GROUP, is_ours, of_name, remove, set_up, show};
use super::linux::Linux;
use super::rtnl::Refusal;
use super::seen;
use crate::error::{Error, Result};
use crate::model::{Link, Macvlan, MacvlanMode, Place};

/// How long the MAC address of a link may stay taken whose namespace has gone: the kernel removes
/// the links of one a moment later, and tells nobody elsewhere.
const MAC_PATIENCE: Duration = Duration::from_millis(500);

/// How long to wait before trying again.
const PACE: Duration = Duration::from_millis(10);

/// What the kernel says of a MAC address that another link on the same master has
/// (drivers/net/macvlan.c, macvlan_open).
const MAC_IN_USE: &[Errno] = &[Errno::BUSY, Errno::ADDRINUSE];

/// Makes `link`.
pub(super) async fn create_macvlan(kernel: &Linux, link: &Link, macvlan: &Macvlan) -> Result<()> {
    let below = kernel.required(macvlan.parent_place)?;
    let there = kernel.required(link.place)?;
    let born_elsewhere = link.place != macvlan.parent_place;
    let mut birth_name = link.name.clone();
    let mut message = of_name(link);
    message.attributes.push(LinkAttribute::Link(parent_index(kernel, link, macvlan).await?));
    if born_elsewhere {
        message.attributes.push(LinkAttribute::NetNsFd(kernel.required_sandbox()?.as_fd().as_raw_fd()));
    }
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    message.attributes.push(settings(macvlan));
    let birth = |message| below.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    let mut outcome = birth(message.clone()).await;
    if let (Err(refusal), Some(mark), true) = (&outcome, &link.mark, born_elsewhere)
        && refusal.is(&[Errno::EXIST])
    {
        birth_name = mark.birth_name();
        message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::IfName(_)));
        message.attributes.push(LinkAttribute::IfName(birth_name.to_string()));
        outcome = birth(message).await;
    }
    outcome.map_err(|refusal| explain_birth(link, macvlan, refusal))?;

    let failed = |refusal: Refusal| refusal.error("create", show(link));
    let finish = async {
        let mut message = of_name(link);
        if birth_name != link.name {
            // By index, so that the name is the one to take.
            let born = seen::by_name(&there, &birth_name).await.map_err(failed)?;
            message.header.index = born.ok_or_else(|| failed(Errno::NODEV.into()))?.index;
        }
        message.attributes.extend(link.mark.as_ref().map(|mark| LinkAttribute::IfAlias(mark.to_string())));
        message.attributes.push(LinkAttribute::Group(DEFAULT_GROUP));
        set_up(&mut message, link.up);
        let deadline = Instant::now() + MAC_PATIENCE;
        loop {
            match there.change(RouteNetlinkMessage::SetLink(message.clone()), 0).await {
                Err(refusal) if refusal.is(MAC_IN_USE) && Instant::now() < deadline => {
                    event_loop::entered().await.map_err(|source| failed(source.into()))?;
                    sleep(PACE).await;
                }
                outcome => return outcome.map_err(|refusal| explain_start(link, macvlan, refusal)),
            }
        }
    };
    let outcome = finish.await;
    if outcome.is_err() {
        // All or nothing. What the removal says would only hide what went wrong.
        let _ = remove(kernel, link).await;
    }
    outcome
}

/// Gives `link` the mode and the queue it should have; another parent takes another link.
pub(super) async fn update_macvlan(kernel: &Linux, link: &Link, had: &Macvlan, want: &Macvlan) -> Result<bool> {
    if (&had.parent, had.parent_place) != (&want.parent, want.parent_place) {
        remove(kernel, link).await?;
        create_macvlan(kernel, link, want).await?;
        return Ok(true);
    }
    if had != want {
        let mut message = of_name(link);
        message.attributes.push(settings(want));
        let outcome = kernel.required(link.place)?.change(RouteNetlinkMessage::NewLink(message), 0).await;
        outcome.map_err(|refusal| refusal.error("update", show(link)))?;
    }
    Ok(false)
}

/// Removes what a process that died left of `link`: it may not have got its name yet.
pub(super) async fn remove_unfinished(kernel: &Linux, link: &Link) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("remove", show(link));
    let (Some(mark), Some(rtnl)) = (&link.mark, kernel.at(link.place)?) else { return Ok(()) };
    match seen::by_name(&rtnl, &mark.birth_name()).await.map_err(failed)? {
        Some(found) if is_ours(link, &found) => {
            let mut message = LinkMessage::default();
            message.header.index = found.index;
            let outcome = rtnl.change(RouteNetlinkMessage::DelLink(message), 0).await;
            super::rtnl::forgive(outcome, &[Errno::NODEV]).map_err(failed)
        }
        _ => Ok(()),
    }
}

async fn parent_index(kernel: &Linux, link: &Link, macvlan: &Macvlan) -> Result<u32> {
    let parent = &macvlan.parent;
    let failed = |refusal: Refusal| refusal.error("find", format!("{parent}, the master of {}", show(link)));
    match seen::known(kernel, macvlan.parent_place, parent).await.map_err(failed)? {
        Some(found) => Ok(found.index),
        None => Err(failed(Errno::NODEV.into())),
    }
}

fn settings(macvlan: &Macvlan) -> LinkAttribute {
    let mut data = vec![InfoMacVlan::Mode(match macvlan.mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
    })];
    data.extend(macvlan.bc_queue_len.map(InfoMacVlan::BcQueueLen));
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(InfoData::MacVlan(data))])
}

/// The kernel has few words for what it has against a macvlan link.
fn explain_birth(link: &Link, macvlan: &Macvlan, refusal: Refusal) -> Error {
    let master = &macvlan.parent;
    let conflict = |found: String, way_out: &str| Error::Conflict {
        object: show(link).to_string(),
        found,
        way_out: way_out.to_owned(),
    };
    if refusal.is(&[Errno::EXIST]) {
        return Error::InterfaceExists { name: link.name.clone(), place: format!("the {}", link.place) };
    }
    // drivers/net/macvlan.c, macvlan_common_newlink: the MTU was compared before.
    if refusal.is(&[Errno::INVAL]) {
        let found = match macvlan.mode {
            MacvlanMode::Passthru => format!("{master} has containers already, and passthru is for one alone"),
            _ => format!("{master} takes no more links: it is in mode passthru, which is for one container alone"),
        };
        return conflict(found, "detach that one first, or use another master or mode");
    }
    if refusal.is(&[Errno::BUSY]) {
        return conflict(
            format!("{master} serves a bridge, a bond or the like, which takes all of its frames"),
            "use another master",
        );
    }
    refusal.error("create", show(link))
}

fn explain_start(link: &Link, macvlan: &Macvlan, refusal: Refusal) -> Error {
    if refusal.is(&[Errno::EXIST]) {
        return Error::InterfaceExists { name: link.name.clone(), place: format!("the {}", link.place) };
    }
    if let Some(mac) = link.mac
        && refusal.is(MAC_IN_USE)
    {
        return Error::Conflict {
            object: format!("MAC {mac}"),
            found: format!("it is in use on the master {}", macvlan.parent),
            way_out: "ask for another one".to_owned(),
        };
    }
    refusal.error("set up", show(link))
}

/// Where the sandbox's links have a parent that is the host's.
pub(super) fn parent_place(link: Place, in_other_namespace: bool) -> Place {
    match (link, in_other_namespace) {
        (Place::Sandbox, true) | (Place::Host, _) => Place::Host,
        (Place::Sandbox, false) => Place::Sandbox,
    }
}
