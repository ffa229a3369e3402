//! What `doctor` says is what packets do: for every fault, traffic is sent and does not get through,
//! the fault is named, its cure is run as it was printed, and then the same traffic gets through.

mod faults;
mod lan;
mod rules;

use std::net::{IpAddr, Ipv4Addr};

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{Place, Server, Udp, fetch, nobody_answers, serve};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, binaries};

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 2));

/// A host with a container that publishes a port, a neighbour of it, and the world outside.
struct World {
    host: Host,
    outside: Outside,
    web: Cni,
    container: Netns,
    neighbour: Netns,
    published: Attachment,
    _servers: [Server; 3],
    _other: Attachment,
}

impl World {
    fn new() -> Self {
        Self::on(Host::new(), Network::bridge("web", SUBNETS))
    }

    fn on(host: Host, network: Network) -> Self {
        let outside = host.outside();
        let web = host.cni(network);
        let (container, neighbour) = (host.netns("web-1"), host.netns("web-2"));
        let published =
            web.attachment(&container).publish(Publish::tcp(8080, 80)).publish(Publish::udp(8080, 80)).added();
        let other = web.attachment(&neighbour).added();
        let servers =
            [serve(&container, "web-1", 80), serve(&neighbour, "web-2", 80), serve(&*outside, "outside", 443)];
        Self { host, outside, web, container, neighbour, published, _servers: servers, _other: other }
    }

    /// A line with the names of this host's links.
    fn line(&self, text: &str) -> String {
        text.replace("VETH", &self.published.host_interface())
    }

    /// Runs a command as `doctor` printed it.
    fn cure(&self, command: &str) {
        cure(&self.host, command);
    }

    /// What `doctor` says about one flow: its exit code, what stops it, and the cure.
    #[track_caller]
    fn diagnose(&self, flow: &str) -> (i32, String, Option<String>) {
        diagnose(&self.host, flow)
    }

    #[track_caller]
    fn passes(&self, flow: &str) {
        passes(&self.host, flow);
    }
}

/// Runs a command on `host` as `doctor` printed it.
fn cure(host: &Host, command: &str) {
    let netctl = binaries::under_test().join("netctl");
    host.run(&command.replace("netctl ", &format!("{} ", netctl.display())));
}

/// What `doctor` says on `host` about one flow: its exit code, what stops it, and the cure.
#[track_caller]
fn diagnose(host: &Host, flow: &str) -> (i32, String, Option<String>) {
    let told = netctl(host, &format!("--json doctor --flow '{flow}'"));
    assert!(matches!(told.code, 0 | 1 | 3), "{flow}: {}{}", told.text, told.complaint);
    let diagnosis = &told.json()[0];
    let stopped = &diagnosis["stopped"];
    let text = format!("{}: {} {}", stopped["at"].as_str().unwrap_or("-"), stopped["by"], diagnosis["doubts"]);
    (told.code, text, stopped["cure"]["command"].as_str().map(str::to_owned))
}

#[track_caller]
fn passes(host: &Host, flow: &str) {
    let told = netctl(host, &format!("doctor -v --flow '{flow}'"));
    assert_eq!(told.code, 0, "{flow}:\n{}{}", told.text, told.complaint);
}

/// Traffic, and how `doctor` is asked about it.
struct Traffic {
    flow: &'static str,
    from: fn(&World) -> Box<dyn Sender + '_>,
    to: IpAddr,
    port: u16,
}

/// Anywhere that packets are sent from.
trait Sender {
    fn asks(&self, to: IpAddr, port: u16) -> bool;
    fn is_heard_by_nobody(&self, to: IpAddr, port: u16);
}

impl<P: Place> Sender for &P {
    fn asks(&self, to: IpAddr, port: u16) -> bool {
        fetch(*self, to, port).is_ok()
    }

    fn is_heard_by_nobody(&self, to: IpAddr, port: u16) {
        nobody_answers(*self, to, port);
    }
}

const IN: Traffic =
    Traffic { flow: "outside→host:8080", from: |world| Box::new(&*world.outside), to: Outside::HOST_V4, port: 8080 };
const IN6: Traffic = Traffic { flow: "outside->[2001:db8:51::1]:8080/tcp", to: Outside::HOST_V6, ..IN };
const LOCAL: Traffic =
    Traffic { flow: "host→host:8080", from: |world| Box::new(&world.host), to: LOOPBACK, port: 8080 };
