//! Telling the neighbours whose an address is now, so that none goes on using what it remembers
//! of the address' last owner.
//!
//! For IPv4 this is an ARP announcement (RFC 5227 §2.3): a request for the address by the
//! address itself. The kernel is made to send it, by asking for the address as if it were a
//! neighbour's and forgetting the question at once. A packet socket would do it too, but closing
//! one waits for a grace period of the whole machine, about 16 ms. (Of several addresses of one
//! subnet on one interface, the kernel sends the first; a second one is then learned from its
//! first packet.) For IPv6 it is an unsolicited
//! neighbour advertisement (RFC 4861 §7.2.6) through a raw socket, which closes at once.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, ipproto, sendto, socket_with, sockopt};

use super::address::{family, show};
use super::linux::Linux;
use super::netns::Netns;
use super::rtnl::{Refusal, Rtnl, forgive};
use super::seen::{self, Seen};
use crate::error::Result;
use crate::model::{Address, Mac, Place};

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The interface has gone meanwhile, and its address with it.
const GONE: Errno = Errno::NODEV;

/// Proof that a message was not forwarded by a router (RFC 4861 §7.1.2).
const HOP_LIMIT: u32 = 255;

/// Announces `addresses` on their interfaces. Those of interfaces that are down are not
/// announced: nobody would hear it.
pub(super) async fn announce(kernel: &Linux, addresses: &[&Address]) -> Result<()> {
    for address in addresses {
        let Some(rtnl) = kernel.at(address.place)? else { continue };
        let netns = kernel.sandbox().filter(|_| address.place == Place::Sandbox);
        let failed = |refusal: Refusal| refusal.error("announce", show(address));
        let Some(interface) = seen::known(kernel, address.place, &address.link).await.map_err(failed)? else {
            continue;
        };
        let Some(mac) = interface.mac.filter(|mac| interface.up && mac.is_unicast()) else { continue };
        match address.address.ip() {
            IpAddr::V4(_) => ask_for_own(&rtnl, &interface, address).await.map_err(failed)?,
            IpAddr::V6(ip) => match advertise(netns, &interface, mac, ip)? {
                // Without its interface, the address cannot be sent from any more.
                Err(GONE | Errno::ADDRNOTAVAIL) => {}
                sent => sent.map_err(|code| failed(code.into()))?,
            },
        }
    }
    Ok(())
}

/// Makes the kernel ask for its own address, which is an announcement, and forget the question.
async fn ask_for_own(rtnl: &Rtnl, interface: &Seen, address: &Address) -> Result<(), Refusal> {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = family(false);
    neighbour.header.ifindex = interface.index;
    neighbour.attributes.push(NeighbourAttribute::Destination(match address.address.ip() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => v6.into(),
    }));
    let mut question = neighbour.clone();
    question.header.flags = NeighbourFlags::Use;
    let (asked, forgotten) = futures::future::join(
        rtnl.change(RouteNetlinkMessage::NewNeighbour(question), NLM_F_CREATE),
        rtnl.change(RouteNetlinkMessage::DelNeighbour(neighbour), 0),
    )
    .await;
    // ENOBUFS: the neighbour table is full. What is not announced is learned a little later.
    forgive(asked, &[Errno::NOBUFS, GONE])?;
    forgive(forgotten, &[Errno::NOENT, GONE])
}

fn advertise(netns: Option<&Netns>, interface: &Seen, mac: Mac, ip: Ipv6Addr) -> Result<Result<(), Errno>> {
    let index = interface.index;
    let send = || {
        let socket = socket_with(AddressFamily::INET6, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMPV6))?;
        sockopt::set_ipv6_multicast_hops(&socket, HOP_LIMIT)?;
        bind(&socket, &SocketAddrV6::new(ip, 0, 0, index))?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
        sendto(&socket, &advertisement(ip, mac), SendFlags::empty(), &to).map(drop)
    };
    match netns {
        Some(netns) => netns.visit(send),
        None => Ok(send()),
    }
}

/// An unsolicited neighbour advertisement (RFC 4861 §4.4) that overrides what is remembered.
/// The checksum is left to the kernel.
fn advertisement(ip: Ipv6Addr, mac: Mac) -> [u8; 32] {
    const TYPE: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let mut message = [0; 32];
    message[0] = TYPE;
    message[4] = OVERRIDE;
    message[8..24].copy_from_slice(&ip.octets());
    message[24] = TARGET_LINK_LAYER_ADDRESS;
    message[25] = 1; // in units of 8 bytes
    message[26..32].copy_from_slice(&mac.0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_is_what_rfc_4861_says() {
        let message = advertisement("fd00:20::2".parse().unwrap(), "0a:58:0a:14:00:02".parse().unwrap());
        #[rustfmt::skip]
        assert_eq!(message, [
            136, 0, 0, 0,                                               // type, code, checksum
            0x20, 0, 0, 0,                                              // not a router, unsolicited, override
            0xfd, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,       // target
            2, 1, 0x0a, 0x58, 0x0a, 0x14, 0, 2,                         // target link-layer address
        ]);
    }
}
