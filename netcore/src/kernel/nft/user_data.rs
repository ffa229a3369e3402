//! What the kernel keeps for us beside what it understands: types, lengths and values of a byte
//! each (libnftnl/udata.h). `nft` shows comments, and needs to know the byte order of keys.

use nftnl_sys as sys;

use super::ruleset::Field;

/// Tables, rules and elements have the same type for a comment.
const COMMENT: u8 = sys::NFTNL_UDATA_RULE_COMMENT as u8;

/// `text` as a comment. Longer ones than `nft` takes are cut; ours are not.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let most = sys::NFTNL_UDATA_COMMENT_MAXLEN as usize - 1;
    let text = &text.as_bytes()[..text.len().min(most)];
    [&[COMMENT, text.len() as u8 + 1], text, &[0]].concat()
}

/// The comment in `user_data`, if there is one.
pub(in crate::kernel) fn read_comment(mut user_data: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = user_data {
        let (value, after) = rest.split_at_checked((*length).into())?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok();
        }
        user_data = after;
    }
    None
}

/// What `nft` wants to know of a set or map to print it.
pub(super) fn byte_orders(key: &[Field], data: &[Field]) -> Vec<u8> {
    let mut user_data = number(sys::NFTNL_UDATA_SET_KEYBYTEORDER, byte_order(key));
    if !data.is_empty() {
        user_data.extend(number(sys::NFTNL_UDATA_SET_DATABYTEORDER, byte_order(data)));
    }
    if key == [Field::Interface, Field::Target6] {
        user_data.extend(INTERFACE_AND_TARGET);
    }
    user_data
}

/// `typeof iifname . @nh,384,128`: where nft has no name for a type, it is told an expression of
/// it (`NFTNL_UDATA_SET_KEY_TYPEOF`, and nft's own numbers within).
#[rustfmt::skip]
const INTERFACE_AND_TARGET: [u8; 66] = [
    3, 64, // of the key:
    0, 4, 13, 0, 0, 0, // a concatenation
    1, 56,
    0, 14, // of, first,
    0, 4, 9, 0, 0, 0, // meta
    1, 6, 0, 4, 6, 0, 0, 0, // iifname
    1, 38, // and of
    0, 4, 7, 0, 0, 0, // payload
    1, 30,
    0, 4, 0, 0, 0, 0, // of no protocol known by name,
    1, 4, 0, 0, 0, 0, // nor a field,
    2, 4, 2, 0, 0, 0, // from the network header
    3, 4, 0x80, 1, 0, 0, // 384 bits on,
    4, 4, 0x80, 0, 0, 0, // 128 bits
];

/// `enum byteorder` of nft: none for a concatenation.
fn byte_order(fields: &[Field]) -> u32 {
    match fields {
        [Field::Interface | Field::Number] => 1,
        [_] => 2,
        _ => 0,
    }
}

fn number(kind: u32, value: u32) -> Vec<u8> {
    [&[kind as u8, 4], &value.to_ne_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_among_other_data() {
        let user_data = [number(1, 7), comment("netcore:web")].concat();
        assert_eq!(read_comment(&user_data), Some("netcore:web"));
        assert_eq!(read_comment(&number(1, 7)), None);
        assert_eq!(read_comment(&[COMMENT, 200, 1]), None);
        assert_eq!(read_comment(&[]), None);
    }
}
