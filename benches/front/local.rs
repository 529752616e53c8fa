//! Operations of a guest on one local file: O_DIRECT, durable when they are answered, nothing checked, nothing copied.

use anyhow::{Context, Result};
use ashlar_reactor::{Completion, FileId, Reactor};
use ashlar_types::{BLOCK_BYTES, ByteCount, ByteOffset};
use ashlar_volume::{GuestError, GuestOp, Tag};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Zeros are written in pieces of at most this.
const ZEROS_BYTES: u64 = 1 << 20;

pub(crate) struct LocalFile {
    file: FileId,
    zeros: Bytes,
    /// Operation -> completions that it still awaits, and whether one has failed.
    under_way: HashMap<Tag, (u64, bool)>,
    /// A flush has nothing to do.
    finished: VecDeque<Tag>,
}

impl LocalFile {
    pub(crate) fn open(reactor: &mut Reactor, path: &Path) -> Result<LocalFile> {
        let direct = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_DIRECT).open(path);
        let file = reactor.add_file(direct.with_context(|| format!("open {}", path.display()))?);
        let mut zeros = reactor.buffer_pool().take(ZEROS_BYTES as usize);
        zeros.fill(0);
        Ok(LocalFile { file, zeros: zeros.freeze(), under_way: HashMap::new(), finished: VecDeque::new() })
    }

    pub(crate) fn begin(&mut self, reactor: &mut Reactor, operations: Vec<(Tag, GuestOp)>) {
        for (tag, operation) in operations {
            let awaited = match operation {
                GuestOp::Flush => {
                    self.finished.push_back(tag);
                    continue;
                }
                GuestOp::Read { start, count, .. } => {
                    reactor.read(self.file, start.byte_offset(), count.bytes(), tag.0);
                    1
                }
                GuestOp::Write { start, data } => {
                    reactor.write(self.file, start.byte_offset(), vec![data], true, tag.0);
                    1
                }
                GuestOp::Discard { start, count } => {
                    self.write_zeros(reactor, start.byte_offset(), ByteCount(u64::from(count.0) * BLOCK_BYTES), tag)
                }
            };
            self.under_way.insert(tag, (awaited, false));
        }
    }

    /// Gives the number of writes.
    fn write_zeros(&self, reactor: &mut Reactor, offset: ByteOffset, bytes: ByteCount, tag: Tag) -> u64 {
        let pieces = bytes.0.div_ceil(ZEROS_BYTES);
        for piece in 0..pieces {
            let from = piece * ZEROS_BYTES;
            let zeros = self.zeros.slice(..ZEROS_BYTES.min(bytes.0 - from) as usize);
            reactor.write(self.file, ByteOffset(offset.0 + from), vec![zeros], true, tag.0);
        }
        pieces
    }

    /// The operation that a completion ends.
    pub(crate) fn completed(&mut self, completion: Completion) -> Option<(Tag, Result<Bytes, GuestError>)> {
        let (token, result) = match completion {
            Completion::Read { token, result } => (token, result),
            Completion::Write { token, result } => (token, result.map(|()| Bytes::new())),
            _ => return None,
        };
        let tag = Tag(token);
        let (awaited, failed) = self.under_way.get_mut(&tag).expect("what completes was begun");
        *awaited -= 1;
        *failed |= result.is_err();
        if *awaited > 0 {
            return None;
        }
        let (_, failed) = self.under_way.remove(&tag).expect("looked up above");
        Some((
            tag,
            result.map_err(|_| GuestError::Lost).and_then(|data| if failed { Err(GuestError::Lost) } else { Ok(data) }),
        ))
    }

    pub(crate) fn finished(&mut self) -> Option<(Tag, Result<Bytes, GuestError>)> {
        self.finished.pop_front().map(|tag| (tag, Ok(Bytes::new())))
    }
}
