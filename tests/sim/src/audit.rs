//! When everything is quiet and closed, the in-sync replicas of a volume must be equal: the same blocks, the same
//! checksums, the same stamps. An inspector looks through the protocol, like anyone who compares replicas, and
//! hears only what the engines answer.

use crate::format;
use crate::names::{Disk, Link, SECONDS, Vol, Writer};
use crate::net::{Connection, Pipe};
use crate::scenario::Class;
use crate::world::{World, disk_of};
use ashlar_engine::{Event, LinkId};
use ashlar_types::{ChunkIndex, Crc32, Epoch, FloorRange, Lsn, RequestId, SessionId, SlotIndex};
use ashlar_wire::{Frame, Open, Reply, Request, SlotContent};
use std::collections::{BTreeMap, BTreeSet};

/// `None`: the disk that loses bits cannot read the slot.
type Slots = BTreeMap<(FloorRange, ChunkIndex, SlotIndex), Option<SlotContent>>;

impl World {
    /// Compares the in-sync replicas of every volume.
    pub fn audit(&mut self) {
        for volume in self.volumes().collect::<Vec<_>>() {
            let mut replicas = Vec::new();
            for disk in self.in_sync(volume) {
                if self.violation.is_some() {
                    return;
                }
                replicas.push((disk, self.inspect(volume, disk)));
            }
            for floors in self.bands(volume) {
                for chunk in (0..self.chunks(volume)).map(ChunkIndex) {
                    self.compare(volume, floors, chunk, &replicas);
                }
            }
        }
    }

    /// What snapshots tell apart, and what each of them reads. (That a version has a block discarded is only seen
    /// together with those below it: where there is nothing to discard some replicas say so, and some say nothing.)
    fn bands(&self, volume: Vol) -> BTreeSet<FloorRange> {
        let points = self.catalog.record(volume).points();
        let borders: Vec<Lsn> = std::iter::once(Lsn::ZERO).chain(points).chain([Lsn::MAX]).collect();
        let ends = borders.windows(2).flat_map(|pair| [(pair[0], pair[1]), (Lsn::ZERO, pair[1])]);
        ends.map(|(from, below)| FloorRange { from, below }).collect()
    }

    fn compare(&mut self, volume: Vol, floors: FloorRange, chunk: ChunkIndex, replicas: &[(Disk, Slots)]) {
        // A slot whose row was lost is repaired with zeros as written ones, and copies carry that to other disks. What
        // such a version has of its own is then also what its disk reads through it.
        let rows_rot = self.scenario.classes.iter().any(|(class, _)| *class == Class::IndexFlip);
        if rows_rot && floors.from != Lsn::ZERO {
            return;
        }
        let record = self.catalog.record(volume);
        let holders: Vec<Disk> =
            record.members_of(chunk).iter().map(|&i| disk_of(record.members[usize::from(i)].disk)).collect();
        let holding: Vec<&(Disk, Slots)> = replicas.iter().filter(|(disk, _)| holders.contains(disk)).collect();
        for slot in (0..ashlar_types::SLOTS_PER_CHUNK as u16).map(SlotIndex) {
            let readable = holding.iter().filter(|(_, slots)| slots.get(&(floors, chunk, slot)) != Some(&None));
            let contents: Vec<_> = readable
                .map(|(disk, slots)| (*disk, slots.get(&(floors, chunk, slot)).and_then(Option::as_ref)))
                .collect();
            let Some((first, rest)) = contents.split_first() else { return };
            for other in rest {
                let rotten = [first.0, other.0].contains(&self.rotten);
                if let Some((block, text)) = difference(first, other, rotten || rows_rot) {
                    let block = chunk.first_block().0 + slot.first_block().0 + block;
                    let FloorRange { from, below } = floors;
                    let text = format!("replicas differ when quiet: {text}, of what floors {from}..{below} hold");
                    self.violated(text, Some((volume, block)));
                    return;
                }
            }
        }
    }

    /// Everything that a replica holds.
    fn inspect(&mut self, volume: Vol, disk: Disk) -> Slots {
        let mut slots = Slots::new();
        let Some(link) = self.observe_replica(volume, disk) else { return slots };
        for floors in self.bands(volume) {
            if self.inspect_band(volume, link, floors, &mut slots).is_none() {
                break;
            }
        }
        slots
    }

    /// An inspector's link to the replica.
    pub fn observe_replica(&mut self, volume: Vol, disk: Disk) -> Option<Link> {
        let link = self.inspector_link(disk);
        let open = Open {
            cluster: format::cluster_id(),
            disk: format::disk_id(disk),
            volume: format::volume_id(volume),
            size: self.catalog.record(volume).size,
            served: Epoch::NONE,
        };
        matches!(self.ask(link, Request::Observe(open)), Some(Reply::Opened(_))).then_some(link)
    }

    /// The replica cannot read something that it shows.
    pub fn has_unreadable(&mut self, volume: Vol, disk: Disk) -> bool {
        self.inspect(volume, disk).values().any(Option::is_none)
    }

