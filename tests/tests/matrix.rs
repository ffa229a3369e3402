//! Whoever keeps the rules, containers reach the world and are reached: every cell of
//! {backend} × {what else filters here} × {IPv4, IPv6}, by packets.

use std::net::IpAddr;

use netcore_tests::features::Feature;
use netcore_tests::firewalld::{self, Event, Firewalld};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Server, Udp, fetch, nobody_answers, ping, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, needs, skip};
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
    /// A real firewalld, which rejects what it was not told of, with one of its own backends; with
    /// iptables it uses the one that is the host's, as a backend of ours does.
    Firewalld(firewalld::Backend),
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
        self.settle_on(Host::new())
    }

    /// Has `iptables` on `host` be this backend's.
    fn settle_on(self, host: Host) -> Host {
        if let Self::IptablesLegacy = self {
            host.use_iptables_legacy();
        }
        host
    }

    fn network(self, name: &str, subnets: &[&str]) -> Network {
        let backend = if self == Self::Nftables { "nftables" } else { "iptables" };
        Network::bridge(name, subnets).with("firewallBackend", json!(backend))
    }
}

impl Neighbourhood {
    const WITHOUT_FIREWALLD: [Self; 4] =
        [Self::Quiet, Self::ForwardDropNft, Self::ForwardDropLegacy, Self::ForwardRejectNft];

    /// Those without firewalld that this kernel can bring about.
    fn without_firewalld() -> impl Iterator<Item = Self> {
        let legacy = Feature::IptablesLegacy.missing().is_none();
        Self::WITHOUT_FIREWALLD
            .into_iter()
            .filter(move |neighbourhood| legacy || *neighbourhood != Self::ForwardDropLegacy)
    }

    /// A host for it: firewalld needs processes of its own.
    fn host(self) -> Host {
        if let Self::Firewalld(_) = self { Host::with_processes() } else { Host::new() }
    }

    /// Moves in on `host`; firewalld, if it is that, which goes on until it is dropped.
    fn settle_on(self, host: &Host) -> Option<Firewalld> {
        for tool in ["iptables", "ip6tables"] {
            host.run(&match self {
                Self::Quiet => return None,
                Self::Firewalld(backend) => return Some(Firewalld::on(host, backend)),
                Self::ForwardDropNft => format!("{tool}-nft -P FORWARD DROP"),
                Self::ForwardDropLegacy => format!("{tool}-legacy -P FORWARD DROP"),
                Self::ForwardRejectNft => format!("{tool}-nft -A FORWARD -j REJECT"),
            });
        }
        None
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
    firewalld: Option<Firewalld>,
    /// Whether somebody else keeps the outside from what is not published.
    is_closed: bool,
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
        let host = backend.settle_on(neighbourhood.host());
        let outside = host.outside();
        let firewalld = neighbourhood.settle_on(&host);
        let web = host.cni(backend.network("web", &["10.20.0.0/24", "fd20::/64"]));
        let db = host.cni(backend.network("db", &["10.30.0.0/24", "fd30::/64"]));
        let vault = backend.network("vault", &["10.40.0.0/24", "fd40::/64"]).with("isolation", json!("strict"));
        let vault = host.cni(vault);
        outside.run(
            "for net in 10.20.0.0 10.40.0.0; do ip route add $net/24 via 198.51.100.1; done
             for net in fd20:: fd40::; do ip -6 route add $net/64 via 2001:db8:51::1; done",
        );
        let ports = [Publish::tcp(8080, 80), Publish::tcp(8081, 80).on(Outside::HOST_V4), Publish::udp(8080, 80)];
        let one = Container::on(&host, &web, "one", &ports);
        let two = Container::on(&host, &web, "two", &[]);
        let other = Container::on(&host, &db, "other", &[]);
        let kept = Container::on(&host, &vault, "kept", &[Publish::tcp(8090, 80)]);
        let world = serve(&*outside, "world", 80);
        Self {
            host,
            outside,
            web,
            db,
            vault,
            one,
            two,
            other,
            kept,
            _world: world,
            firewalld,
            is_closed: neighbourhood != Neighbourhood::Quiet,
        }
    }

    /// Every way there is, in one family.
    fn check(&self, v6: bool) {
        let (world, host_address): (IpAddr, IpAddr) =
            if v6 { (Outside::V6, Outside::HOST_V6) } else { (Outside::V4, Outside::HOST_V4) };
        let answer = fetch(&self.two.netns, world, 80).unwrap_or_else(|error| panic!("egress: {error}"));
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("world", host_address), "masqueraded");

        let answer = fetch(&*self.outside, host_address, 8080).unwrap_or_else(|error| panic!("from outside: {error}"));
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("one", world), "with its true source");
        let udp = Udp::open(&*self.outside, v6);
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

        // What was not published is as open, or as closed, as it is without us.
        if self.is_closed {
            nobody_answers(&*self.outside, self.two.address(v6), 80);
            assert!(Udp::open(&*self.outside, v6).probe(self.two.address(v6), 80).is_err());
        } else {
            assert_eq!(who_answers(&*self.outside, self.two.address(v6), 80), "two", "an open network");
        }
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
            let is_admission = |line: &str| line.contains("netcore:") && line.ends_with("-j ACCEPT");
            assert!(!left.lines().any(is_admission), "{program}: {left}");
        }
        drop((self.web, self.db, self.vault));
    }
}

fn row(backend: Backend, neighbourhoods: impl IntoIterator<Item = Neighbourhood>) {
    for neighbourhood in neighbourhoods {
        let mut world = World::new(backend, neighbourhood);
        let check = |world: &World, when: &str| {
            for v6 in [false, true] {
                println!("{backend:?}, {neighbourhood:?}, {}{when}", if v6 { "IPv6" } else { "IPv4" });
                world.check(v6);
            }
        };
        check(&world, "");
        if let Some(firewalld) = &mut world.firewalld {
            firewalld.undergo(Event::Reload);
            netctl(&world.host, "repair-chains").ended(0);
            check(&world, ", after a reload and one repair");
        }
        world.ends();
    }
}

fn row_beside_firewalld(backend: Backend) {
    if let Some(reason) = Firewalld::missing() {
        skip!("{reason}");
    }
    row(backend, firewalld::Backend::ALL.map(Neighbourhood::Firewalld));
}

#[test]
fn nftables() {
    row(Backend::Nftables, Neighbourhood::without_firewalld());
}

#[test]
fn nftables_beside_firewalld() {
    row_beside_firewalld(Backend::Nftables);
}

#[test]
fn iptables_nft() {
    row(Backend::IptablesNft, Neighbourhood::without_firewalld());
}

#[test]
fn iptables_nft_beside_firewalld() {
    row_beside_firewalld(Backend::IptablesNft);
}

#[test]
fn iptables_legacy() {
    needs!(IptablesLegacy);
    row(Backend::IptablesLegacy, Neighbourhood::without_firewalld());
}

#[test]
fn iptables_legacy_beside_firewalld() {
    needs!(IptablesLegacy);
    row_beside_firewalld(Backend::IptablesLegacy);
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
