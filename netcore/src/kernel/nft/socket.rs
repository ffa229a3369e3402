//! The conversation with nf_tables: questions, listings and transactions over a blocking
//! `NETLINK_NETFILTER` socket (linux/netfilter/nfnetlink.h).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::{Socket as NetlinkSocket, SocketAddr, protocols::NETLINK_NETFILTER};
use nftnl::NlMsg;
use nftnl_sys::libc;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};

use super::TABLE_NAME;
use super::sys;
use crate::error::{Error, Result};
use crate::kernel::extack::{self, NETLINK_HEADER_LEN};

/// What a request does; the low byte of its type (`NFT_MSG_*`, linux/netfilter/nf_tables.h).
pub(super) type Verb = libc::c_int;

/// The kernel's refusal of one message: its error code and, where it gave one, its explanation.
#[derive(Debug)]
pub(super) struct Refused {
    source: io::Error,
    detail: Option<String>,
}

impl Refused {
    pub(super) fn is(&self, code: i32) -> bool {
        self.source.raw_os_error() == Some(code)
    }

    pub(super) fn into_error(self, operation: &'static str, object: impl Into<String>) -> Error {
        Error::Kernel { operation, object: object.into(), source: self.source, detail: self.detail }
    }
}

/// What comes back to a question: a message, or a refusal.
pub(super) type Answer = Result<Vec<u8>, Refused>;

/// How a transaction ended, if it came to it.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// The rule set is not of the generation that the transaction was made for: nothing was done.
    Outdated,
    /// At least one message was refused: nothing was done. Which of them, by their order, and why.
    Refused(Vec<(usize, Refused)>),
}

