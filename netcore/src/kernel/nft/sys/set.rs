//! Sets and their elements.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use nftnl::{MsgType, NlMsg};
use nftnl_sys as sys;

use super::{Owned, copied, header, parse, text};
use crate::kernel::nft::ruleset::{self, TABLE};
use crate::model::Table;

/// What a set is made of, in the kernel's numbers (`NFTA_SET_*`, linux/netfilter/nf_tables.h).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetShape {
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_bytes: u32,
    pub(crate) data_type: u32,
    pub(crate) data_bytes: u32,
    /// The most elements it takes; 0 for no limit.
    pub(crate) size: u32,
    /// Whether each element counts the packets it was found for.
    pub(crate) counted: bool,
}

/// A set, or some of its elements, as they are written and listed.
pub(crate) struct Set(Table, Owned<sys::nftnl_set>);

impl Set {
    /// All sets of one of our tables, for a listing.
    pub(crate) fn all(table: Table) -> Self {
        // SAFETY: the object is a set; the name ends in NUL and is copied.
        unsafe {
            let set = Owned::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
            sys::nftnl_set_set_u32(set.get(), sys::NFTNL_SET_FAMILY as u16, table.family() as u32);
            sys::nftnl_set_set_str(set.get(), sys::NFTNL_SET_TABLE as u16, TABLE.as_ptr());
            Self(table, set)
        }
    }

    /// One set, by its table and name.
    pub(crate) fn named(which: &ruleset::Set) -> Self {
        let set = Self::all(which.table);
        // SAFETY: the object is a set; the name ends in NUL and is copied.
        unsafe { sys::nftnl_set_set_str(set.1.get(), sys::NFTNL_SET_NAME as u16, which.name.as_ptr()) };
        set
    }

    /// With all that it takes to make it: its shape, a number to be known by in the transaction,
    /// the widths of the key's fields if they are ranges, and user data.
    pub(crate) fn shaped(self, shape: &SetShape, id: u32, field_bytes: &[u8], user_data: &[u8]) -> Self {
        let set = self.1.get();
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
            if shape.counted {
                let Some(counter) = NonNull::new(sys::nftnl_expr_alloc(COUNTER.as_ptr())) else {
                    std::process::abort()
                };
                // The set takes it over.
                sys::nftnl_set_add_expr(set, counter.as_ptr());
            }
            for (attribute, data) in [(sys::NFTNL_SET_DESC_CONCAT, field_bytes), (sys::NFTNL_SET_USERDATA, user_data)] {
                if !data.is_empty() {
                    sys::nftnl_set_set_data(set, attribute as u16, data.as_ptr().cast(), data.len() as u32);
                }
            }
        }
        self
    }

    /// Reads name and shape from an `NFT_MSG_NEWSET`.
    pub(crate) fn shape(message: &[u8]) -> Option<(Vec<u8>, SetShape)> {
        // SAFETY: each getter is given the object it belongs to, and returns 0 for what is not set.
        unsafe {
            let set = Owned::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
            if !parse(message, &set, sys::nftnl_set_nlmsg_parse) {
                return None;
            }
            let number = |attribute: u32| sys::nftnl_set_get_u32(set.get(), attribute as u16);
            let shape = SetShape {
                flags: number(sys::NFTNL_SET_FLAGS),
                key_type: number(sys::NFTNL_SET_KEY_TYPE),
                key_bytes: number(sys::NFTNL_SET_KEY_LEN),
                data_type: number(sys::NFTNL_SET_DATA_TYPE),
                data_bytes: number(sys::NFTNL_SET_DATA_LEN),
                size: number(sys::NFTNL_SET_DESC_SIZE),
                counted: sys::nftnl_set_is_set(set.get(), sys::NFTNL_SET_EXPR as u16),
            };
            Some((text(sys::nftnl_set_get_str(set.get(), sys::NFTNL_SET_NAME as u16)), shape))
        }
    }
}

// SAFETY: `write` adds a header and a set, whose name and user data are ours and short.
unsafe impl NlMsg for Set {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence, self.0);
            sys::nftnl_set_nlmsg_build_payload(header, self.1.get());
        }
    }
}

const COUNTER: &CStr = c"counter";

/// One element of a set, in the kernel's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RawElement {
    pub(crate) key: Vec<u8>,
    /// The last key, if the element is a range.
    pub(crate) key_end: Vec<u8>,
    /// What a map holds for the key.
    pub(crate) data: Vec<u8>,
    pub(crate) user_data: Vec<u8>,
}

impl RawElement {
    /// What finds or removes the element.
    pub(crate) fn only_key(&self) -> Self {
        Self { key: self.key.clone(), key_end: self.key_end.clone(), ..Self::default() }
    }
}

/// An element on its way into, or out of, a set.
pub(crate) struct ElementMessage(Set);

impl ElementMessage {
    pub(crate) fn new(set: &ruleset::Set, element: &RawElement) -> Self {
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
            sys::nftnl_set_elem_add(message.1.get(), raw.as_ptr());
        }
        Self(message)
    }

    /// All elements, for a listing.
    pub(crate) fn all(set: &ruleset::Set) -> Self {
        Self(Set::named(set))
    }
}

// SAFETY: `write` adds a header and one element, whose parts are far below 64 KiB.
unsafe impl NlMsg for ElementMessage {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough.
        unsafe {
            let header = header(buffer, sequence, self.0.0);
            sys::nftnl_set_elems_nlmsg_build_payload(header, self.0.1.get());
        }
    }
}

/// An element as the kernel lists it.
pub(crate) struct ListedElement {
    pub(crate) raw: RawElement,
    /// How many packets it was found for, if it counts them.
    pub(crate) packets: u64,
}

/// Reads an `NFT_MSG_NEWSETELEM`.
pub(crate) fn elements(message: &[u8]) -> Option<Vec<ListedElement>> {
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
            let raw = RawElement {
                key: value(sys::NFTNL_SET_ELEM_KEY),
                key_end: value(sys::NFTNL_SET_ELEM_KEY_END),
                data: value(sys::NFTNL_SET_ELEM_DATA),
                user_data: value(sys::NFTNL_SET_ELEM_USERDATA),
            };
            elements.push(ListedElement { raw, packets: packets(element) });
        }
        sys::nftnl_set_elems_iter_destroy(iterator);
        Some(elements)
    }
}

/// What the element's counter says; 0 without one.
///
/// # Safety
/// `element` is one of libnftnl's.
unsafe fn packets(element: *mut sys::nftnl_set_elem) -> u64 {
    // SAFETY: by the caller's promise. The expression belongs to the element, and only one of the
    // counter's name is asked for what a counter has.
    unsafe {
        if !sys::nftnl_set_elem_is_set(element, sys::NFTNL_SET_ELEM_EXPR as u16) {
            return 0;
        }
        let mut length = 0;
        let expression = sys::nftnl_set_elem_get(element, sys::NFTNL_SET_ELEM_EXPR as u16, &mut length);
        let expression: *const sys::nftnl_expr = expression.cast();
        let name = sys::nftnl_expr_get_str(expression, sys::NFTNL_EXPR_NAME as u16);
        if name.is_null() || CStr::from_ptr(name) != COUNTER {
            return 0;
        }
        sys::nftnl_expr_get_u64(expression, sys::NFTNL_EXPR_CTR_PACKETS as u16)
    }
}
