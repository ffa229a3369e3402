//! What an overlay in etcd bears: the registry, an agent or a host goes, and nothing else does.

use std::net::IpAddr;
use std::time::Duration;

use netcore_tests::cluster::{Container, Wire};
use netcore_tests::etcd::{PREFIX, Trust};
use netcore_tests::mesh::{CONFLIST, Mesh, PATIENCE, Pings};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::ping;
use netcore_tests::wait_for;

/// The tunnel's entries for other nodes on `node`.
fn entries(mesh: &Mesh, node: usize) -> String {
    let host = &mesh.node(node).host;
    host.run("bridge fdb show dev vxlan42 | sort; ip -4 neigh show dev vxlan42 nud permanent; ip route show proto 78")
}

fn knows(mesh: &Mesh, node: usize, other: usize) -> bool {
    entries(mesh, node).contains(&format!("dst 192.0.2.{} ", 10 + other))
}

#[test]
fn etcd_is_away_for_a_while() {
    let mut mesh = Mesh::of(3, Trust::None);
    let boxes: Vec<_> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    let pings = Pings::start(&boxes[0].netns, boxes[1].address());
    mesh.etcd.kill();
    for node in 1..=3 {
        mesh.node(node).await_words("what was known stays");
        let late = mesh.container(node, "late");
        ping(&late.netns, boxes[node % 3].address());
        late.attachment.check().unwrap();
    }
    // An agent that starts now has what was good last; a node that is new has nothing yet.
    mesh.node_mut(2).kill();
    mesh.node_mut(2).start();
    mesh.node(2).await_words("what was known stays");
    let four = mesh.add();
    mesh.node_mut(four).start();
    mesh.node(four).await_words("what was known stays");
    let failure = mesh.cni(four).status().expect_err("there is no subnet");
    assert_eq!((failure.code, failure.says("agent")), (50, true), "{failure}");

    mesh.etcd.start();
    mesh.await_subnet(four);
    let new = mesh.container(four, "new");
    mesh.await_ways(&[1, 2, 3, four]);
    for one in &boxes {
        ping(&new.netns, one.address());
        ping(&one.netns, new.address());
    }
    assert!(pings.stop() > 10);
}

/// Which member of etcd the agent of `node` hears, if it hears one.
fn member_in_use(mesh: &Mesh, node: usize) -> Option<usize> {
    let status = netctl(&mesh.node(node).host, "--json overlay status").json();
    let agent = &status[0]["agent"];
    let source = agent["source"].as_str().filter(|_| agent["connected"] == true)?;
    (0..3).find(|member| source == format!("etcd {}", mesh.etcd.endpoint(*member)))
}

#[test]
fn the_member_in_use_dies_and_the_others_are_asked() {
    let mut mesh = Mesh::over(Wire::V4, 3, Trust::None).with(2);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let pings = Pings::start(&one.netns, two.address());
    // One after the other, so that whoever is asked at the end had died as well, or led the others.
    for round in 0..3 {
        wait_for("a member is in use", PATIENCE, || member_in_use(&mesh, 1).is_some());
        let used = member_in_use(&mesh, 1).unwrap();
        mesh.etcd.kill_member(used);
        wait_for("another is in use", PATIENCE, || member_in_use(&mesh, 1).is_some_and(|member| member != used));
        mesh.simulate(round..round + 1);
        let news = format!("dst 198.18.0.{} ", round + 1);
        wait_for("a change is followed", PATIENCE, || entries(&mesh, 1).contains(&news));
        let new = mesh.join();
        let container = mesh.container(new, &format!("box{new}"));
        mesh.await_ways(&[1, 2, new]);
        ping(&container.netns, one.address());
        mesh.etcd.start_member(used);
    }
    // With two of three away, nobody can say what is true.
    wait_for("a member is in use", PATIENCE, || member_in_use(&mesh, 1).is_some());
    let left = member_in_use(&mesh, 1).unwrap();
    let before = entries(&mesh, 1);
    let gone: Vec<usize> = (0..3).filter(|member| *member != left).collect();
    gone.iter().for_each(|member| mesh.etcd.kill_member(*member));
    wait_for("nobody is heard", PATIENCE, || member_in_use(&mesh, 1).is_none());
    assert_eq!(entries(&mesh, 1), before);
    mesh.etcd.start();
    mesh.simulate(9..10);
    wait_for("a change is followed", PATIENCE, || entries(&mesh, 1).contains("dst 198.18.0.10 "));
    wait_for("all is well", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 0);
    assert!(pings.stop() > 10);
}

