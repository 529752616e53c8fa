//! How figures grow with what there is: volumes, chunks, snapshots, chunkservers, journal, bytes stored. Each is Ashlar
//! beside itself when it was small.

mod journal;
mod memory;

use crate::idle;
use crate::job::Job;
use crate::load;
use crate::report::{Clause, Curve, Figure, Findings, Point};
use crate::snapshots::thin;
use crate::target::Target;
use anyhow::Result;
use ashlar_reactor::{Reactor, ReactorConfig};
use ashlar_tests::{DevCluster, NbdClient, nbd_socket};
use ashlar_types::SLOT_BYTES;
use journal::Restart;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use journal::measure as journal;
pub(crate) use memory::measure as memory;

const NODE: &str = "n1";
const MIB: u64 = 1 << 20;
const CHUNK_BYTES: u64 = 4 << 20;
/// Of each of many volumes; one alone has as much as all.
const SMALL_BYTES: u64 = 16 * MIB;
const VOLUMES: usize = 64;
/// Slots that are written of a volume with many chunks.
const SLOTS: u64 = 2048;

pub(crate) const NOT_SAID: &[&str] = &[
    "A million chunks are in the volume's record and the catalog; 2,048 slots of them are written, as in the volume of \
     a thousand.",
    "Memory is the slope of a chunkserver's resident memory between two amounts stored, after a restart, one replica.",
];

/// How much is done.
pub(crate) struct GrowthPlan {
    pub(crate) rounds: usize,
    pub(crate) cell: Duration,
    pub(crate) disk_size: &'static str,
    pub(crate) chunkservers: &'static [u16],
    pub(crate) snapshots: &'static [usize],
    /// In MiB.
    pub(crate) journals: &'static [u64],
    pub(crate) stored_mib: [u64; 2],
}

/// Volumes, chunks and snapshots, on one cluster.
pub(crate) fn measure(cluster: &DevCluster, plan: &GrowthPlan) -> Result<Findings> {
    let mut findings = volumes(cluster, plan)?;
    findings.extend(chunks(cluster, plan)?);
    findings.extend(snapshots(cluster, plan)?);
    Ok(findings)
}

fn socket(cluster: &DevCluster, volume: &str) -> Result<PathBuf> {
    nbd_socket(&cluster.attach(volume, NODE, "nbd")?)
}

fn drop_volume(cluster: &DevCluster, volume: &str) -> Result<()> {
    cluster.detach(volume)?;
    cluster.cli(&["volume", "delete", volume]).map(drop)
}

/// The same depth over all of them, and over one that is as large as all.
fn volumes(cluster: &DevCluster, plan: &GrowthPlan) -> Result<Findings> {
    eprintln!("one volume, and up to {VOLUMES} that share the load");
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let names: Vec<String> = (0..VOLUMES).map(|at| format!("many-{at}")).collect();
    let mut sockets = vec![];
    for name in &names {
        cluster.cli(&["volume", "create", name, "--size", &SMALL_BYTES.to_string(), "--node", NODE])?;
        sockets.push(socket(cluster, name)?);
    }
    let whole = SMALL_BYTES * VOLUMES as u64;
    cluster.cli(&["volume", "create", "whole", "--size", &whole.to_string(), "--node", NODE])?;
    let mut targets = vec![(1, Target::nbd(&mut reactor, &socket(cluster, "whole")?)?, whole)];
    for count in [4, 16, VOLUMES] {
        targets.push((count, Target::nbd_all(&mut reactor, &sockets[..count])?, SMALL_BYTES));
    }
    // Every place once, so that no first touch is measured.
    let fill = Job::write(MIB as u32, 8).pattern(crate::job::Pattern::Sequential);
    load::run(&mut reactor, &mut targets[0].1, &fill, whole, 1, || Ok(()))?;
    for socket in &sockets {
        let mut target = Target::nbd(&mut reactor, socket)?;
        load::run(&mut reactor, &mut target, &fill, SMALL_BYTES, 1, || Ok(()))?;
        target.close(&mut reactor);
    }
    let job = Job::write(4096, VOLUMES).lasting(plan.cell);
    let mut points: Vec<Point> = targets.iter().map(|(count, ..)| Point { x: *count as f64, rounds: vec![] }).collect();
    for round in 0..plan.rounds as u64 {
        for ((_, target, span), point) in targets.iter_mut().zip(&mut points) {
            idle::wait_until_quiet(cluster)?;
            point.rounds.push(load::run(&mut reactor, target, &job, *span, round, || Ok(()))?.per_second());
        }
    }
    targets.into_iter().for_each(|(_, target, _)| target.close(&mut reactor));
    drop(reactor);
    names.iter().map(String::as_str).chain(["whole"]).try_for_each(|volume| drop_volume(cluster, volume))?;
    let (one, all) = (&points[0].rounds, &points[points.len() - 1].rounds);
    let ratios = all.iter().zip(one).map(|(all, one)| all / one).collect();
    let figure = Figure::of_clause(Clause::Volumes, ratios, format!("4 KiB writes, depth {VOLUMES} over all"));
    let name = "4 KiB writes over many volumes".to_owned();
    Ok(Findings { figures: vec![figure], cells: vec![], curves: vec![Curve { name, x: "volumes", y: "IOPS", points }] })
}

