//! Going on with a stream that was interrupted.
//!
//! What is there is verified frame by frame. The first one that is torn or damaged ends it: what follows would have to
//! be read from the replicas again in any case, and after a power cut it may be anything.

use super::layout::{HEADER_BYTES, Identity};
use super::position::{Position, Totals};
use super::reader::Reader;
use super::{Result, StreamError};
use std::io::Read;

/// What of a stream is there, whole.
#[derive(Clone, Debug)]
pub struct Scan {
    pub(super) position: Position,
    is_complete: bool,
}

impl Scan {
    /// Bytes to keep; the rest is to be cut off.
    pub fn bytes(&self) -> u64 {
        self.position.at()
    }

    pub fn totals(&self) -> Totals {
        self.position.totals()
    }

    /// The end mark is there too.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// `None`: not even a header is there. A stream of something else is an error, as is one that cannot be read.
pub fn scan(identity: Identity, mut input: impl Read) -> Result<Option<Scan>> {
    let mut begun = Vec::new();
    let read = input.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut begun);
    read.map_err(StreamError::io("read the stream that is there"))?;
    if begun.len() < HEADER_BYTES {
        return if identity.encode().starts_with(&begun) { Ok(None) } else { Err(StreamError::Foreign) };
    }
    let mut reader = Reader::open(begun.as_slice().chain(input))?;
    if reader.identity() != identity {
        return Err(StreamError::Other { found: reader.identity().snapshot });
    }
    loop {
        match reader.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Some(Scan { position: reader.position, is_complete: true })),
            Err(StreamError::Truncated { .. } | StreamError::Damaged { .. }) => {
                return Ok(Some(Scan { position: reader.position, is_complete: false }));
            }
            Err(error) => return Err(error),
        }
    }
}
