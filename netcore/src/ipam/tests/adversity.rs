//! Crowds, crashes, full disks and what others leave in the directory.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::super::reservations::Directory;
use super::*;

#[test]
fn leftovers_do_not_use_up_the_pool() {
    let host = Host::new(json!({"subnet": "10.20.0.0/29"}));
    host.write("10.20.0.2", "");
    host.write("10.20.0.3", "\0\0\0\0\0\0\0\0\0\0\0");
    host.write("10.20.0.4", "somebody's own note, in 3 words\n");
    fs::create_dir(host.file("10.20.0.5")).unwrap();
    host.write("last_reserved_ip.0", "rubbish");
    host.write("10.20.0.999", "");
    host.write("core", "");
    host.ipam().status(&host.network).unwrap();
    assert_eq!(host.add("a", &[]).unwrap(), ["10.20.0.2/29"], "a power cut left this one empty");
    assert_eq!(host.add("b", &["10.20.0.3"]).unwrap(), ["10.20.0.3/29"], "and zeros here");
    assert_eq!(host.add("c", &[]).unwrap(), ["10.20.0.6/29"], "somebody has the two between");
    let taken = host.add("d", &["10.20.0.4"]).unwrap_err().to_string();
    assert!(taken.contains("reserved for somebody else"), "{taken}");
    assert!(matches!(host.add("d", &[]), Err(Error::PoolExhausted { .. })));
}

#[test]
fn a_file_that_blocks_or_leads_away_is_only_in_the_way() {
    let host = Host::new(json!({"subnet": "10.20.0.0/29"}));
    host.write("elsewhere", "");
    std::os::unix::fs::symlink(host.file("elsewhere"), host.file("10.20.0.2")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, host.file("10.20.0.3"), fifo, 0o600.into(), 0).unwrap();
    assert_eq!(host.add("a", &[]).unwrap(), ["10.20.0.4/29"]);
    host.del("b", None);
    host.gc(&["a"]);
    assert_eq!(host.reserved(), ["10.20.0.2", "10.20.0.3", "10.20.0.4"]);
}

#[test]
fn where_files_cannot_go_without_a_name_they_get_one_for_a_moment() {
    let host = Host::new(json!({"subnet": "10.20.0.0/29"}));
    let directory = Directory::create(&host.data_dir, &host.network).unwrap();
    let locked = directory.lock().unwrap();
    {
        let draft = locked.draft(&"web-1".parse().unwrap(), None).unwrap();
        assert!(locked.reserve(&draft, "10.20.0.2".parse().unwrap()).unwrap());
        assert!(locked.reserve(&draft, "fd00::2".parse().unwrap()).unwrap());
        assert!(!locked.reserve(&draft, "10.20.0.2".parse().unwrap()).unwrap(), "it is there already");
        // As if the process died here: the name stays.
        std::mem::forget(draft);
    }
    let draft = locked.draft(&"web-2".parse().unwrap(), None).unwrap();
    assert_eq!(host.read("10.20.0.2"), "web-1\r\neth0", "what the leftover is linked to is not touched");
    assert!(locked.reserve(&draft, "10.20.0.3".parse().unwrap()).unwrap());
    drop(draft);
    assert_eq!(host.names(), ["10.20.0.2", "10.20.0.3", "fd00::2", "lock"]);
    assert_eq!(host.read("10.20.0.3"), "web-2\r\neth0");
}

/// What the processes of the tests below do: attach containers, one after the other.
#[test]
#[ignore = "runs as a process of other tests"]
fn attaches_containers() {
    let Ok(data_dir) = std::env::var("NETCORE_IPAM_TEST_DIR") else { return };
    let count: u32 = std::env::var("NETCORE_IPAM_TEST_COUNT").unwrap().parse().unwrap();
    let host = Host::at(data_dir.into(), section_of_processes());
    let me = std::process::id();
    for number in 0..count {
        let lease = host.attach(&host.ipam(), &container(&format!("c{me}-{number}"))).unwrap();
        println!("given {}", given(&lease).join(" "));
        if number % 2 == 1 {
            host.del(&format!("c{me}-{number}"), Some(&lease));
        }
    }
    std::mem::forget(host);
}

fn section_of_processes() -> Value {
    json!({"ranges": [[{"subnet": "10.20.0.0/16"}], [{"subnet": "fd00:20::/64"}]]})
}

fn process(host: &Host, count: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ipam::tests::adversity::attaches_containers", "--ignored", "--nocapture"])
        .env("NETCORE_IPAM_TEST_DIR", &host.data_dir)
        .env("NETCORE_IPAM_TEST_COUNT", count.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn sixteen_processes_at_once_never_share_an_address() {
    let host = Host::new(section_of_processes());
    let processes: Vec<_> = (0..16).map(|_| process(&host, 9)).collect();
    let mut given = Vec::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let words = text.lines().filter_map(|line| line.split_once("given ")).flat_map(|(_, words)| words.split(' '));
        given.extend(words.map(str::to_owned));
    }
    assert_eq!(given.len(), 16 * 9 * 2);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len(), "in a pool this large none comes up twice");
    assert_eq!(host.reserved().len(), 16 * 5 * 2);
}

