//! Looking at a namespace as a packet does: at everything it may meet there, whoever made it. For
//! diagnosis; nothing on the way in or out of an attachment comes here.

use std::fs;
use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rustix::io::Errno;

use super::linux::Linux;
use super::nft::Nft;
use super::rtnl::{Refusal, Rtnl};
use super::seen::{self, Seen};
use super::{Kernel, address, conntrack, legacy, listener, neighbour, route};
use crate::error::{Error, Result};
use crate::model::{Interface, KnownNeighbour, Place, Protocol, Refused, RouteQuestion, Rules, Scene, Tracked, Way};

/// What a diagnosis asks of a kernel, beside what every [`Kernel`] is asked.
#[allow(async_fn_in_trait, reason = "as for Kernel")]
pub trait Inspect: Kernel {
    /// Everything a packet may meet in `place`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer. Rules that cannot be read are
    /// [faults](Rules::faults).
    async fn inspect(&self, place: Place) -> Result<Scene>;

    /// Where routing in `place` sends a packet.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer; that it refuses is an answer.
    async fn way(&self, place: Place, question: &RouteQuestion) -> Result<Way>;

    /// The setting `name`, a path below `/proc/sys`, in `place`; `None` if the kernel does not have it.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read.
    fn setting(&self, place: Place, name: &str) -> Result<Option<String>>;

    /// The connections of the host that are remembered as made to `port`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer.
    fn tracked(&self, protocol: Protocol, port: u16, v6: bool) -> Result<Vec<Tracked>>;
}

impl Inspect for Linux {
    async fn inspect(&self, place: Place) -> Result<Scene> {
        let rtnl = self.required(place)?;
        let interfaces = interfaces(&rtnl).await.map_err(|refusal| refusal.error("list", "links"))?;
        let neighbours = neighbours(&rtnl).await.map_err(|refusal| refusal.error("list", "neighbours"))?;
        let look = || (rules(), listener::all());
        let (rules, listeners) = match place {
            Place::Host => look(),
            Place::Sandbox => self.required_sandbox()?.run(look)?,
        };
        Ok(Scene { interfaces, listeners: listeners?, neighbours, rules })
    }

    async fn way(&self, place: Place, question: &RouteQuestion) -> Result<Way> {
        let rtnl = self.required(place)?;
        let mut query = RouteMessage::default();
        query.header.address_family = address::family(question.to.is_ipv6());
        query.header.destination_prefix_length = bits(question.to);
        query.attributes.push(RouteAttribute::Destination(route_address(question.to)));
        if let Some(from) = question.from {
            query.header.source_prefix_length = bits(from);
            query.attributes.push(RouteAttribute::Source(route_address(from)));
        }
        query.attributes.extend(question.came_by.map(RouteAttribute::Iif));
        let answer = match rtnl.get(RouteNetlinkMessage::GetRoute(query)).await {
            Ok(answer) => answer,
            Err(refusal) if refusal.is(&[Errno::ACCESS]) => return Ok(Way::Refused(Refused::Prohibited)),
            // EXDEV is the reverse path filter's, EINVAL that of addresses that may not be where they are,
            // and from Linux 6.13 on, of everything.
            Err(refusal)
                if refusal.is(&[Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::NETDOWN, Errno::XDEV, Errno::INVAL]) =>
            {
                return Ok(Way::Refused(Refused::Unreachable));
            }
            Err(refusal) => return Err(refusal.error("read", format_args!("the route to {}", question.to))),
        };
        let Some(RouteNetlinkMessage::NewRoute(message)) = answer else {
            return Ok(Way::Refused(Refused::Unreachable));
        };
        Ok(read_way(&message))
    }

    fn setting(&self, place: Place, name: &str) -> Result<Option<String>> {
        let path = format!("/proc/sys/{name}");
        let read = || match fs::read_to_string(&path) {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        };
        match place {
            Place::Host => read(),
            Place::Sandbox => self.required_sandbox()?.run(read)?,
        }
    }

    fn tracked(&self, protocol: Protocol, port: u16, v6: bool) -> Result<Vec<Tracked>> {
        conntrack::tracked(protocol, port, v6)
    }
}

fn read_way(message: &RouteMessage) -> Way {
    match message.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Multicast => return Way::Local,
        RouteType::Prohibit => return Way::Refused(Refused::Prohibited),
        RouteType::Unicast => {}
        _ => return Way::Refused(Refused::Unreachable),
    }
    let (mut interface, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(to) => gateway = route::ip(to),
            RouteAttribute::PrefSource(from) => source = route::ip(from),
            _ => {}
        }
    }
    interface.map_or(Way::Refused(Refused::Unreachable), |interface| Way::Out { interface, gateway, source })
}

async fn interfaces(rtnl: &Rtnl) -> Result<Vec<Interface>, Refusal> {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let links = rtnl.dump(RouteNetlinkMessage::GetLink(query)).await?;
    let addresses = rtnl.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
    let carrier = |link: &RouteNetlinkMessage| match link {
        RouteNetlinkMessage::NewLink(message) => message.header.flags.contains(LinkFlags::LowerUp),
        _ => false,
    };
    let read = |link: &RouteNetlinkMessage| {
        let Seen { index, name, kind, mac, up, master, forwarding, .. } = seen::from_answer(link)?;
        let of_this = |answer| address::from_answer(answer, index).map(|present| present.address);
        let addresses: Vec<IpNetwork> = addresses.iter().filter_map(of_this).collect();
        let carrier = carrier(link);
        Some(Interface { index, name, kind, mac, up, carrier, bridge: master, forwards: forwarding, addresses })
    };
    Ok(links.iter().filter_map(read).collect())
}

async fn neighbours(rtnl: &Rtnl) -> Result<Vec<KnownNeighbour>, Refusal> {
    let mut found = Vec::new();
    for v6 in [false, true] {
        let mut query = NeighbourMessage::default();
        query.header.family = address::family(v6);
        let answers = rtnl.dump(RouteNetlinkMessage::GetNeighbour(query)).await?;
        found.extend(answers.iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
            let mac = message.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(crate::model::Mac),
                _ => None,
            });
            Some(KnownNeighbour {
                interface: message.header.ifindex,
                address: neighbour::destination(message)?,
                mac,
                permanent: message.header.state == NeighbourState::Permanent,
                failed: message.header.state == NeighbourState::Failed,
            })
        }));
    }
    Ok(found)
}

/// The rules of the calling thread's namespace.
fn rules() -> Rules {
    let mut rules = match Nft::open().and_then(|nft| nft.everything()) {
        Ok(rules) => rules,
        Err(error) => {
            Rules { faults: vec![format!("the rules of nf_tables cannot be read: {error}")], ..Rules::default() }
        }
    };
    legacy::read(&mut rules);
    rules
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn route_address(address: IpAddr) -> netlink_packet_route::route::RouteAddress {
    match address {
        IpAddr::V4(address) => netlink_packet_route::route::RouteAddress::Inet(address),
        IpAddr::V6(address) => netlink_packet_route::route::RouteAddress::Inet6(address),
    }
}
