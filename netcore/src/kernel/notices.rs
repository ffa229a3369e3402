//! What the kernel says happens to an overlay's tunnel and to the ways through it, for agents that
//! put right what others break.

use ipnetwork::IpNetwork;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use std::net::IpAddr;

use super::news::{Group, Item, News};
use super::rtnl::{Refusal, Rtnl};
use super::{neighbour, route, seen};
use crate::error::Result;
use crate::model::{InterfaceName, Mac};

/// Something that happened. What it says may be what was there before: only a look tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The tunnel came, went or changed, or the bridge went.
    Link,
    /// A neighbour over the tunnel has this MAC address by now, or is gone.
    Neighbour(IpAddr, Option<Mac>),
    /// What is for this MAC address is sent to this node by now, or to none.
    Entry(Mac, Option<IpAddr>),
    /// By which gateway, if by one, this route of ours leads by now; nothing when it is gone, or somebody
    /// else's.
    Route(IpNetwork, Option<Option<IpAddr>>),
}

/// Notices from the caller's namespace, as they come.
#[derive(Debug)]
pub struct Notices {
    news: News,
    tunnel: InterfaceName,
    bridge: InterfaceName,
    /// The tunnel's, while it is there.
    index: Option<u32>,
}

impl Notices {
    /// Listens from now on for what concerns `tunnel` and `bridge`, which need not be there.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel cannot be reached.
    pub async fn open(tunnel: InterfaceName, bridge: InterfaceName) -> Result<Self> {
        let news = News::open(None, &[Group::Link, Group::Neighbour, Group::Ipv4Route, Group::Ipv6Route])?;
        let failed = |refusal: Refusal| refusal.error("read", format_args!("link {tunnel}"));
        let index = seen::by_name(&Rtnl::open(None)?, &tunnel).await.map_err(failed)?.map(|seen| seen.index);
        Ok(Self { news, tunnel, bridge, index })
    }

    /// The next one; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.news.next().await.ok()? {
                Item::Message(message) => {
                    if let Some(notice) = self.understand(&message) {
                        return Some(notice);
                    }
                }
                // Whoever hears of the tunnel looks at everything.
                Item::Lost => return Some(Notice::Link),
            }
        }
    }

    fn understand(&mut self, message: &RouteNetlinkMessage) -> Option<Notice> {
        match message {
            RouteNetlinkMessage::NewLink(link) if is(link, &self.tunnel) => {
                self.index = Some(link.header.index);
                Some(Notice::Link)
            }
            RouteNetlinkMessage::DelLink(link) if is(link, &self.tunnel) || is(link, &self.bridge) => {
                Some(Notice::Link)
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour) => {
                let gone = matches!(message, RouteNetlinkMessage::DelNeighbour(_));
                let of_tunnel = Some(neighbour.header.ifindex) == self.index;
                let notice = of_tunnel.then(|| neighbour::notice(neighbour)).flatten()?;
                Some(match notice {
                    Notice::Neighbour(address, _) if gone => Notice::Neighbour(address, None),
                    Notice::Entry(mac, _) if gone => Notice::Entry(mac, None),
                    notice => notice,
                })
            }
            RouteNetlinkMessage::NewRoute(new) => route::leads(new).map(|(to, via)| Notice::Route(to, via)),
            RouteNetlinkMessage::DelRoute(gone) => route::leads(gone).map(|(to, _)| Notice::Route(to, None)),
            _ => None,
        }
    }
}

fn is(link: &LinkMessage, name: &InterfaceName) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(is) if is == name.as_str()))
}
