//! libnftnl: all that the nftnl crate has no safe call for, behind safe functions. Messages go
//! out through [`serialize`]; what the kernel answers comes in through functions that
//! each read one kind of message.

mod question;
mod rule;
mod set;

use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nftnl::{MsgType, NlMsg};
use nftnl_sys as sys;
use nftnl_sys::libc;

use super::ruleset::TABLE;
use crate::model;
pub(super) use question::Question;
pub(super) use rule::{AllRules, ListedRule, rule};
pub(super) use set::{ElementMessage, RawElement, Set, SetShape, elements};

/// Something of libnftnl's, freed with it. libnftnl is left to allocate only what is small.
struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*const T),
}

impl<T> Owned<T> {
    /// Takes over `object`; null means that there is no memory left.
    ///
    /// # Safety
    /// `object` is null or belongs to the caller, and `free` is what frees it.
    unsafe fn new(object: *mut T, free: unsafe extern "C" fn(*const T)) -> Self {
        let Some(object) = NonNull::new(object) else { std::process::abort() };
        Self { object, free }
    }

    fn get(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` was promised that this frees the object, which nobody else owns.
        unsafe { (self.free)(self.object.as_ptr()) }
    }
}

thread_local! {
    /// One netlink message where libnftnl can write it: aligned, and with room for the largest. It is
    /// not cleared: most messages need a page of its seventeen.
    static BUFFER: RefCell<Box<[MaybeUninit<u64>]>> =
        RefCell::new(Box::new_uninit_slice((nftnl::nft_nlmsg_maxsize() as usize).div_ceil(8)));
}

/// Hands `message` as bytes to `take`. Type, flags and sequence number are left to be filled in.
pub(super) fn serialize<T>(message: &impl NlMsg, take: impl FnOnce(&[u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        let start = buffer.as_mut_ptr();
        // SAFETY: the buffer has nft_nlmsg_maxsize bytes, which is what `write` asks for, and it
        // leaves a message whose length, its first field, is within them, all of it written.
        let bytes = unsafe {
            message.write(start.cast(), 0, MsgType::Add);
            let length = (*start.cast::<libc::nlmsghdr>()).nlmsg_len;
            std::slice::from_raw_parts(start.cast(), length as usize)
        };
        take(bytes)
    })
}

/// Lends `message`, a whole netlink message, to one of libnftnl's parsers.
fn parse<T>(
    message: &[u8],
    into: &Owned<T>,
    parser: unsafe extern "C" fn(*const libc::nlmsghdr, *mut T) -> i32,
) -> bool {
    let length = message.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize);
    if length != Some(message.len()) || message.len() < MESSAGE_HEADER {
        return false;
    }
    let mut aligned = vec![0u64; message.len().div_ceil(8)];
    // SAFETY: the copy is at least as long as the message, and aligned for a nlmsghdr. Its length
    // field has just been found right, and parsers read no further than that.
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr(), aligned.as_mut_ptr().cast(), message.len());
        parser(aligned.as_ptr().cast(), into.get()) >= 0
    }
}

/// `struct nlmsghdr` and `struct nfgenmsg`.
const MESSAGE_HEADER: usize = 16 + 4;

/// `SO_NETNS_COOKIE` (asm-generic/socket.h).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the network namespace of `socket`, where the kernel gives one.
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, all of them into `cookie`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (outcome == 0).then_some(cookie)
}

/// Bytes that libnftnl owns, copied.
///
/// # Safety
/// `data` is null or points to `length` bytes.
unsafe fn copied(data: *const c_void, length: u32) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast(), length as usize) }.to_vec()
}

/// A string of libnftnl's, copied, without its NUL.
///
/// # Safety
/// `string` is null or ends in NUL.
unsafe fn text(string: *const std::ffi::c_char) -> Vec<u8> {
    if string.is_null() {
        return Vec::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_bytes().to_vec()
}

/// A chain as the kernel lists it: its base, if it is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedBase {
    pub(super) kind: Vec<u8>,
    pub(super) hook: u32,
    pub(super) priority: i32,
    pub(super) policy: u32,
}

/// Reads an `NFT_MSG_NEWCHAIN`.
pub(super) fn chain(message: &[u8]) -> Option<Option<ListedBase>> {
    // SAFETY: each getter is given the object it belongs to; the string is copied.
    unsafe {
        let chain = Owned::new(sys::nftnl_chain_alloc(), sys::nftnl_chain_free);
        if !parse(message, &chain, sys::nftnl_chain_nlmsg_parse) {
            return None;
        }
        let is_base = sys::nftnl_chain_is_set(chain.get(), sys::NFTNL_CHAIN_HOOKNUM as u16);
        Some(is_base.then(|| ListedBase {
            kind: text(sys::nftnl_chain_get_str(chain.get(), sys::NFTNL_CHAIN_TYPE as u16)),
            hook: sys::nftnl_chain_get_u32(chain.get(), sys::NFTNL_CHAIN_HOOKNUM as u16),
            priority: sys::nftnl_chain_get_s32(chain.get(), sys::NFTNL_CHAIN_PRIO as u16),
            policy: sys::nftnl_chain_get_u32(chain.get(), sys::NFTNL_CHAIN_POLICY as u16),
        }))
    }
}

/// The table as it is written and listed.
pub(super) struct Table(model::Table, Owned<sys::nftnl_table>);

impl Table {
    /// One of our tables, with no flags and this user data.
    pub(super) fn new(which: model::Table, user_data: &[u8]) -> Self {
        // SAFETY: the name ends in NUL, the user data is as long as is said; both are copied.
        unsafe {
            let table = Owned::new(sys::nftnl_table_alloc(), sys::nftnl_table_free);
            sys::nftnl_table_set_u32(table.get(), sys::NFTNL_TABLE_FAMILY as u16, which.family() as u32);
            sys::nftnl_table_set_str(table.get(), sys::NFTNL_TABLE_NAME as u16, TABLE.as_ptr());
            sys::nftnl_table_set_u32(table.get(), sys::NFTNL_TABLE_FLAGS as u16, 0);
            let (data, length) = (user_data.as_ptr().cast(), user_data.len() as u32);
            sys::nftnl_table_set_data(table.get(), sys::NFTNL_TABLE_USERDATA as u16, data, length);
            Self(which, table)
        }
    }

    /// Reads the flags from an `NFT_MSG_NEWTABLE`.
    pub(super) fn flags(message: &[u8]) -> Option<u32> {
        // SAFETY: each call is given the object it belongs to.
        unsafe {
            let table = Owned::new(sys::nftnl_table_alloc(), sys::nftnl_table_free);
            parse(message, &table, sys::nftnl_table_nlmsg_parse)
                .then(|| sys::nftnl_table_get_u32(table.get(), sys::NFTNL_TABLE_FLAGS as u16))
        }
    }
}

// SAFETY: `write` adds a header and a table, whose name and user data are ours and short.
unsafe impl NlMsg for Table {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence, self.0);
            sys::nftnl_table_nlmsg_build_payload(header, self.1.get());
        }
    }
}

/// A question that needs no words.
pub(super) struct Bare;

// SAFETY: `write` adds a header.
unsafe impl NlMsg for Bare {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe { header(buffer, sequence, model::Table::Inet) };
    }
}

/// Reads the generation from an `NFT_MSG_NEWGEN`.
pub(super) fn generation(message: &[u8]) -> Option<u32> {
    // SAFETY: each call is given the object it belongs to.
    unsafe {
        let generation = Owned::new(sys::nftnl_gen_alloc(), sys::nftnl_gen_free);
        parse(message, &generation, sys::nftnl_gen_nlmsg_parse)
            .then(|| sys::nftnl_gen_get_u32(generation.get(), sys::NFTNL_GEN_ID as u16))
    }
}

/// Writes a header for one of our tables whose type and flags are filled in later.
///
/// # Safety
/// `buffer` has room for it.
unsafe fn header(buffer: *mut c_void, sequence: u32, table: model::Table) -> *mut libc::nlmsghdr {
    // SAFETY: by the caller's promise.
    unsafe { sys::nftnl_nlmsg_build_hdr(buffer.cast(), 0, table.family() as u16, 0, sequence) }
}
