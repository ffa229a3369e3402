//! A question about traffic: who would send to whom.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use super::{Name, Protocol};

/// Traffic of one kind from one place to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// Who sends.
    pub from: End,
    /// Who is meant to receive.
    pub to: End,
    /// The port that is sent to, as the sender knows it; for a container that publishes ports, the
    /// container's own port will do.
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

/// One end of a [`Flow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// This host.
    Host,
    /// Beyond the host's default route.
    Outside,
    /// Whoever has this address.
    Address(IpAddr),
    /// A container, by the id it was attached under.
    Container(Name),
}

/// A text that is no [`Flow`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not FROM→TO:PORT or FROM->TO:PORT (FROM and TO: a container, `host`, `outside` or an address; \
     PORT may end in /udp)"
)]
pub struct InvalidFlow(pub String);

impl FromStr for End {
    type Err = InvalidFlow;

    fn from_str(text: &str) -> Result<Self, InvalidFlow> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        Ok(match text {
            "host" => Self::Host,
            "outside" => Self::Outside,
            _ => match bare.parse() {
                Ok(address) => Self::Address(address),
                Err(_) => Self::Container(text.parse().map_err(|_| InvalidFlow(text.to_owned()))?),
            },
        })
    }
}

impl FromStr for Flow {
    type Err = InvalidFlow;

    fn from_str(text: &str) -> Result<Self, InvalidFlow> {
        let fault = || InvalidFlow(text.to_owned());
        let (from, rest) = text.split_once('→').or_else(|| text.split_once("->")).ok_or_else(fault)?;
        let (to, port) = rest.rsplit_once(':').ok_or_else(fault)?;
        let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let port = port.trim().parse().ok().filter(|port| *port != 0).ok_or_else(fault)?;
        let end = |text: &str| text.trim().parse().map_err(|_| fault());
        Ok(Self { from: end(from)?, to: end(to)?, port, protocol: protocol.trim().parse().map_err(|_| fault())? })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Outside => f.pad("outside"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Container(name) => name.fmt(f),
        }
    }
}

/// `outside→host:8080/tcp`
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}:{}/{}", self.from, self.to, self.port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_with_either_arrow_and_written_with_one() {
        for (text, read) in [
            ("outside→host:8080", "outside→host:8080/tcp"),
            ("outside -> web-1:53/udp", "outside→web-1:53/udp"),
            ("web-1->[fd20::2]:80", "web-1→[fd20::2]:80/tcp"),
            ("192.0.2.7→198.51.100.1:80/tcp", "192.0.2.7→198.51.100.1:80/tcp"),
        ] {
            assert_eq!(text.parse::<Flow>().unwrap().to_string(), read);
        }
        for bad in ["", "host", "host:80", "host→:80", "host→host:0", "host→host:80/icmp", "a→b", "a b→c:1"] {
            assert!(bad.parse::<Flow>().is_err(), "{bad}");
        }
    }
}
