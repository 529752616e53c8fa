//! The load: `depth` operations are under way at any time, each answer begins the next; or so many begin in each
//! second, and each is timed from when it was due, so that a device that stalls is not asked less.

use crate::histogram::Histogram;
use crate::job::{Access, Job, Outcome, Until};
use crate::offsets::{Noise, Offsets};
use crate::target::Target;
use anyhow::{Result, ensure};
use ashlar_reactor::Reactor;
use bytes::Bytes;
use std::time::{Duration, Instant as Clock};

/// Longer without any answer is a failure, not a slow cell.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// One job under way; whoever has the reactor drives it.
pub(crate) struct Load {
    job: Job,
    offsets: Offsets,
    accesses: Noise,
    data: Bytes,
    /// When the next operation is due, if there is a rate.
    due: Option<Clock>,
    /// Operations that are still to begin, where their number is what ends it.
    left: Option<u64>,
    idle: Vec<usize>,
    slots: Vec<Slot>,
    start: Clock,
    /// When something was last answered.
    last: Clock,
    longest_gap: Duration,
    latencies: Histogram,
    seconds: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Slot {
    began: Clock,
    answers_left: usize,
}

/// `at_half` is called once, when half of the time has passed.
pub(crate) fn run(
    reactor: &mut Reactor,
    target: &mut Target,
    job: &Job,
    span_bytes: u64,
    seed: u64,
    mut at_half: impl FnMut() -> Result<()>,
) -> Result<Outcome> {
    let mut load = Load::new(reactor, *job, span_bytes, seed);
    let (mut completions, mut done, mut half) = (vec![], vec![], false);
    while load.go_on(reactor, target, Clock::now())? {
        let limit = reactor.now() + load.wait_at_most(Clock::now());
        reactor.wait(limit, &mut completions)?;
        for completion in completions.drain(..) {
            target.answers(completion, &mut done)?;
        }
        let now = Clock::now();
        load.answered(&mut done, now);
        if !half && matches!(job.until, Until::Elapsed(duration) if now - load.start >= duration / 2) {
            half = true;
            at_half()?;
        }
    }
    Ok(load.outcome())
}

impl Load {
    pub(crate) fn new(reactor: &Reactor, job: Job, span_bytes: u64, seed: u64) -> Load {
        let data = payload(reactor, &job, seed);
        let start = Clock::now();
        Load {
            job,
            offsets: Offsets::new(&job, span_bytes, seed),
            accesses: Noise::new(!seed),
            data,
            due: job.per_second.map(|_| start),
            left: (job.until == Until::Through).then(|| span_bytes / u64::from(job.bytes)),
            idle: (0..job.depth).collect(),
            slots: vec![Slot { began: start, answers_left: 0 }; job.depth],
            start,
            last: start,
            longest_gap: Duration::ZERO,
            latencies: Histogram::default(),
            seconds: vec![],
        }
    }

    /// Begins what is due; false when the job is over and everything is answered.
    pub(crate) fn go_on(&mut self, reactor: &mut Reactor, target: &mut Target, now: Clock) -> Result<bool> {
        let is_resting = self.idle.len() == self.job.depth;
        ensure!(is_resting || now - self.last < SILENCE_MAX, "no answer for {SILENCE_MAX:?}");
        if self.is_over(now) {
            return Ok(!is_resting);
        }
        self.begin_due(reactor, target, now);
        Ok(true)
    }

    /// When to look again although nothing was answered.
    pub(crate) fn wait_at_most(&self, now: Clock) -> Duration {
        match self.due {
            Some(due) if !self.idle.is_empty() && !self.is_over(now) => due.saturating_duration_since(now).min(LOOK),
            _ => LOOK,
        }
    }

    /// Takes these answers, one entry for each.
    pub(crate) fn answered(&mut self, slots: &mut Vec<usize>, now: Clock) {
        for slot in slots.drain(..) {
            let Slot { began, answers_left } = &mut self.slots[slot];
            *answers_left -= 1;
            if *answers_left > 0 {
                continue;
            }
            self.idle.push(slot);
            self.latencies.add(now.saturating_duration_since(*began));
            self.longest_gap = self.longest_gap.max(now - self.last);
            self.last = now;
            let second = (now - self.start).as_secs() as usize;
            self.seconds.resize(self.seconds.len().max(second + 1), 0);
            self.seconds[second] += 1;
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        let Load { start, longest_gap, latencies, seconds, .. } = self;
        Outcome { elapsed: start.elapsed(), latencies, longest_gap, seconds, asker: (Duration::ZERO, 0) }
    }

    fn is_over(&self, now: Clock) -> bool {
        match self.job.until {
            Until::Elapsed(duration) => now - self.start >= duration,
            Until::Through => self.left == Some(0),
        }
    }

    fn begin_due(&mut self, reactor: &mut Reactor, target: &mut Target, now: Clock) {
        while self.due.is_none_or(|due| due <= now) && self.left != Some(0) {
            let Some(slot) = self.idle.pop() else { return };
            self.left = self.left.map(|left| left - 1);
            let began = self.due.unwrap_or(now);
            if let (Some(due), Some(rate)) = (&mut self.due, self.job.per_second) {
                *due += Duration::from_secs(1) / rate.max(1);
            }
            let is_read = self.accesses.next() % 100 < u64::from(self.job.read_percent);
            let access = if is_read { Access::Read } else { Access::Write };
            let offset = self.offsets.next() * u64::from(self.job.bytes);
            let answers_left = target.begin(reactor, slot, access, offset, &self.data);
            self.slots[slot] = Slot { began, answers_left };
        }
    }
}

/// Page-aligned and not compressible, so that no layer has it easier than with real data.
fn payload(reactor: &Reactor, job: &Job, seed: u64) -> Bytes {
    let mut buffer = reactor.buffer_pool().take(job.bytes as usize);
    let mut noise = Noise::new(seed);
    buffer.iter_mut().for_each(|byte| *byte = noise.next() as u8);
    buffer.freeze()
}
