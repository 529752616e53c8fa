//! What backups ask: which blocks a snapshot holds, and which changed between two. An observer asks one in-sync
//! replica, with the rules of `ashlar-changes`, at random moments and of everything at the end.
//!
//! Checked is what backups live by: what is listed from A to B, applied to A, gives B; applied to nothing, what B's own
//! listing names gives B. A listing counts only if the catalog still has its snapshots afterwards. What a snapshot
//! holds is known from whoever read it, before or after: it never changes.

use crate::format;
use crate::names::{Disk, Link, MILLIS, Nanos, Vol};
use crate::stamp::{self, Stamp};
use crate::trace::Touch;
use crate::world::{Happening, World};
use ashlar_changes::observer::has_everything;
use ashlar_changes::span::Spans;
use ashlar_changes::{Scope, Span, What};
use ashlar_engine::{Event, LinkId};
use ashlar_types::{
    BLOCKS_PER_SLOT, BlockCount, BlockIndex, ChunkIndex, ChunkRange, Epoch, Geometry, Lsn, RequestId, SessionId,
    SnapshotId, VolumeRecord,
};
use ashlar_wire::{Frame, Open, Reply, Request, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Slots that a look reads besides its listing.
const SLOTS_READ: usize = 4;

/// From which snapshot to which; from none: everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Between {
    base: Option<(SnapshotId, Lsn)>,
    target: (SnapshotId, Lsn),
}

/// What one replica said of the chunks that it has.
struct Told {
    between: Between,
    disk: Disk,
    chunks: BTreeSet<ChunkIndex>,
    spans: BTreeMap<u64, Span>,
}

/// An observer who has listed, and waits for what it reads.
struct Look {
    volume: Vol,
    told: Told,
    incarnation: u32,
    reads: BTreeMap<RequestId, (SnapshotId, u64)>,
}

#[derive(Default)]
pub struct Changes {
    looks: BTreeMap<Link, Look>,
    told: BTreeMap<Vol, Vec<Told>>,
}

impl Between {
    fn scope(self, record: &VolumeRecord) -> Scope {
        Scope { base: self.base.map(|(_, point)| point), target: self.target.1, size: record.size }
    }

    fn snapshots(self) -> impl Iterator<Item = (SnapshotId, Lsn)> {
        self.base.into_iter().chain([self.target])
    }

    /// All that there are in a record.
    fn all_of(record: &VolumeRecord) -> Vec<Between> {
        let points: Vec<_> = record.snapshots.iter().map(|taken| (taken.id, taken.point)).collect();
        let bases = |target: (SnapshotId, Lsn)| {
            let older = points.iter().copied().filter(move |base| base.0 != target.0 && base.1 <= target.1);
            std::iter::once(None).chain(older.map(Some))
        };
        points.iter().flat_map(|&target| bases(target).map(move |base| Between { base, target })).collect()
    }
}

impl Told {
    fn covers(&self, block: u64) -> bool {
        self.chunks.contains(&BlockIndex(block).chunk())
    }

    /// What the block becomes when this is applied to the base.
    fn applied(&self, block: u64, base: Stamp, target: Stamp) -> Stamp {
        let span = self.spans.range(..=block).next_back().map(|(_, span)| *span);
        match span.filter(|span| block < span.end().0).map(|span| span.what) {
            Some(What::Data) => target,
            Some(What::Zeros) => Stamp::ZERO,
            None => base,
        }
    }
}

impl World {
    /// An observer looks at a volume, and another one later.
    pub fn look_at_changes(&mut self, every: Nanos) {
        if self.quiet {
            return;
        }
        let with_snapshots = |volume: &Vol| !self.catalog.record(*volume).snapshots.is_empty();
        let volumes: Vec<Vol> = self.volumes().filter(with_snapshots).collect();
        // What shows a base is soon flat.
        let based = volumes.iter().copied().rfind(|&volume| self.catalog.record(volume).origin.is_some());
        if let Some(volume) = based {
            self.begin_look(volume);
        } else if !volumes.is_empty() {
            let volume = *self.changes_rng.pick(&volumes);
            self.begin_look(volume);
        }
        let after = self.changes_rng.range(every / 2, every * 2);
        self.agenda.add(self.now + after, Happening::LookAtChanges { every });
    }

