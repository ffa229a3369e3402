//! Making, seeing, changing and removing what an attachment stands on.

use super::*;
use crate::error::Error;

#[test]
fn what_was_made_is_what_is_seen() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        assert!(kernel.observe(&wanted).await.unwrap().0.iter().all(|object| matches!(object, Object::Sysctl(_))));
        create_all(&kernel, &wanted).await;
        kernel.settle(&wanted).await.unwrap();
        assert_eq!(drift(&kernel, &wanted).await, [""; 0]);

        let shown = ip(None, "-d link show dev veth1");
        assert!(shown.contains("alias netcore:web/web-1/eth0"), "{shown}");
        assert!(shown.contains("group default") && shown.contains("hairpin on") && shown.contains("mtu 1450"));
        let shown = ip(None, "link show dev br-web");
        assert!(shown.contains("alias netcore:web") && shown.contains("group default"), "{shown}");
        let shown = ip(Some("web-1"), "addr show dev eth0");
        assert!(shown.contains("link/ether 0a:58:0a:14:00:02") && shown.contains("brd 10.20.0.255"), "{shown}");
        assert!(shown.contains("inet6 fd00:20::2/64 scope global nodad \n"), "{shown}");
        let shown = ip(Some("web-1"), "route show table all");
        assert!(shown.contains("default via 10.20.0.1 dev eth0 proto 78"), "{shown}");
        assert!(shown.contains("10.99.0.0/16 via 10.20.0.1 dev eth0 proto 78 metric 77 mtu 1400"), "{shown}");

        // A second time everything is there already.
        for object in wanted.iter().filter(|object| !matches!(object, Object::Link(link) if link.port.is_some())) {
            kernel.create(std::slice::from_ref(object)).await.unwrap();
        }
        assert_eq!(drift(&kernel, &wanted).await, [""; 0]);
    });
}

#[test]
fn any_single_thing_that_goes_missing_is_named() {
    let cases = [
        ("ip addr del 10.20.0.1/24 dev br-web", "address 10.20.0.1/24 on br-web (host): missing"),
        ("ip addr del fd00:20::1/64 dev br-web", "address fd00:20::1/64 on br-web (host): missing"),
        ("ip -n web-1 addr del fd00:20::2/64 dev eth0", "address fd00:20::2/64 on eth0 (container): missing"),
        ("ip -n web-1 route del default", "route 0.0.0.0/0 via 10.20.0.1 dev eth0 (container): missing"),
        (
            "ip -n web-1 route del 10.98.0.0/16 table 1000",
            "route 10.98.0.0/16 via 10.20.0.1 dev eth0 (container): missing",
        ),
        ("ip -n web-1 -6 route del default", "route ::/0 via fd00:20::1 dev eth0 (container): missing"),
        ("ip -n web-1 route replace default via 10.20.0.9", "gateway is 10.20.0.9, should be 10.20.0.1"),
        ("ip -n web-1 route replace default dev lo", "route 0.0.0.0/0 via 10.20.0.1 dev eth0 (container): missing"),
        ("ip link set veth1 alias mine", "alias is none, should be netcore:web/web-1/eth0"),
        ("ip link set veth1 nomaster", "bridge is none, should be br-web"),
        ("ip link set veth1 mtu 1300", "MTU is 1300, should be 1450"),
        ("bridge link set dev veth1 hairpin off", "hairpin is off, should be on"),
        ("bridge link set dev veth1 isolated on", "isolated is on, should be off"),
        ("ip -n web-1 link set eth0 mtu 1200", "peer MTU is 1200, should be 1450"),
        ("ip -n web-1 link set eth0 address 02:00:00:00:00:01", "peer MAC is 02:00:00:00:00:01"),
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl net.ipv4.ip_forward (host): value is 0, should be 1"),
    ];
    for (command, complaint) in cases {
        with_kernel(move |host| async move {
            let kernel = enter(&host, "web-1").await;
            let wanted = attachment();
            create_all(&kernel, &wanted).await;
            let words: Vec<_> = command.split(' ').collect();
            assert!(std::process::Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{command}");
            let found = drift(&kernel, &wanted).await;
            assert!(found.iter().any(|line| line.contains(complaint)), "{command}: {found:#?}");

            // And it is mended: what is missing made, what differs changed, but for what others own.
            let state = kernel.observe(&wanted).await.unwrap();
            for drift in crate::plan::drift(&wanted, &state) {
                let outcome = match state.by_key().get(&drift.object.key()).copied() {
                    None => kernel.create(&[drift.object]).await,
                    Some(was) => kernel.update(was, &drift.object).await,
                };
                match outcome {
                    Err(Error::Conflict { found, .. }) if command.contains("replace") => {
                        assert!(found.contains("another route"), "{found}");
                        return;
                    }
                    outcome => outcome.unwrap_or_else(|error| panic!("{command}: {error}")),
                }
            }
            assert_eq!(drift(&kernel, &wanted).await, [""; 0], "{command}");
        });
    }
}

#[test]
fn a_link_that_goes_takes_its_objects_and_all_are_named() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        ip(Some("web-1"), "link del eth0");
        let found = drift(&kernel, &wanted).await;
        assert_eq!(found.len(), 8, "{found:#?}");
        assert!(found[0].contains("link veth1 ↔ eth0: missing"), "{found:#?}");
    });
}