/// Messages on their way to the kernel.
pub(super) struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), starts: Vec::new() }
    }

    /// Adds `message` as a request to do `verb`.
    pub(super) fn add(&mut self, verb: Verb, flags: u16, message: &impl NlMsg) {
        let start = self.bytes.len();
        sys::serialize(message, |bytes| self.bytes.extend(bytes));
        self.starts.push(start);
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | verb) as u16;
        self.write(start + 4, &kind.to_ne_bytes());
        self.write(start + 6, &(flags | NLM_F_REQUEST).to_ne_bytes());
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Numbers the messages from `first` on.
    fn number(&mut self, first: u32) -> Numbered {
        for place in 0..self.len() {
            self.write(self.starts[place] + 8, &first.wrapping_add(place as u32).to_ne_bytes());
        }
        Numbered { first, count: self.len() }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The sequence numbers of some messages.
#[derive(Clone, Copy)]
struct Numbered {
    first: u32,
    count: usize,
}

impl Numbered {
    /// The place of the message with this number, if it is one of these.
    fn place(self, sequence: u32) -> Option<usize> {
        let place = sequence.wrapping_sub(self.first) as usize;
        (place < self.count).then_some(place)
    }

    fn next(self) -> u32 {
        self.first.wrapping_add(self.count as u32)
    }
}

/// A socket to nf_tables in the network namespace it was opened in.
pub(super) struct Socket {
    netlink: NetlinkSocket,
    next_sequence: Cell<u32>,
    received: RefCell<Vec<u8>>,
}

/// How often something is tried again that somebody else's transaction got in the way of. Each
/// time, that one succeeded, so nothing stands still.
pub(super) const ATTEMPTS: u32 = 1000;
/// The kernel queues every answer before it takes the next question, and drops those that do not
/// fit into the receive buffer, where an answer takes a page or more.
const QUESTIONS_AT_ONCE: usize = 32;
/// The kernel sends listings in pieces of at most 32 KiB (`netlink_dump`); larger single
/// messages do not occur in our table.
const RECEIVE_BYTES: usize = 64 << 10;
/// What every socket can send without asking for more (half of the usual `net.core.wmem_default`).
const ORDINARY_SEND_BYTES: usize = 96 << 10;

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let mut netlink = NetlinkSocket::new(NETLINK_NETFILTER)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        netlink.set_ext_ack(true)?;
        netlink.set_cap_ack(true)?;
        Ok(Self { netlink, next_sequence: Cell::new(1), received: RefCell::new(Vec::with_capacity(RECEIVE_BYTES)) })
    }

    /// The port that the kernel knows this socket by.
    pub(super) fn port(&self) -> Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.netlink.get_address(&mut address).map_err(unreadable)?;
        Ok(address.port_number())
    }

    pub(super) fn namespace_cookie(&self) -> Option<u64> {
        sys::namespace_cookie(self.netlink.as_fd())
    }

    /// Asks `questions`, each of which has exactly one answer; the answers are in the same order.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer.
    pub(super) fn ask(&self, mut questions: Messages) -> Result<Vec<Answer>> {
        let numbers = questions.number(self.next_sequence.get());
        self.next_sequence.set(numbers.next());
        let mut answers: Vec<_> = (0..questions.len()).map(|_| None).collect();
        for first in (0..questions.len()).step_by(QUESTIONS_AT_ONCE) {
            let end = (first + QUESTIONS_AT_ONCE).min(questions.len());
            let until = questions.starts.get(end).copied().unwrap_or(questions.bytes.len());
            self.netlink.send(&questions.bytes[questions.starts[first]..until], 0).map_err(unreadable)?;
            while answers[first..end].iter().any(Option::is_none) {
                self.receive(0, |received| {
                    if let Some(place) = numbers.place(received.sequence) {
                        answers[place] = Some(received.content().map(<[u8]>::to_vec));
                    }
                })
                .map_err(unreadable)?;
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks for a listing by `question`; one of what is not there is empty.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel refuses to tell, [`Error::Busy`] when what is listed
    /// keeps changing.
    pub(super) fn list(&self, verb: Verb, question: &impl NlMsg) -> Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            if let Some(listing) = self.try_list(verb, question)? {
                return Ok(present(listing)?.unwrap_or_default());
            }
        }
        Err(Error::Busy { object: TABLE_NAME.to_owned(), attempts: ATTEMPTS })
    }

    /// A listing, a refusal, or nothing when it changed while it was read.
    fn try_list(&self, verb: Verb, question: &impl NlMsg) -> Result<Option<Result<Vec<Vec<u8>>, Refused>>> {
        let mut messages = Messages::new();
        messages.add(verb, NLM_F_DUMP, question);
        let numbers = messages.number(self.next_sequence.get());
        self.next_sequence.set(numbers.next());
        self.netlink.send(&messages.bytes, 0).map_err(unreadable)?;
        let (mut listing, mut refused, mut interrupted, mut done) = (Vec::new(), None, false, false);
        while !done {
            self.receive(0, |received| {
                if numbers.place(received.sequence).is_none() {
                    return;
                }
                interrupted |= received.flags & NLM_F_DUMP_INTR != 0;
                done |= received.is_code();
                match received.content() {
                    Ok(message) => listing.push(message.to_vec()),
                    Err(code) if code.is(0) => {}
                    Err(code) => refused = Some(code),
                }
            })
            .map_err(unreadable)?;
        }
        Ok(if interrupted { None } else { Some(refused.map_or(Ok(listing), Err)) })
    }

    /// Does all of `changes` or nothing, as one transaction; if a `generation` is given, only
    /// while the rule set is of that generation.
    ///
    /// # Errors
    /// [`Error::Kernel`] when it was not even tried.
    pub(super) fn commit(&self, changes: &mut Messages, generation: Option<u32>) -> Result<Outcome> {
        self.try_commit(changes, generation)
            .map_err(|source| Refused { source, detail: None }.into_error("change", TABLE_NAME))
    }

    fn try_commit(&self, changes: &mut Messages, generation: Option<u32>) -> io::Result<Outcome> {
        let begin = self.next_sequence.get();
        let numbers = changes.number(begin.wrapping_add(1));
        let end = numbers.next();
        self.next_sequence.set(end.wrapping_add(1));
        let mut bytes = frame(libc::NFNL_MSG_BATCH_BEGIN, begin, generation);
        bytes.extend(&changes.bytes);
        bytes.extend(frame(libc::NFNL_MSG_BATCH_END, end, None));
        if bytes.len() > ORDINARY_SEND_BYTES {
            self.make_room(bytes.len());
        }
        self.netlink.send(&bytes, 0)?;
        // The kernel has done everything when `send` returns, and answers only what it refuses.
        let (mut refusals, mut outdated, mut failed) = (Vec::new(), false, None);
        loop {
            let received = self.receive(libc::MSG_DONTWAIT, |received| {
                let (sequence, place) = (received.sequence, numbers.place(received.sequence));
                let Err(refused) = received.content() else { return };
                match place {
                    _ if refused.is(0) => {}
                    Some(place) => refusals.push((place, refused)),
                    None if sequence != begin && sequence != end => {}
                    None if refused.is(libc::ERESTART) => outdated = true,
                    None => failed = Some(refused.source),
                }
            });
            match received {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // More refusals than fit: those that did are still to be read.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        match failed {
            _ if outdated => Ok(Outcome::Outdated),
            _ if !refusals.is_empty() => Ok(Outcome::Refused(refusals)),
            Some(error) => Err(error),
            None => Ok(Outcome::Done),
        }
    }

    /// Asks for a send buffer of `bytes`, beyond the host's limit where we may.
    fn make_room(&self, bytes: usize) {
        // A buffer that stays too small shows as EMSGSIZE when the message is sent.
        if set_socket_send_buffer_size_force(&self.netlink, bytes + 4096).is_err() {
            let _ = set_socket_send_buffer_size(&self.netlink, bytes + 4096);
        }
    }

    /// Waits for the kernel, unless `flags` says not to, and hands over what it sent.
    fn receive(&self, flags: libc::c_int, mut take: impl FnMut(Received<'_>)) -> io::Result<()> {
        let mut buffer = self.received.borrow_mut();
        buffer.clear();
        loop {
            match self.netlink.recv(&mut *buffer, flags) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut rest = buffer.as_slice();
        while let Some((message, after)) = Received::split(rest) {
            take(message);
            rest = after;
        }
        Ok(())
    }
}

/// A message from the kernel.
struct Received<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    bytes: &'a [u8],
}

impl<'a> Received<'a> {
    /// The first message of `bytes`, and what follows it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let header: &[u8; NETLINK_HEADER_LEN] = bytes.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < NETLINK_HEADER_LEN {
            return None;
        }
        let message = Self {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            bytes: bytes.get(..length)?,
        };
        Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// Whether this is a code: an error, an acknowledgement, or the end of a listing.
    fn is_code(&self) -> bool {
        [libc::NLMSG_ERROR, libc::NLMSG_DONE].contains(&self.kind.into())
    }

    /// The message, or the code it brings; 0 is no error.
    fn content(self) -> Result<&'a [u8], Refused> {
        if !self.is_code() {
            return Ok(self.bytes);
        }
        let payload = &self.bytes[NETLINK_HEADER_LEN..];
        let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        let capped = self.flags & NLM_F_CAPPED != 0;
        let detail = payload.get(4..).and_then(|after| extack::attributes(after, capped).and_then(extack::message));
        Err(Refused { source: io::Error::from_raw_os_error(code.wrapping_neg()), detail })
    }
}

/// An answer, or nothing for what is not there.
pub(super) fn present<T>(answer: Result<T, Refused>) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(refused) if refused.is(libc::ENOENT) => Ok(None),
        Err(refused) => Err(refused.into_error("read", TABLE_NAME)),
    }
}

fn unreadable(source: io::Error) -> Error {
    Refused { source, detail: None }.into_error("read", TABLE_NAME)
}

/// One of the two messages around a transaction (`struct nfgenmsg` with the subsystem as its
/// `res_id`), with the generation as its only attribute.
fn frame(kind: libc::c_int, sequence: u32, generation: Option<u32>) -> Vec<u8> {
    const NFNL_BATCH_GENID: u16 = 1;
    let length = NETLINK_HEADER_LEN as u32 + 4 + if generation.is_some() { 8 } else { 0 };
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8]);
    bytes.extend((libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes());
    if let Some(generation) = generation {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(NFNL_BATCH_GENID.to_ne_bytes());
        bytes.extend(generation.to_be_bytes());
    }
    bytes
}
