//! What others may take away without the kernel saying so to anybody. Of the settings under
//! `/proc/sys`, only those of forwarding are announced (linux/netconf.h); iptables-legacy says
//! nothing at all.

use crate::kernel::iptables;
use crate::kernel::linux::Linux;
use crate::model::{Iptables, Object, Variant};

impl Linux {
    /// Whether a change of `object` may be one that nobody hears of.
    #[must_use]
    pub fn may_miss(&self, object: &Object) -> bool {
        match object {
            Object::Iptables(Iptables { variant: Variant::Legacy, .. }) | Object::Admission(_) => true,
            Object::Sysctl(setting) => !setting.name.ends_with("/forwarding") && !setting.name.ends_with("/ip_forward"),
            _ => false,
        }
    }

    /// Leaves of `objects`, all of which it [may miss](Self::may_miss), those that may be different by
    /// now. Whether iptables-legacy lets somebody pass matters only where the kernel has such a table,
    /// which it says without any program.
    pub fn retain_missed(&self, objects: &mut Vec<Object>) {
        if objects.iter().any(|object| matches!(object, Object::Admission(_))) {
            let closes = iptables::legacy_may_close_forward();
            objects.retain(|object| match object {
                Object::Admission(admission) => closes[usize::from(admission.v6)],
                _ => true,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Place, Sysctl};

    #[test]
    fn of_forwarding_one_hears_and_of_other_settings_not() {
        let misses = |name: &str| {
            let setting = Sysctl { place: Place::Host, name: name.to_owned(), value: "1".to_owned() };
            Linux::host().may_miss(&Object::Sysctl(setting))
        };
        for name in ["net/ipv4/ip_forward", "net/ipv4/conf/web/forwarding", "net/ipv6/conf/all/forwarding"] {
            assert!(!misses(name), "{name}");
        }
        assert!(misses("net/ipv4/conf/web/route_localnet") && misses("net/ipv4/conf/shim/arp_filter"));
    }
}
