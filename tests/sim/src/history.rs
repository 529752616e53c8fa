//! What the guests of one volume saw: the accesses of each block, in one order of points; and which writers served
//! when.
//!
//! Checked here: each block is a linearizable register (see `register`), and no write that was begun after a newer
//! writer served is ever acknowledged to an older one (P3).

use crate::names::Writer;
use crate::register::{self, Access, Kind, NEVER, Point};
use crate::stamp::Stamp;
use ashlar_types::Epoch;
use std::collections::BTreeMap;

/// A guest's write or discard in the history.
#[derive(Clone, Debug)]
pub struct Begun {
    pub start: u64,
    pub count: u32,
    begun: Point,
    /// Place of each block's access in the block's history; empty for a read.
    places: Vec<usize>,
}

impl Begun {
    /// When it began.
    pub fn point(&self) -> Point {
        self.begun
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub text: String,
    /// The block, if the violation is about one.
    pub block: Option<u64>,
}

#[derive(Default)]
pub struct History {
    point: Point,
    blocks: BTreeMap<u64, Vec<Access>>,
    served: BTreeMap<Epoch, (Point, Writer)>,
    pub reads: u64,
    pub writes: u64,
}

impl History {
    pub fn next_point(&mut self) -> Point {
        self.point += 1;
        self.point
    }

    /// The latest point that was given out.
    pub fn point(&self) -> Point {
        self.point
    }

    /// What was done to a block, in the order of beginnings of writes and ends of reads.
    pub fn accesses(&self, block: u64) -> &[Access] {
        self.blocks.get(&block).map_or(&[], Vec::as_slice)
    }

    /// A writer begins to serve the volume.
    pub fn serves(&mut self, epoch: Epoch, writer: Writer) {
        let point = self.next_point();
        self.served.entry(epoch).or_insert((point, writer));
    }

    /// A guest begins a read.
    pub fn begin_read(&mut self, start: u64, count: u32) -> Begun {
        Begun { start, count, begun: self.next_point(), places: Vec::new() }
    }

    /// A guest begins a write of consecutive stamps from `first` on, or a discard (`Stamp::ZERO`).
    pub fn begin_write(&mut self, start: u64, count: u32, first: Stamp) -> Begun {
        let begun = self.next_point();
        let mut places = Vec::with_capacity(count as usize);
        for i in 0..u64::from(count) {
            let stamp = if first == Stamp::ZERO { first } else { Stamp(first.0 + i) };
            let block = self.blocks.entry(start + i).or_default();
            places.push(block.len());
            block.push(Access { kind: Kind::Write, stamp, start: begun, end: NEVER });
        }
        Begun { start, count, begun, places }
    }

    /// A write of `epoch` is acknowledged.
    pub fn acknowledged(&mut self, begun: &Begun, epoch: Epoch) -> Result<(), Violation> {
        let end = self.next_point();
        self.writes += 1;
        for (i, place) in begun.places.iter().enumerate() {
            let access = &mut self.blocks.get_mut(&(begun.start + i as u64)).expect("the write was begun")[*place];
            assert_eq!(access.end, NEVER);
            access.end = end;
        }
        match self
            .served
            .range(epoch.next().expect("epochs do not run out here")..)
            .find(|(_, (p, _))| *p < begun.begun)
        {
            Some((newer, (_, writer))) => Err(Violation {
                text: format!(
                    "epoch {epoch} acknowledges a write that was begun after {writer} of epoch {newer} served"
                ),
                block: Some(begun.start),
            }),
            None => Ok(()),
        }
    }

    /// A read returned these stamps; `None` is content that no single write made.
    pub fn returned(&mut self, begun: &Begun, stamps: &[Option<Stamp>]) -> Result<(), Violation> {
        let end = self.next_point();
        self.reads += 1;
        assert_eq!(stamps.len(), begun.count as usize);
        for (i, stamp) in stamps.iter().enumerate() {
            let block = begun.start + i as u64;
            let Some(stamp) = *stamp else {
                let text = "a read returns bytes that no single write made".to_owned();
                return Err(Violation { text, block: Some(block) });
            };
            let access = Access { kind: Kind::Read, stamp, start: begun.begun, end };
            self.blocks.entry(block).or_default().push(access);
        }
        Ok(())
    }

    /// What a snapshot has of a block: seen at some instant between the two points.
    pub fn seen_between(&mut self, block: u64, stamp: Stamp, start: Point, end: Point) {
        self.blocks.entry(block).or_default().push(Access { kind: Kind::Read, stamp, start, end });
    }

    /// What a block held before anyone wrote to it, where that is not zeros.
    pub fn begins_with(&mut self, block: u64, stamp: Stamp) {
        let beginning = Access { kind: Kind::Write, stamp, start: 0, end: 0 };
        let accesses = self.blocks.entry(block).or_default();
        let is_known = accesses.iter().any(|access| access.kind == Kind::Write && access.stamp == stamp);
        if stamp != Stamp::ZERO && !is_known {
            accesses.push(beginning);
        }
    }

    /// Two blocks, of which the content has a write to the first that began after one to the second ended, which it
    /// lacks.
    pub fn torn_cut(&self, content: &BTreeMap<u64, Stamp>) -> Option<[u64; 2]> {
        // Zeros have many sources.
        let written = content.iter().filter(|(_, stamp)| **stamp != Stamp::ZERO);
        let has = written.filter_map(|(&block, &stamp)| Some((self.write_of(block, stamp)?.start, block)));
        let lacks = content.iter().filter_map(|(&block, &stamp)| Some((self.first_end_after(block, stamp)?, block)));
        let ((began, has), (ended, lacks)) = (has.max()?, lacks.min()?);
        (began > ended).then_some([has, lacks])
    }

    fn write_of(&self, block: u64, stamp: Stamp) -> Option<&Access> {
        self.accesses(block).iter().find(|access| access.kind == Kind::Write && access.stamp == stamp)
    }

    /// When the first write ended that began after the one with this stamp had ended. Zeros of a block that was
    /// discarded have many sources.
    fn first_end_after(&self, block: u64, stamp: Stamp) -> Option<Point> {
        let writes = || self.accesses(block).iter().filter(|access| access.kind == Kind::Write);
        let ended = match stamp {
            Stamp::ZERO if writes().any(|write| write.stamp == Stamp::ZERO) => return None,
            Stamp::ZERO => 0,
            _ => self.write_of(block, stamp)?.end,
        };
        let later = writes().filter(|write| write.start > ended).map(|write| write.end);
        later.min().filter(|&end| end != NEVER)
    }

    /// Checks every block.
    pub fn check(&self) -> Result<(), Violation> {
        for (&block, accesses) in &self.blocks {
            register::check(accesses).map_err(|found| Violation { text: found.text, block: Some(block) })?;
        }
        Ok(())
    }

    /// Blocks that were ever accessed.
    pub fn touched(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }
}
