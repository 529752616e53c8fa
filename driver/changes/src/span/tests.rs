//! Ranges say exactly what the bitmaps say.

use super::*;
use ashlar_types::{BLOCKS_PER_CHUNK, SlotIndex};
use proptest::collection::btree_map;
use proptest::prelude::*;

fn all(mut spans: Spans) -> Vec<Span> {
    spans.close();
    std::iter::from_fn(|| spans.pop()).collect()
}

/// What a list of ranges says of one block.
fn what_of(spans: &[Span], block: u64) -> Option<What> {
    spans.iter().find(|span| span.start.0 <= block && block < span.end().0).map(|span| span.what)
}

fn slots() -> impl Strategy<Value = Vec<SlotBlocks>> {
    btree_map(0u16..12, (any::<u16>(), any::<u16>()), 0..12).prop_map(|slots| {
        let slot = |(slot, (set, valid)): (u16, (u16, u16))| SlotBlocks {
            slot: SlotIndex(if slot < 6 { slot } else { 1012 + slot }),
            set,
            valid: set & valid,
        };
        slots.into_iter().map(slot).collect()
    })
}

proptest! {
    #[test]
    fn ranges_are_what_the_bitmaps_are(chunks in proptest::collection::vec(slots(), 1..4), delta: bool) {
        let listed = if delta { Listed::Set } else { Listed::Data };
        let mut spans = Spans::default();
        for (chunk, slots) in chunks.iter().enumerate() {
            spans.add(ChunkIndex(chunk as u32), slots, listed);
        }
        let spans = all(spans);
        for pair in spans.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].start);
            prop_assert!(pair[0].end() < pair[1].start || pair[0].what != pair[1].what, "{pair:?} are one");
        }
        for (chunk, slots) in chunks.iter().enumerate() {
            for block in 0..u64::from(BLOCKS_PER_CHUNK) {
                let slot = slots.iter().find(|slot| u64::from(slot.slot.0) == block / 16);
                let bit = |bits: fn(&SlotBlocks) -> u16| slot.is_some_and(|slot| bits(slot) >> (block % 16) & 1 != 0);
                let expected = match (bit(|slot| slot.valid), bit(|slot| slot.set) && delta) {
                    (true, _) => Some(What::Data),
                    (false, true) => Some(What::Zeros),
                    (false, false) => None,
                };
                let at = chunk as u64 * u64::from(BLOCKS_PER_CHUNK) + block;
                prop_assert_eq!(what_of(&spans, at), expected, "block {}", at);
            }
        }
    }

    #[test]
    fn pieces_of_a_range_are_the_range(start in 0u64..1000, blocks in 1u64..1000, piece in 1u64..300) {
        let whole = Span { start: BlockIndex(start), blocks, what: What::Data };
        let pieces: Vec<Span> = whole.cut(piece).collect();
        prop_assert_eq!(pieces[0].start, whole.start);
        prop_assert_eq!(pieces.last().unwrap().end(), whole.end());
        for pair in pieces.windows(2) {
            prop_assert_eq!(pair[0].end(), pair[1].start);
            prop_assert_eq!(pair[1].start.0 % piece, 0);
        }
        prop_assert!(pieces.iter().all(|span| span.blocks <= piece));
    }
}

#[test]
fn where_a_range_is_cut_does_not_hang_on_where_a_walk_began() {
    let data = |start: u64, blocks: u64| Span { start: BlockIndex(start), blocks, what: What::Data };
    let mut spans = Spans::default();
    spans.push(data(SPAN_BLOCKS_MAX - 4, 3));
    spans.push(data(SPAN_BLOCKS_MAX - 1, 2 * SPAN_BLOCKS_MAX));
    let expected = [
        data(SPAN_BLOCKS_MAX - 4, 4),
        data(SPAN_BLOCKS_MAX, SPAN_BLOCKS_MAX),
        data(2 * SPAN_BLOCKS_MAX, SPAN_BLOCKS_MAX - 1),
    ];
    assert_eq!(all(spans), expected);
}