#[test]
fn an_end_that_was_renamed_or_taken_away_is_seen_as_such() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        ip(Some("web-1"), "link set eth0 down");
        ip(Some("web-1"), "link set eth0 name eth7");
        let found = drift(&kernel, &wanted).await;
        assert!(found[0].contains("peer is eth7, should be eth0, peer state is down, should be up"), "{found:#?}");

        // Another interface under the wanted name is in the way, and does not pass for the peer.
        ip(Some("web-1"), "link add eth0 type bridge");
        let state = kernel.observe(&wanted).await.unwrap();
        let stranger = state.link(Place::Sandbox, &"eth0".parse().unwrap()).unwrap();
        assert_eq!(stranger.kind, LinkKind::Other { name: "bridge".to_owned() });
        ip(Some("web-1"), "link del eth0");

        Netns::create("elsewhere").unwrap();
        ip(Some("web-1"), "link set eth7 netns elsewhere name eth0");
        let state = kernel.observe(&wanted).await.unwrap();
        let found = drift(&kernel, &wanted).await;
        assert!(found[0].contains("peer is ?, should be eth0"), "{found:#?}");
        let was = state.by_key().get(&wanted[1].key()).copied().unwrap();
        kernel.update(was, &wanted[1]).await.unwrap();
        assert!(ip(Some("web-1"), "link show dev eth0").contains("UP"));
    });
}

#[test]
fn a_taken_name_is_an_error_that_says_where() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        create_all(&kernel, &[Object::Link(bridge("br-web"))]).await;
        ip(Some("web-1"), "link add eth0 type bridge");
        let link = Object::Link(veth("veth1", "br-web"));
        let error = kernel.create(std::slice::from_ref(&link)).await.unwrap_err();
        assert!(error.to_string().starts_with("interface eth0 exists already in the container"), "{error}");
        let state = kernel.observe(std::slice::from_ref(&link)).await.unwrap();
        assert!(state.by_key().get(&link.key()).copied().is_none(), "a half was left behind");
        assert!(state.link(Place::Sandbox, &"eth0".parse().unwrap()).is_some());

        ip(Some("web-1"), "link del eth0");
        ip(None, "link add veth1 type bridge");
        let error = kernel.create(&[link]).await.unwrap_err();
        assert!(error.to_string().starts_with("interface veth1 exists already in the host"), "{error}");
    });
}

#[test]
fn removal_can_be_repeated_and_leaves_foreign_things_alone() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        ip(None, "link add br-theirs type bridge");
        create_all(&kernel, &wanted).await;
        for _ in 0..2 {
            for object in wanted.iter().rev() {
                kernel.remove(std::slice::from_ref(object)).await.unwrap_or_else(|error| panic!("{object}: {error}"));
            }
        }
        let left = ip(None, "-o link");
        assert!(!left.contains("br-web") && !left.contains("veth1"), "{left}");

        let theirs = Object::Link(bridge("br-theirs"));
        kernel.create(std::slice::from_ref(&theirs)).await.unwrap();
        kernel.remove(std::slice::from_ref(&theirs)).await.unwrap();
        assert!(ip(None, "link show dev br-theirs").contains("br-theirs"));
        assert!(!ip(None, "link show dev br-theirs").contains("alias"));
        // A veth of our name that carries somebody else's mark, and one of another kind.
        ip(None, "link add veth1 type veth peer name peer1");
        ip(None, "link set veth1 alias netcore:other/web-1/eth0");
        kernel.remove(&[Object::Link(veth("veth1", "br-web"))]).await.unwrap();
        ip(None, "link show dev veth1");
    });
}