#[test]
fn an_agent_is_silent_for_so_long_that_its_lease_expires() {
    let mut mesh = Mesh::of(3, Trust::None);
    let boxes: Vec<_> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    let before = entries(&mesh, 1);
    let pings = [1, 2].map(|other: usize| Pings::start(&boxes[0].netns, boxes[other].address()));
    let states = |mesh: &Mesh| -> Vec<serde_json::Value> {
        let listed = netctl(&mesh.node(1).host, &format!("--json overlay peers --config {CONFLIST} --node n1"));
        let listed = listed.ended(0).json();
        listed["peers"].as_array().unwrap().iter().map(|peer| peer["alive"].clone()).collect()
    };
    assert_eq!(states(&mesh), [true, true, true]);
    // One hangs, and the other dies.
    let agent = rustix::process::Pid::from_raw(mesh.node(2).agent.as_ref().unwrap().pid() as i32).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::STOP).unwrap();
    mesh.node_mut(3).kill();
    // Etcd takes the keys away by itself, when the minute of their leases is over.
    let silent = || states(&mesh) == [true, false, false];
    wait_for("the leases are over", Duration::from_secs(240), silent);
    let told = netctl(&mesh.node(1).host, &format!("overlay peers --config {CONFLIST} --node n1")).ended(0);
    assert!(told.says(&["n2", "silent"]) && told.says(&["n3", "silent"]), "{}", told.text);
    assert_eq!(entries(&mesh, 1), before);
    netctl(&mesh.node(1).host, "overlay status").ended(0);
    let late = mesh.container(3, "late");
    ping(&late.netns, boxes[0].address());
    ping(&boxes[0].netns, late.address());
    // What hung goes on, and what died comes back.
    rustix::process::kill_process(agent, rustix::process::Signal::CONT).unwrap();
    mesh.node_mut(3).start();
    wait_for("all are alive", PATIENCE, || states(&mesh) == [true, true, true]);
    assert_eq!(entries(&mesh, 1), before);
    for pings in pings {
        assert!(pings.stop() > 10);
    }
}

#[test]
fn an_agent_is_killed_at_any_moment() {
    let mut mesh = Mesh::of(3, Trust::None);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let pings = Pings::start(&one.netns, two.address());
    for round in 0..12 {
        mesh.node_mut(1).kill();
        // Something happens meanwhile that it has not heard of.
        if round % 3 == 0 {
            mesh.node_mut(3).kill();
            netctl(&mesh.node(3).host, &format!("overlay leave --config {CONFLIST} --node n3 --force")).ended(0);
        } else if round % 3 == 1 {
            mesh.node_mut(3).start();
            mesh.await_subnet(3);
        }
        mesh.node_mut(1).start();
        std::thread::sleep(Duration::from_millis(37 * round));
    }
    wait_for("the third node's way", PATIENCE, || knows(&mesh, 1, 3));
    one.attachment.check().unwrap();
    wait_for("all is well", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 0);
    assert!(pings.stop() > 10);
}

