//! Deciding: what is wanted and what is there in, ordered steps out. Pure, so it is tested
//! without a kernel; [`apply`](crate::apply) carries the steps out.
//!
//! There is no general graph of dependencies. Kinds of objects are made in the fixed order of
//! [`Phase`], within a kind in the order the driver named them, and removed
//! backwards.

mod diff;
mod parent;
mod step;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::model::{
    Address, FdbEntry, Key, Link, LinkKind, NatRule, Neighbour, Object, Phase, Place, Rivals, Route, State,
    WireguardPeer,
};

pub use diff::{Difference, Drift, drift};
pub use step::Step;

/// The steps that turn `actual` into one that holds `wanted`.
///
/// # Errors
/// [`Error::Conflict`], [`Error::InterfaceExists`] or [`Error::PortTaken`] when something that is
/// not ours to change stands in the way. Nothing has been touched then.
pub fn plan(wanted: &[Object], actual: &State) -> Result<Vec<Step>> {
    let (steps, obstacles) = plan_around(wanted, actual);
    match obstacles.into_iter().next() {
        Some(obstacle) => Err(obstacle.error),
        None => Ok(steps),
    }
}

/// Something in the way that is not ours to change.
#[derive(Debug)]
pub struct Obstacle {
    /// What is wanted and cannot be had.
    pub object: Object,
    /// Why.
    pub error: Error,
}

/// As [`plan`], but as far as it goes: what stands in the way of one object does not keep the
/// others from being planned.
#[must_use]
pub fn plan_around(wanted: &[Object], actual: &State) -> (Vec<Step>, Vec<Obstacle>) {
    let seen = actual.by_key();
    let (mut steps, mut obstacles) = (Vec::new(), Vec::new());
    for drift in drift(wanted, actual) {
        let was = seen.get(&drift.object.key());
        let allowed = match was {
            None => refuse_occupied_name(&drift.object, &seen)
                .and_then(|()| parent::refuse_unfit_parent(&drift.object, wanted, &seen)),
            Some(was) => refuse_foreign(&drift, was),
        };
        match (allowed, was) {
            (Err(error), _) => obstacles.push(Obstacle { object: drift.object, error }),
            (Ok(()), None) => steps.push(Step::Create(drift.object)),
            (Ok(()), Some(was)) => {
                steps.push(Step::Update {
                    was: Box::new((*was).clone()),
                    object: drift.object,
                    differences: drift.differences,
                });
            }
        }
    }
    for object in wanted {
        if let Object::Address(address) = object {
            for rival in rivals(address, wanted, actual) {
                match address.rivals {
                    Rivals::Allow => {}
                    Rivals::Refuse => {
                        steps.retain(|step| step.object() != object);
                        obstacles.push(Obstacle { object: object.clone(), error: rival_error(address, rival) });
                    }
                    Rivals::Replace => steps.push(Step::Remove(Object::Address(rival.clone()))),
                }
            }
        }
    }
    steps.sort_by_key(|step| (step.object().phase(), matches!(step, Step::Create(_) | Step::Update { .. })));
    steps.dedup();
    (steps, obstacles)
}

/// The steps that leave nothing but `wanted` of what is in `actual`: what is missing or different
/// is made first, so that nothing is without a way in between, and what nobody wants goes last.
///
/// # Errors
/// As [`plan`].
pub fn reconcile(wanted: &[Object], actual: &State) -> Result<Vec<Step>> {
    let mut steps = plan(wanted, actual)?;
    let keys: HashSet<Key> = wanted.iter().map(Object::key).collect();
    let stale: Vec<Object> = actual.0.iter().filter(|object| !keys.contains(&object.key())).cloned().collect();
    steps.extend(removal(&stale, actual));
    Ok(steps)
}

/// Those of `unwanted` that have to be looked at before they are removed. What is inside the
/// sandbox goes with the link that leads there; settings stay, since others may have come to rely
/// on them; and the firewall looks by itself whether an element is there and ours.
#[must_use]
pub fn to_observe(unwanted: &[Object]) -> Vec<Object> {
    unwanted.iter().filter(|object| is_removable(object) && object.phase() != Phase::Firewall).cloned().collect()
}

/// The steps that remove those of `unwanted` that are in `actual` and carry the mark they should,
/// and whatever the firewall holds of them.
#[must_use]
pub fn removal(unwanted: &[Object], actual: &State) -> Vec<Step> {
    let seen = actual.by_key();
    let mut steps: Vec<Step> = unwanted
        .iter()
        .filter(|object| is_removable(object))
        .filter_map(|object| match seen.get(&object.key()) {
            None if object.phase() == Phase::Firewall => Some(Step::Remove(object.clone())),
            Some(was) => {
                let ours = object.mark().is_none() || object.mark() == was.mark();
                ours.then(|| Step::Remove((*was).clone()))
            }
            None => None,
        })
        .collect();
    steps.reverse();
    steps.sort_by_key(|step| std::cmp::Reverse(step.object().phase()));
    steps
}

