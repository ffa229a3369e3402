//! A change in the making: what our chains have, what they should have, and the one script that
//! leads from one to the other.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::chains::{self, CHAINS, FORWARD, ISOLATION, USER};
use super::forward;
use super::listing::Listing;
use super::rule::Rule;

/// A chain of ours: its table and its name.
pub(super) type Chain = (&'static str, &'static str);

/// What is to be made of a [`Listing`].
pub(super) struct Draft<'a> {
    listing: &'a Listing,
    v6: bool,
    /// As they are to be.
    chains: BTreeMap<Chain, Vec<Rule>>,
    gone: Vec<Chain>,
    opens_forward: bool,
    /// Lines for chains that are not ours, by table.
    elsewhere: BTreeMap<&'static str, Vec<String>>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(listing: &'a Listing, v6: bool) -> Self {
        Self {
            listing,
            v6,
            chains: BTreeMap::new(),
            gone: Vec::new(),
            opens_forward: false,
            elsewhere: BTreeMap::new(),
        }
    }

    fn chain(&mut self, chain: Chain) -> &mut Vec<Rule> {
        self.chains.entry(chain).or_insert_with(|| self.listing.rules(chain.0, chain.1).to_vec())
    }

    /// The rules of a chain as they are to be.
    pub(super) fn rules(&self, chain: Chain) -> &[Rule] {
        self.chains.get(&chain).map_or_else(|| self.listing.rules(chain.0, chain.1), Vec::as_slice)
    }

    /// Whether there is to be that chain.
    pub(super) fn has(&self, chain: Chain) -> bool {
        self.chains.contains_key(&chain) || self.listing.has(chain.0, chain.1)
    }

    /// Adds `rule`, unless it is there.
    pub(super) fn add(&mut self, chain: Chain, rule: Rule) {
        let rules = self.chain(chain);
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }

    /// Takes away what does as `rule` and carries a mark of ours, whosever that is.
    pub(super) fn take_any(&mut self, chain: Chain, rule: &Rule) {
        if self.listing.has(chain.0, chain.1) {
            self.chain(chain).retain(|other| !other.does_as(rule) || other.mark().is_none());
        }
    }

    /// Takes `rule` away, if it is there.
    pub(super) fn take(&mut self, chain: Chain, rule: &Rule) {
        if self.listing.has(chain.0, chain.1) {
            self.chain(chain).retain(|other| other != rule);
        }
    }

    /// Has all chains of the backend, their fixed rules, and what leads to them.
    pub(super) fn build(&mut self) {
        for chain in CHAINS.into_iter().filter(|(_, name)| *name != USER) {
            self.chain(chain);
        }
        for (table, chain, rule) in chains::in_base_chains(self.v6) {
            if !self.listing.rules(table, chain).contains(&rule) {
                self.say(table, format!("-A {chain} {}", rule.text()));
            }
        }
        self.open_forward();
    }

    /// Has `NETCORE-FORWARD`, and what leads to it before anything is refused.
    pub(super) fn open_forward(&mut self) {
        self.chain(("filter", FORWARD));
        if !self.listing.has("filter", USER) {
            self.chain(("filter", USER));
        }
        let is_open = std::mem::replace(&mut self.opens_forward, true) || forward::look(self.listing).is_ours;
        if is_open {
            return;
        }
        let jump = chains::forward_jump();
        for chain in forward::ENTRANCES {
            // One that is there comes too late.
            if self.listing.rules("filter", chain).contains(&jump) {
                self.say("filter", format!("-D {chain} {}", jump.text()));
            }
        }
        self.say("filter", format!("-I {} 1 {}", forward::entrance(self.listing), jump.text()));
    }

    /// Takes `NETCORE-FORWARD` away, and `NETCORE-USER` if there is nothing in it.
    pub(super) fn close_forward(&mut self) {
        let jump = chains::forward_jump();
        for chain in forward::ENTRANCES {
            // A rule is removed once for each time it is there.
            for _ in self.listing.rules("filter", chain).iter().filter(|rule| **rule == jump) {
                self.say("filter", format!("-D {chain} {}", jump.text()));
            }
        }
        self.chains.remove(&("filter", FORWARD));
        self.gone.push(("filter", FORWARD));
        let is_unused = self.listing.rules("filter", USER).is_empty();
        if self.listing.has("filter", USER) && is_unused && !self.listing.leads_to("filter", USER, FORWARD) {
            self.chains.remove(&("filter", USER));
            self.gone.push(("filter", USER));
        }
    }

    fn say(&mut self, table: &'static str, line: String) {
        self.elsewhere.entry(table).or_default().push(line);
    }

    /// What `iptables-restore` is to do; `None` when all is as it is to be.
    pub(super) fn script(&self) -> Option<String> {
        let mut script = String::new();
        for table in chains::TABLES {
            let (mut heads, mut lines) = (String::new(), String::new());
            for (chain, rules) in self.chains.iter().filter(|((of, _), _)| *of == table) {
                self.change(*chain, rules, &mut heads, &mut lines);
            }
            for line in self.elsewhere.get(table).into_iter().flatten() {
                let _ = writeln!(lines, "{line}");
            }
            // The one that leads to the other first.
            for (_, chain) in self.gone.iter().filter(|(of, _)| *of == table) {
                if *chain != USER {
                    let _ = writeln!(lines, "-F {chain}");
                }
                let _ = writeln!(lines, "-X {chain}");
            }
            if !heads.is_empty() || !lines.is_empty() {
                let _ = write!(script, "*{table}\n{heads}{lines}COMMIT\n");
            }
        }
        (!script.is_empty()).then_some(script)
    }

    /// The lines that make `chain` one of `rules`: some less and some more where that is all,
    /// or else the whole chain anew.
    fn change(&self, chain: Chain, rules: &[Rule], heads: &mut String, lines: &mut String) {
        let (table, name) = chain;
        let is_there = self.listing.has(table, name);
        if name == USER {
            if !is_there {
                let _ = writeln!(heads, ":{name} - [0:0]");
            }
            return;
        }
        let have = self.listing.rules(table, name);
        let want = chains::arranged(name, self.v6, self.isolates(), rules);
        match less_and_more(have, &want).filter(|_| is_there) {
            Some((less, more)) => {
                less.iter().for_each(|rule| _ = writeln!(lines, "-D {name} {}", rule.text()));
                more.iter().for_each(|rule| _ = writeln!(lines, "-A {name} {}", rule.text()));
            }
            None => {
                // A chain that is named here is emptied, or made.
                let _ = writeln!(heads, ":{name} - [0:0]");
                want.iter().for_each(|rule| _ = writeln!(lines, "-A {name} {}", rule.text()));
            }
        }
    }

    fn isolates(&self) -> bool {
        self.chains.contains_key(&("filter", ISOLATION)) || self.listing.has("filter", ISOLATION)
    }
}

/// What is to go from `have`, and what is to come behind it, to make it `want`; `None` if that
/// would not do.
fn less_and_more<'a>(have: &'a [Rule], want: &'a [Rule]) -> Option<(Vec<&'a Rule>, &'a [Rule])> {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for rule in want {
        *left.entry(rule.form()).or_default() += 1;
    }
    let mut less = Vec::new();
    let mut kept = Vec::new();
    for rule in have {
        match left.get_mut(rule.form()).filter(|count| **count > 0) {
            Some(count) => {
                *count -= 1;
                kept.push(rule);
            }
            None => less.push(rule),
        }
    }
    let in_order = kept.len() <= want.len() && kept.iter().zip(want).all(|(kept, want)| *kept == want);
    // Of two that are the same, the first is the one that goes.
    let distinct = less.iter().all(|rule| !kept.contains(rule));
    (in_order && distinct).then(|| (less, &want[kept.len()..]))
}
