//! Stories on real files: given this directory, when this happens, then that is true.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{HostLocal, Ipam, Request};
use crate::error::{Error, Result};
use crate::model::{self, Attachment, AttachmentId, IpamConfig, Lease, Name};

mod adversity;
mod interchange;
mod reboot;

/// A host with a network `web` and a data directory of its own.
struct Host {
    data_dir: PathBuf,
    section: Value,
    config: model::HostLocal,
    network: Name,
}

impl Host {
    fn new(section: Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("netcore-ipam-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::at(std::env::temp_dir().join(unique), section)
    }

    fn at(data_dir: PathBuf, mut section: Value) -> Self {
        section["type"] = "host-local".into();
        section["dataDir"] = data_dir.to_str().unwrap().into();
        let IpamConfig::HostLocal(config) = IpamConfig::from_json(&section).unwrap() else { unreachable!() };
        Self { data_dir, section, config, network: Name::new("web").unwrap() }
    }

    fn ipam(&self) -> HostLocal<'_> {
        HostLocal::new(&self.config)
    }

    fn attach(&self, ipam: &HostLocal<'_>, attachment: &Attachment) -> Result<Lease> {
        ipam.allocate(&Request { network: &self.network, attachment, lease: None })
    }

    /// Attaches `who`, asking for `asked`; the addresses it got.
    fn add(&self, who: &str, asked: &[&str]) -> Result<Vec<String>> {
        let mut attachment = container(who);
        attachment.addresses = asked.iter().map(|asked| asked.parse().unwrap()).collect();
        self.attach(&self.ipam(), &attachment).map(|lease| given(&lease))
    }

    fn check(&self, who: &str, lease: Option<&Lease>) -> Result<()> {
        self.ipam().check(&Request { network: &self.network, attachment: &container(who), lease })
    }

    fn del(&self, who: &str, lease: Option<&Lease>) {
        self.ipam().release(&Request { network: &self.network, attachment: &container(who), lease }).unwrap();
    }

    fn gc(&self, valid: &[&str]) {
        let valid: Vec<AttachmentId> = valid.iter().map(|who| who.parse().unwrap()).collect();
        self.ipam().gc(&self.network, &valid).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data_dir.join("web").join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.data_dir.join("web")).unwrap();
        fs::write(self.file(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Every name in the network's directory, sorted.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data_dir.join("web")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The names that are addresses.
    fn reserved(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.data_dir);
    }
}

fn container(who: &str) -> Attachment {
    Attachment::new(who.parse().unwrap(), Some("/run/netns/no-such".into()))
}

fn given(lease: &Lease) -> Vec<String> {
    lease.addresses.iter().map(|leased| leased.address.to_string()).collect()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_attachment_gets_an_address_of_each_set_and_gives_it_back() {
    let host = Host::new(
        json!({"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64", "gateway": "fd00:20::9"}]],
                                "routes": [{"dst": "0.0.0.0/0"}]}),
    );
    let lease = host.attach(&host.ipam(), &container("web-1")).unwrap();
    assert_eq!(given(&lease), ["10.20.0.2/24", "fd00:20::1/64"]);
    let gateways: Vec<_> = lease.addresses.iter().map(|leased| leased.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["10.20.0.1", "fd00:20::9"]);
    assert_eq!(lease.routes, host.config.routes);

    assert_eq!(host.names(), ["10.20.0.2", "fd00:20::1", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
    assert_eq!(host.read("10.20.0.2"), "web-1\r\neth0");
    assert_eq!(host.read("fd00:20::1"), "web-1\r\neth0");
    assert_eq!(host.read("last_reserved_ip.1"), "fd00:20::1");
    host.check("web-1", Some(&lease)).unwrap();

    host.del("web-1", Some(&lease));
    host.del("web-1", Some(&lease));
    assert_eq!(host.names(), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]);
}

