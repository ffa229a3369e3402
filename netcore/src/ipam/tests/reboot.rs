//! Reservations that outlive the boot they were made in.

use std::ffi::CStr;
use std::path::PathBuf;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

const ATTRIBUTE: &CStr = c"user.netcore.lease";

/// A host with two addresses, and a file that says which boot it is in. `None`, said why, where
/// the filesystem keeps no attributes.
fn host() -> Option<(Host, PathBuf)> {
    let host = Host::new(json!({"subnet": "10.20.0.0/24", "rangeStart": "10.20.0.2", "rangeEnd": "10.20.0.3"}));
    fs::create_dir_all(&host.data_dir).unwrap();
    let boot_id = host.data_dir.join("boot_id");
    fs::write(&boot_id, "the-first-boot\n").unwrap();
    if rustix::fs::setxattr(&boot_id, ATTRIBUTE, b"probe", rustix::fs::XattrFlags::empty()).is_err() {
        eprintln!("skipped: {} keeps no user attributes", host.data_dir.display());
        return None;
    }
    Some((host, boot_id))
}

fn reboot(boot_id: &Path) {
    fs::write(boot_id, format!("{} and one more", fs::read_to_string(boot_id).unwrap().trim())).unwrap();
}

fn add(host: &Host, boot_id: &Path, who: &str, netns: Option<&Path>) -> Result<Vec<String>> {
    let attachment = Attachment::new(who.parse().unwrap(), netns.map(Path::to_owned));
    host.attach(&host.ipam().in_boot(boot_id), &attachment).map(|lease| given(&lease))
}

#[test]
fn addresses_of_an_earlier_boot_are_free_again() {
    let Some((host, boot_id)) = host() else { return };
    add(&host, &boot_id, "a", Some(Path::new("/run/netns/no-such"))).unwrap();
    add(&host, &boot_id, "b", Some(Path::new("/proc/4194304/ns/net"))).unwrap();
    assert!(add(&host, &boot_id, "c", None).is_err(), "in their own boot they are held, namespace or not");

    reboot(&boot_id);
    host.ipam().in_boot(&boot_id).status(&host.network).unwrap();
    assert_eq!(add(&host, &boot_id, "c", None).unwrap(), ["10.20.0.2/24"]);
    assert_eq!(add(&host, &boot_id, "d", None).unwrap(), ["10.20.0.3/24"]);
    assert_eq!(host.read("10.20.0.2"), "c\r\neth0");
    assert!(add(&host, &boot_id, "e", None).is_err());
    assert!(host.ipam().in_boot(&boot_id).status(&host.network).is_err());
}

#[test]
fn a_container_that_comes_back_after_a_reboot_keeps_the_address_it_asks_for() {
    let Some((host, boot_id)) = host() else { return };
    let mut attachment = container("db");
    attachment.addresses = vec!["10.20.0.3".parse().unwrap()];
    host.attach(&host.ipam().in_boot(&boot_id), &attachment).unwrap();
    reboot(&boot_id);
    host.attach(&host.ipam().in_boot(&boot_id), &attachment).unwrap();
    add(&host, &boot_id, "a", None).unwrap();
    assert!(add(&host, &boot_id, "b", None).is_err(), "its reservation is of this boot now");
}

#[test]
fn reservations_of_the_reference_are_held_whatever_the_boot() {
    let Some((host, boot_id)) = host() else { return };
    host.write("10.20.0.2", "a\r\neth0");
    host.write("10.20.0.3", "b\r\neth0");
    reboot(&boot_id);
    assert!(add(&host, &boot_id, "c", None).is_err());
}

#[test]
fn a_kernel_that_names_no_boot_reclaims_nothing() {
    let Some((host, boot_id)) = host() else { return };
    add(&host, &boot_id, "a", None).unwrap();
    fs::remove_file(&boot_id).unwrap();
    assert_eq!(add(&host, &boot_id, "b", None).unwrap(), ["10.20.0.3/24"]);
    assert!(add(&host, &boot_id, "c", None).is_err());
}

#[test]
fn an_address_is_held_as_long_as_its_namespace_is_there() {
    let Some((host, boot_id)) = host() else { return };
    let story = std::thread::spawn(move || {
        // SAFETY: only this thread changes namespaces; no file descriptor table is unshared.
        let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) };
        if let Err(errno) = unshared {
            eprintln!("skipped: no namespaces of one's own here: {errno}");
            return;
        }
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let netns = host.data_dir.join("netns");
        fs::write(&netns, "").unwrap();
        mount_bind("/proc/thread-self/ns/net", &netns).unwrap();

        add(&host, &boot_id, "a", Some(&netns)).unwrap();
        add(&host, &boot_id, "b", Some(&netns)).unwrap();
        reboot(&boot_id);
        assert!(add(&host, &boot_id, "c", None).is_err());
        unmount(&netns, UnmountFlags::DETACH).unwrap();
        assert_eq!(add(&host, &boot_id, "c", None).unwrap(), ["10.20.0.2/24"]);
    });
    story.join().unwrap();
}
