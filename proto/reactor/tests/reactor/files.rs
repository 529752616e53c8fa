//! Files: what is written is read back, and what cannot be done is an error, never a wrong answer.

use crate::harness::{Loop, pattern};
use ashlar_reactor::{BufferPool, Completion, FileId};
use ashlar_types::{ByteCount, ByteOffset};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;

fn file_of(content: &[u8], flags: i32) -> File {
    let named = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(named.path(), content).unwrap();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(named.path()).unwrap()
}

fn direct_file(at: &mut Loop, content: &[u8]) -> FileId {
    at.reactor.add_file(file_of(content, libc::O_DIRECT))
}

fn read(at: &mut Loop, file: FileId, offset: u64, bytes: u64) -> std::io::Result<Bytes> {
    at.reactor.read(file, ByteOffset(offset), ByteCount(bytes), 0);
    at.read_result()
}

fn aligned(pool: &BufferPool, content: &[u8]) -> Bytes {
    let mut buffer = pool.take(content.len());
    buffer.copy_from_slice(content);
    buffer.freeze()
}

#[test]
fn what_is_written_durably_is_read_back_into_aligned_memory() {
    let mut at = Loop::new();
    let file = direct_file(&mut at, &[]);
    let content = pattern(3 * 4096, 1);
    let parts =
        vec![aligned(at.reactor.buffer_pool(), &content[..4096]), aligned(at.reactor.buffer_pool(), &content[4096..])];
    at.reactor.write(file, ByteOffset(8192), parts, true, 17);
    assert!(matches!(at.next(), Completion::Write { token: 17, result: Ok(()) }));
    let back = read(&mut at, file, 8192, 3 * 4096).unwrap();
    assert_eq!(back, content);
    assert_eq!(back.as_ptr() as usize % 4096, 0);
    at.reactor.flush(file, 18);
    assert!(matches!(at.next(), Completion::Flush { token: 18, result: Ok(()) }));
}

#[test]
fn parts_that_a_direct_file_cannot_take_are_copied() {
    let mut at = Loop::new();
    let file = direct_file(&mut at, &[]);
    let content = pattern(5 * 4096, 2);
    let parts = vec![
        content.slice(..100),
        Bytes::new(),
        content.slice(100..4096),
        aligned(at.reactor.buffer_pool(), &content[4096..8192]),
        content.slice(8192..8193),
        content.slice(8193..),
    ];
    at.reactor.write(file, ByteOffset(0), parts, false, 0);
    at.write_result().unwrap();
    assert_eq!(read(&mut at, file, 0, 5 * 4096).unwrap(), content);
}

#[test]
fn a_write_of_more_parts_than_one_call_takes_is_continued() {
    let mut at = Loop::new();
    let file = direct_file(&mut at, &[]);
    let content = pattern(2500 * 4096, 3);
    let parts: Vec<Bytes> = content.chunks(4096).map(|block| aligned(at.reactor.buffer_pool(), block)).collect();
    at.reactor.write(file, ByteOffset(0), parts, true, 0);
    at.write_result().unwrap();
    assert_eq!(read(&mut at, file, 0, content.len() as u64).unwrap(), content);
}

#[test]
fn a_read_past_the_end_is_an_error() {
    let content = pattern(10_000, 4);
    for flags in [0, libc::O_DIRECT] {
        let mut at = Loop::new();
        let file = at.reactor.add_file(file_of(&content, flags));
        assert_eq!(read(&mut at, file, 0, 8192).unwrap(), content[..8192]);
        for offset in [8192, 12288, 1 << 30] {
            assert_eq!(read(&mut at, file, offset, 4096).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}

#[test]
fn lengths_out_of_bounds_are_refused() {
    let mut at = Loop::new();
    let file = direct_file(&mut at, &[]);
    for bytes in [0, u64::MAX] {
        assert_eq!(read(&mut at, file, 0, bytes).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    at.reactor.write(file, ByteOffset(0), vec![Bytes::new()], true, 0);
    assert_eq!(at.write_result().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn errors_of_the_medium_are_reported() {
    let mut at = Loop::new();
    let named = tempfile::NamedTempFile::new().unwrap();
    let file = at.reactor.add_file(File::open(named.path()).unwrap());
    at.reactor.write(file, ByteOffset(0), vec![Bytes::from_static(b"x")], false, 0);
    assert_eq!(at.write_result().unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_closed_file_ends_its_operations_in_flight_and_takes_no_others() {
    let mut at = Loop::new();
    let content = pattern(4096, 5);
    let file = direct_file(&mut at, &content);
    at.reactor.read(file, ByteOffset(0), ByteCount(4096), 0);
    at.reactor.close_file(file);
    assert_eq!(at.read_result().unwrap(), content);
    let other = direct_file(&mut at, &content);
    assert_ne!(file, other);
    assert_eq!(read(&mut at, file, 0, 4096).unwrap_err().raw_os_error(), Some(libc::EBADF));
    at.reactor.close_file(file);
    assert_eq!(at.reactor.stats().stale_calls, 1);
}

#[test]
fn more_operations_than_the_ring_holds_all_complete() {
    let config = ashlar_reactor::ReactorConfig { ring_entries: 8, ..Default::default() };
    let mut at = Loop::with(config);
    let content = pattern(64 * 4096, 6);
    let file = direct_file(&mut at, &content);
    for token in 0..1000 {
        at.reactor.read(file, ByteOffset(token % 64 * 4096), ByteCount(4096), token);
    }
    let mut tokens: Vec<u64> = (0..1000)
        .map(|_| match at.next() {
            Completion::Read { token, result } => {
                let start = (token % 64 * 4096) as usize;
                assert_eq!(result.unwrap(), content[start..start + 4096]);
                token
            }
            other => panic!("{other:?} instead of a read"),
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..1000).collect::<Vec<u64>>());
}
