//! The table on a real kernel, beside what `nft` makes of the same. Needs root; every test has
//! network namespaces of its own.

mod conflicts;
mod damage;
mod golden;
mod guard;
mod isolation;
mod ownership;
mod races;
mod speed;

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

use super::Nft;
use crate::model::{AttachmentId, Barrier, InterfaceName, Mark, Name, NatRule, Protocol, Table};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ruleset.nft");

/// Runs `story` in a fresh network namespace.
fn in_namespace<T: Send>(story: impl FnOnce() -> T + Send) -> T {
    let there = || {
        // SAFETY: file descriptors stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
            .expect("these tests need root");
        story()
    };
    match std::thread::scope(|scope| scope.spawn(there).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// What `nft` prints for `script`, which must succeed.
fn nft(script: &str) -> String {
    run_nft(&["-f", "-"], script)
}

/// Everything in our table, as text.
fn listing() -> String {
    listing_of(Table::Inet)
}

fn listing_of(table: Table) -> String {
    nft(&format!("list table {table}"))
}

/// Everything in our table, as text and as instructions: one entry for each set, chain and rule.
/// Handles are left out, since they depend on what was there before, and what has no order of
/// its own is sorted.
fn snapshot() -> Vec<String> {
    snapshot_of(Table::Inet)
}

fn snapshot_of(table: Table) -> Vec<String> {
    let output = run_nft(&["--debug=netlink", "-f", "-"], &format!("list table {table}"));
    let (bytecode, text) = output.split_at(output.find("\ntable ").unwrap());
    let mut blocks: Vec<Vec<String>> = Vec::new();
    for line in bytecode.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix(&format!("{table} ")) {
            Some(heading) => blocks.push(vec![heading.split(' ').next().unwrap().to_owned()]),
            None => blocks.last_mut().unwrap().push(line.to_owned()),
        }
    }
    for set in blocks.iter_mut().filter(|block| block[0].starts_with('@')) {
        set[1..].sort();
    }
    let mut entries: Vec<_> = blocks.into_iter().map(|block| block.join("\n")).collect();
    entries.sort_by_key(|entry| entry.lines().next().unwrap().to_owned());
    let (heading, parts) = text.trim().split_once("comment").unwrap();
    let mut parts: Vec<_> =
        parts.trim_end_matches("\n}").replacen('\n', "\n\n", 1).split("\n\n").map(str::to_owned).collect();
    parts.sort();
    entries.push(heading.to_owned());
    entries.extend(parts);
    entries
}

/// Checks that a snapshot is the one before, and says where it is not.
fn assert_same(now: &[String], before: &[String], why: &str) {
    for (now, before) in now.iter().zip(before) {
        assert!(now == before, "{why}\n--- now\n{now}\n--- before\n{before}");
    }
    assert_eq!(now.len(), before.len(), "{why}");
}

fn run_nft(arguments: &[&str], script: &str) -> String {
    let mut nft = Command::new("nft");
    nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut nft = nft.spawn().expect("nft is installed");
    nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = nft.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn create(rules: &[NatRule]) -> crate::Result<()> {
    Nft::open()?.create(&rules.iter().collect::<Vec<_>>())
}

fn remove(rules: &[NatRule]) -> crate::Result<()> {
    Nft::open()?.remove(&rules.iter().collect::<Vec<_>>()).map(drop)
}

fn observe(rules: &[NatRule]) -> Vec<NatRule> {
    Nft::open().unwrap().observe(&rules.iter().collect::<Vec<_>>()).unwrap()
}

/// What is wrong with the rule set; `None` if there is none.
fn damage() -> Option<Vec<String>> {
    match observe(&[ruleset()]).pop() {
        Some(NatRule::Ruleset { damage, .. }) => Some(damage),
        _ => None,
    }
}

fn ruleset() -> NatRule {
    NatRule::Ruleset { table: Table::Inet, damage: vec![] }
}

fn network(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// The mark of `container` on network `web`.
fn mark(container: &str) -> Mark {
    AttachmentId::new(container, "eth0").unwrap().mark(&network("web"))
}

fn member(bridge: &str) -> NatRule {
    NatRule::Member { bridge: InterfaceName::new(bridge).unwrap(), mark: Mark::of_network(&network("web")) }
}

fn within(from: &str, to: &str) -> NatRule {
    let link = |name| InterfaceName::new(name).unwrap();
    NatRule::Within { from: link(from), to: link(to), mark: Mark::of_network(&network("web")) }
}

fn barrier(barrier: Barrier) -> NatRule {
    NatRule::Barrier { bridge: InterfaceName::new("cni0").unwrap(), barrier, mark: Mark::of_host() }
}

fn hairpin(subnet: &str) -> NatRule {
    NatRule::Hairpin { subnet: subnet.parse().unwrap(), mark: Mark::of_network(&network("web")) }
}

fn masquerade(container: &str, source: &str) -> NatRule {
    NatRule::Masquerade { source: source.parse().unwrap(), mark: mark(container) }
}

/// `container` gets what arrives on TCP port `host_port` of every address.
fn publish(container: &str, host_port: u16, to: &str) -> NatRule {
    published(container, None, Protocol::Tcp, host_port, to)
}

/// `container` gets what arrives on TCP port `host_port` of `address`.
fn publish_at(container: &str, address: &str, host_port: u16, to: &str) -> NatRule {
    published(container, Some(address.parse().unwrap()), Protocol::Tcp, host_port, to)
}

fn published(container: &str, host_address: Option<IpAddr>, protocol: Protocol, host_port: u16, to: &str) -> NatRule {
    NatRule::Publish { host_address, protocol, host_port, to: to.parse().unwrap(), mark: mark(container) }
}

/// What one attachment of a dual-stack network with two published ports needs.
fn attachment() -> Vec<NatRule> {
    vec![
        member("cni0"),
        within("cni0", "cni0"),
        hairpin("10.88.0.0/24"),
        hairpin("fd00:88::/64"),
        masquerade("one", "10.88.0.2"),
        masquerade("one", "fd00:88::2"),
        publish("one", 8080, "10.88.0.2:80"),
        publish("one", 8080, "[fd00:88::2]:80"),
        publish_at("one", "192.0.2.1", 8443, "10.88.0.2:443"),
        publish_at("one", "2001:db8::1", 8443, "[fd00:88::2]:443"),
    ]
}

fn with_ruleset(rules: &[NatRule]) -> Vec<NatRule> {
    [&[ruleset()], rules].concat()
}
