use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use netcore::driver::{Bridge, None as NoNetwork};
use netcore::engine::{Attached, Interface};
use netcore::model::{Attachment, AttachmentId, Dns, LeasedAddress, Name};
use serde_json::{Value, json};

use super::*;

/// Does nothing, and remembers what it was asked to do.
#[derive(Clone, Default)]
struct Diary {
    entries: Rc<RefCell<Vec<String>>>,
    refusal: Rc<RefCell<Option<Error>>>,
}

impl Diary {
    fn note(&self, entry: String) -> Result<()> {
        self.entries.borrow_mut().push(entry);
        self.refusal.borrow_mut().take().map_or(Ok(()), Err)
    }
}

impl Verbs for Diary {
    fn attach(&self, network: &Network, attachment: Attachment) -> Result<Attached> {
        self.note(format!("attach {} to {}", attachment.id, network.name))?;
        let inside = |name: &str| Interface {
            name: name.parse().unwrap(),
            mac: None,
            mtu: None,
            sandbox: attachment.netns.clone(),
            addresses: Vec::new(),
        };
        let leased = LeasedAddress { address: "10.20.0.2/24".parse().unwrap(), gateway: None };
        let with_ipam = network.ipam.is_some();
        Ok(Attached {
            interfaces: vec![inside(if with_ipam { attachment.id.interface.as_str() } else { "lo" })],
            addresses: with_ipam.then_some(leased).into_iter().collect(),
            routes: Vec::new(),
            dns: Dns::default(),
            publish: attachment.publish,
            warnings: Vec::new(),
            id: attachment.id,
        })
    }

    fn detach(&self, network: &Network, id: &AttachmentId, _netns: Option<&Path>) -> Result<()> {
        self.note(format!("detach {id} from {}", network.name))
    }

    fn check(&self, network: &Network, id: &AttachmentId, changed: &Changed) -> Result<()> {
        let mac = changed.mac.map(|mac| format!(", whose MAC is now {mac}")).unwrap_or_default();
        self.note(format!("check {id} on {}{mac}", network.name))
    }

    fn gc(&self, network: &Network, valid: &[AttachmentId]) -> Result<()> {
        self.note(format!(
            "keep {} of {}",
            valid.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
            network.name
        ))
    }

    fn is_on_host(&self, _container: &Name) -> Result<bool> {
        Ok(false)
    }

    fn status(&self, network: &Network) -> Result<()> {
        self.note(format!("status of {}", network.name))
    }
}

/// One call of a plugin.
struct Try {
    variables: Vec<(&'static str, String)>,
    input: Vec<u8>,
    diary: Diary,
    /// What went to stdout; `None` for one that takes nothing.
    told: Option<RefCell<String>>,
}

/// A namespace that is not our own, as far as can be had without making one.
const OTHER_NETNS: &str = "/proc/self/ns/mnt";

fn call(verb: &str, input: &Value) -> Try {
    let mut variables = vec![("CNI_COMMAND", verb.to_owned()), ("CNI_PATH", "/opt/cni/bin".to_owned())];
    if matches!(verb, "ADD" | "DEL" | "CHECK") {
        variables.push(("CNI_CONTAINERID", "web-1".to_owned()));
        variables.push(("CNI_IFNAME", "eth0".to_owned()));
        variables.push(("CNI_NETNS", OTHER_NETNS.to_owned()));
    }
    Try { variables, input: input.to_string().into_bytes(), diary: Diary::default(), told: Some(RefCell::default()) }
}

impl Try {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    fn refused_by(self, error: Error) -> Self {
        *self.diary.refusal.borrow_mut() = Some(error);
        self
    }

    fn answer<D: Driver>(&self) -> Result<Answer, Failure> {
        let lookup =
            |name: &str| self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let tell = |text: &str| match &self.told {
            Some(told) => {
                text.clone_into(&mut told.borrow_mut());
                Ok(())
            }
            None => Err(std::io::ErrorKind::StorageFull.into()),
        };
        serve::<D, Diary>(lookup, self.input.as_slice(), tell, |_| Ok(self.diary.clone()))
    }

