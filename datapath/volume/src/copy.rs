//! Copying one slot from a source to a replica that lacks it. A copy waits for no write and holds up none: every
//! write that the source may show has been sent to the target, on the link on which the `Fill` follows, so its blocks
//! are fresh there and the `Fill` leaves them alone. (A copy that waited for a write would wait for ever where that
//! write needs the very replica that returns.)
//!
//! ```text
//!   reading(source) ──Slot──► filling(target) ──Done──► counted by its owner
//!      ▲      └─ bad or lost source: the next
//! ```

use crate::Action;
use crate::member::{CopyId, CopyWhat, MemberIndex, Purpose};
use crate::volume::Volume;
use ashlar_types::{Instant, Lsn, Mutant};
use ashlar_wire::{Reply, Request, SlotContent, Status};
use std::collections::BTreeMap;

/// Who waits for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Resync,
    Job(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reading,
    Filling,
}

struct Copy {
    what: CopyWhat,
    owner: Owner,
    stage: Stage,
    /// Sources that gave no good content.
    tried: u64,
    blocks: u32,
}

#[derive(Default)]
pub(crate) struct Copies {
    next: u64,
    copies: BTreeMap<CopyId, Copy>,
}

impl Volume {
    pub(crate) fn start_copy(&mut self, now: Instant, owner: Owner, what: CopyWhat, out: &mut Vec<Action>) {
        let id = CopyId(self.copies.next);
        self.copies.next += 1;
        self.copies.copies.insert(id, Copy { what, owner, stage: Stage::Reading, tried: 0, blocks: 0 });
        self.read_for_copy(now, id, out);
    }

    fn read_for_copy(&mut self, now: Instant, id: CopyId, out: &mut Vec<Action>) {
        let copy = &self.copies.copies[&id];
        let (what, owner) = (copy.what, copy.owner);
        let source = match owner {
            Owner::Job(job) => self.job_source(job, copy.tried),
            Owner::Resync => self.copy_source(what, copy.tried),
        };
        if let (Owner::Job(job), None) = (owner, source) {
            self.source_unreadable(job);
        }
        let Some(source) = source.filter(|&index| self.members[index].is_open()) else {
            self.owner_failed(now, owner, "no replica has good content of a slot to copy", out);
            return;
        };
        let request = Request::ReadSlot { chunk: what.chunk, slot: what.slot, floors: what.floors };
        self.send(now, source, Purpose::CopyRead(id), request, out);
    }

    /// A source for a returning disk: the one that was named, else the farthest, because the replica on this node
    /// serves the database.
    pub(crate) fn copy_source(&self, what: CopyWhat, tried: u64) -> Option<MemberIndex> {
        let holders = self.record.members_of(what.chunk).iter().map(|&index| usize::from(index));
        let usable = |index: &MemberIndex| tried & (1 << index) == 0 && self.members[*index].serves_reads();
        let is_named = |index: MemberIndex| self.pace.source() == Some(self.members[index].disk);
        holders.filter(usable).max_by_key(|&index| (is_named(index), self.members[index].distance, index))
    }

    pub(crate) fn copy_read(
        &mut self,
        now: Instant,
        id: CopyId,
        from: MemberIndex,
        reply: Reply,
        out: &mut Vec<Action>,
    ) {
        let Some(copy) = self.copies.copies.get_mut(&id) else { return };
        let content = match reply {
            Reply::Slot(content) if content.blocks.first_bad_block().is_none() => content,
            _ => {
                copy.tried |= 1 << from;
                self.read_for_copy(now, id, out);
                return;
            }
        };
        copy.stage = Stage::Filling;
        copy.blocks = content.valid.count_ones();
        let (what, owner) = (copy.what, copy.owner);
        if !self.members[what.target].is_open() {
            self.owner_failed(now, owner, "target of a copy has no link", out);
            return;
        }
        let stamp = if Mutant::CopyLosesStamp.is_on() { Lsn::ZERO } else { content.stamp };
        let content = SlotContent { stamp, ..content };
        let request =
            Request::Fill { chunk: what.chunk, slot: what.slot, floors: what.floors, into: what.floors.from, content };
        self.send(now, what.target, Purpose::CopyFill(id), request, out);
    }

    pub(crate) fn copy_filled(&mut self, now: Instant, id: CopyId, reply: Reply, out: &mut Vec<Action>) {
        let Some(copy) = self.copies.copies.remove(&id) else { return };
        match reply {
            Reply::Done => self.copy_done(now, copy.owner, copy.blocks, out),
            Reply::Refused(refusal) if matches!(copy.owner, Owner::Job(_)) => {
                self.job_refused(now, copy.what.target, "a copy", &refusal, out);
            }
            Reply::Refused(refusal) if refusal.status == Status::NoSpace => {
                self.owner_failed(now, copy.owner, "no space at the target", out);
            }
            reply => self.owner_failed(now, copy.owner, &format!("fill was refused: {reply:?}"), out),
        }
    }

    /// The link over which it was read or filled is gone. A lost source is replaced; a lost target ends its owner,
    /// who cancels.
    pub(crate) fn copy_interrupted(&mut self, now: Instant, id: CopyId, out: &mut Vec<Action>) {
        let Some(copy) = self.copies.copies.get(&id) else { return };
        if copy.owner == Owner::Resync && copy.stage == Stage::Reading {
            self.read_for_copy(now, id, out);
        }
    }

    pub(crate) fn cancel_copies(&mut self, owned: impl Fn(Owner) -> bool) {
        self.copies.copies.retain(|_, copy| !owned(copy.owner));
    }

    fn copy_done(&mut self, now: Instant, owner: Owner, blocks: u32, out: &mut Vec<Action>) {
        match owner {
            Owner::Resync => self.resync_copied(blocks),
            Owner::Job(job) => self.job_copied(now, job, blocks, out),
        }
    }

    fn owner_failed(&mut self, now: Instant, owner: Owner, reason: &str, out: &mut Vec<Action>) {
        match owner {
            Owner::Resync => self.fail_resync(now, reason, out),
            Owner::Job(_) => self.restart_reconcile(reason, out),
        }
    }
}
