//! What the guests of one volume did and saw, in one order, for the simulator's checker.
//!
//! An operation begins before its first byte is sent and ends after its last byte has come, both under one lock, so
//! the points of the history are in an order that really was. What was never answered, or answered with an error, stays
//! without an end: it may have happened or not.

use crate::content;
use ashlar_sim::checker::Violation;
use ashlar_sim::{Begun, History, Point, Stamp, Writer};
use ashlar_types::Epoch;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod story;

/// Number of a connection of a guest, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(pub u32);

/// What a guest asks for. Blocks of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Read { start: u64, count: u32 },
    Write { start: u64, count: u32 },
    Trim { start: u64, count: u32 },
    Flush,
}

/// An operation under way.
pub struct Operation {
    pub ask: Ask,
    /// Of the first block of a write.
    pub first: Stamp,
    begun: Option<Begun>,
    epoch: Epoch,
}

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub begun: u64,
    pub acknowledged: u64,
    /// Answered with an error. What is neither acknowledged nor failed was never answered.
    pub failed: u64,
}

/// Who began what is told by the point of its beginning.
#[derive(Clone, Copy)]
struct Note {
    point: Point,
    connection: Connection,
    epoch: Epoch,
}

#[derive(Default)]
struct Inner {
    history: History,
    stamps: u64,
    notes: Vec<Note>,
    /// What happened to the cluster.
    marks: Vec<(Point, String)>,
    violation: Option<Violation>,
    tallies: [Tally; 4],
    last_answer: Option<Instant>,
    longest_gap: Duration,
}

pub struct Record {
    pub name: String,
    number: u64,
    blocks: u64,
    inner: Mutex<Inner>,
    acknowledged_writes: AtomicU64,
    serving: AtomicU32,
    connections: AtomicU32,
}

/// What is told of a volume at the end.
pub struct Summary {
    pub reads: Tally,
    pub writes: Tally,
    pub trims: Tally,
    pub flushes: Tally,
    pub longest_gap: Duration,
    pub blocks: u64,
    pub epoch: u32,
}

impl Record {
    /// Of a volume of so many blocks that are all zeros.
    pub fn new(name: &str, number: u64, blocks: u64) -> Record {
        Record {
            name: name.to_owned(),
            number,
            blocks,
            inner: Mutex::default(),
            acknowledged_writes: AtomicU64::new(0),
            serving: AtomicU32::new(0),
            connections: AtomicU32::new(0),
        }
    }

    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub fn acknowledged_writes(&self) -> u64 {
        self.acknowledged_writes.load(Ordering::SeqCst)
    }

    /// The highest epoch that is known to have served; 0 before the first.
    pub fn serving_epoch(&self) -> u32 {
        self.serving.load(Ordering::SeqCst)
    }

    pub fn new_connection(&self) -> Connection {
        Connection(self.connections.fetch_add(1, Ordering::SeqCst))
    }

    /// A writer of this epoch serves now.
    pub fn serves(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.history.serves(epoch, Writer(epoch.number()));
        let text = format!("epoch {epoch} serves");
        inner.mark(text);
        self.serving.fetch_max(epoch.number(), Ordering::SeqCst);
    }

    /// Something happened to the cluster, to be told with a violation.
    pub fn mark(&self, what: &str) {
        self.lock().mark(what.to_owned());
    }

    pub fn begin(&self, ask: Ask, connection: Connection, epoch: Epoch) -> Operation {
        let mut inner = self.lock();
        inner.tallies[ask.kind()].begun += 1;
        let first = match ask {
            Ask::Write { count, .. } => {
                let first = inner.stamps + 1;
                inner.stamps += u64::from(count);
                Stamp(first)
            }
            _ => Stamp::ZERO,
        };
        let begun = match ask {
            Ask::Read { start, count } => Some(inner.history.begin_read(start, count)),
            Ask::Write { start, count } | Ask::Trim { start, count } => {
                Some(inner.history.begin_write(start, count, first))
            }
            Ask::Flush => None,
        };
        if let Some(begun) = &begun {
            let point = begun.point();
            inner.notes.push(Note { point, connection, epoch });
        }
        Operation { ask, first, begun, epoch }
    }

