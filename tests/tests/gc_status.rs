//! GC keeps who is named and removes everybody else; STATUS knows when ADD would fail.

use netcore_tests::traffic::{serve, who_answers};
use netcore_tests::{Cni, Host, Network, Outside, Publish};
use serde_json::json;

fn web(host: &Host) -> Cni {
    host.cni(Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]).version("1.1.0"))
}

#[test]
fn gc_keeps_the_survivors_and_removes_the_rest() {
    let host = Host::new();
    let outside = host.outside();
    let web = web(&host);
    let db = host.cni(Network::bridge("db", &["10.30.0.0/24"]).version("1.1.0"));
    let survivor_netns = host.netns("survivor");
    let survivor = web.attachment(&survivor_netns).publish(Publish::tcp(8080, 80)).added();
    let _server = serve(&survivor_netns, "survivor", 80);
    let foreign = db.attachment(&host.netns("foreign")).publish(Publish::tcp(8081, 80)).added();
    let before = host.snapshot();

    // One whose namespace is gone, one that is all there, one of the survivor's interfaces.
    let gone = host.netns("gone");
    let _first = web.attachment(&gone).publish(Publish::tcp(9001, 80)).added();
    gone.remove();
    let stale = host.netns("stale");
    let _second = web.attachment(&stale).publish(Publish::tcp(9002, 80)).added();
    let _third = web.attachment(&survivor_netns).container("other").interface("net9");
    web.gc(&[&survivor]).unwrap();

    assert_eq!(stale.run("ip -br link show type veth"), "", "its interface is gone too");
    stale.remove();
    before.assert_same(&host.snapshot(), "after GC");
    survivor.check().unwrap();
    foreign.check().unwrap();
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "survivor");
    web.gc(&[&survivor]).unwrap();
    before.assert_same(&host.snapshot(), "after another GC");
}

#[test]
fn gc_tells_interfaces_of_one_container_apart() {
    let host = Host::new();
    let plain = json!({
        "type": "bridge", "bridge": "web", "isGateway": true, "ipMasq": true,
        "ipam": { "type": "host-local", "subnet": "10.20.0.0/24" },
    });
    let web = host.cni(Network::new("web", plain).version("1.1.0"));
    let netns = host.netns("box");
    let first = web.attachment(&netns).added();
    let before = host.snapshot();
    let _second = web.attachment(&netns).interface("net1").added();
    web.gc(&[&first]).unwrap();
    before.assert_same(&host.snapshot(), "after GC");
    assert_eq!(netns.run("ip -br link show type veth").lines().count(), 1);
}

#[test]
fn gc_with_an_empty_list_removes_all() {
    let host = Host::new();
    let web = web(&host);
    web.attachment(&host.netns("warm")).added().del().unwrap();
    let names = ["a", "b", "c"].map(|name| host.netns(name));
    let before = host.snapshot();
    for netns in &names {
        let _ = web.attachment(netns).added();
    }
    web.gc(&[]).unwrap();
    before.assert_same(&host.snapshot(), "after GC of everything");
}

#[test]
fn gc_reclaims_what_no_record_tells_of() {
    let host = Host::new();
    let web = web(&host);
    web.attachment(&host.netns("warm")).added().del().unwrap();
    let netns = host.netns("box");
    let before = host.snapshot();
    let _lost = web.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
    host.run("grep -rl box /run/netcore | xargs rm");
    web.gc(&[]).unwrap();
    before.assert_same(&host.snapshot(), "after GC without records");
}

#[test]
fn gc_leaves_what_is_not_ours_alone() {
    let host = Host::new();
    let web = web(&host);
    web.attachment(&host.netns("warm")).added().del().unwrap();
    host.run(
        "ip link add veth0 type veth peer name veth1; ip link set veth0 master web
         nft add table inet mine; nft add set inet mine masquerade4 '{ type ipv4_addr; }'
         nft add element inet mine masquerade4 '{ 10.20.0.9 }'
         nft add element inet netcore masquerade4 '{ 10.20.0.99 }'",
    );
    let before = host.snapshot();
    web.gc(&[]).unwrap();
    before.assert_same(&host.snapshot(), "after GC");
}

/// Room for three: .2 to .4.
fn small(host: &Host) -> Cni {
    let plain = json!({
        "type": "bridge", "bridge": "small", "isGateway": true,
        "ipam": { "type": "host-local", "ranges": [[{
            "subnet": "10.20.0.0/24", "rangeStart": "10.20.0.2", "rangeEnd": "10.20.0.4",
        }]] },
    });
    host.cni(Network::new("small", plain).version("1.1.0"))
}

