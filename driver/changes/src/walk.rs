//! The ranges of a snapshot, or between two: one chunk's bitmaps in memory at a time, one question for each chunk.

use crate::error::Result;
use crate::replicas::Replicas;
use crate::span::{Listed, Span, Spans};
use ashlar_types::{BLOCK_BYTES, BlockIndex, ByteCount, CHUNK_BYTES, ChunkIndex, FloorRange, Lsn};

/// What is asked for, of the first `size` bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Absent: everything that does not read as zeros.
    pub base: Option<Lsn>,
    /// A snapshot's point, or `Lsn::MAX` for the present.
    pub target: Lsn,
    pub size: ByteCount,
}

impl Scope {
    /// The versions that are looked at; none if both points are one, or in the wrong order.
    pub fn floors(self) -> Option<FloorRange> {
        let floors = FloorRange { from: self.base.unwrap_or(Lsn::ZERO), below: self.target };
        floors.is_valid().then_some(floors)
    }

    /// What becomes ranges: with a base also what reads as zeros now, so that what was there can be taken away.
    pub fn listed(self) -> Listed {
        if self.base.is_some() { Listed::Set } else { Listed::Data }
    }

    pub fn end(self) -> BlockIndex {
        BlockIndex(self.size.0 / BLOCK_BYTES)
    }
}

/// How far one question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Span(Span),
    /// No range is whole yet.
    Onward,
    End,
}

#[derive(Debug)]
pub struct Walk {
    scope: Scope,
    listed: Listed,
    from: BlockIndex,
    next: ChunkIndex,
    spans: Spans,
}

impl Walk {
    /// Of what lies at `from` or behind it.
    pub fn new(scope: Scope, from: BlockIndex) -> Walk {
        Walk { scope, listed: scope.listed(), from, next: from.chunk(), spans: Spans::default() }
    }

    /// The same; what changed is one range whether it is data or zeros now.
    pub fn of_ranges(scope: Scope, from: BlockIndex) -> Walk {
        let listed = if scope.base.is_some() { Listed::SetAsData } else { Listed::Data };
        Walk { listed, ..Walk::new(scope, from) }
    }

    /// The next range; `None` at the end of the volume. After an error it may be called again.
    pub fn next(&mut self, replicas: &mut Replicas) -> Result<Option<Span>> {
        loop {
            match self.step(replicas)? {
                Step::Span(span) => return Ok(Some(span)),
                Step::Onward => {}
                Step::End => return Ok(None),
            }
        }
    }

    /// The same with at most one question, for who must be able to stop in an empty volume.
    pub fn step(&mut self, replicas: &mut Replicas) -> Result<Step> {
        if let Some(span) = self.spans.pop() {
            return Ok(span.within(self.from, self.scope.end()).map_or(Step::Onward, Step::Span));
        }
        let Some(floors) = self.scope.floors().filter(|_| !replicas.is_untouched()) else { return Ok(Step::End) };
        let chunks = self.scope.size.0.div_ceil(CHUNK_BYTES) as u32;
        if self.next.0 < chunks {
            let slots = replicas.list_blocks(self.next, floors)?;
            self.spans.add(self.next, &slots, self.listed);
            self.next.0 += 1;
            return Ok(Step::Onward);
        }
        Ok(if self.spans.close() { Step::Onward } else { Step::End })
    }
}