    fn done(&self) -> String {
        self.diary.entries.borrow().join("; ")
    }

    fn printed<D: Driver>(&self) -> Value {
        assert_eq!(self.answer::<D>().unwrap(), Answer::Done);
        serde_json::from_str(&self.told.as_ref().unwrap().borrow()).unwrap()
    }

    /// The failure's code and message, if nothing was done before it.
    fn refusal(&self) -> (u32, String) {
        let failure = self.answer::<Bridge>().unwrap_err();
        assert_eq!(self.done(), "", "something was done before the refusal");
        (failure.code, failure.msg)
    }
}

fn network(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "web", "type": "bridge", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.20.0.0/24"}
    })
}

fn with(mut configuration: Value, key: &str, value: Value) -> Value {
    configuration[key] = value;
    configuration
}

#[test]
fn add_attaches_and_prints_the_result() {
    let add = call("ADD", &network("1.1.0"));
    assert_eq!(
        add.printed::<Bridge>(),
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "sandbox": OTHER_NETNS}],
            "ips": [{"interface": 0, "address": "10.20.0.2/24"}]
        })
    );
    assert_eq!(add.done(), "attach web-1/eth0 to web");
    assert_eq!(call("ADD", &network("0.2.0")).printed::<Bridge>()["ip4"]["ip"], "10.20.0.2/24");
    assert_eq!(call("ADD", &with(network(""), "cniVersion", Value::Null)).printed::<Bridge>()["cniVersion"], "0.1.0");
}

#[test]
fn a_result_that_cannot_be_told_is_undone() {
    let layer_two = call("ADD", &json!({"cniVersion": "0.2.0", "name": "web"}));
    let failure = layer_two.answer::<Bridge>().unwrap_err();
    assert_eq!((failure.code, failure.version), (7, Version::V0_2_0));
    assert!(failure.msg.contains("without an address"), "{}", failure.msg);
    assert_eq!(layer_two.done(), "attach web-1/eth0 to web; detach web-1/eth0 from web");
}

#[test]
fn none_passes_a_chains_result_through_and_alone_reports_lo() {
    let chain = json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.9.0.2/24"}]});
    let loopback = json!({"cniVersion": "0.3.1", "name": "lo", "type": "loopback"});
    let chained = call("ADD", &with(loopback.clone(), "prevResult", chain.clone()));
    assert_eq!(chained.printed::<NoNetwork>(), chain);
    assert_eq!(chained.done(), "attach web-1/eth0 to lo");
    assert_eq!(
        call("ADD", &loopback).with("CNI_IFNAME", "lo").printed::<NoNetwork>(),
        json!({
            "cniVersion": "0.3.1",
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": OTHER_NETNS}],
            "ips": [
                {"version": "4", "interface": 0, "address": "127.0.0.1/8"},
                {"version": "6", "interface": 0, "address": "::1/128"}
            ]
        })
    );
}

#[test]
fn del_needs_neither_namespace_nor_result_and_forgives_what_add_would_not() {
    for netns in ["", "/run/netns/no-such", "/etc/passwd", OTHER_NETNS] {
        let del = call("DEL", &network("1.0.0")).with("CNI_NETNS", netns);
        assert_eq!(del.answer::<Bridge>(), Ok(Answer::Done));
        assert_eq!(del.done(), "detach web-1/eth0 from web");
    }
    let spoiled = [
        ("vlan", json!(5)),
        ("prevResult", json!({"ips": 5})),
        ("mtu", json!(3)),
        ("capabilities", json!({"portMappings": true})),
    ];
    for (key, value) in spoiled {
        let configuration = with(network("1.0.0"), "runtimeConfig", json!({"portMappings": [{"hostPort": 0}]}));
        let del = call("DEL", &with(configuration, key, value));
        assert_eq!(del.answer::<Bridge>(), Ok(Answer::Done), "{key}");
    }
}

