//! What differs between an object as it is wanted and as it was seen.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Link, LinkKind, Mark, NatRule, Object, Route, State, vlan};

/// One wanted object that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The object, as it is wanted.
    pub object: Object,
    /// What differs; empty when the object is missing altogether.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// One property that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The property.
    pub field: String,
    /// Its wanted value.
    pub want: String,
    /// Its value in the kernel.
    pub have: String,
}

impl Difference {
    /// The same difference seen from the other side.
    pub(super) fn reversed(&self) -> Self {
        Self { field: self.field.clone(), want: self.have.clone(), have: self.want.clone() }
    }
}

impl Drift {
    /// Whether the object is missing altogether.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if self.is_missing() {
            return f.write_str("missing");
        }
        for (position, difference) in self.differences.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{difference}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, should be {}", self.field, self.have, self.want)
    }
}

/// What is missing or different of `wanted` in `actual`, in the order of `wanted`.
#[must_use]
pub fn drift(wanted: &[Object], actual: &State) -> Vec<Drift> {
    let seen = actual.by_key();
    wanted
        .iter()
        .filter_map(|object| {
            let differences = match seen.get(&object.key()) {
                None => Vec::new(),
                Some(seen) => {
                    let differences = differences(object, seen);
                    if differences.is_empty() {
                        return None;
                    }
                    differences
                }
            };
            Some(Drift { object: object.clone(), differences })
        })
        .collect()
}

/// How `seen` differs from `wanted`; both have the same key. A property that `wanted` leaves
/// open never differs.
fn differences(wanted: &Object, seen: &Object) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    match (wanted, seen) {
        (Object::Link(wanted), Object::Link(seen)) => link(&mut found, wanted, seen),
        // An address is its key, and whether it is through duplicate address detection is the
        // kernel's to say.
        (Object::Address(_), Object::Address(_)) => {}
        (Object::Route(wanted), Object::Route(seen)) => route(&mut found, wanted, seen),
        (Object::Neighbour(wanted), Object::Neighbour(seen)) => {
            found.note_either("MAC", &wanted.mac, &seen.mac);
            found.note("permanent", on_or_off(wanted.permanent), on_or_off(seen.permanent));
        }
        (Object::Fdb(wanted), Object::Fdb(seen)) => found.note("node", &wanted.to, &seen.to),
        (Object::WireguardPeer(wanted), Object::WireguardPeer(seen)) => {
            if !seen.heard {
                found.note_either("endpoint", &wanted.endpoint, &seen.endpoint);
            }
            found.note("allowed IPs", &wanted.allowed_words(), &seen.allowed_words());
        }
        (Object::Sysctl(wanted), Object::Sysctl(seen)) => found.note("value", &wanted.value, &seen.value),
        // Where somebody else has put an interface, it stays.
        (Object::Zone(_), Object::Zone(seen)) if seen.elsewhere().is_some() => {}
        (Object::Zone(wanted), Object::Zone(seen)) => {
            found.note_either("zone", &wanted.runtime, &seen.runtime);
            found.note_either("permanent zone", &wanted.permanent, &seen.permanent);
            found.note("closed to the outside", on_or_off(wanted.closed), on_or_off(seen.closed));
        }
        // Kinds with equal keys are equal.
        _ => {
            if let (Some(wanted), Some(seen)) = (wanted.rule(), seen.rule()) {
                nat(&mut found, wanted, seen);
            }
        }
    }
    found.0
}

struct Found(Vec<Difference>);

impl Found {
    fn note<T: fmt::Display + PartialEq + ?Sized>(&mut self, field: &str, want: &T, have: &T) {
        if want != have {
            self.0.push(Difference { field: field.to_owned(), want: want.to_string(), have: have.to_string() });
        }
    }

    /// Notes a difference in a property that may be left open.
    fn note_if_wanted<T: fmt::Display + PartialEq>(&mut self, field: &str, want: &Option<T>, have: &Option<T>) {
        if want.is_some() {
            self.note_either(field, want, have);
        }
    }

