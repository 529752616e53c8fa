//! The rows that the ledger's client commits, and what of them must be there after a crash or in a restored snapshot.

use anyhow::Result;
use ashlar_tests::postgres::Server;
use ashlar_tests::{Ledger, last_row};
use std::ops::RangeInclusive;

pub fn create(server: &Server) -> Result<()> {
    server.query("CREATE TABLE ledger (n bigint PRIMARY KEY, seal text NOT NULL)").map(drop)
}

/// A client that goes on after row `seen`.
pub fn start(server: &Server, seen: u64) -> Result<Ledger> {
    Ledger::start(server.installation().client(), seen, |row| {
        format!("BEGIN; INSERT INTO ledger VALUES ({row}, md5('{row}')); COMMIT; SELECT n FROM ledger WHERE n = {row};")
    })
}

/// Checks the rows that are there, whole, as [`last_row`] does.
pub fn verify(server: &Server, last: RangeInclusive<u64>) -> Result<u64> {
    last_row(&server.query("SELECT n FROM ledger WHERE seal = md5(n::text) ORDER BY n")?, last)
}
