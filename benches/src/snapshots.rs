//! What snapshots cost: taking one, the first overwrite after it, reading below many of them, holding a group,
//! exporting what changed. Everything is Ashlar beside Ashlar: with and without, in turns short enough that the
//! machine's noise hits both.

mod changed;
pub(crate) mod thin;

use crate::guest::{Guest, Span, longest_in, median, read_once, spread, under_writers, wait_writes, write_once};
use crate::idle;
use crate::report::{Bar, Figure};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{CreateSnapshotRequest, ListSnapshotsRequest, SnapshotRef, VolumeRef};
use ashlar_tests::{DevCluster, NbdClient, nbd_socket};
use ashlar_types::{BLOCK_BYTES, SLOT_BYTES};
use serde::Deserialize;
use std::time::Duration;

const GIB: u64 = 1 << 30;
const NODE: &str = "n1";
/// Slots that a guest writes to while snapshots are taken: each takes 64 KiB more below each of them.
const GUEST_SLOTS: u64 = 64;
/// Slots that are overwritten between two snapshots, once first and once again.
const OVERWRITTEN_SLOTS: u64 = 100;
/// What the volume has whose reads are measured.
const DEPTH: usize = 64;
/// Slots that have a version below each of them.
const DEEP_SLOTS: u64 = 64;
/// What a group's hold may take, whatever dies.
const HOLD_MAX_MS: f64 = 500.0;

/// How much is done.
pub(crate) struct SnapshotPlan {
    pub(crate) disk_size: &'static str,
    /// Of each volume.
    pub(crate) snapshots: usize,
    /// Pairs of turns, with and without.
    pub(crate) turns: usize,
    pub(crate) groups: usize,
    /// Written, of a volume of 64 GiB; and how often it is exported.
    pub(crate) exported_slots: u64,
    pub(crate) exports: usize,
}

struct Stage<'a> {
    cluster: &'a DevCluster,
    plan: &'a SnapshotPlan,
}

pub(crate) fn measure(cluster: &DevCluster, plan: &SnapshotPlan) -> Result<Vec<Figure>> {
    let stage = Stage { cluster, plan };
    let mut figures = stage.taking()?;
    figures.push(stage.first_overwrite()?);
    figures.push(stage.reading()?);
    for volumes in [2, 3] {
        figures.push(stage.group(volumes)?);
    }
    figures.push(changed::measure(&stage)?);
    Ok(figures)
}

