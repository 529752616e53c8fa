//! The simulated disk: a live image, a durable one, and in order what separates them.
//!
//! A durable write is safe when it is done; a flush makes safe what was done before it was submitted. When the power
//! goes, any 512-byte sectors of the rest persist, in flight or not. The index takes its edits all or none.

use ashlar_engine::{Action, IndexEdit, OpToken};
use bytes::{Bytes, BytesMut};
use rustc_hash::{FxHashMap, FxHasher};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

pub const PAGE: usize = 4096;
pub const SECTOR: usize = 512;
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// How the disk breaks its word. The checker must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    None,
    /// A durable write is in the cache when it is done.
    DurableIsNot,
    /// A flush does nothing.
    FlushIsNothing,
    /// The index keeps the second half of a commit that was cut off: the position without what comes before it.
    CommitInHalves,
}

/// The content of a disk, with a hash that tells two contents apart.
#[derive(Clone, Default)]
pub struct Image {
    pages: FxHashMap<u64, Bytes>,
    hash: u64,
}

impl Image {
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn put(&mut self, page: u64, content: Bytes) {
        self.hash ^= hash_of(page, &content);
        if let Some(old) = self.pages.insert(page, content) {
            self.hash ^= hash_of(page, &old);
        }
    }

    /// Some sectors of a page, by bit.
    fn put_sectors(&mut self, page: u64, content: &Bytes, sectors: u8) {
        let mut bytes = self.pages.get(&page).map_or_else(|| BytesMut::zeroed(PAGE), |old| BytesMut::from(&old[..]));
        for at in (0..PAGE / SECTOR).filter(|sector| sectors & (1 << sector) != 0).map(|sector| sector * SECTOR) {
            bytes[at..at + SECTOR].copy_from_slice(&content[at..at + SECTOR]);
        }
        self.put(page, bytes.freeze());
    }

    pub fn read(&self, offset: u64, length: u64) -> Bytes {
        let pages = offset / PAGE as u64..(offset + length) / PAGE as u64;
        if length as usize <= ZEROS.len() && pages.clone().all(|page| !self.pages.contains_key(&page)) {
            return Bytes::from_static(&ZEROS[..length as usize]);
        }
        let mut bytes = BytesMut::with_capacity(length as usize);
        for page in pages {
            bytes.extend_from_slice(self.pages.get(&page).map_or(&ZEROS[..PAGE], |content| content));
        }
        bytes.freeze()
    }

    /// Sectors of `content` that differ from what is there.
    fn changed_sectors(&self, page: u64, content: &Bytes) -> u8 {
        let old = self.pages.get(&page).map_or(&ZEROS[..PAGE], |old| old);
        let differs = |sector: &usize| {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            old[range.clone()] != content[range]
        };
        (0..PAGE / SECTOR).filter(differs).fold(0, |mask, sector| mask | 1 << sector)
    }
}

fn hash_of(page: u64, content: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    page.hash(&mut hasher);
    hasher.write(content);
    hasher.finish()
}

pub type Index = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a disk is when its power has gone.
#[derive(Clone, Default)]
pub struct Durable {
    pub image: Image,
    pub index: Index,
}

impl Durable {
    pub fn hash(&self) -> u64 {
        let mut hasher = FxHasher::default();
        self.index.hash(&mut hasher);
        self.image.hash() ^ hasher.finish().rotate_left(17)
    }

    pub fn edit(&mut self, edits: &[IndexEdit]) {
        for edit in edits {
            match edit {
                IndexEdit::Put { key, value } => drop(self.index.insert(key.clone(), value.clone())),
                IndexEdit::Delete { key } => drop(self.index.remove(key)),
                IndexEdit::DeleteRange { from, until } => self.index.retain(|key, _| key < from || key >= until),
            }
        }
    }
}

#[derive(Default)]
pub struct Disk {
    pub lie: Lie,
    pub durable: Durable,
    live: Image,
    /// Done and not safe, in order.
    unflushed: Vec<(u64, Bytes)>,
    /// How much of `unflushed` a flush under way covers.
    covers: BTreeMap<OpToken, usize>,
}

