//! Waiting until what was made can be used.
//!
//! The kernel answers before it is done: a bridge port forwards once the kernel's own work
//! queue has seen that the link has a carrier, and an IPv6 address may be looked for on the
//! network first. Both are waited for by notification, not by sleeping.

use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use super::linux::Linux;
use super::news::{Group, Item, News};
use super::rtnl::{Refusal, Rtnl};
use super::{address, announce, event_loop, link, seen};
use crate::error::Result;
use crate::model::{Address, Link, LinkKind, Object, Place};

/// How long a port may take before it forwards. It is usable soon after all the same, so the
/// end of this is no error.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// How long duplicate address detection may take: a random delay of up to a second, and
/// `dad_transmits` probes a second apart (RFC 4862 §5.4.2), of which there may be a few.
const DAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long to trust in notifications before looking again: the socket's buffer may overflow.
const PACE: Duration = Duration::from_millis(20);

/// Waits for the links and addresses among `objects`, then announces the addresses.
pub(super) async fn settle(kernel: &Linux, objects: &[Object]) -> Result<()> {
    let (mut ports, mut detecting, mut announced) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        match object {
            Object::Link(link) if is_working_port(link) => ports.push(link),
            Object::Address(address) => {
                if address.dad && address.address.is_ipv6() {
                    detecting.push(address);
                }
                announced.push(address);
            }
            _ => {}
        }
    }
    let (forwarding, detected) =
        futures::future::join(wait_for_ports(kernel, &ports), wait_for_addresses(kernel, &detecting)).await;
    forwarding.and(detected)?;
    announce::announce(kernel, &announced).await
}

/// Whether frames will pass through `link` without anybody doing anything more.
fn is_working_port(link: &Link) -> bool {
    link.up && link.port.is_some() && matches!(&link.kind, LinkKind::Veth(veth) if veth.peer_up)
}

async fn wait_for_ports(kernel: &Linux, links: &[&Link]) -> Result<()> {
    let host = kernel.required(Place::Host)?;
    for link in links {
        let index = match look(kernel, &host, link).await? {
            Look::Waiting(index) => index,
            Look::Settled => continue,
        };
        event_loop::entered().await.map_err(|source| Refusal::from(source).error("wait for", link::show(link)))?;
        // Subscribed before looking again, so that nothing happens in between.
        let mut news = News::open(None, &[Group::Link])?;
        let deadline = Instant::now() + PORT_PATIENCE;
        while let Look::Waiting(_) = look(kernel, &host, link).await?
            && Instant::now() < deadline
        {
            wait_for_news(&mut news, |message| match message {
                RouteNetlinkMessage::NewLink(message) => message.header.index == index,
                _ => false,
            })
            .await;
        }
    }
    Ok(())
}

enum Look {
    /// Not yet: the interface's index.
    Waiting(u32),
    /// Nothing to wait for: usable, or gone.
    Settled,
}

async fn look(kernel: &Linux, host: &Rtnl, link: &Link) -> Result<Look> {
    let seen = seen::by_name(host, &link.name).await;
    let seen = seen.map_err(|refusal| refusal.error("wait for", link::show(link)))?;
    if let Some(seen) = &seen {
        kernel.remember(Place::Host, &link.name, seen);
    }
    Ok(match seen {
        Some(seen) if !seen.forwarding => Look::Waiting(seen.index),
        _ => Look::Settled,
    })
}

async fn wait_for_addresses(kernel: &Linux, addresses: &[&Address]) -> Result<()> {
    for address in addresses {
        let failed = |refusal: Refusal| refusal.error("wait for", address::show(address));
        let rtnl = kernel.required(address.place)?;
        let netns = if address.place == Place::Sandbox { kernel.sandbox() } else { None };
        let Some(interface) = seen::by_name(&rtnl, &address.link).await.map_err(failed)? else { continue };
        event_loop::entered().await.map_err(|source| failed(source.into()))?;
        let mut news = News::open(netns, &[Group::Ipv6Address])?;
        let deadline = Instant::now() + DAD_PATIENCE;
        loop {
            let present = address::on_interface(&rtnl, interface.index, true).await.map_err(failed)?;
            let Some(present) = present.iter().find(|present| present.address == address.address) else { break };
            address::refuse_duplicate(address, present)?;
            if !address::is_tentative(present) {
                break;
            }
            if Instant::now() >= deadline {
                return Err(failed(Errno::TIMEDOUT.into()));
            }
            wait_for_news(&mut news, |message| address::from_answer(message, interface.index).is_some()).await;
        }
    }
    Ok(())
}

/// Waits for a notification that `concerns` us, but not for long.
async fn wait_for_news(news: &mut News, concerns: impl Fn(&RouteNetlinkMessage) -> bool) {
    let listen = async {
        while let Ok(item) = news.next().await {
            match item {
                Item::Message(message) if !concerns(&message) => {}
                Item::Message(_) | Item::Lost => return,
            }
        }
        // Nothing more will come.
        std::future::pending::<()>().await;
    };
    let _ = timeout(PACE, listen).await;
}
