//! Whoever keeps the rules, containers reach the world and are reached: every cell of
//! {backend} × {what else filters here} × {IPv4, IPv6}, by packets.

use std::net::IpAddr;

use netcore_tests::features::Feature;
use netcore_tests::traffic::{Server, fetch, nobody_answers, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, needs};
use serde_json::json;

/// What the rules are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

/// Who else filters on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbourhood {
    /// Nobody.
    Quiet,
    /// Somebody has closed `FORWARD` of iptables-nft, as Docker and hardened hosts do.
    ForwardDropNft,
    /// The same with iptables-legacy.
    ForwardDropLegacy,
    /// A reject behind everything, as a host's own rules have it.
    ForwardRejectNft,
}

impl Backend {
    const ALL: [Self; 3] = [Self::Nftables, Self::IptablesNft, Self::IptablesLegacy];

    /// Those that this kernel has.
    fn here() -> impl Iterator<Item = Self> {
        let legacy = Feature::IptablesLegacy.missing().is_none();
        Self::ALL.into_iter().filter(move |backend| legacy || *backend != Self::IptablesLegacy)
    }

    /// A host whose `iptables` is this backend's.
    fn host(self) -> Host {
        let host = Host::new();
        if let Self::IptablesLegacy = self {
            host.run(
                "cp -a /etc/alternatives /run/alternatives
                 for name in iptables ip6tables; do
                     ln -sf /usr/sbin/$name-legacy /run/alternatives/$name
                     for verb in save restore; do
                         ln -sf /usr/sbin/$name-legacy-$verb /run/alternatives/$name-$verb
                     done
                 done
                 mount --bind /run/alternatives /etc/alternatives",
            );
        }
        host
    }

    fn network(self, name: &str, subnets: &[&str]) -> Network {
        let backend = if self == Self::Nftables { "nftables" } else { "iptables" };
        Network::bridge(name, subnets).with("firewallBackend", json!(backend))
    }
}

impl Neighbourhood {
    const ALL: [Self; 4] = [Self::Quiet, Self::ForwardDropNft, Self::ForwardDropLegacy, Self::ForwardRejectNft];

    /// Those that this kernel can bring about.
    fn here() -> impl Iterator<Item = Self> {
        let legacy = Feature::IptablesLegacy.missing().is_none();
        Self::ALL.into_iter().filter(move |neighbourhood| legacy || *neighbourhood != Self::ForwardDropLegacy)
    }

    fn settle_on(self, host: &Host) {
        for tool in ["iptables", "ip6tables"] {
            host.run(&match self {
                Self::Quiet => continue,
                Self::ForwardDropNft => format!("{tool}-nft -P FORWARD DROP"),
                Self::ForwardDropLegacy => format!("{tool}-legacy -P FORWARD DROP"),
                Self::ForwardRejectNft => format!("{tool}-nft -A FORWARD -j REJECT"),
            });
        }
    }
}

/// A host in one of its states, with three networks on it.
struct World {
    host: Host,
    outside: Outside,
    web: Cni,
    db: Cni,
    vault: Cni,
    one: Container,
    two: Container,
    other: Container,
    kept: Container,
    _world: Server,
}

struct Container {
    netns: Netns,
    attachment: Attachment,
    _server: Server,
}

impl Container {
    fn on(host: &Host, network: &Cni, name: &str, publish: &[Publish]) -> Self {
        let netns = host.netns(name);
        let attachment = publish.iter().cloned().fold(network.attachment(&netns), Attachment::publish).added();
        let server = serve(&netns, name, 80);
        Self { netns, attachment, _server: server }
    }

    fn address(&self, v6: bool) -> IpAddr {
        self.attachment.addresses().into_iter().find(|address| address.is_ipv6() == v6).expect("both families")
    }
}

impl World {
    fn new(backend: Backend, neighbourhood: Neighbourhood) -> Self {
        let host = backend.host();
        let outside = host.outside();
        neighbourhood.settle_on(&host);
        let web = host.cni(backend.network("web", &["10.20.0.0/24", "fd20::/64"]));
        let db = host.cni(backend.network("db", &["10.30.0.0/24", "fd30::/64"]));
        let vault = backend.network("vault", &["10.40.0.0/24", "fd40::/64"]).with("isolation", json!("strict"));
        let vault = host.cni(vault);
        outside.run("ip route add 10.40.0.0/24 via 198.51.100.1; ip -6 route add fd40::/64 via 2001:db8:51::1");
        let ports = [Publish::tcp(8080, 80), Publish::tcp(8081, 80).on(Outside::HOST_V4), Publish::udp(8080, 80)];
        let one = Container::on(&host, &web, "one", &ports);
        let two = Container::on(&host, &web, "two", &[]);
        let other = Container::on(&host, &db, "other", &[]);
        let kept = Container::on(&host, &vault, "kept", &[Publish::tcp(8090, 80)]);
        let world = serve(&*outside, "world", 80);
        Self { host, outside, web, db, vault, one, two, other, kept, _world: world }
    }

