//! A guest whose blocks say what they are: each 4 KiB block carries its own number and a generation that grows with
//! every write of it.
//!
//! Invariant per block, whatever dies: `acknowledged ≤ generation read ≤ sent`, and the content is wholly that
//! generation's. The same of a snapshot: what was acknowledged before it was asked for, and what was sent until it was
//! taken.

use crate::NbdClient;
use anyhow::{Context, Result, ensure};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const BLOCK_BYTES: usize = 4096;
/// Writes that wait for their answer at the same time.
const WINDOW: usize = 16;
const BLOCKS_PER_WRITE_MAX: u64 = 24;
const BLOCKS_PER_READ: usize = 64;
const BLOCKS_PER_FILL: usize = 256;

/// The last generations of one block.
#[derive(Default)]
struct Block {
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

/// A guest's knowledge, for others to look at while it writes.
#[derive(Clone)]
pub struct Stamps(Arc<[Block]>);

impl Stamps {
    pub fn acknowledged(&self) -> Vec<u64> {
        self.0.iter().map(|block| block.acknowledged.load(Ordering::SeqCst)).collect()
    }

    pub fn sent(&self) -> Vec<u64> {
        self.0.iter().map(|block| block.sent.load(Ordering::SeqCst)).collect()
    }
}

/// What may be read: of each block a generation that is neither older nor newer.
pub struct StampBounds {
    oldest: Vec<u64>,
    newest: Vec<u64>,
}

impl StampBounds {
    pub fn new(oldest: Vec<u64>, newest: Vec<u64>) -> StampBounds {
        assert_eq!(oldest.len(), newest.len());
        StampBounds { oldest, newest }
    }

    /// Checks blocks that were read from `first` on. From then on they must be what they were now.
    pub fn check(&mut self, first: usize, data: &[u8]) -> Result<()> {
        for (number, bytes) in (first..).zip(data.chunks_exact(BLOCK_BYTES)) {
            let generation = generation_of(number as u64, bytes)?;
            let (oldest, newest) = (self.oldest[number], self.newest[number]);
            ensure!(generation >= oldest, "block {number}: {oldest} was acknowledged, {generation} is there");
            ensure!(generation <= newest, "block {number}: {newest} was sent last, {generation} is there");
            (self.oldest[number], self.newest[number]) = (generation, generation);
        }
        Ok(())
    }

    /// Reads every block of a device and checks it.
    pub fn verify(&mut self, client: &mut NbdClient) -> Result<()> {
        for start in (0..self.oldest.len()).step_by(BLOCKS_PER_READ) {
            let count = BLOCKS_PER_READ.min(self.oldest.len() - start);
            let data = client.read((start * BLOCK_BYTES) as u64, (count * BLOCK_BYTES) as u32)?;
            self.check(start, &data)?;
        }
        Ok(())
    }
}

/// What one guest knows of its device.
pub struct StampedGuest {
    blocks: Stamps,
    random: u64,
    /// Cookie -> first block and count of a write under way.
    under_way: HashMap<u64, (usize, usize)>,
}

impl StampedGuest {
    /// Uses the first `blocks` blocks of the device. The same seed gives the same writes.
    pub fn new(blocks: usize, seed: u64) -> StampedGuest {
        let blocks = Stamps((0..blocks).map(|_| Block::default()).collect());
        StampedGuest { blocks, random: seed | 1, under_way: HashMap::new() }
    }

    pub fn stamps(&self) -> Stamps {
        self.blocks.clone()
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks.0
    }