#[test]
fn a_pair_whose_maker_died_before_marking_it_is_removed() {
    with_kernel(|host| async move {
        let born = format!("link add veth1 group {} type veth peer name peer1", super::super::link::BIRTH_GROUP);
        ip(None, &born);
        host.remove(&[Object::Link(veth("veth1", "br-web"))]).await.unwrap();
        assert!(!ip(None, "-o link").contains("veth1"));
    });
}

#[test]
fn a_foreign_bridge_is_used_as_it_is() {
    with_kernel(|host| async move {
        ip(None, "link add br-web type bridge");
        let wanted = Object::Link(Link { mtu: Some(1300), ..bridge("br-web") });
        let state = host.observe(std::slice::from_ref(&wanted)).await.unwrap();
        host.update(state.by_key()[&wanted.key()], &wanted).await.unwrap();
        let shown = ip(None, "link show dev br-web");
        assert!(shown.contains("UP") && shown.contains("mtu 1500") && !shown.contains("alias"), "{shown}");
        assert_eq!(drift(&host, &[wanted]).await, ["bridge br-web: MTU is 1500, should be 1300"]);
    });
}

#[test]
fn an_alternative_name_does_not_make_an_interface_ours() {
    with_kernel(|host| async move {
        ip(None, "link add br-theirs type bridge");
        ip(None, "link set br-theirs alias netcore:web");
        ip(None, "link property add dev br-theirs altname br-web");
        let wanted = Object::Link(bridge("br-web"));
        assert!(host.observe(std::slice::from_ref(&wanted)).await.unwrap().0.is_empty());
        host.remove(&[wanted]).await.unwrap();
        ip(None, "link show dev br-theirs");
    });
}

#[test]
fn lo_is_brought_up_and_never_removed() {
    with_kernel(|host| async move {
        ip(None, "netns add web-1");
        let kernel = host.enter(Some("/run/netns/web-1".as_ref())).await.unwrap();
        let name = "lo".parse().unwrap();
        let lo = Link { place: Place::Sandbox, name, kind: LinkKind::Loopback, mark: None, ..bridge("br-web") };
        let lo = Object::Link(lo);
        assert_eq!(
            drift(&kernel, std::slice::from_ref(&lo)).await,
            ["link lo (container): state is down, should be up"]
        );
        let state = kernel.observe(std::slice::from_ref(&lo)).await.unwrap();
        kernel.update(state.by_key()[&lo.key()], &lo).await.unwrap();
        assert_eq!(drift(&kernel, std::slice::from_ref(&lo)).await, [""; 0]);
        kernel.create(std::slice::from_ref(&lo)).await.unwrap();
        kernel.remove(&[lo]).await.unwrap();
        assert!(ip(Some("web-1"), "link show dev lo").contains("UP"));
    });
}

#[test]
fn the_kernel_can_be_driven_from_any_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    with_kernel(|host| async move {
        let wanted = [Object::Link(bridge("br-web"))];
        is_send(host.create(&wanted)).await.unwrap();
        is_send(host.settle(&wanted)).await.unwrap();
        let state = is_send(host.observe(&wanted)).await.unwrap();
        is_send(host.update(&state.0[0], &wanted[0])).await.unwrap();
        is_send(host.remove(&wanted)).await.unwrap();
    });
}

#[test]
fn without_the_sandbox_what_was_in_it_is_gone() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let wanted = attachment();
        create_all(&kernel, &wanted).await;
        drop(kernel);
        Netns::remove("web-1").unwrap();
        assert!(matches!(host.enter(Some("/run/netns/web-1".as_ref())).await, Err(Error::Netns { .. })));
        for object in wanted.iter().rev() {
            host.remove(std::slice::from_ref(object)).await.unwrap();
        }
        let error = host.create(&[Object::Address(address(Place::Sandbox, "eth0", "10.0.0.1/8"))]).await.unwrap_err();
        assert!(matches!(error, Error::Netns { .. }), "{error}");
    });
}

#[test]
fn many_first_attachments_share_one_bridge() {
    on_a_host(|| {
        let barrier = std::sync::Barrier::new(32);
        std::thread::scope(|scope| {
            for number in 0..32 {
                let barrier = &barrier;
                scope.spawn(move || {
                    let name = format!("c{number}");
                    Netns::create(&name).unwrap();
                    barrier.wait();
                    block_on(async {
                        let kernel = Linux::host();
                        let kernel = kernel.enter(Some(format!("/run/netns/{name}").as_ref())).await.unwrap();
                        let link = veth(&format!("veth{number}"), "br-web");
                        create_all(&kernel, &[Object::Link(bridge("br-web")), Object::Link(link)]).await;
                    });
                });
            }
        });
        assert_eq!(ip(None, "-o link show master br-web").lines().count(), 32);
        assert_eq!(ip(None, "-o link show type bridge").lines().count(), 1);
    });
}

