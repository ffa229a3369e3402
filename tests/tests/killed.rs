//! `kill -9` at every system call that changes something: whatever was under way, the next DEL or
//! GC leaves the host as it was.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use netcore_tests::cluster::{Cluster, Wire};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish, Snapshot, binaries, skip};
use serde_json::json;

const SIGKILL: i32 = 9;

/// The calls by which the kernel and files are changed.
const CHANGES: &[&str] =
    &["sendto", "write", "rename", "unlink", "unlinkat", "mkdir", "linkat", "fsetxattr", "mount", "umount2"];

/// Calls `verb` and has it killed at its `number`th `call`; false when there are not so many.
fn killed(host: &Host, attachment: &Attachment, verb: &str, call: &str, number: u32) -> bool {
    let plugin = attachment.first_plugin();
    let plain = plugin.command(verb);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/run/trace", &format!("--trace={call}")]);
    traced.arg(format!("--inject={call}:signal=KILL:when={number}")).arg(plain.get_program());
    traced.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = host.enter(|| traced.spawn()).expect("start strace");
    // Whoever is killed early has not read it.
    let _ = child.stdin.take().expect("piped").write_all(plugin.configuration());
    let status = child.wait().expect("wait for strace");
    status.signal() == Some(SIGKILL)
}

/// Kills ADD and DEL at every change, and has DEL and GC by turns put things right.
fn whatever_was_done_is_undone(host: &Host, network: &Cni, netns: &Netns, attachment: &Attachment) {
    // What stays on purpose is there from now on.
    attachment.clone().added().del().unwrap();
    let before = host.snapshot();
    let inside = || netns.run("ip -br link | cut -d' ' -f1");
    let links = inside();
    let mut points = 0;
    for verb in ["ADD", "DEL"] {
        for call in CHANGES {
            for number in 1.. {
                if verb == "DEL" {
                    let _ = attachment.clone().added();
                }
                if !killed(host, attachment, verb, call, number) {
                    attachment.del().unwrap();
                    break;
                }
                points += 1;
                let when = format!("after {verb} was killed at {call} number {number}");
                match number % 3 {
                    0 => attachment.clone().without_netns().del().unwrap_or_else(|failure| panic!("{when}: {failure}")),
                    1 => network.gc(&[]).unwrap_or_else(|failure| panic!("{when}: {failure}")),
                    _ => attachment.del().unwrap_or_else(|failure| panic!("{when}: {failure}")),
                }
                let now: Snapshot = host.snapshot();
                before.assert_same(&now, &when);
                assert_eq!(inside(), links, "{when}");
            }
        }
    }
    assert!(points > 10, "strace kills what it is told to: {points}");
}

fn missing() -> Option<String> {
    (!binaries::installed("strace")).then(|| "strace is not installed".to_owned())
}

#[test]
fn a_bridge_attachment() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let _outside = host.outside();
    let network = Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]).version("1.1.0");
    let network = network.with("removeEmptyBridge", json!(true)).with("macspoofchk", json!(true));
    let web = host.cni(network);
    let netns = host.netns("box");
    let attachment =
        web.attachment(&netns).publish(Publish::tcp(8080, 80)).publish(Publish::udp(53, 53).on(Outside::HOST_V4));
    whatever_was_done_is_undone(&host, &web, &netns, &attachment);
}

#[test]
fn a_macvlan_attachment_with_host_access() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    // The master is the default route's, and so only in the record.
    let _outside = host.outside();
    let ranges = json!([[{ "subnet": "198.51.100.0/24", "rangeStart": "198.51.100.100" }]]);
    let plugin = json!({ "type": "macvlan", "hostAccess": true, "ipam": { "type": "host-local", "ranges": ranges } });
    let lan = host.cni(Network::new("lan", plugin).version("1.1.0"));
    let netns = host.netns("box");
    whatever_was_done_is_undone(&host, &lan, &netns, &lan.attachment(&netns));
}

#[test]
fn an_attachment_to_an_overlay() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let cluster = Cluster::new(Wire::V4);
    let (host, mesh) = (cluster.host(1), cluster.cni(1));
    let netns = host.netns("box");
    whatever_was_done_is_undone(host, &mesh, &netns, &mesh.attachment(&netns).publish(Publish::tcp(8080, 80)));
}

#[test]
fn an_attachment_to_the_host() {
    if let Some(reason) = missing() {
        skip!("{reason}");
    }
    let host = Host::new();
    let own = host.cni(Network::new("own", json!({ "type": "host" })).version("1.1.0"));
    let netns = host.netns("box");
    // It is not its own links that one sees in there while it is bound to the host.
    whatever_was_done_is_undone(&host, &own, &netns, &own.attachment(&netns));
}
