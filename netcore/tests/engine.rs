//! The engine's promises, on a kernel in memory and real files: all or nothing on the way in,
//! best effort and repeatable on the way out, and healed by the next detach wherever it was
//! killed.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::{Host, run, wish};
use netcore::bridge;
use netcore::kernel::Kernel;
use netcore::model::{AttachmentId, Mark, Object};
use netcore::{Error, Result};

/// What the kernel holds of the attachments themselves.
fn owned(host: &Host, network: &bridge::Network) -> Vec<Object> {
    let shared = Mark::of_network(&network.name);
    let mut objects = host.kernel.objects();
    objects.retain(|object| object.mark().is_some_and(|mark| mark.is_of(&network.name) && *mark != shared));
    objects
}

#[test]
fn what_is_attached_checks_out_and_leaves_nothing_when_detached() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        let attached = host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        assert_eq!(attached.to_string(), "eth0 10.20.0.2/24 via 10.20.0.1, 8080→80/tcp");
        assert_eq!(host.leases("web"), ["10.20.0.2"]);
        host.engine.check(&web, "web-1").await.unwrap();
        host.engine.detach(&web, "web-1").await.unwrap();
        host.engine.detach(&web, "web-1").await.unwrap();
    });
    assert_eq!(owned(&host, &web), []);
    assert_eq!(host.leases("web"), Vec::<String>::new());
    assert_eq!(host.records(), Vec::<String>::new());
    assert!(host.kernel.objects().iter().all(|object| object.mark().is_none()), "{:#?}", host.kernel.objects());
}

#[test]
fn an_attachment_is_made_once() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        host.engine.attach(&web, wish("web-1")).await.unwrap();
        let before = host.kernel.objects();
        let error = host.engine.attach(&web, wish("web-1")).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyAttached { .. }), "{error}");
        assert_eq!(host.kernel.objects(), before);
        host.engine.check(&web, "web-1").await.unwrap();
    });
}

#[test]
fn a_taken_port_names_its_holder_and_leaves_no_trace() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        let (objects, leases) = (host.kernel.objects(), host.leases("web"));
        let error = host.engine.attach(&web, wish("web-2").publish(8080, 81)).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains("8080/tcp") && message.contains("web/web-1/eth0"), "{message}");
        assert_eq!((host.kernel.objects(), host.leases("web")), (objects, leases));
        host.engine.check(&web, "web-1").await.unwrap();
    });
}

#[test]
fn a_failure_at_any_change_leaves_no_trace() {
    for changes in 0.. {
        let host = Host::new();
        let web = host.network("web", "10.20.0.0/24");
        host.kernel.fail_after(changes);
        let outcome = run(host.engine.attach(&web, wish("web-1").publish(8080, 80)));
        if host.kernel.disarm() {
            outcome.unwrap();
            assert!(changes > 5, "attaching takes more changes than {changes}");
            return;
        }
        outcome.unwrap_err();
        let left: Vec<Object> = host.kernel.objects().into_iter().filter(|object| object.mark().is_some()).collect();
        assert_eq!(left, [], "after change {changes}");
        assert_eq!(host.leases("web"), Vec::<String>::new(), "after change {changes}");
        assert_eq!(host.records(), Vec::<String>::new(), "after change {changes}");
    }
}

#[test]
fn killed_at_any_change_the_next_detach_heals() {
    let heal: [fn(&Host, &bridge::Network) -> Result<()>; 2] =
        [|host, web| run(host.engine.detach(web, "web-1")), |host, web| run(host.engine.gc(web, &[]))];
    for heal in heal {
        for changes in 0.. {
            let host = Host::new();
            let web = host.network("web", "10.20.0.0/24");
            host.kernel.kill_after(changes);
            let attach = || run(host.engine.attach(&web, wish("web-1").publish(8080, 80)));
            if catch_unwind(AssertUnwindSafe(attach)).is_ok() {
                break;
            }
            heal(&host, &web).unwrap();
            assert_eq!(owned(&host, &web), [], "killed at change {changes}");
            assert_eq!(host.leases("web"), Vec::<String>::new(), "killed at change {changes}");
            assert_eq!(host.records(), Vec::<String>::new(), "killed at change {changes}");
            run(host.engine.attach(&web, wish("web-1").publish(8080, 80))).unwrap();
        }
    }
}

