//! The closed loop: `depth` operations are under way at any time; each answer begins the next.

use crate::job::{Access, Job, Offsets, Outcome};
use crate::target::Target;
use anyhow::{Result, ensure};
use ashlar_reactor::Reactor;
use ashlar_types::Instant;
use bytes::Bytes;
use std::time::{Duration, Instant as Clock};

/// Longer without any answer is a failure, not a slow cell.
const SILENCE_MAX: Duration = Duration::from_secs(30);

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
    let data = payload(reactor, job, seed);
    let mut offsets = Offsets::new(job, span_bytes, seed);
    let start = Clock::now();
    let mut slots: Vec<Slot> = vec![];
    for slot in 0..job.depth {
        let answers_left = begin(reactor, target, job, slot, &mut offsets, &data);
        slots.push(Slot { began: start, answers_left });
    }
    let (mut latencies, mut completions, mut done) = (vec![], vec![], vec![]);
    let (mut last, mut longest_gap, mut under_way, mut half) = (start, Duration::ZERO, job.depth, false);
    while under_way > 0 {
        let limit = reactor.now() + Duration::from_millis(100);
        wait(reactor, limit, &mut completions)?;
        for completion in completions.drain(..) {
            target.answers(completion, &mut done)?;
        }
        let now = Clock::now();
        ensure!(now - last < SILENCE_MAX, "no answer for {SILENCE_MAX:?}");
        for slot in done.drain(..) {
            slots[slot].answers_left -= 1;
            if slots[slot].answers_left > 0 {
                continue;
            }
            latencies.push(now - slots[slot].began);
            longest_gap = longest_gap.max(now - last);
            last = now;
            if now - start < job.duration {
                let answers_left = begin(reactor, target, job, slot, &mut offsets, &data);
                slots[slot] = Slot { began: now, answers_left };
            } else {
                under_way -= 1;
            }
        }
        if !half && now - start >= job.duration / 2 {
            half = true;
            at_half()?;
        }
    }
    Ok(Outcome::new(start.elapsed(), latencies, longest_gap))
}

fn wait(reactor: &mut Reactor, limit: Instant, completions: &mut Vec<ashlar_reactor::Completion>) -> Result<()> {
    Ok(reactor.wait(limit, completions)?)
}

fn begin(
    reactor: &mut Reactor,
    target: &mut Target,
    job: &Job,
    slot: usize,
    offsets: &mut Offsets,
    data: &Bytes,
) -> usize {
    let offset = offsets.next() * u64::from(job.bytes);
    target.begin(reactor, slot, job.access, offset, data)
}

/// Page-aligned and not compressible, so that no layer has it easier than with real data.
fn payload(reactor: &Reactor, job: &Job, seed: u64) -> Bytes {
    let mut buffer = reactor.buffer_pool().take(job.bytes as usize);
    let noise = Job { access: Access::Read, bytes: 1, depth: 1, sequential: false, duration: Duration::ZERO };
    let mut bytes = Offsets::new(&noise, 256, seed);
    buffer.iter_mut().for_each(|byte| *byte = bytes.next() as u8);
    buffer.freeze()
}
