//! A kernel without nf_tables, as far as a thread and whatever it starts can tell.

use std::thread;

/// Does `work` where nobody can speak to nf_tables: its sockets are refused as a kernel refuses
/// them that has none (`EPROTONOSUPPORT`).
///
/// # Panics
/// When `work` does, or the kernel has no seccomp filters.
pub fn without_nf_tables(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse_netfilter_sockets();
            work();
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// `offsetof(struct seccomp_data, nr)`, and of the low halves of its first and third argument
/// (linux/seccomp.h) on a little-endian machine.
const NUMBER: u32 = 0;
const FAMILY: u32 = 16;
const PROTOCOL: u32 = 32;

fn refuse_netfilter_sockets() {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    // To the last but one line, which allows, unless it is so.
    let unless = |value, skip| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skip, value);
    let end = |value| statement(libc::BPF_RET | libc::BPF_K, 0, value);
    let mut filter = [
        load(NUMBER),
        unless(libc::SYS_socket as u32, 4),
        load(FAMILY),
        unless(libc::AF_NETLINK as u32, 2),
        load(PROTOCOL),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, libc::NETLINK_NETFILTER as u32),
        end(libc::SECCOMP_RET_ALLOW),
        end(libc::SECCOMP_RET_ERRNO | libc::EPROTONOSUPPORT as u32),
    ];
    // Where it is that protocol, over the line that allows.
    (filter[5].jt, filter[5].jf) = (1, 0);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the call returns; the kernel copies both. It
    // takes rights from this thread only, which its caller started for the purpose.
    let outcome = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    assert_eq!(outcome, 0, "install a seccomp filter: {}", std::io::Error::last_os_error());
}

fn statement(code: u32, otherwise: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: otherwise, k: value }
}