impl Stage<'_> {
    /// Time to take one, of a small volume and of a large one in turns; and the longest write meanwhile.
    fn taking(&self) -> Result<Vec<Figure>> {
        let sizes = [("small", GIB, "1 GiB"), ("large", 1024 * GIB, "1 TiB")];
        eprintln!("snapshots of volumes of 1 GiB and 1 TiB, both under a writer: {} of each", self.plan.snapshots);
        let (mut guests, pause) = (vec![], Duration::ZERO);
        for (volume, bytes, _) in sizes {
            guests.push(Guest {
                client: self.open(volume, bytes, GUEST_SLOTS)?,
                offsets: spread(GUEST_SLOTS, bytes),
                pause,
            });
        }
        self.rest()?;
        let (mut snapshots, mut ratios) = ([vec![], vec![]], vec![]);
        let written = under_writers(&mut guests, |done| {
            for number in 0..self.plan.snapshots {
                // Who goes first changes.
                for at in [number % 2, 1 - number % 2] {
                    wait_writes(done)?;
                    snapshots[at].push(self.snapshot(sizes[at].0, &format!("{}-{number}", sizes[at].0))?);
                }
                let [small, large] = [0, 1].map(|at| snapshots[at][number].took.as_secs_f64());
                ratios.push(large / small);
            }
            Ok(())
        })?;
        let [small, large] = [0, 1].map(|at| median(snapshots[at].iter().map(|snapshot| snapshot.took).collect()));
        let detail = format!("median {:.1} ms against {:.1} ms", milliseconds(large), milliseconds(small));
        let mut figures =
            vec![Figure::of_rounds("snapshot under a writer, 1 TiB / 1 GiB", "x", ratios, Bar::AtMost(1.2), detail)];
        for ((snapshots, written), (.., size)) in snapshots.iter().zip(&written).zip(sizes) {
            figures.push(stall(size, snapshots, written));
        }
        for (guest, (volume, ..)) in guests.into_iter().zip(sizes) {
            guest.client.close()?;
            self.delete(volume)?;
        }
        Ok(figures)
    }

    /// The same slots are overwritten, each for the first time since a snapshot, and then once more.
    fn first_overwrite(&self) -> Result<Figure> {
        eprintln!("the first overwrite after a snapshot and the second: {} turns", self.plan.turns);
        let mut client = self.open("overwritten", GIB, OVERWRITTEN_SLOTS)?;
        let offsets = spread(OVERWRITTEN_SLOTS, GIB);
        let (mut ratios, mut firsts, mut others) = (vec![], vec![], vec![]);
        self.rest()?;
        for turn in 0..self.plan.turns {
            self.snapshot("overwritten", &format!("overwritten-{turn}"))?;
            let first = write_once(&mut client, &offsets)?;
            let other = write_once(&mut client, &offsets)?;
            ratios.push(first.as_secs_f64() / other.as_secs_f64());
            firsts.push(first);
            others.push(other);
        }
        client.close()?;
        self.delete("overwritten")?;
        let detail = format!("median {} us against {} us", median(firsts).as_micros(), median(others).as_micros());
        let name = "4 KiB write, first after a snapshot / later";
        Ok(Figure::of_rounds(name, "x", ratios, Bar::AtMost(1.15), detail))
    }

    /// Two volumes with the same slots, one of them with a version of each slot below each of many snapshots.
    fn reading(&self) -> Result<Figure> {
        eprintln!("reading with {DEPTH} snapshots and without: {} turns", self.plan.turns);
        let mut plain = self.open("plain", GIB, DEEP_SLOTS)?;
        let mut deep = self.open("deep", GIB, DEEP_SLOTS)?;
        for depth in 0..DEPTH {
            self.snapshot("deep", &format!("deep-{depth}"))?;
            let within = depth as u64 % (SLOT_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
            let offsets: Vec<u64> = spread(DEEP_SLOTS, GIB).into_iter().map(|slot| slot + within).collect();
            write_once(&mut deep, &offsets)?;
            write_once(&mut plain, &offsets)?;
        }
        self.rest()?;
        let slots = spread(DEEP_SLOTS, GIB);
        let (mut ratios, mut whole, mut deeps, mut plains) = (vec![], vec![], vec![], vec![]);
        for turn in 0..self.plan.turns {
            let within = turn as u64 % (SLOT_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
            let blocks: Vec<u64> = slots.iter().cycle().take(200).map(|slot| slot + within).collect();
            let [of_deep, of_plain] = in_turns(turn, &mut deep, &mut plain, &blocks, BLOCK_BYTES as u32)?;
            ratios.push(of_deep.as_secs_f64() / of_plain.as_secs_f64());
            deeps.push(of_deep);
            plains.push(of_plain);
            let [of_deep, of_plain] = in_turns(turn, &mut deep, &mut plain, &slots, SLOT_BYTES as u32)?;
            whole.push(of_deep.as_secs_f64() / of_plain.as_secs_f64());
        }
        for (client, volume) in [(plain, "plain"), (deep, "deep")] {
            client.close()?;
            self.delete(volume)?;
        }
        whole.sort_by(f64::total_cmp);
        let detail = format!(
            "median {} us against {} us; 64 KiB whose blocks lie below 16 different ones: {:.2}",
            median(deeps).as_micros(),
            median(plains).as_micros(),
            whole[whole.len() / 2]
        );
        let name = format!("4 KiB read, {DEPTH} snapshots / none");
        Ok(Figure::of_rounds(&name, "x", ratios, Bar::AtMost(1.15), detail))
    }

    /// For how long the writes of volumes that are written to are held for a group.
    fn group(&self, count: usize) -> Result<Figure> {
        eprintln!("groups of {count} volumes under writers: {}", self.plan.groups);
        let volumes: Vec<String> = (0..count).map(|at| format!("group-of-{count}-{at}")).collect();
        let (mut guests, pause) = (vec![], Duration::ZERO);
        for volume in &volumes {
            guests.push(Guest {
                client: self.open(volume, GIB, GUEST_SLOTS)?,
                offsets: spread(GUEST_SLOTS, GIB),
                pause,
            });
        }
        let mut held = vec![];
        under_writers(&mut guests, |done| {
            for number in 0..self.plan.groups {
                wait_writes(done)?;
                held.push(self.take_group(&volumes, &group_name(count, number))?);
            }
            Ok(())
        })?;
        for number in 0..self.plan.groups {
            self.cluster.cli(&["snapshot", "group", "delete", &group_name(count, number)])?;
        }
        for (guest, volume) in guests.into_iter().zip(&volumes) {
            guest.client.close()?;
            self.delete(volume)?;
        }
        let detail = format!("{} groups, every volume under a writer", self.plan.groups);
        let name = format!("writes held for a group of {count} volumes");
        Ok(Figure::of_rounds(&name, "ms", held, Bar::AtMost(HOLD_MAX_MS), detail))
    }

    fn take_group(&self, volumes: &[String], name: &str) -> Result<f64> {
        #[derive(Deserialize)]
        struct Group {
            held_us: u64,
            ready: bool,
        }
        let mut command = vec!["snapshot", "group", "create", name];
        command.extend(volumes.iter().map(String::as_str));
        let group: Group = self.cluster.cli_json(&command)?;
        ensure!(group.ready, "a group is ready when it is told of");
        Ok(group.held_us as f64 / 1e3)
    }

    /// A new thin volume, attached, with so many slots of it written in full.
    fn open(&self, volume: &str, bytes: u64, slots: u64) -> Result<NbdClient> {
        thin::create(self.cluster, volume, bytes, NODE)?;
        let mut client = NbdClient::connect(&nbd_socket(&self.cluster.attach(volume, NODE, "nbd")?)?)?;
        let data = vec![0x5a; SLOT_BYTES as usize];
        spread(slots, bytes).into_iter().try_for_each(|offset| client.write(offset, &data))?;
        Ok(client)
    }

    /// Over the control API: the start of a program would be most of the time.
    fn snapshot(&self, volume: &str, name: &str) -> Result<Span> {
        let mut client = self.cluster.client()?;
        let request = CreateSnapshotRequest { name: name.to_owned(), volume: volume.to_owned() };
        let (taken, span) = Span::of(|| Ok(self.cluster.block_on(client.create_snapshot(request))?.into_inner()))?;
        ensure!(taken.ready, "a snapshot is ready when it is told of");
        Ok(span)
    }

    /// With its snapshots.
    fn delete(&self, volume: &str) -> Result<()> {
        self.cluster.detach(volume)?;
        let mut client = self.cluster.client()?;
        let request = ListSnapshotsRequest { volume: volume.to_owned(), ..Default::default() };
        let listed = self.cluster.block_on(client.list_snapshots(request))?.into_inner();
        for snapshot in listed.snapshots {
            let request = SnapshotRef { snapshot: snapshot.id };
            self.cluster.block_on(client.delete_snapshot(request)).context("DeleteSnapshot")?;
        }
        let request = VolumeRef { volume: volume.to_owned() };
        self.cluster.block_on(client.delete_volume(request)).context("DeleteVolume").map(drop)
    }

    fn rest(&self) -> Result<()> {
        idle::wait_until_quiet(self.cluster)
    }
}

/// The longest write during each snapshot; and in as much time just before, to tell what is the machine's.
fn stall(size: &str, snapshots: &[Span], written: &[Span]) -> Figure {
    let usual = median(written.iter().map(|write| write.took).collect()).as_secs_f64();
    let longest = |time: &Span| longest_in(written, time).map(|longest| longest.as_secs_f64() / usual);
    let before = |time: &Span| Span { began: time.began - time.took, took: time.took };
    let mut calm: Vec<f64> = snapshots.iter().map(before).filter_map(|time| longest(&time)).collect();
    calm.sort_by(f64::total_cmp);
    let detail = match calm.as_slice() {
        [] => "no write in as much time before".to_owned(),
        [first, .., last] => {
            format!("in as much time before it: {:.2} ({first:.2} .. {last:.2})", calm[calm.len() / 2])
        }
        [only] => format!("in as much time before it: {only:.2}"),
    };
    let stalls = snapshots.iter().filter_map(longest).collect();
    let name = format!("longest write during a snapshot of {size} / median write");
    Figure::of_rounds(&name, "x", stalls, Bar::AtMost(3.0), detail)
}

fn group_name(count: usize, number: usize) -> String {
    format!("group-of-{count}-{number}")
}

/// Mean times of the same reads of both, who goes first changes.
fn in_turns(
    turn: usize,
    deep: &mut NbdClient,
    plain: &mut NbdClient,
    offsets: &[u64],
    bytes: u32,
) -> Result<[Duration; 2]> {
    let first = turn.is_multiple_of(2).then(|| read_once(deep, offsets, bytes)).transpose()?;
    let of_plain = read_once(plain, offsets, bytes)?;
    let of_deep = match first {
        Some(took) => took,
        None => read_once(deep, offsets, bytes)?,
    };
    Ok([of_deep, of_plain])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
