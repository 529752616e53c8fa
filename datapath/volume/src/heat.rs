//! Heat: how often the guest has read each chunk, lately rather than long ago.

use ashlar_types::ChunkIndex;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Two bytes for each chunk up to the last one that was read.
#[derive(Default)]
pub(crate) struct Heat {
    reads: Vec<u16>,
}

impl Heat {
    pub(crate) fn note(&mut self, chunk: ChunkIndex) {
        let at = chunk.0 as usize;
        if at >= self.reads.len() {
            self.reads.resize(at + 1, 0);
        }
        self.reads[at] += 1;
        if self.reads[at] == u16::MAX {
            self.reads.iter_mut().for_each(|reads| *reads /= 2);
        }
    }

    /// Chunks that were read, the hottest first, so many at most.
    pub(crate) fn hottest(&self, most: usize) -> VecDeque<ChunkIndex> {
        let read = self.reads.iter().enumerate().filter(|(_, reads)| **reads > 0);
        let mut read: Vec<(Reverse<u16>, u32)> = read.map(|(at, &reads)| (Reverse(reads), at as u32)).collect();
        read.sort_unstable();
        read.into_iter().take(most).map(|(_, at)| ChunkIndex(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_most_is_hottest_and_what_was_long_ago_cools_down() {
        let mut heat = Heat::default();
        (0..9).for_each(|_| heat.note(ChunkIndex(7)));
        (0..20).for_each(|_| heat.note(ChunkIndex(3)));
        heat.note(ChunkIndex(1));
        assert_eq!(heat.hottest(9), [3, 7, 1].map(ChunkIndex));
        assert_eq!(heat.hottest(1), [3].map(ChunkIndex));
        (0..u16::MAX).for_each(|_| heat.note(ChunkIndex(0)));
        assert_eq!(heat.hottest(9), [0, 3, 7].map(ChunkIndex));
    }
}
