//! The kernel's own words on why it refused a netlink request (`NETLINK_EXT_ACK`,
//! linux/netlink.h `enum nlmsgerr_attrs`).

/// `NLMSGERR_ATTR_MSG`: a sentence for humans, NUL-terminated.
const MESSAGE: u16 = 1;

/// The two top bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// `struct nlmsghdr`.
pub(super) const NETLINK_HEADER_LEN: usize = 16;

/// The attributes of an `NLMSG_ERROR` message, of which `after_code` is what follows the error
/// code: the header of the refused request, its body unless the answer is `capped`
/// (`NLM_F_CAPPED`, which a socket asks for with `NETLINK_CAP_ACK`), and the attributes.
pub(super) fn attributes(after_code: &[u8], capped: bool) -> Option<&[u8]> {
    let request = if capped {
        NETLINK_HEADER_LEN
    } else {
        let length = after_code.first_chunk().map(|length| u32::from_ne_bytes(*length))?;
        usize::try_from(length).ok()?.checked_next_multiple_of(4)?
    };
    after_code.get(request..)
}

/// The message among the attributes in `bytes`, if there is one.
pub(super) fn message(mut bytes: &[u8]) -> Option<String> {
    while let Some((header, _)) = bytes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        if kind == MESSAGE {
            let text = String::from_utf8_lossy(value);
            let text = text.trim_end_matches('\0').trim();
            return (!text.is_empty()).then(|| text.to_owned());
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_message_is_found_behind_other_attributes() {
        let mut bytes = attribute(2, &44_u32.to_ne_bytes());
        bytes.extend(attribute(MESSAGE, b"Invalid prefix for given prefix length\0"));
        assert_eq!(message(&bytes).as_deref(), Some("Invalid prefix for given prefix length"));
    }

    #[test]
    fn the_attributes_follow_the_request() {
        let mut answer = 22_u32.to_ne_bytes().to_vec();
        answer.resize(24, 0);
        answer.extend(attribute(MESSAGE, b"Device is busy\0"));
        let words = |answer: &[u8], capped| attributes(answer, capped).and_then(message);
        assert_eq!(words(&answer, false).as_deref(), Some("Device is busy"));
        // A length of a request that was left out.
        answer.drain(16..24);
        answer[0] = 200;
        assert_eq!(words(&answer, true).as_deref(), Some("Device is busy"));
        assert_eq!(words(&answer[..10], true), None);
    }

    #[test]
    fn no_message_and_broken_attributes_are_none() {
        assert_eq!(message(&[]), None);
        assert_eq!(message(&attribute(2, &[1, 2, 3, 4])), None);
        assert_eq!(message(&attribute(MESSAGE, b"\0")), None);
        // A length of zero, one beyond the end, and a header that is cut off.
        assert_eq!(message(&[0, 0, 1, 0]), None);
        assert_eq!(message(&[200, 0, 1, 0, b'x']), None);
        assert_eq!(message(&[8, 0, 1]), None);
    }
}