    /// Notes a difference in a property whose absence means something.
    fn note_either<T: fmt::Display + PartialEq>(&mut self, field: &str, want: &Option<T>, have: &Option<T>) {
        if want != have {
            let words = |value: &Option<T>| value.as_ref().map_or_else(|| "none".to_owned(), T::to_string);
            self.0.push(Difference { field: field.to_owned(), want: words(want), have: words(have) });
        }
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn link(found: &mut Found, wanted: &Link, seen: &Link) {
    // A link that somebody else made where we would have made a VLAN to stand on is used as it is.
    let to_stand_on = matches!(wanted.kind, LinkKind::Vlan(_)) && wanted.mark == Some(Mark::of_host());
    if to_stand_on && seen.mark.is_none() {
        return;
    }
    found.note("kind", wanted.kind.name(), seen.kind.name());
    match (&wanted.kind, &seen.kind) {
        (LinkKind::Veth(wanted), LinkKind::Veth(seen)) => {
            found.note("peer", &wanted.peer, &seen.peer);
            found.note_if_wanted("peer MAC", &wanted.peer_mac, &seen.peer_mac);
            found.note_if_wanted("peer MTU", &wanted.peer_mtu, &seen.peer_mtu);
            found.note("peer state", up_or_down(wanted.peer_up), up_or_down(seen.peer_up));
        }
        (LinkKind::Bridge(wanted), LinkKind::Bridge(seen)) => {
            if wanted.promiscuous {
                found.note("promiscuous mode", on_or_off(wanted.promiscuous), on_or_off(seen.promiscuous));
            }
            if wanted.vlan_filtering {
                found.note("VLAN filtering", on_or_off(wanted.vlan_filtering), on_or_off(seen.vlan_filtering));
            }
            if !wanted.vlans.iter().all(|vlans| vlans.is_among(&seen.vlans)) {
                found.note("VLANs", &vlan::list(&wanted.vlans), &vlan::list(&seen.vlans));
            }
        }
        (LinkKind::Macvlan(wanted), LinkKind::Macvlan(seen)) => {
            found.note("master", &wanted.parent, &seen.parent);
            found.note("mode", &wanted.mode, &seen.mode);
            found.note_if_wanted("bcqueuelen", &wanted.bc_queue_len, &seen.bc_queue_len);
        }
        (LinkKind::Vlan(wanted), LinkKind::Vlan(seen)) => {
            found.note("parent", &wanted.parent, &seen.parent);
            found.note("VLAN", &wanted.id, &seen.id);
        }
        (LinkKind::Vxlan(wanted), LinkKind::Vxlan(seen)) => {
            found.note("VNI", &wanted.vni, &seen.vni);
            found.note("UDP port", &wanted.port, &seen.port);
            found.note_if_wanted("local address", &wanted.local, &seen.local);
            found.note("learning", on_or_off(wanted.learning), on_or_off(seen.learning));
        }
        (LinkKind::Wireguard(wanted), LinkKind::Wireguard(seen)) => {
            found.note("UDP port", &wanted.port, &seen.port);
            found.note_either("public key", &wanted.key, &seen.key);
        }
        _ => {}
    }
    // A bridge or VLAN that somebody else made stays theirs: it is used without our mark.
    if !matches!(wanted.kind, LinkKind::Bridge(_) | LinkKind::Vlan(_)) {
        found.note_if_wanted("alias", &wanted.mark, &seen.mark);
    }
    found.note_if_wanted("MAC", &wanted.mac, &seen.mac);
    found.note_if_wanted("MTU", &wanted.mtu, &seen.mtu);
    found.note("state", up_or_down(wanted.up), up_or_down(seen.up));
    if let Some(port) = &wanted.port {
        let bridge = seen.port.as_ref().map(|port| &port.bridge);
        found.note_either("bridge", &Some(&port.bridge), &bridge);
        if let Some(seen) = &seen.port {
            found.note("hairpin", on_or_off(port.hairpin), on_or_off(seen.hairpin));
            found.note("isolated", on_or_off(port.isolated), on_or_off(seen.isolated));
            let members = seen.vlans.as_ref().map_or(&[][..], |vlans| &vlans.members);
            if let Some(vlans) = port.vlans.as_ref().filter(|vlans| !vlans.agrees_with(members)) {
                found.note("VLANs", &vlan::list(&vlans.members), &vlan::list(members));
            }
        }
    }
}

fn route(found: &mut Found, wanted: &Route, seen: &Route) {
    found.note_either("gateway", &wanted.gateway, &seen.gateway);
    found.note_if_wanted("MTU", &wanted.mtu, &seen.mtu);
    found.note_if_wanted("advmss", &wanted.advmss, &seen.advmss);
    found.note_if_wanted("scope", &wanted.scope, &seen.scope);
    found.note_if_wanted("source", &wanted.source, &seen.source);
}

fn nat(found: &mut Found, wanted: &NatRule, seen: &NatRule) {
    if let NatRule::Ruleset { damage, .. } = seen {
        let state = if damage.is_empty() { "intact".to_owned() } else { damage.join(", ") };
        found.note("rules", "intact", &state);
    }
    if let (NatRule::Publish { to: wanted_to, mark: wanted, .. }, NatRule::Publish { to: seen_to, mark: seen, .. }) =
        (wanted, seen)
    {
        // A container on several networks publishes its ports by one of them; any will do.
        if wanted != seen && wanted.is_of_same_container(seen) {
            return;
        }
        found.note("target", wanted_to, seen_to);
    }
    let who = |rule: &NatRule| rule.mark().map(Mark::to_string);
    // Elements that belong to the network may carry the mark of any network that shares them.
    if !wanted.is_shared() {
        found.note_if_wanted("owner", &who(wanted), &who(seen));
    }
}
