//! What an agent and its operator's tool say: to systemd, to whoever asks, and about what makes no
//! sense; and what an agent does that follows a file.

use std::os::unix::net::UnixDatagram;

use netcore_tests::etcd::{PREFIX, Trust};
use netcore_tests::mesh::{CONFLIST, Mesh, PATIENCE, Pings};
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::ping;
use netcore_tests::wait_for;
use serde_json::json;

fn knows(mesh: &Mesh, node: usize, address: &str) -> bool {
    mesh.node(node).host.run("bridge fdb show dev vxlan42").contains(&format!("dst {address} "))
}

#[test]
fn a_record_that_lies_is_named_and_the_rest_lives() {
    let mesh = Mesh::of(2, Trust::None);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let own = mesh.etcd.ctl(&format!("get {PREFIX}/nodes/n2 --print-value-only"));
    let own: serde_json::Value = serde_json::from_str(own.trim()).unwrap();
    let theirs = own["subnets"][0].as_str().unwrap().to_owned();
    let record = |changes: serde_json::Value| {
        let mut record = own.clone();
        record["node"] = json!("evil");
        record["underlay"] = json!("192.0.2.66");
        record["mac"] = json!("02:00:00:00:00:66");
        record["subnets"] = json!(["10.244.250.0/24"]);
        for (key, value) in changes.as_object().unwrap() {
            record[key] = value.clone();
        }
        record.to_string()
    };
    let reserve = |subnet: &str| mesh.etcd.ctl(&format!("put {PREFIX}/subnets/{} evil", subnet.replace('/', "-")));
    let say = |text: &str| mesh.etcd.ctl(&format!("put {PREFIX}/nodes/evil '{text}'"));
    for subnet in ["10.244.250.0/24", "10.9.0.0/24", "10.244.128.0/17"] {
        reserve(subnet);
    }
    let lies = [
        ("{".to_owned(), "EOF while parsing"),
        (record(json!({ "version": 2 })), "a record of version 2; this program knows version 1"),
        (record(json!({ "node": "good" })), "node good is in it"),
        (record(json!({ "subnets": [theirs] })), "is node n2's"),
        (record(json!({ "subnets": ["10.244.251.0/24"] })), "10.244.251.0/24 is not reserved for it"),
        (record(json!({ "subnets": ["10.9.0.0/24"] })), "is not inside the cluster's range"),
        (record(json!({ "subnets": ["10.244.128.0/17"] })), "overlaps 10.244."),
        (record(json!({ "underlay": "10.244.250.1" })), "outside the overlay's own range"),
        (record(json!({ "underlay": "192.0.2.12" })), "node n2 has it"),
        (record(json!({ "vni": 43 })), "the network's VNI 42"),
        (record(json!({ "mac": "01:00:5e:00:00:01" })), "MAC"),
    ];
    let pings = Pings::start(&one.netns, two.address());
    for (lie, words) in &lies {
        say(lie);
        mesh.node(1).await_words(words);
        wait_for("it is said what follows", PATIENCE, || {
            let said = mesh.node(1).said();
            let line = said.lines().rfind(|line| line.contains(words)).unwrap_or_default();
            line.contains("evil") && line.ends_with("it is left out")
        });
        wait_for("the fault is shown", PATIENCE, || {
            let told = netctl(&mesh.node(1).host, "overlay status").ended(1);
            told.says(&["fault", words])
        });
        let told = netctl(&mesh.node(1).host, &format!("overlay peers --config {CONFLIST} --node n1")).ended(1);
        assert!(told.says(&["fault", words]) && told.says(&["n2", "alive"]), "{}", told.text);
        assert!(!knows(&mesh, 1, "192.0.2.66"), "{words}");
        assert!(knows(&mesh, 1, "192.0.2.12"), "{words}");
    }
    // What was good and is not understood any more stays as it was.
    say(&record(json!({})));
    wait_for("the truth is believed", PATIENCE, || knows(&mesh, 1, "192.0.2.66"));
    say(&lies[1].0);
    wait_for("the fault is shown", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 1);
    assert!(knows(&mesh, 1, "192.0.2.66"));
    mesh.etcd.ctl(&format!("del {PREFIX}/nodes/evil"));
    wait_for("it is gone", PATIENCE, || !knows(&mesh, 1, "192.0.2.66"));
    wait_for("all is well", PATIENCE, || netctl(&mesh.node(1).host, "overlay status").code == 0);
    assert!(pings.stop() > 10);
}

