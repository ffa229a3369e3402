//! Routes. Ours carry [`PROTOCOL`], and only those are replaced or removed.

use std::collections::HashMap;
use std::net::IpAddr;

use futures::future::try_join_all;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use rustix::io::Errno;

use super::address::family;
use super::batch::Request;
use super::linux::Linux;
use super::rtnl::{Refusal, Rtnl, forgive};
use super::seen::{self, Interfaces};
use crate::error::{Error, Result};
use crate::model::{InterfaceName, Object, Place, Route};

/// The protocol our routes carry (`rtm_protocol`): what `ip route` shows as `proto 78`. The
/// kernel leaves the numbers above `RTPROT_STATIC` to user space; linux/rtnetlink.h and
/// iproute2's rt_protos have no other owner for this one.
pub const PROTOCOL: u8 = 0x4e;

/// What is there of `wanted`. Only routes over the wanted interfaces are read: another
/// attachment's routes to the same destination are its own affair.
pub(super) async fn observe(kernel: &Linux, interfaces: &Interfaces, wanted: &[&Route]) -> Result<Vec<Object>> {
    let mut queries: Vec<(Place, bool, u32, u32)> = Vec::new();
    for route in wanted {
        if let Some(link) = interfaces.get(route.place, &route.link) {
            queries.push((route.place, route.destination.is_ipv6(), table(route), link.index));
        }
    }
    queries.sort_unstable();
    queries.dedup();
    let look = queries.into_iter().map(|(place, v6, table, over)| async move {
        let Some(rtnl) = kernel.at(place)? else { return Ok::<_, Error>(Vec::new()) };
        let found = dump(&rtnl, v6, table, over).await;
        let found =
            found.map_err(|refusal| refusal.error("read", format_args!("routes of table {table} ({place})")))?;
        let over_it = |route: &&&Route| {
            route.place == place && interfaces.get(place, &route.link).is_some_and(|link| link.index == over)
        };
        let mut by_destination: HashMap<(IpAddr, u8), Vec<&Present>> = HashMap::new();
        for present in &found {
            by_destination.entry(key(present.destination)).or_default().push(present);
        }
        let seen = |wanted: &&Route| {
            let candidates = by_destination.get(&key(wanted.destination))?;
            let found = candidates.iter().find(|found| found.has_key_of(wanted))?;
            Some(Object::Route(found.describe(wanted)))
        };
        Ok(wanted.iter().filter(over_it).filter_map(seen).collect())
    });
    Ok(try_join_all(look).await?.concat())
}

/// Makes `route`, behind those that lead to the same destination over other interfaces, if there
/// are any (`NLM_F_APPEND`): a container that joins a second network keeps the default route it had.
pub(super) async fn create(kernel: &Linux, route: &Route) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("create", show(route));
    let rtnl = kernel.required(route.place)?;
    let index = index(kernel, route).await.map_err(failed)?.ok_or_else(|| failed(Errno::NODEV.into()))?;
    let (message, flags) = to_create(route, index);
    match rtnl.change(message.clone(), flags).await {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => {}
        outcome => return outcome.map_err(failed),
    }
    match present(&rtnl, route, index).await.map_err(failed)? {
        Some(present) if present.gateway == route.gateway => Ok(()),
        Some(present) => Err(conflict(route, &present)),
        None => rtnl.change(message, NLM_F_CREATE | NLM_F_APPEND).await.map_err(failed),
    }
}

/// Puts `route` in the place of the one with the same key, if that one is ours.
pub(super) async fn replace(kernel: &Linux, route: &Route) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("update", show(route));
    let rtnl = kernel.required(route.place)?;
    let index = index(kernel, route).await.map_err(failed)?.ok_or_else(|| failed(Errno::NODEV.into()))?;
    if let Some(present) = present(&rtnl, route, index).await.map_err(failed)?
        && present.protocol != PROTOCOL
    {
        return Err(conflict(route, &present));
    }
    let message = RouteNetlinkMessage::NewRoute(message(route, index));
    rtnl.change(message, NLM_F_CREATE | NLM_F_REPLACE).await.map_err(failed)
}

/// Removes `route` if it is ours; what is gone already is a success.
pub(super) async fn remove(kernel: &Linux, route: &Route) -> Result<()> {
    let failed = |refusal: Refusal| refusal.error("remove", show(route));
    let Some(rtnl) = kernel.at(route.place)? else { return Ok(()) };
    // A route goes with its interface.
    let Some(index) = index(kernel, route).await.map_err(failed)? else { return Ok(()) };
    let (message, flags) = to_remove(route, index);
    let outcome = rtnl.change(message, flags).await;
    forgive(outcome, &[Errno::SRCH, Errno::NODEV, Errno::NETUNREACH, Errno::NOENT]).map_err(failed)
}

/// The request that makes `route` over the interface with the index `index`, if there is none to the
/// same destination.
pub(super) fn to_create(route: &Route, index: u32) -> Request {
    (RouteNetlinkMessage::NewRoute(message(route, index)), NLM_F_CREATE | NLM_F_EXCL)
}

