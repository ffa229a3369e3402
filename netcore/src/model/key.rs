//! The keys by which encrypted nodes know each other (X25519, RFC 7748).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// An X25519 public key (RFC 7748), written as WireGuard's tools do: 44 characters of base64
/// (RFC 4648, section 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

/// The text was not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a public key: 44 characters, as `netctl overlay key` prints them")]
pub struct InvalidKey(pub String);

/// The private half. It is neither shown nor serialized; only [`PrivateKey::to_secret_text`] tells it.
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// The key that `random` bytes make, of which every bit has to be.
    #[must_use]
    pub fn from_random(mut random: [u8; 32]) -> Self {
        // RFC 7748, section 5; WireGuard's tools keep keys in this form.
        random[0] &= 248;
        random[31] = random[31] & 127 | 64;
        Self(random)
    }

    /// The key that `text` tells, as WireGuard's tools write it.
    #[must_use]
    pub fn from_secret_text(text: &str) -> Option<Self> {
        decode(text.trim_end()).map(Self::from_random)
    }

    /// The key as WireGuard's tools write it.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        encode(&self.0)
    }

    /// The key as the kernel takes it.
    #[must_use]
    pub fn secret_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519(self.0, X25519_BASEPOINT_BYTES))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 32 bytes as base64.
fn encode(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(44);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text.push('=');
    text
}

/// The 32 bytes that `text` is the base64 of.
fn decode(text: &str) -> Option<[u8; 32]> {
    let text = text.strip_suffix('=').filter(|text| text.len() == 43)?;
    let mut bytes = Vec::with_capacity(32);
    let (mut word, mut bits) = (0_u32, 0);
    for character in text.bytes() {
        let digit = ALPHABET.iter().position(|letter| *letter == character)?;
        word = word << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    // What is left over is part of no byte, and zero in what `encode` writes.
    if word != 0 {
        return None;
    }
    bytes.try_into().ok()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self).ok_or_else(|| InvalidKey(text.to_owned()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for key in [[0; 32], [255; 32], std::array::from_fn(|place| place as u8 * 7)] {
            assert_eq!(PublicKey(key).to_string().parse(), Ok(PublicKey(key)));
        }
        let known = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(known.parse::<PublicKey>().unwrap().to_string(), known);
    }

    #[test]
    fn a_private_key_has_its_public_one() {
        // RFC 7748, section 5.2: the first step of the iterated vector is a private key of 9.
        let key = PrivateKey::from_random(std::array::from_fn(|place| if place == 0 { 9 } else { 0 }));
        let public: String = key.public().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(public, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
        let again = PrivateKey::from_secret_text(&format!("{}\n", key.to_secret_text())).unwrap();
        assert_eq!(again.public(), key.public());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm==";
        let stray = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=";
        for bad in ["", "abc", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", cut, stray, &"!".repeat(43)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad:?} was accepted");
        }
    }
}
