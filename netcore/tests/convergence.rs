//! Whatever state a host is in, a plan for it that is carried out leaves nothing to plan.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use ipnetwork::IpNetwork;
use netcore::apply::apply;
use netcore::driver;
use netcore::kernel::{Kernel, Memory};
use netcore::model::{
    Attachment, BridgeConfig, Lease, LeasedAddress, Link, LinkKind, Mode, NatRule, Network, Object, PortMapping,
    Protocol,
};
use netcore::plan::{drift, plan};
use proptest::prelude::*;

fn wish() -> impl Strategy<Value = (Network, Attachment, Lease)> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let wants = (1u8..200, any::<bool>(), proptest::collection::vec(1u16..1000, 0..4));
    (switches, wants).prop_map(|((gateway, default, masquerade, hairpin, isolated), (host, dual, mut ports))| {
        let config = BridgeConfig {
            is_gateway: gateway,
            is_default_gateway: default,
            ip_masq: masquerade,
            hairpin_mode: hairpin,
            port_isolation: isolated,
            ..BridgeConfig::default()
        };
        let network =
            Network { name: "web".parse().unwrap(), mode: Mode::Bridge(config), ipam: None, dns: Default::default() };
        let leased = |text: String| LeasedAddress { address: text.parse::<IpNetwork>().unwrap(), gateway: None };
        let mut addresses = vec![leased(format!("10.20.0.{}/24", host + 1))];
        if dual {
            addresses.push(leased(format!("fd00:20::{host:x}/64")));
        }
        ports.sort_unstable();
        ports.dedup();
        let mut attachment = Attachment::new("web-1".parse().unwrap(), Some("/run/netns/web-1".into()));
        for port in ports {
            attachment =
                attachment.publish_mapping(PortMapping { protocol: Protocol::Udp, ..PortMapping::tcp(port, 80) });
        }
        let lease = driver::complete(&network, Lease { addresses, ..Lease::default() });
        (network, attachment, lease)
    })
}

/// What may have happened to an object since it was made.
fn spoil(object: &Object, how: u8) -> Option<Object> {
    let mut object = object.clone();
    match (&mut object, how % 3) {
        (_, 0) => return None,
        (Object::Link(Link { up, kind, port, .. }), 1) => {
            *up = false;
            if let LinkKind::Veth(veth) = kind {
                veth.peer_up = false;
            }
            if let Some(port) = port {
                port.hairpin = !port.hairpin;
            }
        }
        (Object::Sysctl(sysctl), 1) => sysctl.value = "0".to_owned(),
        (Object::Nat(NatRule::Ruleset { damage, .. }), 1) => damage.push("chain output: missing".to_owned()),
        _ => {}
    }
    Some(object)
}

proptest! {
    #[test]
    fn a_plan_carried_out_leaves_an_empty_diff((network, attachment, lease) in wish(), history in proptest::collection::vec(any::<u8>(), 40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let desired = driver::desired(&network, &attachment, &lease).unwrap().all();
            let kernel = Memory::new().enter(Some(Path::new("/run/netns/web-1"))).await.unwrap();
            for (object, how) in desired.iter().zip(history.iter().cycle()) {
                if let Some(object) = spoil(object, *how) {
                    kernel.put(object);
                }
            }
            let steps = plan(&desired, &kernel.observe(&desired).await.unwrap()).unwrap();
            apply(&kernel, &steps).await.unwrap();
            let after = kernel.observe(&desired).await.unwrap();
            prop_assert_eq!(drift(&desired, &after), vec![]);
            prop_assert_eq!(plan(&desired, &after).unwrap(), vec![]);
            Ok(())
        })?;
    }

    #[test]
    fn a_plan_that_fails_at_any_step_leaves_what_was_there((network, attachment, lease) in wish(), survives in 0usize..12) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let desired = driver::desired(&network, &attachment, &lease).unwrap().all();
            let kernel = Memory::new().enter(Some(Path::new("/run/netns/web-1"))).await.unwrap();
            let steps = plan(&desired, &kernel.observe(&desired).await.unwrap()).unwrap();
            kernel.fail_after(survives);
            if apply(&kernel, &steps).await.is_err() {
                prop_assert_eq!(kernel.objects(), vec![]);
            }
            Ok(())
        })?;
    }
}
