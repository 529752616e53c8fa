//! Snapshots that users take, read and give up; and what each must hold.
//!
//! A snapshot is a read of every block at one instant between when it was asked for and when it was in the catalog.
//! So what it gives is checked as such reads (`register`), it gives the same ever after, and all of its blocks are of
//! one instant: it has no write that began after one ended that it lacks.

use crate::history::Begun;
use crate::names::{Vol, Writer};
use crate::register::Point;
use crate::stamp::Stamp;
use crate::trace::Touch;
use crate::world::World;
use ashlar_types::{BlockCount, BlockIndex, Change, Lsn, SnapshotId};
use ashlar_volume::{Event, GuestOp, SnapshotError};
use std::collections::BTreeMap;

/// As many of a volume as are in use at a time: each may need a place for every hot slot.
const LIVE_MAX: usize = 4;

/// What is known of a snapshot that was asked for.
pub struct Taken {
    asked: Point,
    /// The instant that all of its group show.
    instant: Option<Point>,
    /// When it was in the catalog.
    recorded: Option<Point>,
    /// What was read of it.
    content: BTreeMap<u64, Stamp>,
}

impl Taken {
    fn asked(asked: Point) -> Taken {
        Taken { asked, instant: None, recorded: None, content: BTreeMap::new() }
    }

    pub fn at(instant: Point) -> Taken {
        Taken { instant: Some(instant), ..Taken::asked(instant) }
    }

    pub fn content(&self, block: u64) -> Option<Stamp> {
        self.content.get(&block).copied()
    }

    /// Blocks that somebody saw.
    pub fn seen(&self) -> impl Iterator<Item = (u64, Stamp)> {
        self.content.iter().map(|(&block, &stamp)| (block, stamp))
    }

    /// A block of it as somebody saw it, and between which points it was so. `None`: it was something else before.
    pub fn note(&mut self, block: u64, stamp: Stamp) -> Option<(Point, Point)> {
        let recorded = self.recorded.expect("the catalog has it");
        let was = *self.content.entry(block).or_insert(stamp);
        (was == stamp).then_some((self.asked, self.instant.unwrap_or(recorded)))
    }
}

impl World {
    /// One is taken, given up, or read.
    pub fn some_snapshot(&mut self, volume: Vol) {
        let live: Vec<SnapshotId> = self.catalog.record(volume).snapshots.iter().map(|taken| taken.id).collect();
        match self.site_rng.below(4) {
            0 if live.len() < LIVE_MAX => self.ask_group(),
            1 if live.len() < LIVE_MAX => self.ask_snapshot(volume),
            2 if !live.is_empty() => {
                let id = *self.site_rng.pick(&live);
                self.forget_snapshot(volume, id);
            }
            _ if !live.is_empty() => {
                let id = *self.site_rng.pick(&live);
                self.read_some_of(volume, id);
            }
            _ => {}
        }
    }

    pub fn new_snapshot(&mut self, volume: Vol) -> SnapshotId {
        let id = SnapshotId::from_u128(u128::from(self.snapshots[volume.index()].len() as u64) + 1);
        let asked = self.history[volume.index()].next_point();
        self.snapshots[volume.index()].insert(id, Taken::asked(asked));
        id
    }

    pub fn ask_snapshot(&mut self, volume: Vol) {
        let id = self.new_snapshot(volume);
        self.trace.count("event: snapshot asked");
        self.trace.line(self.now, Touch::all(volume), || format!("{id} of {volume} is asked for"));
        if let Some(writer) = self.current(volume) {
            self.tell_writer(writer, Event::Snapshot { id, held: false });
        } else if self.catalog.up && self.catalog.snapshot_detached(volume, id) {
            self.trace.count("state: snapshot of a detached volume");
            self.note_recorded(volume, id);
            self.may_regret(volume, id);
        }
    }

    pub fn forget_snapshot(&mut self, volume: Vol, id: SnapshotId) {
        if self.catalog.up {
            self.catalog.forget_snapshot(volume, id);
            self.trace.count("event: snapshot given up");
            self.trace.line(self.now, Touch::all(volume), || format!("{id} of {volume} is given up"));
            self.points_gone(volume);
        }
    }

    /// The control plane has it.
    pub fn note_recorded(&mut self, volume: Vol, id: SnapshotId) {
        let now = self.history[volume.index()].next_point();
        let taken = self.snapshots[volume.index()].get_mut(&id).expect("only what was asked for is taken");
        taken.recorded.get_or_insert(now);
    }

