//! What the engine promises of a repair, on a kernel in memory and real files: everything the
//! records ask for comes back, nothing else changes, and a second repair finds nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use common::{Host, run, wish};
use netcore::engine::{Outcome, RepairOptions};
use netcore::kernel::Kernel;
use netcore::model::{LinkKind, Mark, NatRule, Object, Place, Sysctl};
use netcore::store::Store;

const CHECK: RepairOptions = RepairOptions { network: None, check: true };

/// Two networks, three attachments, ports.
fn host() -> Host {
    let host = Host::new();
    let (web, db) = (host.network("web", "10.20.0.0/24"), host.network("db", "10.30.0.0/24"));
    run(async {
        host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        host.engine.attach(&web, wish("web-2")).await.unwrap();
        host.engine.attach(&db, wish("db-1").publish(5432, 5432)).await.unwrap();
    });
    host
}

fn on_host(object: &Object) -> bool {
    object.place().is_none_or(|place| place == Place::Host)
}

fn is_veth(object: &Object) -> bool {
    matches!(object, Object::Link(link) if matches!(link.kind, LinkKind::Veth(_)))
}

fn sorted(host: &Host) -> Vec<String> {
    let mut objects: Vec<String> = host.kernel.objects().iter().map(|object| format!("{object:?}")).collect();
    objects.sort();
    objects
}

#[test]
fn what_is_intact_is_left_alone() {
    let host = host();
    let before = host.kernel.objects();
    // Any change would spring the trap.
    host.kernel.fail_after(0);
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert!(host.kernel.disarm());
    assert_eq!((report.attachments, report.objects, report.faults), (3, vec![], vec![]));
    assert_eq!(host.kernel.objects(), before);
}

#[test]
fn every_single_thing_that_is_lost_is_named_by_a_check_and_brought_back_by_a_repair() {
    let host = host();
    let whole = sorted(&host);
    for lost in host.kernel.objects().iter().filter(|object| on_host(object) && !is_veth(object)) {
        host.kernel.take(lost);
        let damaged = sorted(&host);
        let found = run(host.engine.repair(&CHECK)).unwrap();
        assert_eq!(sorted(&host), damaged, "a check changes nothing");
        let named: Vec<_> = found.objects.iter().map(|object| (&*object.object, &*object.found)).collect();
        assert_eq!(named, [(&*lost.to_string(), "missing")]);
        assert_eq!(found.objects[0].outcome, Outcome::Left);
        let done = run(host.engine.repair(&RepairOptions::default())).unwrap();
        assert_eq!(done.count(|outcome| *outcome == Outcome::Restored), 1, "{lost}: {done:?}");
        assert_eq!(sorted(&host), whole, "after {lost}");
    }
}

#[test]
fn after_total_loss_of_the_firewall_one_transaction_is_enough() {
    let host = host();
    let whole = sorted(&host);
    for object in host.kernel.objects() {
        if matches!(object, Object::Nat(_)) {
            host.kernel.take(&object);
        }
    }
    host.kernel.fail_after(1);
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert!(host.kernel.disarm(), "one change to the kernel, not more: {report:?}");
    assert!(report.objects.iter().all(|object| object.outcome == Outcome::Restored), "{report:?}");
    assert_eq!(sorted(&host), whole);
    let again = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert_eq!(again.objects, []);
}

/// A crowd on one network, and their firewall gone.
fn crowd() -> Host {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/16");
    run(async {
        for number in 0..100 {
            host.engine.attach(&web, wish(&format!("c{number}")).publish(9000 + number, 80)).await.unwrap();
        }
    });
    host
}

fn lose_firewall(host: &Host) {
    for object in host.kernel.objects() {
        if matches!(object, Object::Nat(_)) {
            host.kernel.take(&object);
        }
    }
}

#[test]
fn a_crowd_comes_back_in_one_transaction_and_leaves_no_lock_behind() {
    let host = crowd();
    let (whole, records) = (sorted(&host), host.records());
    lose_firewall(&host);
    host.kernel.fail_after(1);
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert!(host.kernel.disarm(), "one change to the kernel, not more: {report:?}");
    assert_eq!((sorted(&host), host.records()), (whole, records));
    let web = host.network("web", "10.20.0.0/16");
    run(host.engine.detach(&web, "c0")).unwrap();
}