/// Thin volumes that are equal but for the number of chunks.
fn chunks(cluster: &DevCluster, plan: &GrowthPlan) -> Result<Findings> {
    eprintln!("volumes of 1,000, 32,000 and 1,000,000 chunks");
    let counts = [1_000u64, 32_000, 1_000_000];
    let mut guests = vec![];
    for count in counts {
        let (name, bytes) = (format!("chunks-{count}"), count * CHUNK_BYTES);
        thin::create(cluster, &name, bytes, NODE)?;
        let mut client = NbdClient::connect(&socket(cluster, &name)?)?;
        let offsets = crate::guest::spread(SLOTS, bytes);
        let slot = vec![0x5a; SLOT_BYTES as usize];
        offsets.iter().try_for_each(|&offset| client.write(offset, &slot))?;
        guests.push((name, client, offsets));
    }
    let mut points: Vec<Point> = counts.iter().map(|count| Point { x: *count as f64, rounds: vec![] }).collect();
    for round in 0..plan.rounds * 2 {
        for turn in 0..guests.len() {
            let at = (turn + round) % guests.len();
            idle::wait_until_quiet(cluster)?;
            let (_, client, offsets) = &mut guests[at];
            let mean = crate::guest::write_once(client, &offsets[..512])?;
            points[at].rounds.push(mean.as_secs_f64() * 1e6);
        }
    }
    for (name, client, _) in guests {
        client.close()?;
        drop_volume(cluster, &name)?;
    }
    let ratios = points[2].rounds.iter().zip(&points[0].rounds).map(|(many, few)| many / few).collect();
    let figure = Figure::of_clause(Clause::Chunks, ratios, "4 KiB writes one after the other".to_owned());
    let name = "4 KiB write, one after the other".to_owned();
    Ok(Findings { figures: vec![figure], cells: vec![], curves: vec![Curve { name, x: "chunks", y: "us", points }] })
}

/// Reads of a volume below more and more snapshots, each with a version of every slot.
fn snapshots(cluster: &DevCluster, plan: &GrowthPlan) -> Result<Findings> {
    eprintln!("reads and writes with up to {:?} snapshots", plan.snapshots.last());
    let (name, bytes, slots) = ("layers", 256 * MIB, 64);
    thin::create(cluster, name, bytes, NODE)?;
    let mut client = NbdClient::connect(&socket(cluster, name)?)?;
    let offsets = crate::guest::spread(slots, bytes);
    let slot = vec![0x5a; SLOT_BYTES as usize];
    offsets.iter().try_for_each(|&offset| client.write(offset, &slot))?;
    let (mut reads, mut writes, mut taken) = (vec![], vec![], 0);
    for &count in plan.snapshots {
        while taken < count {
            cluster.take_snapshot(name, &format!("layer-{taken}"))?;
            crate::guest::write_once(&mut client, &offsets)?;
            taken += 1;
        }
        let (mut read, mut write) = (vec![], vec![]);
        for _ in 0..plan.rounds * 3 {
            idle::wait_until_quiet(cluster)?;
            read.push(crate::guest::read_once(&mut client, &offsets, 4096)?.as_secs_f64() * 1e6);
            write.push(crate::guest::write_once(&mut client, &offsets)?.as_secs_f64() * 1e6);
        }
        reads.push(Point { x: count as f64, rounds: read });
        writes.push(Point { x: count as f64, rounds: write });
    }
    client.close()?;
    cluster.detach(name)?;
    let curve = |name: &str, points| Curve { name: name.to_owned(), x: "snapshots", y: "us", points };
    let curves = vec![curve("4 KiB read below snapshots", reads), curve("4 KiB write above snapshots", writes)];
    Ok(Findings { curves, ..Findings::default() })
}

