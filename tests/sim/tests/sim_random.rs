//! A share of the simulation that fits into every test run: `ASHLAR_SIM_SEEDS` seeds (100 by default) without a
//! violation, and the same seed twice with the same trace. `make sim SEEDS=…` runs more.

use ashlar_sim::{Outcome, Scenario, Telling, run_scenario, run_seed};
use std::sync::atomic::{AtomicU64, Ordering};

const FIRST_SEED: u64 = 1;

fn seeds() -> u64 {
    std::env::var("ASHLAR_SIM_SEEDS").map_or(100, |text| text.parse().expect("ASHLAR_SIM_SEEDS is a number"))
}

fn sound(outcome: &Outcome) {
    if let Some(violation) = &outcome.violation {
        let story = run_seed(outcome.seed, Telling::Story).story;
        let skipped = story.lines().count().saturating_sub(100);
        let tail: Vec<&str> = story.lines().skip(skipped).collect();
        panic!("seed {}: {violation:?}\n{}\nreplay: make sim SEED={}", outcome.seed, tail.join("\n"), outcome.seed);
    }
}

#[test]
fn random_seeds_violate_nothing() {
    let next = AtomicU64::new(FIRST_SEED);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= FIRST_SEED + seeds() {
                        return;
                    }
                    sound(&run_seed(seed, Telling::Nothing));
                }
            });
        }
    });
}

#[test]
fn without_faults_everything_is_answered() {
    for seed in 1..=5 {
        let outcome = run_scenario(seed, Scenario::without_faults(seed), Telling::Nothing);
        sound(&outcome);
        assert!(outcome.acknowledged > 100, "seed {seed}: {} writes", outcome.acknowledged);
    }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    for seed in 1..=20 {
        let [first, second] = [run_seed(seed, Telling::Nothing), run_seed(seed, Telling::Nothing)];
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}
