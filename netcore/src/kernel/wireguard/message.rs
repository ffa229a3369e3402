//! WireGuard's messages (linux/wireguard.h, linux/genetlink.h): attributes behind a small header.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnetwork::IpNetwork;

use super::super::extack::NETLINK_HEADER_LEN;
use crate::model::{InterfaceName, PrivateKey, PublicKey, WireguardPeer};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `WG_GENL_NAME`, `WG_GENL_VERSION` and the commands.
const NAME: &str = "wireguard";
const VERSION: u8 = 1;
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

/// `enum wgdevice_attribute`.
mod device {
    pub(super) const IFNAME: u16 = 2;
    pub(super) const PRIVATE_KEY: u16 = 3;
    pub(super) const PUBLIC_KEY: u16 = 4;
    pub(super) const LISTEN_PORT: u16 = 6;
    pub(super) const PEERS: u16 = 8;
}

/// `enum wgpeer_attribute` and `enum wgpeer_flag`.
mod peer {
    pub(super) const PUBLIC_KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const ENDPOINT: u16 = 4;
    pub(super) const KEEPALIVE_INTERVAL: u16 = 5;
    pub(super) const LAST_HANDSHAKE_TIME: u16 = 6;
    pub(super) const ALLOWEDIPS: u16 = 9;
    pub(super) const REMOVE_ME: u32 = 1;
    pub(super) const REPLACE_ALLOWEDIPS: u32 = 2;
    pub(super) const UPDATE_ONLY: u32 = 4;
}

/// `enum wgallowedip_attribute`.
mod allowed {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const IPADDR: u16 = 2;
    pub(super) const CIDR_MASK: u16 = 3;
}

/// `AF_INET` and `AF_INET6`.
const INET: u16 = 2;
const INET6: u16 = 10;

/// `struct genlmsghdr`.
const GENERIC_HEADER_LEN: usize = 4;

/// `NLA_F_NESTED`; together with `NLA_F_NET_BYTEORDER` it is no part of an attribute's type.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// How long a session may be used after its handshake (`REJECT_AFTER_TIME` of WireGuard's protocol).
const SESSION: Duration = Duration::from_secs(180);

/// A message, or the attributes of one.
struct Writer(Vec<u8>);

