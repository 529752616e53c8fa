//! All candidates side by side: every round goes through all cells, every cell through all candidates, who goes first
//! changes, and between them the raw disk is asked how it is.

pub(crate) mod cells;
mod durable;
mod outage;

use crate::ceph::Ceph;
use crate::contestant::{Contestant, Driver, Ring, Round, reading};
use crate::engine::Engine;
use crate::fio;
use crate::front::Front;
use crate::idle;
use crate::job::{Job, Pattern};
use crate::report::{Cell, Clause, Figure, Findings};
use crate::target::{Target, prewritten};
use anyhow::{Context, Result};
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::{DevCluster, nbd_socket};
use cells::{ASHLAR, CEPH, CellPlan, ENGINE, L1, L3, LN, NODE, WRITE_32};
use std::path::Path;
use std::time::{Duration, Instant as Clock};

pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUME: &str = "bench";
/// How long the disk is given to come to rest after everything was written.
const SETTLE_MIN: Duration = Duration::from_secs(10);
const SETTLE_MAX: Duration = Duration::from_secs(60);

pub(crate) const NOT_SAID: &[&str] = &[
    "L1: one local file, L3: three in parallel, LN: Ashlar's own NBD server over one local file; all O_DIRECT and \
     durable.",
    "Ashlar: each chunkserver and datapath a process; one process: those of a node are one. These two and LN are asked \
     through NBD by our own loop, L1 and L3 by the same loop directly: a kernel's block device costs more.",
    "Engine: one process, and our loop is in it too, as fio's engines for Ceph and Vitastor have the client in fio; it \
     speaks NBD to the volume's server without a socket. The bars 1 to 5 are about it, where they do not say NBD.",
    "CPU and switches: of all daemons and of who asks, with what is done behind the answers; not the kernel's threads.",
    "Ceph RBD, if it is there, is asked by fio through librbd, whose processor time is in its figures. Its OSDs write \
     through the page cache too, so of its bytes only the disk's count says something.",
];

/// How much is done.
pub(crate) struct SpeedPlan {
    pub(crate) rounds: usize,
    pub(crate) cell: Duration,
    pub(crate) burst: Duration,
    pub(crate) sustained: Duration,
    pub(crate) sentinel: Duration,
    pub(crate) span_bytes: u64,
    pub(crate) disk_size: &'static str,
    pub(crate) idle: Duration,
    /// Only the cells whose name contains this, and nothing but cells.
    pub(crate) only: Option<String>,
}

struct Stage<'a> {
    cluster: &'a DevCluster,
    plan: &'a SpeedPlan,
    ring: Ring<'a>,
    contestants: Vec<Contestant>,
}

