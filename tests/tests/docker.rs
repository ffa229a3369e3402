//! Somebody flushes iptables beside a running dockerd: ports stop answering, the next container fails.
//! `repair-chains --docker` puts back what it had written, without restarting it.

use netcore_tests::docker::Docker;
use netcore_tests::netctl::netctl;
use netcore_tests::traffic::{fetch, nobody_answers, serve, who_answers};
use netcore_tests::{Host, Outside, skip};

const ERROR: &str = "No chain/target/match by that name";

/// All rules and policies in their order, without counters and comments; those of single ports, among
/// which order means nothing, behind the others.
fn rules(host: &Host) -> String {
    let mut rules: Vec<String> = Vec::new();
    for table in ["filter", "nat"] {
        let saved = host.run(&format!("iptables-save -t {table}"));
        let lines = saved.lines().filter(|line| !line.starts_with('#'));
        let without_counter = lines.map(|line| line.split(" [").next().unwrap_or_default().to_owned());
        let (mut ports, others): (Vec<_>, Vec<_>) = without_counter.partition(|line| line.contains("--dport"));
        ports.sort();
        rules.extend(others);
        rules.extend(ports);
    }
    rules.join("\n")
}

#[test]
fn what_was_flushed_beside_a_running_dockerd_comes_back() {
    if let Some(reason) = Docker::missing() {
        skip!("{reason}");
    }
    for proxy in [false, true] {
        let host = Host::with_processes();
        let outside = host.outside();
        let docker = Docker::on(&host, proxy);
        docker.run("network create shop");
        docker.run("network create --internal inner");
        docker.run(
            "network create -o com.docker.network.bridge.enable_icc=false \
             -o com.docker.network.bridge.enable_ip_masquerade=false quiet",
        );
        let one = docker.start("one", "-p 8080:80 -p 127.0.0.1:5353:53/udp").unwrap();
        let two = docker.start("two", "--network shop -p 198.51.100.1:8081-8082:81-82").unwrap();
        let three = docker.start("three", "--network quiet -p 8083:83").unwrap();
        let _servers = [serve(&one, "one", 80), serve(&two, "two", 82), serve(&three, "three", 83)];
        let _outside = serve(&*outside, "outside", 443);
        // An administrator's own, where Docker lets him have his say.
        host.run("iptables -I DOCKER-USER -s 203.0.113.0/24 -j DROP");
        let answers = [(8080, "one"), (8082, "two"), (8083, "three")];
        let works = || {
            answers.iter().for_each(|(port, name)| assert_eq!(who_answers(&*outside, Outside::HOST_V4, *port), *name));
            assert_eq!(who_answers(&one, Outside::V4, 443), "outside");
            assert!(fetch(&one, [172, 30, 0, 2], 82).is_err(), "networks are isolated");
        };
        works();
        let before = rules(&host);
        netctl(&host, "repair-chains --docker --check").ended(0);
        netctl(&host, "doctor").ended(0);

        host.run("for table in filter nat; do iptables -t $table -F; iptables -t $table -X; done");
        // What the helper takes, it takes on the host.
        if !proxy {
            nobody_answers(&*outside, Outside::HOST_V4, 8080);
        }
        nobody_answers(&one, Outside::V4, 443);
        let refused = docker.start("four", "-p 8090:80").map(|_| ()).unwrap_err();
        assert!(refused.contains(ERROR), "{refused}");
        docker.run("rm -f four");
        for arguments in ["doctor".to_owned(), format!("doctor 'iptables: {ERROR}.'")] {
            let told = netctl(&host, &arguments).ended(1);
            assert!(told.says(&["missing of Docker's rules", ERROR]), "{}", told.text);
            assert!(told.says(&["cure", "netctl repair-chains --docker"]), "{}", told.text);
        }
        let told = netctl(&host, "repair-chains --docker --dry-run").ended(1);
        assert!(told.says(&["docker", "nat chain DOCKER", "missing"]), "{}", told.text);
        nobody_answers(&one, Outside::V4, 443);

        netctl(&host, "repair-chains --docker").ended(0);
        works();
        // All but the administrator's own, which only he can know.
        let own = "-A DOCKER-USER -s 203.0.113.0/24 -j DROP\n";
        assert_eq!(rules(&host), before.replace(own, ""), "with userland-proxy {proxy}");
        let told = netctl(&host, "repair-chains --docker").ended(0);
        assert!(!told.text.contains("restored"), "{}", told.text);
        assert_eq!(rules(&host), before.replace(own, ""), "a second repair changes nothing");
        netctl(&host, "doctor").ended(0);
        netctl(&host, &format!("doctor 'iptables: {ERROR}.'")).ended(1);

        let four = docker.start("four", "-p 8090:80").unwrap();
        let _server = serve(&four, "four", 80);
        assert_eq!(who_answers(&*outside, Outside::HOST_V4, 8090), "four");

        // Partial damage: only what is missing is added, where it was.
        let before = rules(&host);
        host.run("iptables -D FORWARD -j DOCKER-ISOLATION-STAGE-1; iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER");
        let told = netctl(&host, "repair-chains --docker").ended(0);
        assert!(told.says(&["filter FORWARD -j DOCKER-ISOLATION-STAGE-1", "restored"]), "{}", told.text);
        assert!(told.text.contains("2 restored"), "{}", told.text);
        assert_eq!(rules(&host), before);
        works();
    }
}

#[test]
fn without_a_dockerd_it_says_so() {
    let host = Host::new();
    let told = netctl(&host, "repair-chains --docker").ended(4);
    assert!(told.text.contains("dockerd at /var/run/docker.sock"), "{}", told.text);
    let told = netctl(&host, "repair-chains --docker=/run/nowhere.sock --check").ended(4);
    assert!(told.text.contains("/run/nowhere.sock"), "{}", told.text);
    netctl(&host, "doctor").ended(0);
    let told = netctl(&host, &format!("doctor 'iptables: {ERROR}.'")).ended(1);
    assert!(told.says(&["no dockerd answers"]), "{}", told.text);
}
