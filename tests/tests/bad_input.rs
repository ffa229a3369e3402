//! What is wrong is said before anything is touched: the right code, and a message that names
//! the field, the value and what would be accepted.

use netcore_tests::{Failure, Host, Network, Plugin, Publish};
use serde_json::{Value, json};

/// A correct ADD, on a host that has nothing yet.
fn correct(host: &Host) -> Plugin {
    let netns = host.netns("box");
    host.cni(Network::bridge("web", &["10.20.0.0/24"]))
        .attachment(&netns)
        .publish(Publish::tcp(8080, 80))
        .first_plugin()
}

/// Calls ADD, which has to fail with one of `codes` (the first of [`OWN`] stands for all) and to say all of `words`, and to leave
/// everything as it was.
fn refused(host: &Host, plugin: &Plugin, codes: &[u64], words: &[&str]) -> Option<String> {
    refused_by("ADD", host, plugin, codes, words)
}

fn refused_by(verb: &str, host: &Host, plugin: &Plugin, codes: &[u64], words: &[&str]) -> Option<String> {
    let before = host.snapshot();
    let failure = match plugin.run(verb) {
        Ok(result) => {
            let _ = plugin.run("DEL");
            return Some(format!("accepted, and said {result}"));
        }
        Err(failure) => failure,
    };
    before.assert_same(&host.snapshot(), &format!("after `{failure}`"));
    complaint(&failure, codes, words)
}

fn complaint(failure: &Failure, codes: &[u64], words: &[&str]) -> Option<String> {
    let missing: Vec<_> = words.iter().filter(|word| !failure.says(word)).collect();
    let own = codes.contains(OWN.start()) && OWN.contains(&failure.code);
    if !own && !codes.contains(&failure.code) {
        return Some(format!("code {} is not in {codes:?}: {failure}", failure.code));
    }
    (!missing.is_empty()).then(|| format!("does not say {missing:?}: {failure}"))
}

/// Collects complaints, so that one run shows all of them.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn about(&mut self, what: &str, complaint: Option<String>) {
        self.0.extend(complaint.map(|complaint| format!("{what}: {complaint}")));
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{}", self.0.join("\n"));
        }
    }
}

const ENVIRONMENT: u64 = 4;
const UNDECODABLE: u64 = 6;
const CONFIGURATION: u64 = 7;
const VERSION: u64 = 1;
const NETNS: u64 = 8;
/// A plugin's own codes (CNI spec 1.1.0, "Error").
const OWN: std::ops::RangeInclusive<u64> = 100..=998;

