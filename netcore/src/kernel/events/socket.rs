//! A socket that only listens.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::{Socket as NetlinkSocket, SocketAddr};
use nftnl_sys::libc;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::io::unix::AsyncFd;

use super::filter::{self, Instruction};
use crate::kernel::extack::NETLINK_HEADER_LEN;

/// Room for what is not read yet. A change of forwarding is one message for each interface, and
/// each takes the better part of a page.
const BUFFER_BYTES: usize = 4 << 20;

/// A notification is at most as large as the kernel's largest buffer for one (`NLMSG_GOODSIZE`, a
/// page or two), unless a single object is larger.
const MESSAGE_BYTES: usize = 64 << 10;

/// Subscribed to groups; must be used on the runtime it was opened on.
#[derive(Debug)]
pub(in crate::kernel) struct Socket {
    netlink: AsyncFd<NetlinkSocket>,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket of `protocol` that has joined `groups`, and is given what passes `filter`; an empty
    /// one lets everything pass.
    pub(in crate::kernel) fn open(protocol: i32, groups: &[u32], filter: &[Instruction]) -> io::Result<Self> {
        let mut netlink = NetlinkSocket::new(protocol as isize)?;
        netlink.set_non_blocking(true)?;
        // Too small a buffer shows as an overflow, after which everything is read.
        if set_socket_recv_buffer_size_force(netlink.as_fd(), BUFFER_BYTES).is_err() {
            let _ = set_socket_recv_buffer_size(netlink.as_fd(), BUFFER_BYTES);
        }
        if !filter.is_empty() {
            filter::attach(netlink.as_fd(), filter)?;
        }
        netlink.bind(&SocketAddr::new(0, 0))?;
        for group in groups {
            netlink.add_membership(*group)?;
        }
        // SAFETY: the socket owns its descriptor, which stays open and the same as long as the socket is
        // there, and that goes only with what is made of it here.
        let netlink = unsafe { AsyncFd::register_with_interest(netlink, tokio::io::Interest::READABLE) }?;
        Ok(Self { netlink, buffer: Vec::with_capacity(MESSAGE_BYTES) })
    }

    /// Waits until there may be something to read.
    pub(in crate::kernel) async fn readable(&self) -> io::Result<()> {
        self.netlink.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Reads all there is, without waiting; says whether there was more than could be kept.
    pub(in crate::kernel) fn drain(&mut self, mut read: impl FnMut(Message<'_>)) -> io::Result<bool> {
        let mut overflowed = false;
        loop {
            self.buffer.clear();
            let mut receive = |netlink: &NetlinkSocket| netlink.recv(&mut self.buffer, libc::MSG_DONTWAIT);
            let mut received = receive(self.netlink.get_ref());
            if received.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                // The runtime, which does not know of what has come since it last waited, is told that there is no more.
                received = self.netlink.try_io(tokio::io::Interest::READABLE, receive);
            }
            match received {
                Ok(_) => Message::each(&self.buffer, &mut read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(overflowed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overflowed = true,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A notification (`struct nlmsghdr` and what follows it).
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Message<'a> {
    /// What happened.
    pub(in crate::kernel) kind: u16,
    /// The port of the socket by which it was asked for; 0 where the kernel does not say.
    pub(super) port: u32,
    /// What follows the header.
    pub(in crate::kernel) body: &'a [u8],
    /// All of it.
    pub(in crate::kernel) bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one after the other.
    pub(in crate::kernel) fn each(mut bytes: &'a [u8], read: &mut impl FnMut(Self)) {
        while let Some(header) = bytes.first_chunk::<NETLINK_HEADER_LEN>() {
            let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let length = word(0) as usize;
            let Some(body) = bytes.get(NETLINK_HEADER_LEN..length) else { return };
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            read(Message { kind, port: word(12), body, bytes: &bytes[..length] });
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
