//! nf_tables: published ports, masquerade and isolation, in one table of our own, `inet netcore`.
//!
//! The table is made once (`ruleset`); from then on a network or an attachment is a few elements
//! in its sets and maps (`element`), added and removed in one transaction, in time that does not
//! grow with their number. The kernel itself refuses a port that is taken. What the kernel has is
//! read back (`survey`) and compared instruction by instruction (`bytecode`); whoever reads before
//! a change has the kernel check, by the generation of the rule set, that nothing has happened in
//! between (`socket`). libnftnl's raw interface stays in `sys`.

mod bytecode;
mod create;
mod element;
mod foreign;
mod guard;
mod iptables;
mod isolation;
mod remove;
mod ruleset;
mod socket;
mod survey;
mod sys;
#[cfg(test)]
mod tests;
mod user_data;

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;

use nftnl_sys::libc;

use crate::error::{Error, Result};
use crate::model::{Name, NatRule, Table};
use element::Element;
pub use iptables::IptablesChains;
use ruleset::Set;
use socket::{Answer, Messages, Socket, present};
use survey::Survey;
use sys::ElementMessage;
pub(super) use user_data::read_comment;

/// From how many elements on whole sets are read: an attachment has a handful, a repair of a
/// host thousands, and a listing brings some hundred elements for the price of one question.
const MANY: usize = 256;

const TABLE_NAME: &str = "firewall table netcore";

/// The firewall tables of the network namespace it was opened in. All calls block, for
/// microseconds.
pub struct Nft {
    socket: Socket,
    /// The generation that opening it has asked for, until it is wanted.
    generation: Cell<Option<u32>>,
}

impl Nft {
    /// Opens the conversation with nf_tables.
    ///
    /// # Errors
    /// [`Error::Kernel`] without `CAP_NET_ADMIN`, or when the kernel has no nf_tables.
    pub fn open() -> Result<Self> {
        let explained = |source: io::Error| {
            let detail = match source.raw_os_error() {
                Some(libc::EPERM) => Some("changing the firewall needs root (CAP_NET_ADMIN)"),
                Some(libc::EPROTONOSUPPORT | libc::EINVAL) => Some("the kernel has no nf_tables (CONFIG_NF_TABLES)"),
                _ => None,
            };
            let object = "nf_tables".to_owned();
            Error::Kernel { operation: "open", object, source, detail: detail.map(str::to_owned) }
        };
        let nft = Self { socket: Socket::open().map_err(explained)?, generation: Cell::default() };
        match nft.generation() {
            Err(Error::Kernel { source, .. }) => return Err(explained(source)),
            answer => nft.generation.set(Some(answer?)),
        }
        Ok(nft)
    }

