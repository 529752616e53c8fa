//! `ashlar-bench`: Ashlar through NBD beside one local file (L1) and three local files written in parallel (L3), in
//! one run, as ratios.
//!
//! Every candidate is driven by the same loop over the same reactor, on pre-written space, with durable writes.
//! Rounds are interleaved, and a ratio is taken within a round, because the machine's speed drifts between rounds.
//! Exit status 1 if a bar does not hold.

mod guest;
mod idle;
mod job;
mod load;
mod nbd;
mod rebuild;
mod report;
mod snapshots;
mod target;

use anyhow::{Context, Result};
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::{DevCluster, nbd_socket};
use clap::{Parser, ValueEnum};
use job::{Access, Job, Outcome};
use nix::sys::signal::Signal;
use rebuild::RebuildPlan;
use report::{Bar, Figure};
use snapshots::SnapshotPlan;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use target::Target;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUME: &str = "bench";
const OUTAGE_LIMIT: Duration = Duration::from_secs(120);

/// Ashlar beside local files, as ratios.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer and shorter rounds on less data.
    #[arg(long)]
    quick: bool,
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the files of all candidates are made.
    #[arg(long, env = "TMPDIR", default_value = "/var/tmp")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Beside local files, and through an outage.
    Speed,
    /// What snapshots cost.
    Snapshots,
    /// Replicas that are made again.
    Rebuild,
}

struct Plan {
    rounds: usize,
    cell: Duration,
    span_bytes: u64,
    disk_size: &'static str,
    idle: Duration,
    snapshots: SnapshotPlan,
    rebuild: RebuildPlan,
}

