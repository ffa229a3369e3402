//! Frames as nobody honest would send them, made by hand and sent past the container's own kernel.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::traffic::Place;

/// How long a frame that was sent may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// Six bytes of an Ethernet address.
pub type MacBytes = [u8; 6];

/// To everybody.
pub const BROADCAST: MacBytes = [0xff; 6];

/// An interface whose frames are sent and heard as they are.
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens `interface` where `place` is.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn open(place: &impl Place, interface: &str) -> Self {
        let name = CString::new(interface).expect("a name without NUL");
        place.place().enter(|| Self::bound(&name)).unwrap_or_else(|error| panic!("listen on {interface}: {error}"))
    }

    fn bound(name: &CString) -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: `socket` has no memory to get wrong; the descriptor is checked, and nobody else's.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into());
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        // SAFETY: the name ends in NUL; the address is of the kind and size that is said, and all
        // of its bytes may be zero.
        let bound = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let length = size_of::<libc::sockaddr_ll>() as u32;
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let tick = Some(Duration::from_millis(50));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, tick)?;
        Ok(Self(socket))
    }

    /// Sends `frame`.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn send(&self, frame: &[u8]) {
        let sent = rustix::net::send(&self.0, frame, rustix::net::SendFlags::empty());
        assert_eq!(sent.expect("send a frame"), frame.len());
    }

    /// Waits for `frame`, and says which of `others` came before it.
    ///
    /// # Panics
    /// When `frame` does not come.
    #[track_caller]
    pub fn heard_before<'a>(&self, frame: &[u8], others: &'a [Vec<u8>]) -> Vec<&'a Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let mut bytes = [0; 2048];
            let Ok((length, _)) = rustix::net::recv(&self.0, &mut bytes[..], rustix::net::RecvFlags::empty()) else {
                continue;
            };
            let arrived = &bytes[..length];
            // The kernel may fill up short frames.
            if arrived.starts_with(frame) {
                return heard;
            }
            heard.extend(others.iter().find(|other| arrived.starts_with(other)));
        }
        panic!("an honest frame did not arrive within {PATIENCE:?}: {frame:02x?}");
    }
}

/// What passes by an interface, in both directions, from when it is made.
pub struct Recorder {
    over: Arc<AtomicBool>,
    heard: JoinHandle<Vec<Vec<u8>>>,
}

impl Recorder {
    /// Listens at `interface` where `place` is.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn start(place: &impl Place, interface: &str) -> Self {
        let wire = Wire::open(place, interface);
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let listen = move || {
            let (mut heard, mut bytes) = (Vec::new(), vec![0; 1 << 17]);
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((length, _)) = rustix::net::recv(&wire.0, &mut bytes[..], rustix::net::RecvFlags::empty()) {
                    heard.push(bytes[..length].to_vec());
                }
            }
            heard
        };
        Self { over, heard: std::thread::spawn(listen) }
    }

    /// The frames that have passed.
    ///
    /// # Panics
    /// When the listener did.
    #[must_use]
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.over.store(true, Ordering::Relaxed);
        self.heard.join().expect("the listener")
    }
}

/// An Ethernet frame; `kind` says what it carries.
#[must_use]
pub fn ethernet(from: MacBytes, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&BROADCAST[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// Who has `target`? (RFC 826), from `from` by Ethernet, in the name of `sender` and `address`.
#[must_use]
pub fn arp(from: MacBytes, sender: MacBytes, address: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let asks = [0, 1, 8, 0, 6, 4, 0, 1];
    let payload = [&asks[..], &sender, &address.octets(), &[0; 6], &target.octets()].concat();
    ethernet(from, 0x0806, &payload)
}

/// A UDP packet between two ports.
#[must_use]
pub fn ipv4_udp(from: MacBytes, source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut header = [&[0x45, 0][..], &(length + 20).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], text].concat();
    ethernet(from, 0x0800, &[header, udp].concat())
}

/// An ICMPv6 message about `target`: of neighbour discovery (RFC 4861) if `kind` is 135 or 136.
#[must_use]
pub fn icmp6(from: MacBytes, source: Ipv6Addr, kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let destination: Ipv6Addr = [0xff02, 0, 0, 0, 0, 0, 0, 1].into();
    let mut message = [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets()].concat();
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, 0, 0, 24, 0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, 24, 58, 255][..], &source.octets(), &destination.octets()].concat();
    ethernet(from, 0x86dd, &[header, message].concat())
}

/// `frame` under another 802.1Q tag.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
