//! Everybody's rules, as data: the messages of a listing are taken apart here, attribute by attribute,
//! since libnftnl refuses rules with an expression that it does not know, and those are the very ones
//! a diagnosis must not pass over.

mod attributes;
mod compat;
mod expression;

use std::collections::HashMap;

use nftnl_sys::libc;

use super::Nft;
use super::sys::Question;
use crate::error::Result;
use crate::model::rules::{Backend, Base, Chain, Element, Family, Hook, Rule, Rules, Value};
use attributes::Attributes;

// Attributes of linux/netfilter/nf_tables.h.
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
const NFT_SET_ELEM_CATCHALL: u32 = 2;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;

/// `struct nlmsghdr` and `struct nfgenmsg`, whose first byte is the family.
const HEADER: usize = 16 + 4;
const FAMILY_AT: usize = 16;

impl Nft {
    /// The rules of all tables of the namespace, whoever made them.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer, [`Error::Busy`](crate::Error::Busy)
    /// when the rules keep changing.
    pub fn everything(&self) -> Result<Rules> {
        let list = |verb| self.socket.list(verb, &Question::about_everything());
        let dormant: Vec<(Family, String)> = list(libc::NFT_MSG_GETTABLE)?
            .iter()
            .filter_map(|message| {
                let (family, attributes) = open(message)?;
                let is_dormant = attributes.number(NFTA_TABLE_FLAGS).unwrap_or(0) & NFT_TABLE_F_DORMANT != 0;
                is_dormant.then_some((family, attributes.text(NFTA_TABLE_NAME)?))
            })
            .collect();
        let mut rules = Rules::default();
        let mut places = HashMap::new();
        for message in list(libc::NFT_MSG_GETCHAIN)? {
            let Some(mut chain) = chain(&message) else { continue };
            // The rules of a table that sleeps are not asked.
            if dormant.iter().any(|(family, table)| *family == chain.family && *table == chain.table) {
                chain.base = None;
            }
            places.insert((chain.family, chain.table.clone(), chain.name.clone()), rules.chains.len());
            rules.chains.push(chain);
        }
        for message in list(libc::NFT_MSG_GETRULE)? {
            let Some((family, attributes)) = open(&message) else { continue };
            let named = |kind| attributes.text(kind).unwrap_or_default();
            let Some(&place) = places.get(&(family, named(NFTA_RULE_TABLE), named(NFTA_RULE_CHAIN))) else { continue };
            let expressions = attributes
                .get(NFTA_RULE_EXPRESSIONS)
                .map(|list| list.all().flat_map(|(_, one)| expression::decode(family, one)).collect());
            let handle = attributes.wide(NFTA_RULE_HANDLE).unwrap_or_default();
            rules.chains[place].rules.push(Rule { handle, expressions: expressions.unwrap_or_default() });
        }
        for message in list(libc::NFT_MSG_GETSET)? {
            let Some((family, attributes)) = open(&message) else { continue };
            let (Some(table), Some(name)) = (attributes.text(NFTA_SET_TABLE), attributes.text(NFTA_SET_NAME)) else {
                continue;
            };
            let question = [(NFTA_SET_ELEM_LIST_TABLE, table.as_str()), (NFTA_SET_ELEM_LIST_SET, name.as_str())];
            let question = Question::about(message[FAMILY_AT], &question);
            let listed = self.socket.list(libc::NFT_MSG_GETSETELEM, &question)?;
            rules.sets.insert((family, table, name), listed.iter().flat_map(|message| elements(message)).collect());
        }
        Ok(rules)
    }
}

fn open(message: &[u8]) -> Option<(Family, Attributes<'_>)> {
    let family = match i32::from(*message.get(FAMILY_AT)?) {
        libc::NFPROTO_INET => Family::Inet,
        libc::NFPROTO_IPV4 => Family::Ip,
        libc::NFPROTO_IPV6 => Family::Ip6,
        libc::NFPROTO_BRIDGE => Family::Bridge,
        libc::NFPROTO_NETDEV => Family::Netdev,
        _ => return None,
    };
    Some((family, Attributes(message.get(HEADER..)?)))
}

fn chain(message: &[u8]) -> Option<Chain> {
    let (family, attributes) = open(message)?;
    let base = attributes.get(NFTA_CHAIN_HOOK).and_then(|hook| {
        let at = match (family, hook.number(NFTA_HOOK_HOOKNUM)?) {
            (Family::Netdev, 0) | (_, 5) => Hook::Ingress,
            (Family::Netdev, _) => return None,
            (_, 0) => Hook::Prerouting,
            (_, 1) => Hook::Input,
            (_, 2) => Hook::Forward,
            (_, 3) => Hook::Output,
            (_, 4) => Hook::Postrouting,
            _ => return None,
        };
        let listed = hook.get(NFTA_HOOK_DEVS).map(|devices| devices.all().map(|(_, one)| one.as_text()).collect());
        Some(Base {
            hook: at,
            priority: hook.number(NFTA_HOOK_PRIORITY)?.cast_signed(),
            translates: attributes.text(NFTA_CHAIN_TYPE).as_deref() == Some("nat"),
            drops: attributes.number(NFTA_CHAIN_POLICY) == Some(0),
            devices: listed.unwrap_or_else(|| hook.text(NFTA_HOOK_DEV).into_iter().collect()),
        })
    });
    Some(Chain {
        backend: Backend::Nft,
        family,
        table: attributes.text(NFTA_CHAIN_TABLE)?,
        name: attributes.text(NFTA_CHAIN_NAME)?,
        base,
        rules: Vec::new(),
    })
}

fn elements(message: &[u8]) -> Vec<Element> {
    let listed = open(message).and_then(|(_, attributes)| attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS));
    let read = |(_, one): (u16, Attributes<'_>)| {
        let flags = one.number(NFTA_SET_ELEM_FLAGS).unwrap_or(0);
        Element {
            key: one.get(NFTA_SET_ELEM_KEY).and_then(expression::bytes).unwrap_or_default(),
            last: one.get(NFTA_SET_ELEM_KEY_END).and_then(expression::bytes),
            ends: flags & NFT_SET_ELEM_INTERVAL_END != 0,
            is_default: flags & NFT_SET_ELEM_CATCHALL != 0,
            value: one.get(NFTA_SET_ELEM_DATA).and_then(|data| {
                let verdict = || expression::verdict(data).map(Value::Verdict);
                expression::bytes(data).map(Value::Bytes).or_else(verdict)
            }),
        }
    };
    listed.map(|list| list.all().map(read).collect()).unwrap_or_default()
}
