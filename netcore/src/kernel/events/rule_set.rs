//! Notifications of nf_tables: of each transaction, every object that it added or removed, and
//! then the new generation with the process that made it (linux/netfilter/nf_tables.h).

use nftnl_sys::libc;

use super::iptables;
use super::losses::{Culprit, Losses};
use super::socket::Message;
use crate::kernel::nft;
use crate::kernel::raw::{attribute, attributes, text};
use crate::model::Mark;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
pub(super) const GROUPS: [u32; 1] = [7];

/// `struct nfgenmsg`, of which the first byte is the family.
const HEADER: usize = 4;

/// The name of the table: attribute 1 of messages about tables, chains, rules, sets and elements.
const TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;

/// Reads one message of a transaction into `transaction`; at its end, what it took away goes to
/// `losses`, with who it was, unless we did it ourselves, by `own_port`.
pub(super) fn read(message: Message<'_>, own_port: Option<u32>, transaction: &mut Losses, losses: &mut Losses) {
    if i32::from(message.kind >> 8) != libc::NFNL_SUBSYS_NFTABLES {
        return;
    }
    let verb = i32::from(message.kind & 0xff);
    let Some((header, attributes)) = message.body.split_first_chunk::<HEADER>() else { return };
    if verb == libc::NFT_MSG_NEWGEN {
        let mut lost = std::mem::take(transaction);
        if !lost.is_empty() {
            if let Some(culprit) = culprit(attributes) {
                lost.to(culprit);
            }
            losses.merge(lost);
        }
        return;
    }
    // What is added to a set takes nothing away, and sets and maps are all that attaching adds to.
    if verb == libc::NFT_MSG_NEWSETELEM || own_port == Some(message.port) {
        return;
    }
    let Some(table) = attribute(attributes, TABLE) else { return };
    if iptables::concerns_us(header[0], table, verb, attributes) {
        transaction.of_firewall("iptables' rules were changed");
    }
    if !nft::is_our_table(header[0].into(), table) {
        return;
    }
    if verb == libc::NFT_MSG_DELSETELEM {
        element(attributes, transaction);
    } else {
        transaction.of_firewall("the firewall's rules were changed");
    }
}

/// An element was removed. Whose it was, its comment says; the claim on a port has none, but goes
/// together with what is published on it, unless somebody else removes it.
fn element(message: &[u8], transaction: &mut Losses) {
    let mut any_unmarked = false;
    for (_, element) in attribute(message, NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flat_map(attributes) {
        let mark = attribute(element, NFTA_SET_ELEM_USERDATA).and_then(nft::read_comment).and_then(Mark::parse);
        match mark {
            Some(mark) => transaction.lost(mark),
            None => any_unmarked = true,
        }
    }
    let of_claims = attribute(message, NFTA_SET_ELEM_LIST_SET).is_some_and(nft::is_set_of_claims);
    if any_unmarked && !(of_claims && transaction.has_marks()) {
        transaction.of_firewall("an element of the firewall was removed");
    }
}

fn culprit(generation: &[u8]) -> Option<Culprit> {
    let pid = attribute(generation, NFTA_GEN_PROC_PID)?.first_chunk().map(|pid| u32::from_be_bytes(*pid))?;
    let name = attribute(generation, NFTA_GEN_PROC_NAME).and_then(text)?.to_owned();
    Some(Culprit { pid, name })
}
