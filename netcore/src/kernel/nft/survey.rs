//! How much of the rule set is there, what is wrong with it, and what makes it right.

use std::collections::HashMap;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use nftnl::{Chain as ChainMessage, ChainType, Policy, Rule as RuleMessage};
use nftnl_sys::libc;

use super::bytecode::compile;
use super::ruleset::{Chain, Field, Set, TABLE, padded_bytes};
use super::socket::{Messages, Socket, present};
use super::sys::{self, ListedBase, ListedRule, SetShape};
use super::{garbled, user_data};
use crate::error::Result;
use crate::model::Table;

/// The rule set as the kernel has it.
pub(super) struct Survey {
    table: Table,
    table_flags: u32,
    /// In the order of the table's own.
    sets: Vec<Option<SetShape>>,
    /// Likewise: its base, and its rules.
    chains: Vec<Option<(Option<ListedBase>, Vec<ListedRule>)>>,
}

/// Whether a part of the rule set is there as it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Intact,
    Missing,
    Altered,
}

impl Survey {
    /// Reads the table, and nothing of others; `None` if it is not there.
    pub(super) fn take(socket: &Socket, which: Table) -> Result<Option<Self>> {
        let table = nftnl::Table::new(TABLE, which.family());
        let mut questions = Messages::new();
        questions.add(libc::NFT_MSG_GETTABLE, 0, &table);
        // Chains can only be listed for all tables together.
        for chain in which.chains() {
            questions.add(libc::NFT_MSG_GETCHAIN, 0, &ChainMessage::new(chain.name, &table));
        }
        let mut answers = socket.ask(questions)?.into_iter().map(present);
        let Some(found) = answers.next().transpose()?.flatten() else { return Ok(None) };
        let table_flags = sys::Table::flags(&found).ok_or_else(garbled)?;

        let mut shapes = HashMap::new();
        for found in socket.list(libc::NFT_MSG_GETSET, &sys::Set::all(which))? {
            let (name, shape) = sys::Set::shape(&found).ok_or_else(garbled)?;
            shapes.insert(name, shape);
        }
        let sets = which.sets().iter().map(|set| shapes.remove(set.name.to_bytes())).collect();

        let mut rules: HashMap<Vec<u8>, Vec<ListedRule>> = HashMap::new();
        for found in socket.list(libc::NFT_MSG_GETRULE, &sys::AllRules::new(which))? {
            let rule = sys::rule(&found).ok_or_else(garbled)?;
            rules.entry(rule.chain.clone()).or_default().push(rule);
        }
        let mut chains = Vec::new();
        for (chain, found) in which.chains().iter().zip(answers) {
            let base = found?.map(|found| sys::chain(&found).ok_or_else(garbled)).transpose()?;
            chains.push(base.map(|base| (base, rules.remove(chain.name.to_bytes()).unwrap_or_default())));
        }
        Ok(Some(Self { table: which, table_flags, sets, chains }))
    }

    /// What is wrong, by name; nothing if all is as it should be.
    pub(super) fn damage(&self) -> Vec<String> {
        let mut damage = Vec::new();
        if self.table_flags != 0 {
            let dormant = self.table_flags & DORMANT != 0;
            damage.push(format!("table: {}", if dormant { "dormant" } else { "altered" }));
        }
        for (set, condition) in self.set_conditions() {
            let kind = if set.data.is_empty() { "set" } else { "map" };
            note(&mut damage, &format!("{kind} {}", set.name.to_string_lossy()), condition);
        }
        for (chain, condition) in self.chain_conditions() {
            note(&mut damage, &format!("chain {}", chain.name.to_string_lossy()), condition);
        }
        for (chain, seen) in self.table.chains().iter().zip(&self.chains).filter(|(chain, _)| !chain.is_foreign()) {
            if let Some((_, rules)) = seen {
                compare_rules(chain, rules, &mut damage);
            }
        }
        damage
    }

    fn set_conditions(&self) -> impl Iterator<Item = (&'static Set, Condition)> {
        self.table.sets().iter().zip(&self.sets).map(|(&set, seen)| {
            let condition = match seen {
                None => Condition::Missing,
                Some(seen) if *seen == shape(set) => Condition::Intact,
                Some(_) => Condition::Altered,
            };
            (set, condition)
        })
    }

    fn chain_conditions(&self) -> impl Iterator<Item = (&'static Chain, Condition)> {
        self.table.chains().iter().zip(&self.chains).map(|(chain, seen)| {
            let condition = match seen {
                None => Condition::Missing,
                Some((base, _)) if *base == listed_base(chain) => Condition::Intact,
                Some(_) => Condition::Altered,
            };
            (chain, condition)
        })
    }
}

