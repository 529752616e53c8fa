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

struct Load<'a> {
    job: &'a Job,
    offsets: Offsets,
    accesses: Noise,
    data: Bytes,
    /// When the next operation is due, if there is a rate.
    due: Option<Clock>,
    /// Operations that are still to begin, where their number is what ends it.
    left: Option<u64>,
    idle: Vec<usize>,
    slots: Vec<Slot>,
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
    let start = Clock::now();
    let mut load = Load::new(reactor, job, span_bytes, seed, start);
    let (mut latencies, mut seconds) = (Histogram::default(), vec![]);
    let (mut completions, mut done) = (vec![], vec![]);
    let (mut last, mut longest_gap, mut half) = (start, Duration::ZERO, false);
    loop {
        let now = Clock::now();
        let is_over = load.is_over(now - start);
        if is_over && load.idle.len() == job.depth {
            break;
        }
        if !is_over {
            load.begin_due(reactor, target, now);
        }
        let limit = reactor.now() + if is_over { LOOK } else { load.wait_at_most(now) };
        reactor.wait(limit, &mut completions)?;
        for completion in completions.drain(..) {
            target.answers(completion, &mut done)?;
        }
        let now = Clock::now();
        let is_silent = now - last >= SILENCE_MAX && load.idle.len() < job.depth;
        ensure!(!is_silent, "no answer for {SILENCE_MAX:?}");
        for slot in done.drain(..) {
            if let Some(latency) = load.answered(slot, now) {
                latencies.add(latency);
                longest_gap = longest_gap.max(now - last);
                last = now;
                let second = (now - start).as_secs() as usize;
                seconds.resize(seconds.len().max(second + 1), 0);
                seconds[second] += 1;
            }
        }
        if !half && matches!(job.until, Until::Elapsed(duration) if now - start >= duration / 2) {
            half = true;
            at_half()?;
        }
    }
    Ok(Outcome { elapsed: start.elapsed(), latencies, longest_gap, seconds, asker: (Duration::ZERO, 0) })
}

impl Load<'_> {
    fn new<'a>(reactor: &Reactor, job: &'a Job, span_bytes: u64, seed: u64, start: Clock) -> Load<'a> {
        Load {
            job,
            offsets: Offsets::new(job, span_bytes, seed),
            accesses: Noise::new(!seed),
            data: payload(reactor, job, seed),
            due: job.per_second.map(|_| start),
            left: (job.until == Until::Through).then(|| span_bytes / u64::from(job.bytes)),
            idle: (0..job.depth).collect(),
            slots: vec![Slot { began: start, answers_left: 0 }; job.depth],
        }
    }

    fn is_over(&self, elapsed: Duration) -> bool {
        match self.job.until {
            Until::Elapsed(duration) => elapsed >= duration,
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

    fn wait_at_most(&self, now: Clock) -> Duration {
        match self.due {
            Some(due) if !self.idle.is_empty() => due.saturating_duration_since(now).min(LOOK),
            _ => LOOK,
        }
    }

    /// Its latency, once all its answers are there.
    fn answered(&mut self, slot: usize, now: Clock) -> Option<Duration> {
        let Slot { began, answers_left } = &mut self.slots[slot];
        *answers_left -= 1;
        if *answers_left > 0 {
            return None;
        }
        self.idle.push(slot);
        Some(now.saturating_duration_since(*began))
    }
}

/// Page-aligned and not compressible, so that no layer has it easier than with real data.
fn payload(reactor: &Reactor, job: &Job, seed: u64) -> Bytes {
    let mut buffer = reactor.buffer_pool().take(job.bytes as usize);
    let mut noise = Noise::new(seed);
    buffer.iter_mut().for_each(|byte| *byte = noise.next() as u8);
    buffer.freeze()
}
