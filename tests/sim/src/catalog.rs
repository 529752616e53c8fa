//! The control plane's recorded state as a linearizable register: every call happens at one instant, by the rules
//! of `ashlar-plan`; what may get lost is the call on its way there (then nothing happened) or the answer on its
//! way back (then it did).

use crate::names::{Node, Vol};
use ashlar_plan::membership;
use ashlar_types::{ByteCount, Change, ChangeAnswer, DiskId, Epoch, Member, MemberState, NodeName, VolumeRecord};

pub struct Catalog {
    records: Vec<VolumeRecord>,
    pub up: bool,
}

pub fn node_name(node: Node) -> NodeName {
    format!("node-{}", node.0).parse().expect("a well-formed name")
}

impl Catalog {
    pub fn new(records: Vec<VolumeRecord>) -> Catalog {
        Catalog { records, up: true }
    }

    /// Volumes that ever were.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    pub fn add(&mut self, record: VolumeRecord) {
        self.records.push(record);
    }

    pub fn record(&self, volume: Vol) -> &VolumeRecord {
        &self.records[volume.index()]
    }

    /// Grants the next epoch to a writer on `node`; with `force` in place of whoever holds the volume.
    pub fn grant(&mut self, volume: Vol, node: Node, force: bool) -> Result<VolumeRecord, membership::Refusal> {
        let record = &mut self.records[volume.index()];
        if force {
            *record = membership::release_by_force(record);
        }
        *record = membership::grant(record, &node_name(node))?;
        Ok(record.clone())
    }

    /// Whether the disk was in-sync and is now declared lost.
    pub fn declare_lost(&mut self, volume: Vol, disk: DiskId, proof: bool) -> bool {
        let record = &mut self.records[volume.index()];
        if record.member(disk).is_none_or(|member| member.state != MemberState::InSync) {
            return false;
        }
        let declared = membership::declare_lost(record, disk, proof);
        declared.map(|next| *record = next).is_ok()
    }

    pub fn grow(&mut self, volume: Vol, size: ByteCount) {
        let record = &mut self.records[volume.index()];
        *record = membership::grow(record, size).expect("the volume becomes larger");
    }

    /// Gives the chunks of `gone`, which is out, to `with`.
    pub fn replace(&mut self, volume: Vol, gone: DiskId, with: Member) {
        let record = &mut self.records[volume.index()];
        *record = membership::replace(record, gone, with).expect("one that is out, by a new one");
    }

    /// What people and planners change. Whether they did.
    pub fn change(&mut self, volume: Vol, after: impl FnOnce(&VolumeRecord) -> Option<VolumeRecord>) -> bool {
        let record = &mut self.records[volume.index()];
        after(record).map(|next| *record = next).is_some()
    }

    pub fn apply(&mut self, volume: Vol, epoch: Epoch, version: u64, change: &Change) -> ChangeAnswer {
        let record = &mut self.records[volume.index()];
        let before = record.clone();
        let answer = membership::apply(record, epoch, version, change);
        if let ChangeAnswer::Applied { record: after } = &answer {
            assert!(after.epoch >= before.epoch && after.version >= before.version, "a record went back");
            *record = after.clone();
        }
        answer
    }
}
