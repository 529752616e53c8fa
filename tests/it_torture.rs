//! A short share of `make torture`, and the proof that it would notice a lost write.

use anyhow::{Result, ensure};
use ashlar_tests::{program, run_ok};

/// Of a minute, on a machine that does other things too.
const ROUNDS_MIN: u32 = 6;

#[test]
fn a_minute_of_kills_stops_and_cuts_loses_nothing() -> Result<()> {
    let printed = run_ok(program("ashlar-torture")?, ["--minutes", "1", "--seed", "3"])?;
    let rounds = printed.lines().find_map(|line| line.split_once(" rounds in ")?.0.parse::<u32>().ok());
    ensure!(rounds.is_some_and(|rounds| rounds >= ROUNDS_MIN), "{printed}");
    ensure!(printed.contains("nothing was lost"), "{printed}");
    Ok(())
}

#[test]
fn writes_that_are_really_lost_are_found() -> Result<()> {
    let printed = run_ok(program("ashlar-torture")?, ["--minutes", "1", "--rounds", "2", "--seed", "4", "--sabotage"])?;
    for part in ["the loss is found: VIOLATION: volume v", "is seen from", "write ", "read of "] {
        ensure!(printed.contains(part), "{part:?} in\n{printed}");
    }
    Ok(())
}