/// The request that removes `route`, over the interface with the index `index`, if it is ours.
pub(super) fn to_remove(route: &Route, index: u32) -> Request {
    let mut message = message(route, index);
    message.header.scope = RouteScope::NoWhere;
    message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
    (RouteNetlinkMessage::DelRoute(message), 0)
}

/// The link that the best default route of the main table leaves by.
pub(super) async fn default_link(kernel: &Linux, place: Place) -> Result<Option<InterfaceName>> {
    let failed = |refusal: Refusal| refusal.error("read", format_args!("default routes ({place})"));
    let Some(rtnl) = kernel.at(place)? else { return Ok(None) };
    for v6 in [false, true] {
        let found = read(&rtnl, v6, Route::MAIN_TABLE, Vec::new()).await.map_err(failed)?;
        let defaults = found.iter().filter(|route| route.destination.prefix() == 0 && route.table == Route::MAIN_TABLE);
        if let Some(best) = defaults.min_by_key(|route| route.metric)
            && let Some(link) = seen::by_index(&rtnl, best.interface).await.map_err(failed)?
        {
            return Ok(Some(link.name()));
        }
    }
    Ok(None)
}

/// Our routes into `ranges`, of the main table and over any interface, each with the index of the
/// interface it is over.
pub(super) async fn into(rtnl: &Rtnl, ranges: &[IpNetwork]) -> Result<Vec<(u32, Route)>, Refusal> {
    let mut routes = Vec::new();
    for v6 in [false, true] {
        let of_family = || ranges.iter().filter(move |range| range.is_ipv6() == v6);
        if of_family().next().is_none() {
            continue;
        }
        let mut query = RouteMessage::default();
        query.header.address_family = family(v6);
        query.header.protocol = RouteProtocol::from(PROTOCOL);
        query.attributes.push(RouteAttribute::Table(Route::MAIN_TABLE));
        let answers = rtnl.dump(RouteNetlinkMessage::GetRoute(query)).await?;
        let present = answers.iter().flat_map(Present::from_answer);
        let ours = present.filter(|present| {
            let to = present.destination;
            present.protocol == PROTOCOL
                && present.table == Route::MAIN_TABLE
                && of_family().any(|range| range.contains(to.network()) && range.prefix() <= to.prefix())
        });
        routes.extend(ours.map(|present| {
            let wanted = Route {
                place: Place::Host,
                link: seen::unknown(),
                destination: present.destination,
                gateway: None,
                onlink: false,
                mtu: None,
                advmss: None,
                metric: None,
                table: None,
                scope: None,
                source: None,
            };
            (present.interface, present.describe(&wanted))
        }));
    }
    Ok(routes)
}

/// Where the route of `message` leads, and, if it is ours, by which gateway; of the main table.
pub(super) fn leads(message: &RouteMessage) -> Option<(IpNetwork, Option<Option<IpAddr>>)> {
    let route = Present::from_message(message)?.into_iter().next()?;
    let ours = route.protocol == PROTOCOL;
    (route.table == Route::MAIN_TABLE).then_some((route.destination, ours.then_some(route.gateway)))
}

fn key(destination: IpNetwork) -> (IpAddr, u8) {
    (destination.network(), destination.prefix())
}

fn conflict(route: &Route, present: &Present) -> Error {
    let via = present.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    Error::Conflict {
        object: show(route).to_string(),
        found: format!("another route to {} is there{via} (protocol {})", route.destination, present.protocol),
        way_out: "remove that one, or give this one another metric or table".to_owned(),
    }
}

async fn index(kernel: &Linux, route: &Route) -> Result<Option<u32>, Refusal> {
    Ok(seen::known(kernel, route.place, &route.link).await?.map(|link| link.index))
}

/// The route with the key of `route`, over the interface of that index.
async fn present(rtnl: &Rtnl, route: &Route, index: u32) -> Result<Option<Present>, Refusal> {
    let found = dump(rtnl, route.destination.is_ipv6(), table(route), index).await?;
    Ok(found.into_iter().find(|found| found.has_key_of(route)))
}

/// The routes of one family and table over one interface.
async fn dump(rtnl: &Rtnl, v6: bool, table: u32, over: u32) -> Result<Vec<Present>, Refusal> {
    let mut found = read(rtnl, v6, table, vec![RouteAttribute::Oif(over)]).await?;
    found.retain(|present| present.interface == over);
    Ok(found)
}

async fn read(rtnl: &Rtnl, v6: bool, table: u32, of: Vec<RouteAttribute>) -> Result<Vec<Present>, Refusal> {
    let mut query = RouteMessage::default();
    query.header.address_family = family(v6);
    query.attributes.push(RouteAttribute::Table(table));
    query.attributes.extend(of);
    match rtnl.dump(RouteNetlinkMessage::GetRoute(query)).await {
        Ok(answers) => Ok(answers.iter().flat_map(Present::from_answer).collect()),
        // A table without routes is not there at all.
        Err(refusal) if refusal.is(&[Errno::NOENT, Errno::NODEV]) => Ok(Vec::new()),
        Err(refusal) => Err(refusal),
    }
}

