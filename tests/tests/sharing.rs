//! Networks that give a container somebody else's namespace: the host's, or another container's.

use std::net::{IpAddr, TcpListener, UdpSocket};

use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{nobody_answers, serve, who_answers};
use netcore_tests::{Attachment, Cni, Host, Netns, Network, Outside, Publish};
use serde_json::{Value, json};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn on_host(host: &Host) -> Cni {
    let network = Network::new("own", json!({ "type": "host", "capabilities": { "portMappings": true } }));
    host.cni(network.version("1.1.0"))
}

fn shared(host: &Host, target: Value) -> Cni {
    let network = json!({ "type": "container", "container": target, "capabilities": { "portMappings": true } });
    host.cni(Network::new("shared", network).version("1.1.0"))
}

fn web(host: &Host) -> Cni {
    host.cni(Network::bridge("web", &["10.20.0.0/24", "fd20::/64"]).version("1.1.0"))
}

/// Which namespace a file shows.
fn shown(host: &Host, path: &str) -> String {
    host.run(&format!("stat -L -c %i {path}"))
}

/// How many mounts lie on one another at the file.
fn mounts(host: &Host, name: &str) -> usize {
    host.snapshot().count(&format!("mount /run/netns/{name}"))
}

/// What a runtime does when a container is gone: one unmount, one unlink.
fn clean_up(host: &Host, netns: Netns) {
    let path = netns.path().to_owned();
    drop(netns);
    host.run(&format!("umount -l {path}; rm {path}"));
}

#[test]
fn a_container_on_host_has_the_hosts_stack_until_it_goes() {
    let host = Host::new();
    let outside = host.outside();
    let before = host.snapshot();
    let netns = host.netns("box");
    let own = shown(&host, netns.path());
    let attachment = on_host(&host).attachment(&netns).added();
    attachment.check().unwrap();
    assert_eq!(shown(&host, netns.path()), shown(&host, "/proc/self/ns/net"));
    let inside = host.adopt("box");
    let server = serve(&inside, "box", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 80), "box");
    assert_eq!(who_answers(&host, LOOPBACK, 80), "box");

    let result = attachment.result();
    let names: Vec<&str> =
        result["interfaces"].as_array().unwrap().iter().filter_map(|interface| interface["name"].as_str()).collect();
    assert!(names.first() == Some(&"uplink") && !names.contains(&"lo"), "{result}");
    let expected: [IpAddr; 3] = [Outside::HOST_V4, Outside::HOST_OTHER_V4, Outside::HOST_V6];
    assert_eq!(attachment.addresses(), expected, "{result}");

    drop((server, inside));
    attachment.del().unwrap();
    assert_eq!(shown(&host, netns.path()), own, "what the runtime made is uncovered");
    attachment.del().unwrap();
    clean_up(&host, netns);
    before.assert_same(&host.snapshot(), "after all is gone");
}

/// Containers of ours are not the host's interfaces, the bridge they are on is.
#[test]
fn the_hosts_interfaces_are_told_without_those_of_containers() {
    let host = Host::new();
    let _outside = host.outside();
    let neighbour = web(&host).attachment(&host.netns("web-1")).added();
    let attachment = on_host(&host).attachment(&host.netns("box")).added();
    let told = attachment.result().to_string();
    assert!(told.contains("\"web\"") && told.contains("10.20.0.1/24"), "{told}");
    assert!(!told.contains(&neighbour.host_interface()), "{told}");
    attachment.del().unwrap();
    neighbour.check().unwrap();
}

#[test]
fn a_namespace_that_is_the_hosts_already_needs_nothing() {
    let host = Host::new();
    let _outside = host.outside();
    host.run("touch /run/netns/own; mount --bind /proc/self/ns/net /run/netns/own");
    let before = host.snapshot();
    for path in ["own", "other"] {
        let netns = host.adopt("own");
        let attachment = on_host(&host).attachment(&netns).container(path).added();
        assert_eq!(mounts(&host, "own"), 1);
        attachment.check().unwrap();
        attachment.del().unwrap();
    }
    before.assert_same(&host.snapshot(), "after DEL");
}

