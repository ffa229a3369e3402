//! What is compared: a configuration that both sides understand, and what is aimed at.

use std::path::Path;

use netcore_tests::{Host, Network};
use serde_json::{Value, json};

use crate::report::Goals;

/// Where an overlay's peers are written down.
const PEERS: &str = "/run/peers.toml";

/// A network of one mode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Bridge,
    /// A bridge and a published port.
    Published,
    Macvlan,
    /// `none`, which the reference calls `loopback`.
    None,
    /// What the reference has nothing like.
    Overlay,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Bridge, Self::Published, Self::Macvlan, Self::None];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Published => "bridge, published port",
            Self::Macvlan => "macvlan",
            Self::None => "none (loopback)",
            Self::Overlay => "overlay",
        }
    }

    /// Whether it matters how many containers there are, and how many come at once.
    pub(crate) fn has_crowds(self) -> bool {
        matches!(self, Self::Bridge | Self::Published)
    }

    pub(crate) fn publishes(self) -> bool {
        self == Self::Published
    }

    /// Prepares `host`, and says what network there is, of the reference's plugins or ours.
    pub(crate) fn network(self, host: &Host, leases: &Path, reference: bool) -> Network {
        let ipam = json!({
            "type": "host-local", "dataDir": leases, "routes": [{ "dst": "0.0.0.0/0" }],
            "ranges": [[{ "subnet": "10.20.0.0/16" }]],
        });
        match self {
            Self::Bridge => Network::new("bench", bridge(ipam)),
            Self::Published => {
                let publishes = json!({ "portMappings": true });
                let network = Network::new("bench", bridge(ipam));
                if reference {
                    network.then(json!({ "type": "portmap", "capabilities": publishes }))
                } else {
                    network.with("capabilities", publishes)
                }
            }
            Self::Macvlan => {
                host.run("ip link add eth0 type veth peer name port0; ip link set port0 up; ip link set eth0 up");
                Network::new("bench", json!({ "type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": ipam }))
            }
            Self::None => Network::new("bench", json!({ "type": "loopback" })),
            Self::Overlay => {
                host.run("ip link add eth0 type veth peer name port0; ip link set port0 up; ip link set eth0 up");
                host.run("ip addr add 192.0.2.1/24 dev eth0");
                let peer = |node: u8| {
                    format!(
                        "[[peer]]\nnode = \"n{node}\"\nunderlay = \"192.0.2.{node}\"\nsubnets = [\"10.20.{node}.0/24\"]\n"
                    )
                };
                let file: String = (1..=3).map(peer).collect();
                host.enter(|| std::fs::write(PEERS, format!("node = \"n1\"\n{file}")))
                    .expect("write the file of peers");
                let source = json!({ "file": PEERS });
                let overlay = json!({ "type": "overlay", "vni": 42, "cidr": "10.20.0.0/16", "ipMasq": true, "dataDir": leases, "source": source });
                Network::new("bench", overlay)
            }
        }
    }

    pub(crate) fn goals(self, verb: &str) -> Goals {
        let (wall, cpu) = match (self, verb) {
            (Self::Bridge, "ADD") => (8.0, 10.0),
            (Self::Published, "ADD") => (15.0, 10.0),
            (Self::Bridge, _) => (3.0, 10.0),
            (Self::Published, _) => (5.0, 10.0),
            (Self::Macvlan, "ADD") => (3.0, 5.0),
            (Self::Macvlan, _) => (1.0, 1.0),
            (Self::None, _) => (2.0, 2.0),
            // Compared with the bridge.
            (Self::Overlay, _) => (1.0, 1.0),
        };
        Goals { wall, cpu }
    }
}

fn bridge(ipam: Value) -> Value {
    json!({ "type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": true, "ipam": ipam })
}
