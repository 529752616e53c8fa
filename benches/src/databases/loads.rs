//! The programs that ask the databases: sysbench and pgbench, and what they say.

use anyhow::{Context, Result};
use ashlar_tests::postgres::{Installation, Server};
use ashlar_tests::{MariaDb, run_ok};
use std::path::Path;
use std::time::Duration;

pub(super) const DATABASE: &str = "sbtest";
/// MariaDB's own memory for pages is 256 MiB, so PostgreSQL gets as much.
const POSTGRES_MEMORY: [&str; 4] =
    ["shared_buffers=256MB", "max_wal_size=1GB", "checkpoint_timeout=30s", "max_connections=64"];

/// What one run of a load came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    pub(super) per_second: f64,
    pub(super) transactions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sysbench {
    /// Behind `oltp_`.
    pub(super) script: &'static str,
    pub(super) threads: u32,
}

/// How large the tables are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) tables: u32,
    pub(super) rows_per_table: u32,
    /// 100,000 accounts each.
    pub(super) pgbench_scale: u32,
}

impl Sysbench {
    pub(super) fn name(&self) -> String {
        format!("MariaDB: sysbench {}, {} threads", self.script, self.threads)
    }

    fn arguments(&self, size: &Size, socket: &Path) -> Vec<String> {
        vec![
            format!("oltp_{}", self.script),
            "--db-driver=mysql".to_owned(),
            format!("--mysql-socket={}", socket.display()),
            "--mysql-user=root".to_owned(),
            format!("--mysql-db={DATABASE}"),
            format!("--tables={}", size.tables),
            format!("--table-size={}", size.rows_per_table),
            format!("--threads={}", self.threads),
            // With hot rows the transactions would wait for each other and not for the volume.
            "--rand-type=uniform".to_owned(),
        ]
    }

    pub(super) fn command(&self, size: &Size) -> String {
        format!("sysbench {} run", self.arguments(size, Path::new("SOCKET")).join(" "))
    }

    pub(super) fn run(&self, server: &MariaDb, size: &Size, duration: Duration) -> Result<Score> {
        let mut arguments = self.arguments(size, server.socket());
        arguments.extend([format!("--time={}", duration.as_secs()), "run".to_owned()]);
        sysbench_score(&run_ok("sysbench", arguments)?)
    }

    /// Makes and fills the tables.
    pub(super) fn prepare(server: &MariaDb, size: &Size) -> Result<()> {
        server.query(&format!("CREATE DATABASE {DATABASE}"))?;
        let mut arguments = Sysbench { script: "read_write", threads: size.tables }.arguments(size, server.socket());
        arguments.push("prepare".to_owned());
        run_ok("sysbench", arguments).context("fill sysbench's tables").map(drop)
    }
}

/// `    transactions:                        1234   (20.55 per sec.)`
fn sysbench_score(printed: &str) -> Result<Score> {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("transactions:"));
    let (count, rate) = line.and_then(|line| line.split_once('(')).context("sysbench tells its transactions")?;
    let rate = rate.split_whitespace().next().context("sysbench tells a rate")?;
    Ok(Score { per_second: rate.parse()?, transactions: count.trim().parse()? })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pgbench {
    /// What stands behind `pgbench` in its name.
    pub(super) options: &'static [&'static str],
}

impl Pgbench {
    pub(super) fn name(&self) -> String {
        format!("PostgreSQL: {}", self.command())
    }

    pub(super) fn command(&self) -> String {
        format!("pgbench {}", self.options.join(" "))
    }

    pub(super) fn run(&self, server: &Server, duration: Duration) -> Result<Score> {
        let mut arguments = server.installation().connection().to_vec();
        arguments.extend(self.options.iter().map(|option| (*option).to_owned()));
        arguments.extend(["--no-vacuum".to_owned(), format!("--time={}", duration.as_secs())]);
        pgbench_score(&server.installation().run("pgbench", arguments)?)
    }

    pub(super) fn prepare(server: &Server, size: &Size) -> Result<()> {
        let mut arguments = server.installation().connection().to_vec();
        let scale = format!("--scale={}", size.pgbench_scale);
        arguments.extend(["--initialize".to_owned(), scale, "--quiet".to_owned()]);
        server.installation().run("pgbench", arguments).context("fill pgbench's tables").map(drop)
    }
}

pub(super) fn postgres(volume: &Path, run: &Path) -> Result<Installation> {
    Ok(Installation::find(volume, run)?.with_memory(&POSTGRES_MEMORY))
}

/// `number of transactions actually processed: 1234`, `tps = 20.55 (without initial connection time)`
fn pgbench_score(printed: &str) -> Result<Score> {
    let behind = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name));
    let rate = behind("tps = ").and_then(|rest| rest.split_whitespace().next()).context("pgbench tells a rate")?;
    let count = behind("number of transactions actually processed: ").context("pgbench tells its transactions")?;
    let count = count.split('/').next().unwrap_or(count).trim();
    Ok(Score { per_second: rate.parse()?, transactions: count.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print_is_understood() {
        let printed =
            "SQL statistics:\n    transactions:        1234   (20.55 per sec.)\n    queries: 1 (2 per sec.)\n";
        assert_eq!(sysbench_score(printed).unwrap(), Score { per_second: 20.55, transactions: 1234 });
        assert!(sysbench_score("FATAL").is_err());
        let printed = "number of transactions actually processed: 1234\nlatency average = 1.1 ms\n\
                       tps = 912.500000 (without initial connection time)\n";
        assert_eq!(pgbench_score(printed).unwrap(), Score { per_second: 912.5, transactions: 1234 });
        assert!(pgbench_score("tps =").is_err());
    }
}