#[test]
fn the_namespace_of_a_process_cannot_be_bound() {
    let host = Host::with_processes();
    let netns = host.netns("box");
    let pid = netns.run("setsid sleep 1000 >/dev/null 2>&1 & echo $!");
    let path = format!("/proc/{}/ns/net", pid.trim());
    let call = on_host(&host).attachment(&netns).first_plugin().env("CNI_NETNS", &path);
    let before = host.snapshot();
    let failure = call.run("ADD").expect_err("a process cannot be moved");
    assert_eq!(failure.code, 8, "{failure}");
    for word in [path.as_str(), "/run/netns/NAME", "hostNetwork"] {
        assert!(failure.says(word), "{word}: {failure}");
    }
    before.assert_same(&host.snapshot(), "after the refusal");
}

#[test]
fn a_port_somebody_listens_on_is_refused_with_who() {
    let host = Host::new();
    let _outside = host.outside();
    let _listeners =
        host.enter(|| (TcpListener::bind("127.0.0.1:8080").unwrap(), UdpSocket::bind("198.51.100.1:5353").unwrap()));
    let network = on_host(&host);
    let netns = host.netns("box");
    let before = host.snapshot();
    let refused = |port: Publish| network.attachment(&netns).publish(port).add().expect_err("the port is taken");
    let cases = [
        (refused(Publish::tcp(8080, 80)), "8080/tcp", "127.0.0.1:8080"),
        (refused(Publish::tcp(8080, 8080).on("127.0.0.1")), "8080/tcp", "127.0.0.1:8080"),
        (refused(Publish::udp(5353, 53)), "5353/udp", "198.51.100.1:5353"),
    ];
    for (failure, port, who) in cases {
        assert!(failure.code == 101 && failure.says(port) && failure.says(who), "{failure}");
        assert!(failure.says(&format!("(pid {})", std::process::id())), "{failure}");
    }
    before.assert_same(&host.snapshot(), "after the refusals");
    let free = network.attachment(&netns);
    let free = free.publish(Publish::udp(8080, 80)).publish(Publish::tcp(8080, 80).on("198.51.100.1")).added();
    free.del().unwrap();
}

#[test]
fn guest_and_owner_are_one_to_the_world_and_to_one_another() {
    let host = Host::with_processes();
    let outside = host.outside();
    let before = host.snapshot();
    let (owners, guests) = (host.netns("web-1"), host.netns("guest"));
    let owner = web(&host).attachment(&owners).publish(Publish::tcp(8080, 80)).added();
    let guest = shared(&host, json!("web-1")).attachment(&guests).added();
    guest.check().unwrap();
    assert_eq!(guest.addresses(), owner.addresses(), "{}", guest.result());
    assert_eq!(guest.result()["interfaces"][0]["name"], "eth0");
    assert_eq!(guest.result()["ips"][0]["interface"], 0);

    // Two processes, one loopback, one port space.
    owners.run("ip link set lo up");
    let inside = host.adopt("guest");
    host.run("mkdir -p /run/www; echo the-guest > /run/www/index.html");
    inside.run("busybox httpd -p 127.0.0.1:8000 -h /run/www");
    assert_eq!(owners.run("busybox wget -qO- http://127.0.0.1:8000/index.html"), "the-guest\n");
    let second = owners.try_run("busybox httpd -f -p 127.0.0.1:8000 -h /run/www");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("Address already in use"), "{said}");
    let server = serve(&inside, "guest", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "guest", "by the port the owner publishes");
    drop((server, inside));

    // The guest goes, and the owner has everything it had.
    guest.del().unwrap();
    assert_ne!(shown(&host, guests.path()), shown(&host, owners.path()));
    owner.check().unwrap();
    let server = serve(&owners, "owner", 80);
    assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8080), "owner");
    drop(server);
    guest.del().unwrap();
    clean_up(&host, guests);
    owner.del().unwrap();
    clean_up(&host, owners);
    let after = host.snapshot();
    for trace in ["mount", "file /run/netcore", "link veth"] {
        assert_eq!(after.count(trace), before.count(trace), "{trace}: {after}");
    }
}

