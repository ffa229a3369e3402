//! How the heap of the C library grows, in programs that end soon.

use std::ffi::c_int;

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

/// `M_TRIM_THRESHOLD`, `M_TOP_PAD` and `M_MMAP_THRESHOLD` (mallopt(3)).
#[cfg(target_env = "gnu")]
const WHAT_COMES_AND_GOES: [c_int; 3] = [-1, -2, -3];

/// Has memory asked of the kernel in pieces of that many bytes, and nothing of it given back before the end: each
/// page that comes anew has to be cleared first. Other C libraries than glibc do as they please.
pub fn grow_by(bytes: u32) {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    #[cfg(target_env = "gnu")]
    for parameter in WHAT_COMES_AND_GOES {
        // SAFETY: all of them may be set at any time, and only say when the heap grows and shrinks.
        unsafe { mallopt(parameter, bytes) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}
