//! A disk's medium: what it would return now (`live`), what would be left after a power cut (`durable`), and what
//! lies between.
//!
//! ```text
//!   submitted ──complete──► live ──flush (covers what was complete when it was submitted), durable write──► durable
//!       └───────── power cut: each 512-byte sector of what is not durable persists or not ─────────────────────┘
//! ```
//! Invariant: `live` = `durable` overlaid with `unsynced` in order of completion, until a flush fails.

use crate::durable::Settled;
use crate::pages::{PageSet, Pages};
use crate::rng::Rng;
use crate::stamp::BLOCK;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

const SECTOR: usize = 512;
const RECENT_PAGES: usize = 256;
/// Batches of the journal whose pages, and those of the writes beside them, lose no bits.
const NEWEST_BATCHES: usize = 3;
/// What was never written; recovery reads a lot of it.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
const JOURNAL_PAGES: Range<u64> = 256..256 + crate::format::JOURNAL_BYTES / BLOCK as u64;

/// A page that was written and not yet flushed.
#[derive(Clone, Debug)]
struct Unsynced {
    page: u64,
    content: Bytes,
    /// Rises with every completion; a flush covers what completed before it was submitted.
    completed: u64,
}

/// A write that the device has and has not completed.
#[derive(Clone, Debug)]
pub struct InFlight {
    pub offset: u64,
    pub parts: Vec<Bytes>,
    pub durable: bool,
}

