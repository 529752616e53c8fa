//! The least that a copy takes: one file read and another one written, O_DIRECT, in pieces as large and as many at a
//! time as a rebuild's, durable at the end. No checksum, no network, no other process.

use crate::target::prewritten;
use anyhow::{Context, Result, bail};
use ashlar_reactor::{Completion, Reactor, ReactorConfig};
use ashlar_types::{ByteCount, ByteOffset, SLOT_BYTES};
use std::path::Path;
use std::time::{Duration, Instant};

/// As many slots as a volume copies at a time (`datapath/volume/src/config.rs`).
const DEPTH: u64 = 16;
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) fn copy(dir: &Path, bytes: u64) -> Result<Duration> {
    let [from, to] = ["raw-from", "raw-to"].map(|name| dir.join(name));
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let source = reactor.add_file(prewritten(&from, bytes)?);
    let target = reactor.add_file(prewritten(&to, bytes)?);
    let began = Instant::now();
    let read = |reactor: &mut Reactor, slot: u64| {
        reactor.read(source, ByteOffset(slot * SLOT_BYTES), ByteCount(SLOT_BYTES), slot);
    };
    let slots = bytes / SLOT_BYTES;
    let (mut next, mut written, mut completions) = (DEPTH.min(slots), 0, vec![]);
    (0..next).for_each(|slot| read(&mut reactor, slot));
    while written <= slots {
        let limit = reactor.now() + SILENCE_MAX;
        reactor.wait(limit, &mut completions)?;
        for completion in completions.drain(..) {
            match completion {
                Completion::Read { token, result } => {
                    let data = result.context("read the source")?;
                    reactor.write(target, ByteOffset(token * SLOT_BYTES), vec![data], false, token);
                }
                Completion::Write { result, .. } => {
                    result.context("write the target")?;
                    written += 1;
                    if next < slots {
                        read(&mut reactor, next);
                        next += 1;
                    } else if written == slots {
                        reactor.flush(target, 0);
                    }
                }
                Completion::Flush { result, .. } => {
                    result.context("flush the target")?;
                    written += 1;
                }
                other => bail!("{other:?} is no answer of a file"),
            }
        }
    }
    let took = began.elapsed();
    [source, target].into_iter().for_each(|file| reactor.close_file(file));
    [from, to].iter().try_for_each(std::fs::remove_file).context("remove the files of the raw copy")?;
    Ok(took)
}