#[test]
fn a_wrong_password_is_named_and_what_was_good_stays() {
    let mut mesh = Mesh::of(2, Trust::Password);
    let one = mesh.container(1, "box1");
    let two = mesh.container(2, "box2");
    mesh.await_ways(&[1, 2]);
    let mut source = mesh.etcd.source();
    let mut try_with = |key: &str, value: &str, words: &str| {
        source["etcd"][key] = json!(value);
        let network = mesh.network().with("source", source.clone());
        mesh.node_mut(1).kill();
        mesh.node(1).configure(&network);
        mesh.node_mut(1).start();
        mesh.node(1).await_words(words);
        mesh.node(1).await_words("what was known stays");
        assert!(!mesh.node(1).said().contains("wrong!"), "{}", mesh.node(1).said());
        let told = netctl(&mesh.node(1).host, "overlay status").ended(1);
        assert!(told.says(&["fault", words]), "{}", told.text);
        let late = mesh.container(1, "late");
        ping(&late.netns, two.address());
        late.attachment.del().unwrap();
        late.netns.remove();
    };
    try_with("password", "wrong!", "authentication failed");
    try_with("user", "nobody", "authentication failed");
    drop(one);
}

#[test]
fn a_wrong_certificate_is_named_and_what_was_good_stays() {
    let mut mesh = Mesh::of(1, Trust::Certificates);
    let _one = mesh.container(1, "box1");
    let host = mesh.node(1).host.clone();
    host.run(
        "cd /run/pki && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key \
         -out other.pem -subj /CN=other -days 2 2>/dev/null",
    );
    let faults = [
        (json!({ "ca": "/run/pki/other.pem" }), "invalid peer certificate"),
        (json!({ "cert": "/run/pki/none.pem" }), "read /run/pki/none.pem: No such file"),
        (json!({ "cert": "/run/pki/other.pem", "key": "/run/pki/other.key" }), "received fatal alert"),
    ];
    for (changes, words) in faults {
        let mut source = mesh.etcd.source();
        for (key, value) in changes.as_object().unwrap() {
            source["etcd"]["tls"][key] = value.clone();
        }
        mesh.node_mut(1).kill();
        mesh.node(1).configure(&mesh.network().with("source", source));
        mesh.node_mut(1).start();
        mesh.node(1).await_words(words);
        let late = mesh.container(1, "late");
        late.attachment.check().unwrap();
        late.attachment.del().unwrap();
        late.netns.remove();
    }
}

#[test]
fn two_hosts_of_one_name_are_told_apart() {
    let mut mesh = Mesh::of(1, Trust::None);
    let two = mesh.add();
    mesh.node_mut(two).start_with("--node n1 --underlay eth0");
    mesh.node(two).await_words("a name of its own: the node at 192.0.2.11 has it");
    let failure = mesh.cni(two).status().unwrap_err();
    assert_eq!(failure.code, 50, "{failure}");
    // And an agent of one network is enough for a host.
    let told = netctl(&mesh.node(1).host, &format!("overlay agent --config {CONFLIST} --node n1")).ended(4);
    assert!(told.complaint.contains("an agent is at work on this host"), "{}", told.complaint);
    let told = netctl(&mesh.node(1).host, &format!("overlay leave --config {CONFLIST} --node n1")).ended(4);
    assert!(told.complaint.contains("stop it first"), "{}", told.complaint);
}

#[test]
fn joining_takes_no_agent_and_the_status_says_so() {
    let mut mesh = Mesh::of(1, Trust::None);
    let two = mesh.add();
    let host = mesh.node(two).host.clone();
    let join = format!("overlay join --config {CONFLIST} --node n2 --underlay eth0");
    let told = netctl(&host, &join).ended(0);
    assert!(told.says(&["mesh: n2 has 10.244."]), "{}", told.text);
    let again = netctl(&host, &format!("--json {join}")).ended(0).json();
    assert!(told.text.contains(again["subnets"][0].as_str().unwrap()), "{again}");
    let (one, new) = (mesh.container(1, "box1"), mesh.container(two, "box2"));
    mesh.await_ways(&[1, 2]);
    ping(&one.netns, new.address());

    let told = netctl(&host, "overlay status").ended(0);
    assert!(told.says(&["n1", "192.0.2.11", "vtep "]) && told.says(&["n2", "this node"]), "{}", told.text);
    assert!(told.says(&["agent", "is not at work"]), "{}", told.text);
    let status = netctl(&mesh.node(1).host, "--json overlay status").ended(0).json();
    assert_eq!((&status[0]["network"], &status[0]["node"]), (&json!("mesh"), &json!("n1")));
    assert_eq!(status[0]["agent"]["connected"], json!(true), "{status}");
    assert!(status[0]["agent"]["lastHandshake"].as_u64().is_some_and(|heard| heard > 1_600_000_000), "{status}");
    assert_eq!(status[0]["peers"].as_array().unwrap().len(), 2);
    mesh.node(1).host.run("ip route flush proto 78; :");
    let told = netctl(&host, "overlay peers --config /run/none.conflist").ended(2);
    assert!(told.complaint.contains("/run/none.conflist"), "{}", told.complaint);
    let listed = netctl(&host, &format!("--json overlay peers --config {CONFLIST} --node n2")).ended(0).json();
    let alive: Vec<_> = listed["peers"].as_array().unwrap().iter().map(|peer| peer["alive"].clone()).collect();
    assert_eq!(alive, [json!(true), json!(false)], "{listed}");
    netctl(&host, "overlay status --network none").ended(1);
}

