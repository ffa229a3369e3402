//! CHECK names whatever is missing of what ADD made, whatever it is; DEL takes all of it away,
//! whatever is left to know it by.

use netcore_tests::traffic::{Udp, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish};
use serde_json::json;

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

/// An attachment with one of everything.
fn network() -> Network {
    let mut network = Network::bridge("web", SUBNETS).with("mtu", json!(1400)).with("portIsolation", json!(true));
    let ranges = json!([[{ "subnet": SUBNETS[0] }], [{ "subnet": SUBNETS[1] }]]);
    let routes = json!([
        { "dst": "0.0.0.0/0" }, { "dst": "::/0" }, { "dst": "192.0.2.0/24", "gw": "10.20.0.1" },
        { "dst": "2001:db8:99::/64" },
    ]);
    network = network.with("ipam", json!({ "type": "host-local", "ranges": ranges, "routes": routes }));
    network
}

fn attachment(web: &Cni, netns: &Netns) -> Attachment {
    web.attachment(netns)
        .publish(Publish::tcp(8080, 80))
        .publish(Publish::tcp(8081, 80).on(Outside::HOST_V4))
        .publish(Publish::udp(8082, 80).on(Outside::HOST_V6))
}

/// Where a command takes something away.
#[derive(Clone, Copy)]
enum At {
    Host,
    Container,
}
use At::{Container, Host as OnHost};

/// Each thing ADD makes: how it is taken away (`VETH` is the host's end), and what CHECK has to
/// say about it.
const DAMAGE: &[(At, &str, &[&str])] = &[
    (Container, "ip addr del 10.20.0.2/24 dev eth0", &["10.20.0.2/24", "eth0"]),
    (Container, "ip addr del fd20::2/64 dev eth0", &["fd20::2/64", "eth0"]),
    (Container, "ip route del default", &["0.0.0.0/0", "10.20.0.1"]),
    (Container, "ip -6 route del default", &["::/0", "fd20::1"]),
    (Container, "ip route del 192.0.2.0/24", &["192.0.2.0/24"]),
    (Container, "ip -6 route del 2001:db8:99::/64", &["2001:db8:99::/64"]),
    (Container, "ip route change default via 10.20.0.9 dev eth0", &["0.0.0.0/0", "10.20.0.9", "10.20.0.1"]),
    (Container, "ip link set eth0 down", &["eth0", "down"]),
    (Container, "ip link set eth0 mtu 1300", &["eth0", "1300", "1400"]),
    (Container, "ip link set eth0 address 02:00:00:00:00:99", &["eth0", "02:00:00:00:00:99"]),
    (Container, "ip link set eth0 down; ip link set eth0 name eth9; ip link set eth9 up", &["eth0"]),
    (OnHost, "ip link del VETH", &["VETH"]),
    (OnHost, "ip link set VETH down; ip link set VETH name wire; ip link set wire up", &["VETH"]),
    (OnHost, "ip link set VETH down", &["VETH", "down"]),
    (OnHost, "ip link set VETH nomaster", &["VETH", "web"]),
    (OnHost, "ip link set VETH mtu 1300", &["VETH", "1300", "1400"]),
    (OnHost, "ip link set VETH alias ''", &["VETH"]),
    (OnHost, "bridge link set dev VETH hairpin off", &["VETH", "hairpin"]),
    (OnHost, "bridge link set dev VETH isolated off", &["VETH", "isolated"]),
    (OnHost, "ip link set web down", &["web", "down"]),
    (OnHost, "ip addr del 10.20.0.1/24 dev web", &["10.20.0.1/24", "web"]),
    (OnHost, "ip addr del fd20::1/64 dev web", &["fd20::1/64", "web"]),
    (OnHost, "sysctl -qw net.ipv4.ip_forward=0", &["net.ipv4.ip_forward"]),
    (OnHost, "sysctl -qw net.ipv6.conf.all.forwarding=0", &["net.ipv6.conf.all.forwarding"]),
    (OnHost, "sysctl -qw net.ipv4.conf.web.route_localnet=0", &["net.ipv4.conf.web.route_localnet"]),
    (OnHost, "nft flush set inet netcore bridges", &["member web"]),
    (OnHost, "nft flush set inet netcore masquerade4", &["masquerade 10.20.0.2"]),
    (OnHost, "nft flush set inet netcore masquerade6", &["masquerade fd20::2"]),
    (OnHost, "nft flush set inet netcore same_net4", &["hairpin 10.20.0.0/24"]),
    (OnHost, "nft flush set inet netcore same_net6", &["hairpin fd20::/64"]),
    (OnHost, "nft flush map inet netcore publish4", &["8080/tcp", "10.20.0.2:80"]),
    (OnHost, "nft flush map inet netcore publish6", &["8080/tcp", "[fd20::2]:80"]),
    (OnHost, "nft flush map inet netcore publish4_at", &["198.51.100.1:8081"]),
    (OnHost, "nft flush map inet netcore publish6_at", &["[2001:db8:51::1]:8082"]),
    (OnHost, "nft delete table inet netcore", &["table inet netcore"]),
    (OnHost, "rm /var/lib/cni/networks/web/10.20.0.2", &["10.20.0.2"]),
    (OnHost, "rm /var/lib/cni/networks/web/fd20::2", &["fd20::2"]),
    (OnHost, "printf 'somebody\\r\\neth0' > /var/lib/cni/networks/web/10.20.0.2", &["10.20.0.2", "somebody"]),
];