#[test]
fn check_compares_with_the_result_and_with_what_others_changed() {
    let chain = json!({"interfaces": [
        {"name": "eth0", "mac": "0a:00:00:00:00:01"},
        {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": OTHER_NETNS}
    ]});
    let check = call("CHECK", &with(network("0.4.0"), "prevResult", chain));
    assert_eq!(check.answer::<Bridge>(), Ok(Answer::Done));
    assert_eq!(check.done(), "check web-1/eth0 on web, whose MAC is now 0a:00:00:00:00:02");

    let (code, message) = call("CHECK", &network("1.0.0")).refusal();
    assert_eq!(code, 7);
    assert!(message.starts_with("prevResult: a missing value is not the result of ADD"), "{message}");
    let (code, message) = call("CHECK", &with(network("0.3.1"), "prevResult", json!({}))).refusal();
    assert_eq!((code, message.as_str()), (1, "cniVersion: 0.3.1 does not know CHECK, which came with 0.4.0"));
}

#[test]
fn gc_keeps_exactly_the_survivors() {
    let survivors = json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]);
    let gc = call("GC", &with(network("1.1.0"), "cni.dev/valid-attachments", survivors));
    assert_eq!(gc.answer::<Bridge>(), Ok(Answer::Done));
    assert_eq!(gc.done(), "keep a/eth0+b/net1 of web");
    let gc = call("GC", &with(network("1.1.0"), "cni.dev/valid-attachments", json!([])));
    assert_eq!(gc.answer::<Bridge>(), Ok(Answer::Done));
    assert_eq!(gc.done(), "keep  of web");
    assert_eq!(call("GC", &network("1.1.0")).refusal().0, 7);
    assert_eq!(call("GC", &network("1.0.0")).refusal().0, 1);
    assert_eq!(call("GC", &network("1.1.0")).with("CNI_PATH", "").refusal().0, 4);
}

#[test]
fn status_says_whether_add_can_be_served() {
    let status = || call("STATUS", &network("1.1.0"));
    assert_eq!(status().answer::<Bridge>(), Ok(Answer::Done));
    let full = Error::PoolExhausted { network: "web".into(), ranges: "10.20.0.0/24".into() };
    let failure = status().refused_by(full).answer::<Bridge>().unwrap_err();
    assert_eq!(failure.code, 50);
    assert!(failure.msg.contains("no free address in 10.20.0.0/24"), "{}", failure.msg);
    assert_eq!(call("STATUS", &network("1.0.0")).refusal().0, 1);
    assert_eq!(call("STATUS", &with(network("1.1.0"), "mtu", json!(3))).refusal().0, 7);
}

#[test]
fn version_answers_whatever_surrounds_it() {
    let supported = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let probe = call("VERSION", &json!({"cniVersion": "0.4.0"})).with("CNI_NETNS", "dummy").with("CNI_IFNAME", "d/u");
    assert_eq!(probe.printed::<Bridge>(), json!({"cniVersion": "0.4.0", "supportedVersions": supported}));
    for input in [&b""[..], b"{", br#"{"cniVersion": "7.0.0"}"#] {
        let probe = Try { input: input.to_vec(), ..call("VERSION", &Value::Null) };
        assert_eq!(probe.printed::<Bridge>()["cniVersion"], "1.1.0");
    }
}

#[test]
fn without_a_command_it_introduces_itself() {
    assert_eq!(call("", &network("1.1.0")).answer::<Bridge>(), Ok(Answer::Introduce));
}