const OUT: Traffic =
    Traffic { flow: "web-1→outside:443", from: |world| Box::new(&world.container), to: Outside::V4, port: 443 };
const OUT6: Traffic = Traffic {
    flow: "web-1→[2001:db8:51::2]:443",
    from: |world| Box::new(&world.container),
    to: Outside::V6,
    port: 443,
};
const SIDEWAYS: Traffic =
    Traffic { flow: "web-2→web-1:80", from: |world| Box::new(&world.neighbour), to: CONTAINER, port: 80 };
const HAIRPIN: Traffic = Traffic {
    flow: "web-2→198.51.100.1:8080",
    from: |world| Box::new(&world.neighbour),
    to: Outside::HOST_V4,
    port: 8080,
};

const SIDE: Traffic = Traffic {
    flow: "203.0.113.9→192.0.2.1:8080",
    from: |world| Box::new(&*world.outside),
    to: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    port: 8080,
};

const HOST: Traffic = Traffic { flow: "outside→host:7777", port: 7777, ..IN };

const ALL: [&Traffic; 7] = [&IN, &IN6, &LOCAL, &OUT, &OUT6, &SIDEWAYS, &HAIRPIN];

/// What somebody does, the traffic that it stops, and what `doctor` says about it.
struct Fault {
    done: &'static str,
    /// In the container instead of on the host.
    inside: bool,
    stops: &'static Traffic,
    named: &'static [&'static str],
}

const fn on_host(done: &'static str, stops: &'static Traffic, named: &'static [&'static str]) -> Fault {
    Fault { done, inside: false, stops, named }
}

const fn inside(done: &'static str, stops: &'static Traffic, named: &'static [&'static str]) -> Fault {
    Fault { done, inside: true, stops, named }
}

/// Breaks, sends, diagnoses, cures as printed, sends again.
#[track_caller]
fn prove(world: &World, fault: &Fault) {
    let Fault { done, stops, named, .. } = fault;
    assert!((stops.from)(world).asks(stops.to, stops.port), "before `{done}`: no answer to {}", stops.flow);
    world.passes(stops.flow);
    let command = world.line(done);
    if fault.inside {
        world.container.run(&command)
    } else {
        world.host.run(&command)
    };
    (stops.from)(world).is_heard_by_nobody(stops.to, stops.port);
    let mut cured = false;
    // What lets a packet in need not let its answer out.
    for _ in 0..3 {
        let (code, told, cure) = world.diagnose(stops.flow);
        if code == 0 {
            break;
        }
        assert_eq!(code, 1, "after `{done}`: {told}");
        let is_named = named.iter().all(|words| told.contains(&world.line(words)));
        assert!(cured || is_named, "after `{done}`: {named:?} not in {told}");
        let cure = cure.unwrap_or_else(|| panic!("after `{done}`: no command in {told}"));
        world.cure(&cure);
        cured = true;
    }
    assert!(cured, "after `{done}`: {} does not pass, and nothing is found", stops.flow);
    assert!((stops.from)(world).asks(stops.to, stops.port), "`{done}` is not cured: no answer to {}", stops.flow);
    world.passes(stops.flow);
}

#[test]
fn what_gets_through_is_said_to() {
    let world = World::new();
    for traffic in ALL {
        assert!((traffic.from)(&world).asks(traffic.to, traffic.port), "no answer to {}", traffic.flow);
        world.passes(traffic.flow);
    }
    let udp = Udp::open(&*world.outside, false);
    udp.ask(Outside::HOST_V4, 8080).unwrap();
    world.passes("outside→host:8080/udp");
    world.passes("outside→web-1:80/udp");
    world.passes("outside→web-1:80");
    world.passes("host→web-1:80");
    world.passes("198.51.100.2->198.51.100.3:8080");
    // And all that should, without asking for anything in particular.
    for arguments in ["doctor", "doctor web", "doctor web-1"] {
        let told = netctl(&world.host, arguments).ended(0);
        assert!(told.says(&["outside→host:8080/tcp", "passes"]), "{}", told.text);
        assert!(told.says(&["web-1→outside:443/tcp", "passes"]), "{}", told.text);
    }
    netctl(&world.host, "doctor nobody").ended(2);
    netctl(&world.host, "doctor --flow nonsense").ended(2);
}
