//! Why the host does not pass a packet on: switches, reverse paths, links and routes, in terms of what can
//! be mended.

use std::net::IpAddr;

use super::packet::Wire;
use super::walk::Walk;
use super::world::{HOST, name, origin};
use super::{Cure, Halt};
use crate::kernel::Inspect;
use crate::model::{Object, Place, Refused, Way};
use crate::store::Record;

impl<'w, K: Inspect> Walk<'w, K> {
    /// Why routing refuses, in terms of what can be mended. Kernels from 6.13 on say EINVAL whatever the
    /// reason, so every reason is looked at.
    pub(super) async fn refused(&self, to: IpAddr, from: Option<IpAddr>, wire: Option<&Wire>, why: Refused) -> Halt {
        if let Some(wire) = wire {
            let reasons = match self.forwarding(wire, to.is_ipv6()) {
                Ok(()) => self.reverse_path(from, wire).await,
                stopped => stopped,
            };
            if let Err(halt) = reasons {
                return halt;
            }
        }
        let is_loopback = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_loopback());
        if is_loopback(to) || from.is_some_and(is_loopback) {
            let by = match (wire, self.way(to, None, None).await) {
                (Some(wire), _) => Some(wire.clone()),
                (None, Ok(Way::Out { interface, .. })) => Some(self.wire(interface)),
                _ => None,
            };
            let switch = by.map(|wire| format!("net/ipv4/conf/{}/route_localnet", wire.name));
            if let Some(Err(halt)) = switch.map(|switch| self.world.switched_on(&switch)) {
                return halt;
            }
        }
        // What leads to a container is ours.
        if let Some(record) = self.world.attached(to)
            && let Some(halt) = self.world.drift(record, |object| {
                matches!(object, Object::Link(_) | Object::Address(_)) && object.place() == Some(Place::Host)
            })
        {
            return halt;
        }
        match why {
            Refused::Prohibited => {
                Halt::at(HOST, format!("a route forbids {to}"), Cure::Advice(format!("`ip route get {to}` shows it")))
            }
            _ => Halt::at(
                HOST,
                format!("no route to {to}"),
                Cure::Advice(format!("add a route to {to}: `ip route` shows those there are")),
            ),
        }
    }

    /// Whether answers to `from` leave by the interface it came by, where a filter asks for that.
    pub(super) async fn reverse_path(&self, from: Option<IpAddr>, wire: &Wire) -> Result<(), Halt> {
        let Some(from @ IpAddr::V4(_)) = from else { return Ok(()) };
        let name = |which: &str| format!("net/ipv4/conf/{which}/rp_filter");
        let mut strictness = None;
        for which in ["all", &wire.name] {
            strictness = strictness.max(self.world.kernel.setting(Place::Host, &name(which))?);
        }
        // Of the two, the higher number counts: 1 is strict, 2 asks for any way back.
        let instead = match (strictness.as_deref(), self.way(from, None, None).await?) {
            (None | Some("0"), _) => return Ok(()),
            (_, Way::Out { interface, .. }) if interface == wire.index => return Ok(()),
            (Some("1"), Way::Out { interface, .. }) => format!("answers to it leave by {}", self.wire(interface).name),
            (_, Way::Out { .. }) => return Ok(()),
            _ => "there is no way back to it".to_owned(),
        };
        let own = name(&wire.name);
        let origin = origin(&own);
        let by = format!("rp_filter of {} drops what comes from {from}: {instead}{origin}", wire.name);
        Err(Halt::at(HOST, by, Cure::Command(format!("sysctl -w {own}=2"))))
    }

    /// Whether the host passes on what comes by `wire`.
    pub(super) fn forwarding(&self, wire: &Wire, v6: bool) -> Result<(), Halt> {
        if v6 {
            return self.world.switched_on("net/ipv6/conf/all/forwarding");
        }
        let own = format!("net/ipv4/conf/{}/forwarding", wire.name);
        if self.world.kernel.setting(Place::Host, &own)?.as_deref() == Some("0") {
            // The switch of all is the cause more often than not.
            self.world.switched_on("net/ipv4/ip_forward")?;
        }
        self.world.switched_on(&own)
    }

    /// Whether an interface of the host's can carry anything.
    pub(super) fn link(&self, wire: &Wire) -> Result<(), Halt> {
        let Some(interface) = self.world.scene.by_index(wire.index) else { return Ok(()) };
        let mends = |record: &Record| {
            self.world.drift(record, |object| matches!(object, Object::Link(link) if link.name.as_str() == wire.name))
        };
        if !interface.up {
            let ours = self.world.records.iter().find_map(mends);
            let command = Cure::Command(format!("ip link set {} up", wire.name));
            return Err(ours.unwrap_or_else(|| Halt::at(HOST, format!("link {} is down", wire.name), command)));
        }
        // A bridge has a carrier when a port has.
        if !interface.carrier && interface.kind != "bridge" {
            let advice = format!("see that the other side of {} is connected and up", wire.name);
            return Err(Halt::at(HOST, format!("link {} has no carrier", wire.name), Cure::Advice(advice)));
        }
        Ok(())
    }

    /// Whether the way to a container leads there.
    pub(super) fn leads_to(&self, record: &Record, to: IpAddr, by: &Wire, next_hop: IpAddr) -> Result<(), Halt> {
        if next_hop == to {
            return Ok(());
        }
        let is_meant = |object: &Object| {
            matches!(object, Object::Link(_) | Object::Address(_)) && object.place() == Some(Place::Host)
        };
        Err(self.world.drift(record, is_meant).unwrap_or_else(|| {
            let found = format!("the route to {to} leads to {next_hop} by {}, and not to {}", by.name, name(record));
            let advice = format!("`ip route get {to}` shows the route that is in the way");
            Halt::at(HOST, found, Cure::Advice(advice))
        }))
    }
}
