//! A short share of `make databases`: one round in which a chunkserver dies, one in which everything does, and a
//! restore of each database.

use anyhow::{Result, ensure};
use ashlar_tests::{program, run_ok};

#[test]
fn two_rounds_of_kills_leave_postgresql_and_fio_clean() -> Result<()> {
    let printed = run_ok(program("ashlar-databases")?, ["--rounds", "2", "--restores", "0"])?;
    ensure!(printed.contains("2 rounds in ") && printed.contains("replicas equal"), "{printed}");
    Ok(())
}

#[test]
fn databases_restored_from_snapshots_under_load_are_clean() -> Result<()> {
    let printed = run_ok(program("ashlar-databases")?, ["--rounds", "0", "--restores", "1"])?;
    ensure!(printed.contains("1 restores of each database in "), "{printed}");
    Ok(())
}
