//! Forgetting connections (ctnetlink, linux/netfilter/nfnetlink_conntrack.h).
//!
//! Address translation is decided with the first packet of a connection and then remembered. A
//! client that keeps talking to a port from before it was published, or after it was withdrawn,
//! would go on reaching the wrong place until it falls silent; so the entries of the port are
//! removed. The kernel is asked for those only (`CTA_FILTER`, Linux 5.8); an older one sends
//! everything, and what comes is compared again here.

use std::fs;
use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::io::Errno;

use super::extack;
use crate::error::{Error, Result};
use crate::model::{Protocol, Tracked};

// `NFNL_SUBSYS_CTNETLINK << 8` and the message within it.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

// Which parts of a tuple the filter compares (net/netfilter/nf_internals.h).
const COMPARE_IP_SRC: u32 = 1 << 0;
const COMPARE_IP_DST: u32 = 1 << 1;
const COMPARE_PROTO_NUM: u32 = 1 << 3;
const COMPARE_DST_PORT: u32 = 1 << 5;

/// How many connections the namespace tracks; not there without connection tracking.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct nlmsghdr` and `struct nfgenmsg`.
const NLMSG_HEADER: usize = 16;
const NFGEN_HEADER: usize = 4;

/// A port of the host that connections may have been made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) protocol: Protocol,
    /// The one host address; every one when `None`.
    pub(super) host_address: Option<IpAddr>,
    pub(super) port: u16,
    /// Whether it is published for IPv6, or for IPv4.
    pub(super) v6: bool,
}

/// Forgets the connections that were made to any of `published`; says how many. Without
/// connection tracking there are none.
pub(super) fn flush(published: &[Published]) -> Result<usize> {
    let families = [false, true].map(|v6| published.iter().filter(|port| port.v6 == v6).copied().collect::<Vec<_>>());
    let mut forgotten = 0;
    for ports in families.iter().filter(|ports| !ports.is_empty()) {
        let filter = port_filter(ports);
        let object = || match ports.as_slice() {
            [only] => format!("connections to port {}/{}", only.port, only.protocol),
            several => format!("connections to {} ports", several.len()),
        };
        let outcome = forget(ports[0].v6, &filter, |entry| ports.iter().any(|port| entry.was_made_to(port)));
        forgotten += outcome.map_err(|refusal| refusal.error(object()))?;
    }
    Ok(forgotten)
}

/// Forgets the connections that `address`, a container's, was reached by; says how many.
pub(super) fn flush_address(address: IpAddr) -> Result<usize> {
    forget(address.is_ipv6(), &address_filter(address), |entry| entry.reply.source == Some(address))
        .map_err(|refusal| refusal.error(format!("connections to {address}")))
}

/// What a dump compares to find an address that answers. For IPv6 no more than the family: there
/// the kernel lets everything through *but* the address (net/netfilter/nf_conntrack_netlink.c,
/// `ctnetlink_filter_match_tuple`, takes the answer of `ipv6_addr_cmp` the wrong way round; seen on
/// 6.18).
fn address_filter(address: IpAddr) -> Vec<u8> {
    let IpAddr::V4(v4) = address else { return Vec::new() };
    let flags = [
        attribute(CTA_FILTER_ORIG_FLAGS, &0_u32.to_ne_bytes()),
        attribute(CTA_FILTER_REPLY_FLAGS, &COMPARE_IP_SRC.to_ne_bytes()),
    ];
    let source = nested(CTA_TUPLE_IP, &attribute(CTA_IP_V4_SRC, &v4.octets()));
    [nested(CTA_TUPLE_REPLY, &source), nested(CTA_FILTER, &flags.concat())].concat()
}

