//! What some kernels can do and others cannot: tried out, in a network namespace of its own that
//! is gone afterwards.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

/// Something that not every kernel has. A test names what it needs with [`needs!`](crate::needs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// 802.1Q links (`CONFIG_VLAN_8021Q`).
    Vlan,
    /// VLAN filtering on bridges (`CONFIG_BRIDGE_VLAN_FILTERING`).
    BridgeVlanFiltering,
    /// Dummy links (`CONFIG_DUMMY`).
    Dummy,
    /// ipvlan links (`CONFIG_IPVLAN`).
    Ipvlan,
    /// WireGuard links (`CONFIG_WIREGUARD`).
    Wireguard,
    /// SCTP sockets (`CONFIG_IP_SCTP`).
    Sctp,
    /// Tables of iptables-legacy (`CONFIG_IP_NF_IPTABLES_LEGACY`), and the program.
    IptablesLegacy,
}

impl Feature {
    /// Why a test that needs this has to be skipped, if the kernel does not have it.
    ///
    /// # Panics
    /// On the kernel of `make test-kernel`, which is there to have it.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        if self.is_here() {
            return None;
        }
        let missing = format!("needs {}: not in this kernel, runs under make test-kernel", self.name());
        assert!(std::env::var_os("NETCORE_TEST_KERNEL").is_none(), "{missing}, which this is");
        Some(missing)
    }

    /// Whether the kernel has it.
    #[must_use]
    pub fn is_here(self) -> bool {
        static HERE: [OnceLock<bool>; 7] = [const { OnceLock::new() }; 7];
        *HERE[self as usize].get_or_init(|| self.works())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vlan => "8021q",
            Self::BridgeVlanFiltering => "bridge-vlan-filtering",
            Self::Dummy => "dummy",
            Self::Ipvlan => "ipvlan",
            Self::Wireguard => "wireguard",
            Self::Sctp => "sctp",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    fn works(self) -> bool {
        match self {
            Self::Vlan => succeeds(
                "ip link add one type veth peer name two
                 ip link add link one name one.10 type vlan id 10",
            ),
            // A kernel without takes `vlan_filtering 1` all the same, and ignores it.
            Self::BridgeVlanFiltering => succeeds(
                "ip link add bridge type bridge vlan_filtering 1
                 bridge vlan add dev bridge vid 10 self",
            ),
            Self::Dummy => succeeds("ip link add dummy type dummy"),
            Self::Ipvlan => succeeds(
                "ip link add one type veth peer name two
                 ip link add link one name ipvlan type ipvlan mode l2",
            ),
            Self::Wireguard => succeeds("ip link add wireguard type wireguard"),
            Self::IptablesLegacy => succeeds("iptables-legacy -t nat -L -n; ip6tables-legacy -t nat -L -n"),
            Self::Sctp => socket(AddressFamily::INET, SocketType::SEQPACKET, Some(ipproto::SCTP)).is_ok(),
        }
    }
}

/// Whether `script` runs to its end in a new network namespace.
fn succeeds(script: &str) -> bool {
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-ec", script]).env("PATH", crate::host::PATH);
    let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("start unshare").success()
}

/// Ends a test that needs a kernel [`Feature`] which is not there: `needs!(Vlan, Dummy)`.
#[macro_export]
macro_rules! needs {
    ($($feature:ident),+ $(,)?) => {
        $(if let Some(reason) = $crate::features::Feature::$feature.missing() {
            $crate::skip!("{reason}");
        })+
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_test_kernel_has_every_feature() {
        crate::needs!(Vlan, BridgeVlanFiltering, Dummy, Ipvlan, Wireguard, Sctp, IptablesLegacy);
    }

    #[test]
    fn a_probe_that_fails_fails() {
        assert!(!super::succeeds("ip link add one type nonsense"));
    }
}