#[derive(Default)]
pub struct Medium {
    live: Pages,
    durable: Pages,
    unsynced: Vec<Unsynced>,
    completed: u64,
    /// Pages ever written, to pick one for a bit flip in a fixed order.
    written: PageSet,
    /// The pages written last: the journal's head, and what was just applied.
    recent: VecDeque<u64>,
    /// Page ranges of the latest durable writes. A flip in the newest batch of the journal looks like a write that
    /// was torn by the crash, and no disk can tell them apart by itself; these are spared.
    newest: VecDeque<Range<u64>>,
    pub settled: Settled,
    pub index: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Medium {
    pub fn read(&self, offset: u64, length: u64) -> Bytes {
        let pages = offset / BLOCK as u64..(offset + length) / BLOCK as u64;
        if pages.end - pages.start == 1
            && let Some(content) = self.live.get(pages.start)
        {
            return content.clone();
        }
        if length as usize <= ZEROS.len() && pages.clone().all(|page| !self.live.contains(page)) {
            return Bytes::from_static(&ZEROS[..length as usize]);
        }
        let mut bytes = BytesMut::with_capacity(length as usize);
        for page in pages {
            bytes.extend_from_slice(self.live.get(page).map_or(&ZEROS[..BLOCK], |content| content));
        }
        bytes.freeze()
    }

    /// The device completes a write.
    pub fn write(&mut self, write: &InFlight) {
        self.completed += 1;
        if write.durable {
            self.note_newest(write);
        }
        for (page, content) in pages(write) {
            self.written.insert(page);
            self.recent.push_back(page);
            if self.recent.len() > RECENT_PAGES {
                self.recent.pop_front();
            }
            self.live.put(page, content.clone());
            if write.durable {
                self.unsynced.retain(|earlier| earlier.page != page);
                self.settled.note(&content);
                self.durable.put(page, content);
            } else {
                self.unsynced.push(Unsynced { page, content, completed: self.completed });
            }
        }
    }

    fn note_newest(&mut self, write: &InFlight) {
        let first = write.offset / BLOCK as u64;
        let count: usize = write.parts.iter().map(|part| part.len() / BLOCK).sum();
        self.newest.push_back(first..first + count as u64);
        let batches =
            |newest: &VecDeque<Range<u64>>| newest.iter().filter(|r| JOURNAL_PAGES.contains(&r.start)).count();
        while batches(&self.newest) > NEWEST_BATCHES {
            self.newest.pop_front();
        }
    }

    /// Names what a flush that is submitted now will cover.
    pub fn flush_mark(&self) -> u64 {
        self.completed
    }

    /// The device completes a flush that was submitted when [`Medium::flush_mark`] was `mark`.
    pub fn flush(&mut self, mark: u64) {
        let (covered, rest) = std::mem::take(&mut self.unsynced).into_iter().partition(|w| w.completed <= mark);
        self.unsynced = rest;
        for write in covered {
            let Unsynced { page, content, .. } = write;
            self.settled.note(&content);
            self.durable.put(page, content);
        }
    }

    /// The device fails such a flush. What it should have covered counts as clean from now on: it stays readable while
    /// there is power, and no later flush makes it durable.
    pub fn fail_flush(&mut self, mark: u64) {
        self.unsynced.retain(|write| write.completed > mark);
    }

    /// A process died, the device has power: what it had completed stays; what it had not is done, or not, or in part,
    /// and then no more durable than what nobody has flushed. Returns how many writes were torn.
    pub fn process_crash(&mut self, in_flight: Vec<InFlight>, rng: &mut Rng) -> u64 {
        let mut torn = 0;
        for write in in_flight {
            match rng.below(4) {
                0 => {}
                1 | 2 => self.write(&write),
                _ => {
                    torn += 1;
                    self.tear(&write, rng);
                }
            }
        }
        torn
    }

    fn tear(&mut self, write: &InFlight, rng: &mut Rng) {
        if write.durable {
            self.note_newest(write);
        }
        for (page, content) in pages(write) {
            let content = match rng.below(4) {
                0 => continue,
                1 => torn_page(self.live.get(page).cloned(), &content, rng),
                _ => content,
            };
            self.write(&InFlight { offset: page * BLOCK as u64, parts: vec![content], durable: false });
        }
    }

    /// Power is cut: of everything that is not durable, any sectors persist. Returns how many writes were torn.
    pub fn power_cut(&mut self, in_flight: Vec<InFlight>, rng: &mut Rng) -> u64 {
        let mut torn = 0;
        let volatile = std::mem::take(&mut self.unsynced);
        let unfinished = in_flight.iter().flat_map(pages);
        let candidates: Vec<_> = volatile.into_iter().map(|w| (w.page, w.content)).chain(unfinished).collect();
        for (page, content) in candidates {
            match rng.below(4) {
                0 => {}
                1 => {
                    self.settled.note(&content);
                    self.durable.put(page, content);
                }
                _ => {
                    torn += 1;
                    let old = self.durable.get(page).cloned();
                    let page_after = torn_page(old, &content, rng);
                    self.settled.note_torn(&page_after);
                    self.durable.put(page, page_after);
                }
            }
            self.written.insert(page);
        }
        self.live = self.durable.clone();
        torn
    }

    /// Flips one bit of a page that was written, at rest; the second copy of the superblock is spared. Returns the
    /// page.
    pub fn flip_bit(&mut self, rng: &mut Rng) -> Option<u64> {
        if self.recent.is_empty() {
            return None;
        }
        let page = match rng.coin() {
            true => self.written.iter().nth(rng.index(self.written.iter().count()))?,
            false => self.recent[rng.index(self.recent.len())],
        };
        if page == 1 || self.newest.iter().any(|range| range.contains(&page)) {
            return None;
        }
        self.flip_in(page, rng.index(BLOCK * 8));
        Some(page)
    }

    /// Flips one bit in the newest batches or beside them. Returns the page.
    pub fn flip_newest(&mut self, rng: &mut Rng) -> Option<u64> {
        let range = self.newest.back().filter(|range| JOURNAL_PAGES.start <= range.start)?.clone();
        let page = range.start + rng.below(range.end - range.start);
        self.flip_in(page, rng.index(BLOCK * 8));
        Some(page)
    }

    /// Flips one bit in a row of a chunk or a slot. Without the rows of volumes and of the position a disk does not
    /// serve at all.
    pub fn flip_in_index(&mut self, rng: &mut Rng) -> Option<Vec<u8>> {
        let rows = self.index.keys().filter(|key| matches!(key.first(), Some(b'c' | b's')));
        let rows: Vec<Vec<u8>> = rows.cloned().collect();
        let row = rows.get(rng.index(rows.len().max(1)))?.clone();
        let value = self.index.get_mut(&row).expect("the row is there");
        let bit = rng.index(value.len() * 8);
        value[bit / 8] ^= 1 << (bit % 8);
        Some(row)
    }

    /// Somewhere that was written before; the superblock is spared.
    pub fn some_written_offset(&self, rng: &mut Rng) -> Option<u64> {
        let pages: Vec<u64> = self.written.iter().filter(|page| *page > 1).collect();
        pages.get(rng.index(pages.len().max(1))).map(|page| page * BLOCK as u64)
    }

    /// What would be left if the power were cut now and nothing came of what is not durable.
    pub fn at_rest(&self) -> Medium {
        Medium {
            live: self.durable.clone(),
            durable: self.durable.clone(),
            written: self.written.clone(),
            recent: self.recent.clone(),
            newest: self.newest.clone(),
            index: self.index.clone(),
            ..Medium::default()
        }
    }

    fn flip_in(&mut self, page: u64, bit: usize) {
        // A page that awaits its flush is in the device's cache; the bits at rest below it are about to be replaced.
        if self.unsynced.iter().any(|write| write.page == page) {
            return;
        }
        for content in [self.live.get_mut(page), self.durable.get_mut(page)].into_iter().flatten() {
            let mut bytes = BytesMut::from(&content[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            *content = bytes.freeze();
        }
    }
}

/// The pages of a write; each part is cut without copying.
fn pages(write: &InFlight) -> impl Iterator<Item = (u64, Bytes)> + '_ {
    let mut page = write.offset / BLOCK as u64;
    write.parts.iter().flat_map(|part| (0..part.len() / BLOCK).map(|i| part.slice(i * BLOCK..(i + 1) * BLOCK))).map(
        move |content| {
            page += 1;
            (page - 1, content)
        },
    )
}

fn torn_page(old: Option<Bytes>, new: &Bytes, rng: &mut Rng) -> Bytes {
    let mut bytes = old.map_or_else(|| BytesMut::zeroed(BLOCK), |old| BytesMut::from(&old[..]));
    let kept = rng.below(1 << (BLOCK / SECTOR));
    for sector in (0..BLOCK / SECTOR).filter(|sector| kept & (1 << sector) != 0) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        bytes[range.clone()].copy_from_slice(&new[range]);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, read_block, write_blocks};

    fn write(page: u64, stamp: u64, durable: bool) -> InFlight {
        InFlight { offset: page * BLOCK as u64, parts: vec![write_blocks(Stamp(stamp), 1)], durable }
    }

    fn stamp(medium: &Medium, page: u64) -> Option<Stamp> {
        read_block(&medium.read(page * BLOCK as u64, BLOCK as u64))
    }

    #[test]
    fn a_durable_write_survives_and_older_volatile_ones_do_not_undo_it() {
        for seed in 0..100 {
            let mut medium = Medium::default();
            medium.write(&write(3, 1, false));
            medium.write(&write(3, 2, true));
            medium.power_cut(vec![], &mut Rng::named(seed, "cut"));
            assert_eq!(stamp(&medium, 3), Some(Stamp(2)));
        }
    }

    #[test]
    fn a_flush_covers_what_completed_before_it_was_submitted() {
        let mut lost = false;
        for seed in 0..100 {
            let mut medium = Medium::default();
            medium.write(&write(1, 1, false));
            let mark = medium.flush_mark();
            medium.write(&write(2, 2, false));
            medium.flush(mark);
            medium.power_cut(vec![], &mut Rng::named(seed, "cut"));
            assert_eq!(stamp(&medium, 1), Some(Stamp(1)));
            lost |= stamp(&medium, 2) != Some(Stamp(2));
        }
        assert!(lost);
    }

    #[test]
    fn the_death_of_a_process_tears_what_was_under_way_and_a_power_cut_may_take_it() {
        let ends: std::collections::BTreeSet<_> = (0..400)
            .map(|seed| {
                let mut rng = Rng::named(seed, "crash");
                let mut medium = Medium::default();
                medium.write(&write(1, 1, true));
                medium.process_crash(vec![write(1, 2, true)], &mut rng);
                let before = stamp(&medium, 1).map(|stamp| stamp.0);
                medium.power_cut(vec![], &mut rng);
                (before, stamp(&medium, 1).map(|stamp| stamp.0))
            })
            .collect();
        for end in [(Some(1), Some(1)), (Some(2), Some(2)), (None, Some(1)), (None, None), (Some(2), Some(1))] {
            assert!(ends.contains(&end), "{end:?} of {ends:?}");
        }
    }

    #[test]
    fn power_cuts_tear_at_sectors() {
        let torn = (0..100).any(|seed| {
            let mut medium = Medium::default();
            medium.write(&write(1, 1, true));
            medium.power_cut(vec![write(1, 2, true)], &mut Rng::named(seed, "cut"));
            stamp(&medium, 1).is_none()
        });
        assert!(torn);
    }
}
