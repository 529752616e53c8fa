//! The same database, with the same data, on each candidate: the local filesystem, the front-end over a local file, a
//! volume. Before each cell the data is put back from one image, so nobody works on what another load left.

mod loads;
mod site;

use crate::ceph::Ceph;
use crate::costs::Meter;
use crate::front::Front;
use crate::idle;
use crate::report::{Cell, Clause, Figure, Findings, Reading};
use crate::speed::NODES;
use crate::speed::cells::{ASHLAR, CEPH, L1, LN};
use crate::target::prewritten;
use anyhow::{Context, Result};
use ashlar_tests::postgres::{Server, User};
use ashlar_tests::{DevCluster, MariaDb, MariaPaths};
use loads::{Pgbench, Score, Size, Sysbench};
use site::{Behind, Site};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

const VOLUME: &str = "databases";
const MARIADB: &str = "mysql";
const POSTGRES: &str = "pg";

pub(crate) const NOT_SAID: &[&str] = &[
    "L1 is a folder of the local filesystem; LN and Ashlar are ext4 on a loop device on FUSE, so two more passages for \
     each I/O than a kernel with ublk needs.",
    "The database, the load and all three replicas share the machine's cores: on a real node most of the replicas' \
     work is elsewhere.",
];

/// How much is done.
pub(crate) struct DatabasesPlan {
    pub(crate) rounds: usize,
    pub(crate) cell: Duration,
    pub(crate) volume_bytes: u64,
    pub(crate) disk_size: &'static str,
    pub(crate) rows_per_table: u32,
    pub(crate) pgbench_scale: u32,
    /// Every thread count and kind of load; else what the bars need.
    pub(crate) all: bool,
}

#[derive(Clone, Copy)]
enum Load {
    Maria(Sysbench),
    Postgres(Pgbench),
}

struct Stage<'a> {
    cluster: &'a DevCluster,
    plan: &'a DatabasesPlan,
    dir: &'a Path,
    size: Size,
    sites: Vec<Site>,
}

impl DatabasesPlan {
    fn loads(&self) -> Vec<Load> {
        let maria = |script, threads| Load::Maria(Sysbench { script, threads });
        let postgres = |options| Load::Postgres(Pgbench { options });
        let mut loads =
            vec![maria("read_only", 8), maria("read_write", 32), maria("write_only", 32), postgres(&["-c16", "-j2"])];
        if self.all {
            loads.extend([1, 32].map(|threads| maria("read_only", threads)));
            loads.extend([1, 8].map(|threads| maria("read_write", threads)));
            loads.extend([1, 8].map(|threads| maria("write_only", threads)));
            loads.extend([&["-c1"][..], &["-S", "-c16", "-j2"], &["-N", "-c16", "-j2"]].map(postgres));
        }
        loads
    }
}

impl Load {
    fn name(&self) -> String {
        match self {
            Load::Maria(load) => load.name(),
            Load::Postgres(load) => load.name(),
        }
    }
}

pub(crate) fn measure(cluster: &DevCluster, dir: &Path, plan: &DatabasesPlan, ceph: Option<&Ceph>) -> Result<Findings> {
    // PostgreSQL is not root: it may pass through, and see nothing.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
    let user = User::postgres()?;
    for name in ["run", "image"] {
        fs::create_dir(dir.join(name)).with_context(|| format!("make {name}"))?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755))?;
    }
    chown(dir.join("run"), Some(user.uid), Some(user.gid)).context("give a folder to postgres")?;
    let size = Size { tables: 4, rows_per_table: plan.rows_per_table, pgbench_scale: plan.pgbench_scale };
    let mut stage = Stage { cluster, plan, dir, size, sites: vec![] };
    stage.make_images()?;
    stage.set_up_sites(ceph)?;
    let cells = stage.cells();
    let (cells, written) = match cells {
        Ok(found) => found,
        Err(error) => return Err(error).context("the databases' logs are in the folder of the run"),
    };
    for site in stage.sites {
        site.take_down()?;
    }
    cluster.detach(VOLUME)?;
    let mut figures = judge(&cells);
    if !written.is_empty() {
        let detail =
            "sysbench read_write, 32 threads: what all daemons wrote, by three times what ext4 wrote".to_owned();
        figures.push(Figure::of_clause(Clause::BytesDatabase, written, detail));
    }
    Ok(Findings { figures, cells, curves: vec![] })
}