impl Plan {
    fn of(arguments: &Arguments) -> Plan {
        let seconds = Duration::from_secs;
        if arguments.quick {
            Plan {
                rounds: 3,
                cell: seconds(2),
                span_bytes: 512 << 20,
                disk_size: "1536M",
                idle: seconds(10),
                snapshots: SnapshotPlan {
                    disk_size: "2G",
                    snapshots: 21,
                    turns: 21,
                    groups: 7,
                    exported_slots: 4096,
                    exports: 3,
                },
                rebuild: RebuildPlan {
                    disk_size: "2G",
                    volume_bytes: 1 << 30,
                    rounds: 1,
                    quiet: seconds(10),
                    changed_slots: 256,
                    mixed_mib: 128,
                },
            }
        } else {
            Plan {
                rounds: 5,
                cell: seconds(8),
                span_bytes: 2 << 30,
                disk_size: "4G",
                idle: seconds(30),
                snapshots: SnapshotPlan {
                    disk_size: "4G",
                    snapshots: 61,
                    turns: 61,
                    groups: 21,
                    exported_slots: 16384,
                    exports: 5,
                },
                rebuild: RebuildPlan {
                    disk_size: "5G",
                    volume_bytes: 3 << 30,
                    rounds: 3,
                    quiet: seconds(20),
                    changed_slots: 2048,
                    mixed_mib: 192,
                },
            }
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let plan = Plan::of(arguments);
    let wanted = |part: Part| arguments.only.is_none_or(|only| only == part);
    let mut figures = vec![];
    if wanted(Part::Speed) {
        figures.extend(on_cluster(arguments, 3, plan.disk_size, &[], |cluster, dir| measure(cluster, dir, &plan))?);
    }
    if wanted(Part::Snapshots) {
        let snapshots = &plan.snapshots;
        let part = |cluster: &DevCluster, _: &Path| snapshots::measure(cluster, snapshots);
        figures.extend(on_cluster(arguments, 3, snapshots.disk_size, &[], part)?);
    }
    if wanted(Part::Rebuild) {
        figures.extend(rebuild_part(arguments, &plan.rebuild)?);
    }
    report::print(&figures);
    if wanted(Part::Speed) {
        println!("L1: one local file, L3: three in parallel, all O_DIRECT and durable.");
    }
    if wanted(Part::Snapshots) {
        println!("Snapshots: Ashlar with and without; volumes are thin, and of one TiB a few MiB are written.");
    }
    if wanted(Part::Rebuild) {
        println!("Raw copy: one file to another, O_DIRECT, 64 KiB, depth 16, fdatasync at the end.");
    }
    println!("One machine, one disk: {}.", arguments.dir.display());
    println!("Not said by these figures: speed over a real network, or on disks with power-loss protection.");
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(figures.iter().all(Figure::passes))
}

fn rebuild_part(arguments: &Arguments, plan: &RebuildPlan) -> Result<Vec<Figure>> {
    // Nobody comes back: a node that is silent is given up.
    let at_once = ["--rebuild-grace-ms", "0"];
    let mut figures =
        on_cluster(arguments, 4, plan.disk_size, &at_once, |cluster, dir| rebuild::speed::measure(cluster, dir, plan))?;
    figures.extend(on_cluster(arguments, 3, "2G", &[], |cluster, _| rebuild::resync::measure(cluster, plan))?);
    let dir = tempfile::Builder::new().prefix("ashlar-bench-").tempdir_in(&arguments.dir)?;
    figures.extend(rebuild::mixed::measure(dir.path(), plan)?);
    figures.extend(rebuild::planner::measure()?);
    Ok(figures)
}

/// A cluster of its own for each part: what one leaves to be done in the background is not charged to the next.
fn on_cluster(
    arguments: &Arguments,
    nodes: u16,
    disk_size: &str,
    options: &[&str],
    part: impl FnOnce(&DevCluster, &Path) -> Result<Vec<Figure>>,
) -> Result<Vec<Figure>> {
    let dir = tempfile::Builder::new().prefix("ashlar-bench-").tempdir_in(&arguments.dir)?;
    eprintln!("starting a cluster of {nodes} nodes on {}", arguments.dir.display());
    let cluster = DevCluster::up_with(&dir.path().join("cluster"), nodes, disk_size, None, options)?;
    let figures = part(&cluster, dir.path());
    if figures.is_err() {
        eprintln!("{}", cluster.log_tails());
    }
    let figures = figures?;
    cluster.down()?;
    Ok(figures)
}

fn measure(cluster: &DevCluster, dir: &Path, plan: &Plan) -> Result<Vec<Figure>> {
    let size = plan.span_bytes.to_string();
    cluster.cli(&["volume", "create", VOLUME, "--size", &size, "--node", NODES[0]])?;
    let socket = nbd_socket(&cluster.attach(VOLUME, NODES[0], "nbd")?)?;
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    eprintln!("writing the files and the volume in full");
    let mut one = Target::files(&mut reactor, dir, 1, plan.span_bytes)?;
    let mut three = Target::files(&mut reactor, dir, 3, plan.span_bytes)?;
    let mut ashlar = Target::nbd(&mut reactor, &socket)?;
    fill(&mut reactor, &mut ashlar, plan)?;

    let mut figures = vec![];
    let cells = Cells { cluster, plan, reactor: &mut reactor, one: &mut one, three: &mut three, ashlar: &mut ashlar };
    cells.measure(&mut figures)?;
    figures.push(outage(cluster, &mut reactor, &mut ashlar, plan, Signal::SIGKILL, 0.5)?);
    figures.push(outage(cluster, &mut reactor, &mut ashlar, plan, Signal::SIGSTOP, 2.0)?);
    idle::wait_until_quiet(cluster)?;
    let used = idle::percent_of_a_core(cluster, plan.idle)?;
    let detail = format!("all daemons, {} s", plan.idle.as_secs());
    figures.push(Figure::of_rounds("idle cluster, CPU", "% of a core", vec![used], Bar::AtMost(1.0), detail));
    for target in [one, three, ashlar] {
        target.close(&mut reactor);
    }
    drop(reactor);
    cluster.detach(VOLUME)?;
    Ok(figures)
}

/// First touches are not what is measured.
fn fill(reactor: &mut Reactor, target: &mut Target, plan: &Plan) -> Result<()> {
    let mut written = 0;
    while written < plan.span_bytes {
        let job =
            Job { access: Access::Write, bytes: 1 << 20, depth: 8, sequential: true, duration: Duration::from_secs(2) };
        let outcome = load::run(reactor, target, &job, plan.span_bytes, 1, || Ok(()))?;
        written += (outcome.per_second() * outcome.elapsed.as_secs_f64()) as u64 * u64::from(job.bytes);
    }
    Ok(())
}

struct Cells<'a> {
    cluster: &'a DevCluster,
    plan: &'a Plan,
    reactor: &'a mut Reactor,
    one: &'a mut Target,
    three: &'a mut Target,
    ashlar: &'a mut Target,
}

/// What a ratio is of.
#[derive(Clone, Copy)]
enum Of {
    Latency,
    Rate,
}

/// What Ashlar is measured against.
#[derive(Clone, Copy)]
enum Against {
    One,
    Three,
}

impl Cells<'_> {
    fn measure(mut self, figures: &mut Vec<Figure>) -> Result<()> {
        let job = |access, bytes, depth, sequential| Job { access, bytes, depth, sequential, duration: self.plan.cell };
        let (read, write) = (Access::Read, Access::Write);
        let cells = [
            (
                "4 KiB random write, depth 1, latency / L3",
                job(write, 4096, 1, false),
                Of::Latency,
                Against::Three,
                Bar::AtMost(2.5),
            ),
            (
                "4 KiB random write, depth 32, IOPS / L3",
                job(write, 4096, 32, false),
                Of::Rate,
                Against::Three,
                Bar::AtLeast(0.6),
            ),
            (
                "4 KiB random read, depth 32, IOPS / L1",
                job(read, 4096, 32, false),
                Of::Rate,
                Against::One,
                Bar::AtLeast(0.4),
            ),
            (
                "1 MiB sequential write, depth 8, MiB/s / L3",
                job(write, 1 << 20, 8, true),
                Of::Rate,
                Against::Three,
                Bar::AtLeast(0.7),
            ),
        ];
        for (name, job, of, against, bar) in cells {
            eprintln!("{name}: {} rounds of 2 x {} s", self.plan.rounds, self.plan.cell.as_secs());
            figures.push(self.cell(name, &job, of, against, bar)?);
        }
        Ok(())
    }

