//! Which of the kernel's notifications about links, addresses, routes and settings are delivered:
//! a program for the kernel's own packet filter (linux/filter.h, `SO_ATTACH_FILTER`), so that a
//! listener is not woken by everything a container's start brings about.
//!
//! Only what may be a loss passes. What a message says in detail is read by `routing`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nftnl_sys::libc;

use super::routing::{
    ADDRESS_SCOPE, BODY, FORWARDING_ALONE, LINK_CHANGE, LINK_FLAGS, NETCONFA_FORWARDING, ROUTE_PROTOCOL,
    SECOND_ATTRIBUTE,
};

/// One instruction.
pub(super) type Instruction = libc::sock_filter;

/// Passes links, addresses and our own routes that go, links that are set down, and forwarding that
/// is switched alone: a new interface says all of its settings at once.
pub(super) fn interesting() -> Vec<Instruction> {
    use libc::{RT_SCOPE_LINK, RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_NEWLINK};
    let up = word(libc::IFF_UP.cast_unsigned());
    let mut program = Program::default();
    // struct nlmsghdr: the length, then the type.
    program.load_half(4);
    program.case(half(RTM_DELLINK), |pass| pass.always());
    program.case(half(RTM_DELADDR), |rest| {
        rest.load_byte(BODY + ADDRESS_SCOPE);
        rest.drop_if(u32::from(RT_SCOPE_LINK));
        rest.always();
    });
    program.case(half(RTM_DELROUTE), |rest| {
        rest.load_byte(BODY + ROUTE_PROTOCOL);
        rest.drop_unless(u32::from(crate::kernel::ROUTE_PROTOCOL));
        rest.always();
    });
    program.case(half(RTM_NEWLINK), |rest| {
        // One that is new has all bits set.
        rest.load_word(BODY + LINK_CHANGE);
        rest.drop_if(u32::MAX);
        rest.drop_unless_any(up);
        rest.load_word(BODY + LINK_FLAGS);
        rest.drop_if_any(up);
        rest.always();
    });
    program.case(half(super::routing::RTM_NEWNETCONF), |rest| {
        rest.load_word(0);
        rest.drop_unless(word(FORWARDING_ALONE));
        rest.load_half(SECOND_ATTRIBUTE + 2);
        rest.drop_unless(half(NETCONFA_FORWARDING));
        rest.always();
    });
    program.never();
    program.0
}

/// The filter loads in network byte order what the kernel has written in its own.
fn half(value: u16) -> u32 {
    value.to_be().into()
}

fn word(value: u32) -> u32 {
    value.to_be()
}

#[derive(Default)]
struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u32, jump_true: usize, jump_false: usize, k: u32) {
        // Every code fits into 16 bits and every jump of a program this short into 8.
        self.0.push(Instruction { code: code as u16, jt: jump_true as u8, jf: jump_false as u8, k });
    }

    fn load_byte(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset);
    }

    fn load_half(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, offset);
    }

    fn load_word(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    }

    /// Does `rest`, which always ends, if what was loaded is `value`; goes on otherwise.
    fn case(&mut self, value: u32, rest: impl FnOnce(&mut Self)) {
        let mut then = Self::default();
        rest(&mut then);
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, then.0.len(), value);
        self.0.extend(then.0);
    }

    fn drop_if(&mut self, value: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value);
        self.never();
    }

    fn drop_unless(&mut self, value: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, value);
        self.never();
    }

    fn drop_if_any(&mut self, bits: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, bits);
        self.never();
    }

    fn drop_unless_any(&mut self, bits: u32) {
        self.push(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, 0, bits);
        self.never();
    }

    fn always(&mut self) {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX);
    }

    fn never(&mut self) {
        self.push(libc::BPF_RET | libc::BPF_K, 0, 0, 0);
    }
}

/// Has the kernel deliver to `socket` only what passes `program`.
pub(super) fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the descriptor is open as long as it is borrowed; `filter` is the structure that this
    // option takes, of that size, and points to as many instructions as it says, which the kernel
    // copies and does not write to.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::super::routing::RTM_NEWNETCONF;
    use super::*;

    /// Runs the program as the kernel would, and says whether `message` passes.
    fn passes(message: &[u8]) -> bool {
        let program = interesting();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let bytes = |count: usize| {
                let place = k as usize;
                message
                    .get(place..place + count)
                    .map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let (class, size) = (u32::from(code) & 0x07, u32::from(code) & 0x18);
            at += 1;
            match class {
                libc::BPF_RET => return k != 0,
                libc::BPF_LD => {
                    let count = if size == libc::BPF_B {
                        1
                    } else if size == libc::BPF_H {
                        2
                    } else {
                        4
                    };
                    // What is not there is not passed.
                    let Some(value) = bytes(count) else { return false };
                    loaded = value;
                }
                _ => {
                    let holds = if u32::from(code) & 0xf0 == libc::BPF_JEQ { loaded == k } else { loaded & k != 0 };
                    at += usize::from(if holds { jt } else { jf });
                }
            }
        }
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn link(flags: u32, change: u32) -> Vec<u8> {
        [&[0; 8][..], &flags.to_ne_bytes(), &change.to_ne_bytes()].concat()
    }

    fn switch(attributes: &[(u16, i32)]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(8_u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value.to_ne_bytes());
        }
        body
    }

    #[test]
    fn only_what_may_be_a_loss_passes() {
        let up = libc::IFF_UP.cast_unsigned();
        let address = |scope| [2, 24, 0, scope, 3, 0, 0, 0];
        let route = |protocol| [2, 24, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0];
        for (expected, kind, body) in [
            (true, libc::RTM_DELLINK, link(0, u32::MAX)),
            (false, libc::RTM_NEWLINK, link(up, u32::MAX)),
            (false, libc::RTM_NEWLINK, link(0, u32::MAX)),
            (false, libc::RTM_NEWLINK, link(up, up)),
            (true, libc::RTM_NEWLINK, link(0, up)),
            (false, libc::RTM_NEWLINK, link(0, 0)),
            (true, libc::RTM_DELADDR, address(0).to_vec()),
            (false, libc::RTM_DELADDR, address(libc::RT_SCOPE_LINK).to_vec()),
            (false, libc::RTM_NEWADDR, address(0).to_vec()),
            (true, libc::RTM_DELROUTE, route(crate::kernel::ROUTE_PROTOCOL).to_vec()),
            (false, libc::RTM_DELROUTE, route(2).to_vec()),
            (true, RTM_NEWNETCONF, switch(&[(1, 7), (NETCONFA_FORWARDING, 0)])),
            (false, RTM_NEWNETCONF, switch(&[(1, 7), (3, 0)])),
            (false, RTM_NEWNETCONF, switch(&[(1, 7), (NETCONFA_FORWARDING, 0), (3, 0)])),
        ] {
            assert_eq!(passes(&message(kind, &body)), expected, "{kind} {body:?}");
        }
    }
}
