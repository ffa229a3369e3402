use netcore::engine;
use netcore::model::{BridgeConfig, LeasedAddress, NoneConfig};
use serde_json::json;

use super::*;

/// A dual-stack container on a bridge.
fn attached() -> Attached {
    let interface = |name: &str, mac: &str, sandbox: Option<&str>| engine::Interface {
        name: name.parse().unwrap(),
        mac: Some(mac.parse().unwrap()),
        mtu: Some(1500),
        sandbox: sandbox.map(PathBuf::from),
        addresses: Vec::new(),
    };
    let leased = |address: &str, gateway: &str| LeasedAddress {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    };
    Attached {
        id: "web-1".parse().unwrap(),
        interfaces: vec![
            interface("cni0", "0e:00:00:00:00:01", None),
            interface("veth01234567890", "0e:00:00:00:00:02", None),
            interface("eth0", "0a:58:0a:14:00:02", Some("/run/netns/web-1")),
        ],
        addresses: vec![
            leased("10.20.0.2/24", "10.20.0.1"),
            leased("fd00::2/64", "fd00::1"),
            leased("10.21.0.2/24", "10.21.0.1"),
        ],
        routes: vec![
            RouteSpec { gw: Some("10.20.0.1".parse().unwrap()), ..RouteSpec::to("0.0.0.0/0".parse().unwrap()) },
            RouteSpec { mtu: Some(1400), priority: Some(50), ..RouteSpec::to("fd01::/64".parse().unwrap()) },
        ],
        dns: Dns { nameservers: vec!["10.20.0.1".into()], search: vec!["example.org".into()], ..Dns::default() },
        publish: Vec::new(),
        warnings: Vec::new(),
    }
}

fn bridged() -> Success {
    Success::of(attached(), &Mode::Bridge(BridgeConfig::default()))
}

fn looped() -> Success {
    let interfaces = vec![engine::Interface {
        name: "lo".parse().unwrap(),
        mac: None,
        mtu: None,
        sandbox: Some("/run/netns/web-1".into()),
        addresses: Vec::new(),
    }];
    let attached = Attached {
        id: "web-1/lo".parse().unwrap(),
        interfaces,
        addresses: Vec::new(),
        routes: Vec::new(),
        dns: Dns::default(),
        publish: Vec::new(),
        warnings: Vec::new(),
    };
    Success::of(attached, &Mode::None(NoneConfig {}))
}

fn told(success: &Success, version: Version) -> Value {
    serde_json::from_str(&success.to_json(version).unwrap()).unwrap()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn each_version_tells_the_same_result_in_its_shape() {
    for version in Version::ALL {
        insta::assert_snapshot!(format!("bridge_{version}"), pretty(&told(&bridged(), version)));
    }
}

#[test]
fn a_loopback_has_the_addresses_the_kernel_gives_it() {
    for version in [Version::V0_2_0, Version::V0_3_1, Version::V1_1_0] {
        insta::assert_snapshot!(format!("loopback_{version}"), pretty(&told(&looped(), version)));
    }
}

#[test]
fn what_a_version_tells_it_understands() {
    for version in Version::ALL {
        let answer = told(&bridged(), version);
        // With its own version, and without one when the configuration says which it is.
        let mut bare = answer.clone();
        bare.as_object_mut().unwrap().remove("cniVersion");
        for (value, assumed) in [(&answer, Version::V0_1_0), (&answer, Version::LATEST), (&bare, version)] {
            let understood = Success::parse("prevResult", value, assumed).unwrap();
            assert_eq!(told(&understood, version), answer, "{version}");
        }
    }
}

#[test]
fn old_shapes_need_an_address() {
    let layer_two = Success { ips: Vec::new(), ..bridged() };
    let refusal = layer_two.to_json(Version::V0_2_0).unwrap_err().to_string();
    assert_eq!(refusal, "cniVersion: 0.2.0 is not a version that can tell a result without an address: 0.3.0 or later");
    assert!(layer_two.to_json(Version::V0_3_0).is_ok());
    let only_v6 = Success { ips: vec![Ip::new("fd00::2/64".parse().unwrap(), None, None)], ..Success::default() };
    assert_eq!(told(&only_v6, Version::V0_1_0), json!({"cniVersion": "0.1.0", "ip6": {"ip": "fd00::2/64"}}));
}

#[test]
fn a_chained_plugin_adds_behind_what_is_there() {
    let previous = json!({
        "interfaces": [{"name": "net1", "sandbox": "/run/netns/web-1"}],
        "ips": [{"version": "4", "interface": 0, "address": "10.9.0.2/24"}, {"version": "4", "address": "10.9.1.2/24"}],
        "routes": [{"dst": "10.9.0.0/16"}],
        "dns": {"nameservers": ["10.9.0.1", "10.20.0.1"], "domain": "first.example"}
    });
    let previous = Success::parse("prevResult", &previous, Version::V0_4_0).unwrap();
    let both = previous.followed_by(bridged());
    let names: Vec<_> = both.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["net1", "cni0", "veth01234567890", "eth0"]);
    let ips: Vec<_> = both.ips.iter().map(|ip| (ip.address.to_string(), ip.interface)).collect();
    assert_eq!(
        ips,
        [
            ("10.9.0.2/24".into(), Some(0)),
            ("10.9.1.2/24".into(), None),
            ("10.20.0.2/24".into(), Some(3)),
            ("fd00::2/64".into(), Some(3)),
            ("10.21.0.2/24".into(), Some(3)),
        ]
    );
    assert_eq!(both.routes.len(), 3);
    assert_eq!(both.dns.nameservers, ["10.9.0.1", "10.20.0.1"]);
    assert_eq!((both.dns.domain.as_deref(), both.dns.search.len()), (Some("first.example"), 1));
    assert_eq!(both.sandbox_interface("eth0").unwrap().mac, "0a:58:0a:14:00:02");
    assert!(both.sandbox_interface("cni0").is_none());
}

#[test]
fn a_result_that_is_none_is_named() {
    let refusal = |value: Value| {
        let failure = Success::parse("prevResult", &value, Version::V1_0_0).unwrap_err();
        (failure.code, failure.msg)
    };
    assert_eq!(
        refusal(json!({"ips": [{"address": "10.0.0.2/99"}]})),
        (
            7,
            "prevResult.ips[0].address: \"10.0.0.2/99\" is not an address with prefix length, like 10.20.0.2/16".into()
        )
    );
    assert_eq!(
        refusal(json!({"cniVersion": "0.2.0", "ip4": {"gateway": "10.0.0.1"}})),
        (7, "prevResult.ip4.ip: a missing value is not an address with prefix length, like 10.20.0.2/16".into())
    );
    let (code, message) = refusal(json!({"cniVersion": "9.0.0"}));
    assert_eq!(code, 1);
    assert!(message.starts_with("prevResult.cniVersion: \"9.0.0\" is not one of"), "{message}");
    assert_eq!(refusal(json!("text")).0, 7);
}