#[test]
fn a_bridge_keeps_its_mac_while_ports_come_and_go() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        create_all(&kernel, &[Object::Link(Link { mtu: Some(1300), ..bridge("br-web") })]).await;
        let mac = ip(None, "-o link show dev br-web");
        let mac = mac.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        create_all(
            &kernel,
            &[Object::Link(Link { mac: Some("02:00:00:00:00:01".parse().unwrap()), ..veth("veth1", "br-web") })],
        )
        .await;
        let after = ip(None, "-o link show dev br-web");
        assert!(after.contains(&mac) && after.contains("mtu 1300"), "{mac}: {after}");
    });
}

#[test]
fn addresses_in_the_way_are_seen_when_they_matter() {
    with_kernel(|host| async move {
        create_all(&host, &[Object::Link(bridge("br-web"))]).await;
        ip(None, "addr add 10.9.0.1/24 dev br-web");
        ip(None, "addr add fd00:20::9/64 dev br-web");
        ip(None, "addr add fd00:99::9/64 dev br-web");
        let mut wanted = address(Place::Host, "br-web", "10.20.0.1/24");
        assert!(host.observe(&[Object::Address(wanted.clone())]).await.unwrap().0.is_empty());
        wanted.rivals = Rivals::Refuse;
        let v6 = Address { rivals: Rivals::Replace, ..address(Place::Host, "br-web", "fd00:20::1/64") };
        let state = host.observe(&[Object::Address(wanted), Object::Address(v6)]).await.unwrap();
        let mut seen: Vec<_> = state.0.iter().map(ToString::to_string).collect();
        seen.sort();
        assert_eq!(seen, ["address 10.9.0.1/24 on br-web (host)", "address fd00:20::9/64 on br-web (host)"]);
    });
}

#[test]
fn ipv6_is_switched_on_for_an_address_that_needs_it() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        let off = sysctl(Place::Sandbox, "net/ipv6/conf/all/disable_ipv6", "1");
        create_all(&kernel, &[Object::Sysctl(off)]).await;
        let off = sysctl(Place::Sandbox, "net/ipv6/conf/default/disable_ipv6", "1");
        create_all(&kernel, &[Object::Sysctl(off)]).await;
        create_all(&kernel, &attachment()).await;
        assert_eq!(drift(&kernel, &attachment()).await, [""; 0]);
    });
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        create_all(&kernel, &attachment()[..6]).await;
        let unreachable = Object::Route(route("10.50.0.0/16", "192.0.2.1"));
        let error = kernel.create(&[unreachable]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "create route 10.50.0.0/16 via 192.0.2.1 dev eth0 (container): \
             Nexthop has invalid gateway (Network is unreachable (os error 101))"
        );
        let error = kernel.create(&[Object::Link(veth("veth2", "br-none"))]).await.unwrap_err();
        assert!(error.to_string().contains("bridge br-none"), "{error}");
        let other = address(Place::Sandbox, "eth0", "fd00:20::2/80");
        let error = kernel.create(&[Object::Address(other)]).await.unwrap_err();
        assert!(error.to_string().contains("it is there as fd00:20::2/64"), "{error}");
    });
}

#[test]
fn what_carries_a_networks_mark_is_listed() {
    with_kernel(|host| async move {
        let kernel = enter(&host, "web-1").await;
        create_all(&kernel, &attachment()).await;
        ip(None, "link add br-theirs type bridge");
        let web = Name::new("web").unwrap();
        let names: Vec<_> = kernel.marked(&web).await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["bridge br-web", "link veth1 ↔ eth0"]);
        assert!(kernel.marked(&Name::new("we").unwrap()).await.unwrap().is_empty());
    });
}

#[test]
fn one_kernel_serves_several_runtimes() {
    on_a_host(|| {
        let kernel = Linux::host();
        for _ in 0..2 {
            block_on(async { create_all(&kernel, &[Object::Link(bridge("br-web"))]).await });
        }
        assert!(tokio::runtime::Handle::try_current().is_err());
    });
}