/// Of a network where somebody is being detached, each attachment is locked by itself.
#[test]
fn one_of_a_crowd_that_goes_meanwhile_is_waited_for_and_not_brought_back() {
    let host = crowd();
    let web = host.network("web", "10.20.0.0/16");
    let store = Store::new(host.directory.path().join("records"));
    lose_firewall(&host);
    let id = wish("c7").id;
    let (shared, own) = (store.share_network(&web.name).unwrap(), store.lock_attachment(&web, &id).unwrap());
    let inode = fs::metadata(host.directory.path().join("records/web/c7@eth0.bridge.lock")).unwrap().ino();
    let report = thread::scope(|scope| {
        let repair = scope.spawn(|| run(host.engine.repair(&RepairOptions::default())).unwrap());
        // proc_locks(5): who waits comes behind an arrow.
        let is_waited_for = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
        while !fs::read_to_string("/proc/locks").unwrap().lines().any(is_waited_for) {
            assert!(!repair.is_finished(), "it did not wait");
            thread::yield_now();
        }
        store.remove(&web, &id).unwrap();
        drop((own, shared));
        repair.join().unwrap()
    });
    let of_it = |object: &Object| object.mark().is_some_and(|mark| mark.to_string().contains("/c7/"));
    assert!(report.objects.iter().all(|object| object.who != "web/c7"), "{report:?}");
    assert!(!host.kernel.objects().iter().any(|object| matches!(object, Object::Nat(_)) && of_it(object)));
    assert_eq!(report.count(|outcome| *outcome == Outcome::Restored), report.objects.len(), "{report:?}");
    assert!(report.objects.len() > 2 * 99, "{report:?}");
    assert_eq!(report.faults, [""; 0]);
}

#[test]
fn a_link_that_is_gone_comes_back_with_what_was_inside() {
    let host = host();
    let web = host.network("web", "10.20.0.0/24");
    let whole = sorted(&host);
    let link = host.kernel.objects().into_iter().find(is_veth).unwrap();
    run(async {
        let inside = host.kernel.enter(Some("/run/netns/web-1".as_ref())).await.unwrap();
        inside.remove(std::slice::from_ref(&link)).await.unwrap();
        assert_ne!(sorted(&host), whole);
        let report = host.engine.repair(&RepairOptions::default()).await.unwrap();
        assert!(report.objects.iter().all(|object| object.outcome == Outcome::Restored), "{report:?}");
        host.engine.check(&web, "web-1").await.unwrap();
    });
    assert_eq!(sorted(&host), whole);
}

#[test]
fn what_somebody_else_has_taken_is_said_and_does_not_keep_the_rest_from_it() {
    let host = host();
    let rules: Vec<Object> =
        host.kernel.objects().into_iter().filter(|object| matches!(object, Object::Nat(_))).collect();
    rules.iter().for_each(|rule| host.kernel.take(rule));
    let stranger = Mark::parse("netcore:other/stranger/eth0").unwrap();
    let taken = rules.iter().find_map(|rule| match rule {
        Object::Nat(NatRule::Publish { host_port: 8080, .. }) => Some(rule.clone()),
        _ => None,
    });
    let mut taken = taken.unwrap();
    if let Object::Nat(NatRule::Publish { mark, to, .. }) = &mut taken {
        *mark = stranger;
        *to = "10.40.0.2:80".parse().unwrap();
    }
    host.kernel.put(taken.clone());
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    let failed: Vec<_> =
        report.objects.iter().filter(|object| matches!(object.outcome, Outcome::Failed { .. })).collect();
    assert_eq!(failed.len(), 1, "{report:?}");
    let Outcome::Failed { reason } = &failed[0].outcome else { unreachable!() };
    assert!(reason.contains("8080/tcp") && reason.contains("other/stranger"), "{reason}");
    assert_eq!(report.count(|outcome| *outcome == Outcome::Restored), rules.len() - 1);
    assert!(host.kernel.objects().contains(&taken), "theirs stays");
}

