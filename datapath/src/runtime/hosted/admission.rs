//! Where guests' requests come in: each is noted, waits for the limits of the volume, and goes on to the core, which
//! never sees one that waits.
//!
//! - A request that waits keeps its place among those that its front-end lets in, so a guest is held back by its own
//!   queue.
//! - A flush waits for nothing: what it covers was answered before.
//! - An end is not waited for: whoever is still held back then goes to the core, which answers everyone.

use super::{Hosted, Pending};
use crate::frontend::Origin;
use crate::guest::{GuestRequest, RequestKey};
use crate::limits::{Admitted, Limits};
use crate::metrics::Operation;
use crate::runtime::io::Io;
use crate::settings::Settings;
use ashlar_reactor::now;
use ashlar_types::{ByteCount, Instant};

impl Hosted {
    pub(super) fn submit(&mut self, io: &mut Io, origin: Origin, request: GuestRequest) {
        let key = RequestKey(self.next_key);
        self.next_key += 1;
        let (operation, bytes) = match &request {
            GuestRequest::Read { bytes, .. } => (Operation::Read, *bytes),
            GuestRequest::Write { data, .. } => (Operation::Write, ByteCount(data.len() as u64)),
            // These bring and take no bytes, however long their range.
            GuestRequest::Zero { .. } | GuestRequest::Trim { .. } => (Operation::Discard, ByteCount(0)),
            GuestRequest::Flush => (Operation::Flush, ByteCount(0)),
        };
        let began = now();
        self.metrics.in_flight.inc();
        self.pending.insert(key, Pending { origin, operation, bytes: bytes.0, began });
        if operation == Operation::Flush || !self.limiter.is_limited() {
            return self.admit(io, began, key, request);
        }
        match self.limiter.offer(began, bytes, (key, request)) {
            Some((key, request)) => {
                self.metrics.limits.admitted(bytes);
                self.admit(io, began, key, request);
            }
            None => self.metrics.limits.set_held(self.limiter.waiting()),
        }
    }

    /// Lets those in that have waited for long enough.
    pub(in crate::runtime) fn admit_due(&mut self, io: &mut Io, now: Instant) {
        if self.limiter.next_due() <= now {
            self.let_in(io, now);
            self.work_off(io);
        }
    }

    /// Serves the volume by these settings from now on, unless they are older than the known ones.
    pub(in crate::runtime) fn modify(&mut self, io: &mut Io, settings: Settings) {
        if settings.version <= self.settings_version {
            return;
        }
        self.settings_version = settings.version;
        if self.ended.is_some() || self.detaching.is_some() {
            return;
        }
        let limits = settings.limits;
        tracing::info!(volume = %self.id, version = settings.version, ?limits, "new limits");
        self.change_limits(io, limits);
        self.work_off(io);
    }

    /// Nobody is held back any more.
    pub(super) fn lift_limits(&mut self, io: &mut Io) {
        self.change_limits(io, Limits::default());
    }

    fn change_limits(&mut self, io: &mut Io, limits: Limits) {
        let now = now();
        self.limiter.change(now, limits);
        self.metrics.limits.set(limits);
        self.let_in(io, now);
    }

    fn let_in(&mut self, io: &mut Io, now: Instant) {
        while let Some(Admitted { item: (key, request), bytes, waited }) = self.limiter.next(now) {
            self.metrics.limits.waited(waited);
            self.metrics.limits.admitted(bytes);
            self.admit(io, now, key, request);
        }
        self.metrics.limits.set_held(self.limiter.waiting());
    }

    fn admit(&mut self, io: &mut Io, now: Instant, key: RequestKey, request: GuestRequest) {
        // A gap is time that the volume takes, and not what its limits take.
        if matches!(request, GuestRequest::Write { .. }) {
            self.figures.gap.write_arrived(now);
        }
        let done = self.table.submit(key, request, &mut self.operations);
        self.queue_operations();
        if let Some(result) = done {
            self.answer(io, key, result);
        }
    }
}

#[cfg(test)]
mod tests;
