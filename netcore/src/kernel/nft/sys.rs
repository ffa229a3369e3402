//! libnftnl: all that the nftnl crate has no safe call for, behind safe functions. Messages go
//! out through [`Buffer::serialize`]; what the kernel answers comes in through the functions that are
//! named after it.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use nftnl::expr::Expression;
use nftnl::{MsgType, NlMsg, ProtoFamily, Rule as RuleMessage};
use nftnl_sys as sys;
use nftnl_sys::libc;

use super::bytecode::Instruction;
use super::ruleset::TABLE;

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

/// One netlink message where libnftnl can write or read it: aligned, and with room for the
/// largest.
pub(super) struct Buffer(Vec<u64>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; (nftnl::nft_nlmsg_maxsize() as usize).div_ceil(8)])
    }

    /// `message` as bytes. Type, flags and sequence number are left to be filled in.
    pub(super) fn serialize(&mut self, message: &impl NlMsg) -> &[u8] {
        let start = self.0.as_mut_ptr();
        // SAFETY: the buffer has nft_nlmsg_maxsize bytes, which is what `write` asks for, and it
        // leaves a message whose length, its first field, is within them.
        unsafe {
            message.write(start.cast(), 0, MsgType::Add);
            let length = (*start.cast::<libc::nlmsghdr>()).nlmsg_len;
            std::slice::from_raw_parts(start.cast(), length as usize)
        }
    }
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

impl Expression for Instruction {
    fn to_expr(&self, _rule: &RuleMessage) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name ends in NUL; every operand is copied from bytes of the given length.
        unsafe {
            let Some(expression) = NonNull::new(sys::nftnl_expr_alloc(self.name.as_ptr())) else {
                std::process::abort();
            };
            for (operand, value) in &self.operands {
                let length = value.len() as u32;
                sys::nftnl_expr_set(expression.as_ptr(), *operand as u16, value.as_ptr().cast(), length);
            }
            expression
        }
    }
}

/// A rule as the kernel lists it.
#[derive(Debug)]
pub(super) struct ListedRule {
    pub(super) chain: Vec<u8>,
    pub(super) user_data: Vec<u8>,
    pub(super) instructions: Vec<Instruction>,
}

/// All rules of our table, for a listing.
pub(super) struct AllRules(Owned<sys::nftnl_rule>);

impl AllRules {
    pub(super) fn new() -> Self {
        // SAFETY: the object is a rule; the name ends in NUL and is copied.
        unsafe {
            let rule = Owned::new(sys::nftnl_rule_alloc(), sys::nftnl_rule_free);
            sys::nftnl_rule_set_str(rule.get(), sys::NFTNL_RULE_TABLE as u16, TABLE.as_ptr());
            Self(rule)
        }
    }
}

// SAFETY: `write` adds a header and the table's name.
unsafe impl NlMsg for AllRules {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence);
            sys::nftnl_rule_nlmsg_build_payload(header, self.0.get());
        }
    }
}

/// Reads an `NFT_MSG_NEWRULE`.
pub(super) fn rule(message: &[u8]) -> Option<ListedRule> {
    // SAFETY: each getter is given the object it belongs to, and what it returns is copied before
    // the object is freed. The iterator is destroyed before the rule, and the rule owns the
    // expressions.
    unsafe {
        let rule = Owned::new(sys::nftnl_rule_alloc(), sys::nftnl_rule_free);
        if !parse(message, &rule, sys::nftnl_rule_nlmsg_parse) {
            return None;
        }
        let chain = text(sys::nftnl_rule_get_str(rule.get(), sys::NFTNL_RULE_CHAIN as u16));
        let mut length = 0;
        let user_data = sys::nftnl_rule_get_data(rule.get(), sys::NFTNL_RULE_USERDATA as u16, &mut length);
        let user_data = copied(user_data, length);
        let iterator = sys::nftnl_expr_iter_create(rule.get());
        if iterator.is_null() {
            return None;
        }
        let mut instructions = Vec::new();
        loop {
            let expression = sys::nftnl_expr_iter_next(iterator);
            if expression.is_null() {
                break;
            }
            instructions.push(instruction(expression));
        }
        sys::nftnl_expr_iter_destroy(iterator);
        Some(ListedRule { chain, user_data, instructions })
    }
}

