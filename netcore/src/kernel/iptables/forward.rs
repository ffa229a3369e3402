//! iptables' `FORWARD`: whether it drops what nobody lets pass, and what lets ours pass.

use std::collections::HashSet;

use super::chains::{self, FORWARD};
use super::draft::{Chain, Draft};
use super::listing::Listing;
use super::rule::Rule;
use crate::model::Admission;

/// The chain that Docker leaves to others, and that it leads to before its own.
const DOCKER_USER: &str = "DOCKER-USER";

/// Where a jump to `NETCORE-FORWARD` may stand.
pub(super) const ENTRANCES: [&str; 2] = ["FORWARD", DOCKER_USER];

/// Where our rules for what passes the host are.
pub(super) const HERE: Chain = ("filter", FORWARD);

/// What becomes of a packet in `FORWARD` that no condition matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// It comes to `NETCORE-FORWARD`.
    pub(super) is_ours: bool,
    /// It does not get through.
    pub(super) is_refused: bool,
}

/// Follows such a packet.
pub(super) fn look(listing: &Listing) -> Course {
    let mut course = Course::default();
    let decided = follow(listing, "FORWARD", &mut HashSet::new(), &mut course);
    course.is_refused |= !decided && listing.policy("filter", "FORWARD") == Some("DROP");
    course
}

/// Follows it through `chain`; says whether its fate was decided there.
fn follow(listing: &Listing, chain: &str, seen: &mut HashSet<String>, course: &mut Course) -> bool {
    if !seen.insert(chain.to_owned()) {
        return false;
    }
    for rule in listing.rules("filter", chain).iter().filter(|rule| rule.is_unconditional()) {
        match rule.target() {
            Some(FORWARD) => course.is_ours = true,
            Some("DROP" | "REJECT") => {
                course.is_refused = true;
                return true;
            }
            Some("ACCEPT") => return true,
            Some("RETURN") => return false,
            Some(other) if follow(listing, other, seen, course) => return true,
            _ => {}
        }
    }
    false
}

/// The chain our jump belongs into: Docker's for others where `FORWARD` is Docker's.
pub(super) fn entrance(listing: &Listing) -> &'static str {
    let leads_there = |rule: &Rule| rule.is_unconditional() && rule.target() == Some(DOCKER_USER);
    if listing.rules("filter", "FORWARD").iter().any(leads_there) { DOCKER_USER } else { "FORWARD" }
}

/// What lets a link's traffic pass: all that comes from it, and to it what belongs to a connection
/// or was published. What else comes to it stays as closed as it was.
fn rules(admission: &Admission) -> Vec<Rule> {
    let Admission { link, mark, .. } = admission;
    if let Some(range) = admission.from {
        return vec![chains::marked(&format!("-s {range} -o {link} -j ACCEPT"), mark)];
    }
    vec![
        chains::marked(&format!("-i {link} -j ACCEPT"), mark),
        chains::marked(&format!("-o {link} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"), mark),
    ]
}

/// The admission that a rule in `NETCORE-FORWARD` is part of.
pub(super) fn read(rule: &Rule, v6: bool) -> Option<Admission> {
    let mark = rule.mark()?;
    let from = rule.option("-s").map(str::parse).transpose().ok()?;
    let link = rule.option(if from.is_some() { "-o" } else { "-i" })?.parse().ok()?;
    (rule.target() == Some("ACCEPT")).then_some(Admission { link, v6, from, mark })
}

/// Whether `admission` is needed, and not given.
pub(super) fn is_kept_out(listing: &Listing, admission: &Admission) -> bool {
    let course = look(listing);
    let given = || {
        let have = listing.rules(HERE.0, HERE.1);
        course.is_ours && rules(admission).iter().all(|rule| have.iter().any(|other| other.does_as(rule)))
    };
    course.is_refused && !given()
}

/// Gives `admission`.
pub(super) fn admit(draft: &mut Draft<'_>, admission: &Admission) {
    draft.open_forward();
    for rule in rules(admission) {
        draft.add(HERE, rule);
    }
}

/// Takes `admission` back, whichever of the networks on the link was the first to ask for it, and
/// with the last one what was made for it.
pub(super) fn withdraw(listing: &Listing, draft: &mut Draft<'_>, admission: &Admission) {
    for rule in rules(admission) {
        draft.take_any(HERE, &rule);
    }
    let is_left = draft.rules(HERE).iter().any(|rule| rule.target() == Some("ACCEPT"));
    if !is_left && listing.has(HERE.0, HERE.1) && !listing.has("filter", chains::ISOLATION) {
        draft.close_forward();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(filter: &str) -> Course {
        look(&Listing::parse(&format!("*filter\n{filter}COMMIT\n")))
    }

    #[test]
    fn a_packet_is_followed_until_its_fate_is_decided() {
        let (open, closed) = (Course::default(), Course { is_ours: false, is_refused: true });
        for (filter, expected) in [
            (":FORWARD ACCEPT [0:0]\n", open),
            (":FORWARD DROP [0:0]\n", closed),
            (":FORWARD DROP [0:0]\n-A FORWARD -j ACCEPT\n", open),
            (":FORWARD DROP [0:0]\n-A FORWARD -i eth0 -j ACCEPT\n", closed),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n", closed),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -i eth0 -j REJECT\n", open),
            (":FORWARD ACCEPT [0:0]\n:HARD - [0:0]\n-A FORWARD -j HARD\n-A HARD -j DROP\n", closed),
            (":FORWARD ACCEPT [0:0]\n:HARD - [0:0]\n-A FORWARD -j HARD\n-A HARD -j RETURN\n-A HARD -j DROP\n", open),
            (":FORWARD ACCEPT [0:0]\n:A - [0:0]\n-A FORWARD -j A\n-A A -j A\n", open),
        ] {
            assert_eq!(course(filter), expected, "{filter}");
        }
        let ours = "-m comment --comment \"netcore:*\" -j NETCORE-FORWARD";
        let before = format!(":FORWARD DROP [0:0]\n-A FORWARD {ours}\n-A FORWARD -j DROP\n");
        assert_eq!(course(&before), Course { is_ours: true, is_refused: true });
        let behind = format!(":FORWARD DROP [0:0]\n-A FORWARD -j DROP\n-A FORWARD {ours}\n");
        assert_eq!(course(&behind), closed);
    }

    #[test]
    fn where_docker_owns_forward_we_come_by_its_chain_for_others() {
        let docker = ":FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n";
        assert_eq!(entrance(&Listing::parse(&format!("*filter\n{docker}"))), "DOCKER-USER");
        assert_eq!(entrance(&Listing::parse("*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n")), "FORWARD");
    }
}
