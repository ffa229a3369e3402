//! The packet that is followed: its headers as bytes, as far as they are known.

use std::net::{IpAddr, SocketAddr};

use crate::model::{Mac, Protocol};

/// The first packet of a connection, or the first answer.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The interface it came by; none where it began.
    pub(super) came_by: Option<Wire>,
    /// The interface it leaves by, once that is known.
    pub(super) leaves_by: Option<Wire>,
    pub(super) sender: Option<Mac>,
    pub(super) is_answer: bool,
    /// Whether its connection's destination was translated.
    pub(super) dnat: bool,
    /// Whether its connection's source was.
    pub(super) snat: bool,
}

/// An interface, by the two names rules know it under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) index: u32,
    pub(super) name: String,
}

/// The transport header's length that rules look at.
const TCP_BYTES: usize = 20;

impl Packet {
    /// The first packet from `source` to `destination`.
    pub(super) fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            protocol,
            source,
            destination,
            came_by: None,
            leaves_by: None,
            sender: None,
            is_answer: false,
            dnat: false,
            snat: false,
        }
    }

    /// The answer to this packet as its receiver sends it.
    pub(super) fn answer(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            came_by: None,
            leaves_by: None,
            sender: None,
            is_answer: true,
            ..self.clone()
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// The EtherType.
    pub(super) fn ether_type(&self) -> [u8; 2] {
        if self.is_v6() { [0x86, 0xdd] } else { [0x08, 0x00] }
    }

    /// Bytes of the Ethernet header (IEEE 802.3); `None` for what is not known.
    pub(super) fn frame(&self, offset: usize, length: usize) -> Vec<Option<u8>> {
        let mut header = vec![None; 14];
        if let Some(Mac(mac)) = self.sender {
            header[6..12].copy_from_slice(&mac.map(Some));
        }
        header[12..14].copy_from_slice(&self.ether_type().map(Some));
        cut(&header, offset, length)
    }

    /// Bytes of the IP header (RFC 791, RFC 8200).
    pub(super) fn network(&self, offset: usize, length: usize) -> Vec<Option<u8>> {
        let mut header;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header = vec![None; 20];
                header[0] = Some(0x45);
                // No fragment.
                header[6..8].copy_from_slice(&[Some(0x40), Some(0)]);
                header[9] = Some(self.protocol.number());
                header[12..16].copy_from_slice(&source.octets().map(Some));
                header[16..20].copy_from_slice(&destination.octets().map(Some));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header = vec![None; 40];
                header[6] = Some(self.protocol.number());
                header[8..24].copy_from_slice(&source.octets().map(Some));
                header[24..40].copy_from_slice(&destination.octets().map(Some));
            }
            // Translated half: of what is neither, nothing is known.
            _ => header = Vec::new(),
        }
        cut(&header, offset, length)
    }

    /// Bytes of the transport header: the ports, and for TCP (RFC 9293) the flags.
    pub(super) fn transport(&self, offset: usize, length: usize) -> Vec<Option<u8>> {
        let mut header = vec![None; TCP_BYTES];
        header[0..2].copy_from_slice(&self.source.port().to_be_bytes().map(Some));
        header[2..4].copy_from_slice(&self.destination.port().to_be_bytes().map(Some));
        if self.protocol == Protocol::Tcp {
            // SYN, and with the answer, ACK.
            header[13] = Some(if self.is_answer { 0x12 } else { 0x02 });
        }
        cut(&header, offset, length)
    }
}

fn cut(header: &[Option<u8>], offset: usize, length: usize) -> Vec<Option<u8>> {
    (offset..offset + length).map(|at| header.get(at).copied().flatten()).collect()
}
