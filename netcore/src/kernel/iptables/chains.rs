//! Our chains: their names, the rules that are always in them, in which order the others stand,
//! and what leads to them.
//!
//! ```text
//! nat      PREROUTING, OUTPUT  to this host  → NETCORE-DNAT     published ports
//!          POSTROUTING                       → NETCORE-MASQ     what gets the host's address
//!                                              NETCORE-HAIRPIN  of that, what was published
//! filter   FORWARD, or DOCKER-USER           → NETCORE-FORWARD  what passes the host
//!                                              NETCORE-USER       first the administrator's own rules
//!                                              NETCORE-ISOLATION  then who is kept from whom
//!                                              NETCORE-NETWORKS     of that, what comes from networks
//! raw      PREROUTING                          127/8 does not come by a wire (IPv4)
//! ```
//!
//! Where iptables is not the backend there are only `NETCORE-FORWARD` and `NETCORE-USER`, and those
//! only where a `FORWARD` drops what nobody lets pass.

use std::collections::HashSet;

use super::rule::Rule;
use crate::model::Mark;

pub(super) const DNAT: &str = "NETCORE-DNAT";
pub(super) const MASQ: &str = "NETCORE-MASQ";
pub(super) const HAIRPIN: &str = "NETCORE-HAIRPIN";
pub(super) const FORWARD: &str = "NETCORE-FORWARD";
pub(super) const ISOLATION: &str = "NETCORE-ISOLATION";
pub(super) const NETWORKS: &str = "NETCORE-NETWORKS";
/// The administrator's: made once, never written to.
pub(super) const USER: &str = "NETCORE-USER";

/// The tables we have rules in.
pub(super) const TABLES: [&str; 3] = ["nat", "filter", "raw"];

/// The chains of the backend.
pub(super) const CHAINS: [(&str, &str); 7] = [
    ("nat", DNAT),
    ("nat", HAIRPIN),
    ("nat", MASQ),
    ("filter", USER),
    ("filter", NETWORKS),
    ("filter", ISOLATION),
    ("filter", FORWARD),
];

/// A rule of ours with `what` it does, marked as what nobody owns alone.
pub(super) fn of_host(what: &str) -> Rule {
    marked(what, &Mark::of_host())
}

/// A rule of ours with `what` it does: conditions, and `-j` or `-g` with a target.
pub(super) fn marked(what: &str, mark: &Mark) -> Rule {
    let verdict = what.rfind("-j ").or_else(|| what.rfind("-g ")).unwrap_or(what.len());
    let (conditions, verdict) = what.split_at(verdict);
    // A mark is of letters, digits and a little punctuation, none of which needs a backslash.
    Rule::new(format!("{conditions}-m comment --comment \"{mark}\" {verdict}"))
}

/// What leads to our chains from those that packets come to by themselves, and what stands there
/// itself; the jump to `NETCORE-FORWARD` apart.
pub(super) fn in_base_chains(v6: bool) -> Vec<(&'static str, &'static str, Rule)> {
    let to_this_host = "-m addrtype --dst-type LOCAL -j NETCORE-DNAT";
    // ::1 never leaves the loopback interface: refused at once, a client goes on to 127.0.0.1.
    let from_this_host = if v6 { "! -d ::1 -m addrtype --dst-type LOCAL -j NETCORE-DNAT" } else { to_this_host };
    let mut rules = vec![
        ("nat", "PREROUTING", of_host(to_this_host)),
        ("nat", "OUTPUT", of_host(from_this_host)),
        ("nat", "POSTROUTING", of_host("-j NETCORE-MASQ")),
    ];
    if !v6 {
        // Publishing on 127.0.0.1 needs route_localnet, which would let others in at 127/8.
        rules.push(("raw", "PREROUTING", of_host("-d 127.0.0.0/8 ! -i lo -j DROP")));
        rules.push(("raw", "PREROUTING", of_host("-s 127.0.0.0/8 ! -i lo -j DROP")));
    }
    rules
}

/// The jump to `NETCORE-FORWARD`.
pub(super) fn forward_jump() -> Rule {
    of_host("-j NETCORE-FORWARD")
}

/// The rules that are always in `chain`, each with its place among the others. `isolates` says
/// whether there is a `NETCORE-ISOLATION`.
fn fixed(chain: &str, v6: bool, isolates: bool) -> Vec<(u8, Rule)> {
    match chain {
        MASQ => vec![
            (0, of_host("-m conntrack --ctstate DNAT -j NETCORE-HAIRPIN")),
            (0, of_host(if v6 { "-d ff00::/8 -j RETURN" } else { "-d 224.0.0.0/4 -j RETURN" })),
        ],
        FORWARD if isolates => vec![(0, of_host("-j NETCORE-USER")), (0, of_host("-j NETCORE-ISOLATION"))],
        FORWARD => vec![(0, of_host("-j NETCORE-USER"))],
        ISOLATION => vec![
            (0, of_host("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")),
            (3, of_host("-m conntrack --ctstate DNAT -j RETURN")),
        ],
        _ => Vec::new(),
    }
}

/// The place of a rule that is not fixed: exceptions come before what they are exceptions from.
fn place(chain: &str, rule: &Rule) -> u8 {
    let has = |option: &str| rule.option(option).is_some();
    match (chain, rule.target()) {
        (MASQ, Some("RETURN")) => 1,
        (MASQ | FORWARD, _) => 2,
        // Within a network; the barriers of an internal one, which also keep published ports in;
        // what comes from networks; within a cluster; from outside.
        (ISOLATION, Some("RETURN")) if has("-i") => 1,
        (ISOLATION, Some("RETURN")) => 5,
        (ISOLATION, Some(NETWORKS)) => 4,
        (ISOLATION, Some("DROP")) if has("-i") || !(has("--ctstate") || rule.negates("-i")) => 2,
        (ISOLATION, _) => 6,
        _ => 0,
    }
}

/// `rules` as they stand in `chain` when all is well: each in its place, none twice, and none of the
/// fixed ones missing.
pub(super) fn arranged(chain: &str, v6: bool, isolates: bool, rules: &[Rule]) -> Vec<Rule> {
    let mut all = fixed(chain, v6, isolates);
    let mut seen: HashSet<String> = all.iter().map(|(_, rule)| rule.form().to_owned()).collect();
    let others = rules.iter().filter(|rule| seen.insert(rule.form().to_owned()));
    all.extend(others.map(|rule| (place(chain, rule), rule.clone())));
    // Stable: what has the same place stays in its order.
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, rule)| rule).collect()
}