#[test]
fn check_names_every_single_thing_that_is_missing() {
    let host = Host::new();
    let _outside = host.outside();
    let web = host.cni(network());
    let mut failures = Vec::new();
    for (place, damage, named) in DAMAGE {
        // The same address each time.
        host.run("rm -rf /var/lib/cni/networks");
        let netns = host.netns("box");
        let attachment = attachment(&web, &netns).added();
        attachment.check().unwrap_or_else(|failure| panic!("before `{damage}`: {failure}"));
        let veth = attachment.host_interface();
        let damage = damage.replace("VETH", &veth);
        match place {
            OnHost => host.run(&damage),
            Container => netns.run(&damage),
        };
        match attachment.check() {
            Ok(()) => failures.push(format!("`{damage}`: not noticed")),
            Err(failure) => {
                let missing: Vec<String> =
                    named.iter().map(|name| name.replace("VETH", &veth)).filter(|name| !failure.says(name)).collect();
                if !missing.is_empty() {
                    failures.push(format!("`{damage}`: does not name {missing:?}: {failure}"));
                }
            }
        }
        attachment.del().unwrap_or_else(|failure| panic!("DEL after `{damage}`: {failure}"));
        // A link that has lost our mark is not ours to remove; it goes with its namespace.
        netns.remove_with_links();
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), DAMAGE.len(), failures.join("\n"));
}

/// Every rule of the table is one that CHECK misses, and that the next ADD brings back.
#[test]
fn check_misses_every_rule_of_the_table() {
    let host = Host::new();
    let _outside = host.outside();
    let web = host.cni(network());
    let netns = host.netns("box");
    let mut attachment = attachment(&web, &netns).added();
    let whole = host.run("nft list table inet netcore");
    let count = rules(&host).len();
    assert!(count > 5, "the table has rules:\n{whole}");
    for number in 0..count {
        // Handles are new whenever the table is made anew.
        let (chain, rule, handle) = rules(&host).swap_remove(number);
        host.run(&format!("nft delete rule inet netcore {chain} handle {handle}"));
        let failure = attachment.check().expect_err(&rule);
        assert!(failure.says("inet netcore") && failure.says(&chain), "`{rule}` of {chain}: {failure}");
        attachment.del().unwrap();
        attachment.add().unwrap_or_else(|failure| panic!("ADD mends `{rule}`: {failure}"));
        attachment.check().unwrap_or_else(|failure| panic!("after ADD mended `{rule}`: {failure}"));
        assert_eq!(chains(&whole), chains(&host.run("nft list table inet netcore")), "the table is whole again");
    }
}