#[test]
fn the_environment() {
    let host = Host::new();
    let correct = correct(&host);
    let mut complaints = Complaints::default();
    for name in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"] {
        complaints.about(name, refused(&host, &correct.clone().env_remove(name), &[ENVIRONMENT], &[name]));
        complaints.about(name, refused(&host, &correct.clone().env(name, ""), &[ENVIRONMENT], &[name]));
    }
    let cases: &[(&str, &str)] = &[
        ("CNI_CONTAINERID", "../box"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", ".."),
        ("CNI_CONTAINERID", ".hidden"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "a\nb"),
        ("CNI_CONTAINERID", "größe"),
        ("CNI_IFNAME", "sixteen_bytes_16"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", "default"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "eth/0"),
        ("CNI_IFNAME", "eth:0"),
        ("CNI_IFNAME", "eth 0"),
        ("CNI_ARGS", "IP"),
        ("CNI_ARGS", "IP=10.20.0.300"),
        ("CNI_ARGS", "MAC=not-a-mac"),
    ];
    for (name, value) in cases {
        let shown = value.split('\n').next().unwrap_or_default();
        let words = [*name, shown.rsplit('=').next().unwrap_or_default()];
        complaints.about(
            &format!("{name}={value:?}"),
            refused(&host, &correct.clone().env(name, value), &[ENVIRONMENT, CONFIGURATION], &words),
        );
    }
    complaints.about(
        "unknown verb",
        refused_by("FROBNICATE", &host, &correct, &[ENVIRONMENT], &["CNI_COMMAND", "FROBNICATE"]),
    );
    let unknown = correct.clone().env("CNI_ARGS", "Colour=red");
    complaints.about("unknown key", refused(&host, &unknown, &[ENVIRONMENT], &["CNI_ARGS", "Colour", "IgnoreUnknown"]));
    // Everybody may say more than we know, if they say so.
    let lenient = correct.clone().env("CNI_ARGS", "IgnoreUnknown=1;Colour=red;K8S_POD_NAME=p");
    lenient.run("ADD").unwrap();
    lenient.run("DEL").unwrap();
}

#[test]
fn without_a_command_it_introduces_itself() {
    let host = Host::new();
    for name in ["bridge", "none"] {
        let plugin = host.plugin(name);
        let output = host.enter(|| plugin.command("").env_remove("CNI_COMMAND").output()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(said.contains(name) && said.contains("1.1.0"), "{said}");
    }
}

#[test]
fn namespaces() {
    let host = Host::new();
    let correct = correct(&host);
    let mut complaints = Complaints::default();
    host.run("touch /run/netns/file; mkdir /run/netns/directory; ln -s /nowhere /run/netns/link");
    for path in [
        "/run/netns/absent",
        "/run/netns/file",
        "/run/netns/directory",
        "/run/netns/link",
        "relative",
        "/proc/self/ns/mnt",
    ] {
        complaints
            .about(path, refused(&host, &correct.clone().env("CNI_NETNS", path), &[NETNS, ENVIRONMENT, 3], &[path]));
    }
    let own = correct.clone().env("CNI_NETNS", "/proc/self/ns/net");
    complaints.about("our own namespace", refused(&host, &own, &[NETNS], &["/proc/self/ns/net", "CNI_NETNS_OVERRIDE"]));
}

#[test]
fn an_interface_that_exists() {
    let host = Host::new();
    let correct = correct(&host);
    host.run("ip -n box link add eth0 type veth peer name other");
    let mut complaints = Complaints::default();
    complaints.about(
        "eth0 exists",
        refused(&host, &correct, &[NETNS, ENVIRONMENT, CONFIGURATION, *OWN.start()], &["eth0", "exists"]),
    );
    assert_ne!(host.run("ip -n box -br link show eth0"), "", "it is still there");
}

#[test]
fn what_is_not_a_configuration() {
    let host = Host::new();
    let correct = correct(&host);
    let mut complaints = Complaints::default();
    let mut deep = "[".repeat(200_000);
    deep.push_str(&"]".repeat(200_000));
    let huge = format!(r#"{{"cniVersion":"1.0.0","name":"web","type":"bridge","pad":"{}"}}"#, "x".repeat(10 << 20));
    let cases: &[(&str, Vec<u8>)] = &[
        ("nothing", Vec::new()),
        ("a list", b"[1, 2]".to_vec()),
        ("a string", b"\"web\"".to_vec()),
        ("null", b"null".to_vec()),
        ("half of it", br#"{"cniVersion":"1.0.0","name":"web""#.to_vec()),
        ("two of them", b"{} {}".to_vec()),
        ("not UTF-8", b"{\"cniVersion\":\"1.0.0\",\"name\":\"w\xffb\"}".to_vec()),
        ("deep", deep.into_bytes()),
    ];
    for (what, stdin) in cases {
        complaints.about(what, refused(&host, &correct.clone().stdin(stdin.clone()), &[UNDECODABLE], &[]));
    }
    complaints.about("10 MiB", refused(&host, &correct.clone().stdin(huge), &[UNDECODABLE, 5, CONFIGURATION], &[]));
    let unnamed = |key: &str| {
        let mut configuration: Value = serde_json::from_slice(correct.configuration()).unwrap();
        configuration.as_object_mut().unwrap().remove(key);
        correct.clone().stdin(configuration.to_string())
    };
    complaints.about("no name", refused(&host, &unnamed("name"), &[CONFIGURATION, UNDECODABLE], &["name"]));
}

#[test]
fn versions() {
    let host = Host::new();
    let correct = correct(&host);
    let mut complaints = Complaints::default();
    for version in ["2.0.0", "1.2.0", "0.5.0", "latest", "1.0"] {
        let plugin = with(&correct, "/cniVersion", json!(version));
        complaints.about(version, refused(&host, &plugin, &[VERSION], &[version, "1.1.0"]));
    }
    let number = with(&correct, "/cniVersion", json!(1));
    complaints.about("a number", refused(&host, &number, &[VERSION, UNDECODABLE, CONFIGURATION], &["cniVersion"]));
    for verb in ["GC", "STATUS"] {
        let old = with(&correct, "/cniVersion", json!("1.0.0"));
        complaints.about(verb, refused_by(verb, &host, &old, &[VERSION], &[verb, "1.1.0"]));
    }
    let older = with(&correct, "/cniVersion", json!("0.3.1"));
    complaints.about("CHECK", refused_by("CHECK", &host, &older, &[VERSION], &["CHECK", "0.4.0"]));
    let without = with(&correct, "/cniVersion", json!("1.0.0"));
    complaints
        .about("CHECK without prevResult", refused_by("CHECK", &host, &without, &[CONFIGURATION], &["prevResult"]));
}

#[test]
fn an_error_speaks_the_version_of_its_configuration() {
    let host = Host::new();
    let correct = correct(&host);
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let plugin = with(&with(&correct, "/cniVersion", json!(version)), "/mtu", json!(-1));
        assert_eq!(plugin.run("ADD").expect_err("no MTU is negative").version, version);
    }
}

/// Each configuration value that is wrong: where, what, and what the message says of it.
fn values() -> Vec<(&'static str, Value, &'static [u64], &'static [&'static str])> {
    const BAD: &[u64] = &[CONFIGURATION];
    const EITHER: &[u64] = &[CONFIGURATION, UNDECODABLE];
    vec![
        ("/name", json!("../web"), BAD, &["name", "../web"]),
        ("/name", json!("a/b"), BAD, &["name", "a/b"]),
        ("/name", json!("two words"), BAD, &["name", "two words"]),
        ("/name", json!(""), BAD, &["name"]),
        ("/bridge", json!("sixteen_bytes_16"), EITHER, &["bridge", "sixteen_bytes_16", "15"]),
        ("/bridge", json!("br/0"), EITHER, &["bridge", "br/0"]),
        ("/bridge", json!(".."), EITHER, &["bridge", ".."]),
        ("/bridge", json!("all"), EITHER, &["bridge", "all"]),
        ("/mtu", json!(-1), EITHER, &["mtu", "-1"]),
        ("/mtu", json!(67), BAD, &["mtu", "67", "68"]),
        ("/mtu", json!(70000), BAD, &["mtu", "70000"]),
        ("/mtu", json!("big"), EITHER, &["mtu"]),
        ("/promiscMode", json!(true), BAD, &["promiscMode", "hairpinMode"]),
        ("/vlan", json!(4095), BAD, &["vlan", "4095"]),
        ("/vlanTrunk", json!([{ "id": 0 }]), BAD, &["vlanTrunk[0].id", "4094"]),
        ("/vlanTrunk", json!([{ "minID": 20, "maxID": 10 }]), BAD, &["vlanTrunk[0].minID", "20", "10"]),
        ("/vlanTrunk", json!([{ "id": 5 }, { "minID": 1, "maxID": 9 }]), BAD, &["vlanTrunk[1]", "overlaps 5"]),
        ("/macspoofchk", json!("yes"), EITHER, &["macspoofchk"]),
        ("/ipMasqBackend", json!("pf"), BAD, &["ipMasqBackend", "pf", "nftables"]),
        ("/ipam/ranges/0/0/subnet", json!("10.20.0.0/33"), EITHER, &["subnet", "10.20.0.0/33"]),
        ("/ipam/ranges/0/0/subnet", json!("10.20.0.300/24"), EITHER, &["subnet", "10.20.0.300/24"]),
        ("/ipam/ranges/0/0/subnet", json!("fd20::/129"), EITHER, &["subnet", "fd20::/129"]),
        ("/ipam/ranges/0/0/subnet", json!("10.20.0.0/31"), BAD, &["subnet", "10.20.0.0/31"]),
        ("/ipam/ranges/0/0/rangeStart", json!("10.99.0.1"), BAD, &["rangeStart", "10.99.0.1", "10.20.0.0/24"]),
        ("/ipam/ranges/0/0/rangeEnd", json!("10.20.1.1"), BAD, &["rangeEnd", "10.20.1.1", "10.20.0.0/24"]),
        ("/ipam/ranges/0/0/gateway", json!("fd20::1"), BAD, &["gateway", "fd20::1"]),
        ("/ipam/ranges/0/0/gateway", json!("nobody"), EITHER, &["gateway", "nobody"]),
        ("/ipam/ranges", json!([]), BAD, &["ranges"]),
        ("/ipam/ranges", json!([[]]), BAD, &["ranges"]),
        ("/ipam/ranges", json!([[{ "subnet": "10.20.0.0/24" }, { "subnet": "fd20::/64" }]]), BAD, &["ranges"]),
        (
            "/ipam/ranges",
            json!([[{ "subnet": "10.20.0.0/24" }, { "subnet": "10.20.0.0/16" }]]),
            BAD,
            &["ipam.ranges[0][0]", "ipam.ranges[0][1]"],
        ),
        ("/ipam/routes", json!([{ "dst": "everywhere" }]), EITHER, &["everywhere"]),
        ("/ipam/dataDir", json!("leases"), BAD, &["ipam.dataDir", "leases", "absolute"]),
        ("/ipam/dataDir", json!("/etc/passwd"), &[5], &["/etc/passwd/web", "Not a directory"]),
        ("/ipam/dataDir", json!("/proc"), &[5], &["/proc/web"]),
        ("/ipam/type", json!("../../bin/sh"), BAD, &["ipam.type", "../../bin/sh"]),
        ("/ipam", json!("host-local"), EITHER, &["ipam"]),
        ("/runtimeConfig/portMappings/0/hostPort", json!(0), BAD, &["hostPort", "0", "65535"]),
        ("/runtimeConfig/portMappings/0/containerPort", json!(0), BAD, &["containerPort", "0", "65535"]),
        ("/runtimeConfig/portMappings/0/hostPort", json!(65536), EITHER, &["hostPort", "65536", "65535"]),
        ("/runtimeConfig/portMappings/0/hostPort", json!(-1), EITHER, &["hostPort", "-1"]),
        ("/runtimeConfig/portMappings/0/protocol", json!("icmp"), EITHER, &["protocol", "icmp", "tcp"]),
        ("/runtimeConfig/portMappings/0/hostIP", json!("localhost"), EITHER, &["hostIP", "localhost"]),
        ("/runtimeConfig/portMappings", json!("8080:80"), EITHER, &["portMappings"]),
        ("/prevResult", json!({ "cniVersion": "1.0.0", "ips": "none" }), EITHER, &["prevResult"]),
    ]
}

#[test]
fn configuration_values() {
    let host = Host::new();
    let correct = correct(&host);
    let mut complaints = Complaints::default();
    for (at, value, codes, words) in values() {
        complaints.about(&format!("{at} = {value}"), refused(&host, &with(&correct, at, value.clone()), codes, words));
    }
}

#[test]
fn wishes_that_cannot_be_granted() {
    let host = Host::new();
    let mut complaints = Complaints::default();
    let netns = host.netns("box");
    let network = Network::bridge("web", &["10.20.0.0/24"])
        .with("capabilities", json!({ "ips": true, "mac": true, "portMappings": true }));
    let web = host.cni(network);
    let wish = || web.attachment(&netns);
    let cases = [
        ("outside the range", wish().args("IP=10.99.0.5"), vec!["10.99.0.5", "10.20.0.254"]),
        ("the gateway", wish().args("IP=10.20.0.1"), vec!["10.20.0.1"]),
        ("the network itself", wish().args("IP=10.20.0.0"), vec!["10.20.0.0"]),
        ("broadcast", wish().args("IP=10.20.0.255"), vec!["10.20.0.255"]),
        ("another family", wish().runtime("ips", json!(["fd99::5"])), vec!["fd99::5"]),
        ("a multicast MAC", wish().runtime("mac", json!("01:00:5e:00:00:01")), vec!["01:00:5e:00:00:01"]),
        ("no MAC", wish().runtime("mac", json!("02:00")), vec!["mac", "02:00"]),
    ];
    for (what, attachment, words) in cases {
        let codes = [CONFIGURATION, ENVIRONMENT, *OWN.start()];
        complaints.about(what, refused(&host, &attachment.first_plugin(), &codes, &words));
    }
    let holder = host.netns("holder");
    let _held = web.attachment(&holder).args("IP=10.20.0.9").added();
    let failure = web.attachment(&netns).args("IP=10.20.0.9").add().expect_err("10.20.0.9 is taken");
    assert!(failure.says("10.20.0.9") && failure.says("holder"), "{failure}");
}

#[test]
fn published_ports_that_contradict_each_other() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]));
    let netns = host.netns("box");
    let mut complaints = Complaints::default();
    let twice = web.attachment(&netns).publish(Publish::tcp(8080, 80)).publish(Publish::tcp(8080, 81));
    let codes = [CONFIGURATION, *OWN.start()];
    complaints.about("one port twice", refused(&host, &twice.first_plugin(), &codes, &["8080"]));
}