#[test]
fn files_have_the_modes_the_reference_gives_them() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    host.add("web-1", &[]).unwrap();
    assert_eq!(mode(&host.data_dir), 0o755);
    assert_eq!(mode(&host.file("")), 0o755);
    assert_eq!(mode(&host.file("10.20.0.2")), 0o644);
    assert_eq!(mode(&host.file("last_reserved_ip.0")), 0o644);
    assert_eq!(mode(&host.file("lock")), 0o750);
}

#[test]
fn an_address_rests_until_the_others_had_their_turn() {
    let host = Host::new(json!({"subnet": "10.20.0.0/29"}));
    for turn in 2..7 {
        assert_eq!(host.add("crash-loop", &[]).unwrap(), [format!("10.20.0.{turn}/29")]);
        host.del("crash-loop", None);
    }
    assert_eq!(host.add("crash-loop", &[]).unwrap(), ["10.20.0.2/29"]);
}

#[test]
fn a_full_pool_says_so_until_an_address_comes_back() {
    let host = Host::new(json!({"ranges": [[{"subnet": "10.20.0.0/29"}], [{"subnet": "10.21.0.0/16"}]]}));
    host.ipam().status(&host.network).unwrap();
    assert!(host.names().is_empty(), "asking makes nothing");
    for number in 0..5 {
        host.ipam().status(&host.network).unwrap();
        host.add(&format!("web-{number}"), &[]).unwrap();
    }
    let before = host.names();
    for refusal in [host.add("web-5", &[]).map(drop), host.ipam().status(&host.network)] {
        let refusal = refusal.unwrap_err();
        assert!(matches!(&refusal, Error::PoolExhausted { .. }), "{refusal}");
        assert!(refusal.to_string().contains("web: no free address in 10.20.0.1-10.20.0.6"), "{refusal}");
    }
    assert_eq!(host.names(), before, "nothing is kept of the other set");
    host.del("web-3", None);
    host.ipam().status(&host.network).unwrap();
    assert_eq!(host.add("web-5", &[]).unwrap()[0], "10.20.0.5/29");
}

#[test]
fn an_address_asked_for_is_given_or_the_reason_why_not() {
    let host = Host::new(json!({"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64"}]]}));
    assert_eq!(host.add("a", &["fd00:20::77", "10.20.0.9/16"]).unwrap(), ["10.20.0.9/24", "fd00:20::77/64"]);
    assert_eq!(host.add("b", &["10.20.0.8"]).unwrap(), ["10.20.0.8/24", "fd00:20::78/64"]);
    let before = host.names();
    let refused = [
        ("10.20.0.9", "network web: address 10.20.0.9 is reserved for a/eth0"),
        ("10.20.0.1", "address: 10.20.0.1 is not an address for a container: it is the gateway's"),
        ("10.20.0.0", "address: 10.20.0.0 is not an address of 10.20.0.1-10.20.0.254, fd00:20::1-"),
        ("10.20.0.255", "address: 10.20.0.255 is not an address of"),
        ("10.9.9.9", "address: 10.9.9.9 is not an address of"),
    ];
    for (asked, start) in refused {
        let refusal = host.add("c", &[asked]).unwrap_err().to_string();
        assert!(refusal.starts_with(start), "{refusal}");
    }
    let two = host.add("c", &["10.20.0.10", "10.20.0.11"]).unwrap_err().to_string();
    assert!(two.starts_with("address: 10.20.0.11 is not from another range than 10.20.0.10"), "{two}");
    let second = host.add("c", &["10.20.0.10", "fd00:20::77"]).unwrap_err().to_string();
    assert!(second.contains("fd00:20::77 is reserved for a/eth0"), "{second}");
    assert_eq!(host.names(), before, "all or nothing");
}

#[test]
fn what_an_attachment_holds_already_is_no_conflict() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    host.add("web-1", &["10.20.0.5"]).unwrap();
    assert_eq!(host.add("web-1", &["10.20.0.5"]).unwrap(), ["10.20.0.5/24"]);
    assert!(host.add("web-1/net1", &["10.20.0.5"]).is_err(), "another interface is another attachment");
}

