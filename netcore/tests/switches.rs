//! What the engine promises of the host's switches, on a kernel in memory and real files: what it
//! switches goes back with the last network, and what somebody has switched off stays off.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Host, run, wish};
use netcore::engine::{Outcome, RepairOptions};
use netcore::model::{Object, Place, Sysctl};

const ALL: &str = "net/ipv4/ip_forward";
const ETH1: &str = "net/ipv4/conf/eth1/forwarding";

fn setting(name: &str, value: &str) -> Object {
    Object::Sysctl(Sysctl { place: Place::Host, name: name.to_owned(), value: value.to_owned() })
}

fn value(host: &Host, name: &str) -> String {
    let objects = host.kernel.objects();
    let found = objects.iter().find_map(|object| match object {
        Object::Sysctl(setting) if setting.name == name => Some(setting.value.clone()),
        _ => None,
    });
    found.unwrap()
}

fn set(host: &Host, name: &str, to: &str) {
    let was = setting(name, &value(host, name));
    host.kernel.take(&was);
    host.kernel.put(setting(name, to));
}

/// A host whose switches are `all` and, of another interface, `eth1`.
fn host(all: &str, eth1: &str) -> Host {
    let host = Host::new();
    host.kernel.put(setting(ALL, all));
    host.kernel.put(setting(ETH1, eth1));
    host
}

fn ledger(host: &Host) -> bool {
    host.directory.path().join("records.switches").exists()
}

#[test]
fn what_was_switched_goes_back_with_the_last_network() {
    let host = host("0", "0");
    let (web, db) = (host.network("web", "10.20.0.0/24"), host.network("db", "10.30.0.0/24"));
    run(async {
        host.engine.attach(&web, wish("web-1")).await.unwrap();
        host.engine.attach(&db, wish("db-1")).await.unwrap();
        assert_eq!((value(&host, ALL), value(&host, ETH1)), ("1".into(), "1".into()));
        host.engine.detach(&web, "web-1").await.unwrap();
        assert_eq!(value(&host, ALL), "1", "the other network is still there");
        host.engine.detach(&db, "db-1").await.unwrap();
    });
    assert_eq!((value(&host, ALL), value(&host, ETH1)), ("0".into(), "0".into()));
    assert!(!ledger(&host));
}

#[test]
fn what_was_on_before_stays_on_and_so_does_what_others_switched_since() {
    let web_comes_and_goes = |host: &Host, meanwhile: &dyn Fn()| {
        let web = host.network("web", "10.20.0.0/24");
        run(async {
            host.engine.attach(&web, wish("web-1")).await.unwrap();
            meanwhile();
            host.engine.detach(&web, "web-1").await.unwrap();
        });
    };
    let on = host("1", "0");
    web_comes_and_goes(&on, &|| {});
    assert_eq!((value(&on, ALL), value(&on, ETH1)), ("1".into(), "0".into()));
    let off = host("0", "0");
    web_comes_and_goes(&off, &|| set(&off, ALL, "2"));
    assert_eq!(value(&off, ALL), "2");
}

#[test]
fn who_forwards_by_single_interfaces_keeps_them() {
    let host = host("0", "0");
    let eth2 = "net/ipv4/conf/eth2/forwarding";
    host.kernel.put(setting(eth2, "1"));
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        host.engine.attach(&web, wish("web-1")).await.unwrap();
        assert_eq!([ALL, ETH1, eth2].map(|name| value(&host, name)), ["1", "0", "1"]);
        host.engine.detach(&web, "web-1").await.unwrap();
    });
    assert_eq!([ALL, ETH1, eth2].map(|name| value(&host, name)), ["0", "0", "1"]);
}

#[test]
fn what_was_off_stays_off_when_all_is_switched_off_and_on_again() {
    let host = host("1", "0");
    let web = host.network("web", "10.20.0.0/24");
    run(host.engine.attach(&web, wish("web-1"))).unwrap();
    set(&host, ALL, "0");
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert_eq!((value(&host, ALL), value(&host, ETH1)), ("1".into(), "0".into()));
    let found: Vec<_> = report.objects.iter().map(|object| (&*object.object, &*object.found)).collect();
    assert!(found.contains(&("sysctl net.ipv4.conf.eth1.forwarding (host)", "switched on with all")), "{found:?}");
    assert!(report.objects.iter().all(|object| object.outcome == Outcome::Restored));
    // Somebody means it.
    set(&host, ETH1, "1");
    assert_eq!(run(host.engine.repair(&RepairOptions::default())).unwrap().objects, []);
    set(&host, ALL, "0");
    run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert_eq!(value(&host, ETH1), "1");
}

#[test]
fn a_check_switches_nothing_and_writes_nothing_down() {
    let host = host("1", "0");
    let web = host.network("web", "10.20.0.0/24");
    run(host.engine.attach(&web, wish("web-1"))).unwrap();
    let path = host.directory.path().join("records.switches");
    std::fs::remove_file(&path).unwrap();
    set(&host, ALL, "0");
    run(host.engine.repair(&RepairOptions { network: None, check: true })).unwrap();
    assert_eq!(value(&host, ALL), "0");
    assert!(!ledger(&host));
}

#[test]
fn who_dies_over_it_leaves_what_heals() {
    for changes in 0.. {
        let host = host("1", "0");
        let web = host.network("web", "10.20.0.0/24");
        run(host.engine.attach(&web, wish("web-1"))).unwrap();
        set(&host, ALL, "0");
        host.kernel.kill_after(changes);
        let died = catch_unwind(AssertUnwindSafe(|| run(host.engine.repair(&RepairOptions::default())))).is_err();
        run(host.engine.repair(&RepairOptions::default())).unwrap();
        assert_eq!((value(&host, ALL), value(&host, ETH1)), ("1".into(), "0".into()), "after {changes} changes");
        if !died {
            assert!(changes > 1, "it was never killed");
            return;
        }
    }
}

#[test]
fn a_ledger_that_makes_no_sense_keeps_nobody_from_anything() {
    let host = host("0", "0");
    let web = host.network("web", "10.20.0.0/24");
    std::fs::write(host.directory.path().join("records.switches"), "{\"switched").unwrap();
    run(async {
        host.engine.attach(&web, wish("web-1")).await.unwrap();
        assert_eq!(value(&host, ALL), "1");
        host.engine.detach(&web, "web-1").await.unwrap();
    });
    assert_eq!(value(&host, ALL), "0");
}