/// Chain, text and handle of each rule of the table.
fn rules(host: &Host) -> Vec<(String, String, String)> {
    let mut chain = String::new();
    let mut rules = Vec::new();
    for line in host.run("nft -a list table inet netcore").lines().map(str::trim) {
        let Some((text, handle)) = line.split_once(" # handle ") else { continue };
        match text.strip_suffix(" {") {
            Some(opened) => chain = opened.strip_prefix("chain ").unwrap_or_default().to_owned(),
            None => rules.push((chain.clone(), text.to_owned(), handle.to_owned())),
        }
    }
    rules
}

/// What `nft` prints of the chains, which come after the sets.
fn chains(table: &str) -> Vec<&str> {
    table.lines().map(str::trim).skip_while(|line| !line.starts_with("chain ")).collect()
}

#[test]
fn check_is_content_with_what_a_later_plugin_changed() {
    let host = Host::new();
    let web = host.cni(network());
    let netns = host.netns("box");
    let attachment = web.attachment(&netns).added();
    // A tuning plugin behind us, say, has added things; it has taken nothing away.
    netns.run("ip addr add 192.0.2.7/32 dev eth0; ip route add 203.0.113.0/24 via 10.20.0.1");
    attachment.check().unwrap();
}

#[test]
fn a_second_check_finds_what_the_first_found() {
    let host = Host::new();
    let web = host.cni(network());
    let netns = host.netns("box");
    let attachment = web.attachment(&netns).added();
    let before = host.snapshot();
    attachment.check().unwrap();
    attachment.check().unwrap();
    before.assert_same(&host.snapshot(), "after CHECK");
}

/// A network in use, so that what is shared stays, and a way to lose the second attachment.
fn detached_by(detach: impl FnOnce(&Host, Netns, Attachment)) {
    let host = Host::new();
    let outside = host.outside();
    let web = host.cni(network());
    let neighbour = host.netns("neighbour");
    let kept = web.attachment(&neighbour).publish(Publish::tcp(9090, 80)).added();
    let _server = serve(&neighbour, "neighbour", 80);
    let before = host.snapshot();

    let netns = host.netns("box");
    let attachment = attachment(&web, &netns).added();
    let everything = attachment.host_interface();
    assert!(host.snapshot().mentions(&everything));
    let client = Udp::open(&*outside, true);
    let _ = client.probe(Outside::HOST_V6, 8082);
    detach(&host, netns, attachment);

    host.run("ip netns del box 2>/dev/null || true");
    before.assert_same(&host.snapshot(), "after DEL");
    let entries = host.run("conntrack -L -f ipv6 -p udp --orig-port-dst 8082 2>/dev/null || true");
    assert!(entries.trim().is_empty(), "conntrack still knows the port:\n{entries}");
    kept.check().unwrap();
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 9090), "neighbour");
}

/// Removes what was written down about a container.
fn forget(host: &Host, container: &str) {
    let records = host.run(&format!("grep -rl '{container}' /run/netcore 2>/dev/null || true"));
    assert!(!records.is_empty(), "there is a record of {container}");
    host.run(&format!("grep -rl '{container}' /run/netcore | xargs rm"));
}

#[test]
fn del_leaves_nothing() {
    detached_by(|_, netns, attachment| {
        attachment.del().unwrap();
        assert_eq!(netns.run("ip -br link show type veth"), "");
    });
}

#[test]
fn del_can_be_repeated() {
    detached_by(|_, _, attachment| {
        attachment.del().unwrap();
        attachment.del().unwrap();
        attachment.clone().without_netns().del().unwrap();
    });
}