/// What is found is in `findings` at once, so a failure takes nothing of it.
pub(crate) fn measure(
    cluster: &DevCluster,
    nodes: &DevCluster,
    dir: &Path,
    plan: &SpeedPlan,
    ceph: Option<&Ceph>,
    findings: &mut Findings,
) -> Result<()> {
    cluster.cli(&["volume", "create", VOLUME, "--size", &plan.span_bytes.to_string(), "--node", NODES[0]])?;
    let uri = cluster.attach(VOLUME, NODES[0], "nbd")?;
    nodes.cli(&["volume", "create", VOLUME, "--size", &plan.span_bytes.to_string(), "--node", NODES[0]])?;
    let engine = Box::new(Engine::in_place_of(nodes, NODES[0], VOLUME)?);
    let mut node_pids = idle::pids(nodes)?;
    node_pids.push(engine.pid());
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    eprintln!("writing the files and the volume in full");
    let local = dir.join("front-file");
    drop(prewritten(&local, plan.span_bytes)?);
    let front = Front::nbd(&local, &dir.join("front-socket"))?;
    let mut contestants = vec![
        Contestant::new(L1, Target::files(&mut reactor, dir, 1, plan.span_bytes)?, vec![]),
        Contestant::new(L3, Target::files(&mut reactor, dir, 3, plan.span_bytes)?, vec![]),
        Contestant::new(LN, Target::nbd(&mut reactor, front.place())?, vec![front.pid()]),
        Contestant::new(ASHLAR, Target::nbd(&mut reactor, &nbd_socket(&uri)?)?, idle::pids(cluster)?),
        Contestant::new(NODE, Target::nbd(&mut reactor, engine.socket())?, node_pids.clone()),
        Contestant { candidate: ENGINE, driver: Driver::Inner(engine), daemons: node_pids },
    ];
    if let Some(ceph) = ceph {
        let driver = Driver::Fio(ceph.image(VOLUME, plan.span_bytes)?);
        contestants.push(Contestant { candidate: CEPH, driver, daemons: ceph.pids() });
    }
    let ring = Ring { reactor: &mut reactor, dir, span_bytes: plan.span_bytes };
    let mut stage = Stage { cluster, plan, ring, contestants };
    stage.fill()?;
    findings.extend(stage.cells()?);
    findings.figures.extend(cells::judge(&findings.cells));
    if plan.only.is_none() {
        findings.extend(stage.sustained()?);
        findings.figures.push(stage.cross_check(&uri)?);
        findings.figures.extend(stage.outages(ceph)?);
        findings.figures.push(stage.idle()?);
    }
    for contestant in stage.contestants {
        contestant.close(&mut reactor)?;
    }
    drop(reactor);
    front.stop()?;
    cluster.detach(VOLUME)?;
    if plan.only.is_none() {
        findings.figures.push(durable::measure(cluster)?);
    }
    Ok(())
}

