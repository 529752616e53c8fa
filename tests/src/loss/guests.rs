//! Guests at a modest rate: each writes, waits for the answer, and is quiet for a while.

use crate::{NbdClient, StampedGuest};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between the beginnings of two writes.
const PERIOD: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
pub(super) struct Write {
    pub(super) began: Instant,
    pub(super) took: Duration,
}

pub(super) struct Guest {
    volume: String,
    client: NbdClient,
    stamps: StampedGuest,
    pub(super) writes: Vec<Write>,
}

impl Guest {
    pub(super) fn connect(volume: &str, socket: &Path, blocks: usize, seed: u64) -> Result<Guest> {
        let (client, stamps) = (NbdClient::connect(socket)?, StampedGuest::new(blocks, seed));
        Ok(Guest { volume: volume.to_owned(), client, stamps, writes: vec![] })
    }

    fn write_while(&mut self, load: &Load) -> Result<()> {
        let mut next = Instant::now();
        while load.goes_on() {
            let began = Instant::now();
            if let Some(pause) = next.checked_duration_since(began) {
                std::thread::park_timeout(pause);
                continue;
            }
            self.stamps.write(&mut self.client, 1, &AtomicU64::new(0))?;
            self.writes.push(Write { began, took: began.elapsed() });
            next = began + PERIOD;
        }
        Ok(())
    }

    /// Everything that was acknowledged is there. Gives the volume.
    fn verify(mut self) -> Result<String> {
        self.stamps.verify(&mut self.client).with_context(|| format!("content of {}", self.volume))?;
        self.client.close()?;
        Ok(self.volume)
    }
}

pub(super) fn fill(guests: &mut [Guest]) -> Result<()> {
    std::thread::scope(|threads| {
        let fill = |guest: &'_ mut Guest| guest.stamps.fill(&mut guest.client);
        let filling: Vec<_> = guests.iter_mut().map(|guest| threads.spawn(move || fill(guest))).collect();
        filling.into_iter().try_for_each(|filling| filling.join().expect("a guest does not panic"))
    })
}

/// Gives the volumes.
pub(super) fn verify(guests: Vec<Guest>) -> Result<Vec<String>> {
    std::thread::scope(|threads| {
        let verifying: Vec<_> = guests.into_iter().map(|guest| threads.spawn(|| guest.verify())).collect();
        verifying.into_iter().map(|verifying| verifying.join().expect("a guest does not panic")).collect()
    })
}

/// Writers that go on until somebody ends it, or one of them fails.
pub(super) struct Load(AtomicBool);

impl Load {
    fn goes_on(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.goes_on(), "a guest's write failed");
        Ok(())
    }

    pub(super) fn go_on_for(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.check()?;
            std::thread::park_timeout(left.min(PERIOD));
        }
        Ok(())
    }
}

/// Every guest writes as long as `body` lasts.
pub(super) fn under_load<T>(guests: &mut [Guest], body: impl FnOnce(&Load) -> Result<T>) -> Result<T> {
    let load = &Load(AtomicBool::new(false));
    std::thread::scope(|threads| {
        let write = move |guest: &mut Guest| guest.write_while(load).inspect_err(|_| load.end());
        let writers: Vec<_> = guests.iter_mut().map(|guest| threads.spawn(move || write(guest))).collect();
        let value = body(load);
        load.end();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a guest does not panic"))?;
        value
    })
}

pub(super) fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
