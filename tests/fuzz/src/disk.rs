//! A disk that costs nothing: pages that were never written are zeros without memory of their own.

use ashlar_engine::IndexEdit;
use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

const PAGE: usize = BLOCK_BYTES as usize;
/// The longest read that an engine asks for.
const ZEROS: &[u8] = &[0; 1 << 20];

/// Pages by their offset, and the durable index.
#[derive(Clone, Default)]
pub(crate) struct SparseDisk {
    pub(crate) pages: BTreeMap<u64, Bytes>,
    pub(crate) index: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl SparseDisk {
    pub(crate) fn read(&self, offset: ByteOffset, bytes: ByteCount) -> Bytes {
        let end = offset.0 + bytes.0;
        let Some((&first, _)) = self.pages.range(offset.0..end).next() else {
            return Bytes::from_static(&ZEROS[..bytes.0 as usize]);
        };
        assert!(first.is_multiple_of(BLOCK_BYTES) && offset.0.is_multiple_of(BLOCK_BYTES));
        let mut content = BytesMut::zeroed(bytes.0 as usize);
        for (&at, page) in self.pages.range(offset.0..end) {
            let at = (at - offset.0) as usize;
            content[at..at + PAGE].copy_from_slice(page);
        }
        content.freeze()
    }

    pub(crate) fn write(&mut self, offset: ByteOffset, parts: &[Bytes]) {
        let mut at = offset.0;
        for part in parts {
            assert!(at.is_multiple_of(BLOCK_BYTES) && part.len().is_multiple_of(PAGE), "whole blocks are written");
            for start in (0..part.len()).step_by(PAGE) {
                self.pages.insert(at, part.slice(start..start + PAGE));
                at += BLOCK_BYTES;
            }
        }
    }

    pub(crate) fn edit(&mut self, edits: Vec<IndexEdit>) {
        for edit in edits {
            match edit {
                IndexEdit::Put { key, value } => drop(self.index.insert(key, value)),
                IndexEdit::Delete { key } => drop(self.index.remove(&key)),
                IndexEdit::DeleteRange { from, until } => self.index.retain(|key, _| *key < from || *key >= until),
            }
        }
    }
}
