//! How a plugin starts: as a C program does, without the runtime of the standard library. That
//! prepares every program to tell of a stack that overflows, for which it reads `/proc/self/maps`:
//! a ninth of the instructions of an ADD of macvlan, counted by callgrind.

use std::ffi::c_int;

use netcore::driver::Driver;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, fcntl_getfd};

use crate::heap;

/// `SIGPIPE` and `SIG_IGN` (signal(7), signal(2)); the same on every architecture of Linux.
const SIGPIPE: c_int = 13;
const SIG_IGN: usize = 1;

/// More than a call needs.
const HEAP: u32 = 1 << 20;

unsafe extern "C" {
    fn signal(signal: c_int, handler: usize) -> usize;
}

/// The entry point of a plugin that has the driver `$driver`, in a program that is `#![no_main]`.
#[macro_export]
macro_rules! plugin {
    ($driver:ty) => {
        /// Where the C library hands over.
        // SAFETY: no other function of the program is called `main`, and this is what the C library
        // expects of it, but for arguments that it does not take.
        #[unsafe(no_mangle)]
        pub extern "C" fn main() -> ::std::ffi::c_int {
            $crate::start::<$driver>()
        }
    };
}

/// Answers the one call that this process was started for; the status to exit with.
#[must_use]
pub fn start<D: Driver>() -> c_int {
    // What is opened must not become a stream that was closed: the answer would be written into it.
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if fcntl_getfd(stream) == Err(Errno::BADF) {
            match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
                // Kept open: it is the stream now, the lowest number that was free.
                Ok(null) => std::mem::forget(null),
                Err(_) => std::process::abort(),
            }
        }
    }
    heap::grow_by(HEAP);
    // SAFETY: no signal arrives that anybody waits for, and no other thread has been started.
    unsafe { signal(SIGPIPE, SIG_IGN) };
    c_int::from(!crate::run::<D>())
}