impl Writer {
    fn message(kind: u16, command: u8, version: u8) -> Self {
        let mut bytes = vec![0; NETLINK_HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend([command, version, 0, 0]);
        Self(bytes)
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn put_text(&mut self, kind: u16, text: &str) {
        self.put(kind, &[text.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The request for the number that WireGuard's messages go by.
pub(super) fn find_family() -> Vec<u8> {
    let mut message = Writer::message(CONTROLLER, GET_FAMILY, 1);
    message.put_text(FAMILY_NAME, NAME);
    message.finish()
}

/// That number, out of the answer.
pub(super) fn family(answer: &[u8]) -> Option<Family> {
    let id = attributes(body(answer)).find(|(kind, _)| *kind == FAMILY_ID)?.1;
    Some(Family(u16::from_ne_bytes(id.try_into().ok()?)))
}

/// The number that WireGuard's messages go by.
pub(super) struct Family(u16);

impl Family {
    pub(super) fn get_device(&self, name: &InterfaceName) -> Vec<u8> {
        self.about(GET_DEVICE, name).finish()
    }

    pub(super) fn configure(&self, name: &InterfaceName, key: &PrivateKey, port: u16) -> Vec<u8> {
        let mut message = self.about(SET_DEVICE, name);
        message.put(device::PRIVATE_KEY, key.secret_bytes());
        message.put(device::LISTEN_PORT, &port.to_ne_bytes());
        message.finish()
    }

    /// Makes `peers` what they are said to be, and [greets](Self::greet) them.
    pub(super) fn set_peers(&self, name: &InterfaceName, peers: &[&WireguardPeer]) -> Vec<u8> {
        let mut message = self.about(SET_DEVICE, name);
        message.nest(device::PEERS, |message| {
            each(message, peers, Self::describe);
            greet(message, peers);
        });
        message.finish()
    }

    /// Has handshakes made with those of `peers` with whom there is no session. They may have one with
    /// us that we have lost, and use it for another 15 seconds before they try anew.
    pub(super) fn greet(&self, name: &InterfaceName, peers: &[&WireguardPeer]) -> Vec<u8> {
        let mut message = self.about(SET_DEVICE, name);
        message.nest(device::PEERS, |message| greet(message, peers));
        message.finish()
    }

    pub(super) fn remove_peers(&self, name: &InterfaceName, peers: &[&WireguardPeer]) -> Vec<u8> {
        let mut message = self.about(SET_DEVICE, name);
        let remove = |message: &mut Writer, _: &WireguardPeer| {
            message.put(peer::FLAGS, &peer::REMOVE_ME.to_ne_bytes());
        };
        message.nest(device::PEERS, |message| each(message, peers, remove));
        message.finish()
    }

    fn describe(message: &mut Writer, peer: &WireguardPeer) {
        message.put(peer::FLAGS, &peer::REPLACE_ALLOWEDIPS.to_ne_bytes());
        if let Some(endpoint) = peer.endpoint {
            message.put(peer::ENDPOINT, &socket_address(endpoint));
        }
        message.nest(peer::ALLOWEDIPS, |message| {
            for (place, range) in peer.allowed.iter().enumerate() {
                message.nest(place as u16, |message| {
                    let (family, address) = match range.network() {
                        IpAddr::V4(v4) => (INET, v4.octets().to_vec()),
                        IpAddr::V6(v6) => (INET6, v6.octets().to_vec()),
                    };
                    message.put(allowed::FAMILY, &family.to_ne_bytes());
                    message.put(allowed::IPADDR, &address);
                    message.put(allowed::CIDR_MASK, &[range.prefix()]);
                });
            }
        });
    }

    fn about(&self, command: u8, name: &InterfaceName) -> Writer {
        let mut message = Writer::message(self.0, command, VERSION);
        message.put_text(device::IFNAME, name.as_str());
        message
    }
}

/// Says of each of `peers` what `say` says.
fn each(message: &mut Writer, peers: &[&WireguardPeer], say: impl Fn(&mut Writer, &WireguardPeer)) {
    for peer in peers {
        // An array: the place is of no account.
        message.nest(0, |message| {
            message.put(peer::PUBLIC_KEY, &peer.key.0);
            say(message, peer);
        });
    }
}

/// Keepalive is switched on, at which the first is sent at once, and off again.
fn greet(message: &mut Writer, peers: &[&WireguardPeer]) {
    for interval in [1_u16, 0] {
        each(message, peers, |message, _| {
            message.put(peer::FLAGS, &peer::UPDATE_ONLY.to_ne_bytes());
            message.put(peer::KEEPALIVE_INTERVAL, &interval.to_ne_bytes());
        });
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(endpoint: SocketAddr) -> Vec<u8> {
    let port = endpoint.port().to_be_bytes();
    match endpoint.ip() {
        IpAddr::V4(v4) => [&INET.to_ne_bytes()[..], &port, &v4.octets(), &[0; 8]].concat(),
        IpAddr::V6(v6) => [&INET6.to_ne_bytes()[..], &port, &[0; 4], &v6.octets(), &[0; 4]].concat(),
    }
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address = match u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) {
        INET => IpAddr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?),
        INET6 => IpAddr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// An interface as the kernel reports it.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) port: u16,
    pub(super) key: Option<PublicKey>,
    pub(super) peers: Vec<Present>,
}

/// A peer as the kernel reports it.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) key: PublicKey,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) allowed: Vec<IpNetwork>,
    /// When it last proved who it is, since the epoch.
    handshake: Duration,
}

impl Present {
    /// Whether it has proved who it is within the life of a session.
    pub(super) fn was_heard(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // After a jump of the clock into the past, handshakes are in the future.
        !self.handshake.is_zero() && now.abs_diff(self.handshake) < SESSION
    }
}

impl Device {
    /// The interface that `answers` describe: many peers take several, and a peer with many addresses
    /// may be at the end of one and at the beginning of the next.
    pub(super) fn from_answers(answers: &[Vec<u8>]) -> Self {
        let mut found = Self::default();
        for (kind, value) in answers.iter().flat_map(|answer| attributes(body(answer))) {
            match kind {
                device::PUBLIC_KEY => found.key = value.try_into().ok().map(PublicKey),
                device::LISTEN_PORT => found.port = value.try_into().map_or(0, u16::from_ne_bytes),
                device::PEERS => {
                    for peer in attributes(value).filter_map(|(_, peer)| Present::read(peer)) {
                        match found.peers.last_mut() {
                            Some(last) if last.key == peer.key => last.allowed.extend(peer.allowed),
                            _ => found.peers.push(peer),
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

impl Present {
    fn read(bytes: &[u8]) -> Option<Self> {
        let key = attributes(bytes).find(|(kind, _)| *kind == peer::PUBLIC_KEY)?.1;
        let key = PublicKey(key.try_into().ok()?);
        let mut found = Self { key, endpoint: None, allowed: Vec::new(), handshake: Duration::ZERO };
        for (kind, value) in attributes(bytes) {
            match kind {
                peer::ENDPOINT => found.endpoint = read_socket_address(value),
                // `struct __kernel_timespec`
                peer::LAST_HANDSHAKE_TIME => {
                    let seconds = value.first_chunk().map_or(0, |seconds| i64::from_ne_bytes(*seconds));
                    found.handshake = Duration::from_secs(seconds.try_into().unwrap_or_default());
                }
                peer::ALLOWEDIPS => found.allowed.extend(attributes(value).filter_map(|(_, range)| read_range(range))),
                _ => {}
            }
        }
        Some(found)
    }
}

fn read_range(bytes: &[u8]) -> Option<IpNetwork> {
    let (mut address, mut prefix) = (None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            allowed::IPADDR if value.len() == 4 => address = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            allowed::IPADDR => address = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            allowed::CIDR_MASK => prefix = value.first().copied(),
            _ => {}
        }
    }
    IpNetwork::new(address?, prefix?).ok()
}

/// What is behind a message's headers.
fn body(message: &[u8]) -> &[u8] {
    message.get(NETLINK_HEADER_LEN + GENERIC_HEADER_LEN..).unwrap_or_default()
}

/// The attributes in `bytes`, each with its type.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header: &[u8; 4] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> WireguardPeer {
        WireguardPeer {
            place: crate::model::Place::Host,
            link: "wg".parse().unwrap(),
            key: PublicKey([number; 32]),
            endpoint: Some(SocketAddr::new([192, 0, 2, number].into(), 4789)),
            allowed: vec![format!("10.244.{number}.0/24").parse().unwrap(), "fd24:0:0:7::/64".parse().unwrap()],
            heard: false,
        }
    }

    #[test]
    fn peers_are_read_as_they_are_written_and_put_together() {
        let (one, mut two) = (peer(1), peer(2));
        two.endpoint = Some("[2001:db8::2]:51820".parse().unwrap());
        let name = "wg".parse().unwrap();
        let described = |peers: &[&WireguardPeer]| {
            let mut message = Family(30).about(SET_DEVICE, &name);
            message.nest(device::PEERS, |message| each(message, peers, Family::describe));
            message.finish()
        };
        let first = described(&[&one, &two]);
        let rest = WireguardPeer { allowed: vec!["10.9.0.0/16".parse().unwrap()], ..two.clone() };
        let second = described(&[&rest]);
        assert_eq!(first.len(), u32::from_ne_bytes(first[..4].try_into().unwrap()) as usize);
        let device = Device::from_answers(&[first, second]);
        let [first, second] = &device.peers[..] else { panic!("{device:?}") };
        assert_eq!((first.key, first.endpoint, &first.allowed), (one.key, one.endpoint, &one.allowed));
        assert_eq!((second.key, second.endpoint), (two.key, two.endpoint));
        assert_eq!(second.allowed, [two.allowed, rest.allowed].concat());
        assert!(!first.was_heard());
    }

    #[test]
    fn what_was_heard_within_a_session_counts_whatever_the_clock_does() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let heard = |handshake| Present { key: PublicKey([1; 32]), endpoint: None, allowed: Vec::new(), handshake };
        assert!(heard(now).was_heard() && heard(now + Duration::from_secs(60)).was_heard());
        assert!(!heard(Duration::ZERO).was_heard());
        assert!(!heard(now.saturating_sub(SESSION)).was_heard());
    }

    #[test]
    fn garbage_is_no_device() {
        for garbage in [vec![], vec![0; 7], vec![255; 40], vec![0; 60]] {
            assert!(Device::from_answers(&[garbage]).peers.is_empty());
        }
    }
}
