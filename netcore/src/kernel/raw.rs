//! Attributes of netlink messages (`struct nlattr`, linux/netlink.h), read where they lie. Most of
//! what the kernel lists or tells is of no interest: to decode all of it into values takes longer
//! than the kernel takes to send it.

/// The two top bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// The attributes in `bytes`: their types, without flags, and values. One that is cut off ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = bytes.get(4..length)?;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute `kind` in `bytes`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A value that is text, up to the byte 0 that ends it.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// The number at `offset`, in the host's byte order.
pub(super) fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|number| u32::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_ends_the_attributes() {
        let mut bytes = [6_u16.to_ne_bytes(), (0x8000_u16 | 3).to_ne_bytes()].concat();
        bytes.extend(b"a\0\0\0");
        bytes.extend([8_u16.to_ne_bytes(), 5_u16.to_ne_bytes()].concat());
        bytes.extend(7_u32.to_ne_bytes());
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(3, &b"a\0"[..]), (5, &7_u32.to_ne_bytes()[..])]);
        assert_eq!((attribute(&bytes, 3).and_then(text), attribute(&bytes, 4)), (Some("a"), None));
        assert_eq!(attribute(&bytes, 5).and_then(|value| number(value, 0)), Some(7));
        for length in 0..bytes.len() {
            assert!(attributes(&bytes[..length]).count() < 2);
        }
        // A length below that of the header.
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!((number(&bytes, 13), number(&bytes, 99)), (None, None));
    }
}
