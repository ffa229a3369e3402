//! What is read of interfaces in the kernel's messages is what decoding them says.

use super::*;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;

use crate::kernel::seen::{self, MANY};

#[test]
fn a_link_is_read_as_it_would_be_decoded() {
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
        ip(None, "link add shared link other type macvlan mode bridge bcqueuelen 77");
        ip(None, "link add alone link other type macvlan mode private");
        let all = seen::all(&rtnl).await.unwrap();
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let decoded: Vec<_> = rtnl.dump(question).await.unwrap().iter().filter_map(seen::from_answer).collect();
        assert_eq!((all.len(), &all), (10, &decoded));
        for one in &all {
            let name = one.name.parse().unwrap();
            assert_eq!(seen::by_name(&rtnl, &name).await.unwrap().as_ref(), Some(one));
        }
    });
}

#[test]
fn a_survey_of_many_tells_once_what_was_listed_and_then_asks_anew() {
    with_kernel(|host| async move {
        let names: Vec<String> = (0..MANY).map(|number| format!("br{number}")).collect();
        names.iter().for_each(|name| drop(ip(None, &format!("link add {name} type bridge"))));
        let wanted: Vec<Object> = names.iter().map(|name| Object::Link(bridge(name))).collect();
        let few = host.survey(MANY - 1).await.unwrap();
        assert!(few.listing().is_none());

        let survey = host.survey(MANY).await.unwrap();
        let listing = survey.listing().unwrap();
        assert_eq!(survey.observe(&wanted).await.unwrap().0.len(), MANY);
        assert!(listing.take().is_none(), "it has been told already");
        ip(None, "link del br7");
        assert_eq!(survey.observe(&wanted).await.unwrap().0.len(), MANY - 1);
    });
}
