//! Ethernet addresses (IEEE 802, EUI-48).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit Ethernet address, written `0a:58:0a:14:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The text was not an Ethernet address a link can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a unicast MAC address like \"0a:58:0a:14:00:02\"")]
pub struct InvalidMac(pub String);

impl Mac {
    /// The address a container interface gets for its first IP address, so that an address that
    /// is given out again keeps its neighbours valid: `0a:58` and the four bytes of an IPv4
    /// address, or of a hash of an IPv6 one. `0a` is locally administered and unicast.
    #[must_use]
    pub fn for_address(address: IpAddr) -> Self {
        let tail = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => (super::fingerprint(&v6.octets()) as u32).to_be_bytes(),
        };
        Self([0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]])
    }

    /// The address of an interface that has no IP address to take one after: `0a:58` and four
    /// bytes of a hash of `identity`.
    #[must_use]
    pub fn for_identity(identity: &str) -> Self {
        let tail = (super::fingerprint(identity.as_bytes()) as u32).to_be_bytes();
        Self([0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]])
    }

    /// Whether a single interface can have this address: not multicast, not all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let refused = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
                .ok_or_else(refused)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refused())?;
        }
        let mac = Self(bytes);
        if parts.next().is_some() || !mac.is_unicast() {
            return Err(refused());
        }
        Ok(mac)
    }
}

impl TryFrom<String> for Mac {
    type Error = InvalidMac;
    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        assert_eq!("0A:58:0a:14:00:02".parse::<Mac>().unwrap().to_string(), "0a:58:0a:14:00:02");
        for bad in ["", "0a:58", "01:00:5e:00:00:01", "00:00:00:00:00:00", "0a:58:0a:14:00:02:03", "0a:58:0a:14:00:+2"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_address_always_gets_the_same_mac() {
        let v4 = "10.20.0.2".parse().unwrap();
        assert_eq!(Mac::for_address(v4).to_string(), "0a:58:0a:14:00:02");
        let v6 = "fd00::2".parse().unwrap();
        assert_eq!(Mac::for_address(v6), Mac::for_address(v6));
        assert!(Mac::for_address(v6).is_unicast());
    }
}
