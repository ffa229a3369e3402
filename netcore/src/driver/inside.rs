//! What every mode with addresses puts inside the container: the lease's addresses and routes on
//! its interface, and the interface's MAC address.

use ipnetwork::IpNetwork;

use crate::model::{Address, Attachment, IpamConfig, Lease, Mac, Network, Object, Place, Rivals, Route};

/// `RT_SCOPE_LINK` (linux/rtnetlink.h).
const SCOPE_LINK: u8 = 253;

/// The container's addresses.
pub(super) fn addresses(attachment: &Attachment, lease: &Lease, dad: bool) -> impl Iterator<Item = Object> {
    lease.addresses.iter().map(move |leased| {
        Object::Address(Address {
            place: Place::Sandbox,
            link: attachment.id.interface.clone(),
            address: leased.address,
            dad,
            rivals: Rivals::Allow,
        })
    })
}

/// The container's routes, those without a next hop by the gateway of their family.
pub(super) fn routes(attachment: &Attachment, lease: &Lease) -> impl Iterator<Item = Object> {
    lease.routes.iter().map(|route| {
        let family_gateway = || {
            let same_family = lease.addresses.iter().filter(|leased| leased.address.is_ipv6() == route.dst.is_ipv6());
            same_family.filter_map(|leased| leased.gateway).next()
        };
        let link_scope = route.scope.is_some_and(|scope| scope == SCOPE_LINK);
        let gateway = route.gw.or_else(|| if link_scope { None } else { family_gateway() });
        Object::Route(Route {
            place: Place::Sandbox,
            link: attachment.id.interface.clone(),
            destination: subnet(route.dst),
            gateway,
            onlink: false,
            mtu: route.mtu,
            advmss: route.advmss,
            metric: route.priority,
            table: route.table,
            scope: route.scope,
            source: None,
        })
    })
}

/// The MAC address the container's interface should have: what was asked for, or one that follows
/// from its address. With a delegate the interface comes first, and keeps the one it had when it
/// asked for its address.
pub(super) fn mac(network: &Network, attachment: &Attachment, configured: Option<Mac>, lease: &Lease) -> Option<Mac> {
    let asked = attachment.mac.or(configured);
    match network.ipam {
        Some(IpamConfig::Delegate(_)) => asked,
        _ => asked.or_else(|| lease.addresses.first().map(|leased| Mac::for_address(leased.address.ip()))),
    }
}

/// The subnet of an address: the same with the host bits cleared.
pub(super) fn subnet(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
}
