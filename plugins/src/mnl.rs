//! The part of libmnl that libnftnl stands on, so that a plugin needs no library of the node it is
//! copied to: libnftnl comes as an archive, libmnl only as a shared library.
//!
//! These are the attributes of netlink messages (include/uapi/linux/netlink.h): a length, a type
//! and a payload, padded to four bytes. Names, arguments and results are those of libmnl/libmnl.h,
//! but for `errno`, which is left alone. Only libnftnl calls them, always with a message or an
//! attribute of its own and, for what is put, with a buffer that has room (its own contract with
//! libmnl, which cannot know either). That is what every `SAFETY:` below means by the caller.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// `struct nlmsghdr`.
#[repr(C)]
pub(crate) struct Message {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct nlattr`.
#[repr(C)]
pub(crate) struct Attribute {
    length: u16,
    kind: u16,
}

/// `mnl_attr_cb_t`: one attribute, and what was given for it.
type Callback = unsafe extern "C" fn(*const Attribute, *mut c_void) -> c_int;

/// NLA_TYPE_MASK and NLA_F_NESTED.
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// MNL_CB_STOP and MNL_CB_OK.
const STOP: c_int = 0;
const GO_ON: c_int = 1;
/// What a check answers.
const REFUSED: c_int = -1;

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Where the next attribute of `message` goes.
///
/// # Safety
/// The caller's message, with its length right.
unsafe fn tail(message: *mut Message) -> *mut u8 {
    // SAFETY: within or just after the caller's message.
    unsafe { message.cast::<u8>().add(aligned((*message).length as usize)) }
}

/// Adds `length` to what `message` says of itself. Messages are far from 4 GiB.
///
/// # Safety
/// The caller's message.
#[expect(clippy::cast_possible_truncation, reason = "a message is at most some pages long")]
unsafe fn grow(message: *mut Message, length: usize) {
    // SAFETY: the caller's message.
    unsafe { (*message).length += aligned(length) as u32 }
}

/// # Safety
/// The caller's attribute.
unsafe fn payload(attribute: *const Attribute) -> *const u8 {
    // SAFETY: the payload begins behind the header.
    unsafe { attribute.add(1).cast() }
}

/// # Safety
/// The caller's attribute.
unsafe fn payload_length(attribute: *const Attribute) -> usize {
    // SAFETY: the caller's attribute.
    usize::from(unsafe { (*attribute).length }).saturating_sub(size_of::<Attribute>())
}

/// Calls `each` with the attributes from `first` on, until there are `length` bytes no more.
///
/// # Safety
/// `length` bytes can be read from `first` on, which is aligned to four bytes.
unsafe fn walk(mut first: *const Attribute, mut length: usize, each: Callback, data: *mut c_void) -> c_int {
    let mut answer = GO_ON;
    // SAFETY: an attribute is looked at only where `mnl_attr_ok` finds a whole one, and the next
    // one begins where this one ends, padding included.
    unsafe {
        while mnl_attr_ok(first, c_int::try_from(length).unwrap_or(c_int::MAX)) {
            answer = each(first, data);
            if answer <= STOP {
                break;
            }
            let taken = aligned(usize::from((*first).length));
            first = mnl_attr_next(first);
            length = length.saturating_sub(taken);
        }
    }
    answer
}

/// Adds an attribute of `length` bytes of `data`.
///
/// # Safety
/// The caller's message, with room; `length` bytes can be read from `data` on.
#[expect(clippy::cast_possible_truncation, reason = "the length of an attribute is a u16 in the kernel's header too")]
unsafe fn put(message: *mut Message, kind: u16, data: *const u8, length: usize) {
    // SAFETY: the caller sees to it that there is room for header, payload and padding.
    unsafe {
        let attribute = tail(message).cast::<Attribute>();
        let whole = size_of::<Attribute>() + length;
        attribute.write(Attribute { length: whole as u16, kind });
        let into = attribute.add(1).cast::<u8>();
        ptr::copy_nonoverlapping(data, into, length);
        ptr::write_bytes(into.add(length), 0, aligned(length) - length);
        grow(message, whole);
    }
}

/// Begins a message in `buffer`.
///
/// # Safety
/// `buffer` is the caller's, has room for a header and is aligned for it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_nlmsg_put_header(buffer: *mut c_void) -> *mut Message {
    const LENGTH: u32 = size_of::<Message>() as u32;
    let message = buffer.cast::<Message>();
    // SAFETY: the caller's buffer has room for a header.
    unsafe { message.write(Message { length: LENGTH, kind: 0, flags: 0, sequence: 0, port: 0 }) };
    message
}

/// Adds a zeroed header of `size` bytes, and says where it is.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_nlmsg_put_extra_header(message: *mut Message, size: usize) -> *mut c_void {
    // SAFETY: the caller sees to it that there is room.
    unsafe {
        let header = tail(message);
        ptr::write_bytes(header, 0, aligned(size));
        grow(message, size);
        header.cast()
    }
}

/// What follows the header of `message`.
///
/// # Safety
/// The caller's message.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_nlmsg_get_payload(message: *const Message) -> *mut c_void {
    // SAFETY: the payload begins behind the header.
    unsafe { message.add(1).cast::<c_void>().cast_mut() }
}

/// The attribute's type, without its flags.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_type(attribute: *const Attribute) -> u16 {
    // SAFETY: the caller's attribute.
    unsafe { (*attribute).kind & TYPE_MASK }
}

/// The length of the attribute's payload in bytes.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_payload_len(attribute: *const Attribute) -> u16 {
    // SAFETY: the caller's attribute.
    unsafe { (*attribute).length.saturating_sub(size_of::<Attribute>() as u16) }
}

/// The attribute's payload.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_payload(attribute: *const Attribute) -> *mut c_void {
    // SAFETY: the caller's attribute.
    unsafe { payload(attribute).cast::<c_void>().cast_mut() }
}

/// Whether a whole attribute is within `length` bytes.
///
/// # Safety
/// `length` bytes can be read from `attribute` on, if there are any.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_ok(attribute: *const Attribute, length: c_int) -> bool {
    let Ok(length) = usize::try_from(length) else { return false };
    // SAFETY: the header is read only where there is one.
    length >= size_of::<Attribute>()
        && (size_of::<Attribute>()..=length).contains(&usize::from(unsafe { (*attribute).length }))
}

/// Where the attribute behind this one begins.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_next(attribute: *const Attribute) -> *mut Attribute {
    // SAFETY: within or just after what holds the caller's attribute.
    unsafe { attribute.cast::<u8>().add(aligned(usize::from((*attribute).length))).cast::<Attribute>().cast_mut() }
}

/// 1 when the attribute's type is at most `most`, else −1.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_type_valid(attribute: *const Attribute, most: u16) -> c_int {
    // SAFETY: the caller's attribute.
    if unsafe { mnl_attr_get_type(attribute) } > most { REFUSED } else { 1 }
}

/// 0 when the attribute's payload can be one of `kind` (`enum mnl_attr_data_type`), else −1.
///
/// # Safety
/// The caller's attribute.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_validate(attribute: *const Attribute, kind: c_int) -> c_int {
    // SAFETY: the caller's attribute.
    let (data, length) = unsafe { (payload(attribute), payload_length(attribute)) };
    let good = match kind {
        0 | 9 | 11 => true,                                   // UNSPEC, NESTED_COMPAT, BINARY
        1 => length == 1,                                     // U8
        2 => length == 2,                                     // U16
        3 => length == 4,                                     // U32
        4 | 7 => length == 8,                                 // U64, MSECS
        5 => length > 0,                                      // STRING
        6 => length == 0,                                     // FLAG
        8 => length == 0 || length >= size_of::<Attribute>(), // NESTED
        // SAFETY: the last byte of a payload that has one.
        10 => length > 0 && unsafe { *data.add(length - 1) } == 0, // NUL_STRING
        _ => false,
    };
    if good { 0 } else { REFUSED }
}

/// Calls `each` with every attribute of `message` that follows `offset` bytes of payload.
///
/// # Safety
/// The caller's message and callback.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_parse(
    message: *const Message,
    offset: u32,
    each: Callback,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the message is as long as it says, so what is left behind header and offset is its
    // own.
    unsafe {
        let before = size_of::<Message>() + aligned(offset as usize);
        let length = aligned((*message).length as usize).saturating_sub(before);
        walk(message.cast::<u8>().add(before).cast(), length, each, data)
    }
}

/// Calls `each` with every attribute within `nest`.
///
/// # Safety
/// The caller's attribute and callback.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_parse_nested(
    nest: *const Attribute,
    each: Callback,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the attribute is as long as it says.
    unsafe { walk(payload(nest).cast(), payload_length(nest), each, data) }
}

/// The payload as one byte.
///
/// # Safety
/// The caller's attribute, of that length.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_u8(attribute: *const Attribute) -> u8 {
    // SAFETY: the caller has checked the length.
    unsafe { *payload(attribute) }
}

/// The payload as two bytes.
///
/// # Safety
/// The caller's attribute, of that length.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_u16(attribute: *const Attribute) -> u16 {
    // SAFETY: the caller has checked the length.
    unsafe { payload(attribute).cast::<u16>().read_unaligned() }
}

/// The payload as four bytes.
///
/// # Safety
/// The caller's attribute, of that length.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_u32(attribute: *const Attribute) -> u32 {
    // SAFETY: the caller has checked the length.
    unsafe { payload(attribute).cast::<u32>().read_unaligned() }
}

/// The payload as eight bytes, which may stand at any multiple of four.
///
/// # Safety
/// The caller's attribute, of that length.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_u64(attribute: *const Attribute) -> u64 {
    // SAFETY: the caller has checked the length.
    unsafe { payload(attribute).cast::<u64>().read_unaligned() }
}

/// The payload as a string.
///
/// # Safety
/// The caller's attribute, with a NUL at its end.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_get_str(attribute: *const Attribute) -> *const c_char {
    // SAFETY: the caller's attribute.
    unsafe { payload(attribute).cast() }
}

/// Adds an attribute of `length` bytes of `data`.
///
/// # Safety
/// The caller's message, with room; `length` bytes can be read from `data` on.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put(message: *mut Message, kind: u16, length: usize, data: *const c_void) {
    // SAFETY: as the caller promises.
    unsafe { put(message, kind, data.cast(), length) }
}

/// Adds one byte.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_u8(message: *mut Message, kind: u16, data: u8) {
    // SAFETY: the caller's message.
    unsafe { put(message, kind, &raw const data, size_of_val(&data)) }
}

/// Adds two bytes.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_u16(message: *mut Message, kind: u16, data: u16) {
    // SAFETY: the caller's message.
    unsafe { put(message, kind, (&raw const data).cast(), size_of_val(&data)) }
}

/// Adds four bytes.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_u32(message: *mut Message, kind: u16, data: u32) {
    // SAFETY: the caller's message.
    unsafe { put(message, kind, (&raw const data).cast(), size_of_val(&data)) }
}

/// Adds eight bytes.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_u64(message: *mut Message, kind: u16, data: u64) {
    // SAFETY: the caller's message.
    unsafe { put(message, kind, (&raw const data).cast(), size_of_val(&data)) }
}

/// Adds a string without its NUL.
///
/// # Safety
/// The caller's message, with room, and a string that ends.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_str(message: *mut Message, kind: u16, data: *const c_char) {
    // SAFETY: the caller's string.
    unsafe { put(message, kind, data.cast(), CStr::from_ptr(data).count_bytes()) }
}

/// Adds a string and its NUL.
///
/// # Safety
/// The caller's message, with room, and a string that ends.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_put_strz(message: *mut Message, kind: u16, data: *const c_char) {
    // SAFETY: the caller's string.
    unsafe { put(message, kind, data.cast(), CStr::from_ptr(data).count_bytes() + 1) }
}

/// Begins an attribute whose payload is what is put until it ends.
///
/// # Safety
/// The caller's message, with room.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mnl_attr_nest_start(message: *mut Message, kind: u16) -> *mut Attribute {
    // SAFETY: the caller sees to it that there is room.
    unsafe {
        let nest = tail(message).cast::<Attribute>();
        nest.write(Attribute { length: 0, kind: NESTED | kind });
        grow(message, size_of::<Attribute>());
        nest
    }
}

/// Ends the attribute that `nest` began.
///
/// # Safety
/// The caller's message, and what [`mnl_attr_nest_start`] gave for it.
#[unsafe(no_mangle)]
#[expect(clippy::cast_possible_truncation, reason = "the length of an attribute is a u16 in the kernel's header too")]
pub(crate) unsafe extern "C" fn mnl_attr_nest_end(message: *mut Message, nest: *mut Attribute) {
    // SAFETY: both lie in the caller's message.
    unsafe { (*nest).length = (tail(message) as usize - nest as usize) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes of `message` behind `offset` bytes of payload: type and payload.
    fn attributes(message: *const Message, offset: u32) -> Vec<(u16, Vec<u8>)> {
        unsafe extern "C" fn note(attribute: *const Attribute, data: *mut c_void) -> c_int {
            // SAFETY: called below with a whole attribute and the list.
            unsafe {
                let payload = std::slice::from_raw_parts(payload(attribute), payload_length(attribute));
                (*data.cast::<Vec<(u16, Vec<u8>)>>()).push((mnl_attr_get_type(attribute), payload.to_vec()));
            }
            GO_ON
        }
        let mut found = Vec::new();
        // SAFETY: the tests' own messages, and the list outlives the call.
        assert_eq!(unsafe { mnl_attr_parse(message, offset, note, (&raw mut found).cast()) }, GO_ON);
        found
    }

    #[test]
    fn what_is_put_is_read_back_padded_and_nested() {
        let mut buffer = [u64::MAX; 16];
        // SAFETY: the buffer is aligned, and has room for all that is put.
        unsafe {
            let message = mnl_nlmsg_put_header(buffer.as_mut_ptr().cast());
            assert_eq!(mnl_nlmsg_put_extra_header(message, 3), mnl_nlmsg_get_payload(message));
            mnl_attr_put_strz(message, 1, c"abc".as_ptr());
            let nest = mnl_attr_nest_start(message, 2);
            mnl_attr_put_u8(message, 3, 7);
            mnl_attr_put_u64(message, 4, 8);
            mnl_attr_nest_end(message, nest);
            assert_eq!((*message).length, 16 + 4 + 8 + (4 + 8 + 12));
            let found = attributes(message, 3);
            assert_eq!(found[0], (1, b"abc\0".to_vec()));
            let inner = [&[5, 0, 3, 0, 7, 0, 0, 0, 12, 0, 4, 0][..], &8_u64.to_ne_bytes()[..]].concat();
            assert_eq!(found[1..], [(2, inner)]);
            assert_eq!(mnl_attr_type_valid(nest, 1), REFUSED);
            assert_eq!(mnl_attr_type_valid(nest, 2), 1);
        }
    }

    #[test]
    fn a_payload_of_another_length_or_an_attribute_cut_short_is_refused() {
        let words = [u32::from_ne_bytes([6, 0, 1, 0]), u32::from_ne_bytes([b'h', b'i', 0, 0])];
        let attribute = words.as_ptr().cast::<Attribute>();
        // SAFETY: an attribute of two bytes, padded.
        unsafe {
            let accepted: Vec<c_int> = (0..12).filter(|kind| mnl_attr_validate(attribute, *kind) == 0).collect();
            // UNSPEC, U16, STRING, NESTED_COMPAT, BINARY; not NUL_STRING, since it does not end in NUL.
            assert_eq!(accepted, [0, 2, 5, 9, 11]);
            assert!(mnl_attr_ok(attribute, 6) && !mnl_attr_ok(attribute, 5) && !mnl_attr_ok(attribute, -1));
            assert_eq!(mnl_attr_next(attribute).cast_const(), attribute.add(2));
        }
    }
}
