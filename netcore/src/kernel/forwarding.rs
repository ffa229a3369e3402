//! What the host's switches of forwarding say and touch beside what they are called.
//!
//! A router does not listen to routers: with IPv6 forwarding on, the kernel drops the default routes
//! that router advertisements have brought and takes no new ones (RFC 4861 §6.2.2), unless the
//! interface's `accept_ra` is 2 (Documentation/networking/ip-sysctl.rst). And the switch of the whole
//! host, when it is thrown, throws those of single interfaces with it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket as NetlinkSocket, protocols::NETLINK_ROUTE};
use nftnl_sys::libc;
use rustix::net::{AddressFamily, SocketType};

use super::events::{Message, NETCONFA_FORWARDING, NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL};
use super::raw::attribute;
use crate::error::{Error, Result};
use crate::model::{Place, Sysctl};

/// linux/rtnetlink.h.
const RTM_GETNETCONF: u16 = 82;
/// The kernel sends listings in pieces of at most 32 KiB (`netlink_dump`).
const LISTING_BYTES: usize = 64 << 10;

/// The routes of the thread's namespace.
const ROUTES: &str = "/proc/thread-self/net/ipv6_route";

/// `RTF_DEFAULT | RTF_ADDRCONF` (linux/ipv6_route.h): a default route that an advertisement has
/// brought.
const ADVERTISED: u32 = 0x0001_0000 | 0x0004_0000;

/// See [`Kernel::forwarding_switches`](super::Kernel::forwarding_switches). Asked for all at once: a
/// file for each is slow where there are a thousand.
pub(super) fn switches(ipv6: bool) -> Result<Vec<Sysctl>> {
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    let failed = |source| Error::Kernel {
        operation: "list",
        object: format!("forwarding switches of {family}"),
        source,
        detail: None,
    };
    let names =
        rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(|error| failed(error.into()))?;
    // Somebody may be throwing all of them at this moment: what is said twice is so.
    let (once, again) = (netconf(ipv6).map_err(failed)?, netconf(ipv6).map_err(failed)?);
    let stays = |said: &(i32, i32)| again.contains(said);
    let switches = once.into_iter().filter(stays).filter_map(|(index, on)| {
        let name = if index == NETCONFA_IFINDEX_ALL {
            (if ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" }).to_owned()
        } else {
            let name = rustix::net::netdevice::index_to_name(&names, u32::try_from(index).ok()?).ok()?;
            format!("net/{family}/conf/{}/forwarding", Some(name).filter(|name| name != "lo")?)
        };
        Some(Sysctl { place: Place::Host, name, value: on.to_string() })
    });
    Ok(switches.collect())
}

/// Whether they forward, by the index of the interface; those that stand for all are negative.
fn netconf(ipv6: bool) -> io::Result<HashSet<(i32, i32)>> {
    let mut socket = NetlinkSocket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    // struct nlmsghdr and struct netconfmsg, filled up.
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend(RTM_GETNETCONF.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    socket.send(&request, 0)?;
    let (mut found, mut done) = (HashSet::new(), Ok(false));
    let mut buffer = Vec::with_capacity(LISTING_BYTES);
    while let Ok(false) = done {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        Message::each(&buffer, &mut |message| match i32::from(message.kind) {
            libc::NLMSG_DONE => done = Ok(true),
            libc::NLMSG_ERROR => done = Err(message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))),
            _ => found.extend(message.body.get(4..).and_then(forwards)),
        });
    }
    match done {
        Ok(_) => Ok(found),
        // No IPv6, no switches.
        Err(code) if code == -libc::EOPNOTSUPP => Ok(HashSet::new()),
        Err(code) => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// The interface, and whether it forwards.
fn forwards(attributes: &[u8]) -> Option<(i32, i32)> {
    let number = |kind| attribute(attributes, kind)?.first_chunk().map(|number| i32::from_ne_bytes(*number));
    Some((number(NETCONFA_IFINDEX)?, number(NETCONFA_FORWARDING)?))
}

/// See [`Kernel::advertised_ways_out`](super::Kernel::advertised_ways_out).
pub(super) fn advertised_ways_out() -> Result<Vec<Sysctl>> {
    let routes = match fs::read_to_string(ROUTES) {
        Ok(routes) => routes,
        // No IPv6, no routes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", ROUTES)(error)),
    };
    let settings = advertised(&routes).into_iter();
    let settings = settings.map(|interface| read(format!("net/ipv6/conf/{interface}/accept_ra")));
    Ok(settings.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The setting `name` as it is; none if its interface has gone.
fn read(name: String) -> Result<Option<Sysctl>> {
    let path = format!("/proc/sys/{name}");
    match fs::read_to_string(&path) {
        Ok(value) => Ok(Some(Sysctl { place: Place::Host, name, value: value.trim_end().to_owned() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// The interfaces over which routers have advertised a default route. A line is destination, its
/// prefix length, source, its prefix length, next hop, metric, two counters, flags, interface.
fn advertised(routes: &str) -> BTreeSet<&str> {
    routes
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
            (flags & ADVERTISED == ADVERTISED).then_some(*fields.get(9)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_that_were_advertised_count() {
        let zero = "0".repeat(32);
        let line = |flags: &str, interface: &str| {
            format!(
                "{zero} 00 {zero} 00 fe80000000000000000000000000000a 00000400 00000001 00000000 {flags} {interface}\n"
            )
        };
        // RTF_UP | RTF_GATEWAY, with and without what advertisements add; an advertised prefix.
        let routes = [line("00450003", "ens3"), line("00000003", "ens4"), line("00440001", "ens5")].concat();
        assert_eq!(advertised(&routes).into_iter().collect::<Vec<_>>(), ["ens3"]);
        assert!(advertised("").is_empty() && advertised("garbage\n").is_empty());
    }
}
