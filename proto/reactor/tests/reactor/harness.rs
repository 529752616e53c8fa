//! A reactor whose completions are asked for one by one; a test that waits too long fails instead of hanging.

use ashlar_reactor::{Completion, LinkId, Reactor, ReactorConfig};
use ashlar_types::{Crc32, Duration, Epoch, Lsn, RequestId, SessionId};
use ashlar_wire::{FrameHeader, Opcode};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Loop {
    pub(crate) reactor: Reactor,
    seen: VecDeque<Completion>,
}

impl Loop {
    pub(crate) fn new() -> Loop {
        Loop::with(ReactorConfig::default())
    }

    pub(crate) fn with(config: ReactorConfig) -> Loop {
        Loop { reactor: Reactor::new(config).unwrap(), seen: VecDeque::new() }
    }

    pub(crate) fn next(&mut self) -> Completion {
        self.next_within(PATIENCE).expect("something completes")
    }

    pub(crate) fn next_within(&mut self, longest: Duration) -> Option<Completion> {
        if self.seen.is_empty() {
            let mut completions = Vec::new();
            let deadline = self.reactor.now() + longest;
            self.reactor.wait(deadline, &mut completions).unwrap();
            self.seen.extend(completions);
        }
        self.seen.pop_front()
    }

    pub(crate) fn accepted(&mut self) -> LinkId {
        match self.next() {
            Completion::Accepted { link, .. } => link,
            other => panic!("{other:?} instead of a connection"),
        }
    }

    pub(crate) fn read_result(&mut self) -> std::io::Result<Bytes> {
        match self.next() {
            Completion::Read { result, .. } => result,
            other => panic!("{other:?} instead of a read"),
        }
    }

    pub(crate) fn write_result(&mut self) -> std::io::Result<()> {
        match self.next() {
            Completion::Write { result, .. } => result,
            other => panic!("{other:?} instead of a write"),
        }
    }

    /// Raw bytes of the link until there are `bytes` of them.
    pub(crate) fn raw_bytes(&mut self, from: LinkId, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < bytes {
            match self.next() {
                Completion::RawBytes { link, bytes } if link == from => all.extend_from_slice(&bytes),
                other => panic!("{other:?} instead of bytes"),
            }
        }
        all
    }
}

/// Bytes in which every position differs from its neighbourhood, so that lost and swapped pieces show.
pub(crate) fn pattern(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|i| (i.wrapping_mul(31) >> 3) as u8 ^ (i >> 11) as u8 ^ seed).collect::<Vec<u8>>().into()
}

pub(crate) fn header(request: u64, body_bytes: usize, data_bytes: usize) -> FrameHeader {
    FrameHeader {
        opcode: Opcode::Write,
        body_bytes: body_bytes as u32,
        data_bytes: data_bytes as u32,
        session: SessionId(1),
        request: RequestId(request),
        epoch: Epoch::new(1).unwrap(),
        commit: Lsn::ZERO,
        body_crc: Crc32(0),
    }
}

pub(crate) fn frame(request: u64, body: &Bytes, data: &Bytes) -> [Bytes; 3] {
    let header = header(request, body.len(), data.len()).encode();
    [Bytes::copy_from_slice(&header), body.clone(), data.clone()]
}

/// Bytes that tell when their last share is dropped: the other half's count goes down to one.
pub(crate) fn watched(bytes: usize) -> (Bytes, Arc<()>) {
    struct Watched(Vec<u8>, #[expect(dead_code, reason = "held for its count")] Arc<()>);
    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let watch = Arc::new(());
    (Bytes::from_owner(Watched(vec![7; bytes], watch.clone())), watch)
}
