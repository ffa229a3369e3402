//! The ways to many nodes: made in batches, those that fail named, and all of them removed again.

use super::*;
use crate::model::{FdbEntry, InterfaceName, Mac, Neighbour, Vxlan};

const NODES: u16 = 500;

fn tunnel() -> Link {
    let vxlan = Vxlan { vni: 42, port: 4789, local: Some("192.0.2.1".parse().unwrap()), learning: false };
    Link { name: device(), kind: LinkKind::Vxlan(vxlan), mac: Some(Mac([2, 0, 0, 0, 0, 1])), ..bridge("vxlan42") }
}

fn device() -> InterfaceName {
    "vxlan42".parse().unwrap()
}

fn ways() -> Vec<Object> {
    let way = |node: u16| {
        let [high, low] = node.to_be_bytes();
        let (place, link, mac) = (Place::Host, device(), Mac([2, 0, 0, 1, high, low]));
        let gateways = [format!("10.{high}.{low}.1"), format!("fd24:0:0:{node:x}::1")];
        let subnets = [format!("10.{high}.{low}.0/24"), format!("fd24:0:0:{node:x}::/64")];
        let neighbour = |address: &String| {
            let address = address.parse().unwrap();
            Object::Neighbour(Neighbour { place, link: link.clone(), address, mac: Some(mac), permanent: true })
        };
        let to = |subnet: &String, gateway: &String| {
            Object::Route(Route { place, link: link.clone(), onlink: true, ..route(subnet, gateway) })
        };
        let mut way: Vec<Object> = gateways.iter().map(neighbour).collect();
        way.push(Object::Fdb(FdbEntry { place, link: link.clone(), mac, to: [198, 18, high, low].into() }));
        way.extend(subnets.iter().zip(&gateways).map(|(subnet, gateway)| to(subnet, gateway)));
        way
    };
    (2..NODES).flat_map(way).collect()
}

#[test]
fn many_ways_are_made_and_the_one_that_cannot_be_is_named() {
    with_kernel(|host| async move {
        create_all(&host, &[Object::Link(tunnel())]).await;
        let ways = ways();
        ip(None, "link set lo up");
        ip(None, "route add 10.0.77.0/24 dev vxlan42");
        let refused = host.create(&ways).await.unwrap_err().to_string();
        assert!(refused.starts_with("route 10.0.77.0/24 via 10.0.77.1 dev vxlan42"), "{refused}");
        assert!(refused.contains("another route to 10.0.77.0/24 is there"), "{refused}");
        assert_eq!(
            drift(&host, &ways).await,
            ["route 10.0.77.0/24 via 10.0.77.1 dev vxlan42 (host): gateway is none, should be 10.0.77.1"],
            "all but that one are there"
        );
        ip(None, "route del 10.0.77.0/24");
        host.create(&ways).await.unwrap();
        host.create(&ways).await.unwrap();
        assert_eq!(drift(&host, &ways).await, Vec::<String>::new());
        let ranges = ["10.0.0.0/8".parse().unwrap(), "fd24::/48".parse().unwrap()];
        assert_eq!(host.ways(&device(), &ranges).await.unwrap().0.len(), ways.len());

        // Those of others stay, and what is gone already is no error.
        ip(None, "route del 10.0.9.0/24");
        ip(None, "route add 10.0.9.0/24 via 10.0.9.1 dev vxlan42 onlink");
        ip(None, "neigh del 10.0.10.1 dev vxlan42");
        host.remove(&ways).await.unwrap();
        assert_eq!(host.ways(&device(), &ranges).await.unwrap().0, []);
        assert!(ip(None, "route show").contains("10.0.9.0/24 via 10.0.9.1"));
    });
}

#[test]
fn ways_without_their_tunnel_are_an_error_that_names_the_first_and_are_gone_already() {
    with_kernel(|host| async move {
        let refused = host.create(&ways()).await.unwrap_err().to_string();
        assert!(refused.starts_with("create neighbour 10.0.2.1 dev vxlan42 (host): No such device"), "{refused}");
        host.remove(&ways()).await.unwrap();
    });
}