fn is_removable(object: &Object) -> bool {
    match object {
        Object::Link(link) => !matches!(link.kind, LinkKind::Loopback),
        Object::Address(Address { place, .. })
        | Object::Route(Route { place, .. })
        | Object::Neighbour(Neighbour { place, .. })
        | Object::Fdb(FdbEntry { place, .. })
        | Object::WireguardPeer(WireguardPeer { place, .. }) => *place == Place::Host,
        Object::Sysctl(_) => false,
        Object::Binding(_)
        | Object::Nat(_)
        | Object::Iptables(_)
        | Object::Admission(_)
        | Object::Zone(_)
        | Object::ForwardPort(_) => true,
    }
}

/// A veth pair is named at both ends; the sandbox's end may be taken by a link we did not ask for.
fn refuse_occupied_name(wanted: &Object, seen: &HashMap<Key, &Object>) -> Result<()> {
    let Object::Link(Link { kind: LinkKind::Veth(veth), .. }) = wanted else { return Ok(()) };
    if seen.contains_key(&Key::Link(Place::Sandbox, veth.peer.clone())) {
        return Err(Error::InterfaceExists { name: veth.peer.clone(), place: "the container".to_owned() });
    }
    Ok(())
}

/// What is there may be changed only if it is ours, or of the kind that is shared.
fn refuse_foreign(drift: &Drift, was: &Object) -> Result<()> {
    match (&drift.object, was) {
        (Object::Link(wanted), Object::Link(was)) => {
            let kinds_agree = wanted.kind.name() == was.kind.name();
            let shared = matches!(wanted.kind, LinkKind::Bridge(_) | LinkKind::Loopback | LinkKind::Vlan(_));
            // The name of a VLAN we made says which it is; one that is another was made so by others.
            let as_made = !matches!(wanted.kind, LinkKind::Vlan(_)) || wanted.kind == was.kind;
            if kinds_agree && as_made && (shared || wanted.mark == was.mark) {
                return Ok(());
            }
            Err(Error::Conflict {
                object: drift.object.to_string(),
                found: format!(
                    "there is a link of that name already, a {}{}",
                    was.kind.name(),
                    was.mark.as_ref().map(|mark| format!(" of {}", mark.who())).unwrap_or_default()
                ),
                way_out: "choose another name, or remove it".to_owned(),
            })
        }
        (wanted, was) => match (wanted.rule(), was.rule()) {
            (
                Some(NatRule::Publish { host_address, protocol, host_port, mark, .. }),
                Some(NatRule::Publish { mark: holder, .. }),
            ) if mark != holder => Err(Error::PortTaken {
                address: *host_address,
                port: *host_port,
                protocol: *protocol,
                holder: Some(holder.clone()),
            }),
            _ => Ok(()),
        },
    }
}

/// The addresses seen on the link of `wanted` that contradict it and that nobody wants.
fn rivals<'a>(wanted: &'a Address, all: &'a [Object], actual: &'a State) -> impl Iterator<Item = &'a Address> {
    let is_wanted = move |seen: &Address| {
        all.iter().any(|object| {
            matches!(object, Object::Address(other) if other.address == seen.address && on_same_link(other, seen))
        })
    };
    actual.0.iter().filter_map(move |object| match object {
        Object::Address(seen) if on_same_link(seen, wanted) && contradicts(seen, wanted) && !is_wanted(seen) => {
            Some(seen)
        }
        _ => None,
    })
}

fn on_same_link(one: &Address, other: &Address) -> bool {
    (one.place, &one.link) == (other.place, &other.link)
}

/// Two IPv4 addresses on one gateway link always do: which of them is the gateway? IPv6
/// addresses live side by side unless their subnets overlap.
fn contradicts(seen: &Address, wanted: &Address) -> bool {
    match (seen.address.ip(), wanted.address.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => true,
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            seen.address.contains(wanted.address.network()) || wanted.address.contains(seen.address.network())
        }
        _ => false,
    }
}

fn rival_error(wanted: &Address, rival: &Address) -> Error {
    Error::Conflict {
        object: Object::Address(wanted.clone()).to_string(),
        found: format!("{} has the address {}", rival.link, rival.address),
        way_out: "remove it, or set forceAddress to have it replaced".to_owned(),
    }
}