/// The interfaces that default routes leave by, the preferred first.
pub(super) async fn ways_out(rtnl: &Rtnl) -> Result<Vec<u32>, Refusal> {
    let mut ways = Vec::new();
    for v6 in [false, true] {
        let mut query = RouteMessage::default();
        query.header.address_family = family(v6);
        query.attributes.push(RouteAttribute::Table(Route::MAIN_TABLE));
        let answers = match rtnl.dump(RouteNetlinkMessage::GetRoute(query)).await {
            Err(refusal) if refusal.is(&[Errno::NOENT]) => Vec::new(),
            answers => answers?,
        };
        let mut defaults: Vec<Present> = answers.iter().flat_map(Present::from_answer).collect();
        defaults.retain(|route| route.destination.prefix() == 0 && route.table == Route::MAIN_TABLE);
        defaults.sort_by_key(|route| route.metric);
        ways.extend(defaults.into_iter().map(|route| route.interface));
    }
    Ok(ways)
}

/// A route as the kernel reports it: one for each of its next hops.
#[derive(Clone, Debug)]
struct Present {
    destination: IpNetwork,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    interface: u32,
    onlink: bool,
    metric: u32,
    mtu: Option<u32>,
    advmss: Option<u32>,
    scope: u8,
    table: u32,
    protocol: u8,
}

impl Present {
    fn from_answer(answer: &RouteNetlinkMessage) -> Vec<Self> {
        match answer {
            RouteNetlinkMessage::NewRoute(message) => Self::from_message(message).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    fn from_message(message: &RouteMessage) -> Option<Vec<Self>> {
        let header = &message.header;
        if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let v6 = header.address_family == family(true);
        let any = if v6 { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
        let mut route = Self {
            destination: IpNetwork::new(any, header.destination_prefix_length).ok()?,
            gateway: None,
            source: None,
            interface: 0,
            onlink: header.flags.contains(RouteFlags::Onlink),
            metric: 0,
            mtu: None,
            advmss: None,
            scope: header.scope.into(),
            table: u32::from(header.table),
            protocol: header.protocol.into(),
        };
        message.attributes.iter().for_each(|attribute| route.learn(attribute));
        let hops = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        });
        let Some(hops) = hops else { return Some(vec![route]) };
        let by = |hop: &RouteNextHop| {
            let mut route = Self { interface: hop.interface_index, ..route.clone() };
            hop.attributes.iter().for_each(|attribute| route.learn(attribute));
            route
        };
        Some(hops.iter().map(by).collect())
    }

    fn learn(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Destination(to) => {
                if let Some(to) = ip(to)
                    && let Ok(to) = IpNetwork::new(to, self.destination.prefix())
                {
                    self.destination = to;
                }
            }
            RouteAttribute::Gateway(to) => self.gateway = ip(to),
            RouteAttribute::Via(RouteVia::Inet6(to)) => self.gateway = Some((*to).into()),
            RouteAttribute::PrefSource(from) => self.source = ip(from),
            RouteAttribute::Oif(index) => self.interface = *index,
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => self.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => self.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn has_key_of(&self, route: &Route) -> bool {
        self.destination.network() == route.destination.network()
            && self.destination.prefix() == route.destination.prefix()
            && self.metric == route.effective_metric()
            && self.table == table(route)
    }

    fn describe(&self, wanted: &Route) -> Route {
        Route {
            place: wanted.place,
            link: wanted.link.clone(),
            destination: wanted.destination,
            gateway: self.gateway,
            onlink: self.onlink,
            mtu: self.mtu,
            advmss: self.advmss,
            metric: Some(self.metric),
            table: wanted.table,
            // IPv6 routes have no scope; the kernel reports 0 for all of them.
            scope: if self.destination.is_ipv6() { wanted.scope } else { Some(self.scope) },
            source: self.source,
        }
    }
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn table(route: &Route) -> u32 {
    route.table.unwrap_or(Route::MAIN_TABLE)
}

fn message(route: &Route, interface: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.destination.is_ipv6());
    header.destination_prefix_length = route.destination.prefix();
    header.protocol = RouteProtocol::from(PROTOCOL);
    header.kind = RouteType::Unicast;
    header.scope = match (route.scope, route.gateway) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, Some(_)) => RouteScope::Universe,
        (None, None) => RouteScope::Link,
    };
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if route.destination.prefix() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    attributes.push(RouteAttribute::Table(table(route)));
    attributes.push(RouteAttribute::Oif(interface));
    attributes.extend(route.gateway.map(|gateway| match gateway {
        IpAddr::V6(v6) if route.destination.is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(v6)),
        gateway => RouteAttribute::Gateway(gateway.into()),
    }));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    if route.effective_metric() != 0 {
        attributes.push(RouteAttribute::Priority(route.effective_metric()));
    }
    let metrics: Vec<_> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn show(route: &Route) -> Object {
    Object::Route(route.clone())
}
