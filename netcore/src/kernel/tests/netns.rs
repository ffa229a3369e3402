//! Namespaces, by every way to name one.

use std::fs;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Netns, ip, on_a_host};
use crate::error::Error;

fn links() -> usize {
    // /proc/net/dev has two lines of headings, and shows the namespace of the thread.
    fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count() - 2
}

#[test]
fn a_namespace_is_made_and_lo_is_up() {
    on_a_host(|| {
        let before = Netns::current().unwrap();
        let made = Netns::create("web-1").unwrap();
        assert_eq!(made.path().unwrap().to_str(), Some("/run/netns/web-1"));
        assert!(!made.is_same(&before).unwrap());
        assert!(before.is_same(&Netns::current().unwrap()).unwrap(), "the caller was moved");
        assert!(ip(Some("web-1"), "link show dev lo").contains("LOOPBACK,UP"));
        assert_eq!(ip(None, "netns list").trim(), "web-1");

        let error = Netns::create("web-1").unwrap_err();
        assert!(error.to_string().contains("/run/netns/web-1: exists already"), "{error}");
        Netns::remove("web-1").unwrap();
        Netns::remove("web-1").unwrap();
        assert!(!fs::exists("/run/netns/web-1").unwrap());
        // The value keeps the namespace alive.
        assert_eq!(made.run(links).unwrap(), 1);
        made.delete().unwrap();
    });
}

#[test]
fn either_removes_what_the_other_made() {
    on_a_host(|| {
        ip(None, "netns add theirs");
        assert_eq!(Netns::by_name("theirs").unwrap().run(links).unwrap(), 1);
        Netns::by_name("theirs").unwrap().delete().unwrap();
        assert_eq!(ip(None, "netns list"), "");
        Netns::create("ours").unwrap();
        ip(None, "netns delete ours");
        assert!(matches!(Netns::by_name("ours"), Err(Error::Netns { .. })));
    });
}

#[test]
fn many_namespaces_are_made_at_once() {
    on_a_host(|| {
        std::thread::scope(|scope| {
            for number in 0..16 {
                scope.spawn(move || Netns::create(&format!("n{number}")).unwrap());
            }
        });
        assert_eq!(ip(None, "netns list").lines().count(), 16);
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert_eq!(mounts.lines().filter(|line| line.contains(" /run/netns tmpfs ")).count(), 1, "{mounts}");
    });
}

#[test]
fn bad_names_are_refused_before_anything_is_touched() {
    on_a_host(|| {
        for bad in ["", "..", "a/b", "../x", "a b", "-n"] {
            assert!(matches!(Netns::create(bad), Err(Error::Invalid { .. })), "{bad:?} was accepted");
            assert!(matches!(Netns::remove(bad), Err(Error::Invalid { .. })), "{bad:?} was accepted");
            assert!(matches!(Netns::by_name(bad), Err(Error::Invalid { .. })), "{bad:?} was accepted");
        }
        assert!(!fs::exists("/run/netns").unwrap());
    });
}

#[test]
fn what_is_no_network_namespace_is_refused_with_the_reason() {
    on_a_host(|| {
        fs::write("/run/file", "").unwrap();
        for (path, reason) in [
            ("/run/missing", "No such file"),
            ("/run/file", "is not a namespace"),
            ("/run", "is not a namespace"),
            ("/dev/null", "is not a namespace"),
            ("/proc/self/ns/mnt", "is a mount namespace, not a network namespace"),
            ("/proc/self/ns/pid", "is a PID namespace"),
        ] {
            let error = Netns::open(path).unwrap_err();
            assert!(matches!(error, Error::Netns { .. }));
            let error = error.to_string();
            assert!(error.contains(path) && error.contains(reason), "{error}");
        }
        let file = fs::File::open("/run/file").unwrap();
        assert!(Netns::from_fd(OwnedFd::from(file)).is_err());
    });
}

#[test]
fn one_namespace_has_many_names() {
    on_a_host(|| {
        let current = Netns::current().unwrap();
        assert!(current.path().is_none());
        assert!(current.attachment("web-1").is_err(), "nobody else could find it");
        let file = fs::File::open("/proc/thread-self/ns/net").unwrap();
        assert!(Netns::from_fd(file.into()).unwrap().is_same(&current).unwrap());
        let process = Netns::of_pid(std::process::id()).unwrap();
        assert!(!process.is_same(&current).unwrap(), "this thread has left the process' namespace");

        let made = Netns::create("web-1").unwrap();
        let attachment = made.attachment("web-1/net1").unwrap();
        assert_eq!(attachment.id.to_string(), "web-1/net1");
        assert_eq!(attachment.netns.as_deref(), made.path());
        assert!(made.attachment("a b").unwrap_err().to_string().contains("a b"));
    });
}

#[test]
fn a_panic_inside_reaches_the_caller_where_it_was() {
    on_a_host(|| {
        let before = Netns::current().unwrap();
        let made = Netns::create("web-1").unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| made.run(|| panic!("inside")).unwrap()));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"inside"));
        assert!(before.is_same(&Netns::current().unwrap()).unwrap());
    });
}

#[test]
fn a_name_that_cannot_be_bound_is_not_left_behind() {
    on_a_host(|| {
        // A read-only directory: the name cannot even be reserved.
        Netns::create("first").unwrap();
        Netns::remove("first").unwrap();
        let remount = rustix::mount::MountFlags::RDONLY | rustix::mount::MountFlags::BIND;
        rustix::mount::mount_remount("/run/netns", remount, "").unwrap();
        assert!(matches!(Netns::create("second"), Err(Error::Netns { .. })));
        assert_eq!(fs::read_dir("/run/netns").unwrap().count(), 0);
    });
}
