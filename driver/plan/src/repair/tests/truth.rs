//! Whether what a step says of itself is so in the world that it was made for.

use super::super::*;
use super::model::{Volume, World, seconds};
use ashlar_types::{Lsn, MemberState, NodeName};

pub(super) fn check(world: &World, step: &Step) {
    let volume = &world.volumes[&step.volume()];
    if let Step::Replace { with, .. } | Step::Widen { with, .. } = step {
        assert!(volume.may_take(*with), "its deletion is not done, or has fenced this writer: {step:?}");
    }
    match step {
        Step::Replace { gone, with, why, choice, .. } => {
            let member = volume.held().find(|member| member.disk == *gone).expect("the replaced one holds chunks");
            assert!(!member.state.is_in_sync(), "{step:?}");
            assert_eq!(choice.taken.as_ref().map(|taken| taken.disk), Some(*with));
            given_up(world, volume, *gone, why);
        }
        Step::Widen { leaving, with, why, choice, .. } => {
            assert_eq!(choice.taken.as_ref().map(|taken| taken.disk), Some(*with));
            if let Why::Away { disk, in_sync } = why {
                assert!(disk == leaving && usize::from(*in_sync) == world.safe(volume) && *in_sync > 0, "{step:?}");
                return away(world, volume, *disk);
            }
            assert!(volume.held().all(|member| member.state.is_in_sync()), "only what is whole is moved: {step:?}");
            moved(world, volume, *leaving, *with, why);
        }
        Step::Narrow { disk, why, .. } => narrowed(world, volume, *disk, why),
        Step::Repair { node, why, .. } => {
            assert!(world.is_up(node) && matches!(why, Why::NotInSync { .. } | Why::Unreachable { .. }), "{step:?}");
        }
        Step::StopRepair { why, .. } => stopped(world, why),
        Step::Copy { rate, source, .. } => {
            assert!(volume.held().any(|member| !member.state.is_in_sync()), "{step:?}");
            let is_source = |disk| volume.held().any(|member| member.disk == disk && member.state.is_in_sync());
            assert!(*rate == BytesPerSecond::ZERO || source.is_some_and(is_source), "{step:?}");
        }
    }
}

fn stopped(world: &World, why: &Why) {
    match why {
        Why::Protected | Why::MakesRoom { .. } => {}
        Why::HolderSilent { node } => assert!(!world.is_up(node)),
        other => panic!("no reason to stop a repair: {other:?}"),
    }
}

fn given_up(world: &World, volume: &Volume, gone: DiskId, why: &Why) {
    let known = &world.disks[&gone];
    let down_ms = world.nodes[&known.node].down_since_ms.map(|since| world.now_ms - since);
    match why {
        Why::DiskFailed { disk } => assert!(*disk == gone && known.fate == Fate::Failed),
        Why::DiskLost { disk } => assert!(*disk == gone && known.fate == Fate::Lost),
        Why::NodeSilent { node, waited, grace } => {
            assert!(*node == known.node && waited >= grace);
            assert!(down_ms.unwrap() >= seconds(*grace) * 1000, "given up {down_ms:?} ms after it fell silent");
        }
        Why::LastReplica { disk, in_sync } => {
            assert!(*disk == gone && down_ms.is_some() && world.safe(volume) == usize::from(*in_sync) && *in_sync <= 1);
        }
        other => panic!("no reason to replace: {other:?}"),
    }
}

/// A temporary replica is made: the volume is written to, and the missing one may come back with what it has.
fn away(world: &World, volume: &Volume, missing: DiskId) {
    assert!(volume.record.holder.is_some() && !volume.by_repair && volume.widest() == 3);
    let member = volume.held().find(|member| member.disk == missing).unwrap();
    assert!(matches!(member.state, MemberState::Out { commit } if commit > Lsn::ZERO));
    let lacking = volume.held().filter(|member| !member.state.is_in_sync());
    lacking.for_each(|member| assert!(!world.works(member.disk), "{} returns by itself", member.disk));
    assert!(matches!(world.disks[&missing].fate, Fate::Usable | Fate::Draining), "what has failed is replaced");
}

fn moved(world: &World, volume: &Volume, leaving: DiskId, with: DiskId, why: &Why) {
    let fill = |disk: DiskId| world.fill_permille(disk);
    match why {
        Why::DiskDraining { disk } => assert!(*disk == leaving && world.disks[disk].fate == Fate::Draining),
        Why::NodeDraining { node } => assert!(world.disks[&leaving].node == *node && world.nodes[node].is_draining),
        Why::PodMoved { node, .. } => {
            assert_eq!((Some(node), node), (volume.record.holder.as_ref(), &world.disks[&with].node));
            assert!(!volume.by_repair && volume.held().all(|member| member.node != *node));
        }
        Why::Fill { from_permille, to_permille } => {
            assert!(from_permille > to_permille && fill(leaving) >= *from_permille, "{why}");
        }
        other => panic!("no reason to move: {other:?}"),
    }
}

fn narrowed(world: &World, volume: &Volume, disk: DiskId, why: &Why) {
    assert!(volume.widest() > 3, "only what has one too many is narrowed");
    let member = volume.held().find(|member| member.disk == disk).unwrap();
    let others = volume.in_sync_without(disk);
    match why {
        Why::Moved { in_sync, replicas } => assert!(in_sync >= replicas && usize::from(*in_sync) == others),
        Why::Cancelled { in_sync } => {
            assert!(usize::from(*in_sync) == others && others >= 3 && !member.state.is_in_sync());
        }
        Why::NoLongerAway { disk: missing } => {
            let (MemberState::Out { commit } | MemberState::Syncing { commit }) = member.state else {
                panic!("it is in-sync");
            };
            assert!(*missing != disk && commit == Lsn::ZERO, "only what began with nothing was temporary");
        }
        why => {
            assert!(!member.state.is_in_sync() && !world.works(disk));
            given_up(world, volume, disk, why);
        }
    }
}

impl World {
    pub(super) fn fill_permille(&self, disk: DiskId) -> u16 {
        let holds = |volume: &&Volume| volume.held().any(|member| member.disk == disk);
        let held: u64 = self.volumes.values().filter(holds).map(|volume| volume.claim).sum();
        (held * 1000 / self.disks[&disk].capacity) as u16
    }

    pub(super) fn stop_node(&mut self, node: &NodeName) {
        let now_ms = self.now_ms;
        let known = self.nodes.get_mut(node).unwrap();
        // One that falls silent as soon as it is up was never seen to be up.
        if known.started_ms != Some(now_ms) {
            known.down_since_ms.get_or_insert(now_ms);
        }
    }

    pub(super) fn start_node(&mut self, node: &NodeName) {
        let now_ms = self.now_ms;
        let known = self.nodes.get_mut(node).unwrap();
        (known.down_since_ms, known.started_ms) = (None, Some(now_ms));
    }
}