#[test]
fn systemd_is_told() {
    let mut mesh = Mesh::new(Trust::None);
    let one = mesh.add();
    let host = mesh.node(one).host.clone();
    let socket = host.enter(|| UnixDatagram::bind("/run/notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut text = [0; 4096];
        let length = socket.recv(&mut text).expect("a message to systemd");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    mesh.node_mut(one).start_for_systemd("/run/notify");
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "READY=1") {
        heard.push(hear());
    }
    assert!(heard.iter().any(|text| text.contains("1 nodes are known")), "{heard:?}");
    // What it is ready for is there, and what its unit leaves it is enough.
    mesh.cni(one).status().unwrap();
    let container = mesh.container(one, "box1");
    for damage in ["ip link del vxlan42", "nft flush ruleset; ip link del vxlan42"] {
        host.run(damage);
        wait_for("the tunnel is back", PATIENCE, || container.attachment.check().is_ok());
    }
    mesh.node_mut(one).agent.take().unwrap().terminate();
    while heard.last().is_none_or(|last| last != "STOPPING=1") {
        heard.push(hear());
    }
    assert_eq!(mesh.etcd.ctl(&format!("get {PREFIX}/alive/ --prefix --keys-only")).trim(), "", "it says that it goes");
}

#[test]
fn a_file_is_followed_as_it_changes() {
    let mut mesh = Mesh::new(Trust::None);
    let one = mesh.add();
    let host = mesh.node(one).host.clone();
    let network = mesh.network().with("source", json!({ "file": "/run/mesh.toml" }));
    mesh.node(one).configure(&network);
    let entry = |node: usize| {
        format!(
            "[[peer]]\nnode = \"n{node}\"\nunderlay = \"192.0.2.{}\"\nsubnets = [\"10.244.{node}.0/24\"]\n",
            10 + node
        )
    };
    let write = |text: &str| host.enter(|| std::fs::write("/run/mesh.toml", text)).unwrap();
    // Replaced in one go, as editors do.
    let replace = |text: &str| {
        host.enter(|| {
            std::fs::write("/run/draft", text).unwrap();
            std::fs::rename("/run/draft", "/run/mesh.toml").unwrap();
        });
    };
    let head = "node = \"n1\"\n";
    mesh.node_mut(one).start_with("");
    mesh.node(one).await_words("/run/mesh.toml is not there");
    write(&format!("{head}{}{}", entry(1), entry(2)));
    mesh.node(one).await_words("node n2 came");
    let cni = host.cni(network);
    let netns = host.netns("box");
    let attachment = cni.attachment(&netns).added();
    assert!(knows(&mesh, 1, "192.0.2.12"));
    replace(&format!("{head}{}{}{}", entry(1), entry(2), entry(3)));
    wait_for("the third node came", PATIENCE, || knows(&mesh, 1, "192.0.2.13"));
    write(&format!("{head}{}{}", entry(1), &entry(3)[..30]));
    mesh.node(one).await_words("the peers that were good last are used instead");
    assert!(knows(&mesh, 1, "192.0.2.12") && knows(&mesh, 1, "192.0.2.13"));
    let told = netctl(&host, "overlay status").ended(1);
    assert!(told.says(&["file /run/mesh.toml", "away"]) && told.says(&["fault", "line "]), "{}", told.text);
    replace(&format!("{head}{}{}", entry(1), entry(3)));
    wait_for("the second node went", PATIENCE, || !knows(&mesh, 1, "192.0.2.12"));
    attachment.check().unwrap();
    host.run("ip route del 10.244.3.0/24");
    wait_for("the route is back", PATIENCE, || attachment.check().is_ok());
    netctl(&host, "overlay status").ended(0);
    let told = netctl(&host, &format!("overlay join --config {CONFLIST}")).ended(2);
    assert!(told.complaint.contains("joins by being written there"), "{}", told.complaint);
    assert!(netctl(&host, &format!("overlay peers --config {CONFLIST}")).ended(0).says(&["n3", "192.0.2.13"]));
}