    /// Whether `error` is what [`open`](Self::open) says on a kernel without nf_tables.
    #[must_use]
    pub fn is_not_in_kernel(error: &Error) -> bool {
        match error {
            Error::Kernel { operation: "open", source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL))
            }
            _ => false,
        }
    }

    /// What tells the namespace this was opened in from every other since the host was started;
    /// nothing on a kernel before 5.14.
    #[must_use]
    pub fn namespace_cookie(&self) -> Option<u64> {
        self.socket.namespace_cookie()
    }

    /// The netlink port it is done by, which notifications name.
    pub(super) fn port(&self) -> Result<u32> {
        self.socket.port()
    }

    /// Which of `wanted` are there, and what they look like: the elements one by one, the rule
    /// set, if it is asked for, whole.
    ///
    /// A published port is there only if its claim on the port is there as well.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer, [`Error::Invalid`] when a port is
    /// published on an address of the other family.
    pub fn observe(&self, wanted: &[&NatRule]) -> Result<Vec<NatRule>> {
        let mut asked = Vec::new();
        for rule in wanted {
            asked.extend(Element::of(rule)?.map(|element| (*rule, element, element::claim(rule))));
        }
        let (elements, claims): (Vec<_>, Vec<_>) =
            asked.iter().map(|(_, element, claim)| (element, claim.as_ref())).unzip();
        let elements: Vec<_> = elements.into_iter().chain(claims.into_iter().flatten()).collect();
        let mut seen = self.look_up(&elements)?;
        let mut seen_claims = seen.split_off(asked.len()).into_iter();

        let mut found = Vec::new();
        for table in tables(wanted) {
            if let Some(survey) = Survey::take(&self.socket, table)? {
                found.push(NatRule::Ruleset { table, damage: survey.damage() });
            }
        }
        for ((rule, _, claim), seen) in asked.iter().zip(seen) {
            let claimed = match claim {
                Some(claim) => seen_claims.next().flatten().is_some_and(|seen| seen.raw.data == claim.raw.data),
                None => true,
            };
            if claimed && let Some(seen) = seen {
                found.extend(as_seen(rule, &seen));
            }
        }
        Ok(found)
    }

    /// Every element that carries a mark of `network`. Reads whole sets.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer, [`Error::Busy`] when the sets keep
    /// changing.
    pub fn marked(&self, network: &Name) -> Result<Vec<NatRule>> {
        let mut found = Vec::new();
        for set in [Table::Inet, Table::Bridge].into_iter().flat_map(Table::sets) {
            let rules = self.list(set)?.into_iter().filter_map(|element| element.rule());
            found.extend(rules.filter(|rule| rule.mark().is_some_and(|mark| mark.is_of(network))));
        }
        Ok(found)
    }

    /// The elements of those keys, as they are: asked for one by one if they are few, found in a
    /// listing of their sets if they are many.
    fn look_up(&self, elements: &[&Element]) -> Result<Vec<Option<Element>>> {
        if elements.len() < MANY {
            return self.ask_for(elements);
        }
        let mut listed: HashMap<&CStr, HashMap<Vec<u8>, Element>> = HashMap::new();
        for element in elements {
            if let Entry::Vacant(unknown) = listed.entry(element.set.name) {
                let present = self.list(element.set)?.into_iter();
                unknown.insert(present.map(|element| (element.raw.key.clone(), element)).collect());
            }
        }
        let find = |wanted: &&Element| {
            let seen = listed.get(wanted.set.name)?.get(&wanted.raw.key)?;
            seen.has_key_of(wanted).then(|| seen.clone())
        };
        Ok(elements.iter().map(find).collect())
    }

    fn ask_for(&self, elements: &[&Element]) -> Result<Vec<Option<Element>>> {
        let mut questions = Messages::new();
        for element in elements {
            questions.add(libc::NFT_MSG_GETSETELEM, 0, &ElementMessage::new(element.set, &element.raw.only_key()));
        }
        let answers = self.socket.ask(questions)?;
        let read = |(wanted, answer): (&&Element, Answer)| {
            let message = match answer {
                // A set that was replaced by one of another shape has none of our keys.
                Err(refused) if refused.is(libc::EINVAL) => None,
                answer => present(answer)?,
            };
            let Some(message) = message else { return Ok(None) };
            let seen = sys::elements(&message).ok_or_else(garbled)?;
            let mut seen =
                seen.into_iter().map(|seen| Element { set: wanted.set, raw: seen.raw, packets: seen.packets });
            // The kernel finds a range by any key within it.
            Ok(seen.find(|seen| seen.has_key_of(wanted)))
        };
        elements.iter().zip(answers).map(read).collect()
    }

    /// All elements of `set`.
    fn list(&self, set: &'static Set) -> Result<Vec<Element>> {
        let mut elements = Vec::new();
        for message in self.socket.list(libc::NFT_MSG_GETSETELEM, &ElementMessage::all(set))? {
            let listed = sys::elements(&message).ok_or_else(garbled)?;
            elements.extend(listed.into_iter().map(|seen| Element { set, raw: seen.raw, packets: seen.packets }));
        }
        Ok(elements)
    }

    /// The generation of the rule set, which every transaction of anybody's advances.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the kernel does not answer.
    pub fn generation(&self) -> Result<u32> {
        if let Some(generation) = self.generation.take() {
            return Ok(generation);
        }
        let mut question = Messages::new();
        question.add(libc::NFT_MSG_GETGEN, 0, &sys::Bare);
        let answer = self.socket.ask(question)?.into_iter().next().map(present).transpose()?.flatten();
        answer.and_then(|message| sys::generation(&message)).ok_or_else(garbled)
    }
}

/// Whether the table of that family (`enum nf_tables_families`), and name as netlink has it, is one of
/// ours.
pub(super) fn is_our_table(family: u16, name: &[u8]) -> bool {
    name == ruleset::TABLE.to_bytes_with_nul()
        && [Table::Inet, Table::Bridge].into_iter().any(|table| table.family() as u16 == family)
}

/// Whether the set of that name, as netlink has it, holds the claims on host ports.
pub(super) fn is_set_of_claims(name: &[u8]) -> bool {
    [&ruleset::HOST_PORTS4, &ruleset::HOST_PORTS6].into_iter().any(|set| name == set.name.to_bytes_with_nul())
}

/// The tables whose rule sets are among `rules`.
fn tables(rules: &[&NatRule]) -> BTreeSet<Table> {
    let of_rule = |rule: &&NatRule| match rule {
        NatRule::Ruleset { table, .. } => Some(*table),
        _ => None,
    };
    rules.iter().filter_map(of_rule).collect()
}

/// `wanted` with what `seen` has of its own: where a port leads, and whose it is.
fn as_seen(wanted: &NatRule, seen: &Element) -> Option<NatRule> {
    match (wanted, seen.rule()) {
        (NatRule::Member { bridge, .. }, Some(NatRule::Member { mark, .. })) => {
            Some(NatRule::Member { bridge: bridge.clone(), mark })
        }
        (NatRule::Hairpin { subnet, .. }, Some(NatRule::Hairpin { mark, .. })) => {
            Some(NatRule::Hairpin { subnet: *subnet, mark })
        }
        // What networks share does its work whoever added it.
        (NatRule::Cluster { range, .. }, Some(NatRule::Cluster { mark, .. })) => {
            Some(NatRule::Cluster { range: *range, mark })
        }
        (wanted, None) if wanted.is_shared() => Some(wanted.clone()),
        (_, seen) => seen,
    }
}

fn garbled() -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, "an answer that libnftnl cannot read");
    Error::Kernel { operation: "read", object: TABLE_NAME.to_owned(), source, detail: None }
}
