//! What PostgreSQL can say of itself: page checksums, structure of indexes and tables, and pgbench's book-keeping.

use anyhow::{Context, Result, ensure};
use ashlar_tests::postgres::{Installation, Server};

/// Figures of a clean check.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    pub pages: u64,
    pub indexes: u64,
    pub tables: u64,
}

/// Pages whose checksum was right. The server must have stopped in good order.
pub fn page_checksums(installation: &Installation) -> Result<u64> {
    let data = format!("--pgdata={}", installation.data().display());
    let printed = installation.run("pg_checksums", ["--check", &data]).context("pg_checksums")?;
    let figure = |name: &str| -> Result<u64> {
        let line = printed.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("{name} in {printed}"))?;
        value.parse().with_context(|| format!("{name} in {printed}"))
    };
    ensure!(figure("Bad checksums:")? == 0, "{printed}");
    let pages = figure("Blocks scanned:")?;
    ensure!(pages > 1000, "pg_checksums looked at {pages} pages only");
    Ok(pages)
}

/// Every B-tree against its own order and against all rows of its table; every table against its own layout, and its
/// long values against their table.
pub fn structure(server: &Server) -> Result<(u64, u64)> {
    server.query("CREATE EXTENSION IF NOT EXISTS amcheck")?;
    let indexes = server.query(
        "SELECT count(*) FROM (SELECT bt_index_parent_check(c.oid, heapallindexed => true) \
         FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid \
         WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid) AS checked",
    );
    let indexes: u64 = indexes.context("bt_index_parent_check")?.trim().parse().context("number of indexes")?;
    let heaps = "FROM pg_class c WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'";
    let found = server.query(&format!(
        "SELECT c.relname, v.* {} LIMIT 20",
        heaps.replace("WHERE", "CROSS JOIN LATERAL verify_heapam(c.oid, check_toast => true) AS v WHERE")
    ));
    let found = found.context("verify_heapam")?;
    ensure!(found.trim().is_empty(), "verify_heapam found:\n{found}");
    let tables = server.query(&format!("SELECT count(*) {heaps}"))?.trim().parse().context("number of tables")?;
    ensure!(indexes > 50 && tables > 50, "only {indexes} indexes and {tables} tables were checked");
    Ok((indexes, tables))
}

/// A transfer changes an account, a teller and a branch by the same amount and says so in the history: the four sums
/// are equal after whole transactions only.
pub fn sums(server: &Server) -> Result<()> {
    let sums = server.query(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    )?;
    let sums: Vec<&str> = sums.trim().split('|').collect();
    ensure!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "pgbench's sums differ: {sums:?}");
    Ok(())
}
