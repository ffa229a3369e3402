//! Following an overlay in etcd, from one connection to the next: the node has its subnet before
//! anything else, what there is comes before what changes, and whatever ends a connection leads to
//! the next one, a little later every time.

use std::time::Duration;

use netcore::Engine;
use netcore::model::{EtcdSource, Name, Network, OverlayConfig, Peer};
use netcore::peers::{Keys, Registry, Said};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::etcd::{Member, Point, Reason, Watched};
use super::membership::{self, Applicant};

/// How long etcd believes an agent to be at work that says nothing, in seconds.
const LIVENESS: i64 = 60;

/// How long to wait before connecting again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What comes of following.
pub(crate) enum Word {
    /// Everything there is; `forgetful` when etcd knows less than it once did, and what is missing
    /// has not been withdrawn.
    All { said: Vec<(Name, Said)>, forgetful: bool },
    /// What these nodes are by now.
    News(Vec<(Name, Said)>),
    /// A member was heard.
    Contact { endpoint: String },
    /// No member can be heard, or the node cannot be a part of the overlay.
    Away { reason: Reason, pause: Duration },
}

/// Who follows what.
pub(crate) struct Follower<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) network: &'a Network,
    pub(crate) config: &'a OverlayConfig,
    pub(crate) source: &'a EtcdSource,
    pub(crate) applicant: Applicant,
    pub(crate) words: Sender<Word>,
}

/// What was learned before, and when.
struct Known {
    registry: Registry,
    at: Point,
    own: Peer,
}

/// Why a connection ended that could have gone on.
enum End {
    /// There is a gap in what was heard, or the node has lost its place: all has to be read again.
    Stale,
}

impl Follower<'_> {
    /// Follows until nobody listens any more.
    pub(crate) async fn follow(self) {
        let mut known = None;
        let mut attempt = 0;
        // Not all nodes begin with the same member.
        let mut turn = usize::try_from(random(u64::from(u32::MAX))).unwrap_or(0);
        while !self.words.is_closed() {
            let endpoint = &self.source.endpoints[turn % self.source.endpoints.len()];
            match self.connection(endpoint, &mut known, &mut attempt).await {
                Ok(End::Stale) => known = None,
                Err(reason) => {
                    let pause = pause(attempt);
                    // Of several members, the next one may be well.
                    let others = attempt % self.source.endpoints.len() + 1 < self.source.endpoints.len();
                    let pause = if others { FIRST_PAUSE } else { pause };
                    let reason = format!("{endpoint}: {reason}");
                    let _ = self.words.send(Word::Away { reason, pause }).await;
                    sleep(pause).await;
                    attempt += 1;
                    turn = turn.wrapping_add(1);
                }
            }
        }
    }

    async fn connection(&self, endpoint: &str, known: &mut Option<Known>, attempt: &mut usize) -> Result<End, Reason> {
        let mut member = Member::connect(self.source, endpoint).await?;
        let keys = Keys::new(self.source.prefix.as_str());
        let wish = self.applicant.wish(self.engine, &self.network.name, self.config).await?;

        // Who was here before goes on where it was; unless etcd is not where it was then.
        let (_, here) = member.get(&keys.node(&wish.node)).await?;
        let goes_on = |known: &Known| known.at.cluster == here.cluster && known.at.revision <= here.revision;
        let forgetful = known.as_ref().is_some_and(|known| !goes_on(known));
        let resumes = known.as_ref().is_some_and(|known| goes_on(known) && is_same(&known.own, &wish));
        if !resumes {
            *known = None;
        }
        let Known { registry, at, own } = match known {
            Some(known) => known,
            None => {
                let joined = membership::register(&mut member, self.engine, self.network, self.config, wish).await?;
                let said = joined.registry.nodes().map(|node| (node.clone(), joined.registry.said(node))).collect();
                let _ = self.words.send(Word::All { said, forgetful }).await;
                known.insert(Known { registry: joined.registry, at: joined.at, own: joined.own })
            }
        };
        let contact = || Word::Contact { endpoint: endpoint.to_owned() };
        let mut liveness = member.announce(&keys.alive(&own.node), &own.underlay.to_string(), LIVENESS).await?;
        let (from, to) = keys.followed();
        let mut watch = member.watch((&from, &to), at.revision).await?;
        let _ = self.words.send(contact()).await;
        let third = Duration::from_secs(LIVENESS.unsigned_abs() / 3);
        let mut renewal = interval_at(Instant::now() + third, third);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                watched = watch.next() => match watched? {
                    Watched::Compacted => return Ok(End::Stale),
                    Watched::Events(events, point) => {
                        *attempt = 0;
                        let mut concerned = std::collections::BTreeSet::new();
                        for event in events {
                            concerned.extend(registry.hear(event));
                        }
                        *at = point;
                        if concerned.contains(&own.node) && !is_still(registry, own) {
                            return Ok(End::Stale);
                        }
                        let news: Vec<_> = concerned.into_iter().map(|node| { let said = registry.said(&node); (node, said) }).collect();
                        if !news.is_empty() {
                            let _ = self.words.send(Word::News(news)).await;
                        }
                        let _ = self.words.send(contact()).await;
                    }
                },
                _ = renewal.tick() => {
                    if !liveness.renew().await? {
                        // The clock jumped, or the machine slept: nothing follows from it.
                        liveness = member.announce(&keys.alive(&own.node), &own.underlay.to_string(), LIVENESS).await?;
                    }
                    let _ = self.words.send(contact()).await;
                }
                () = self.words.closed() => {
                    // Without its word, the others find out in a minute.
                    let _ = member.fall_silent(&liveness).await;
                    return Ok(End::Stale);
                }
            }
        }
    }
}

/// Whether this node is what it was, but for its subnets.
fn is_same(own: &Peer, wish: &Peer) -> bool {
    Peer { subnets: own.subnets.clone(), generation: own.generation, ..wish.clone() } == *own
}

/// Whether `registry` has this node as it registered.
fn is_still(registry: &Registry, own: &Peer) -> bool {
    match registry.said(&own.node) {
        Said::Peer(peer) => Peer { generation: own.generation, ..peer } == *own,
        _ => false,
    }
}

/// How long to wait before the next attempt: longer every time, and never as long as others wait
/// who lost the connection at the same moment.
fn pause(attempt: usize) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << attempt.min(16));
    let most = doubled.min(LONGEST_PAUSE);
    most / 2 + Duration::from_millis(random(most.as_millis().try_into().unwrap_or(u64::MAX) / 2 + 1))
}

/// A number below `bound`.
fn random(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without randomness, all wait for the same time.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes) % bound.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_and_are_never_the_same_for_all() {
        for attempt in 0..100 {
            let most = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
            let pauses: Vec<Duration> = (0..20).map(|_| pause(attempt)).collect();
            assert!(pauses.iter().all(|pause| *pause >= most / 2 && *pause <= most), "{attempt}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{attempt}: {pauses:?}");
        }
    }
}