    /// Every way there is, in one family.
    fn check(&self, v6: bool) {
        let (world, host_address): (IpAddr, IpAddr) =
            if v6 { (Outside::V6, Outside::HOST_V6) } else { (Outside::V4, Outside::HOST_V4) };
        let answer = fetch(&self.two.netns, world, 80).unwrap_or_else(|error| panic!("egress: {error}"));
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", host_address), "masqueraded");

        let answer = fetch(&*self.outside, host_address, 8080).unwrap_or_else(|error| panic!("from outside: {error}"));
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("one", world), "with its true source");
        let udp = netcore_tests::traffic::Udp::open(&*self.outside, v6);
        assert_eq!(udp.ask(host_address, 8080).expect("UDP from outside").server, "one");
        assert_eq!(who_answers(&self.host, host_address, 8080), "one", "from the host");
        if !v6 {
            assert_eq!(who_answers(&self.host, [127, 0, 0, 1], 8080), "one", "from the host over 127.0.0.1");
            assert_eq!(who_answers(&*self.outside, host_address, 8081), "one", "published on one address");
            nobody_answers(&*self.outside, Outside::HOST_OTHER_V4, 8081);
        }
        assert_eq!(who_answers(&self.one.netns, host_address, 8080), "one", "hairpin");
        assert_eq!(who_answers(&self.two.netns, host_address, 8080), "one", "from a neighbour");
        assert_eq!(who_answers(&self.other.netns, host_address, 8080), "one", "from another network");

        ping(&self.two.netns, self.one.address(v6));
        let answer = fetch(&self.other.netns, self.one.address(v6), 80).expect("another network, open");
        assert_eq!(answer.client.ip(), self.other.address(v6), "networks see true sources");

        nobody_answers(&self.one.netns, self.kept.address(v6), 80);
        nobody_answers(&*self.outside, self.kept.address(v6), 80);
        assert_eq!(who_answers(&*self.outside, host_address, 8090), "kept", "published, although isolated");
        assert_eq!(who_answers(&self.one.netns, host_address, 8090), "kept", "the same from another network");
        assert_eq!(who_answers(&self.kept.netns, self.one.address(v6), 80), "one", "the other is open");
        assert_eq!(who_answers(&self.host, self.kept.address(v6), 80), "kept", "the host itself");
    }

    /// Everything is there, nobody needs to look twice, and all of it goes.
    fn ends(self) {
        for container in [&self.one, &self.two, &self.other, &self.kept] {
            container.attachment.check().unwrap();
        }
        for container in [&self.one, &self.two, &self.other, &self.kept] {
            container.attachment.del().unwrap();
        }
        nobody_answers(&*self.outside, Outside::HOST_V4, 8080);
        for program in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
            let left = self.host.run(&format!("{program}-save || true"));
            assert!(!left.contains("/eth0"), "{program}: {left}");
            assert!(!left.contains("-j ACCEPT"), "{program}: {left}");
        }
        drop((self.web, self.db, self.vault));
    }
}

fn row(backend: Backend) {
    for neighbourhood in Neighbourhood::here() {
        println!("{backend:?}, {neighbourhood:?}");
        let world = World::new(backend, neighbourhood);
        for v6 in [false, true] {
            println!("{backend:?}, {neighbourhood:?}, {}", if v6 { "IPv6" } else { "IPv4" });
            world.check(v6);
        }
        world.ends();
    }
}

#[test]
fn nftables() {
    row(Backend::Nftables);
}

#[test]
fn iptables_nft() {
    row(Backend::IptablesNft);
}

#[test]
fn iptables_legacy() {
    needs!(IptablesLegacy);
    row(Backend::IptablesLegacy);
}

#[test]
fn a_host_is_as_its_row_says() {
    for backend in Backend::here() {
        let said = backend.host().run("iptables --version");
        assert_eq!(said.contains("legacy"), backend == Backend::IptablesLegacy, "{backend:?}: {said}");
    }
}

#[test]
fn an_internal_network_has_no_way_out_whoever_keeps_the_rules() {
    for backend in Backend::here() {
        let host = backend.host();
        let outside = host.outside();
        let cellar = backend.network("cellar", &["10.50.0.0/24", "fd50::/64"]).with("internal", json!(true));
        let cellar = host.cni(cellar);
        let one = Container::on(&host, &cellar, "one", &[]);
        let two = Container::on(&host, &cellar, "two", &[]);
        let _world = serve(&*outside, "world", 80);
        outside.run("ip route add 10.50.0.0/24 via 198.51.100.1; ip -6 route add fd50::/64 via 2001:db8:51::1");
        one.netns.run("ip route replace default via 10.50.0.1; ip -6 route replace default via fd50::1");
        for (v6, world) in [(false, Outside::V4), (true, Outside::V6)] {
            println!("{backend:?}, {}", if v6 { "IPv6" } else { "IPv4" });
            assert_eq!(who_answers(&one.netns, two.address(v6), 80), "two", "a neighbour");
            assert_eq!(who_answers(&host, one.address(v6), 80), "one", "the host");
            nobody_answers(&one.netns, world, 80);
            nobody_answers(&*outside, one.address(v6), 80);
        }
        one.attachment.check().unwrap();
    }
}
