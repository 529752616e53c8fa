//! What disks have promised, held against what their media hold: from outside, whatever the engine believes.
//!
//! - A write is answered only when each block of it is durable on that disk's medium (P1), in the journal or in place.
//! - A replica that comes back without saying that it is incomplete has every write that it had answered (I-31).
//! - A disk is taken in only when its replica is not in the middle of a return ("becoming in-sync").
//!
//! Cost: a set entry for each page that becomes durable, a look-up for each block that is answered.

use crate::format;
use crate::names::{Disk, Link, Vol};
use crate::stamp::{self, BLOCK, Stamp};
use crate::world::{World, disk_of};
use ashlar_types::{Change, DiskId, Lsn, RequestId};
use ashlar_wire::{Reply, ReplyFrame, Request, RequestFrame};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

/// Writes on their way to a disk, and the highest lsn that each replica has answered durable.
#[derive(Default)]
pub struct Promises {
    asked: FxHashMap<(Link, RequestId), (Lsn, Option<Bytes>)>,
    answered: FxHashMap<(Disk, Vol), Lsn>,
    /// Replicas that have answered that their return is finished, since it began.
    finished: FxHashSet<(Disk, Vol)>,
    finishing: FxHashSet<(Link, RequestId)>,
}

/// Stamps of the blocks that have ever been durable on a medium.
#[derive(Default)]
pub struct Settled(FxHashSet<Stamp>);

impl Settled {
    /// A whole page is durable.
    pub fn note(&mut self, page: &[u8]) {
        self.0.insert(stamp::first_sector(page));
    }

    /// A page was torn by a power cut: it counts if all of its sectors are of one write.
    pub fn note_torn(&mut self, page: &[u8]) {
        self.0.extend(stamp::read_block(page));
    }

    fn has_all(&self, data: &[u8]) -> bool {
        data.chunks_exact(BLOCK).all(|block| self.0.contains(&stamp::first_sector(block)))
    }
}

impl World {
    /// A request comes to a disk.
    pub fn note_request(&mut self, disk: Disk, link: Link, frame: &RequestFrame) {
        match (&frame.message, self.volume_of_link(link)) {
            (Request::BeginSync { .. }, Some(volume)) => drop(self.promises.finished.remove(&(disk, volume))),
            (Request::FinishSync, _) => drop(self.promises.finishing.insert((link, frame.request))),
            _ => {}
        }
        let asked = match &frame.message {
            Request::Write { lsn, blocks, .. } => (*lsn, Some(blocks.data.clone())),
            Request::Discard { lsn, .. } => (*lsn, None),
            // From here on the replica may rightly end with a lower prefix: its own tail is replaced.
            Request::BeginSync { .. }
            | Request::MarkStale { .. }
            | Request::CompleteChunk { .. }
            | Request::VoidStale { .. } => {
                self.promises.answered.retain(|(of, _), _| *of != disk);
                return;
            }
            _ => return,
        };
        self.promises.asked.insert((link, frame.request), asked);
    }

    /// A disk answers.
    pub fn check_reply(&mut self, disk: Disk, link: Link, frame: &ReplyFrame) {
        if self.promises.finishing.remove(&(link, frame.request))
            && frame.message == Reply::Done
            && let Some(volume) = self.volume_of_link(link)
        {
            self.promises.finished.insert((disk, volume));
        }
        let Some((lsn, data)) = self.promises.asked.remove(&(link, frame.request)) else { return };
        if frame.message != Reply::Done {
            return;
        }
        let Some(volume) = self.volume_of_link(link) else { return };
        let settled = &self.servers[disk.index()].medium.settled;
        if data.is_some_and(|data| !settled.has_all(&data)) && !self.lies(disk) {
            self.violated(format!("{disk} answers the write with lsn {lsn} that is not durable there"), None);
        }
        let answered = self.promises.answered.entry((disk, volume)).or_default();
        *answered = lsn.max(*answered);
    }

    fn volume_of_link(&self, link: Link) -> Option<Vol> {
        let writer = self.net.links[link.index()].writer;
        self.writers.get(writer.index()).map(|state| state.volume)
    }

    /// The disk's content is no longer what its chunkserver left there, by a fault that it cannot notice.
    pub fn forgive(&mut self, disk: Disk) {
        self.promises.answered.retain(|(of, _), _| *of != disk);
    }

    /// What it had of the volume was deleted.
    pub fn forget_promises(&mut self, disk: Disk, volume: Vol) {
        self.promises.answered.remove(&(disk, volume));
    }

    /// A chunkserver has recovered.
    pub fn check_recovered(&mut self, disk: Disk) {
        let Some(process) = &self.servers[disk.index()].process else { return };
        if self.lies(disk) {
            return;
        }
        let status = process.engine.status();
        for volume in self.volumes().collect::<Vec<_>>() {
            if self.clones.tombstones.contains_key(&(volume, disk)) {
                continue;
            }
            let Some(&answered) = self.promises.answered.get(&(disk, volume)) else { continue };
            let replica = status.replicas.iter().find(|replica| replica.volume == format::volume_id(volume));
            // A disk that has lost all trace of a volume is found out by the next `Open`: it has agreed in no epoch.
            let (last, knows) = replica.map_or((Lsn::ZERO, true), |replica| (replica.last, replica.incomplete));
            if last < answered && !knows {
                self.violated(
                    format!("{disk} has answered lsn {answered} of {volume}, recovers with {last} and does not know"),
                    None,
                );
            }
        }
    }

    /// The control plane applies a change.
    pub fn check_change(&mut self, volume: Vol, change: &Change) {
        let Change::Join { disk } = change else { return };
        let (id, disk) = (*disk, disk_of(*disk));
        // While the answer to `Join` is in doubt a flipped bit can take the end of the return with it: the disk says so
        // when it is opened, and is let go of again.
        let has_forgotten = self.may_lose_bits(disk) && self.promises.finished.contains(&(disk, volume));
        if self.is_returning(volume, id) && !self.lies(disk) && !has_forgotten {
            self.violated(format!("{disk} is in-sync in {volume} and has not finished its return"), None);
        }
    }

    fn is_returning(&self, volume: Vol, disk: DiskId) -> bool {
        let Some(process) = &self.servers[disk_of(disk).index()].process else { return false };
        let status = process.engine.status();
        // Before its journal is replayed an engine knows what its index knows.
        if !status.serving {
            return false;
        }
        let replica = status.replicas.into_iter().find(|replica| replica.volume == format::volume_id(volume));
        replica.is_some_and(|replica| replica.syncing.is_some())
    }
}
