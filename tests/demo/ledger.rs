//! The rows that the ledger's client commits while everything dies, and what became of them.

use anyhow::{Context, Result};
use ashlar_tests::{Ledger, MariaDb};
use std::collections::BTreeSet;

/// What became of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerResult {
    pub seen_committed: u64,
    pub missing: u64,
    /// In the table but never seen: committed in the moment of the crash, which is allowed.
    pub unseen: u64,
}

/// Makes the table.
pub fn create(server: &MariaDb) -> Result<()> {
    server.query(
        "CREATE DATABASE IF NOT EXISTS sbtest; \
         CREATE TABLE sbtest.ledger (n BIGINT UNSIGNED PRIMARY KEY, seal BINARY(32) NOT NULL) ENGINE=InnoDB",
    )?;
    Ok(())
}

/// Rows are `first..`; everything below `first` was seen by earlier clients.
pub fn verify(server: &MariaDb, seen: u64) -> Result<LedgerResult> {
    let rows = server.query("SELECT n FROM sbtest.ledger WHERE seal = UNHEX(SHA2(n, 256)) ORDER BY n")?;
    let rows: BTreeSet<u64> =
        rows.lines().map(|row| row.parse().context("a row of the ledger")).collect::<Result<_>>()?;
    let missing = (1..=seen).filter(|row| !rows.contains(row)).count() as u64;
    let unseen = rows.range(seen + 1..).count() as u64;
    Ok(LedgerResult { seen_committed: seen, missing, unseen })
}

/// A client that goes on after row `seen`.
pub fn start(server: &MariaDb, seen: u64) -> Result<Ledger> {
    Ledger::start(server.client("sbtest"), seen, |row| {
        format!(
            "BEGIN; INSERT INTO ledger VALUES ({row}, UNHEX(SHA2({row}, 256))); COMMIT; \
             SELECT n FROM ledger WHERE n = {row};"
        )
    })
}