    /// Writes at random places until `writes` are acknowledged or the server goes; counts in `done` while it does.
    /// Writes that are under way never overlap: what the device may do with those that do is not this guest's
    /// question.
    pub fn write(&mut self, client: &mut NbdClient, writes: u64, done: &AtomicU64) -> Result<()> {
        self.under_way.clear();
        let mut submitted = 0;
        let mut acknowledged = 0;
        while acknowledged < writes {
            while submitted < writes && self.under_way.len() < WINDOW {
                self.submit(client)?;
                submitted += 1;
            }
            let reply = client.next_reply()?;
            ensure!(reply.error == 0, "a write was answered with error {}", reply.error);
            let (first, count) = self.under_way.remove(&reply.cookie).context("an answer to a write under way")?;
            self.acknowledged(first..first + count);
            acknowledged += 1;
            done.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn submit(&mut self, client: &mut NbdClient) -> Result<()> {
        let (first, count) = self.free_place();
        let data: Vec<u8> = (first..first + count).flat_map(|number| self.next_content(number)).collect();
        let cookie = client.submit_write((first * BLOCK_BYTES) as u64, &data)?;
        self.under_way.insert(cookie, (first, count));
        Ok(())
    }

    /// A place that no write under way touches: there is one, as the device is far larger than the window.
    fn free_place(&mut self) -> (usize, usize) {
        assert!(self.blocks().len() > 4 * WINDOW * BLOCKS_PER_WRITE_MAX as usize);
        loop {
            let count = (1 + self.next_random() % BLOCKS_PER_WRITE_MAX) as usize;
            let first = (self.next_random() % (self.blocks().len() - count) as u64) as usize;
            let taken = |&(other, length): &(usize, usize)| first < other + length && other < first + count;
            if !self.under_way.values().any(taken) {
                return (first, count);
            }
        }
    }

    /// Writes every block once, from the first to the last.
    pub fn fill(&mut self, client: &mut NbdClient) -> Result<()> {
        for first in (0..self.blocks().len()).step_by(BLOCKS_PER_FILL) {
            let range = first..self.blocks().len().min(first + BLOCKS_PER_FILL);
            let data: Vec<u8> = range.clone().flat_map(|number| self.next_content(number)).collect();
            client.write((first * BLOCK_BYTES) as u64, &data)?;
            self.acknowledged(range);
        }
        Ok(())
    }

    fn next_content(&self, number: usize) -> Vec<u8> {
        content(number as u64, 1 + self.blocks()[number].sent.fetch_add(1, Ordering::SeqCst))
    }

    fn acknowledged(&self, range: Range<usize>) {
        for block in &self.blocks()[range] {
            block.acknowledged.store(block.sent.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    /// Reads every block and checks the invariant. What was read is then what later reads must not fall behind.
    pub fn verify(&mut self, client: &mut NbdClient) -> Result<()> {
        let mut bounds = StampBounds::new(self.blocks.acknowledged(), self.blocks.sent());
        bounds.verify(client)?;
        for (block, &generation) in self.blocks().iter().zip(&bounds.oldest) {
            block.acknowledged.store(generation, Ordering::SeqCst);
            block.sent.store(generation, Ordering::SeqCst);
        }
        Ok(())
    }

    /// xorshift64 (Marsaglia 2003).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// A copy knows the same of a clone of the device; from then on each has its own.
impl Clone for StampedGuest {
    fn clone(&self) -> StampedGuest {
        let copied = self.blocks().iter().map(|block| Block {
            acknowledged: block.acknowledged.load(Ordering::SeqCst).into(),
            sent: block.sent.load(Ordering::SeqCst).into(),
        });
        let blocks = Stamps(copied.collect());
        StampedGuest { blocks, random: self.random, under_way: self.under_way.clone() }
    }
}

/// Number, generation, and words that follow from both. Generation 0 is a block that was never written: zeros.
fn content(number: u64, generation: u64) -> Vec<u8> {
    if generation == 0 {
        return vec![0; BLOCK_BYTES];
    }
    let words = (0..BLOCK_BYTES as u64 / 8).map(|at| match at {
        0 => number,
        1 => generation,
        _ => (number << 32 ^ generation).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 % 64) ^ at,
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn generation_of(number: u64, bytes: &[u8]) -> Result<u64> {
    let generation = u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes"));
    ensure!(bytes == content(number, generation), "block {number} is torn or not its own (generation {generation})");
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_generation_and_a_foreign_or_torn_one_is_noticed() {
        for generation in [0, 1, 7] {
            assert_eq!(generation_of(5, &content(5, generation)).unwrap(), generation);
        }
        assert!(generation_of(6, &content(5, 1)).is_err());
        let mut torn = content(5, 2);
        torn[2048..].copy_from_slice(&content(5, 1)[2048..]);
        assert!(generation_of(5, &torn).is_err());
    }

    #[test]
    fn a_block_that_was_read_once_must_be_the_same_when_it_is_read_again() {
        let mut bounds = StampBounds::new(vec![0, 2], vec![9, 4]);
        assert!(bounds.check(1, &content(1, 1)).is_err() && bounds.check(1, &content(1, 5)).is_err());
        bounds.check(1, &content(1, 3)).unwrap();
        assert!(bounds.check(1, &content(1, 2)).is_err() && bounds.check(1, &content(1, 4)).is_err());
        bounds.check(0, &[content(0, 7), content(1, 3)].concat()).unwrap();
    }
}