/// One volume on three of so many chunkservers: what the others cost who does not use them. Gives IOPS of each round.
pub(crate) fn on_chunkservers(cluster: &DevCluster, plan: &GrowthPlan) -> Result<Vec<f64>> {
    let (name, bytes) = ("wide", 256 * MIB);
    cluster.cli(&["volume", "create", name, "--size", &bytes.to_string(), "--node", NODE])?;
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let mut target = Target::nbd(&mut reactor, &socket(cluster, name)?)?;
    let fill = Job::write(MIB as u32, 8).pattern(crate::job::Pattern::Sequential);
    load::run(&mut reactor, &mut target, &fill, bytes, 1, || Ok(()))?;
    let job = Job::write(4096, 32).lasting(plan.cell);
    let mut rounds = vec![];
    for round in 0..plan.rounds as u64 {
        idle::wait_until_quiet(cluster)?;
        rounds.push(load::run(&mut reactor, &mut target, &job, bytes, round, || Ok(()))?.per_second());
    }
    target.close(&mut reactor);
    drop(reactor);
    drop_volume(cluster, name)?;
    Ok(rounds)
}

/// Of one value for each count.
pub(crate) fn curve(name: &str, x: &'static str, y: &'static str, points: Vec<(f64, Vec<f64>)>) -> Curve {
    let points = points.into_iter().map(|(x, rounds)| Point { x, rounds }).collect();
    Curve { name: name.to_owned(), x, y, points }
}

/// The largest journal is judged.
pub(crate) fn of_restarts(restarts: &[Restart]) -> Findings {
    let mib = MIB as f64;
    let points = restarts.iter().map(|one| (one.replayed_bytes / mib, vec![one.seconds])).collect();
    let curves = vec![curve("replay of a disk whose chunkserver died under load", "MiB in the journal", "s", points)];
    let figure = |last: &Restart| {
        let speed = last.replayed_bytes / last.seconds;
        let detail = format!(
            "{:.0} MiB replayed in {:.2} s, an empty journal in {:.2} s; a file {:.0} MiB/s, the memory {:.2} s",
            last.replayed_bytes / mib,
            last.seconds,
            last.empty_seconds,
            last.raw_read / mib,
            last.memory_seconds
        );
        Figure::of_clause(Clause::Replay, vec![speed / last.raw_read], detail)
    };
    Findings { figures: restarts.last().map(figure).into_iter().collect(), cells: vec![], curves }
}

/// (MiB stored, MiB resident): the slope, as GiB for each TiB.
pub(crate) fn of_memory(amounts: &[(f64, f64)]) -> Findings {
    let points = amounts.iter().map(|(stored, resident)| (*stored, vec![*resident])).collect();
    let curves = vec![curve("memory of a chunkserver", "MiB stored", "MiB resident", points)];
    let [(less, before), .., (more, after)] = amounts else { return Findings { curves, ..Findings::default() } };
    let slope = (after - before) / (more - less) * 1024.0;
    let detail = format!("{before:.0} MiB resident with {less:.0} MiB stored, {after:.0} with {more:.0}");
    Findings { figures: vec![Figure::of_clause(Clause::Memory, vec![slope], detail)], cells: vec![], curves }
}

/// A file's own speed, read from its beginning to its end: O_DIRECT, 1 MiB, depth 8. Gives bytes a second.
fn raw_read(dir: &Path, bytes: u64) -> Result<f64> {
    let mut reactor = Reactor::new(ReactorConfig::default())?;
    let mut target = Target::files(&mut reactor, dir, 1, bytes)?;
    let job = Job::read(MIB as u32, 8).pattern(crate::job::Pattern::Sequential);
    let outcome = load::run(&mut reactor, &mut target, &job, bytes, 1, || Ok(()))?;
    target.close(&mut reactor);
    Ok(bytes as f64 / outcome.elapsed.as_secs_f64())
}

/// How long the system takes to give so much memory: whoever keeps what he reads pays it beside the reading.
fn fresh_memory(bytes: u64) -> f64 {
    let began = Instant::now();
    let memory = black_box(vec![1u8; bytes as usize]);
    let took = began.elapsed().as_secs_f64();
    drop(memory);
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_slope_in_gib_for_each_tib() {
        let found = of_memory(&[(1024.0, 100.0), (2048.0, 101.0)]);
        assert_eq!(found.figures[0].value, 1.0);
        assert!(of_memory(&[(1.0, 1.0)]).figures.is_empty());
    }

    #[test]
    fn the_largest_journal_is_judged() {
        let of = |mib: f64, seconds| Restart {
            replayed_bytes: mib * MIB as f64,
            seconds,
            empty_seconds: 0.1,
            raw_read: 1e9,
            memory_seconds: 0.1,
        };
        let found = of_restarts(&[of(10.0, 9.0), of(953.674_316_406_25, 2.0)]);
        assert!((found.figures[0].value - 0.5).abs() < 1e-9);
        assert_eq!(found.figures[0].clause, Some(Clause::Replay));
        assert_eq!(found.curves[0].points.len(), 2);
    }
}
