//! What is asked of iptables' `FORWARD` for a link that containers are behind.

use ipnetwork::IpNetwork;

use crate::model::{Admission, InterfaceName, Lease, Mark, Object};

/// That what comes and goes by `link` passes, in each family of `lease`.
pub(super) fn admissions(link: &InterfaceName, lease: &Lease, mark: &Mark) -> Vec<Object> {
    let families = [false, true].into_iter().filter(|v6| lease.has(*v6));
    families.map(|v6| Object::Admission(Admission { link: link.clone(), v6, from: None, mark: mark.clone() })).collect()
}

/// That what comes from `ranges` passes to `link`, over whatever way.
pub(super) fn admissions_from(ranges: &[IpNetwork], link: &InterfaceName, mark: &Mark) -> Vec<Object> {
    let from = |range: &IpNetwork| Admission {
        link: link.clone(),
        v6: range.is_ipv6(),
        from: Some(*range),
        mark: mark.clone(),
    };
    ranges.iter().map(from).map(Object::Admission).collect()
}
