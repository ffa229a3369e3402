//! Which tables iptables has in this namespace, as the kernel tells it without any program.

use std::fs;

use super::program::Program;
use crate::kernel::nft::IptablesChains;
use crate::model::Variant;

/// What there is of iptables.
#[derive(Clone, Debug, Default)]
pub(in crate::kernel) struct Tables {
    /// Those of iptables-nft, for IPv4 and for IPv6.
    nft: [IptablesChains; 2],
    /// The names of those of iptables-legacy, likewise.
    legacy: [Vec<String>; 2],
}

/// Where the kernel lists the tables of iptables-legacy (net/netfilter/x_tables.c, `xt_proto_init`).
const LEGACY: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// The names of the tables of iptables-legacy, for IPv4 and for IPv6.
fn legacy() -> [Vec<String>; 2] {
    // Not there means that there are none.
    LEGACY.map(|path| fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect())
}

/// Whether iptables-legacy has a `FORWARD` that may drop something, for IPv4 and for IPv6.
pub(in crate::kernel) fn legacy_may_close_forward() -> [bool; 2] {
    legacy().map(|names| names.iter().any(|name| name == "filter"))
}

impl Tables {
    /// What there is of iptables-legacy, beside those of iptables-nft.
    pub(in crate::kernel) fn beside(nft: [IptablesChains; 2]) -> Self {
        Self { nft, legacy: legacy() }
    }

    fn programs(&self, v6: bool, nft: impl Fn(&IptablesChains) -> bool, legacy: &str) -> impl Iterator<Item = Program> {
        let family = usize::from(v6);
        let is_there = [nft(&self.nft[family]), self.legacy[family].iter().any(|name| name == legacy)];
        let there = Variant::ALL.into_iter().zip(is_there).filter(|(_, is_there)| *is_there);
        there.map(move |(variant, _)| Program { variant, v6 })
    }

    /// Those with a `FORWARD`.
    pub(super) fn with_forward(&self, v6: bool) -> impl Iterator<Item = Program> {
        self.programs(v6, |nft| nft.forward_drops.is_some(), "filter")
    }

    /// Those that may have a `NETCORE-FORWARD`.
    pub(super) fn with_our_forward(&self, v6: bool) -> impl Iterator<Item = Program> {
        self.programs(v6, |nft| nft.has_our_forward, "filter")
    }

    /// Those that may have rules of ours.
    pub(super) fn with_ours(&self) -> impl Iterator<Item = Program> {
        [false, true].into_iter().flat_map(|v6| self.with_our_forward(v6))
    }

    /// Whether the kernel itself says that `FORWARD` drops.
    pub(super) fn drops(&self, program: Program) -> bool {
        program.variant == Variant::Nft && self.nft[usize::from(program.v6)].forward_drops == Some(true)
    }
}