impl Stage<'_> {
    fn image(&self, name: &str) -> PathBuf {
        self.dir.join("image").join(name)
    }

    fn maria_paths(&self, root: &Path) -> MariaPaths {
        MariaPaths::new(root, &self.dir.join("run"))
    }

    fn make_images(&self) -> Result<()> {
        eprintln!("filling a MariaDB and a PostgreSQL once");
        let root = self.dir.join("image");
        let paths = self.maria_paths(&root);
        MariaDb::initialize(&paths)?;
        let server = MariaDb::start(&paths)?;
        Sysbench::prepare(&server, &self.size)?;
        server.stop()?;
        let installation = loads::postgres(&root, &self.dir.join("run"))?;
        installation.initialize()?;
        let server = Server::start(&installation)?;
        Pgbench::prepare(&server, &self.size)?;
        server.stop()
    }

    fn set_up_sites(&mut self, ceph: Option<&Ceph>) -> Result<()> {
        eprintln!("the local filesystem, the front-end over a local file, and a volume, each with ext4");
        let dir = self.dir;
        self.sites.push(Site::folder(L1, &dir.join("l1"))?);
        let file = dir.join("front-file");
        drop(prewritten(&file, self.plan.volume_bytes)?);
        let front = Front::device(&file, &dir.join("front"))?;
        let device = front.place().to_owned();
        self.sites.push(Site::on_device(LN, &dir.join("ln"), &device, Behind::Front(front))?);
        let size = self.plan.volume_bytes.to_string();
        self.cluster.cli(&["volume", "create", VOLUME, "--size", &size, "--node", NODES[0]])?;
        let device = PathBuf::from(self.cluster.attach(VOLUME, NODES[0], "fuse")?);
        write_in_full(&device, self.plan.volume_bytes)?;
        self.sites.push(Site::on_device(ASHLAR, &dir.join("ashlar"), &device, Behind::Attached)?);
        if let Some(ceph) = ceph {
            let behind = ceph.device(VOLUME, self.plan.volume_bytes)?;
            let device = behind.path().to_owned();
            write_in_full(&device, self.plan.volume_bytes)?;
            self.sites.push(Site::on_device(CEPH, &dir.join("ceph"), &device, Behind::Ceph(behind))?);
        }
        Ok(())
    }

    /// The cells; and of Ashlar under sysbench, round by round, bytes that daemons wrote by three times what ext4 did.
    fn cells(&self) -> Result<(Vec<Cell>, Vec<f64>)> {
        let loads = self.plan.loads();
        let mut scores = vec![vec![vec![]; self.sites.len()]; loads.len()];
        let mut written = vec![];
        for round in 0..self.plan.rounds {
            for (at, load) in loads.iter().enumerate() {
                eprintln!("round {} of {}: {}", round + 1, self.plan.rounds, load.name());
                for turn in 0..self.sites.len() {
                    let who = (turn + round + at) % self.sites.len();
                    let (score, bytes) = self.score(&self.sites[who], load)?;
                    scores[at][who].push(score.per_second);
                    let mixed = matches!(load, Load::Maria(Sysbench { script: "read_write", threads: 32 }));
                    written.extend(bytes.filter(|_| mixed && self.sites[who].candidate == ASHLAR));
                }
            }
        }
        let cell = |(load, scores): (&Load, Vec<Vec<f64>>)| self.cell(load, scores);
        Ok((loads.iter().zip(scores).map(cell).collect(), written))
    }

    fn cell(&self, load: &Load, scores: Vec<Vec<f64>>) -> Cell {
        let reading = |(site, rounds): (&Site, Vec<f64>)| Reading {
            candidate: site.candidate,
            rounds,
            p99_us: vec![],
            latency: None,
            costs: vec![],
            seconds: vec![],
        };
        let command = match load {
            Load::Maria(load) => load.command(&self.size),
            Load::Postgres(load) => load.command(),
        };
        let readings = self.sites.iter().zip(scores).map(reading).collect();
        Cell { name: load.name(), unit: "transactions/s", command, readings, sentinels: vec![] }
    }

    /// Data put back, server started, asked, stopped.
    fn score(&self, site: &Site, load: &Load) -> Result<(Score, Option<f64>)> {
        let meter = Meter::new(idle::pids(self.cluster)?, self.dir)?;
        let score = |run: &dyn Fn() -> Result<Score>| -> Result<(Score, Option<f64>)> {
            idle::wait_until_quiet(self.cluster)?;
            let (before, device_before) = (meter.sample()?, site.device_bytes_written()?);
            let score = run()?;
            idle::wait_until_quiet(self.cluster)?;
            let (Some(from), Some(to)) = (device_before, site.device_bytes_written()?) else {
                return Ok((score, None));
            };
            let user_bytes = to.saturating_sub(from) as f64;
            let costs = meter.sample()?.since(&before, score.transactions, user_bytes, (Duration::ZERO, 0));
            Ok((score, Some(costs.written_per_user_byte / 3.0)))
        };
        let name = match load {
            Load::Maria(_) => MARIADB,
            Load::Postgres(_) => POSTGRES,
        };
        site.restore(&self.image(name), name)?;
        let found = match load {
            Load::Maria(load) => {
                let paths = self.maria_paths(&site.root);
                fs::create_dir_all(&paths.scratch).context("make the directory for temporary files")?;
                let server = MariaDb::start(&paths)?;
                let found = score(&|| load.run(&server, &self.size, self.plan.cell))?;
                server.stop()?;
                found
            }
            Load::Postgres(load) => {
                let server = Server::start(&loads::postgres(&site.root, &self.dir.join("run"))?)?;
                let found = score(&|| load.run(&server, self.plan.cell))?;
                server.stop()?;
                found
            }
        };
        site.remove(name)?;
        Ok(found)
    }
}

