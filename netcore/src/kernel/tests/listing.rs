//! A listing of many interfaces says of each what asking for it says.

use super::*;
use crate::kernel::seen;

#[test]
fn a_listing_reads_what_a_question_reads() {
    with_kernel(|host| async move {
        for (number, netns) in ["web-1", "web-2", "web-3"].into_iter().enumerate() {
            let kernel = enter(&host, netns).await;
            let isolated = number == 1;
            let end = veth(&format!("veth{number}"), "br-web");
            let port = end.port.clone().map(|port| Port { hairpin: !isolated, isolated, ..port });
            let mut wanted = vec![Object::Link(Link { port, mark: Some(mark(&format!("web/{netns}"))), ..end })];
            if number == 0 {
                wanted.insert(0, Object::Link(bridge("br-web")));
            }
            create_all(&kernel, &wanted).await;
            kernel.settle(&wanted).await.unwrap();
        }
        ip(None, "link add bare type veth peer name other");
        ip(None, "link set veth2 down");
        ip(None, "link set veth1 promisc on group 7");
        ip(None, "link add tunnel type vxlan id 42 dstport 4789 local 10.0.0.1 nolearning");
        let rtnl = host.at(Place::Host).unwrap().unwrap();
        let all = seen::all(&rtnl).await.unwrap();
        assert_eq!(all.len(), 8, "{all:?}");
        for one in &all {
            let name = one.name.parse().unwrap();
            assert_eq!(seen::by_name(&rtnl, &name).await.unwrap().as_ref(), Some(one));
        }
    });
}
