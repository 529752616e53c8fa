//! Files and block devices: reads, writes and flushes. The order of writes is the caller's: two in flight may end in
//! any order.

use super::Reactor;
use crate::limits::{ALIGNMENT, READ_BYTES_MAX, WRITE_BYTES_MAX};
use crate::operation::{FlushOp, OpenFile, Operation, Parts, ReadOp, WriteOp};
use crate::staging::stage_for_direct;
use crate::{Completion, FileId};
use ashlar_types::{ByteCount, ByteOffset};
use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io;
use std::rc::Rc;

impl Reactor {
    /// Takes the file. With O_DIRECT offsets and lengths must be multiples of the medium's block.
    pub fn add_file(&mut self, file: File) -> FileId {
        let flags = fcntl(&file, FcntlArg::F_GETFL).expect("an open file has flags");
        let direct = OFlag::from_bits_retain(flags).contains(OFlag::O_DIRECT);
        FileId(self.files.insert(Rc::new(OpenFile { file, direct })))
    }

    /// The file takes no further operations; it is closed when those in flight have completed.
    pub fn close_file(&mut self, file: FileId) {
        if self.files.remove(file.0).is_none() {
            self.stats.stale_calls += 1;
        }
    }

    /// Reads exactly so many bytes. Completes as [`Completion::Read`].
    pub fn read(&mut self, file: FileId, offset: ByteOffset, bytes: ByteCount, token: u64) {
        let bytes = usize::try_from(bytes.0).ok().filter(|bytes| (1..=READ_BYTES_MAX).contains(bytes));
        match (self.open_file(file), bytes) {
            (Ok(file), Some(bytes)) => {
                let buffer = self.pool.take(bytes);
                self.ring.start(Operation::Read(ReadOp { file, token, offset: offset.0, buffer, done: 0 }));
            }
            (Err(error), _) => self.ready.push(Completion::Read { token, result: Err(error) }),
            (Ok(_), None) => self.ready.push(Completion::Read { token, result: Err(length_out_of_bounds()) }),
        }
    }

    /// Writes the parts one after the other from `offset`, on stable media if `durable`. Parts that a direct file
    /// could not take from where they are in memory are copied. Completes as [`Completion::Write`].
    pub fn write(&mut self, file: FileId, offset: ByteOffset, parts: Vec<Bytes>, durable: bool, token: u64) {
        match self.prepare_write(file, parts) {
            Ok((file, parts)) => {
                self.ring.start(Operation::Write(WriteOp { file, token, offset: offset.0, parts, durable }));
            }
            Err(error) => self.ready.push(Completion::Write { token, result: Err(error) }),
        }
    }

    /// Brings every completed write to stable media. Completes as [`Completion::Flush`].
    pub fn flush(&mut self, file: FileId, token: u64) {
        match self.open_file(file) {
            Ok(file) => {
                self.ring.start(Operation::Flush(FlushOp { file, token }));
            }
            Err(error) => self.ready.push(Completion::Flush { token, result: Err(error) }),
        }
    }

    fn open_file(&self, file: FileId) -> io::Result<Rc<OpenFile>> {
        self.files.get(file.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn prepare_write(&self, file: FileId, parts: Vec<Bytes>) -> io::Result<(Rc<OpenFile>, Parts)> {
        let file = self.open_file(file)?;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        if !(1..=WRITE_BYTES_MAX).contains(&bytes) {
            return Err(length_out_of_bounds());
        }
        let mut queued = Parts::new();
        if file.direct {
            stage_for_direct(&parts, &self.pool, |part| queued.push(part));
        } else {
            parts.into_iter().for_each(|part| queued.push(part));
        }
        assert_eq!(queued.bytes(), bytes);
        Ok((file, queued))
    }

    pub(super) fn finish_read(&mut self, mut read: ReadOp, result: io::Result<usize>) {
        let token = read.token;
        let result = match result {
            Ok(count) => {
                self.stats.read_bytes += count as u64;
                read.done += count;
                // A direct read that stops within a block has met the end of the file, and could not go on from there
                // anyway.
                let at_end = count == 0 || (read.file.direct && !read.done.is_multiple_of(ALIGNMENT));
                match read.done == read.buffer.len() {
                    true => Ok(read.buffer.freeze()),
                    false if at_end => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    false => return self.go_on(Operation::Read(read)),
                }
            }
            Err(error) if is_interrupted(&error) => return self.go_on(Operation::Read(read)),
            Err(error) => Err(error),
        };
        self.ready.push(Completion::Read { token, result });
    }

    pub(super) fn finish_write(&mut self, mut write: WriteOp, result: io::Result<usize>) {
        let token = write.token;
        let result = match result {
            Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(count) => {
                self.stats.written_bytes += count as u64;
                write.parts.advance(count);
                write.offset += count as u64;
                if !write.parts.is_empty() {
                    return self.go_on(Operation::Write(write));
                }
                Ok(())
            }
            Err(error) if is_interrupted(&error) => return self.go_on(Operation::Write(write)),
            Err(error) => Err(error),
        };
        self.ready.push(Completion::Write { token, result });
    }

    pub(super) fn finish_flush(&mut self, flush: FlushOp, result: io::Result<usize>) {
        match result {
            Err(error) if is_interrupted(&error) => self.go_on(Operation::Flush(flush)),
            result => self.ready.push(Completion::Flush { token: flush.token, result: result.map(|_| ()) }),
        }
    }

    fn go_on(&mut self, operation: Operation) {
        self.ring.start(operation);
    }
}

fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

fn length_out_of_bounds() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the length is zero or beyond the bound of one operation")
}
