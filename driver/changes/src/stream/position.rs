//! How far a stream has come: the same for who writes it and for who reads it.

use super::layout::{DATA_BYTES_MAX, HEADER_BYTES, Head, Identity, Kind};
use ashlar_types::{BLOCK_BYTES, BlockIndex, ByteCount, Crc32, Slip};
use crc32fast::Hasher;

/// What the frames of a stream carry together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub frames: u64,
    pub data: ByteCount,
    pub zeros: ByteCount,
}

#[derive(Clone, Debug)]
pub(super) struct Position {
    identity: Identity,
    totals: Totals,
    /// Where the last frame ends in the volume.
    end: u64,
    /// Bytes of the stream so far.
    at: u64,
    /// Of these bytes.
    before: Hasher,
}

impl Position {
    /// Behind the header.
    pub(super) fn new(identity: Identity) -> Position {
        let mut before = Hasher::new();
        before.update(&identity.encode());
        Position { identity, totals: Totals::default(), end: 0, at: HEADER_BYTES as u64, before }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The first block that no frame has come to.
    pub(super) fn next_block(&self) -> BlockIndex {
        BlockIndex(self.end / BLOCK_BYTES)
    }

    /// The head of the frame that may follow here.
    pub(super) fn head(&self, kind: Kind, offset: u64, length: u64, data: Crc32) -> Head {
        let before = Crc32(self.before.clone().finalize());
        Head { kind, sequence: self.totals.frames + 1, offset, length, before, data }
    }

    pub(super) fn end_head(&self) -> Head {
        self.head(Kind::End, self.totals.data.0, self.totals.zeros.0, Crc32::default())
    }

    /// What keeps the frame from following here.
    pub(super) fn fault(&self, head: &Head) -> Option<&'static str> {
        let expected = self.head(head.kind, head.offset, head.length, head.data);
        if head.sequence != expected.sequence {
            return Some("a frame is missing, or is there twice");
        }
        if head.before != expected.before {
            return Some("what is before a frame is not what its writer wrote there");
        }
        if head.kind == Kind::End {
            return (*head != self.end_head()).then_some("the totals are not those of the frames");
        }
        let aligned = head.offset.is_multiple_of(BLOCK_BYTES) && head.length.is_multiple_of(BLOCK_BYTES);
        let end = head.offset.checked_add(head.length);
        match end {
            _ if !aligned || head.length == 0 => Some("a frame that is not of whole blocks"),
            _ if head.offset < self.end && !Slip::FrameGoesBack.is_on() => Some("a frame before the last one"),
            None => Some("a frame beyond the end of the volume"),
            Some(end) if end > self.identity.size.0 => Some("a frame beyond the end of the volume"),
            _ if head.kind == Kind::Data && head.length > DATA_BYTES_MAX => Some("a frame that is too long"),
            _ if head.kind == Kind::Zeros && head.data != Crc32::default() => Some("a reserved field is not zero"),
            _ => None,
        }
    }

    /// The frame stands here. `data` is the checksum under way of its data.
    pub(super) fn pass(&mut self, head: &Head, data: &Hasher) {
        debug_assert!(self.fault(head).is_none());
        let encoded = head.encode();
        self.before.update(&encoded);
        self.at += encoded.len() as u64;
        match head.kind {
            Kind::Data => {
                self.before.combine(data);
                self.at += head.length;
                self.totals.data.0 += head.length;
            }
            Kind::Zeros => self.totals.zeros.0 += head.length,
            Kind::End => return,
        }
        self.totals.frames += 1;
        self.end = head.offset + head.length;
    }
}