    fn cell(&mut self, name: &str, job: &Job, of: Of, against: Against, bar: Bar) -> Result<Figure> {
        let mut ratios = vec![];
        let mut detail = String::new();
        for round in 0..self.plan.rounds {
            let baseline = match against {
                Against::One => &mut *self.one,
                Against::Three => &mut *self.three,
            };
            let seed = round as u64 + 1;
            idle::wait_until_quiet(self.cluster)?;
            let base = load::run(self.reactor, baseline, job, self.plan.span_bytes, seed, || Ok(()))?;
            let ashlar = load::run(self.reactor, self.ashlar, job, self.plan.span_bytes, seed, || Ok(()))?;
            ratios.push(match of {
                Of::Latency => ashlar.mean().as_secs_f64() / base.mean().as_secs_f64(),
                Of::Rate => ashlar.per_second() / base.per_second(),
            });
            detail = format!("last round: {} against {}", describe(&ashlar, job), describe(&base, job));
        }
        Ok(Figure::of_rounds(name, "x", ratios, bar, detail))
    }
}

fn describe(outcome: &Outcome, job: &Job) -> String {
    if job.bytes >= 1 << 20 {
        return format!("{:.0} MiB/s", outcome.per_second() * f64::from(job.bytes) / f64::from(1 << 20));
    }
    format!("{:.0} IOPS ({} us)", outcome.per_second(), outcome.mean().as_micros())
}

/// Longest time without an answer while a chunkserver with a remote replica is hit in the middle of a load of writes.
fn outage(
    cluster: &DevCluster,
    reactor: &mut Reactor,
    ashlar: &mut Target,
    plan: &Plan,
    signal: Signal,
    bar_seconds: f64,
) -> Result<Figure> {
    eprintln!("a remote chunkserver gets {signal} under load");
    let victim = format!("chunkserver-{}", NODES[2]);
    let job =
        Job { access: Access::Write, bytes: 4096, depth: 8, sequential: false, duration: Duration::from_secs(10) };
    let outcome = load::run(reactor, ashlar, &job, plan.span_bytes, 7, || cluster.kill(&victim, signal))?;
    match signal {
        Signal::SIGSTOP => cluster.kill(&victim, Signal::SIGCONT)?,
        _ => cluster.start(&victim)?,
    }
    cluster.wait_in_sync(VOLUME, OUTAGE_LIMIT)?;
    let name = format!("longest I/O gap, {signal} of a chunkserver");
    let detail = format!("{:.0} writes/s over the whole", outcome.per_second());
    Ok(Figure::of_rounds(&name, "s", vec![outcome.longest_gap.as_secs_f64()], Bar::AtMost(bar_seconds), detail))
}
