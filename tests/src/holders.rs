//! Who holds a volume's chunks, by its record.

use ashlar_rpc::control::{Member, MemberState, Volume};
use std::collections::BTreeSet;

/// Members that hold a chunk; a record may name some that do no more.
pub(crate) fn members(volume: &Volume) -> Vec<Member> {
    let record = volume.record.clone().unwrap_or_default();
    let held: BTreeSet<u32> = record.chunks.iter().flat_map(|run| run.members.iter().copied()).collect();
    held.iter().map(|&index| record.members[index as usize].clone()).collect()
}

/// Node and state of each.
pub fn holders(volume: &Volume) -> Vec<(String, MemberState)> {
    members(volume).into_iter().map(|member| (member.node.clone(), member.state())).collect()
}

pub fn in_sync(volume: &Volume) -> usize {
    holders(volume).iter().filter(|(_, state)| *state == MemberState::InSync).count()
}