/// First touches are not what is measured.
fn write_in_full(device: &Path, bytes: u64) -> Result<()> {
    let (output, count) = (format!("of={}", device.display()), format!("count={}", bytes >> 20));
    ashlar_tests::run_ok("dd", ["if=/dev/urandom", &output, "bs=1M", &count, "oflag=direct", "status=none"]).map(drop)
}

/// The clauses that these cells decide, and the same beside the front-end over a local file.
fn judge(cells: &[Cell]) -> Vec<Figure> {
    let mut figures = vec![];
    let named = |words: &[&str]| -> Vec<&Cell> {
        cells.iter().filter(|cell| words.iter().all(|word| cell.name.contains(word))).collect()
    };
    // Of several cells the worst, round by round.
    let worst = |cells: &[&Cell], to: &str| -> Option<Vec<f64>> {
        let ratios: Vec<Vec<f64>> = cells.iter().map(|cell| cell.ratios(ASHLAR, to)).collect::<Option<_>>()?;
        let rounds = ratios.iter().map(Vec::len).min()?;
        Some((0..rounds).map(|round| ratios.iter().map(|one| one[round]).fold(f64::MAX, f64::min)).collect())
    };
    let rows: [(Clause, &str, &[&str], &str); 5] = [
        (Clause::MariaRead, L1, &["read_only"], "sysbench read_only, worst cell / LN"),
        (Clause::MariaMixed, L1, &["read_write", " 32 "], "sysbench read_write, 32 threads / LN"),
        (Clause::MariaWrite, L1, &["write_only", " 32 "], "sysbench write_only, 32 threads / LN"),
        (Clause::Pgbench, L1, &["pgbench -c16"], "pgbench -c16 / LN"),
        (Clause::MariaCeph, CEPH, &["write_only", " 32 "], ""),
    ];
    for (clause, to, words, beside) in rows {
        let cells = named(words);
        let Some(rounds) = worst(&cells, to).filter(|rounds| !rounds.is_empty()) else { continue };
        let detail = cells.iter().map(|cell| cell.medians()).collect::<Vec<_>>().join("; ");
        figures.push(Figure::of_clause(clause, rounds, detail.clone()));
        if let Some(rounds) = worst(&cells, LN).filter(|_| !beside.is_empty()) {
            figures.push(Figure::told(beside, "x", rounds, detail));
        }
    }
    figures
}

#[cfg(test)]
mod tests;
