//! VXLAN tunnels (RFC 7348). They learn nothing: what is behind which node is said by
//! [`neighbour`](super::neighbour).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo};
use rustix::io::Errno;

use super::link::{BIRTH_GROUP, claim, of_name, raise, set_up, show};
use super::linux::Linux;
use super::rtnl::{Refusal, Rtnl};
use super::seen;
use crate::error::{Error, Result};
use crate::model::{Link, Vxlan};

/// Makes the tunnel `link`.
pub(super) async fn create(kernel: &Linux, link: &Link, vxlan: &Vxlan) -> Result<()> {
    let rtnl = kernel.required(link.place)?;
    let mut message = of_name(link);
    set_up(&mut message, link.up);
    message.attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.push(LinkAttribute::Group(BIRTH_GROUP));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(write(vxlan))),
    ]));
    match rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(refusal) if refusal.is(&[Errno::EXIST]) => share(&rtnl, link, vxlan, refusal).await,
        // The socket is bound when the interface goes up, which is part of the same request.
        Err(refusal) if refusal.is(&[Errno::ADDRINUSE]) => Err(Error::Conflict {
            object: show(link).to_string(),
            found: format!("UDP port {} is in use on this host", vxlan.port),
            way_out: "free it (`ss -lunp` shows who has it), or give the network another port on every node".to_owned(),
        }),
        Err(refusal) => Err(refusal.error("create", show(link))),
        Ok(()) => claim(&rtnl, link, of_name(link)).await.map_err(|refusal| refusal.error("create", show(link))),
    }
}

/// Something was faster: the same tunnel is used, another one is in the way.
async fn share(rtnl: &Rtnl, link: &Link, vxlan: &Vxlan, refusal: Refusal) -> Result<()> {
    let found = seen::by_name(rtnl, &link.name).await.map_err(|refusal| refusal.error("read", show(link)))?;
    match found {
        // Until it is marked, it is told by its group.
        Some(found) if found.vxlan.as_ref() == Some(vxlan) && (found.alias.is_none() || found.is_marked_as(link)) => {
            if link.up && !found.up {
                raise(rtnl, &link.name).await.map_err(|refusal| refusal.error("set up", show(link)))?;
            }
            Ok(())
        }
        Some(_) => Err(Error::InterfaceExists { name: link.name.clone(), place: format!("the {}", link.place) }),
        None => {
            let all = seen::all(rtnl).await.map_err(|refusal| refusal.error("list", "links"))?;
            let other = all.iter().find(|other| other.vxlan.as_ref().is_some_and(|other| other.vni == vxlan.vni));
            let Some(other) = other else { return Err(refusal.error("create", show(link))) };
            Err(Error::Conflict {
                object: show(link).to_string(),
                found: format!("{} has VNI {} already", other.name, vxlan.vni),
                way_out: "remove it, or give the network another VNI on every node".to_owned(),
            })
        }
    }
}

fn write(vxlan: &Vxlan) -> Vec<InfoVxlan> {
    let mut facts = vec![InfoVxlan::Id(vxlan.vni), InfoVxlan::Port(vxlan.port), InfoVxlan::Learning(vxlan.learning)];
    facts.extend(vxlan.local.map(|local| match local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    }));
    facts
}

/// What a tunnel is, as the kernel reports it.
pub(super) fn read(facts: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan { vni: 0, port: 0, local: None, learning: false };
    for fact in facts {
        match fact {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            InfoVxlan::Local(local) => vxlan.local = Some((*local).into()),
            InfoVxlan::Local6(local) => vxlan.local = Some((*local).into()),
            _ => {}
        }
    }
    vxlan
}