/// However long the process took to get that far.
fn wait_for_first_lease(process: &mut Child) {
    let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("given ")), "the process ended without a lease");
}

#[test]
fn a_process_killed_anywhere_leaves_whole_reservations_and_no_lock() {
    let host = Host::new(section_of_processes());
    for round in 0..20 {
        let mut process = process(&host, u32::MAX);
        wait_for_first_lease(&mut process);
        // Somewhere among the next ones: the moment is what is varied, not something waited for.
        std::thread::sleep(Duration::from_millis(round * 3));
        process.kill().unwrap();
        process.wait().unwrap();
        for name in host.names() {
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            assert!(is_address || name == "lock" || name.starts_with("last_reserved_ip."), "{name} was left");
            if is_address {
                let content = host.read(&name);
                assert!(content.starts_with(['a', 'c']) && content.ends_with("\r\neth0"), "{name} holds {content:?}");
            }
        }
        host.add(&format!("after-{round}"), &[]).unwrap();
    }
    assert!(host.reserved().len() > 60, "nothing happened: {}", host.reserved().len());
    host.gc(&[]);
    assert!(host.reserved().is_empty());
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_behind() {
    let story = std::thread::spawn(|| {
        // SAFETY: only this thread changes namespaces; no file descriptor table is unshared.
        if let Err(errno) = unsafe { unshare_unsafe(UnshareFlags::NEWNS) } {
            eprintln!("skipped: no mount namespace of one's own here: {errno}");
            return;
        }
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let host = Host::new(json!({"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64"}]]}));
        fs::create_dir_all(&host.data_dir).unwrap();
        let sizes = (3..24).map(|inodes| format!("nr_inodes={inodes}"));
        for size in sizes.chain((1..12).map(|pages| format!("size={}k", 4 * pages))) {
            let options = std::ffi::CString::new(size.clone()).unwrap();
            mount("tmpfs", &host.data_dir, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
            let mut given = Vec::new();
            let error = loop {
                match host.add(&format!("c{}", given.len()), &[]) {
                    Ok(addresses) => given.extend(addresses),
                    Err(error) => break error,
                }
                assert!(given.len() < 100, "{size} never filled up");
            };
            assert!(error.to_string().contains("No space left on device"), "{size}: {error}");
            assert!(host.add("again", &[]).is_err());
            assert_eq!(host.reserved().len(), given.len(), "{size}: {:?}, given {given:?}", host.names());
            host.gc(&[]);
            assert!(host.reserved().is_empty());
            unmount(&host.data_dir, UnmountFlags::DETACH).unwrap();
        }
    });
    story.join().unwrap();
}

/// `cargo test -p netcore crowded -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn a_crowded_network_in_figures() {
    let host = Host::new(json!({"subnet": "10.20.0.0/16"}));
    let measure = |what: &str, act: &mut dyn FnMut()| {
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                let start = Instant::now();
                act();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{what:<58} median {:>10.1?}  slowest {:>10.1?}", times[4], times[8]);
    };
    let mut count = 0;
    let mut add = |who: &str| {
        count += 1;
        host.attach(&host.ipam(), &container(&format!("{who}{count}"))).unwrap()
    };
    measure("allocate, empty /16", &mut || drop(add("a")));
    let fill = |from: u32, to: u32| {
        for number in from..to {
            let address = std::net::Ipv4Addr::from_bits(0x0a14_0000 + number);
            if !host.file(&address.to_string()).exists() {
                host.write(&address.to_string(), &format!("f{number}\r\neth0"));
            }
        }
    };
    fill(2, 60_000);
    host.write("last_reserved_ip.0", "10.20.234.95");
    measure("allocate, 60,000 of 65,533 taken, in turn", &mut || drop(add("b")));
    measure("allocate, 60,000 taken, none nearby free", &mut || {
        host.write("last_reserved_ip.0", "10.20.1.0");
        drop(add("c"));
    });
    fill(2, 65_535);
    let mut lease = None;
    measure("allocate, one of 65,533 free", &mut || {
        fs::remove_file(host.file("10.20.255.254")).unwrap();
        host.write("last_reserved_ip.0", "10.20.0.1");
        lease = Some(add("d"));
    });
    measure("status, full", &mut || assert!(host.ipam().status(&host.network).is_err()));
    measure("allocate, full", &mut || assert!(host.add("e", &[]).is_err()));
    measure("release, lease known", &mut || host.del("x", lease.as_ref()));
    measure("release, lease unknown", &mut || host.del("x", None));
}