#[test]
fn a_check_names_the_address_that_is_gone() {
    let host = Host::new(json!({"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64"}]]}));
    let lease = host.attach(&host.ipam(), &container("web-1")).unwrap();
    host.check("web-1", None).unwrap();
    fs::remove_file(host.file("10.20.0.2")).unwrap();
    let gone = host.check("web-1", Some(&lease)).unwrap_err().to_string();
    assert!(gone.starts_with("network web: address 10.20.0.2: not reserved for web-1/eth0; "), "{gone}");
    host.write("10.20.0.2", "other\r\neth0");
    let taken = host.check("web-1", Some(&lease)).unwrap_err().to_string();
    assert_eq!(taken, "network web: address 10.20.0.2 is reserved for other/eth0");
    assert!(host.check("web-2", None).is_err());
}

#[test]
fn a_release_takes_nobody_elses_address() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    let lease = host.attach(&host.ipam(), &container("web-1")).unwrap();
    host.write("10.20.0.2", "other\r\neth0");
    host.write("10.20.0.3", "web-1\r\nnet1");
    host.write("10.20.0.4", "web-1");
    host.del("web-1", Some(&lease));
    host.del("web-1/net2", Some(&lease));
    assert_eq!(host.reserved(), ["10.20.0.2", "10.20.0.3", "10.20.0.4"]);
    host.del("web-1", None);
    assert_eq!(host.reserved(), ["10.20.0.2", "10.20.0.3"], "the oldest format names no interface");
}

#[test]
fn a_release_works_under_a_configuration_that_broke() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    host.add("web-1", &[]).unwrap();
    let broken = Host::at(host.data_dir.clone(), json!({"subnet": "10.20.0.0/32"}));
    assert!(broken.add("web-2", &[]).is_err() && broken.ipam().status(&broken.network).is_err());
    broken.del("web-1", None);
    assert!(host.reserved().is_empty());
}

#[test]
fn releasing_and_collecting_where_nothing_is_makes_nothing() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    host.del("web-1", None);
    host.gc(&[]);
    assert!(host.check("web-1", None).is_err());
    assert!(!host.data_dir.exists());
}

#[test]
fn garbage_collection_keeps_the_survivors_and_what_is_not_ours_to_judge() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    for who in ["a", "b", "b/net1"] {
        host.add(who, &[]).unwrap();
    }
    host.write("10.20.0.50", "");
    host.write("10.20.0.51", "b");
    host.write("10.20.0.52", "c");
    host.write("10.20.0.53", "kept by\nthe operator\n");
    host.write(".netcore-draft", "x\r\neth0");
    host.write("README", "not an address");
    host.gc(&["b"]);
    let kept = ["10.20.0.3", "10.20.0.51", "10.20.0.53", "README", "last_reserved_ip.0", "lock"];
    assert_eq!(host.names(), kept);
    host.gc(&[]);
    assert_eq!(host.reserved(), ["10.20.0.53"]);
}

#[test]
fn a_resolv_conf_comes_with_the_lease() {
    let host = Host::new(json!({"subnet": "10.20.0.0/24"}));
    fs::create_dir_all(&host.data_dir).unwrap();
    let path = host.data_dir.join("resolv.conf");
    let mut section = host.section.clone();
    section["resolvConf"] = path.to_str().unwrap().into();
    let with_dns = Host::at(host.data_dir.clone(), section);
    let missing = with_dns.add("web-1", &[]).unwrap_err().to_string();
    assert!(missing.starts_with("read ") && host.reserved().is_empty(), "{missing}");
    fs::write(&path, "nameserver 10.20.0.1\nsearch example.org\n").unwrap();
    let lease = with_dns.attach(&with_dns.ipam(), &container("web-1")).unwrap();
    assert_eq!((lease.dns.nameservers[0].as_str(), lease.dns.search[0].as_str()), ("10.20.0.1", "example.org"));
}