#[test]
fn a_bridge_that_is_none_and_an_address_that_is_another() {
    let host = Host::new();
    let mut complaints = Complaints::default();
    host.run("ip link add web type veth peer name other");
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]));
    let netns = host.netns("box");
    let codes = [CONFIGURATION, *OWN.start()];
    complaints
        .about("not a bridge", refused(&host, &web.attachment(&netns).first_plugin(), &codes, &["web", "bridge"]));
    host.run("ip link del web; ip link add web type bridge; ip addr add 192.0.2.1/24 dev web; ip link set web up");
    complaints.about(
        "another address",
        refused(&host, &web.attachment(&netns).first_plugin(), &codes, &["web", "192.0.2.1/24", "forceAddress"]),
    );
    let forced = host.cni(Network::bridge("web", &["10.20.0.0/24"]).with("forceAddress", json!(true)));
    let attachment = forced.attachment(&netns).added();
    assert!(host.run("ip -br addr show web").contains("10.20.0.1/24"));
    assert!(!host.run("ip -br addr show web").contains("192.0.2.1"));
    attachment.check().unwrap();
}

/// What cannot be told has not happened.
#[test]
fn a_result_that_cannot_be_written_is_undone() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]).with("removeEmptyBridge", json!(true)));
    let netns = host.netns("box");
    let attachment = web.attachment(&netns).publish(Publish::tcp(8080, 80));
    attachment.clone().added().del().unwrap();
    let before = host.snapshot();
    let plugin = attachment.first_plugin();
    let mut command = plugin.command("ADD");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = host.enter(|| command.stdout(full).spawn()).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), plugin.configuration()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("write the result to stdout: No space left"), "{complaint}");
    before.assert_same(&host.snapshot(), "after an ADD that nobody heard of");
    assert_eq!(netns.run("ip -br link show type veth"), "");
}

