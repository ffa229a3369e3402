//! Side by side with the reference `host-local` binary on one directory: either can take over
//! from the other.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

const REFERENCE: &str = "/usr/lib/cni/host-local";

/// A host both work on; `None`, said why, without the reference.
fn host(section: Value) -> Option<Host> {
    if Path::new(REFERENCE).exists() {
        return Some(Host::new(section));
    }
    eprintln!("skipped: no {REFERENCE} (Debian: containernetworking-plugins)");
    None
}

/// Has the reference do `verb` for `who`; its addresses after an ADD, or its complaint.
fn reference(host: &Host, verb: &str, who: &str, asked: &[&str]) -> Result<Vec<String>, String> {
    let id: AttachmentId = who.parse().unwrap();
    let config = json!({"cniVersion": "1.0.0", "name": "web", "ipam": host.section, "runtimeConfig": {"ips": asked}});
    let mut child = Command::new(REFERENCE)
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id.container.as_str())
        .env("CNI_IFNAME", id.interface.as_str())
        .env("CNI_NETNS", "/run/netns/no-such")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if !output.status.success() {
        return Err(answer["msg"].as_str().unwrap_or_default().to_owned());
    }
    let ips = answer["ips"].as_array().cloned().unwrap_or_default();
    Ok(ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn the_two_take_turns_and_respect_each_other() {
    let Some(host) = host(json!({"ranges": [[{"subnet": "10.20.0.0/29"}], [{"subnet": "fd00:20::/64"}]]})) else {
        return;
    };
    assert_eq!(reference(&host, "ADD", "a", &[]).unwrap(), ["10.20.0.2/29", "fd00:20::2/64"]);
    assert_eq!(host.add("b", &[]).unwrap(), ["10.20.0.3/29", "fd00:20::3/64"]);
    assert_eq!(reference(&host, "ADD", "c", &[]).unwrap(), ["10.20.0.4/29", "fd00:20::4/64"]);
    assert_eq!(host.add("d", &[]).unwrap(), ["10.20.0.5/29", "fd00:20::5/64"]);

    let taken = host.add("e", &["10.20.0.2"]).unwrap_err().to_string();
    assert_eq!(taken, "network web: address 10.20.0.2 is reserved for a/eth0");
    assert!(reference(&host, "ADD", "e", &["10.20.0.3"]).unwrap_err().contains("10.20.0.3 is not available"));
    assert!(reference(&host, "ADD", "b", &[]).unwrap_err().contains("duplicate allocation"));

    assert_eq!(host.add("e", &[]).unwrap()[0], "10.20.0.6/29");
    assert!(matches!(host.add("f", &[]), Err(Error::PoolExhausted { .. })));
    assert!(reference(&host, "ADD", "f", &[]).unwrap_err().contains("no IP addresses available"));
}

#[test]
fn either_takes_back_what_the_other_gave_out() {
    let Some(host) = host(json!({"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64"}]]})) else {
        return;
    };
    reference(&host, "ADD", "theirs", &[]).unwrap();
    host.add("ours", &[]).unwrap();
    reference(&host, "CHECK", "ours", &[]).unwrap();
    host.check("theirs", None).unwrap();

    reference(&host, "DEL", "ours", &[]).unwrap();
    host.del("theirs", None);
    assert_eq!(host.names(), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]);

    reference(&host, "ADD", "theirs", &[]).unwrap();
    host.gc(&[]);
    assert!(host.reserved().is_empty());
}

#[test]
fn ranges_and_gateways_mean_the_same_to_both() {
    let sections = [
        json!({"subnet": "10.20.0.0/24", "rangeStart": "10.20.0.1", "rangeEnd": "10.20.0.3"}),
        json!({"subnet": "10.20.0.0/29", "gateway": "10.20.0.4"}),
        json!({"subnet": "fd00::/125"}),
        json!({"subnet": "10.20.0.0/30", "ranges": [[{"subnet": "10.21.0.0/30"}, {"subnet": "10.22.0.0/30"}]]}),
        json!({"ranges": [[{"subnet": "10.21.0.0/30"}, {"subnet": "10.22.0.0/29", "rangeStart": "10.22.0.5"}]]}),
    ];
    for section in sections {
        let Some(theirs) = host(section.clone()) else { return };
        let ours = Host::new(section.clone());
        for number in 0..8 {
            let who = format!("c{number}");
            let (ours, theirs) = (ours.add(&who, &[]).ok(), reference(&theirs, "ADD", &who, &[]).ok());
            assert_eq!(ours, theirs, "{section}, turn {number}");
        }
    }
}

#[test]
fn both_at_once_share_the_lock() {
    let Some(host) = host(json!({"subnet": "10.20.0.0/24"})) else { return };
    let given = std::thread::scope(|scope| {
        let host = &host;
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                scope.spawn(move || {
                    let who = |turn| format!("c{worker}-{turn}");
                    let add = |turn| {
                        if worker % 2 == 0 {
                            host.add(&who(turn), &[]).unwrap()
                        } else {
                            reference(host, "ADD", &who(turn), &[]).unwrap()
                        }
                    };
                    (0..8).flat_map(add).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(given.len(), 128);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 128, "{given:?}");
    assert_eq!(host.reserved().len(), 128);
}
