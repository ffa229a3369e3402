//! A host beside firewalld, and everybody who fetches something there.

use std::net::IpAddr;

use serde_json::json;

use super::{Backend, Firewalld};
use crate::netctl::netctl;
use crate::traffic::{Server, Udp, nobody_answers, ping, serve, who_answers};
use crate::{Attachment, Cni, Host, Netns, Network, Outside, Publish};

/// A host with firewalld, a network `web` with a published container and another, and an outside
/// that has routes to them.
pub struct World {
    /// The network.
    pub web: Cni,
    /// The container `web-1`.
    pub container: Netns,
    /// The container `web-2`.
    pub neighbour: Netns,
    /// What attaches `web-1`, and publishes its port 80 as 8080/tcp and 5353/udp.
    pub published: Attachment,
    /// What attaches `web-2`.
    pub other: Attachment,
    /// The outside.
    pub outside: Outside,
    _servers: [Server; 4],
    /// firewalld.
    pub firewalld: Firewalld,
    /// The host.
    pub host: Host,
}

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];
const OUT: [IpAddr; 2] = [Outside::V4, Outside::V6];
const IN: [IpAddr; 2] = [Outside::HOST_V4, Outside::HOST_V6];

impl World {
    /// With a firewalld that uses `backend`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        let (host, outside) = Self::host();
        let firewalld = Firewalld::on(&host, backend);
        Self::beside(host, outside, firewalld)
    }

    /// A host with processes, and its outside.
    #[must_use]
    pub fn host() -> (Host, Outside) {
        let host = Host::with_processes();
        let outside = host.outside();
        outside.run("ip route add 10.20.0.0/24 via 198.51.100.1; ip -6 route add fd20::/64 via 2001:db8:51::1");
        (host, outside)
    }

    /// The network on `host`.
    #[must_use]
    pub fn web(host: &Host) -> Cni {
        host.cni(Network::bridge("web", SUBNETS).version("1.1.0").with("removeEmptyBridge", json!(true)))
    }

    /// On `host`, where `firewalld` runs.
    #[must_use]
    pub fn beside(host: Host, outside: Outside, firewalld: Firewalld) -> Self {
        let web = Self::web(&host);
        let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
        let published =
            web.attachment(&container).publish(Publish::tcp(8080, 80)).publish(Publish::udp(5353, 80)).added();
        let other = web.attachment(&neighbour).added();
        let servers = [
            serve(&container, "web-1", 80),
            serve(&neighbour, "web-2", 80),
            serve(&*outside, "outside", 7000),
            serve(&host, "host", 7001),
        ];
        Self { web, container, neighbour, published, other, outside, _servers: servers, firewalld, host }
    }

    /// Fetches from every side.
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn works(&self) {
        self.works_for_others();
        for address in IN {
            assert_eq!(who_answers(&self.host, address, 8080), "web-1", "from the host");
        }
    }

    /// Fetches from every side but the host itself.
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn works_for_others(&self) {
        for (address, v6) in IN.into_iter().zip([false, true]) {
            assert_eq!(who_answers(&*self.outside, address, 8080), "web-1", "from outside");
            assert_eq!(Udp::open(&*self.outside, v6).ask(address, 5353).expect("over UDP").server, "web-1");
            assert_eq!(who_answers(&self.container, address, 8080), "web-1", "from itself");
            assert_eq!(who_answers(&self.neighbour, address, 8080), "web-1", "from a neighbour");
            assert_eq!(who_answers(&self.neighbour, address, 7001), "host", "the host itself");
        }
        for address in OUT {
            assert_eq!(who_answers(&self.container, address, 7000), "outside", "the way out");
        }
        for (mine, yours) in self.published.addresses().into_iter().zip(self.other.addresses()) {
            ping(&self.container, yours);
            assert_eq!(who_answers(&self.neighbour, mine, 80), "web-1", "a neighbour");
            assert_eq!(who_answers(&self.host, yours, 80), "web-2", "from the host");
        }
    }

    /// What is not published is not reached from outside.
    ///
    /// # Panics
    /// When it is.
    #[track_caller]
    pub fn is_closed(&self) {
        for attachment in [&self.published, &self.other] {
            for address in attachment.addresses() {
                nobody_answers(&*self.outside, address, 80);
                assert!(Udp::open(&*self.outside, address.is_ipv6()).probe(address, 80).is_err());
            }
        }
    }

    /// Nothing is found missing, by CHECK or by the operator's tool.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn is_intact(&self) {
        netctl(&self.host, "repair-chains --check").ended(0);
        self.published.check().unwrap_or_else(|failure| panic!("CHECK: {failure}"));
    }

    /// Repairs, with success.
    ///
    /// # Panics
    /// Without.
    #[track_caller]
    pub fn repair(&self) {
        netctl(&self.host, "repair-chains").ended(0);
    }
}
