//! The share of the crash points that every test run takes, and the proof that a broken disk would be noticed.

use ashlar_crash_points::{Depth, Figures, Lie, Work, exhaustive, explore, fixed};

#[test]
fn a_cut_at_any_boundary_loses_nothing_that_was_answered() {
    let mut all = Figures::default();
    let works: Vec<Work> = fixed().into_iter().chain((1..=2).flat_map(exhaustive)).collect();
    for work in &works {
        let figures = explore(work, Depth::QUICK, Lie::None).unwrap_or_else(|violation| panic!("{violation}"));
        all.add(&figures);
    }
    assert!(all.states > 10_000 && all.states_of_recovery > 1_000 && all.gone_on > 1_000, "{all:?}");
}

fn is_noticed(lie: Lie) -> bool {
    fixed().iter().any(|work| explore(work, Depth::QUICK, lie).is_err())
}

#[test]
fn a_disk_that_answers_a_durable_write_too_early_is_noticed() {
    assert!(is_noticed(Lie::DurableIsNot));
}

#[test]
fn a_disk_whose_flush_does_nothing_is_noticed() {
    assert!(is_noticed(Lie::FlushIsNothing));
}

#[test]
fn an_index_that_keeps_half_a_commit_is_noticed() {
    assert!(is_noticed(Lie::CommitInHalves));
}
