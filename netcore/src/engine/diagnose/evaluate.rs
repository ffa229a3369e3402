//! What firewall rules make of a packet: every base chain of a hook in its order, as nf_tables and
//! iptables run them. What is not understood may hold or not; what comes of it is said as a doubt,
//! never as a verdict.

use std::net::{IpAddr, SocketAddr};

use super::packet::Packet;
use crate::model::rules::{Backend, Chain, Family, Hook, Rules, Verdict};

/// What a packet's surroundings are to rules.
pub(super) struct Surroundings<'a> {
    pub(super) rules: &'a Rules,
    /// Whether an address is the namespace's own.
    pub(super) is_local: &'a dyn Fn(IpAddr) -> bool,
    /// The address a packet gets that is masqueraded.
    pub(super) masquerade: Option<IpAddr>,
    /// Whether the interface it came by leads back to where it came from, if that is known.
    pub(super) leads_back: Option<bool>,
}

/// A rule, or the policy of a chain, that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    pub(super) backend: Backend,
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) hook: Hook,
    /// The rule's handle, or place; none for the policy.
    pub(super) handle: Option<u64>,
    pub(super) rejects: bool,
}

/// What came of a hook.
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// What stops the packet.
    pub(super) stopped: Option<Blame>,
    /// What may stop it, and why that is not known.
    pub(super) doubts: Vec<(Blame, String)>,
    /// What translated its destination or source.
    pub(super) translated: Option<Blame>,
    /// How many chains looked at it.
    pub(super) chains: usize,
}

/// How deep jumps go (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// Takes `packet` through those chains of a hook whose priority is in `priorities`, and translates it
/// as they do.
pub(super) fn pass(
    packet: &mut Packet,
    hook: Hook,
    is_frame: bool,
    priorities: std::ops::RangeInclusive<i32>,
    around: &Surroundings<'_>,
) -> Passage {
    let sees = |family: Family| match family {
        Family::Inet => !is_frame,
        Family::Ip => !is_frame && !packet.is_v6(),
        Family::Ip6 => !is_frame && packet.is_v6(),
        Family::Bridge => is_frame,
        Family::Netdev => hook == Hook::Ingress,
    };
    let mut chains: Vec<_> = around
        .rules
        .chains
        .iter()
        .filter_map(|chain| chain.base.as_ref().map(|base| (base, chain)))
        .filter(|(base, chain)| base.hook == hook && sees(chain.family) && priorities.contains(&base.priority))
        .filter(|(base, _)| {
            let name = packet.came_by.as_ref().map(|wire| &wire.name);
            hook != Hook::Ingress || name.is_some_and(|name| base.devices.contains(name))
        })
        .collect();
    // Of two with the same priority, the one that was registered last comes first
    // (`nf_hook_entries_grow`, net/netfilter/core.c); tables are listed in the order they were made.
    chains.reverse();
    chains.sort_by_key(|(base, _)| base.priority);
    let mut passage = Passage::default();
    for (base, chain) in chains {
        // Connections are translated once, with their first packet.
        if base.translates && (packet.is_answer || passage.translated.is_some()) {
            continue;
        }
        passage.chains += 1;
        let mut run = Run { packet, around, hook, doubts: &mut passage.doubts, may_have_left: None };
        let end = run.chain(chain, 0, true).unwrap_or(End::Fallen);
        let may_have_left = run.may_have_left.take();
        let blamed = |handle, rejects| blame(chain, hook, handle, rejects);
        let stopped = match end {
            End::Accepted => None,
            End::Stopped(blame) => Some(blame),
            End::Fallen => base.drops.then(|| blamed(None, false)),
            End::Translated(source, destination, by) => {
                packet.snat |= source.is_some();
                packet.dnat |= destination.is_some();
                packet.source = source.unwrap_or(packet.source);
                packet.destination = destination.unwrap_or(packet.destination);
                passage.translated = Some(by);
                None
            }
        };
        match (stopped, may_have_left) {
            (Some(blame), None) => {
                passage.stopped = Some(blame);
                return passage;
            }
            (Some(blame), Some(reason)) => passage.doubts.push((blame, reason)),
            (None, _) => {}
        }
    }
    passage
}

