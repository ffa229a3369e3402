//! What a diagnosis knows of the host before it follows anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Cure, Halt};
use crate::engine::{Engine, RepairOptions, Repaired, desired};
use crate::error::Result;
use crate::kernel::Inspect;
use crate::model::{MacvlanConfig, Mode, NatRule, Object, Place, Protocol, RouteQuestion, Scene, Sysctl, Way};
use crate::store::{self, Record};

/// The host and its records.
pub(super) struct World<K> {
    pub(super) kernel: K,
    pub(super) scene: Scene,
    pub(super) records: Vec<Record>,
    /// Whether there is an outside by IPv6.
    pub(super) has_ipv6: bool,
    /// What a check finds not to be as it should.
    drift: Vec<Repaired>,
}

/// Addresses that are nobody's (RFC 5737, RFC 3849): the way to them is the way to the outside.
pub(super) const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1))];

/// The name of the host in answers.
pub(super) const HOST: &str = "host";

impl<K: Inspect> World<K> {
    pub(super) async fn look(engine: &Engine<K>) -> Result<Self> {
        let (records, _) = engine.attachments(None)?;
        let check = RepairOptions { network: None, check: true };
        let drift = if records.is_empty() { Vec::new() } else { engine.repair(&check).await?.objects };
        let kernel = engine.kernel.enter(None).await?;
        let scene = kernel.inspect(Place::Host).await?;
        let question = RouteQuestion { to: NOBODY[1], from: None, came_by: None };
        let has_ipv6 = matches!(kernel.way(Place::Host, &question).await?, Way::Out { .. });
        Ok(Self { kernel, scene, records, has_ipv6, drift })
    }

    /// Whose address that is, among the containers on bridges.
    pub(super) fn holder(&self, address: IpAddr) -> Option<&Record> {
        self.records.iter().find(|record| is_bridged(record) && addresses(record).any(|own| own == address))
    }

    /// The same, also among those on links of the host's.
    pub(super) fn attached(&self, address: IpAddr) -> Option<&Record> {
        let is_meant = |record: &&Record| is_bridged(record) || macvlan(record).is_some();
        self.records.iter().filter(is_meant).find(|record| addresses(record).any(|own| own == address))
    }

    /// Who publishes `port` of the host address `to`, and where that leads.
    pub(super) fn publisher(&self, to: SocketAddr, protocol: Protocol) -> Option<(&Record, SocketAddr)> {
        self.published(protocol, to.port()).find_map(|(record, host_address, target)| {
            let is_meant = host_address.is_none_or(|address| address == to.ip()) && target.is_ipv6() == to.is_ipv6();
            is_meant.then_some((record, target))
        })
    }

    /// Everybody who publishes a port, on which host address, and where that leads.
    pub(super) fn published(
        &self,
        protocol: Protocol,
        port: u16,
    ) -> impl Iterator<Item = (&Record, Option<IpAddr>, SocketAddr)> {
        self.records.iter().flat_map(move |record| {
            let objects = desired(record).map(|desired| desired.attachment).unwrap_or_default();
            objects.into_iter().filter_map(move |object| match object.rule() {
                Some(NatRule::Publish { host_address, protocol: its, host_port, to, .. })
                    if *its == protocol && *host_port == port =>
                {
                    Some((record, *host_address, *to))
                }
                _ => None,
            })
        })
    }

    /// What a check has found about what `record` asks for of a kind, if anything: the first in the
    /// order in which things are made.
    pub(super) fn drift(&self, record: &Record, is_meant: impl Fn(&Object) -> bool) -> Option<Halt> {
        let wanted = desired(record).map(|desired| desired.all()).unwrap_or_default();
        wanted.iter().filter(|object| is_meant(object)).find_map(|object| {
            let text = object.to_string();
            let found = self.drift.iter().find(|repaired| repaired.object == text)?;
            let mut by = format!("{text}: {}", found.found);
            if let Object::Sysctl(Sysctl { name, .. }) = object {
                by += &origin(name);
            }
            Some(Halt::at(HOST, by, Cure::repair()))
        })
    }

    /// Whether a check has found that iptables lets nothing pass for one of our bridges.
    pub(super) fn lacks_admission(&self) -> bool {
        let is_admission = |object: &Object| matches!(object, Object::Admission(_));
        self.records.iter().any(|record| self.drift(record, is_admission).is_some())
    }

    /// Whether a setting of the host is on, or not there at all; what is off is named.
    pub(super) fn switched_on(&self, name: &str) -> Result<(), Halt> {
        match self.kernel.setting(Place::Host, name)?.as_deref() {
            Some("0") => {
                let asked = self.records.iter().find_map(|record| {
                    self.drift(record, |object| matches!(object, Object::Sysctl(setting) if setting.name == name))
                });
                let dotted = name.replace('/', ".");
                Err(asked.unwrap_or_else(|| {
                    let by = format!("sysctl {dotted} is 0{}", origin(name));
                    // Interface names may contain dots.
                    Halt::at(HOST, by, Cure::Command(format!("sysctl -w {name}=1")))
                }))
            }
            _ => Ok(()),
        }
    }
}

/// The file that sets `name` at every start, in words; nothing if none does.
pub(super) fn origin(name: &str) -> String {
    match store::who_sets(Path::new("/"), name) {
        Ok(Some((path, line, value))) => format!(" (line {line} of {} sets it to {value})", path.display()),
        _ => String::new(),
    }
}

/// Whether the attachment is a port of a bridge of the host's.
pub(super) fn is_bridged(record: &Record) -> bool {
    matches!(record.network.mode, Mode::Bridge(_) | Mode::Overlay(_))
}

/// The settings of an attachment to a link of the host's.
pub(super) fn macvlan(record: &Record) -> Option<&MacvlanConfig> {
    match &record.network.mode {
        Mode::Macvlan(config) => Some(config),
        _ => None,
    }
}

/// Whether traffic that leaves is to get the host's address, and whether none is to leave.
pub(super) fn way_out(record: &Record) -> (bool, bool) {
    match &record.network.mode {
        Mode::Bridge(config) => (config.ip_masq, config.internal),
        Mode::Overlay(config) => (config.ip_masq, config.internal),
        _ => (false, false),
    }
}

/// The addresses an attachment was given.
pub(super) fn addresses(record: &Record) -> impl Iterator<Item = IpAddr> {
    record.lease.iter().flat_map(|lease| &lease.addresses).map(|leased| leased.address.ip())
}

/// `container web-1`
pub(super) fn name(record: &Record) -> String {
    format!("container {}", record.attachment.id.container)
}
