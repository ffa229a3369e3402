//! The real kernel, in namespaces that end with the test.

mod attach;
mod events;
mod links;
mod netns;
mod packets;
mod speed;
mod ways;

use std::future::Future;
use std::net::IpAddr;
use std::panic;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Kernel, Linux, Netns};
use crate::model::{
    Address, AttachmentId, Bridge, Link, LinkKind, Mark, Name, Object, Place, Port, Rivals, Route, Sysctl, Veth,
};

/// Runs `body` as the only thing on a host of its own: fresh network and mount namespaces, an
/// empty `/run`.
pub(super) fn on_a_host(body: impl FnOnce() + Send + 'static) {
    let host = thread::spawn(|| {
        // SAFETY: files stay shared; only the network and what is mounted are this thread's own.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
        body();
    });
    host.join().unwrap_or_else(|failure| panic::resume_unwind(failure));
}

/// As [`on_a_host`], with the kernel and a runtime to drive it.
fn with_kernel<F: Future<Output = ()>>(body: impl FnOnce(Linux) -> F + Send + 'static) {
    on_a_host(|| block_on(body(Linux::host())));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn mark(of: &str) -> Mark {
    let (network, attachment) = of.split_once('/').unwrap_or((of, ""));
    let network = Name::new(network).unwrap();
    match attachment {
        "" => Mark::of_network(&network),
        attachment => attachment.parse::<AttachmentId>().unwrap().mark(&network),
    }
}

fn bridge(name: &str) -> Link {
    Link {
        place: Place::Host,
        name: name.parse().unwrap(),
        kind: LinkKind::Bridge(Bridge::default()),
        mark: Some(mark("web")),
        mac: None,
        mtu: None,
        up: true,
        port: None,
    }
}

fn veth(name: &str, on: &str) -> Link {
    let peer = Veth {
        peer: "eth0".parse().unwrap(),
        peer_mac: Some("0a:58:0a:14:00:02".parse().unwrap()),
        peer_mtu: Some(1450),
        peer_up: true,
        peer_skips_dad: false,
    };
    Link {
        kind: LinkKind::Veth(peer),
        mark: Some(mark("web/web-1")),
        mtu: Some(1450),
        port: Some(Port { bridge: on.parse().unwrap(), hairpin: true, isolated: false, vlans: None }),
        ..bridge(name)
    }
}

fn address(place: Place, link: &str, address: &str) -> Address {
    Address { place, link: link.parse().unwrap(), address: address.parse().unwrap(), dad: false, rivals: Rivals::Allow }
}

fn route(destination: &str, gateway: &str) -> Route {
    Route {
        place: Place::Sandbox,
        link: "eth0".parse().unwrap(),
        destination: destination.parse().unwrap(),
        gateway: Some(gateway.parse::<IpAddr>().unwrap()),
        onlink: false,
        mtu: None,
        advmss: None,
        metric: None,
        table: None,
        scope: None,
        source: None,
    }
}

fn sysctl(place: Place, name: &str, value: &str) -> Sysctl {
    Sysctl { place, name: name.to_owned(), value: value.to_owned() }
}

/// Everything a dual-stack attachment stands on but the firewall, in the order it is made.
fn attachment() -> Vec<Object> {
    vec![
        Object::Link(bridge("br-web")),
        Object::Link(veth("veth1", "br-web")),
        Object::Address(address(Place::Host, "br-web", "10.20.0.1/24")),
        Object::Address(address(Place::Host, "br-web", "fd00:20::1/64")),
        Object::Address(address(Place::Sandbox, "eth0", "10.20.0.2/24")),
        Object::Address(address(Place::Sandbox, "eth0", "fd00:20::2/64")),
        Object::Route(route("0.0.0.0/0", "10.20.0.1")),
        Object::Route(Route { mtu: Some(1400), metric: Some(77), ..route("10.99.0.0/16", "10.20.0.1") }),
        Object::Route(Route { table: Some(1000), ..route("10.98.0.0/16", "10.20.0.1") }),
        Object::Route(route("::/0", "fd00:20::1")),
        Object::Sysctl(sysctl(Place::Host, "net/ipv4/ip_forward", "1")),
        Object::Sysctl(sysctl(Place::Sandbox, "net/ipv4/conf/eth0/accept_redirects", "0")),
    ]
}

/// Makes each of `objects`, as the engine does.
async fn create_all(kernel: &Linux, objects: &[Object]) {
    for object in objects {
        kernel.create(std::slice::from_ref(object)).await.unwrap_or_else(|error| panic!("{object}: {error}"));
    }
}

/// The differences between `objects` and what is there, one line each.
async fn drift(kernel: &Linux, objects: &[Object]) -> Vec<String> {
    let state = kernel.observe(objects).await.unwrap();
    crate::plan::drift(objects, &state).iter().map(ToString::to_string).collect()
}

/// A sandbox called `name`, entered.
async fn enter(kernel: &Linux, name: &str) -> Linux {
    let netns = Netns::create(name).unwrap();
    kernel.enter(netns.path()).await.unwrap()
}

/// Runs `ip` with the words of `command`, in the sandbox `netns` if one is given.
fn ip(netns: Option<&str>, command: &str) -> String {
    let mut ip = std::process::Command::new("ip");
    if let Some(name) = netns {
        ip.args(["-n", name]);
    }
    let output = ip.args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
