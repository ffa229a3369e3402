//! A netlink socket that asks. The kernel does what it is asked within `send`, and its answer, or the
//! first part of it, can be received as soon as that returns: nothing is waited for, and an event loop
//! would only add to the work.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::extack::{self, NETLINK_HEADER_LEN};
use super::rtnl::Refusal;

/// How long an answer that is already there may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel sends listings in pieces of at most 32 KiB (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 << 10;

/// How many requests go in one call: if all of them are refused, the refusals still fit into what a
/// socket may receive (`net.core.rmem_default`; a refusal counts for about 1 KiB).
pub(super) const AT_ONCE: usize = 64;

/// How often a listing is started over because it changed while it was read.
const LISTING_ATTEMPTS: u32 = 8;

/// `NLMSG_ERROR` and `NLMSG_DONE` (linux/netlink.h).
const CODES: [u16; 2] = [2, 3];

/// A socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl Requests {
    /// Opens a socket to the netlink family `protocol` (`NETLINK_*`).
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// From now on a listing holds what was asked for only, where the kernel can do that.
    pub(super) fn ask_strictly(&mut self) {
        let _ = self.socket.set_netlink_get_strict_chk(true);
    }

    /// Has the kernel carry out `requests`, at most [`AT_ONCE`], one after the other whatever
    /// becomes of each. Gives back those that were refused, by their place and in order.
    ///
    /// # Errors
    /// When it is not known what became of them.
    pub(super) fn carry_out(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<(usize, Refusal)>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(requests.iter().map(Vec::len).sum());
        for (place, request) in requests.iter().enumerate() {
            // A refusal is sent in any case; that the last one is answered shows that all were.
            let flags = if place + 1 == requests.len() { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST };
            self.sequence = self.sequence.wrapping_add(1);
            append(&mut bytes, request, flags, self.sequence);
        }
        let last = self.sequence;
        self.socket.send(&bytes, 0)?;
        let (mut refused, mut done) = (Vec::new(), requests.is_empty());
        while !done {
            self.receive(|answer| {
                let place = answer.sequence.wrapping_sub(first) as usize;
                if place >= requests.len() {
                    return;
                }
                done |= answer.sequence == last;
                if let Some(Err(refusal)) = answer.outcome() {
                    refused.push((place, refusal));
                }
            })?;
        }
        Ok(refused)
    }

    /// Has the kernel carry out one request.
    pub(super) fn change(&mut self, request: &[u8]) -> Result<(), Refusal> {
        match self.carry_out(&[request.to_vec()])?.pop() {
            Some((_, refusal)) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Asks for everything that `request` describes: the messages, headers included.
    pub(super) fn list(&mut self, request: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        for _ in 0..LISTING_ATTEMPTS {
            let (messages, interrupted) = self.collect(request, NLM_F_DUMP)?;
            if !interrupted {
                return Ok(messages);
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Asks for the one thing that `request` describes: its messages, headers included.
    pub(super) fn get(&mut self, request: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        self.collect(request, NLM_F_ACK).map(|(messages, _)| messages)
    }

    fn collect(&mut self, request: &[u8], flags: u16) -> Result<(Vec<Vec<u8>>, bool), Refusal> {
        let mut messages = Vec::new();
        let interrupted = self.ask_with(request, flags, |bytes| messages.push(bytes.to_vec()))?;
        Ok((messages, interrupted))
    }

    /// Has `take` see each message of the answer to `request`, header included. Says whether what was
    /// listed changed meanwhile.
    pub(super) fn ask(&mut self, request: &[u8], take: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        self.ask_with(request, 0, take)
    }

    fn ask_with(&mut self, request: &[u8], flags: u16, mut take: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::with_capacity(request.len());
        append(&mut bytes, request, flags | NLM_F_REQUEST, sequence);
        // An answer is one message unless it says that more follow, or an acknowledgement was asked for.
        let ends_with_itself = flags_of(&bytes) & NLM_F_ACK == 0;
        self.socket.send(&bytes, 0)?;
        let (mut interrupted, mut outcome) = (false, None);
        while outcome.is_none() {
            self.receive(|answer| {
                if answer.sequence != sequence {
                    return;
                }
                interrupted |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.outcome() {
                    Some(said) => outcome = Some(said),
                    None => {
                        take(answer.bytes);
                        if ends_with_itself && answer.flags & NLM_F_MULTIPART == 0 {
                            outcome = Some(Ok(()));
                        }
                    }
                }
            })?;
        }
        outcome.unwrap_or(Ok(())).map(|()| interrupted)
    }

    fn receive(&mut self, mut take: impl FnMut(Answer<'_>)) -> io::Result<()> {
        loop {
            self.received.clear();
            match self.socket.recv(&mut self.received, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Errno::TIMEDOUT.into()),
                Err(error) => return Err(error),
            }
        }
        let mut rest = self.received.as_slice();
        while let Some((answer, after)) = Answer::split(rest) {
            take(answer);
            rest = after;
        }
        Ok(())
    }
}

/// Appends `request` with its flags (beside its own) and number filled in.
fn append(bytes: &mut Vec<u8>, request: &[u8], flags: u16, sequence: u32) {
    let start = bytes.len();
    bytes.extend(request);
    bytes[start + 6..start + 8].copy_from_slice(&(flags_of(request) | flags).to_ne_bytes());
    bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    bytes.resize(start + request.len().next_multiple_of(4), 0);
}

/// The flags in the header of a message (`NLM_F_*`).
fn flags_of(message: &[u8]) -> u16 {
    message.get(6..8).map_or(0, |flags| u16::from_ne_bytes([flags[0], flags[1]]))
}

/// A message from the kernel.
struct Answer<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    bytes: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The first message of `bytes`, and what follows it.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let header: &[u8; NETLINK_HEADER_LEN] = bytes.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < NETLINK_HEADER_LEN {
            return None;
        }
        let answer = Self {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            bytes: bytes.get(..length)?,
        };
        Some((answer, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// What it says became of a request, if it says that.
    fn outcome(&self) -> Option<Result<(), Refusal>> {
        if !CODES.contains(&self.kind) {
            return None;
        }
        let payload = &self.bytes[NETLINK_HEADER_LEN..];
        let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        if code >= 0 {
            return Some(Ok(()));
        }
        let capped = self.flags & NLM_F_CAPPED != 0;
        let detail = payload.get(4..).and_then(|after| extack::attributes(after, capped).and_then(extack::message));
        Some(Err(Refusal::new(io::Error::from_raw_os_error(code.wrapping_neg()), detail)))
    }
}