#[test]
fn bad_input_is_refused_before_anything_is_done() {
    let add = |configuration: Value| call("ADD", &configuration);
    let raw = |input: &[u8]| Try { input: input.to_vec(), ..add(network("1.1.0")) };
    let runtime = |key: &str, value: Value| {
        let declared = with(network("1.1.0"), "capabilities", json!({key: true}));
        add(with(declared, "runtimeConfig", json!({key: value})))
    };
    let good = || add(network("1.1.0"));
    let cases: Vec<(Try, u32, &str)> = vec![
        (good().with("CNI_CONTAINERID", ""), 4, "CNI_CONTAINERID: missing"),
        (good().with("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID: \"../x\" is not a name of letters"),
        (good().with("CNI_IFNAME", "sixteen_bytes_16"), 4, "CNI_IFNAME: \"sixteen_bytes_16\" is not an interface name"),
        (good().with("CNI_ARGS", "x"), 4, "CNI_ARGS: \"x\" is not KEY=VALUE"),
        (good().with("CNI_COMMAND", "UPDATE"), 4, "CNI_COMMAND: \"UPDATE\" is not ADD"),
        (good().with("CNI_NETNS", "/proc/self/ns/net"), 8, "/proc/self/ns/net: it is the plugin's own"),
        (good().with("CNI_NETNS", "/etc/passwd"), 8, "/etc/passwd: not a namespace"),
        (good().with("CNI_NETNS", "/run/netns/no-such"), 8, "/run/netns/no-such: cannot be opened, No such file"),
        (raw(b""), 6, "configuration: nothing on stdin"),
        (raw(b"[]"), 6, "configuration: [] is not a JSON object"),
        (raw(b"{"), 6, "configuration: not JSON"),
        (raw(b"{\"name\": \"\xff\"}"), 6, "configuration: not UTF-8"),
        (raw(&vec![b' '; 10 << 20]), 6, "more than 1048576 bytes (1 MiB), which is the limit"),
        (add(network("3.0.0")), 1, "cniVersion: \"3.0.0\" is not one of 0.1.0,"),
        (add(with(network("1.1.0"), "name", json!("a/b"))), 7, "name: \"a/b\" is not a name of letters"),
        (add(with(network("1.1.0"), "name", json!("a b"))), 7, "name: \"a b\" is not a name of letters"),
        (add(with(network("1.1.0"), "vlan", json!(4095))), 7, "vlan: 4095 is not"),
        (add(with(network("1.1.0"), "mtu", json!("big"))), 7, "mtu: \"big\" is not"),
        (add(with(network("1.1.0"), "ipam", json!({"type": "../dhcp"}))), 7, "ipam.type: ../dhcp is not"),
        (
            add(with(network("1.1.0"), "ipam", json!({"type": "no-such"}))),
            4,
            "no such executable in CNI_PATH (/opt/cni/bin)",
        ),
        (add(with(network("1.1.0"), "prevResult", json!(5))), 7, "prevResult: 5 is not"),
        (
            runtime("portMappings", json!([{"hostPort": 0, "containerPort": 1}])),
            7,
            "portMappings[0].hostPort: 0 is not a port",
        ),
        (
            runtime("portMappings", json!([{"hostPort": 65535, "containerPort": 1, "range": 2}])),
            7,
            "65535+2 is not a range",
        ),
        (runtime("mac", json!("x")), 7, "runtimeConfig.mac: \"x\" is not a unicast MAC"),
        (runtime("ips", json!(["10.0.0.1/33"])), 7, "runtimeConfig.ips[0]: \"10.0.0.1/33\" is not an IP address"),
    ];
    for (bad, code, words) in cases {
        let (found, message) = bad.refusal();
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message:?} does not say {words:?}");
    }
    let same = good().with("CNI_NETNS", "/proc/self/ns/net").with("CNI_NETNS_OVERRIDE", "true");
    assert!(same.answer::<Bridge>().is_ok());
    let (code, _) = call("DEL", &network("1.1.0")).with("CNI_NETNS", "/proc/self/ns/net").refusal();
    assert_eq!(code, 8);
}

#[test]
fn a_result_that_nobody_hears_is_undone() {
    let deaf = Try { told: None, ..call("ADD", &network("1.1.0")) };
    let failure = deaf.answer::<Bridge>().unwrap_err();
    assert!(failure.code == 5 && failure.msg.starts_with("write the result to stdout: "), "{failure:?}");
    let done = deaf.done();
    assert!(done.starts_with("attach") && done.contains("; detach web-1/eth0"), "{done}");
}

#[test]
fn a_failure_speaks_the_configurations_version() {
    let failure = call("ADD", &network("0.4.0"))
        .refused_by(Error::Busy { object: "table".into(), attempts: 3 })
        .answer::<Bridge>()
        .unwrap_err();
    assert_eq!((failure.version, failure.code), (Version::V0_4_0, 11));
}