fn blame(chain: &Chain, hook: Hook, handle: Option<u64>, rejects: bool) -> Blame {
    Blame {
        backend: chain.backend,
        family: chain.family,
        table: chain.table.clone(),
        chain: chain.name.clone(),
        hook,
        handle,
        rejects,
    }
}

/// How a chain ends a packet's way through its base chain.
enum End {
    Accepted,
    Stopped(Blame),
    Translated(Option<SocketAddr>, Option<SocketAddr>, Blame),
    /// At the end of the base chain, where its policy decides.
    Fallen,
}

/// What a rule wants.
pub(super) enum Wish {
    Nothing,
    Verdict(Verdict),
    Translate(Option<SocketAddr>, Option<SocketAddr>),
}

/// A packet's way through one base chain.
pub(super) struct Run<'a, 'b> {
    pub(super) packet: &'b Packet,
    pub(super) around: &'a Surroundings<'a>,
    hook: Hook,
    doubts: &'b mut Vec<(Blame, String)>,
    /// Why the packet may have been accepted already, if it may.
    may_have_left: Option<String>,
}

impl<'a> Run<'a, '_> {
    /// Nothing: back to where the jump came from. What is not `certain` only leaves doubts.
    fn chain(&mut self, chain: &Chain, depth: usize, certain: bool) -> Option<End> {
        if depth >= DEPTH {
            return None;
        }
        for rule in &chain.rules {
            let Some((wish, doubt)) = self.rule(chain, rule) else { continue };
            let sure = certain && doubt.is_none();
            let reason = || match &doubt {
                Some(expression) => format!("`{expression}` cannot be evaluated"),
                None => "what leads to it cannot be evaluated".to_owned(),
            };
            let blamed = |rejects| blame(chain, self.hook, Some(rule.handle), rejects);
            let end = match wish {
                Wish::Nothing | Wish::Verdict(Verdict::Continue) => continue,
                Wish::Verdict(Verdict::Jump(name)) | Wish::Verdict(Verdict::Goto(name)) if !sure => {
                    if let Some(target) = self.find(chain, &name)
                        && let Some(End::Accepted) = self.chain(target, depth + 1, false)
                    {
                        self.may_have_left = Some(reason());
                    }
                    continue;
                }
                Wish::Verdict(Verdict::Jump(name)) => match self.find(chain, &name) {
                    Some(target) => match self.chain(target, depth + 1, true) {
                        Some(end) => end,
                        None => continue,
                    },
                    None => continue,
                },
                // It does not come back here; neither does it to where a jump came from.
                Wish::Verdict(Verdict::Goto(name)) => {
                    return match self.find(chain, &name) {
                        Some(target) => self.chain(target, depth + 1, true),
                        None => None,
                    };
                }
                Wish::Verdict(Verdict::Return) if doubt.is_none() => return None,
                Wish::Verdict(Verdict::Accept | Verdict::Return) => End::Accepted,
                Wish::Verdict(Verdict::Drop) => End::Stopped(blamed(false)),
                Wish::Verdict(Verdict::Reject) => End::Stopped(blamed(true)),
                Wish::Verdict(Verdict::Queue) => {
                    self.doubts.push((blamed(false), "a program decides (queue)".to_owned()));
                    End::Accepted
                }
                Wish::Translate(source, destination) => End::Translated(source, destination, blamed(false)),
            };
            if sure {
                return Some(end);
            }
            match end {
                End::Accepted | End::Fallen => self.may_have_left = Some(reason()),
                End::Stopped(blame) | End::Translated(_, _, blame) => {
                    let reason = reason();
                    self.doubts.push((blame, reason));
                }
            }
            // Without a doubt of this rule's own, whoever comes here comes no further.
            doubt.as_ref()?;
        }
        None
    }

    fn find(&self, from: &Chain, name: &str) -> Option<&'a Chain> {
        let is_meant = |chain: &&Chain| {
            chain.backend == from.backend
                && chain.family == from.family
                && chain.table == from.table
                && chain.name == name
        };
        self.around.rules.chains.iter().find(is_meant)
    }
}
