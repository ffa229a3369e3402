//! What rtnetlink says of its own accord to those who have joined its groups.

use std::collections::VecDeque;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use nftnl_sys::libc;
use tokio::runtime;

use super::events::Socket;
use super::netns::Netns;
use super::rtnl::{self, Refusal};
use crate::error::Result;

/// Groups of rtnetlink, `RTNLGRP_*` in linux/rtnetlink.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Group {
    Link = 1,
    Neighbour = 3,
    Ipv4Route = 7,
    Ipv6Address = 9,
    Ipv6Route = 11,
}

/// Messages from groups, in the order in which things happened.
#[derive(Debug)]
pub(super) struct News {
    socket: Socket,
    unread: VecDeque<Item>,
}

/// Something that was said, or that cannot be known any more.
#[derive(Debug)]
pub(super) enum Item {
    Message(Box<RouteNetlinkMessage>),
    /// There was more than could be kept: anything may have happened.
    Lost,
}

impl News {
    /// Listens from now on in `netns`, or in the caller's namespace. Lives on the Tokio runtime it was
    /// opened on, which must have I/O enabled.
    pub(super) fn open(netns: Option<&Netns>, groups: &[Group]) -> Result<Self> {
        let failed = |source| Refusal::from(source).error("open", "rtnetlink socket");
        let runtime = runtime::Handle::try_current().map_err(|error| failed(io::Error::other(error)))?;
        let groups: Vec<u32> = groups.iter().map(|group| *group as u32).collect();
        let listen = || {
            // A thread that stands in the other namespace may have no runtime of its own.
            let _entered = runtime.enter();
            Socket::open(libc::NETLINK_ROUTE, &groups, &[])
        };
        let socket = match netns {
            Some(netns) => netns.visit(listen)?,
            None => listen(),
        };
        Ok(Self { socket: socket.map_err(failed)?, unread: VecDeque::new() })
    }

    /// Waits for the next item.
    ///
    /// # Errors
    /// When nothing more will come.
    pub(super) async fn next(&mut self) -> io::Result<Item> {
        loop {
            if let Some(item) = self.unread.pop_front() {
                return Ok(item);
            }
            self.socket.readable().await?;
            let unread = &mut self.unread;
            let lost = self.socket.drain(|message| {
                unread.extend(rtnl::decode(message.bytes).map(|message| Item::Message(Box::new(message))));
            })?;
            if lost {
                unread.push_back(Item::Lost);
            }
        }
    }
}