    pub fn note_snapshot_change(&mut self, volume: Vol, change: &Change) {
        if let Change::Snapshot(snapshot) = change {
            self.note_recorded(volume, snapshot.id);
        }
    }

    /// The writer says what became of it.
    pub fn snapshot_taken(&mut self, writer: Writer, id: SnapshotId, result: Result<Lsn, SnapshotError>) {
        let volume = self.writers[writer.index()].volume;
        self.trace.line(self.now, Touch::all(volume), || format!("{writer} says of {id}: {result:?}"));
        self.trace.count(match &result {
            Ok(_) => "state: snapshot taken",
            Err(SnapshotError::Closed) => "state: snapshot not taken, writer ends",
            Err(SnapshotError::TooMany) => "state: snapshot not taken, too many",
            Err(SnapshotError::Refused(_)) => "state: snapshot refused",
            Err(SnapshotError::Lapsed) => "state: hold was over before the point",
            Err(SnapshotError::Busy) => "state: hold refused",
        });
        let is_recorded = self.snapshots[volume.index()][&id].recorded.is_some();
        if result.is_ok() && !is_recorded {
            self.violated(format!("{writer} says that {id} of {volume} is taken, and the catalog has it not"), None);
        }
    }

    fn read_some_of(&mut self, volume: Vol, id: SnapshotId) {
        let Some(writer) = self.current(volume).filter(|writer| self.writers[writer.index()].serving) else { return };
        let (start, blocks) = self.some_place(writer);
        let count = self.guest_rng.range(1, u64::from(self.scenario.blocks_max)).min(blocks - start) as u32;
        self.read_snapshot(writer, id, start, count);
    }

    fn read_snapshot(&mut self, writer: Writer, id: SnapshotId, start: u64, count: u32) {
        let volume = self.writers[writer.index()].volume;
        let Some(below) = self.catalog.record(volume).snapshot(id).map(|taken| taken.point) else { return };
        let begun = self.history[volume.index()].begin_read(start, count);
        let op = GuestOp::Read { start: BlockIndex(start), count: BlockCount(count), below };
        self.issue(writer, crate::guest::Pending::Snapshot(id, begun), op);
    }

    /// A read of a snapshot is answered. One that is given up meanwhile may give anything.
    pub fn snapshot_read(&mut self, volume: Vol, id: SnapshotId, begun: &Begun, stamps: &[Option<Stamp>]) {
        if self.catalog.record(volume).snapshot(id).is_none() {
            return;
        }
        self.trace.count("state: snapshot read");
        for (block, stamp) in (begun.start..).zip(stamps) {
            match stamp {
                Some(stamp) => self.note_content(volume, id, block, *stamp),
                None => {
                    let text = format!("{id} has bytes that no single write made");
                    self.violated(text, Some((volume, block)));
                }
            }
        }
    }

    /// Reads all that is left of every snapshot, through the writer.
    pub fn read_all_snapshots(&mut self, volume: Vol, writer: Writer) {
        let touched: Vec<u64> = self.touched(writer).into_iter().collect();
        let live: Vec<SnapshotId> = self.catalog.record(volume).snapshots.iter().map(|taken| taken.id).collect();
        for id in live {
            for run in touched.chunk_by(|a, b| a + 1 == *b) {
                for part in run.chunks(64) {
                    self.read_snapshot(writer, id, part[0], part.len() as u32);
                }
            }
        }
    }

    /// Each snapshot is of one instant.
    pub fn check_snapshots(&mut self, volume: Vol) {
        let history = &self.history[volume.index()];
        let torn = self.snapshots[volume.index()].iter().find_map(|(id, taken)| {
            let [has, lacks] = history.torn_cut(&taken.content)?;
            Some((format!("{id} has what was written to block {has} and lacks what block {lacks} had before"), lacks))
        });
        if let Some((text, block)) = torn {
            self.violated(text, Some((volume, block)));
        }
    }
}

impl crate::catalog::Catalog {
    /// Whether it was taken: nobody has the volume, and its replicas are equal.
    fn snapshot_detached(&mut self, volume: Vol, id: SnapshotId) -> bool {
        self.change(volume, |record| ashlar_plan::snapshot::take_detached(record, id).ok())
    }

    fn forget_snapshot(&mut self, volume: Vol, id: SnapshotId) {
        self.change(volume, |record| Some(ashlar_plan::snapshot::forget(record, id)));
    }
}