    /// The disk is one that says what it has: what a disk has lost without its chunkserver's knowing is found out when
    /// the volume is next attached.
    fn begin_look(&mut self, volume: Vol) {
        let record = self.catalog.record(volume).clone();
        let (all, disks) = (Between::all_of(&record), self.in_sync(volume));
        let honest: Vec<Disk> = disks.into_iter().filter(|&disk| !self.lies(disk) && self.answers(disk)).collect();
        if all.is_empty() || honest.is_empty() || record.served == Epoch::NONE {
            return;
        }
        let between = *self.changes_rng.pick(&all);
        let disk = *self.changes_rng.pick(&honest);
        self.trace.count("event: changes asked");
        let link = self.inspector_link(disk);
        let Some(told) = self.list(link, disk, &record, between) else {
            self.trace.count("state: changes not told");
            return self.end_look(link);
        };
        let incarnation = self.servers[disk.index()].incarnation;
        let mut look = Look { volume, told, incarnation, reads: BTreeMap::new() };
        self.read_for(link, &mut look);
        self.changes.looks.insert(link, look);
        let after = self.changes_rng.tail(MILLIS, 300 * MILLIS);
        self.agenda.add(self.now + after, Happening::ChangesSeen { link });
    }

    fn answers(&self, disk: Disk) -> bool {
        let process = self.servers[disk.index()].process.as_ref();
        process.is_some_and(|process| process.paused.is_none() && process.recovered)
    }

    /// `None` if the replica refuses, or says that it lacks something.
    fn list(&mut self, link: Link, disk: Disk, record: &VolumeRecord, between: Between) -> Option<Told> {
        let (volume, size) = (record.volume, record.size);
        let disk_id = format::disk_id(disk);
        let open = Open { cluster: record.cluster, disk: disk_id, volume, size, served: Epoch::NONE };
        match self.observe(link, RequestId(1), Request::Observe(open))? {
            Reply::Opened(opened) => has_everything(&opened, record).ok()?,
            _ => return None,
        }
        let scope = between.scope(record);
        let has = |chunk: &ChunkIndex| {
            let mut members = record.members_of(*chunk).iter();
            members.any(|&member| record.members[usize::from(member)].disk == disk_id)
        };
        let count = Geometry::new(size).map_or(0, Geometry::chunk_count);
        let mut chunks: BTreeSet<ChunkIndex> = (0..count).map(ChunkIndex).filter(has).collect();
        let mut spans = Spans::default();
        for chunk in chunks.clone() {
            let Some(floors) = scope.floors() else { break };
            match self.observe(link, RequestId(1), Request::ListBlocks { chunk, floors })? {
                Reply::Blocks(slots) => spans.add(chunk, &slots, scope.listed()),
                // The volume has grown, and no writer has told the replica: see the open points of `FOUND.md`.
                Reply::Refused(refusal) if refusal.status == Status::BadRequest => drop(chunks.remove(&chunk)),
                _ => return None,
            }
        }
        spans.close();
        let spans = std::iter::from_fn(|| spans.pop()).map(|span| (span.start.0, span)).collect();
        Some(Told { between, disk, chunks, spans })
    }

    /// The answer, if the chunkserver gives it without looking at its disk.
    fn observe(&mut self, link: Link, request: RequestId, message: Request) -> Option<Reply> {
        let (disk, session) = (self.net.link(link).disk, SessionId(u64::from(link.0)));
        let frame = Frame { session, request, epoch: Epoch::NONE, commit: Lsn::ZERO, message };
        self.tell_server(disk, Event::Request { link: LinkId(u64::from(link.0)), frame });
        self.inspections.get_mut(&link)?.pop().map(|frame| frame.message)
    }

    /// Asks for some slots of both snapshots, where guests work.
    fn read_for(&mut self, link: Link, look: &mut Look) {
        let hot = self.sites[look.volume.index()].hot.clone();
        let there = hot.into_iter().filter(|&first| look.told.covers(first)).take(SLOTS_READ);
        for (first, (id, below)) in there.flat_map(|first| look.told.between.snapshots().map(move |of| (first, of))) {
            let request = RequestId(2 + look.reads.len() as u64);
            look.reads.insert(request, (id, first));
            let start = BlockIndex(first);
            let count = BlockCount(BLOCKS_PER_SLOT);
            let range = ChunkRange { chunk: start.chunk(), start: start.within_chunk(), count };
            let frame = Frame {
                session: SessionId(u64::from(link.0)),
                request,
                epoch: Epoch::NONE,
                commit: Lsn::ZERO,
                message: Request::Read { range, below },
            };
            self.tell_server(look.told.disk, Event::Request { link: LinkId(u64::from(link.0)), frame });
        }
    }

