//! The interfaces that wanted objects name, looked at once for all of them: one by one where they are
//! few, out of a listing where they are many.

use std::collections::HashMap;

use futures::future::try_join_all;

use super::{Listing, Seen, below, by_index, by_name, message, unknown};
use crate::error::{Error, Result};
use crate::kernel::linux::Linux;
use crate::kernel::vlan;
use crate::model::{InterfaceName, Link, LinkKind, Object, Place, Vlans};

/// From how many interfaces on all are read at once: an attachment stands on two or three.
pub(in crate::kernel) const MANY: usize = 64;

/// The interfaces that were looked at for one observation, by place and name.
#[derive(Debug, Default)]
pub(in crate::kernel) struct Interfaces {
    seen: HashMap<(Place, InterfaceName), Seen>,
    /// The VLANs of bridges and their ports on the host, by index; looked at if they matter.
    pub(super) vlans: HashMap<u32, Vec<Vlans>>,
}

impl Interfaces {
    /// Looks at every interface that `wanted` names: all at once.
    pub(in crate::kernel) async fn of(kernel: &Linux, wanted: &[Object]) -> Result<Self> {
        Self::find(kernel, wanted, |_, _| None).await
    }

    /// As [`Interfaces::of`], but takes those that were found before during this operation as they were
    /// then.
    pub(in crate::kernel) async fn recalled(kernel: &Linux, wanted: &[Object]) -> Result<Self> {
        Self::find(kernel, wanted, |place, name| kernel.known(place, name)).await
    }

    async fn find(
        kernel: &Linux,
        wanted: &[Object],
        recall: impl Fn(Place, &InterfaceName) -> Option<Seen>,
    ) -> Result<Self> {
        let below = below(wanted);
        let births = births(wanted);
        let mut names: Vec<(Place, &InterfaceName)> = Vec::new();
        for object in wanted {
            match object {
                Object::Link(link) => {
                    names.push((link.place, &link.name));
                    if recall(link.place, &link.name).is_none() {
                        names.extend(births.iter().filter(|(of, _)| *of == link).map(|(_, name)| (link.place, name)));
                    }
                    if let LinkKind::Veth(veth) = &link.kind {
                        names.push((Place::Sandbox, &veth.peer));
                    }
                    if let LinkKind::Vlan(vlan) = &link.kind {
                        names.push((link.place, &vlan.parent));
                    }
                    names.extend(link.port.as_ref().map(|port| (link.place, &port.bridge)));
                    names.extend(below.iter().filter(|(of, ..)| *of == link).map(|(_, place, name)| (*place, name)));
                }
                Object::Address(address) => names.push((address.place, &address.link)),
                Object::Neighbour(neighbour) => names.push((neighbour.place, &neighbour.link)),
                Object::Fdb(entry) => names.push((entry.place, &entry.link)),
                Object::WireguardPeer(peer) => names.push((peer.place, &peer.link)),
                Object::Route(route) => names.push((route.place, &route.link)),
                Object::Binding(_)
                | Object::Sysctl(_)
                | Object::Nat(_)
                | Object::Iptables(_)
                | Object::Admission(_)
                | Object::Zone(_)
                | Object::ForwardPort(_) => {}
            }
        }
        names.sort_unstable();
        names.dedup();
        let mut seen = HashMap::with_capacity(names.len());
        names.retain(|(place, name)| match recall(*place, name) {
            Some(found) => seen.insert((*place, (*name).clone()), found).is_some(),
            None => true,
        });
        seen.extend(if names.len() >= MANY { among_all(kernel, &names).await? } else { each(kernel, names).await? });
        let vlans = if wanted.iter().any(vlan::matters) { vlan::all(kernel).await? } else { HashMap::new() };
        Ok(Self { seen, vlans })
    }

    /// The interface `name` in `place`, if it is there and was looked at.
    pub(in crate::kernel) fn get(&self, place: Place, name: &InterfaceName) -> Option<&Seen> {
        // An alternative name finds the interface too, but is not its name.
        self.seen.get(&(place, name.clone())).filter(|seen| seen.name == name.as_str())
    }

    /// The name of the interface with the index `index`.
    pub(in crate::kernel) async fn name_of(&self, kernel: &Linux, place: Place, index: u32) -> Result<InterfaceName> {
        if let Some(seen) = self.seen.iter().find(|((at, _), seen)| *at == place && seen.index == index) {
            return Ok(seen.1.name());
        }
        let Some(rtnl) = kernel.at(place)? else { return Ok(unknown()) };
        let seen = by_index(&rtnl, index).await;
        let seen = seen.map_err(|refusal| refusal.error("read", format_args!("link number {index} ({place})")))?;
        Ok(seen.map_or_else(unknown, |seen| seen.name()))
    }
}

/// The interfaces of those names, asked for one by one, all at once.
async fn each(kernel: &Linux, names: Vec<(Place, &InterfaceName)>) -> Result<HashMap<(Place, InterfaceName), Seen>> {
    let look = names.into_iter().map(|(place, name)| async move {
        let Some(rtnl) = kernel.at(place)? else { return Ok::<_, Error>(None) };
        let seen = by_name(&rtnl, name).await;
        let seen = seen.map_err(|refusal| refusal.error("read", format_args!("link {name} ({place})")))?;
        if let Some(seen) = &seen {
            kernel.remember(place, name, seen);
        }
        Ok(seen.map(|seen| ((place, name.clone()), seen)))
    });
    Ok(try_join_all(look).await?.into_iter().flatten().collect())
}

/// The interfaces of those names, out of all there are.
async fn among_all(kernel: &Linux, names: &[(Place, &InterfaceName)]) -> Result<HashMap<(Place, InterfaceName), Seen>> {
    let mut found = HashMap::with_capacity(names.len());
    for place in [Place::Host, Place::Sandbox] {
        let wanted: HashMap<&str, &InterfaceName> =
            names.iter().filter(|(at, _)| *at == place).map(|(_, name)| (name.as_str(), *name)).collect();
        let Some(rtnl) = kernel.at(place)?.filter(|_| !wanted.is_empty()) else { continue };
        let ahead = kernel.listing().filter(|_| place == Place::Host).and_then(Listing::take);
        let named = match ahead {
            Some(listed) => listed,
            None => message::named(&rtnl, |name| wanted.contains_key(name)).await,
        };
        let named = named.map_err(|refusal| refusal.error("list", format_args!("links ({place})")))?;
        let named = named.into_iter().filter_map(|seen| Some(((place, (*wanted.get(&*seen.name)?).clone()), seen)));
        found.extend(named);
    }
    Ok(found)
}

/// The names that wanted macvlan links may still be under.
fn births(wanted: &[Object]) -> Vec<(&Link, InterfaceName)> {
    let links = wanted.iter().filter_map(|object| match object {
        Object::Link(link) if matches!(link.kind, LinkKind::Macvlan(_)) => Some(link),
        _ => None,
    });
    links.filter_map(|link| Some((link, link.mark.as_ref()?.birth_name()))).collect()
}
