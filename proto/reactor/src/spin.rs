//! How long a loop stays awake before it sleeps: grows when the last sleep turned out short, shrinks when it turned
//! out long, so that an idle loop sleeps at once and a busy one saves the wake-up. Invariant: `budget <= max`.

use ashlar_types::Duration;

/// What a first growth begins with.
const STEP_MIN: Duration = Duration::from_micros(2);

pub(crate) struct Spin {
    max: Duration,
    budget: Duration,
}

impl Spin {
    pub(crate) fn new(max: Duration) -> Spin {
        Spin { max, budget: Duration::ZERO }
    }

    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// The loop waited so long, spinning and sleeping, for something to complete.
    pub(crate) fn waited(&mut self, duration: Duration) {
        if duration <= self.max {
            self.budget = (self.budget * 2).max(STEP_MIN).min(self.max);
        } else {
            let halved = self.budget / 2;
            self.budget = if halved < STEP_MIN { Duration::ZERO } else { halved };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(20);

    #[test]
    fn short_waits_bring_the_spin_up_to_its_bound_and_long_ones_end_it() {
        let mut spin = Spin::new(MAX);
        assert_eq!(spin.budget(), Duration::ZERO);
        for _ in 0..10 {
            spin.waited(MAX / 2);
        }
        assert_eq!(spin.budget(), MAX);
        for _ in 0..5 {
            spin.waited(MAX * 2);
        }
        assert_eq!(spin.budget(), Duration::ZERO);
    }

    #[test]
    fn a_loop_that_may_not_spin_does_not() {
        let mut spin = Spin::new(Duration::ZERO);
        spin.waited(Duration::ZERO);
        assert_eq!(spin.budget(), Duration::ZERO);
    }
}