#[test]
fn killed_while_detaching_the_next_detach_finishes() {
    for changes in 0.. {
        let host = Host::new();
        let web = host.network("web", "10.20.0.0/24");
        run(host.engine.attach(&web, wish("web-1").publish(8080, 80))).unwrap();
        host.kernel.kill_after(changes);
        if catch_unwind(AssertUnwindSafe(|| run(host.engine.detach(&web, "web-1")))).is_ok() {
            return;
        }
        run(host.engine.detach(&web, "web-1")).unwrap();
        assert_eq!(owned(&host, &web), [], "killed at change {changes}");
        assert_eq!(host.leases("web"), Vec::<String>::new(), "killed at change {changes}");
    }
}

#[test]
fn without_a_record_the_marks_are_enough() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        host.engine.attach(&web, wish("web-2")).await.unwrap();
        std::fs::remove_dir_all(host.directory.path().join("records")).unwrap();
        host.engine.detach(&web, "web-1").await.unwrap();
    });
    let second = "web-2".parse::<AttachmentId>().unwrap().mark(&web.name);
    assert!(!owned(&host, &web).is_empty());
    assert!(owned(&host, &web).iter().all(|object| object.mark() == Some(&second)));
    assert_eq!(host.leases("web"), ["10.20.0.3"]);
}

#[test]
fn collection_spares_the_survivors() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        for container in ["web-1", "web-2", "web-3"] {
            host.engine.attach(&web, wish(container)).await.unwrap();
        }
        host.engine.gc(&web, &["web-2".parse().unwrap()]).await.unwrap();
        host.engine.check(&web, "web-2").await.unwrap();
        assert!(matches!(host.engine.check(&web, "web-1").await, Err(Error::NotAttached { .. })));
    });
    assert_eq!(host.leases("web"), ["10.20.0.3"]);
}

#[test]
fn every_single_thing_that_goes_missing_is_named() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/24");
    run(async {
        host.engine.attach(&web, wish("web-1").publish(8080, 80)).await.unwrap();
        let objects = host.kernel.objects();
        let inside = host.kernel.enter(Some(Path::new("/run/netns/web-1"))).await.unwrap();
        for missing in &objects {
            host.kernel.take(missing);
            let message = host.engine.check(&web, "web-1").await.unwrap_err().to_string();
            assert!(message.contains(&format!("{missing}: missing")), "{missing}: {message}");
            inside.put(missing.clone());
        }
        host.engine.check(&web, "web-1").await.unwrap();
        std::fs::remove_file(host.directory.path().join("leases/web/10.20.0.2")).unwrap();
        let message = host.engine.check(&web, "web-1").await.unwrap_err().to_string();
        assert!(message.contains("10.20.0.2"), "{message}");
    });
}

#[test]
fn a_full_pool_is_said_so_and_takes_another_once_there_is_room() {
    let host = Host::new();
    let web = host.network("web", "10.20.0.0/29");
    run(async {
        for number in 0..5 {
            host.engine.attach(&web, wish(&format!("web-{number}"))).await.unwrap();
        }
        assert!(matches!(host.engine.status(&web).await, Err(Error::PoolExhausted { .. })));
        let error = host.engine.attach(&web, wish("late")).await.unwrap_err();
        assert!(matches!(error, Error::PoolExhausted { .. }), "{error}");
        host.engine.detach(&web, "web-3").await.unwrap();
        host.engine.attach(&web, wish("late")).await.unwrap();
    });
}
