//! How long something has been so, measured by the planner's own looks. Between two looks passes what the clock says if
//! that is believable, `tick_max` at most; a clock that went back has not moved, and a longer gap (a jump, a process
//! that was suspended) counts as [`ODD_GAP`]. So a clock that jumps and a restart make the planner late, never early.

use ashlar_types::{Duration, Instant};
use std::collections::BTreeMap;

/// What a gap counts that cannot be believed: the time between two reports, which is the least that it was.
const ODD_GAP: Duration = Duration::from_secs(1);

/// Time that has passed while somebody looked.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    last: Option<Instant>,
    elapsed: Duration,
}

impl Clock {
    pub(super) fn tick(&mut self, now: Instant, tick_max: Duration) {
        let passed = self.last.map_or(Duration::ZERO, |last| now.since(last));
        self.last = Some(now);
        self.elapsed += if passed <= tick_max { passed } else { ODD_GAP.min(tick_max) };
    }

    pub(super) fn now(&self) -> Duration {
        self.elapsed
    }
}

/// Since when each of some facts has held without a break.
#[derive(Clone, Debug)]
pub(super) struct Lasting<K> {
    since: BTreeMap<K, Duration>,
}

impl<K: Ord> Default for Lasting<K> {
    fn default() -> Lasting<K> {
        Lasting { since: BTreeMap::new() }
    }
}

impl<K: Ord> Lasting<K> {
    /// These hold now, and no others. One may be named several times.
    pub(super) fn observe(&mut self, now: Duration, holding: impl Iterator<Item = K>) {
        let before = std::mem::take(&mut self.since);
        for fact in holding {
            let since = before.get(&fact).copied().unwrap_or(now);
            self.since.insert(fact, since);
        }
    }

    /// For how long; `None` if it does not hold.
    pub(super) fn lasted(&self, fact: &K, now: Duration) -> Option<Duration> {
        self.since.get(fact).map(|&since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_jump_makes_a_fact_older_than_its_looks(jumps in prop::collection::vec(any::<u64>(), 1..50)) {
            let tick_max = Duration::from_secs(5);
            let (mut clock, mut lasting) = (Clock::default(), Lasting::default());
            for (looks, &nanos) in jumps.iter().enumerate() {
                clock.tick(Instant::from_nanos(nanos), tick_max);
                lasting.observe(clock.now(), std::iter::once("silent"));
                let lasted = lasting.lasted(&"silent", clock.now()).unwrap();
                prop_assert!(lasted <= tick_max * looks as u32);
            }
        }
    }

    #[test]
    fn a_break_begins_anew() {
        let mut lasting = Lasting::default();
        let seconds = Duration::from_secs;
        lasting.observe(seconds(1), [1, 2].into_iter());
        lasting.observe(seconds(9), [2, 2].into_iter());
        lasting.observe(seconds(10), [1, 2].into_iter());
        assert_eq!(lasting.lasted(&1, seconds(12)), Some(seconds(2)));
        assert_eq!(lasting.lasted(&2, seconds(12)), Some(seconds(11)));
        assert_eq!(lasting.lasted(&3, seconds(12)), None);
    }
}