#[test]
fn what_is_missed_is_compacted() {
    let mut mesh = Mesh::of(3, Trust::None);
    let one = mesh.container(1, "box1");
    let _two = mesh.container(2, "box2");
    let three = mesh.container(3, "box3");
    mesh.await_ways(&[1, 2, 3]);
    let pings = Pings::start(&one.netns, three.address());
    let host = mesh.node(1).host.clone();
    host.run("ip route add unreachable 192.0.2.100");
    mesh.node(1).await_words("what was known stays");
    mesh.join();
    mesh.node_mut(2).kill();
    netctl(&mesh.node(2).host, &format!("overlay leave --config {CONFLIST} --node n2 --force")).ended(0);
    let status = mesh.etcd.ctl(&format!("get {PREFIX}/nodes/n4 -w json"));
    let revision = status.split_once("\"revision\":").unwrap().1;
    let revision: String = revision.chars().take_while(char::is_ascii_digit).collect();
    mesh.etcd.ctl(&format!("compact {revision} --physical"));
    assert!(!knows(&mesh, 1, 4) && knows(&mesh, 1, 2));
    host.run("ip route del unreachable 192.0.2.100");
    wait_for("the fourth node came and the second went", PATIENCE, || knows(&mesh, 1, 4) && !knows(&mesh, 1, 2));
    one.attachment.check().unwrap();
    assert!(pings.stop() > 10);
}

#[test]
fn etcd_comes_back_without_a_memory() {
    let mut mesh = Mesh::of(3, Trust::None);
    let boxes: Vec<_> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    let before = entries(&mesh, 1);
    let pings = Pings::start(&boxes[0].netns, boxes[1].address());
    mesh.etcd.kill();
    mesh.etcd.forget();
    mesh.etcd.start();
    for node in 1..=3 {
        let key = format!("{PREFIX}/nodes/n{node}");
        wait_for("the node registers again", PATIENCE, || mesh.etcd.ctl(&format!("get {key}")).contains("underlay"));
    }
    let four = mesh.join();
    wait_for("the fourth node's way", PATIENCE, || knows(&mesh, 1, 2) && knows(&mesh, 1, 3) || four == 0);
    let new = mesh.container(four, "new");
    mesh.await_ways(&[1, 2, 3, four]);
    ping(&new.netns, boxes[0].address());
    for line in before.lines() {
        assert!(entries(&mesh, 1).contains(line), "{line} is gone");
    }
    assert!(pings.stop() > 10);
}

#[test]
fn a_node_comes_back_as_what_it_was() {
    let mut mesh = Mesh::of(3, Trust::None);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    let three = mesh.container(3, "box3");
    mesh.await_ways(&[1, 2, 3]);
    let pings = Pings::start(&one.netns, three.address());
    let before = entries(&mesh, 1);
    // Its disk is new, and its kernel has started.
    two.attachment.del().unwrap();
    two.netns.remove();
    mesh.node_mut(2).kill();
    mesh.node(2).host.run("rm -rf /var/lib/netcore/overlay; ! ip link show vxlan42 2>/dev/null");
    mesh.node_mut(2).start();
    mesh.await_subnet(2);
    let again = mesh.container(2, "again");
    assert_eq!(entries(&mesh, 1), before);
    ping(&one.netns, again.address());
    // As it is: another address among the nodes. The others follow.
    mesh.node(2).host.run("ip addr add 192.0.2.77/24 dev eth0");
    mesh.node_mut(2).kill();
    mesh.etcd.ctl(&format!("del {PREFIX}/alive/n2"));
    mesh.node_mut(2).start_with("--node n2 --underlay 192.0.2.77");
    wait_for("the node is elsewhere", PATIENCE, || entries(&mesh, 1).contains("dst 192.0.2.77 "));
    assert_eq!(entries(&mesh, 1).replace("192.0.2.77", "192.0.2.12"), before);
    assert!(pings.stop() > 10);
}

