//! Questions that are not about our own tables, put together by hand.

use std::ffi::c_void;

use nftnl::{MsgType, NlMsg};
use nftnl_sys as sys;
use nftnl_sys::libc;

/// A question about everything of a family, or with attributes, about a part of it.
pub(crate) struct Question {
    family: u8,
    attributes: Vec<u8>,
}

impl Question {
    /// About all families.
    pub(crate) fn about_everything() -> Self {
        Self { family: libc::NFPROTO_UNSPEC as u8, attributes: Vec::new() }
    }

    /// About what `attributes`, texts by their types, name in `family` (`NFPROTO_*`). Kernel names have at
    /// most 255 bytes; what is longer is cut.
    pub(crate) fn about(family: u8, attributes: &[(u16, &str)]) -> Self {
        let mut bytes = Vec::new();
        for (kind, text) in attributes {
            let text = &text.as_bytes()[..text.len().min(255)];
            bytes.extend(((4 + text.len() + 1) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(text);
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self { family, attributes: bytes }
    }
}

// SAFETY: `write` adds a header and a few hundred bytes, whose sum it writes into the header's length.
unsafe impl NlMsg for Question {
    unsafe fn write(&self, buffer: *mut c_void, sequence: u32, _: MsgType) {
        // SAFETY: the caller provides a buffer that is large enough and aligned for a nlmsghdr, which
        // is where libnftnl puts it; the attributes go behind what it says is used.
        unsafe {
            let header = sys::nftnl_nlmsg_build_hdr(buffer.cast(), 0, u16::from(self.family), 0, sequence);
            let used = (*header).nlmsg_len as usize;
            let behind = buffer.cast::<u8>().add(used);
            std::ptr::copy_nonoverlapping(self.attributes.as_ptr(), behind, self.attributes.len());
            (*header).nlmsg_len += self.attributes.len() as u32;
        }
    }
}