#[test]
fn the_owner_is_named_by_id_path_or_pid_in_three_places() {
    let host = Host::with_processes();
    let (one, two) = (host.netns("web-1"), host.netns("web-2"));
    let network = host.cni(Network::bridge("web", &["10.20.0.0/24"]));
    let (first, second) = (network.attachment(&one).added(), network.attachment(&two).added());
    let pid = two.run("setsid sleep 1000 >/dev/null 2>&1 & echo $!");
    let pid: u32 = pid.trim().parse().unwrap();
    let guests = host.netns("guest");
    let joins = |network: Value, args: &str| {
        let guest = host.cni(Network::new("shared", network)).attachment(&guests).args(args).added();
        let address = guest.address();
        guest.check().unwrap();
        guest.del().unwrap();
        address
    };
    let plain = || json!({ "type": "container" });
    let with = |target: Value| json!({ "type": "container", "container": target });
    for target in [json!("web-2"), json!("/run/netns/web-2"), json!("/var/run/netns/web-2"), json!(pid)] {
        if target == json!("/var/run/netns/web-2") && !host.try_run("test -e /var/run/netns/web-2").status.success() {
            continue;
        }
        assert_eq!(joins(with(target.clone()), ""), second.address(), "{target}");
        let argument = json!({ "type": "container", "args": { "cni": { "container": target } } });
        assert_eq!(joins(argument, ""), second.address(), "{target}");
        let text = target.to_string().replace('"', "");
        assert_eq!(joins(plain(), &format!("IgnoreUnknown=1;CONTAINER={text}")), second.address(), "{text}");
    }
    // Configuration, CNI_ARGS, args.cni: each beats the one before.
    assert_eq!(joins(with(json!("web-2")), "CONTAINER=web-1"), first.address());
    let argument = json!({ "type": "container", "container": "web-2", "args": { "cni": { "container": "web-1" } } });
    assert_eq!(joins(argument, "CONTAINER=web-2"), first.address());
}

#[test]
fn an_owner_that_cannot_be_one_is_refused_before_anything_is_touched() {
    let host = Host::with_processes();
    let _outside = host.outside();
    let names = ["web-1", "guest", "late", "gone", "lonely"];
    let [owner, guest, late, gone, lonely] = names.map(|name| host.netns(name));
    let web = web(&host);
    let _owner = web.attachment(&owner).added();
    let _gone = web.attachment(&gone).added();
    host.run("umount -l /run/netns/gone; rm /run/netns/gone");
    let _guest = shared(&host, json!("web-1")).attachment(&guest).added();
    let _on_host = on_host(&host).attachment(&lonely).added();
    let before = host.snapshot();
    let refused = |netns: &Netns, target: Value| {
        let failure = shared(&host, target).attachment(netns).add().expect_err("no owner");
        before.assert_same(&host.snapshot(), &format!("after {failure}"));
        failure
    };
    let cases: [(&Netns, Value, u64, &[&str]); 15] = [
        (&late, json!("late"), 7, &["late", "the one that is being attached"]),
        (&late, json!("/run/netns/late"), 7, &["the one that is being attached"]),
        (&late, json!("nobody"), 7, &["nobody", "no record", "/run/netcore"]),
        (&late, json!("4000000"), 104, &["4000000", "is not there"]),
        (&late, json!(4_000_000), 104, &["4000000", "is not there"]),
        (&late, json!("/run/netns/nobody"), 104, &["/run/netns/nobody", "is not there"]),
        (&late, json!("/etc/passwd"), 104, &["/etc/passwd", "not a namespace"]),
        (&late, json!("gone"), 104, &["gone", "/run/netns/gone", "is not there"]),
        (&late, json!("guest"), 104, &["guest", "of web-1", "share that of web-1 itself"]),
        (&late, json!("/run/netns/guest"), 104, &["guest", "share that of web-1 itself"]),
        (&late, json!("lonely"), 104, &["lonely", "type host"]),
        (&late, json!("/proc/self/ns/net"), 7, &["type host"]),
        (&owner, json!("guest"), 104, &["web-1", "guest"]),
        (&owner, json!("late"), 104, &["web-1", "guest/eth0"]),
        (&late, json!(""), 7, &["container"]),
    ];
    for (netns, target, code, words) in cases {
        let failure = refused(netns, target.clone());
        assert_eq!(failure.code, code, "{target}: {failure}");
        for word in words {
            assert!(failure.says(word), "{target}: {word}: {failure}");
        }
    }
    let missing = host.cni(Network::new("shared", json!({ "type": "container" }))).attachment(&late).add();
    let missing = missing.expect_err("nobody was named");
    assert!(missing.code == 7 && missing.says("CONTAINER="), "{missing}");
    let ports = shared(&host, json!("web-1")).attachment(&late).publish(Publish::tcp(8080, 80)).add();
    let ports = ports.expect_err("the owner's ports");
    assert!(ports.code == 2 && ports.says("portMappings") && ports.says("owner"), "{ports}");
    let ipam =
        json!({ "type": "container", "container": "web-1", "ipam": { "type": "host-local", "subnet": "10.0.0.0/24" } });
    assert_eq!(host.cni(Network::new("shared", ipam)).attachment(&late).add().expect_err("ipam").code, 7);
    before.assert_same(&host.snapshot(), "after all the refusals");
}

