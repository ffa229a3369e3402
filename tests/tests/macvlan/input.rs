//! What is wrong is said before anything is touched.

use serde_json::json;

use super::{Lan, refused, refused_in};

#[test]
fn bad_input_is_said_before_anything_is_touched() {
    let lan = Lan::new();
    lan.host.run(
        "ip link add br0 type bridge; ip link add port type veth peer name trop
         ip link set port master br0 up; ip link set trop up; ip link set br0 up",
    );
    for (settings, words) in [
        (json!({ "mode": "source" }), &["mode", "source", "private"][..]),
        (json!({ "mtu": 1501 }), &["mtu", "1501", "1500", "eth0"]),
        (json!({ "mtu": 12 }), &["mtu", "12"]),
        (json!({ "master": "port" }), &["port", "br0"]),
        (json!({ "master": "lo" }), &["master", "lo"]),
        (json!({ "master": "eth9" }), &["master", "eth9"]),
        (json!({ "master": "eth9.10" }), &["master", "eth9.10", "eth9"]),
        (json!({ "master": "eth0.0" }), &["master", "eth0.0", "4094"]),
        (json!({ "master": "eth0.4095" }), &["master", "eth0.4095", "4094"]),
        (json!({ "master": "eth0.10", "mtu": 1501 }), &["mtu", "1501", "1500"]),
        (json!({ "mac": "01:00:5e:00:00:01" }), &["mac", "01:00:5e:00:00:01"]),
        (json!({ "hostAccess": true, "mode": "private" }), &["hostAccess", "private"]),
        (json!({ "hostAccess": true, "linkInContainer": true }), &["hostAccess", "linkInContainer"]),
        (json!({ "hostAccess": true, "master": "trop" }), &["hostAccess", "trop"]),
        (json!({ "linkInContainer": true }), &["master", "eth0", "container"]),
    ] {
        println!("{settings}");
        refused(&lan, &lan.network(settings), "box", words);
    }
    let network = lan.network(json!({ "capabilities": { "mac": true, "portMappings": true } }));
    let master = lan.host.run("cat /sys/class/net/eth0/address");
    let one = lan.host.netns("one");
    let added = network.attachment(&one).runtime("mac", json!("02:00:00:00:00:07")).added();
    let two = lan.host.netns("two");
    for (key, value, words) in [
        ("mac", json!("02:00:00:00:00:07"), &["02:00:00:00:00:07", "in use", "eth0"][..]),
        ("mac", json!(master.trim()), &[master.trim(), "eth0"]),
        ("mac", json!("01:00:5e:00:00:01"), &["01:00:5e:00:00:01"]),
        ("portMappings", json!([{ "hostPort": 8080, "containerPort": 80 }]), &["portMappings"]),
    ] {
        refused_in(&lan, network.attachment(&two).runtime(key, value), words);
        assert_eq!(two.run("ip -o link show type macvlan"), "");
    }
    two.run("ip link add eth0 type bridge");
    refused_in(&lan, network.attachment(&two), &["eth0"]);
    two.run("ip link show eth0");
    added.check().unwrap();
    added.del().unwrap();
}
