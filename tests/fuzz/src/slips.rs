//! The fuzzer is checked: with one deliberate bug at a time in the worker, every target must find its own, from the
//! inputs that `seeds` makes and nothing else; and what it found must be nothing to the code without the bug.

use crate::campaign::{self, Worker};
use crate::{Target, corpus, seeds};
use anyhow::{Context, Result, ensure};
use ashlar_types::Slip;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{fs, panic};

/// Names the bug that is on in the worker.
pub const SLIP_VARIABLE: &str = "ASHLAR_FUZZ_SLIP";
/// The same numbers are drawn in every run.
const SEED: u32 = 1;

/// Prints a line for each bug, `found` or `ALIVE`. Returns how many were not found.
pub fn check(worker: &Path, seconds: u64, jobs: usize, only: &[String]) -> Result<usize> {
    let unknown = only.iter().find(|name| Slip::ALL.iter().all(|slip| slip.name() != **name));
    ensure!(unknown.is_none(), "there is no bug named {unknown:?}");
    let slips: Vec<Slip> = Slip::ALL
        .iter()
        .copied()
        .filter(|slip| only.is_empty() || only.iter().any(|name| name == slip.name()))
        .collect();
    let alive = campaign::for_each(&slips, jobs, |slip| Ok(!is_found(worker, *slip, seconds)?))?;
    println!("{} of {} deliberate bugs found", slips.len() - alive, slips.len());
    Ok(alive)
}

fn is_found(worker: &Path, slip: Slip, seconds: u64) -> Result<bool> {
    let target = Target::named(slip.target()).with_context(|| format!("{slip:?} is for no target"))?;
    let folder = campaign::target_folder().join("fuzz-slips").join(slip.name());
    let (inputs, findings) = (folder.join("corpus"), folder.join("findings"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&inputs)?;
    fs::create_dir_all(&findings)?;
    let given = seeds::all().into_iter().find(|(name, _)| *name == target.name);
    for (number, input) in given.into_iter().flat_map(|(_, inputs)| inputs).enumerate() {
        fs::write(inputs.join(number.to_string()), input)?;
    }
    let begun = Instant::now();
    let mut command: Command = Worker { path: worker, target }.command();
    command.env(SLIP_VARIABLE, slip.name()).arg(format!("-seed={SEED}")).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", findings.display())).arg(&inputs);
    let output = command.output().with_context(|| format!("run {}", worker.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    fs::write(folder.join("log"), log.as_bytes())?;
    let (executions, taken) = (campaign::executions(&log), begun.elapsed().as_secs_f64());
    let found = corpus::read(&findings)?;
    let verdict = if found.is_empty() { "ALIVE" } else { "found" };
    println!(
        "{verdict}  {:<15} {:<20} {executions:>9} inputs {taken:>6.1} s  {}",
        target.name,
        slip.name(),
        slip.bug()
    );
    for (path, input) in &found {
        let sound = panic::catch_unwind(|| (target.run)(input)).is_ok();
        ensure!(sound, "{} fails without any bug", path.display());
    }
    Ok(!found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TARGETS;

    #[test]
    fn every_target_has_a_bug_to_find() {
        for target in TARGETS {
            assert!(Slip::ALL.iter().any(|slip| slip.target() == target.name), "{}", target.name);
        }
        for slip in Slip::ALL {
            assert!(Target::named(slip.target()).is_some(), "{slip:?}");
        }
    }
}