#[test]
fn nodes_race_for_the_last_subnets() {
    let mut mesh = Mesh::new(Trust::None);
    let network = mesh.network().with("cidr", "10.244.0.0/23".into());
    for number in 1..=3 {
        mesh.add();
        mesh.node(number).configure(&network);
    }
    for number in 1..=3 {
        mesh.node_mut(number).start();
    }
    let status = |mesh: &Mesh, node: usize| mesh.node(node).host.cni(network.clone()).status();
    wait_for("two have a subnet", PATIENCE, || (1..=3).filter(|node| status(&mesh, *node).is_ok()).count() == 2);
    let late = (1..=3).find(|node| status(&mesh, *node).is_err()).unwrap();
    mesh.node(late).await_words("no free address in 10.244.0.0/23, in subnets of /24");
    let held = mesh.etcd.ctl(&format!("get {PREFIX}/subnets/ --prefix --keys-only"));
    assert_eq!(held.lines().filter(|line| !line.is_empty()).count(), 2, "{held}");

    // Those who have one do not notice that the third tries again.
    let winners: Vec<usize> = (1..=3).filter(|node| *node != late).collect();
    let boxes: Vec<_> = winners.iter().map(|node| &mesh.node(*node).host).collect();
    let boxes: Vec<_> =
        boxes.into_iter().map(|host| Container::of(host, &host.cni(network.clone()), "box", &[])).collect();
    mesh.await_ways(&winners);
    let pings = Pings::start(&boxes[0].netns, boxes[1].address());
    for _ in 0..25 {
        mesh.node_mut(late).kill();
        mesh.node_mut(late).start();
        mesh.node(late).await_words("no free address in 10.244.0.0/23, in subnets of /24");
        assert!(status(&mesh, late).is_err());
    }
    assert!(pings.stop() > 10);
    for one in &boxes {
        one.attachment.del().unwrap();
    }

    let first = late % 3 + 1;
    mesh.node_mut(first).agent.take().unwrap().terminate();
    let told = netctl(&mesh.node(first).host, &format!("overlay leave --config {CONFLIST} --node n{first}")).ended(0);
    assert!(told.says(&["gave back", "10.244."]), "{}", told.text);
    wait_for("the third has the subnet", PATIENCE, || status(&mesh, late).is_ok());
    let failure = status(&mesh, first).unwrap_err();
    assert_eq!(failure.code, 50, "{failure}");
}

#[test]
fn a_node_goes_when_it_leaves_and_not_before() {
    let mut mesh = Mesh::of(3, Trust::None);
    let boxes: Vec<_> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    let pings = Pings::start(&boxes[0].netns, boxes[1].address());
    // Nothing is heard of its agent any more.
    mesh.node_mut(3).kill();
    mesh.etcd.ctl(&format!("del {PREFIX}/alive/n3"));
    mesh.join();
    wait_for("the fourth node is known", PATIENCE, || knows(&mesh, 1, 4) && knows(&mesh, 2, 4));
    assert!(knows(&mesh, 1, 3) && knows(&mesh, 2, 3));
    ping(&boxes[0].netns, boxes[2].address());

    let leave = format!("overlay leave --config {CONFLIST} --node n3");
    let told = netctl(&mesh.node(3).host, &leave).ended(4);
    assert!(told.complaint.contains("1 containers of this node have addresses"), "{}", told.complaint);
    boxes[2].attachment.del().unwrap();
    let told = netctl(&mesh.node(3).host, &leave).ended(0);
    assert!(told.says(&["n3 gave back", "10.244."]), "{}", told.text);
    wait_for("the third node went", PATIENCE, || !knows(&mesh, 1, 3) && !knows(&mesh, 2, 3));
    netctl(&mesh.node(3).host, &leave).ended(0);
    assert!(pings.stop() > 10);
}

