//! Switching IPv6 forwarding on without costing the host its way out.
//!
//! A router does not listen to routers: with forwarding on, the kernel drops the default routes that
//! router advertisements have brought and takes no new ones (RFC 4861 §6.2.2), unless the interface's
//! `accept_ra` is 2 (Documentation/networking/ip-sysctl.rst). So that is set first, where such a route
//! is in use.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use crate::model::Sysctl;

/// The switch of the whole host.
const SWITCH: &str = "net/ipv6/conf/all/forwarding";

/// The routes of the thread's namespace.
const ROUTES: &str = "/proc/thread-self/net/ipv6_route";

/// `RTF_DEFAULT | RTF_ADDRCONF` (linux/ipv6_route.h): a default route that an advertisement has
/// brought.
const ADVERTISED: u32 = 0x0001_0000 | 0x0004_0000;

/// Prepares the host for `setting` to be written, if that switches IPv6 forwarding on.
pub(super) fn prepare(setting: &Sysctl) -> io::Result<()> {
    if setting.name != SWITCH || setting.value == "0" {
        return Ok(());
    }
    let routes = match fs::read_to_string(ROUTES) {
        Ok(routes) => routes,
        // No IPv6, no routes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for interface in advertised(&routes) {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
        // 0 is somebody's own choice, and whoever chose it brings the routes by other means.
        if fs::read_to_string(&path)?.trim_end() == "1" {
            fs::write(&path, "2")?;
        }
    }
    Ok(())
}

/// The interfaces over which routers have advertised a default route. A line is destination, its
/// prefix length, source, its prefix length, next hop, metric, two counters, flags, interface.
fn advertised(routes: &str) -> BTreeSet<&str> {
    routes
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
            (flags & ADVERTISED == ADVERTISED).then_some(*fields.get(9)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_that_were_advertised_count() {
        let zero = "0".repeat(32);
        let line = |flags: &str, interface: &str| {
            format!(
                "{zero} 00 {zero} 00 fe80000000000000000000000000000a 00000400 00000001 00000000 {flags} {interface}\n"
            )
        };
        // RTF_UP | RTF_GATEWAY, with and without what advertisements add; an advertised prefix.
        let routes = [line("00450003", "ens3"), line("00000003", "ens4"), line("00440001", "ens5")].concat();
        assert_eq!(advertised(&routes).into_iter().collect::<Vec<_>>(), ["ens3"]);
        assert!(advertised("").is_empty() && advertised("garbage\n").is_empty());
    }
}