/// Reads whatever operands an expression has.
///
/// # Safety
/// `expression` is one of libnftnl's.
unsafe fn instruction(expression: *mut sys::nftnl_expr) -> Instruction {
    // SAFETY: by the caller's promise; operands are copied at once.
    unsafe {
        let name = sys::nftnl_expr_get_str(expression, sys::NFTNL_EXPR_NAME as u16);
        let operands = (sys::NFTNL_EXPR_BASE..u32::BITS)
            .filter(|operand| sys::nftnl_expr_is_set(expression, *operand as u16))
            .map(|operand| {
                let mut length = 0;
                let value = sys::nftnl_expr_get(expression, operand as u16, &mut length);
                (operand, copied(value, length))
            })
            .collect();
        Instruction { name: Cow::Owned(CStr::from_ptr(name).to_owned()), operands }.normal()
    }
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
pub(super) struct Table(Owned<sys::nftnl_table>);

impl Table {
    /// Our table, with flags and user data.
    pub(super) fn new(flags: u32, user_data: &[u8]) -> Self {
        // SAFETY: the name ends in NUL, the user data is as long as is said; both are copied.
        unsafe {
            let table = Owned::new(sys::nftnl_table_alloc(), sys::nftnl_table_free);
            sys::nftnl_table_set_u32(table.get(), sys::NFTNL_TABLE_FAMILY as u16, FAMILY.into());
            sys::nftnl_table_set_str(table.get(), sys::NFTNL_TABLE_NAME as u16, TABLE.as_ptr());
            sys::nftnl_table_set_u32(table.get(), sys::NFTNL_TABLE_FLAGS as u16, flags);
            if !user_data.is_empty() {
                let (data, length) = (user_data.as_ptr().cast(), user_data.len() as u32);
                sys::nftnl_table_set_data(table.get(), sys::NFTNL_TABLE_USERDATA as u16, data, length);
            }
            Self(table)
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
            let header = header(buffer, sequence);
            sys::nftnl_table_nlmsg_build_payload(header, self.0.get());
        }
    }
}

/// What a set is made of, in the kernel's numbers (`NFTA_SET_*`, linux/netfilter/nf_tables.h).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SetShape {
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_bytes: u32,
    pub(super) data_type: u32,
    pub(super) data_bytes: u32,
    /// The most elements it takes; 0 for no limit.
    pub(super) size: u32,
}

/// A set, or some of its elements, as they are written and listed.
pub(super) struct Set(Owned<sys::nftnl_set>);

impl Set {
    /// The set of this name in our table.
    pub(super) fn named(name: &CStr) -> Self {
        // SAFETY: both names end in NUL and are copied.
        unsafe {
            let set = Owned::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
            sys::nftnl_set_set_u32(set.get(), sys::NFTNL_SET_FAMILY as u16, FAMILY.into());
            sys::nftnl_set_set_str(set.get(), sys::NFTNL_SET_TABLE as u16, TABLE.as_ptr());
            sys::nftnl_set_set_str(set.get(), sys::NFTNL_SET_NAME as u16, name.as_ptr());
            Self(set)
        }
    }

    /// With all that it takes to make it: its shape, a number to be known by in the transaction,
    /// the widths of the key's fields if they are ranges, and user data.
    pub(super) fn shaped(self, shape: &SetShape, id: u32, field_bytes: &[u8], user_data: &[u8]) -> Self {
        let set = self.0.get();
        // SAFETY: the object is a set; data is as long as is said, and copied.
        unsafe {
            for (attribute, value) in [
                (sys::NFTNL_SET_FLAGS, shape.flags),
                (sys::NFTNL_SET_KEY_TYPE, shape.key_type),
                (sys::NFTNL_SET_KEY_LEN, shape.key_bytes),
                (sys::NFTNL_SET_ID, id),
            ] {
                sys::nftnl_set_set_u32(set, attribute as u16, value);
            }
            if shape.data_bytes != 0 {
                sys::nftnl_set_set_u32(set, sys::NFTNL_SET_DATA_TYPE as u16, shape.data_type);
                sys::nftnl_set_set_u32(set, sys::NFTNL_SET_DATA_LEN as u16, shape.data_bytes);
            }
            for (attribute, data) in [(sys::NFTNL_SET_DESC_CONCAT, field_bytes), (sys::NFTNL_SET_USERDATA, user_data)] {
                if !data.is_empty() {
                    sys::nftnl_set_set_data(set, attribute as u16, data.as_ptr().cast(), data.len() as u32);
                }
            }
        }
        self
    }

    /// Reads the shape from an `NFT_MSG_NEWSET`.
    pub(super) fn shape(message: &[u8]) -> Option<SetShape> {
        // SAFETY: each getter is given the object it belongs to, and returns 0 for what is not set.
        unsafe {
            let set = Owned::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
            if !parse(message, &set, sys::nftnl_set_nlmsg_parse) {
                return None;
            }
            let number = |attribute: u32| sys::nftnl_set_get_u32(set.get(), attribute as u16);
            Some(SetShape {
                flags: number(sys::NFTNL_SET_FLAGS),
                key_type: number(sys::NFTNL_SET_KEY_TYPE),
                key_bytes: number(sys::NFTNL_SET_KEY_LEN),
                data_type: number(sys::NFTNL_SET_DATA_TYPE),
                data_bytes: number(sys::NFTNL_SET_DATA_LEN),
                size: number(sys::NFTNL_SET_DESC_SIZE),
            })
        }
    }
}

