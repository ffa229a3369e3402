//! Who listens on a port of the host.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{PortMapping, Protocol};

/// A socket that takes what is sent to a port of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// Who does, as far as the kernel lets us see.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name (`comm`, proc(5)).
    pub name: String,
}

impl Listener {
    /// Whether a program that listens where `mapping` says would find the port taken. A listener
    /// on `::` is taken to listen on IPv4 as well, which is how sockets start out (ipv6(7)).
    #[must_use]
    pub fn is_in_the_way_of(&self, mapping: &PortMapping) -> bool {
        let is_port = mapping.ports().any(|(port, _)| port == self.address.port());
        let here = self.address.ip();
        let everything = here.is_unspecified() && here.is_ipv6();
        let meets = match mapping.host_address {
            None => true,
            Some(wanted @ IpAddr::V6(_)) if wanted.is_unspecified() => true,
            Some(wanted) if wanted.is_unspecified() => here.is_ipv4() || everything,
            Some(wanted) => {
                everything || here == wanted || (here.is_unspecified() && here.is_ipv4() == wanted.is_ipv4())
            }
        };
        is_port && self.protocol == mapping.protocol && meets
    }
}

/// `nginx (pid 4711)`
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_where_a_second_listener_would_be_refused() {
        let listener =
            |address: &str| Listener { address: address.parse().unwrap(), protocol: Protocol::Tcp, process: None };
        let mapping = |address: &str| PortMapping {
            host_address: (!address.is_empty()).then(|| address.parse().unwrap()),
            count: 3,
            ..PortMapping::tcp(80, 80)
        };
        let cases = [
            ("127.0.0.1:80", "", true),
            ("127.0.0.1:82", "", true),
            ("127.0.0.1:83", "", false),
            ("127.0.0.1:80", "0.0.0.0", true),
            ("127.0.0.1:80", "127.0.0.2", false),
            ("0.0.0.0:80", "127.0.0.2", true),
            ("0.0.0.0:80", "::1", false),
            ("[::]:80", "127.0.0.2", true),
            ("[::1]:80", "0.0.0.0", false),
            ("[::1]:80", "::", true),
        ];
        for (taken, wanted, is) in cases {
            assert_eq!(listener(taken).is_in_the_way_of(&mapping(wanted)), is, "{taken} and {wanted:?}");
        }
        let udp = PortMapping { protocol: Protocol::Udp, ..mapping("") };
        assert!(!listener("127.0.0.1:80").is_in_the_way_of(&udp));
    }
}