/// A sector that may or may not be there after the cut: the place of its write in `Cut::writes`, and its number.
pub type Loose = (usize, u8);

/// What the power's going leaves open.
pub struct Cut<'a> {
    base: &'a Durable,
    writes: Vec<(u64, Bytes)>,
    pub loose: Vec<Loose>,
    pub commits: Vec<&'a [IndexEdit]>,
    lie: Lie,
}

impl Disk {
    pub fn new(durable: Durable, lie: Lie) -> Disk {
        Disk { lie, live: durable.image.clone(), durable, ..Disk::default() }
    }

    pub fn read(&self, offset: u64, length: u64) -> Bytes {
        self.live.read(offset, length)
    }

    pub fn note_flush(&mut self, op: OpToken) {
        self.covers.insert(op, self.unflushed.len());
    }

    /// A write is done.
    pub fn write(&mut self, offset: u64, parts: &[Bytes], durable: bool) {
        for (page, content) in pages(offset, parts) {
            self.live.put(page, content.clone());
            match durable && self.lie != Lie::DurableIsNot {
                true => self.durable.image.put(page, content),
                false => self.unflushed.push((page, content)),
            }
        }
    }

    /// A flush is done.
    pub fn flush(&mut self, op: OpToken) {
        let covered = self.covers.remove(&op).expect("the flush was submitted");
        let gone: Vec<_> = self.unflushed.drain(..covered).collect();
        self.covers.values_mut().for_each(|covers| *covers = covers.saturating_sub(covered));
        if self.lie != Lie::FlushIsNothing {
            gone.into_iter().for_each(|(page, content)| self.durable.image.put(page, content));
        }
    }

    /// What the power's going would leave open now, with `in_flight` under way.
    pub fn cut<'a>(&'a self, in_flight: &'a [Action]) -> Cut<'a> {
        let mut writes = self.unflushed.clone();
        let mut commits = Vec::new();
        for action in in_flight {
            match action {
                Action::Write { offset, parts, .. } => writes.extend(pages(offset.0, parts)),
                Action::Commit { edits, .. } => commits.push(&edits[..]),
                _ => {}
            }
        }
        let mut loose = Vec::new();
        for (at, (page, content)) in writes.iter().enumerate() {
            let changed = self.durable.image.changed_sectors(*page, content);
            loose.extend((0..8u8).filter(|sector| changed & (1 << sector) != 0).map(|sector| (at, sector)));
        }
        Cut { base: &self.durable, writes, loose, commits, lie: self.lie }
    }
}

impl Cut<'_> {
    /// The disk with those loose sectors that `kept` says, and with the commits under way or without.
    pub fn outcome(&self, kept: &[bool], committed: bool) -> Durable {
        let mut after = self.base.clone();
        let mut at = 0;
        for (number, (page, content)) in self.writes.iter().enumerate() {
            let mut sectors = 0u8;
            while self.loose.get(at).is_some_and(|(write, _)| *write == number) {
                if kept[at] {
                    sectors |= 1 << self.loose[at].1;
                }
                at += 1;
            }
            if sectors != 0 {
                after.image.put_sectors(*page, content, sectors);
            }
        }
        for edits in &self.commits {
            match (committed, self.lie) {
                (true, _) => after.edit(edits),
                (false, Lie::CommitInHalves) => after.edit(&edits[edits.len() / 2..]),
                (false, _) => {}
            }
        }
        after
    }
}

fn pages(offset: u64, parts: &[Bytes]) -> impl Iterator<Item = (u64, Bytes)> + '_ {
    let first = offset / PAGE as u64;
    let cut = |part: &Bytes| {
        let part = part.clone();
        (0..part.len() / PAGE).map(move |i| part.slice(i * PAGE..(i + 1) * PAGE))
    };
    parts.iter().flat_map(cut).enumerate().map(move |(i, content)| (first + i as u64, content))
}