#[test]
fn a_setting_is_said_with_the_value_it_was_found_with() {
    let host = host();
    let name = "net/ipv4/ip_forward".to_owned();
    host.kernel.take(&Object::Sysctl(Sysctl { place: Place::Host, name: name.clone(), value: "1".to_owned() }));
    host.kernel.put(Object::Sysctl(Sysctl { place: Place::Host, name, value: "0".to_owned() }));
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    let object = &report.objects[0];
    assert_eq!((&*object.who, &*object.found, &object.outcome), ("host", "value 0", &Outcome::Restored));
    assert_eq!(run(host.engine.repair(&CHECK)).unwrap().objects, []);
}

#[test]
fn one_network_alone() {
    let host = host();
    for object in host.kernel.objects() {
        if matches!(object, Object::Nat(NatRule::Masquerade { .. })) {
            host.kernel.take(&object);
        }
    }
    let db = RepairOptions { network: Some("db".parse().unwrap()), check: false };
    let report = run(host.engine.repair(&db)).unwrap();
    assert_eq!((report.attachments, report.objects.len()), (1, 1));
    assert_eq!(report.objects[0].who, "db/db-1");
    assert_eq!(run(host.engine.repair(&CHECK)).unwrap().objects.len(), 2);
}

#[test]
fn bad_records_are_named_and_stay_and_the_rest_is_repaired() {
    let host = host();
    let records = host.directory.path().join("records");
    let (newer, torn) = (records.join("web/late@eth0.bridge.json"), records.join("web/torn@eth0.bridge.json"));
    let elsewhere = records.join("web/copy@eth0.bridge.json");
    fs::write(&newer, r#"{"version": 9}"#).unwrap();
    fs::write(&torn, r#"{"vers"#).unwrap();
    fs::copy(records.join("db/db-1@eth0.bridge.json"), &elsewhere).unwrap();
    for object in host.kernel.objects() {
        if matches!(object, Object::Nat(_)) {
            host.kernel.take(&object);
        }
    }
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert_eq!(report.faults.len(), 3, "{report:?}");
    for (path, reason) in [(&newer, "version 9"), (&torn, "EOF"), (&elsewhere, "db-1/eth0 on network db")] {
        let path = path.display().to_string();
        assert!(report.faults.iter().any(|fault| fault.contains(&path) && fault.contains(reason)), "{report:?}");
    }
    assert!(newer.exists() && torn.exists() && elsewhere.exists());
    assert!(report.objects.iter().all(|object| object.outcome == Outcome::Restored), "{report:?}");
}

#[test]
fn an_attachment_that_never_came_about_is_not_made() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    host.kernel.kill_after(0);
    let attach = std::panic::AssertUnwindSafe(|| run(host.engine.attach(&web, wish("web-1"))));
    std::panic::catch_unwind(attach).unwrap_err();
    // Without a lease nobody knows what there should be.
    let path = host.directory.path().join("records/web/web-1@eth0.bridge.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record.as_object_mut().unwrap().remove("lease");
    fs::write(&path, record.to_string()).unwrap();
    let report = run(host.engine.repair(&RepairOptions::default())).unwrap();
    assert_eq!((report.objects, host.kernel.objects()), (vec![], vec![]));
}

#[test]
fn a_preview_says_what_an_attach_does_and_does_nothing() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        let preview = host.engine.preview(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        assert_eq!((host.kernel.objects(), host.leases("web"), host.records()), (vec![], vec![], vec![]));
        let attached = host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        let lease = preview.lease.unwrap();
        assert_eq!(lease.addresses, attached.addresses);
        let made: Vec<Object> = preview.shared.iter().chain(&preview.own).map(|step| step.object().clone()).collect();
        assert_eq!(made, host.kernel.objects());
        let second = host.engine.preview(&web, wish("web-2")).await.unwrap();
        assert_eq!(
            (second.shared.len(), second.lease.unwrap().addresses[0].address.to_string()),
            (0, "10.20.0.3/24".into())
        );
        let refusal = host.engine.preview(&web, wish("web-2").publish(8080, 81)).await.unwrap_err().to_string();
        assert!(refusal.contains("web/web-1/eth0"), "{refusal}");
    });
}
