//! Attachments for repair: a detached volume has no writer, and only a writer takes members in. So some node attaches
//! it, without a device, as long as a replica that can return is not in-sync, or one is given up that the record does
//! not call out (the writer finds that out, and makes it so).
//!
//! Each node has so many at most ([`super::Bounds::repairs_per_node_max`]). All together are for the most urgent
//! volumes: where every place is taken, the least urgent of those that have one are let go of, as many as there are
//! more urgent ones without, and no other volume changes its node. A node with a replica is preferred, then the one
//! with the fewest attachments.

use super::order::Case;
use super::{Holder, MemberSeen, Step, VolumeSeen, Why, grace::View, moves::Moves, temporary::Temporary};
use ashlar_types::NodeName;
use std::collections::BTreeMap;

pub(super) fn attachments(view: &View, cases: &[Case], moves: &Moves) -> Vec<Step> {
    let mut occupied: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for holder in cases.iter().filter_map(|case| repairing(case.volume)) {
        *occupied.entry(&holder.node).or_default() += 1;
    }
    let max = view.bounds.repairs_per_node_max;
    let able = |node: &NodeName| view.seen.nodes.get(node).is_some_and(|known| known.may_attach && !known.is_silent);
    let nodes = view.seen.nodes.keys().filter(|node| able(node) || occupied.contains_key(node));
    let mut places = nodes.count() * max;
    let mut steps = vec![];
    for case in cases {
        let (volume, held) = (case.id, repairing(case.volume));
        let is_free = case.volume.holder.is_none();
        let Some(why) = reason(view, case, moves).filter(|_| is_free || held.is_some()) else {
            steps.extend(held.map(|_| Step::StopRepair { volume, why: Why::Protected }));
            continue;
        };
        let has_place = places > 0;
        places = places.saturating_sub(1);
        match held.map(|holder| &holder.node) {
            Some(node) if is_silent(view, node) => {
                steps.push(Step::StopRepair { volume, why: Why::HolderSilent { node: node.clone() } });
            }
            Some(node) if !has_place => {
                steps.push(Step::StopRepair { volume, why: Why::MakesRoom { node: node.clone() } });
            }
            Some(node) => steps.push(Step::Repair { volume, node: node.clone(), why }),
            None if has_place => {
                let free = view.seen.nodes.keys().filter(|node| able(node));
                let free = free.filter(|node| occupied.get(node).is_none_or(|&now| now < max));
                let Some(node) = best_of(view, case.volume, free, &occupied) else { continue };
                *occupied.entry(node).or_default() += 1;
                steps.push(Step::Repair { volume, node: node.clone(), why });
            }
            None => {}
        }
    }
    steps
}

fn is_silent(view: &View, node: &NodeName) -> bool {
    view.seen.nodes.get(node).is_none_or(|known| known.is_silent)
}

fn repairing(volume: &VolumeSeen) -> Option<&Holder> {
    volume.holder.as_ref().filter(|holder| holder.is_repair)
}

/// What a writer would do for the volume.
fn reason(view: &View, case: &Case, moves: &Moves) -> Option<Why> {
    let volume = case.volume;
    let temporary = Temporary::of(view, case.id, volume, moves).map(|one| one.member.disk);
    let waits = |member: &MemberSeen| !member.state.is_in_sync() && view.seen.is_alive(member.disk);
    let waiting = volume.held().filter(|(_, member)| waits(member) && temporary != Some(member.disk));
    match waiting.count() {
        members if members > 0 && view.safe(volume) > 0 => return Some(Why::NotInSync { members: members as u8 }),
        _ => {}
    }
    // As the last writer left them. Below `minReplicas` no writer may eject: it takes an operator, who declares a disk
    // lost.
    let may_eject = view.safe(volume) >= volume.min_replicas;
    let is_unnoticed = |member: &MemberSeen| member.state.is_in_sync() && view.given_up(volume, member).is_some();
    let members = volume.held().filter(|(_, member)| may_eject && is_unnoticed(member)).count() as u8;
    (members > 0 && view.safe(volume) > 0).then_some(Why::Unreachable { members })
}

fn best_of<'a>(
    view: &View,
    volume: &VolumeSeen,
    free: impl Iterator<Item = &'a NodeName>,
    occupied: &BTreeMap<&NodeName, usize>,
) -> Option<&'a NodeName> {
    let has_replica = |node: &NodeName| volume.held().any(|(_, member)| member.node == *node && view.is_safe(member));
    free.min_by_key(|node| (!has_replica(node), occupied.get(node).copied().unwrap_or(0), *node))
}
