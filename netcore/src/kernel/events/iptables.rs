//! Which notifications of nf_tables are about iptables-nft, whose chains are nf_tables' as well:
//! what we have there may be lost, or be needed by now. Of iptables-legacy nothing is heard.

use nftnl_sys::libc;

use crate::kernel::raw::attribute;

/// The tables that we have rules in, and the chains of iptables' own that lead to ours.
const TABLES: [&[u8]; 3] = [b"filter\0", b"nat\0", b"raw\0"];
const ENTRANCES: [&[u8]; 5] = [b"FORWARD\0", b"DOCKER-USER\0", b"PREROUTING\0", b"OUTPUT\0", b"POSTROUTING\0"];
const FORWARD: [&[u8]; 2] = [b"FORWARD\0", b"DOCKER-USER\0"];

/// Attributes of chains and rules (linux/netfilter/nf_tables.h).
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_CHAIN: u16 = 2;

/// Whether something of ours in a table of iptables-nft may be gone, or may not be enough any more.
/// `family` and `table` are the table's, as netlink has them.
pub(super) fn concerns_us(family: u8, table: &[u8], verb: i32, attributes: &[u8]) -> bool {
    let is_iptables = [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6].contains(&family.into()) && TABLES.contains(&table);
    let is_among = |name: u16, chains: &[&[u8]]| attribute(attributes, name).is_some_and(|name| chains.contains(&name));
    let is_ours = |name: u16| attribute(attributes, name).is_some_and(|name| name.starts_with(b"NETCORE-"));
    is_iptables
        && match verb {
            libc::NFT_MSG_DELTABLE => true,
            // Its policy, for one.
            libc::NFT_MSG_NEWCHAIN => is_among(NFTA_CHAIN_NAME, &FORWARD),
            libc::NFT_MSG_DELCHAIN => is_ours(NFTA_CHAIN_NAME),
            libc::NFT_MSG_NEWRULE => is_among(NFTA_RULE_CHAIN, &FORWARD),
            libc::NFT_MSG_DELRULE => is_ours(NFTA_RULE_CHAIN) || is_among(NFTA_RULE_CHAIN, &ENTRANCES),
            _ => false,
        }
}
