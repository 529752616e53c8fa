//! The guest of a writer: keeps a few requests in flight on a few hot blocks, and writes down what it saw.

use crate::history::{self, Begun};
use crate::names::{Vol, Writer};
use crate::stamp::{self, Stamp};
use crate::trace::Touch;
use crate::world::{Happening, World};
use ashlar_types::{BlockCount, BlockIndex, Lsn, SnapshotId};
use ashlar_volume::{Event, GuestError, GuestOp, Tag};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub enum Pending {
    Read(Begun),
    Write(Begun),
    Snapshot(SnapshotId, Begun),
    Flush,
}

#[derive(Clone, Debug)]
pub struct Guest {
    pub pending: BTreeMap<Tag, Pending>,
    next_tag: u64,
    depth: u32,
    awake: bool,
    /// From now on it does not write.
    pub reads_only: bool,
}

impl Guest {
    pub fn new(depth: u32) -> Guest {
        Guest { pending: BTreeMap::new(), next_tag: 1, depth, awake: false, reads_only: false }
    }

    fn may_ask(&self) -> bool {
        (self.pending.len() as u32) < self.depth
    }

    /// A guest whose writes hang goes on reading: only so is a writer found out that serves when it must not any more.
    fn may_read(&self) -> bool {
        let reads = self.pending.values().filter(|pending| matches!(pending, Pending::Read(_))).count();
        (reads as u32) < 4 * self.depth + 8
    }

    /// Nobody will answer any more.
    pub fn stop(&mut self) {
        self.pending.clear();
        self.awake = false;
    }
}

impl World {
    pub fn wake_guest(&mut self, writer: Writer) {
        let guest = &mut self.writers[writer.index()].guest;
        if !guest.awake {
            guest.awake = true;
            self.agenda.add(self.now, Happening::GuestActs { writer });
        }
    }

    /// The guest makes its next request, if it may, and sets the time for the one after.
    pub fn guest_acts(&mut self, writer: Writer) {
        let state = &self.writers[writer.index()];
        let lives = state.core.is_some() && state.guest.awake && !state.detaching;
        if !lives || !self.guests_active {
            self.writers[writer.index()].guest.awake = false;
            return;
        }
        if state.guest.may_ask() {
            self.request(writer);
        } else if state.guest.may_read() {
            self.read_one(writer);
        }
        let think = self.guest_rng.tail(self.scenario.think / 4, self.scenario.think * 4);
        self.agenda.add(self.now + think, Happening::GuestActs { writer });
    }

    /// A block of a hot slot that the writer's device has, and how many blocks it has.
    pub fn some_place(&mut self, writer: Writer) -> (u64, u64) {
        let state = &self.writers[writer.index()];
        let blocks = state.core.as_ref().map_or(0, |core| core.size().0 / stamp::BLOCK as u64);
        let hot = &self.sites[state.volume.index()].hot;
        let there: Vec<u64> = hot.iter().copied().filter(|first| first + 16 <= blocks).collect();
        (*self.guest_rng.pick(&there) + self.guest_rng.below(16), blocks)
    }

    fn request(&mut self, writer: Writer) {
        let (start, blocks) = self.some_place(writer);
        let count = self.guest_rng.range(1, u64::from(self.scenario.blocks_max)).min(blocks - start) as u32;
        let (kind, of) = (self.guest_rng.below(1_000_000) as u32, &self.scenario);
        if kind < of.read_share_ppm || self.writers[writer.index()].guest.reads_only {
            self.issue_read(writer, start, count);
        } else if kind < of.read_share_ppm + of.discard_share_ppm {
            self.issue_write(writer, start, count, true);
        } else if self.guest_rng.below(50) == 0 {
            self.issue(writer, Pending::Flush, GuestOp::Flush);
        } else {
            self.issue_write(writer, start, count, false);
        }
    }

    /// Single blocks, now, however much is in flight.
    pub fn write_some(&mut self, writer: Writer, count: u32) {
        for _ in 0..count {
            let (start, _) = self.some_place(writer);
            self.issue_write(writer, start, 1, false);
        }
    }

    /// Blocks that nobody writes otherwise: what a replica has of them alone is not covered up by later writes.
    pub fn write_cold(&mut self, writer: Writer, count: u32) {
        for _ in 0..count {
            let start = self.guest_rng.range(300, 900) * u64::from(ashlar_types::BLOCKS_PER_SLOT);
            self.issue_write(writer, start, 1, false);
        }
    }

    fn read_one(&mut self, writer: Writer) {
        let (start, _) = self.some_place(writer);
        self.issue_read(writer, start, 1);
    }

    pub fn issue_read(&mut self, writer: Writer, start: u64, count: u32) {
        let volume = self.writers[writer.index()].volume;
        let begun = self.history[volume.index()].begin_read(start, count);
        self.issue(
            writer,
            Pending::Read(begun),
            GuestOp::Read { start: BlockIndex(start), count: BlockCount(count), below: Lsn::MAX },
        );
    }

