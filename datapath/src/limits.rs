//! Limits of one volume: how many operations and bytes a second its guests get, and who waits for them. Pure.
//!
//! ```text
//!   offer ──► nobody waits, both buckets have enough ──► goes at once
//!         └─► else it waits, first come first served ──► next, when it is due
//! ```
//!
//! - Over any time `w` what goes is at most `burst + per_second * w`, for operations and for bytes, and one request
//!   more where a request is larger than its burst: it goes when the bucket is full, and those behind it wait until
//!   what it took too much has come in again.
//! - Nothing that waits is overtaken, lost or given out twice, whatever becomes of the limits.
//! - Nothing goes before it is due, and at [`Limiter::next_due`] the first one goes: no wait is without an end.
//! - How many wait is bounded by what the front-ends let in.

mod bucket;

use ashlar_types::{ByteCount, Duration, Instant};
use bucket::Bucket;
use std::collections::VecDeque;
use std::num::NonZeroU64;

/// Rate and burst of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) per_second: NonZeroU64,
    /// What may go at once after a pause.
    pub(crate) burst: NonZeroU64,
}

/// Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) operations: Option<Limit>,
    pub(crate) bytes: Option<Limit>,
}

/// A request that may go, and how long it has waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admitted<T> {
    pub(crate) item: T,
    pub(crate) bytes: ByteCount,
    pub(crate) waited: Duration,
}

/// Every request is one operation of some bytes.
pub(crate) struct Limiter<T> {
    limits: Limits,
    operations: Option<Bucket>,
    bytes: Option<Bucket>,
    waiting: VecDeque<Waiting<T>>,
}

struct Waiting<T> {
    item: T,
    bytes: ByteCount,
    since: Instant,
}

impl<T> Limiter<T> {
    pub(crate) fn new(now: Instant, limits: Limits) -> Limiter<T> {
        let mut limiter =
            Limiter { limits: Limits::default(), operations: None, bytes: None, waiting: VecDeque::new() };
        limiter.change(now, limits);
        limiter
    }

    /// False: whatever is offered goes at once, and nothing is counted.
    pub(crate) fn is_limited(&self) -> bool {
        self.limits != Limits::default()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives it back if it may go now; else it waits for its turn.
    pub(crate) fn offer(&mut self, now: Instant, bytes: ByteCount, item: T) -> Option<T> {
        if self.waiting.is_empty() && self.due(bytes) <= now {
            self.take(now, bytes);
            return Some(item);
        }
        self.waiting.push_back(Waiting { item, bytes, since: now });
        None
    }

    /// The next one that waited for long enough. To be called until there is none.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Admitted<T>> {
        if self.next_due() > now {
            return None;
        }
        let Waiting { item, bytes, since } = self.waiting.pop_front()?;
        self.take(now, bytes);
        Some(Admitted { item, bytes, waited: now.since(since) })
    }

    /// When the first of those that wait may go; never, if nobody waits.
    pub(crate) fn next_due(&self) -> Instant {
        self.waiting.front().map_or(Instant::FAR, |first| self.due(first.bytes))
    }

    /// Those who wait go on waiting, under the new limits. A bucket keeps its level, so that a change gives nobody a
    /// burst; one that is new is full.
    pub(crate) fn change(&mut self, now: Instant, limits: Limits) {
        self.limits = limits;
        let changed = |bucket: Option<Bucket>, limit: Option<Limit>| match (bucket, limit) {
            (_, None) => None,
            (None, Some(limit)) => Some(Bucket::full(now, limit)),
            (Some(bucket), Some(limit)) => Some(bucket.changed(now, limit)),
        };
        self.operations = changed(self.operations.take(), limits.operations);
        self.bytes = changed(self.bytes.take(), limits.bytes);
    }

    fn due(&self, bytes: ByteCount) -> Instant {
        let operations = self.operations.as_ref().map_or(Instant::ZERO, |bucket| bucket.due(1));
        let bytes = self.bytes.as_ref().map_or(Instant::ZERO, |bucket| bucket.due(bytes.0));
        operations.max(bytes)
    }

    fn take(&mut self, now: Instant, bytes: ByteCount) {
        if let Some(bucket) = &mut self.operations {
            bucket.take(now, 1);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(now, bytes.0);
        }
    }
}

#[cfg(test)]
mod tests;