    /// Bytes to be sent with a write.
    pub fn data(&self, operation: &Operation) -> Vec<u8> {
        let Ask::Write { start, count } = operation.ask else { return vec![] };
        let mut data = Vec::with_capacity(count as usize * content::BLOCK_BYTES);
        for at in 0..u64::from(count) {
            content::append(&mut data, self.number, start + at, Stamp(operation.first.0 + at));
        }
        data
    }

    /// `data` is what a read returned.
    pub fn acknowledged(&self, operation: &Operation, data: &[u8]) {
        let stamps: Vec<Result<Stamp, String>> = match operation.ask {
            Ask::Read { start, .. } => data
                .chunks_exact(content::BLOCK_BYTES)
                .zip(start..)
                .map(|(bytes, block)| content::stamp_of(self.number, block, bytes))
                .collect(),
            _ => vec![],
        };
        let mut inner = self.lock();
        inner.tallies[operation.ask.kind()].acknowledged += 1;
        let outcome = match (operation.ask, &operation.begun) {
            (Ask::Read { start, .. }, Some(begun)) => {
                let foreign =
                    stamps.iter().zip(start..).find_map(|(stamp, block)| Some((stamp.as_ref().err()?, block)));
                match foreign {
                    Some((what, block)) => {
                        Err(Violation { text: format!("a read returns {what}"), block: Some(block) })
                    }
                    None => {
                        let stamps: Vec<Option<Stamp>> =
                            stamps.iter().map(|stamp| stamp.as_ref().ok().copied()).collect();
                        inner.history.returned(begun, &stamps)
                    }
                }
            }
            (Ask::Write { .. } | Ask::Trim { .. }, Some(begun)) => {
                inner.answered_now();
                self.acknowledged_writes.fetch_add(1, Ordering::SeqCst);
                inner.history.acknowledged(begun, operation.epoch)
            }
            _ => Ok(()),
        };
        if let Err(found) = outcome {
            inner.violation.get_or_insert(found);
        }
    }

    /// It may have happened or not.
    pub fn failed(&self, operation: &Operation) {
        self.lock().tallies[operation.ask.kind()].failed += 1;
    }

    /// What was found while the guests were at work, if anything, with the story of the block.
    pub fn violation(&self) -> Option<String> {
        let inner = self.lock();
        inner.violation.as_ref().map(|found| story::tell(&self.name, &inner, found))
    }

    /// Checks every block. An error is the story of the first that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let inner = self.lock();
        let found = match &inner.violation {
            Some(found) => Err(found.clone()),
            None => inner.history.check(),
        };
        found.map_err(|found| story::tell(&self.name, &inner, &found))
    }

    pub fn summary(&self) -> Summary {
        let inner = self.lock();
        let [reads, writes, trims, flushes] = inner.tallies;
        let blocks = inner.history.touched().count() as u64;
        Summary { reads, writes, trims, flushes, longest_gap: inner.longest_gap, blocks, epoch: self.serving_epoch() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn mark(&mut self, what: String) {
        self.marks.push((self.history.point(), what));
    }

    fn answered_now(&mut self) {
        let now = Instant::now();
        let gap = self.last_answer.replace(now).map_or(Duration::ZERO, |last| now - last);
        self.longest_gap = self.longest_gap.max(gap);
    }
}

impl Ask {
    fn kind(self) -> usize {
        match self {
            Ask::Read { .. } => 0,
            Ask::Write { .. } => 1,
            Ask::Trim { .. } => 2,
            Ask::Flush => 3,
        }
    }
}

#[cfg(test)]
mod tests;
