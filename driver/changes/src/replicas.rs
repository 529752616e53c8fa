//! The in-sync replicas of a volume, asked one at a time: the next one when one fails, an error when all have.
//!
//! A replica that was in-sync when the record was read has everything below each of the record's snapshots, and keeps
//! it: what it loses, it refuses or says that it is incomplete. So a record need not be read again for an answer to be
//! right. One that failed is asked again only after all others have failed too.

use crate::error::{ChangesError, Result};
use crate::observer::{Content, Observer};
use ashlar_types::{
    BLOCK_BYTES, BlockCount, ChunkIndex, ChunkRange, Epoch, FloorRange, Lsn, MemberState, VolumeRecord,
};
use ashlar_wire::SlotBlocks;
use ashlar_wire::limits::BLOCKS_PER_FRAME_MAX;
use bytes::{Bytes, BytesMut};

#[derive(Debug)]
pub struct Replicas {
    record: VolumeRecord,
    /// Where the chunkserver of each member listens, by its index in the record.
    addresses: Vec<String>,
    links: Vec<Link>,
}

#[derive(Debug)]
enum Link {
    Untried,
    Up(Observer),
    Down,
}

impl Replicas {
    /// `addresses` has one for each member of the record, empty where none is known.
    pub fn new(record: VolumeRecord, addresses: Vec<String>) -> Replicas {
        assert_eq!(record.members.len(), addresses.len(), "an address for each member");
        let links = record.members.iter().map(|_| Link::Untried).collect();
        Replicas { record, addresses, links }
    }

    pub fn record(&self) -> &VolumeRecord {
        &self.record
    }

    /// No writer ever served the volume: it has no replicas yet, and is zeros.
    pub(crate) fn is_untouched(&self) -> bool {
        self.record.served == Epoch::NONE
    }

    /// Which blocks of the chunk the versions among `floors` say something of.
    pub fn list_blocks(&mut self, chunk: ChunkIndex, floors: FloorRange) -> Result<Vec<SlotBlocks>> {
        let mut tried = Vec::new();
        for member in self.in_order(chunk) {
            match self.ask(member, |observer| observer.list_blocks(chunk, floors)) {
                Ok(slots) => return Ok(slots),
                Err(error) => tried.push(self.told(member, &error)),
            }
        }
        Err(ChangesError::NoReplica { what: format!("lists chunk {chunk}"), tried: tried.join("; ") })
    }

    /// The blocks as they were at the point `below`, each from the first replica that has it whole. At most a frame.
    pub fn read(&mut self, range: ChunkRange, below: Lsn) -> Result<Bytes> {
        assert!(range.is_valid() && range.count.0 <= BLOCKS_PER_FRAME_MAX);
        let mut blocks: Vec<Option<Bytes>> = vec![None; range.count.0 as usize];
        let mut tried = Vec::new();
        for member in self.in_order(range.chunk) {
            let asked = missing_in(range, &blocks);
            let failed = asked.into_iter().try_for_each(|missing| {
                let content = self.ask(member, |observer| read_from(observer, missing, below))?;
                take_over(&content, missing, range, &mut blocks);
                Ok(())
            });
            let missing = missing_in(range, &blocks);
            match (failed, missing.first()) {
                (_, None) => return Ok(joined(blocks)),
                (Err(error), _) => tried.push(self.told(member, &error)),
                (Ok(()), Some(bad)) => {
                    tried.push(format!("{}: block {} is bad", self.name(member), bad.volume_start()))
                }
            }
        }
        let block = missing_in(range, &blocks).first().map_or(range.volume_start(), |missing| missing.volume_start());
        Err(ChangesError::Unreadable { block, tried: tried.join("; ") })
    }

    /// In-sync members that hold the chunk: those that answer, those that were not asked yet, those that failed.
    fn in_order(&self, chunk: ChunkIndex) -> Vec<u16> {
        let in_sync = |index: &u16| self.record.members[usize::from(*index)].state == MemberState::InSync;
        let mut members: Vec<u16> = self.record.members_of(chunk).iter().copied().filter(in_sync).collect();
        members.sort_by_key(|&index| match self.links[usize::from(index)] {
            Link::Up(_) => 0,
            Link::Untried => 1,
            Link::Down => 2,
        });
        members
    }

    fn ask<T>(&mut self, member: u16, request: impl FnOnce(&mut Observer) -> Result<T>) -> Result<T> {
        let at = usize::from(member);
        let mut observer = match std::mem::replace(&mut self.links[at], Link::Down) {
            Link::Up(observer) => observer,
            Link::Untried | Link::Down => {
                Observer::connect(&self.addresses[at], &self.record, self.record.members[at].disk)?
            }
        };
        let answered = request(&mut observer);
        if answered.as_ref().err().is_none_or(ChangesError::is_answer) {
            self.links[at] = Link::Up(observer);
        }
        answered
    }

    fn name(&self, member: u16) -> String {
        let member = &self.record.members[usize::from(member)];
        format!("disk {} on {}", member.disk, member.node)
    }

    fn told(&self, member: u16, error: &ChangesError) -> String {
        format!("{}: {}", self.name(member), error.whole())
    }
}

fn read_from(observer: &mut Observer, range: ChunkRange, below: Lsn) -> Result<Content> {
    observer.look_at(below);
    observer.ask_for(range)?;
    observer.content(range)
}

/// The parts of the range that nobody gave yet.
fn missing_in(range: ChunkRange, blocks: &[Option<Bytes>]) -> Vec<ChunkRange> {
    let mut runs: Vec<ChunkRange> = Vec::new();
    for at in (0..range.count.0).filter(|at| blocks[*at as usize].is_none()) {
        let start = range.start.offset_by(BlockCount(at));
        match runs.last_mut() {
            Some(run) if run.end() == start => run.count.0 += 1,
            _ => runs.push(ChunkRange { start, count: BlockCount(1), ..range }),
        }
    }
    runs
}

fn take_over(content: &Content, part: ChunkRange, range: ChunkRange, blocks: &mut [Option<Bytes>]) {
    let first = (part.start.0 - range.start.0) as usize;
    for at in 0..part.count.0 {
        blocks[first + at as usize] = content.block(at).map(|(_, bytes)| bytes.clone());
    }
}

fn joined(blocks: Vec<Option<Bytes>>) -> Bytes {
    let mut data = BytesMut::with_capacity(blocks.len() * BLOCK_BYTES as usize);
    blocks.into_iter().flatten().for_each(|block| data.extend_from_slice(&block));
    data.freeze()
}

#[cfg(test)]
pub(crate) mod tests;