/// What a dump compares: everything of a single port, else no more than the family.
fn port_filter(ports: &[Published]) -> Vec<u8> {
    let [port] = ports else { return Vec::new() };
    let mut compare = COMPARE_PROTO_NUM | COMPARE_DST_PORT;
    let mut tuple = Vec::new();
    // Not for IPv6, see `address_filter`.
    if let Some(IpAddr::V4(address)) = port.host_address {
        compare |= COMPARE_IP_DST;
        tuple.extend(nested(CTA_TUPLE_IP, &attribute(CTA_IP_V4_DST, &address.octets())));
    }
    let protocol =
        [attribute(CTA_PROTO_NUM, &[port.protocol.number()]), attribute(CTA_PROTO_DST_PORT, &port.port.to_be_bytes())];
    tuple.extend(nested(CTA_TUPLE_PROTO, &protocol.concat()));
    let flags = [
        attribute(CTA_FILTER_ORIG_FLAGS, &compare.to_ne_bytes()),
        attribute(CTA_FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes()),
    ];
    [nested(CTA_TUPLE_ORIG, &tuple), nested(CTA_FILTER, &flags.concat())].concat()
}

/// The connections that are remembered as made to `port`, and where they lead.
pub(super) fn tracked(protocol: Protocol, port: u16, v6: bool) -> Result<Vec<Tracked>> {
    let published = Published { protocol, host_address: None, port, v6 };
    let found = all(v6, &port_filter(&[published])).map_err(|refusal| Error::Kernel {
        operation: "list",
        object: format!("connections to port {port}/{protocol}"),
        source: refusal.source,
        detail: refusal.detail,
    })?;
    let of_port = found.iter().filter(|entry| entry.was_made_to(&published));
    Ok(of_port
        .filter_map(|entry| {
            let socket = |address: Option<IpAddr>, port: Option<u16>| Some(std::net::SocketAddr::new(address?, port?));
            Some(Tracked {
                protocol,
                client: socket(entry.original.source, entry.original.source_port)?,
                asked: socket(entry.original.destination, entry.original.destination_port)?,
                answers: socket(entry.reply.source, entry.reply.source_port)?,
            })
        })
        .collect())
}

/// The entries that `filter` lets through.
fn all(v6: bool, filter: &[u8]) -> Result<Vec<Entry>, Refusal> {
    if !is_tracking() {
        return Ok(Vec::new());
    }
    let Some(mut socket) = Conntrack::open()? else { return Ok(Vec::new()) };
    Ok(dump(&mut socket, v6, filter)?.iter().filter_map(|bytes| Entry::parse(bytes)).collect())
}