/// What happens to a guest, and to a container on the host, and what CHECK and DEL say.
#[test]
fn whatever_goes_first_the_rest_follows() {
    let host = Host::new();
    let _outside = host.outside();
    let container = |host: &Host| -> (Netns, Attachment) {
        let netns = host.netns("web-1");
        let attachment = web(host).attachment(&netns).added();
        (netns, attachment)
    };
    type Make = fn(&Host) -> Cni;
    let kinds: [Make; 2] = [on_host, |host| shared(host, json!("web-1"))];
    let before = host.snapshot();
    for kind in kinds {
        let network = kind(&host);
        let (owners, owner) = container(&host);
        let netns = host.netns("box");
        let attachment = network.attachment(&netns).added();

        // The binding is gone: named, and healed by DEL and ADD.
        host.run("umount -l /run/netns/box");
        let failure = attachment.check().expect_err("the binding is gone");
        assert!(failure.code == 106 && failure.says("bind /run/netns/box") && failure.says("missing"), "{failure}");
        attachment.del().unwrap();
        let attachment = network.attachment(&netns).added();

        // Twice is once too often.
        let again = network.attachment(&netns).add().expect_err("attached already");
        assert!(matches!(again.code, 8 | 103), "{again}");
        assert_eq!(mounts(&host, "box"), 2);

        // The owner goes first: it may, and its guest can go after it.
        owner.del().unwrap();
        clean_up(&host, owners);
        attachment.check().unwrap();
        attachment.clone().without_netns().without_result().del().unwrap();
        assert_eq!(mounts(&host, "box"), 1);

        // The runtime was faster than DEL.
        let (owners, owner) = container(&host);
        let attachment = network.attachment(&netns).added();
        host.run("umount -l /run/netns/box; umount -l /run/netns/box; rm /run/netns/box");
        attachment.del().unwrap();
        drop(netns);

        // Nobody called DEL.
        let netns = host.netns("box");
        let stays = host.netns("stays");
        let _lost = network.attachment(&netns).added();
        let kept = network.attachment(&stays).added();
        network.gc(&[&kept]).unwrap();
        kept.check().unwrap();
        assert_eq!((mounts(&host, "box"), mounts(&host, "stays")), (1, 2));
        kept.del().unwrap();
        clean_up(&host, netns);
        clean_up(&host, stays);
        owner.del().unwrap();
        clean_up(&host, owners);
        let after = host.snapshot();
        for trace in ["mount", "file", "link veth"] {
            assert_eq!(after.count(trace), before.count(trace), "{trace}: {after}");
        }
        nobody_answers(&host, LOOPBACK, 80);
    }
}