// SAFETY: `write` adds a header and a set, whose name and user data are ours and short.
unsafe impl NlMsg for Set {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence);
            sys::nftnl_set_nlmsg_build_payload(header, self.0.get());
        }
    }
}

/// One element of a set, in the kernel's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RawElement {
    pub(super) key: Vec<u8>,
    /// The last key, if the element is a range.
    pub(super) key_end: Vec<u8>,
    /// What a map holds for the key.
    pub(super) data: Vec<u8>,
    pub(super) user_data: Vec<u8>,
}

impl RawElement {
    /// What finds or removes the element.
    pub(super) fn only_key(&self) -> Self {
        Self { key: self.key.clone(), key_end: self.key_end.clone(), ..Self::default() }
    }
}

/// An element on its way into, or out of, a set.
pub(super) struct ElementMessage(Set);

impl ElementMessage {
    pub(super) fn new(set: &CStr, element: &RawElement) -> Self {
        let message = Set::named(set);
        // SAFETY: every value is as long as is said, and copied; the set takes over the element.
        unsafe {
            let Some(raw) = NonNull::new(sys::nftnl_set_elem_alloc()) else { std::process::abort() };
            for (attribute, value) in [
                (sys::NFTNL_SET_ELEM_KEY, &element.key),
                (sys::NFTNL_SET_ELEM_KEY_END, &element.key_end),
                (sys::NFTNL_SET_ELEM_DATA, &element.data),
                (sys::NFTNL_SET_ELEM_USERDATA, &element.user_data),
            ] {
                if !value.is_empty() {
                    let length = value.len() as u32;
                    sys::nftnl_set_elem_set(raw.as_ptr(), attribute as u16, value.as_ptr().cast(), length);
                }
            }
            sys::nftnl_set_elem_add(message.0.get(), raw.as_ptr());
        }
        Self(message)
    }

    /// All elements, for a listing.
    pub(super) fn all(set: &CStr) -> Self {
        Self(Set::named(set))
    }
}

// SAFETY: `write` adds a header and one element, whose parts are far below 64 KiB.
unsafe impl NlMsg for ElementMessage {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence);
            sys::nftnl_set_elems_nlmsg_build_payload(header, self.0.0.get());
        }
    }
}

/// Reads an `NFT_MSG_NEWSETELEM`.
pub(super) fn elements(message: &[u8]) -> Option<Vec<RawElement>> {
    // SAFETY: each getter is given the object it belongs to, and what it returns is copied before
    // the set, which owns the elements, is freed. The iterator is destroyed before the set.
    unsafe {
        let set = Owned::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
        if !parse(message, &set, sys::nftnl_set_elems_nlmsg_parse) {
            return None;
        }
        let iterator = sys::nftnl_set_elems_iter_create(set.get());
        if iterator.is_null() {
            return None;
        }
        let mut elements = Vec::new();
        loop {
            let element = sys::nftnl_set_elems_iter_next(iterator);
            if element.is_null() {
                break;
            }
            let value = |attribute: u32| {
                let mut length = 0;
                if !sys::nftnl_set_elem_is_set(element, attribute as u16) {
                    return Vec::new();
                }
                copied(sys::nftnl_set_elem_get(element, attribute as u16, &mut length), length)
            };
            elements.push(RawElement {
                key: value(sys::NFTNL_SET_ELEM_KEY),
                key_end: value(sys::NFTNL_SET_ELEM_KEY_END),
                data: value(sys::NFTNL_SET_ELEM_DATA),
                user_data: value(sys::NFTNL_SET_ELEM_USERDATA),
            });
        }
        sys::nftnl_set_elems_iter_destroy(iterator);
        Some(elements)
    }
}

/// A question that needs no words.
pub(super) struct Bare;

// SAFETY: `write` adds a header.
unsafe impl NlMsg for Bare {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe { header(buffer, sequence) };
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

const FAMILY: u16 = ProtoFamily::Inet as u16;

/// Writes a header whose type and flags are filled in later.
///
/// # Safety
/// `buffer` has room for it.
unsafe fn header(buffer: *mut c_void, sequence: u32) -> *mut libc::nlmsghdr {
    // SAFETY: by the caller's promise.
    unsafe { sys::nftnl_nlmsg_build_hdr(buffer.cast(), 0, FAMILY, 0, sequence) }
}
