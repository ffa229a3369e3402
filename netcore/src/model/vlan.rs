//! VLANs of a bridge's ports (IEEE 802.1Q).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Some VLANs, one after the other, of which a port is a member in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vlans {
    /// The first one's number, 1 to 4094.
    pub first: u16,
    /// The last one's.
    pub last: u16,
    /// Frames that come without a tag belong to it (`BRIDGE_VLAN_INFO_PVID`); a single one then.
    #[serde(default)]
    pub pvid: bool,
    /// Its frames leave without a tag (`BRIDGE_VLAN_INFO_UNTAGGED`).
    #[serde(default)]
    pub untagged: bool,
}

impl Vlans {
    /// The one whose frames come and leave without a tag.
    #[must_use]
    pub fn access(id: u16) -> Self {
        Self { first: id, last: id, pvid: true, untagged: true }
    }

    /// Those from `first` to `last`, with their tags.
    #[must_use]
    pub fn tagged(first: u16, last: u16) -> Self {
        Self { first, last, pvid: false, untagged: false }
    }

    /// Whether every one of these is among `others`, in the same way.
    #[must_use]
    pub fn is_among(&self, others: &[Self]) -> bool {
        let alike = |other: &&Self| (other.pvid, other.untagged) == (self.pvid, self.untagged);
        others.iter().filter(alike).any(|other| other.first <= self.first && self.last <= other.last)
    }

    /// The same VLANs in order, and in as few pieces as possible.
    #[must_use]
    pub fn merged(vlans: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let one_by_one: BTreeMap<u16, Self> = vlans
            .into_iter()
            .flat_map(|vlans| (vlans.first..=vlans.last).map(move |id| (id, Self { first: id, last: id, ..vlans })))
            .collect();
        let mut merged: Vec<Self> = Vec::new();
        for (id, vlan) in one_by_one {
            match merged.last_mut() {
                Some(last) if last.last + 1 == id && Self { first: id, last: id, ..*last } == vlan => last.last = id,
                _ => merged.push(vlan),
            }
        }
        merged
    }
}

/// The VLANs a bridge port is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortVlans {
    /// Those it is in, [merged](Vlans::merged).
    pub members: Vec<Vlans>,
    /// Whether it is in no others; when `false`, in whatever the bridge gives a new port too.
    #[serde(default)]
    pub only: bool,
}

impl PortVlans {
    /// Whether a port that was seen to be in the VLANs of `seen` is as this says.
    #[must_use]
    pub fn agrees_with(&self, seen: &[Vlans]) -> bool {
        if self.only { self.members == seen } else { self.members.iter().all(|vlans| vlans.is_among(seen)) }
    }
}

/// `10 pvid untagged`, `100-199`
impl fmt::Display for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        f.write_str(if self.pvid { " pvid" } else { "" })?;
        f.write_str(if self.untagged { " untagged" } else { "" })
    }
}

/// `1 untagged, 10 pvid untagged`
#[must_use]
pub fn list(vlans: &[Vlans]) -> String {
    match vlans {
        [] => "none".to_owned(),
        several => several.iter().map(Vlans::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_touch_and_are_alike_become_one() {
        let pieces = [Vlans::tagged(12, 20), Vlans::access(11), Vlans::tagged(10, 10), Vlans::tagged(21, 21)];
        let merged = Vlans::merged(pieces);
        assert_eq!(merged, [Vlans::tagged(10, 10), Vlans::access(11), Vlans::tagged(12, 21)]);
        assert_eq!(list(&merged), "10, 11 pvid untagged, 12-21");
        assert_eq!(list(&[]), "none");
    }

    #[test]
    fn a_port_may_be_in_more_unless_it_must_not() {
        let default = Vlans { pvid: false, ..Vlans::access(1) };
        let seen = [default, Vlans::access(10)];
        let wanted = PortVlans { members: vec![Vlans::access(10)], only: false };
        assert!(wanted.agrees_with(&seen));
        assert!(!PortVlans { only: true, ..wanted.clone() }.agrees_with(&seen));
        assert!(!wanted.agrees_with(&[Vlans::tagged(1, 20)]));
        assert!(PortVlans { members: vec![Vlans::tagged(5, 6)], only: false }.agrees_with(&[Vlans::tagged(1, 20)]));
    }
}