    fn issue_write(&mut self, writer: Writer, start: u64, count: u32, discard: bool) {
        let volume = self.writers[writer.index()].volume;
        let first = if discard { Stamp::ZERO } else { self.next_stamp(count) };
        let begun = self.history[volume.index()].begin_write(start, count, first);
        self.trace.line(self.now, Touch::blocks(volume, start, count), || match discard {
            true => format!("{writer} guest discards {start}+{count}"),
            false => format!("{writer} guest writes {start}+{count}: {:?}..", first),
        });
        let op = match discard {
            true => GuestOp::Discard { start: BlockIndex(start), count: BlockCount(count) },
            false => GuestOp::Write { start: BlockIndex(start), data: stamp::write_blocks(first, count) },
        };
        self.issue(writer, Pending::Write(begun), op);
    }

    fn next_stamp(&mut self, count: u32) -> Stamp {
        let first = Stamp(self.stamps + 1);
        self.stamps += u64::from(count);
        first
    }

    pub fn issue(&mut self, writer: Writer, pending: Pending, op: GuestOp) {
        let guest = &mut self.writers[writer.index()].guest;
        let tag = Tag(guest.next_tag);
        guest.next_tag += 1;
        guest.pending.insert(tag, pending);
        self.tell_writer(writer, Event::Guest { tag, op });
    }

    /// The volume answers a guest's request.
    pub fn complete(&mut self, writer: Writer, tag: Tag, result: Result<Bytes, GuestError>) {
        let state = &mut self.writers[writer.index()];
        let (volume, epoch) = (state.volume, state.epoch);
        let Some(pending) = state.guest.pending.remove(&tag) else {
            self.violated(format!("{writer} answers request {tag:?} that does not wait"), None);
            return;
        };
        let history = &mut self.history[volume.index()];
        let found = match (pending, result) {
            (Pending::Read(begun), Ok(bytes)) => {
                let stamps: Vec<_> = bytes.chunks(stamp::BLOCK).map(stamp::read_block).collect();
                self.trace.line(self.now, Touch::blocks(volume, begun.start, begun.count), || {
                    format!("{writer} guest has read {}+{}: {:?}", begun.start, begun.count, stamps)
                });
                if stamps.len() != begun.count as usize {
                    self.violated(format!("a read of {} blocks returns {} bytes", begun.count, bytes.len()), None);
                    return;
                }
                self.returned(volume, &begun, &stamps)
            }
            (Pending::Write(begun), Ok(_)) => {
                self.trace.line(self.now, Touch::blocks(volume, begun.start, begun.count), || {
                    format!("{writer} guest has written {}+{}", begun.start, begun.count)
                });
                history.acknowledged(&begun, epoch)
            }
            (Pending::Snapshot(id, begun), Ok(bytes)) => {
                let stamps: Vec<_> = bytes.chunks(stamp::BLOCK).map(stamp::read_block).collect();
                self.trace.line(self.now, Touch::blocks(volume, begun.start, begun.count), || {
                    format!("{writer} has read of {id} {}+{}: {:?}", begun.start, begun.count, stamps)
                });
                self.snapshot_read(volume, id, &begun, &stamps);
                return;
            }
            (Pending::Flush, Ok(_)) => Ok(()),
            (pending, Err(error)) => {
                self.guest_error(writer, &pending, error);
                return;
            }
        };
        if let Err(found) = found {
            self.violated(found.text, found.block.map(|block| (volume, block)));
        }
    }

    /// A read of the volume is answered.
    fn returned(&mut self, volume: Vol, begun: &Begun, stamps: &[Option<Stamp>]) -> Result<(), history::Violation> {
        for (block, stamp) in (begun.start..).zip(stamps) {
            if let Some(stamp) = stamp {
                self.note_base(volume, block, *stamp);
            }
        }
        self.history[volume.index()].returned(begun, stamps)
    }

    fn guest_error(&mut self, writer: Writer, pending: &Pending, error: GuestError) {
        let volume = self.writers[writer.index()].volume;
        self.trace.count(match error {
            GuestError::Fenced => "state: guest hears fenced",
            GuestError::Lost => "state: guest hears lost",
            GuestError::OutOfRange => "state: guest hears out of range",
            GuestError::NoSpace => "state: guest hears no space",
            GuestError::Closed => "state: guest hears closed",
            GuestError::ReadOnly => unreachable!("a writer's guest may write"),
            GuestError::TimedOut => "state: guest hears timed out",
        });
        let touch = match pending {
            Pending::Read(begun) | Pending::Write(begun) | Pending::Snapshot(_, begun) => {
                Touch::blocks(volume, begun.start, begun.count)
            }
            Pending::Flush => Touch::all(volume),
        };
        self.trace.line(self.now, touch, || format!("{writer} guest hears {error:?}"));
        // One disk at most loses bits or fails reads in a run, so there is a good copy (P5), unless the others were
        // declared lost.
        let rotten = self.id_of(self.rotten);
        let left_alone = self.catalog.record(volume).fewest_in_sync_without(&[rotten]) == 0;
        let is_honest = left_alone && error == GuestError::Lost && !matches!(pending, Pending::Write(_));
        if !is_honest && matches!(error, GuestError::Lost | GuestError::OutOfRange | GuestError::TimedOut) {
            self.violated(format!("{writer} guest hears {error:?}"), None);
        }
    }
}