    /// What came of a look is believed if both snapshots are still there.
    pub fn changes_seen(&mut self, link: Link) {
        let Some(look) = self.changes.looks.remove(&link) else { return };
        let replies = self.inspections.get_mut(&link).map(std::mem::take).unwrap_or_default();
        if self.servers[look.told.disk.index()].incarnation == look.incarnation {
            self.end_look(link);
        }
        let volume = look.volume;
        let record = self.catalog.record(volume);
        let is_there = |(id, _): (SnapshotId, Lsn)| record.snapshot(id).is_some();
        if self.clones.gone.contains(&volume) || !look.told.between.snapshots().all(is_there) {
            return self.trace.count("state: changes not believed, a snapshot is gone");
        }
        for reply in replies {
            let Reply::Data(blocks) = reply.message else { continue };
            let (id, first) = look.reads[&reply.request];
            for (block, bytes) in (first..).zip(blocks.data.chunks(stamp::BLOCK)) {
                match stamp::read_block(bytes) {
                    Some(stamp) => self.note_content(volume, id, block, stamp),
                    None => {
                        self.violated(format!("an observer reads of {id} what no write made"), Some((volume, block)))
                    }
                }
            }
        }
        self.believe(volume, look.told);
    }

    fn end_look(&mut self, link: Link) {
        let disk = self.net.link(link).disk;
        self.tell_server(disk, Event::LinkClosed { link: LinkId(u64::from(link.0)) });
    }

    fn believe(&mut self, volume: Vol, told: Told) {
        self.trace.line(self.now, Touch::all(volume), || {
            format!("{} lists {:?} of {volume}: {:?}", told.disk, told.between, told.spans.values())
        });
        self.trace.count(match told.between.base {
            Some(_) => "state: changes told",
            None => "state: content told",
        });
        if self.catalog.record(volume).origin.is_some() {
            self.trace.count("state: changes of a clone told");
        }
        self.changes.told.entry(volume).or_default().push(told);
    }

    /// Everything that was told of the volume, against all that was ever read of its snapshots.
    pub fn check_changes(&mut self, volume: Vol) {
        let told = self.changes.told.get(&volume).into_iter().flatten();
        let wrong = told.into_iter().find_map(|told| self.wrong_block(volume, told));
        if let Some((block, text)) = wrong {
            self.violated(text, Some((volume, block)));
        }
    }

    fn wrong_block(&self, volume: Vol, told: &Told) -> Option<(u64, String)> {
        let taken = |id: SnapshotId| &self.snapshots[volume.index()][&id];
        let Between { base, target } = told.between;
        let of_base = |block: u64| match base {
            Some((id, _)) => taken(id).content(block),
            None => Some(Stamp::ZERO),
        };
        let seen = taken(target.0).seen().filter(|(block, _)| told.covers(*block));
        let pairs = seen.filter_map(|(block, stamp)| Some((block, of_base(block)?, stamp)));
        let wrong = |&(block, before, after): &(u64, Stamp, Stamp)| told.applied(block, before, after) != after;
        pairs.into_iter().find(wrong).map(|(block, before, after)| {
            let text = format!(
                "{} lists {:?}: that gives {:?} for {before:?}, and it is {after:?}",
                told.disk,
                told.between,
                told.applied(block, before, after)
            );
            (block, text)
        })
    }

    /// At the end every in-sync replica is asked about every pair.
    pub fn look_at_all_changes(&mut self) {
        for volume in self.volumes().collect::<Vec<_>>() {
            let record = self.catalog.record(volume).clone();
            if record.served == Epoch::NONE {
                continue;
            }
            for disk in self.in_sync(volume) {
                self.look_at_all_of(volume, &record, disk);
            }
            self.check_changes(volume);
        }
    }

    fn look_at_all_of(&mut self, volume: Vol, record: &VolumeRecord, disk: Disk) {
        for between in Between::all_of(record) {
            if self.violation.is_some() {
                return;
            }
            let link = self.inspector_link(disk);
            match self.list(link, disk, record, between) {
                Some(told) => self.believe(volume, told),
                None => self.violated(format!("{disk} lists nothing of {volume}: {between:?}"), None),
            }
            self.end_look(link);
        }
    }
}