#[test]
fn a_full_pool_is_said_by_add_and_by_status() {
    let host = Host::new();
    let small = small(&host);
    small.status().unwrap();
    let held: Vec<_> = ["a", "b", "c"].map(|name| small.attachment(&host.netns(name)).added()).into();
    let failure = small.status().expect_err("nothing is left to give out");
    assert_eq!(failure.code, 50, "{failure}");
    assert!(failure.says("small") && failure.says("10.20.0.2"), "{failure}");

    let late = host.netns("late");
    let before = host.snapshot();
    let failure = small.attachment(&late).add().expect_err("nothing is left to give out");
    assert!(failure.code == 11 || failure.code >= 100 && failure.code != 999, "{failure}");
    assert!(failure.says("small") && failure.says("free"), "{failure}");
    before.assert_same(&host.snapshot(), "after the refused ADD");
    assert_eq!(late.run("ip -br link show type veth"), "");

    held[1].del().unwrap();
    small.status().unwrap();
    let attachment = small.attachment(&late).added();
    assert_eq!(attachment.address().to_string(), "10.20.0.3");
}

#[test]
fn an_address_rests_before_it_is_given_out_again() {
    let host = Host::new();
    let small = small(&host);
    let netns = host.netns("box");
    let addresses: Vec<_> = (0..4)
        .map(|_| {
            let attachment = small.attachment(&netns).added();
            attachment.del().unwrap();
            attachment.address().to_string()
        })
        .collect();
    assert_eq!(addresses, ["10.20.0.2", "10.20.0.3", "10.20.0.4", "10.20.0.2"]);
}

#[test]
fn empty_and_foreign_files_do_not_exhaust_the_pool() {
    let host = Host::new();
    let small = small(&host);
    host.run(
        "mkdir -p /var/lib/cni/networks/small; cd /var/lib/cni/networks/small
         : > 10.20.0.2; : > 10.20.0.3; : > 10.20.0.4; echo hello > README; : > 10.20.0.999",
    );
    small.status().unwrap();
    let _attachment = small.attachment(&host.netns("box")).added();
}

#[test]
fn status_is_fine_on_a_host_that_has_seen_nothing() {
    let host = Host::new();
    let before = host.snapshot();
    web(&host).status().unwrap();
    before.assert_same(&host.snapshot(), "after STATUS");
}

#[test]
fn version_lists_what_is_spoken() {
    let host = Host::new();
    for name in ["bridge", "none", "loopback"] {
        let answer = host.plugin(name).stdin(r#"{"cniVersion":"1.1.0"}"#).run("VERSION").unwrap();
        let versions: Vec<_> =
            answer["supportedVersions"].as_array().unwrap().iter().filter_map(|version| version.as_str()).collect();
        assert_eq!(versions, ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"], "{name}");
        assert_eq!(answer["cniVersion"], "1.1.0");
    }
}

#[test]
fn every_version_of_the_specification_is_answered_in_its_own_shape() {
    let host = Host::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let web = host.cni(Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]).version(version));
        let netns = host.netns("box");
        let attachment = web.attachment(&netns).added();
        let result = attachment.result();
        assert_eq!(result["cniVersion"], version);
        match version {
            "0.1.0" | "0.2.0" => {
                assert_eq!(result["ip4"]["gateway"], "10.20.0.1");
                assert_eq!(result["ip6"]["gateway"], "fd20::1");
                assert!(result.get("interfaces").is_none(), "{result}");
            }
            "0.3.0" | "0.3.1" | "0.4.0" => assert_eq!(result["ips"][1]["version"], "6"),
            _ => assert!(result["ips"][0].get("version").is_none(), "{result}"),
        }
        attachment.del().unwrap();
        netns.remove();
    }
}

#[test]
fn none_keeps_loopback_up_and_loopback_passes_the_result_on() {
    let host = Host::new();
    let web = Network::bridge("web", &["10.20.0.0/24"]);
    let netns = host.netns("box");
    let attachment =
        host.cni(Network::new("nothing", json!({ "type": "none" }))).attachment(&netns).interface("lo").added();
    assert!(netns.run("ip -br addr show lo").contains("127.0.0.1"), "lo is up");
    attachment.check().unwrap();
    netns.run("ip link set lo down");
    assert!(attachment.check().expect_err("lo is down").says("lo"));
    attachment.del().unwrap();

    let both = host.cni(web.then(json!({ "type": "loopback" })));
    let attachment = both.attachment(&netns).added();
    assert_eq!(attachment.address().to_string(), "10.20.0.2", "what the bridge said");
    assert!(netns.run("ip -br addr show lo").contains("127.0.0.1"));
    attachment.check().unwrap();
    attachment.del().unwrap();
}