#[test]
fn what_somebody_deletes_comes_back() {
    let mesh = Mesh::of(3, Trust::None);
    let boxes: Vec<_> = (1..=3).map(|node| mesh.container(node, &format!("box{node}"))).collect();
    mesh.await_ways(&[1, 2, 3]);
    let host = &mesh.node(1).host;
    let pings = Pings::start(&boxes[1].netns, boxes[2].address());
    let other = |what: &str| {
        let IpAddr::V4(address) = boxes[1].address() else { panic!("no IPv4 address") };
        let [a, b, c, _] = address.octets();
        what.replace("GATEWAY", &format!("{a}.{b}.{c}.1")).replace("SUBNET", &format!("{a}.{b}.{c}.0/24"))
    };
    let damage = [
        "ip link del vxlan42",
        "ip link set vxlan42 down",
        "ip route del SUBNET",
        "ip route replace SUBNET via 192.0.2.99 dev eth0",
        "ip neigh del GATEWAY dev vxlan42",
        "ip neigh replace GATEWAY lladdr 02:00:00:00:00:01 dev vxlan42 nud permanent",
        "bridge fdb del $(bridge fdb show dev vxlan42 | grep 192.0.2.12 | cut -d' ' -f1) dev vxlan42 dst 192.0.2.12 self",
        "bridge fdb replace $(bridge fdb show dev vxlan42 | grep 192.0.2.12 | cut -d' ' -f1) dev vxlan42 dst 192.0.2.99 self",
    ];
    for command in damage {
        boxes[0].attachment.check().unwrap_or_else(|failure| panic!("before `{command}`: {failure}"));
        host.run(&other(command));
        let start = std::time::Instant::now();
        while let Err(failure) = boxes[0].attachment.check() {
            assert!(start.elapsed() < PATIENCE, "`{command}`: {failure}\n{}", mesh.node(1).said());
            std::thread::sleep(Duration::from_millis(20));
        }
        // A route of somebody else's is theirs, and ours is behind it.
        host.run(&other("ip route del SUBNET via 192.0.2.99 2>/dev/null || :"));
        ping(&boxes[0].netns, boxes[1].address());
    }
    assert!(pings.stop() > 10);
}

#[test]
fn a_place_that_is_taken_away_is_taken_again_or_missed() {
    let mut mesh = Mesh::of(2, Trust::None);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let ours = || mesh.etcd.ctl(&format!("get {PREFIX}/nodes/n1 --print-value-only"));
    let record = ours();
    let subnet = record.split('"').find(|word| word.starts_with("10.244.")).unwrap().to_owned();
    let key = format!("{PREFIX}/subnets/{}", subnet.replace('/', "-"));
    // Somebody removes what is there, while it is used.
    mesh.etcd.ctl(&format!("del {PREFIX}/nodes/n1"));
    wait_for("it is there again", PATIENCE, || ours() == record);
    wait_for("and believed", PATIENCE, || knows(&mesh, 2, 1));
    let pings = Pings::start(&two.netns, one.address());
    mesh.etcd.ctl(&format!("del {key}"));
    wait_for("it is there again", PATIENCE, || mesh.etcd.ctl(&format!("get {key} --print-value-only")).trim() == "n1");
    ping(&two.netns, one.address());
    pings.stop();

    // Somebody else has it.
    mesh.etcd.ctl(&format!("put {key} n9"));
    mesh.node(1).await_words("is n9's by now, and 1 containers of this node have addresses of it");
    let told = netctl(&mesh.node(1).host, "overlay status").ended(1);
    assert!(told.says(&["fault", "is n9's by now"]), "{}", told.text);
    one.attachment.check().unwrap();
    one.attachment.del().unwrap();
    let elsewhere = || {
        let record = mesh.etcd.ctl(&format!("get {PREFIX}/nodes/n1 --print-value-only"));
        !record.contains(&subnet)
    };
    wait_for("another subnet", PATIENCE, elsewhere);
    wait_for("it is used", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 0);
    let new = mesh.container(1, "new");
    assert!(!subnet.starts_with(&new.address().to_string()[..new.address().to_string().rfind('.').unwrap()]));
    mesh.await_ways(&[1, 2]);
    ping(&new.netns, two.address());
    drop(mesh.node_mut(1).agent.take());
}
