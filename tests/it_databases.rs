//! A short share of `make databases`: one round in which a chunkserver dies, one in which everything does.

use anyhow::{Result, ensure};
use ashlar_tests::{program, run_ok};

#[test]
fn two_rounds_of_kills_leave_postgresql_and_fio_clean() -> Result<()> {
    let printed = run_ok(program("ashlar-databases")?, ["--rounds", "2"])?;
    ensure!(printed.contains("2 rounds in ") && printed.contains("replicas equal"), "{printed}");
    Ok(())
}