/// What the kernel lists; nothing where it has no ctnetlink.
fn dump(socket: &mut Conntrack, v6: bool, filter: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let found = match socket.exchange(GET, NLM_F_DUMP, v6, filter) {
        // A kernel that knows only a part of the filter; or one without ctnetlink, which is
        // refused again.
        Err(refusal) if !filter.is_empty() && refusal.is(&[Errno::INVAL, Errno::OPNOTSUPP]) => {
            socket.exchange(GET, NLM_F_DUMP, v6, &[])
        }
        outcome => outcome,
    };
    match found {
        Err(refusal) if refusal.is(&[Errno::INVAL, Errno::OPNOTSUPP]) => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// Whether the namespace tracks any connection. To find one, the kernel walks the whole table,
/// which takes it milliseconds however few there are.
fn is_tracking() -> bool {
    fs::read_to_string(COUNT).is_ok_and(|count| count.trim() != "0")
}

/// Removes the entries that `matches`, out of those that `filter` lets through.
fn forget(v6: bool, filter: &[u8], matches: impl Fn(&Entry) -> bool) -> Result<usize, Refusal> {
    if !is_tracking() {
        return Ok(0);
    }
    let Some(mut socket) = Conntrack::open()? else { return Ok(0) };
    let found = dump(&mut socket, v6, filter)?;
    let mut forgotten = 0;
    for entry in found.iter().filter_map(|bytes| Entry::parse(bytes)).filter(matches) {
        match socket.exchange(DELETE, NLM_F_ACK, v6, &entry.identity) {
            Ok(_) => forgotten += 1,
            // It ended by itself.
            Err(refusal) if refusal.is(&[Errno::NOENT]) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(forgotten)
}

/// A tracked connection.
#[derive(Debug, Default)]
struct Entry {
    original: Tuple,
    reply: Tuple,
    /// The attributes that name this entry to the kernel.
    identity: Vec<u8>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Entry {
    /// `bytes` are the attributes of the message.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut entry = Self::default();
        for (kind, value) in Attributes(bytes) {
            match kind {
                CTA_TUPLE_ORIG => {
                    entry.original = Tuple::parse(value);
                    entry.identity.extend(nested(kind, value));
                }
                CTA_TUPLE_REPLY => entry.reply = Tuple::parse(value),
                CTA_ID | CTA_ZONE => entry.identity.extend(attribute(kind, value)),
                _ => {}
            }
        }
        (!entry.identity.is_empty()).then_some(entry)
    }

    fn was_made_to(&self, port: &Published) -> bool {
        self.original.protocol == Some(port.protocol.number())
            && self.original.destination_port == Some(port.port)
            && port.host_address.is_none_or(|address| self.original.destination == Some(address))
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Self {
        let mut tuple = Self::default();
        for (kind, value) in Attributes(bytes) {
            for (part, value) in Attributes(value) {
                match (kind, part) {
                    (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => tuple.source = ip(value),
                    (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => tuple.destination = ip(value),
                    (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => tuple.protocol = value.first().copied(),
                    (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => {
                        tuple.source_port = value.try_into().ok().map(u16::from_be_bytes);
                    }
                    (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                        tuple.destination_port = value.try_into().ok().map(u16::from_be_bytes);
                    }
                    _ => {}
                }
            }
        }
        tuple
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A socket to the connection tracker.
struct Conntrack {
    socket: Socket,
    sequence: u32,
}

/// The kernel's refusal, with its own words where it gave them.
#[derive(Debug)]
struct Refusal {
    source: io::Error,
    detail: Option<String>,
}

impl Refusal {
    fn is(&self, codes: &[Errno]) -> bool {
        Errno::from_io_error(&self.source).is_some_and(|code| codes.contains(&code))
    }

    fn error(self, object: String) -> Error {
        Error::Kernel { operation: "forget", object, source: self.source, detail: self.detail }
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { source, detail: None }
    }
}

impl Conntrack {
    /// None when the kernel has no netfilter netlink at all.
    fn open() -> Result<Option<Self>, Refusal> {
        match Socket::new(NETLINK_NETFILTER) {
            Ok(socket) => {
                socket.set_ext_ack(true)?;
                socket.set_cap_ack(true)?;
                Ok(Some(Self { socket, sequence: 0 }))
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends one request and hands back the attributes of every answer.
    fn exchange(&mut self, kind: u16, flags: u16, v6: bool, attributes: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        self.sequence += 1;
        let length = NLMSG_HEADER + NFGEN_HEADER + attributes.len();
        let mut request = Vec::with_capacity(length);
        request.extend(u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend([if v6 { AF_INET6 } else { AF_INET }, 0, 0, 0]);
        request.extend(attributes);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in (Messages(&datagram)).filter(|message| message.sequence == self.sequence) {
                match message.kind {
                    NLMSG_ERROR => return message.outcome(NLMSG_HEADER).map(|()| answers),
                    NLMSG_DONE => return message.outcome(0).map(|()| answers),
                    _ => answers.extend(message.body.get(NFGEN_HEADER..).map(<[u8]>::to_vec)),
                }
            }
        }
    }
}

/// A netlink message.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// What an error or the end of a dump says: a code, `skip` bytes, and perhaps more words.
    fn outcome(&self, skip: usize) -> Result<(), Refusal> {
        let code = self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        if code >= 0 {
            return Ok(());
        }
        let words = self.body.get(4 + skip..).filter(|_| skip == 0 || self.flags & NLM_F_ACK_TLVS != 0);
        Err(Refusal { source: io::Error::from_raw_os_error(-code), detail: words.and_then(extack::message) })
    }
}

/// The messages of a datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<NLMSG_HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = self.0.get(NLMSG_HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes in a run of bytes, by type.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Nothing here comes near the 64 KiB an attribute can hold.
    let length = (4 + value.len()) as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