#[test]
fn del_works_without_the_namespace() {
    detached_by(|_, _, attachment| attachment.without_netns().del().unwrap());
}

#[test]
fn del_works_without_a_previous_result() {
    detached_by(|_, _, attachment| attachment.without_result().del().unwrap());
}

#[test]
fn del_works_without_our_records() {
    detached_by(|host, _, attachment| {
        forget(host, "box");
        attachment.del().unwrap();
    });
}

#[test]
fn del_works_without_anything_but_the_configuration() {
    detached_by(|host, _, attachment| {
        forget(host, "box");
        attachment.without_result().without_netns().del().unwrap();
    });
}

#[test]
fn del_works_after_the_namespace_is_gone() {
    detached_by(|_, netns, attachment| {
        netns.remove();
        attachment.del().unwrap();
    });
}

#[test]
fn del_works_with_a_path_that_is_no_longer_a_namespace() {
    detached_by(|host, netns, attachment| {
        netns.remove();
        host.run("touch /run/netns/box");
        attachment.del().unwrap();
        host.run("rm /run/netns/box");
    });
}

#[test]
fn del_works_when_half_of_it_is_gone_already() {
    detached_by(|host, _, attachment| {
        host.run(&format!("ip link del {}", attachment.host_interface()));
        host.run("nft flush map inet netcore publish4_at 2>/dev/null || true; rm /var/lib/cni/networks/web/10.20.0.3");
        attachment.del().unwrap();
    });
}

#[test]
fn del_finds_a_link_that_was_renamed() {
    detached_by(|host, netns, attachment| {
        let veth = attachment.host_interface();
        netns.run("ip link set eth0 down; ip link set eth0 name wan; ip link set wan up");
        attachment.check().expect_err("eth0 is wan");
        host.run(&format!("ip link set {veth} down; ip link set {veth} name wire; ip link set wire up"));
        attachment.del().unwrap();
        assert_eq!(netns.run("ip -br link show type veth"), "");
    });
}

#[test]
fn del_of_what_was_never_attached_is_a_success() {
    let host = Host::new();
    let web = host.cni(network());
    let netns = host.netns("box");
    let before = host.snapshot();
    attachment(&web, &netns).del().unwrap();
    web.attachment(&netns).without_netns().del().unwrap();
    before.assert_same(&host.snapshot(), "after DEL of nothing");
}

#[test]
fn del_of_one_network_leaves_the_other_alone() {
    let host = Host::new();
    let outside = host.outside();
    let (web, db) =
        (host.cni(Network::bridge("web", &["10.20.0.0/24"])), host.cni(Network::bridge("db", &["10.30.0.0/24"])));
    let netns = host.netns("box");
    let _server = serve(&netns, "box", 80);
    let one = web.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
    netns.run("ip route del default");
    let two = db.attachment(&netns).interface("eth1").publish(Publish::tcp(8081, 80)).added();
    one.del().unwrap();
    two.check().unwrap();
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8081), "box");
}

#[test]
fn the_bridge_goes_with_its_last_attachment_when_asked_to() {
    let host = Host::new();
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]).with("removeEmptyBridge", json!(true)));
    let (one, two) = (host.netns("one"), host.netns("two"));
    let (first, second) = (web.attachment(&one).added(), web.attachment(&two).added());
    first.del().unwrap();
    assert!(host.snapshot().mentions("link web"));
    second.del().unwrap();
    assert!(!host.snapshot().mentions("link web"), "{}", host.snapshot());
}

#[test]
fn a_bridge_that_somebody_else_made_stays() {
    let host = Host::new();
    host.run("ip link add web type bridge; ip link set web up");
    let web = host.cni(Network::bridge("web", &["10.20.0.0/24"]).with("removeEmptyBridge", json!(true)));
    let one = host.netns("one");
    let attachment = web.attachment(&one).added();
    attachment.check().unwrap();
    attachment.del().unwrap();
    assert!(host.snapshot().mentions("link web"));
}
