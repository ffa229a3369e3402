//! How long to wait before something is repaired that does not stay so. Somebody takes away what
//! we bring back: to do so as fast as we can would only load the host. Pure, so it is tested
//! without waiting.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often in a row one object is brought back at once.
const AT_ONCE: u32 = 5;
/// The first pause; each further one is twice as long.
const SHORTEST: Duration = Duration::from_millis(100);
/// The last one.
const LONGEST: Duration = Duration::from_secs(60);
/// What has stayed for so long, beyond the pause before it, counts as new when it is lost again.
const CALM: Duration = Duration::from_secs(10);

/// What was brought back, and how often in a row.
#[derive(Debug, Default)]
pub(super) struct Patience {
    restored: HashMap<String, Row>,
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Row {
    times: u32,
    last: Instant,
}

/// A pause before the next repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) length: Duration,
    /// How often in a row the same was brought back.
    pub(super) times: u32,
}

impl Patience {
    /// When the next repair may be.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Those objects were brought back at `now`; the pause after it, if one of them does not stay.
    pub(super) fn restored<'a>(&mut self, objects: impl Iterator<Item = String> + 'a, now: Instant) -> Option<Pause> {
        self.failures = 0;
        self.restored.retain(|_, row| now.duration_since(row.last) < CALM + pause(row.times));
        let mut most = 0;
        for object in objects {
            let row = self.restored.entry(object).or_insert(Row { times: 0, last: now });
            (row.times, row.last) = (row.times.saturating_add(1), now);
            most = most.max(row.times);
        }
        self.pause(most, now)
    }

    /// A repair could not be done at all.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Pause> {
        self.failures = self.failures.saturating_add(1);
        self.pause(self.failures.saturating_add(AT_ONCE), now)
    }

    fn pause(&mut self, times: u32, now: Instant) -> Option<Pause> {
        let length = pause(times);
        self.not_before = now.checked_add(length).filter(|_| !length.is_zero());
        (!length.is_zero()).then_some(Pause { length, times })
    }
}

fn pause(times: u32) -> Duration {
    match times.checked_sub(AT_ONCE) {
        None | Some(0) => Duration::ZERO,
        Some(more) => SHORTEST.saturating_mul(1 << (more - 1).min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(patience: &mut Patience, object: &str, now: Instant) -> Option<Duration> {
        patience.restored([object.to_owned()].into_iter(), now).map(|pause| pause.length)
    }

    #[test]
    fn what_does_not_stay_is_waited_for_longer_and_longer() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let pause = lost(&mut patience, "table", now).unwrap_or_default();
            pauses.push(pause);
            now += pause + Duration::from_millis(1);
        }
        assert_eq!(pauses[..8].iter().map(Duration::as_millis).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 100, 200, 400]);
        assert_eq!(pauses[19], LONGEST);
        // Long enough.
        assert_eq!(lost(&mut patience, "table", now + LONGEST + LONGEST), None);
        assert_eq!(patience.not_before(), None);
    }

    #[test]
    fn different_things_are_no_fight() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        for number in 0..50 {
            assert_eq!(lost(&mut patience, &format!("port {number}"), now), None);
        }
    }

    #[test]
    fn what_fails_is_not_tried_again_at_once() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        assert_eq!(patience.failed(now).unwrap().length, SHORTEST);
        assert_eq!(patience.failed(now).unwrap().length, SHORTEST * 2);
        assert_eq!(patience.not_before(), Some(now + SHORTEST * 2));
        assert_eq!(lost(&mut patience, "table", now), None);
    }
}
