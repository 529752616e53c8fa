//! Turns against a plain model.

use super::*;
use ashlar_types::{BlockCount, BlockIndex};
use proptest::prelude::*;

fn range(start: u64, count: u32) -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(start), count: BlockCount(count) }
}

#[test]
fn readers_share_and_writers_do_not() {
    let mut turns = Turns::default();
    let (first, runs) = turns.arrive(range(0, 4), Access::Shared);
    assert!(runs && turns.arrive(range(2, 4), Access::Shared).1);
    let (writer, runs) = turns.arrive(range(3, 1), Access::Exclusive);
    assert!(!runs);
    assert!(turns.arrive(range(4, 1), Access::Shared).1, "next to it is not on it");
    let mut ready = vec![];
    turns.leave(first, &mut ready);
    assert!(ready.is_empty(), "the second reader still overlaps");
    turns.leave(TurnId(1), &mut ready);
    assert_eq!(ready, [writer]);
}

#[test]
fn a_later_reader_does_not_overtake_a_waiting_writer() {
    let mut turns = Turns::default();
    let (reader, _) = turns.arrive(range(0, 1), Access::Shared);
    let (writer, _) = turns.arrive(range(0, 1), Access::Exclusive);
    let (late, runs) = turns.arrive(range(0, 1), Access::Shared);
    assert!(!runs);
    let mut ready = vec![];
    turns.leave(reader, &mut ready);
    assert_eq!(ready, [writer]);
    ready.clear();
    turns.leave(writer, &mut ready);
    assert_eq!(ready, [late]);
}

proptest! {
    #[test]
    fn entries_run_exactly_when_no_earlier_conflict_is_left(
        steps in proptest::collection::vec((0u64..80, 1u32..40, any::<bool>(), any::<prop::sample::Index>()), 1..80),
    ) {
        let mut turns = Turns::default();
        let mut model: Vec<(TurnId, ChunkRange, bool, bool)> = vec![];
        for (start, count, exclusive, pick) in steps {
            let range = range(start, count);
            type Known = (TurnId, ChunkRange, bool, bool);
            let conflicts = |other: &Known| range.overlaps(other.1) && (exclusive || other.2);
            let expected = !model.iter().any(conflicts);
            let access = if exclusive { Access::Exclusive } else { Access::Shared };
            let (id, runs) = turns.arrive(range, access);
            prop_assert_eq!(runs, expected);
            model.push((id, range, exclusive, runs));
            let running: Vec<usize> = (0..model.len()).filter(|&i| model[i].3).collect();
            if model.len() > 6 && !running.is_empty() {
                let gone = model.remove(running[pick.index(running.len())]);
                let mut ready = vec![];
                turns.leave(gone.0, &mut ready);
                for i in 0..model.len() {
                    let earlier = |j: usize| model[i].1.overlaps(model[j].1) && (model[i].2 || model[j].2);
                    let free = !(0..i).any(earlier);
                    prop_assert_eq!(free, model[i].3 || ready.contains(&model[i].0));
                    model[i].3 = free;
                }
            }
        }
    }
}
