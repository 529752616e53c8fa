//! Guests that write one block after the other, the next when the last is answered, and know how long each took.

use anyhow::{Context, Result};
use ashlar_tests::{NbdClient, wait_until};
use ashlar_types::{BLOCK_BYTES, SLOT_BYTES};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two snapshots, by each guest.
const WRITES_BETWEEN: u64 = 30;
const LIMIT: Duration = Duration::from_secs(120);

/// One write, or whatever else began and took its time.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

impl Span {
    pub(crate) fn of<T>(action: impl FnOnce() -> Result<T>) -> Result<(T, Span)> {
        let began = Instant::now();
        let value = action()?;
        Ok((value, Span { began, took: began.elapsed() }))
    }

    fn end(&self) -> Instant {
        self.began + self.took
    }

    fn overlaps(&self, other: &Span) -> bool {
        self.began < other.end() && other.began < self.end()
    }
}

/// So many slots, evenly over the whole volume.
pub(crate) fn spread(count: u64, volume_bytes: u64) -> Vec<u64> {
    let stride = volume_bytes / count / SLOT_BYTES * SLOT_BYTES;
    (0..count).map(|at| at * stride).collect()
}

/// A guest, and where it writes.
pub(crate) struct Guest {
    pub(crate) client: NbdClient,
    pub(crate) offsets: Vec<u64>,
    /// Between an answer and the next write.
    pub(crate) pause: Duration,
}

impl Guest {
    fn write_until(&mut self, stop: &AtomicBool, done: &AtomicU64) -> Result<Vec<Span>> {
        let data = [0x5a; BLOCK_BYTES as usize];
        let mut written = vec![];
        for &offset in self.offsets.iter().cycle().take_while(|_| !stop.load(Ordering::SeqCst)) {
            written.push(Span::of(|| self.client.write(offset, &data))?.1);
            done.fetch_add(1, Ordering::SeqCst);
            let next = Instant::now() + self.pause;
            while let Some(left) = next.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                std::thread::park_timeout(left);
            }
        }
        Ok(written)
    }
}

/// Every guest writes, round and round, as long as `body` lasts, which is told how many writes each has done. Gives
/// the writes of each.
pub(crate) fn under_writers(
    guests: &mut [Guest],
    body: impl FnOnce(&[AtomicU64]) -> Result<()>,
) -> Result<Vec<Vec<Span>>> {
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicU64> = guests.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let stop = &stop;
        let writers = guests.iter_mut().zip(&done);
        let writers: Vec<_> = writers.map(|(guest, done)| scope.spawn(move || guest.write_until(stop, done))).collect();
        let ended = body(&done);
        stop.store(true, Ordering::SeqCst);
        let written =
            writers.into_iter().map(|writer| writer.join().expect("a writer does not panic").context("write"));
        let written = written.collect::<Result<Vec<_>>>();
        ended.and(written)
    })
}

/// Until each guest has written some more.
pub(crate) fn wait_writes(done: &[AtomicU64]) -> Result<()> {
    let from: Vec<u64> = done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
    wait_until("some writes of each guest", LIMIT, || {
        let go_on = done.iter().zip(&from).all(|(done, from)| done.load(Ordering::SeqCst) >= from + WRITES_BETWEEN);
        Ok(go_on.then_some(()))
    })
}

/// Writes once at each of these offsets; mean time of a write.
pub(crate) fn write_once(client: &mut NbdClient, offsets: &[u64]) -> Result<Duration> {
    let data = [0xa5; BLOCK_BYTES as usize];
    let ((), span) = Span::of(|| offsets.iter().try_for_each(|&offset| client.write(offset, &data)))?;
    Ok(span.took / offsets.len() as u32)
}

/// Mean time of a read.
pub(crate) fn read_once(client: &mut NbdClient, offsets: &[u64], bytes: u32) -> Result<Duration> {
    let (_, span) = Span::of(|| offsets.iter().try_for_each(|&offset| client.read(offset, bytes).map(drop)))?;
    Ok(span.took / offsets.len() as u32)
}

/// The longest of the writes that were under way in that time.
pub(crate) fn longest_in(written: &[Span], time: &Span) -> Option<Duration> {
    written.iter().filter(|write| write.overlaps(time)).map(|write| write.took).max()
}

/// The 99th percentile of the writes that began in that time.
pub(crate) fn p99(written: &[Span], from: Instant, until: Instant) -> Duration {
    let within = |write: &&Span| from <= write.began && write.began < until;
    let mut times: Vec<Duration> = written.iter().filter(within).map(|write| write.took).collect();
    assert!(!times.is_empty());
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    assert!(!times.is_empty());
    times.sort_unstable();
    times[times.len() / 2]
}