/// A file system without room, of bytes or of files, at any of our places: ADD fails and leaves
/// nothing, DEL works.
#[test]
fn a_disk_that_is_full() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]));
    let (one, two) = (host.netns("one"), host.netns("two"));
    for place in ["/run/netcore", "/var/lib/cni"] {
        for (limit, fill) in [
            ("size=32k", format!("dd if=/dev/zero of={place}/fill bs=1k 2>/dev/null || true")),
            (
                "nr_inodes=12",
                format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do touch {place}/fill$n || true; done 2>/dev/null"),
            ),
        ] {
            host.run(&format!("mkdir -p {place}; mount -t tmpfs -o {limit} tmpfs {place}"));
            let attachment = web.attachment(&one).added();
            let before = host.snapshot();
            host.run(&fill);
            let failure = web.attachment(&two).add().expect_err("there is no room");
            assert!(failure.code == 5 && failure.says(place) && failure.says("No space left"), "{limit}: {failure}");
            host.run(&format!("rm -f {place}/fill*"));
            before.assert_same(&host.snapshot(), &format!("after an ADD with {place} full ({limit})"));
            web.attachment(&two).del().unwrap_or_else(|failure| panic!("{place} {limit}: {failure}"));
            host.run(&fill);
            attachment.check().unwrap_or_else(|failure| panic!("{place} {limit}: {failure}"));
            attachment.del().unwrap_or_else(|failure| panic!("{place} {limit}: {failure}"));
            assert_eq!(host.snapshot().count("link veth"), 0, "{place} {limit}");
            host.run(&format!("umount {place}"));
        }
    }
}

/// The plugin with one value of its configuration set; what is on the way is made.
fn with(plugin: &Plugin, pointer: &str, value: Value) -> Plugin {
    let mut configuration: Value = serde_json::from_slice(plugin.configuration()).unwrap();
    let mut place = &mut configuration;
    for key in pointer.split('/').skip(1) {
        place = match (key.parse::<usize>(), place) {
            (Ok(index), Value::Array(items)) => &mut items[index],
            (_, place) => &mut place[key],
        };
    }
    *place = value;
    plugin.clone().stdin(configuration.to_string())
}