#[test]
fn an_operator_is_told_who_shares_with_whom_and_who_was_left() {
    let host = Host::new();
    let _outside = host.outside();
    let (owners, guests, others) = (host.netns("web-1"), host.netns("box"), host.netns("other"));
    let owner = web(&host).attachment(&owners).added();
    let alone = web(&host).attachment(&others).added();
    let guest = shared(&host, json!("web-1")).attachment(&guests).added();
    let path = host.netns("by-path");
    let by_path = shared(&host, json!("/run/netns/web-1")).attachment(&path).added();

    let told = netctl(&host, "ls").ended(0);
    assert!(told.says(&["shared", "box/eth0", "container", "shares web-1"]), "{}", told.text);
    assert!(told.says(&["web-1/eth0", "shared by shared/box/eth0 shared/by-path/eth0"]), "{}", told.text);
    assert!(!told.says(&["other/eth0", "share"]), "{}", told.text);
    assert!(netctl(&host, "show box").ended(0).says(&["namespace", "shares web-1"]));
    assert!(netctl(&host, "show web-1").ended(0).says(&["namespace", "shared by shared/box/eth0"]));
    let listed = netctl(&host, "ls --network web --json").ended(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    let of = |container: &str| {
        let found = listed.as_array().unwrap().iter().find(|one| one["attachment"] == format!("{container}/eth0"));
        found.unwrap()["guests"].clone()
    };
    assert_eq!(of("web-1"), json!(["shared/box/eth0", "shared/by-path/eth0"]));
    assert_eq!(of("other"), Value::Null);

    // The owner goes, and its guests do not.
    owner.del().unwrap();
    let told = netctl(&host, "ls").ended(0);
    assert!(told.says(&["box/eth0", "shares web-1, which is gone"]), "{}", told.text);
    assert!(netctl(&host, "show by-path").ended(0).says(&["shares web-1, which is gone"]));
    let told = netctl(&host, "show box --json").ended(0).json();
    assert_eq!((&told[0]["shares"], &told[0]["intact"]), (&json!({ "with": "web-1", "gone": true }), &json!(true)));
    let told = netctl(&host, "show web-1").ended(1);
    assert!(
        told.complaint.contains("shared/box/eth0, shared/by-path/eth0 still shares its namespace"),
        "{}",
        told.complaint
    );

    // Another one of the same name is not the one they share with.
    clean_up(&host, owners);
    let owners = host.netns("web-1");
    let owner = web(&host).attachment(&owners).added();
    assert!(netctl(&host, "ls").ended(0).says(&["box/eth0", "shares web-1, which is gone"]));
    assert!(!netctl(&host, "show web-1").ended(0).says(&["shared by"]));
    for attachment in [guest, by_path, owner, alone] {
        attachment.del().unwrap();
    }
    assert_eq!(netctl(&host, "ls").ended(0).text, "");
}

/// `/var/run/netns` is what runtimes say, `/run/netns` is what the kernel shows.
#[test]
fn a_path_through_a_link_is_the_same_file() {
    let host = Host::new();
    let _outside = host.outside();
    host.run("ln -s /run/netns /run/elsewhere");
    let netns = host.netns("box");
    let call = on_host(&host).attachment(&netns).first_plugin().env("CNI_NETNS", "/run/elsewhere/box");
    call.run("ADD").unwrap();
    assert_eq!(mounts(&host, "box"), 2);
    call.run("DEL").unwrap();
    clean_up(&host, netns);
}

/// containerd calls `loopback` beside each network, before, after or at the same time.
#[test]
fn loopback_beside_host_is_no_mistake_and_alone_it_is_one() {
    let host = Host::new();
    let _outside = host.outside();
    let netns = host.netns("box");
    let loopback = host.cni(Network::new("cni-loopback", json!({ "type": "loopback" })));
    let attachment = on_host(&host).attachment(&netns).added();
    let lo = loopback.attachment(&netns).interface("lo").added();
    lo.check().unwrap();
    lo.del().unwrap();
    attachment.del().unwrap();
    host.run("touch /run/netns/own; mount --bind /proc/self/ns/net /run/netns/own");
    let failure = loopback.attachment(&host.adopt("own")).interface("lo").add().expect_err("the plugin's own");
    assert_eq!(failure.code, 8, "{failure}");
}