impl Stage<'_> {
    /// First touches are not what is measured; files are written already.
    fn fill(&mut self) -> Result<()> {
        let job = Job::write(1 << 20, 8).pattern(Pattern::Sequential);
        for contestant in self.contestants.iter_mut().filter(|one| matches!(one.candidate, ASHLAR | NODE | CEPH)) {
            contestant.run(&mut self.ring, &job, 1)?;
        }
        self.wait_for_disk()
    }

    /// For seconds after much was written one durable write takes many times as long.
    fn wait_for_disk(&mut self) -> Result<()> {
        let (began, mut sentinels) = (Clock::now(), vec![]);
        while began.elapsed() < SETTLE_MAX {
            sentinels.push(self.sentinel()?);
            let best = sentinels.iter().copied().fold(0.0, f64::max);
            let is_steady = sentinels.iter().rev().take(3).all(|&sentinel| sentinel > 0.7 * best);
            if is_steady && began.elapsed() > SETTLE_MIN {
                return Ok(());
            }
        }
        eprintln!("the disk is not steady {} s after the files were written", SETTLE_MAX.as_secs());
        Ok(())
    }

    fn cells(&mut self) -> Result<Findings> {
        let plans = cells::some(self.plan.cell, self.plan.burst, self.plan.only.as_deref());
        let mut rounds: Vec<Vec<Vec<Round>>> =
            plans.iter().map(|_| self.contestants.iter().map(|_| vec![]).collect()).collect();
        let mut sentinels = vec![vec![]; plans.len()];
        let half_of = plans.iter().position(|plan| plan.name == WRITE_32);
        for round in 0..self.plan.rounds {
            for (at, plan) in plans.iter().enumerate() {
                eprintln!("round {} of {}: {}", round + 1, self.plan.rounds, plan.name);
                for turn in 0..self.contestants.len() {
                    let who = (turn + round + at) % self.contestants.len();
                    sentinels[at].push(self.sentinel()?);
                    let own =
                        half_of.and_then(|cell| rounds[cell][who].last()).map(|last: &Round| last.outcome.per_second());
                    let job = match own {
                        Some(own) if plan.is_half_load() => Job { per_second: Some((own / 2.0) as u32), ..plan.job },
                        _ => plan.job,
                    };
                    let measured = self.contestants[who].measure(&mut self.ring, &job, round as u64 + 1)?;
                    rounds[at][who].push(measured);
                }
            }
        }
        let cells = plans.iter().zip(rounds).zip(sentinels);
        let cells = cells.map(|((plan, rounds), sentinels)| self.cell(plan, &rounds, sentinels));
        Ok(Findings { cells: cells.collect(), ..Findings::default() })
    }

    fn cell(&self, plan: &CellPlan, rounds: &[Vec<Round>], sentinels: Vec<f64>) -> Cell {
        let of = |(contestant, rounds): (&Contestant, &Vec<Round>)| {
            reading(contestant.candidate, rounds, |outcome| plan.value.of(outcome, &plan.job))
        };
        let readings = self.contestants.iter().zip(rounds).map(of).collect();
        let mut command = fio::arguments(&plan.job, self.ring.span_bytes, 1).join(" ");
        if plan.is_half_load() {
            command.push_str(" --rate_iops=half of its own");
        }
        Cell { name: plan.name.to_owned(), unit: plan.value.unit(), command, readings, sentinels }
    }

    /// The raw disk now: durable writes a second.
    fn sentinel(&mut self) -> Result<f64> {
        let job = Job::write(4096, 1).lasting(self.plan.sentinel);
        Ok(self.contestants[0].run(&mut self.ring, &job, 99)?.per_second())
    }

    /// Long enough that everything is also applied in place meanwhile, where the journal is that full.
    fn sustained(&mut self) -> Result<Findings> {
        let job = Job::write(4096, 32).lasting(self.plan.sustained);
        let (mut readings, mut sentinels) = (vec![], vec![]);
        for at in 0..self.contestants.len() {
            let candidate = self.contestants[at].candidate;
            if matches!(candidate, LN | NODE) {
                continue;
            }
            eprintln!("sustained for {} s: {candidate}", self.plan.sustained.as_secs());
            sentinels.push(self.sentinel()?);
            let round = self.contestants[at].measure(&mut self.ring, &job, 5)?;
            let seconds = round.outcome.seconds.clone();
            readings.push(crate::report::Reading {
                seconds,
                ..reading(candidate, &[round], |outcome| outcome.per_second())
            });
        }
        let name = format!("4 KiB random write, depth 32, {} s", self.plan.sustained.as_secs());
        let command = fio::arguments(&job, self.ring.span_bytes, 5).join(" ");
        let cell = Cell { name, unit: "IOPS", command, readings, sentinels };
        let of = |clause, to| -> Result<Figure> {
            let ratios = cell.ratios(ENGINE, to).context("all candidates were sustained")?;
            let detail = format!("{} s, one round", self.plan.sustained.as_secs());
            Ok(Figure::of_clause(clause, ratios, detail))
        };
        let figures = vec![of(Clause::SustainedL1, L1)?, of(Clause::SustainedL3, L3)?];
        Ok(Findings { figures, cells: vec![cell], curves: vec![] })
    }

    /// Whether our loop and fio say the same of the same device.
    fn cross_check(&mut self, uri: &str) -> Result<Figure> {
        eprintln!("fio through NBD beside our own loop");
        let job = Job::write(4096, 8).lasting(self.plan.cell.max(Duration::from_secs(1)));
        let engine = fio::Engine::Nbd { uri: uri.to_owned() };
        let ashlar = self.contestants.iter().position(|one| one.candidate == ASHLAR).context("Ashlar takes part")?;
        let (mut ratios, mut detail) = (vec![], String::new());
        for round in 0..self.plan.rounds as u64 {
            idle::wait_until_quiet(self.cluster)?;
            let own = self.contestants[ashlar].run(&mut self.ring, &job, round)?.per_second();
            idle::wait_until_quiet(self.cluster)?;
            let fio = fio::run(&engine, &job, self.ring.span_bytes, round)?.per_second();
            ratios.push(own / fio);
            detail = format!("last round: {own:.0} IOPS against {fio:.0} IOPS");
        }
        Ok(Figure::told("our loop / fio, both through NBD, 4 KiB write, depth 8", "x", ratios, detail))
    }

    fn idle(&mut self) -> Result<Figure> {
        idle::wait_until_quiet(self.cluster)?;
        let used = idle::percent_of_a_core(self.cluster, self.plan.idle)?;
        Ok(Figure::of_clause(Clause::Idle, vec![used], format!("all daemons, {} s", self.plan.idle.as_secs())))
    }
}