/// Adds to `changes` what makes the rule set of the table `which` whole: with nothing of it there, or what `survey`
/// found. Sets and chains that are as they should be stay, and so do the elements of sets; all
/// our rules are written anew, and what is in the administrator's chain stays.
pub(super) fn repair(which: Table, survey: Option<&Survey>, changes: &mut Messages) {
    let table = nftnl::Table::new(TABLE, which.family());
    let chain_named = |chain: &Chain| ChainMessage::new(chain.name, &table);
    let sets: Vec<_> = match survey {
        Some(survey) => survey.set_conditions().collect(),
        None => which.sets().iter().map(|set| (*set, Condition::Missing)).collect(),
    };
    let chains: Vec<_> = match survey {
        Some(survey) => survey.chain_conditions().collect(),
        None => which.chains().iter().map(|chain| (chain, Condition::Missing)).collect(),
    };

    changes.add(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, &sys::Table::new(which, &user_data::comment(which.comment())));
    // Rules first, since they hold on to sets and to chains.
    let has_our_rules =
        |(chain, condition): &&(&Chain, Condition)| *condition != Condition::Missing && !chain.is_foreign();
    for (chain, _) in chains.iter().filter(has_our_rules) {
        changes.add(libc::NFT_MSG_DELRULE, 0, &RuleMessage::new(&chain_named(chain)));
    }
    for (chain, _) in chains.iter().filter(|(_, condition)| *condition == Condition::Altered) {
        changes.add(libc::NFT_MSG_DELCHAIN, 0, &chain_named(chain));
    }
    for (set, _) in sets.iter().filter(|(_, condition)| *condition == Condition::Altered) {
        changes.add(libc::NFT_MSG_DELSET, 0, &sys::Set::named(set));
    }
    for (position, (set, _)) in sets.iter().enumerate().filter(|(_, (_, condition))| *condition != Condition::Intact) {
        let field_bytes: Vec<u8> = match set.interval {
            true => set.key.iter().map(|field| field.bytes() as u8).collect(),
            false => vec![],
        };
        let user_data = user_data::byte_orders(set.key, set.data);
        let message = sys::Set::named(set).shaped(&shape(set), position as u32 + 1, &field_bytes, &user_data);
        changes.add(libc::NFT_MSG_NEWSET, NLM_F_CREATE, &message);
    }
    for (chain, _) in chains.iter().filter(|(_, condition)| *condition != Condition::Intact) {
        let mut message = chain_named(chain);
        if let Some(base) = &chain.base {
            message.set_type(base.kind);
            message.set_hook(base.hook, base.priority);
            message.set_policy(Policy::Accept);
        }
        changes.add(libc::NFT_MSG_NEWCHAIN, NLM_F_CREATE, &message);
    }
    for chain in which.chains() {
        let chain_message = chain_named(chain);
        for rule in chain.rules {
            let mut message = RuleMessage::new(&chain_message);
            for instruction in compile(rule) {
                message.add_expr(&instruction);
            }
            // A comment too long is left out, which the next survey would call an altered rule.
            let _ = message.set_comment(rule.comment);
            changes.add(libc::NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &message);
        }
    }
}

/// Compares a chain's rules with what they should be. The comment is what a rule goes by.
fn compare_rules(chain: &Chain, seen: &[ListedRule], damage: &mut Vec<String>) {
    let name = chain.name.to_string_lossy();
    let comments: Vec<_> = seen.iter().map(|rule| user_data::read_comment(&rule.user_data)).collect();
    let mut places = Vec::new();
    for rule in chain.rules {
        let comment = rule.comment.to_string_lossy();
        let condition = match comments.iter().position(|seen| *seen == Some(&*comment)) {
            None => Condition::Missing,
            Some(place) => {
                places.push(place);
                let same =
                    seen[place].instructions == compile(rule) && seen[place].user_data == user_data::comment(&comment);
                if same { Condition::Intact } else { Condition::Altered }
            }
        };
        note(damage, &format!("rule \"{comment}\" of chain {name}"), condition);
    }
    if !places.is_sorted() {
        damage.push(format!("chain {name}: rules in another order"));
    }
    for (place, comment) in comments.iter().enumerate().filter(|(place, _)| !places.contains(place)) {
        let which = comment.map_or_else(|| format!("number {}", place + 1), |comment| format!("\"{comment}\""));
        damage.push(format!("rule {which} of chain {name}: not ours"));
    }
}

fn note(damage: &mut Vec<String>, what: &str, condition: Condition) {
    match condition {
        Condition::Intact => {}
        Condition::Missing => damage.push(format!("{what}: missing")),
        Condition::Altered => damage.push(format!("{what}: altered")),
    }
}

/// What the kernel should list for `chain`.
fn listed_base(chain: &Chain) -> Option<ListedBase> {
    let base = chain.base.as_ref()?;
    let kind: &[u8] = match base.kind {
        ChainType::Filter => b"filter",
        ChainType::Route => b"route",
        ChainType::Nat => b"nat",
    };
    Some(ListedBase {
        kind: kind.to_vec(),
        hook: base.hook as u32,
        priority: base.priority,
        policy: Policy::Accept as u32,
    })
}

/// What the kernel should list for `set`.
pub(super) fn shape(set: &Set) -> SetShape {
    let (mut flags, mut data_type, mut data_bytes) = (0, 0, 0);
    if set.interval {
        flags |= libc::NFT_SET_INTERVAL as u32 | NFT_SET_CONCAT;
    }
    if !set.data.is_empty() {
        flags |= libc::NFT_SET_MAP as u32;
        (data_type, data_bytes) = (data_type_of(set.data), padded_bytes(set.data) as u32);
    }
    SetShape {
        flags,
        key_type: data_type_of(set.key),
        key_bytes: padded_bytes(set.key) as u32,
        data_type,
        data_bytes,
        size: 0,
        counted: set.counted,
    }
}

/// nft's number for a type (`enum datatypes`, six bits a field); the kernel only keeps it.
fn data_type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| {
        number << 6
            | match field {
                Field::Ipv4 => 7,
                Field::Ipv6 => 8,
                Field::Protocol => 12,
                Field::Port => 13,
                Field::Number => 19,
                Field::Interface => 41,
                Field::Mac => 9,
                Field::Target6 => 4,
            }
    })
}

// linux/netfilter/nf_tables.h, as far as the libc crate lacks it.
const DORMANT: u32 = 1;
const NFT_SET_CONCAT: u32 = 0x80;
