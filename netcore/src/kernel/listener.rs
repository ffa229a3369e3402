//! Sockets that listen on the host, and the processes that hold them, as proc(5) tells it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, Result};
use crate::model::{Listener, PortMapping, Process, Protocol};

/// The tables of `/proc/net`, with the state in which a socket takes what anybody sends:
/// `TCP_LISTEN`, and for UDP, where it stands for "not connected", `TCP_CLOSE` (net/tcp_states.h).
const TABLES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, "0A"),
    ("tcp6", Protocol::Tcp, "0A"),
    ("udp", Protocol::Udp, "07"),
    ("udp6", Protocol::Udp, "07"),
];

/// The first listener of the caller's namespace that is in the way of one of `published`.
pub(super) fn in_the_way(published: &[PortMapping]) -> Result<Option<Listener>> {
    for (table, protocol, state) in TABLES {
        if !published.iter().any(|mapping| mapping.protocol == protocol) {
            continue;
        }
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::File { operation: "read", path: path.into(), source }),
        };
        for (address, inode) in text.lines().skip(1).filter_map(|line| socket(line, state)) {
            let listener = Listener { address, protocol, process: None };
            if published.iter().any(|mapping| listener.is_in_the_way_of(mapping)) {
                return Ok(Some(Listener { process: holder(inode), ..listener }));
            }
        }
    }
    Ok(None)
}

/// Every listener of the caller's namespace, without looking for the processes that hold them.
pub(super) fn all() -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for (table, protocol, state) in TABLES {
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::File { operation: "read", path: path.into(), source }),
        };
        let sockets = text.lines().skip(1).filter_map(|line| socket(line, state));
        listeners.extend(sockets.map(|(address, _)| Listener { address, protocol, process: None }));
    }
    Ok(listeners)
}

/// The local address and the inode in a line of such a table, if its socket is in `state`.
fn socket(line: &str, state: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != state {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    Some((SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?), inode))
}

/// An address as `%08X` of each of its words in memory.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// The process that holds the socket `inode`, if we may look: of several, the first that started.
fn holder(inode: u64) -> Option<Process> {
    let wanted = format!("socket:[{inode}]");
    let entries = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let holds = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(io::Result::ok)
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
    };
    let pid = pids.into_iter().find(holds)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Process { pid, name: name.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_is_an_address_and_an_inode() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(socket(line, "0A"), Some(("127.0.0.1:8080".parse().unwrap(), 4711)));
        assert_eq!(socket(line, "07"), None);
        assert_eq!(ip("B80D0120000000000000000001000000"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(ip("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(ip("ZZ"), None);
    }

    #[test]
    fn a_listener_of_our_own_is_found_with_its_process() {
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        let found = in_the_way(&[PortMapping::tcp(address.port(), 80)]).unwrap().unwrap();
        assert_eq!((found.address, found.protocol), (address, Protocol::Tcp));
        assert_eq!(found.process.unwrap().pid, std::process::id());
    }
}