    /// The checksums of each slot that a replica shows and can read, in the present and in each snapshot.
    pub fn checksums_of(&mut self, volume: Vol, disk: Disk) -> Vec<(ChunkIndex, SlotIndex, Lsn, [Crc32; 16])> {
        let slots = self.inspect(volume, disk);
        let views = slots.into_iter().filter(|((floors, _, _), _)| floors.from == Lsn::ZERO);
        let known = views.filter_map(|((floors, chunk, slot), content)| Some((floors.below, chunk, slot, content?)));
        known.map(|(below, chunk, slot, content)| (chunk, slot, below, checksums(Some(&content)))).collect()
    }

    /// `None` when it did not answer.
    fn inspect_band(&mut self, volume: Vol, link: Link, floors: FloorRange, slots: &mut Slots) -> Option<()> {
        let until = ChunkIndex(self.chunks(volume));
        let mut from = Some(ChunkIndex(0));
        while let Some(at) = from.take() {
            let request = Request::ListChanged { from: at, until, after: Lsn::ZERO, floors };
            let Some(Reply::Changed { entries, next }) = self.ask(link, request) else { return None };
            for entry in entries {
                for slot in entry.slots.iter() {
                    let content = match self.ask(link, Request::ReadSlot { chunk: entry.chunk, slot, floors })? {
                        Reply::Slot(content) => Some(content),
                        _ => None,
                    };
                    slots.insert((floors, entry.chunk, slot), content);
                }
            }
            from = next;
        }
        Some(())
    }

    pub fn inspector_link(&mut self, disk: Disk) -> Link {
        let link = Link(self.net.links.len() as u32);
        let node = self.servers[disk.index()].node;
        self.net.links.push(Connection {
            writer: Writer(u32::MAX),
            disk,
            session: SessionId(u64::from(link.0)),
            writer_node: node,
            server_node: node,
            incarnation: self.servers[disk.index()].incarnation,
            writer_open: false,
            server_open: true,
            to_server: Pipe::default(),
            to_writer: Pipe::default(),
        });
        self.inspections.insert(link, Vec::new());
        link
    }

    /// One request and its answer; a refusal is a violation, except of what the disk with bad bits cannot read.
    pub fn ask(&mut self, link: Link, message: Request) -> Option<Reply> {
        if self.violation.is_some() {
            return None;
        }
        let Connection { disk, session, .. } = *self.net.link(link);
        let frame = Frame { session, request: RequestId(1), epoch: Epoch::NONE, commit: Lsn::ZERO, message };
        let asked = format!("{:?}", frame.message);
        self.tell_server(disk, Event::Request { link: LinkId(u64::from(link.0)), frame });
        self.run_while(self.now + 10 * SECONDS, |world| world.inspections[&link].is_empty());
        let reply = self.inspections.get_mut(&link).and_then(Vec::pop).map(|frame| frame.message);
        match &reply {
            None => self.violated(format!("{disk} does not answer an inspector's {asked}"), None),
            Some(Reply::Refused(refusal)) if disk == self.rotten && refusal.status == ashlar_wire::Status::BadBlock => {
            }
            Some(Reply::Refused(refusal)) => {
                self.violated(format!("{disk} refuses an inspector's {asked}: {refusal:?}"), None)
            }
            Some(_) => {}
        }
        reply
    }
}

/// Checksum of each block; what was never written counts as zeros.
fn checksums(content: Option<&SlotContent>) -> [Crc32; 16] {
    let mut all = [Crc32::ZERO_BLOCK; 16];
    if let Some(content) = content {
        let valid = (0..16).filter(|bit| content.valid & (1 << bit) != 0);
        for (block, (crc, data)) in valid.zip(content.blocks.crcs.iter().zip(content.blocks.data.chunks(4096))) {
            all[block] = if Crc32::of(data) == *crc { *crc } else { Crc32(0) };
        }
    }
    all
}

/// The first block, counted within the slot, in which two replicas differ. A disk that lost the row of a slot takes
/// every block of it for written, as late as anything in the chunk: of it only the content counts.
fn difference(
    a: &(Disk, Option<&SlotContent>),
    b: &(Disk, Option<&SlotContent>),
    content_only: bool,
) -> Option<(u64, String)> {
    let (crcs_a, crcs_b) = (checksums(a.1), checksums(b.1));
    if let Some(block) = (0..16).find(|&i| crcs_a[i] != crcs_b[i]) {
        return Some((block as u64, format!("content {:?} on {}, {:?} on {}", crcs_a[block], a.0, crcs_b[block], b.0)));
    }
    if content_only {
        return None;
    }
    let valid = |content: Option<&SlotContent>| content.map_or(0, |content| content.valid);
    if valid(a.1) != valid(b.1) {
        return Some((0, format!("valid {:04x} on {}, {:04x} on {}", valid(a.1), a.0, valid(b.1), b.0)));
    }
    // A discard of what was never written leaves a stamp on a replica that returns, and nothing on one that was there.
    let stamp =
        |content: Option<&SlotContent>| content.filter(|content| content.valid != 0).map(|content| content.stamp);
    (stamp(a.1) != stamp(b.1)).then(|| (0, format!("stamp {:?} on {}, {:?} on {}", stamp(a.1), a.0, stamp(b.1), b.0)))
}
