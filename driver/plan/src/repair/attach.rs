//! Attachments for repair: a detached volume has no writer, and only a writer takes members in. So some node attaches
//! it, without a device, as long as a replica that can return is not in-sync, or one is given up that the record does
//! not call out (the writer finds that out, and makes it so).
//!
//! Each node has so many at most ([`super::Bounds::repairs_per_node_max`]), the most urgent ones: one that is less
//! urgent is let go of to make room. A node with a replica is preferred, then the one with the fewest attachments.

use super::order::Case;
use super::{Holder, Step, VolumeSeen, Why, grace::View};
use ashlar_types::NodeName;
use std::collections::BTreeMap;

pub(super) fn attachments(view: &View, cases: &[Case]) -> Vec<Step> {
    let mut occupied: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for holder in cases.iter().filter_map(|case| repairing(case.volume)) {
        *occupied.entry(&holder.node).or_default() += 1;
    }
    // By the more urgent ones of those that want one: where it stands in the way of nobody.
    let mut wanted: BTreeMap<&NodeName, usize> = BTreeMap::new();
    let mut steps = vec![];
    for case in cases {
        let (volume, held) = (case.id, repairing(case.volume));
        let is_free = case.volume.holder.is_none();
        let Some(why) = reason(view, case.volume).filter(|_| is_free || held.is_some()) else {
            steps.extend(held.map(|_| Step::StopRepair { volume, why: Why::Protected }));
            continue;
        };
        if let Some(Holder { node, .. }) = held.filter(|holder| is_silent(view, &holder.node)) {
            steps.push(Step::StopRepair { volume, why: Why::HolderSilent { node: node.clone() } });
            continue;
        }
        let node = match held {
            Some(holder) => Some(&holder.node),
            None => best_node(view, case.volume, &occupied, &wanted),
        };
        let Some(node) = node else { continue };
        let before = wanted.entry(node).or_default();
        *before += 1;
        let max = view.bounds.repairs_per_node_max;
        let now = occupied.entry(node).or_default();
        if held.is_some() && *before > max {
            steps.push(Step::StopRepair { volume, why: Why::MakesRoom { node: node.clone() } });
        } else if held.is_some() || *now < max {
            *now += usize::from(held.is_none());
            steps.push(Step::Repair { volume, node: node.clone(), why });
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
fn reason(view: &View, volume: &VolumeSeen) -> Option<Why> {
    let waiting = volume.held().filter(|(_, member)| !member.state.is_in_sync() && view.seen.is_alive(member.disk));
    match waiting.count() {
        members if members > 0 && view.safe(volume) > 0 => return Some(Why::NotInSync { members: members as u8 }),
        _ => {}
    }
    // In-sync or syncing, as the last writer left them. Below `minReplicas` no writer may eject: it takes an operator,
    // who declares a disk lost.
    let may_eject = view.safe(volume) >= volume.min_replicas;
    let unnoticed = volume.held().filter(|(_, member)| !member.is_out() && view.given_up(volume, member).is_some());
    let members = unnoticed.filter(|(_, member)| may_eject || !member.state.is_in_sync()).count() as u8;
    (members > 0 && view.safe(volume) > 0).then_some(Why::Unreachable { members })
}

/// A node for a volume that has none: one with room, or one that will have it when others have made it.
fn best_node<'a>(
    view: &View<'a>,
    volume: &VolumeSeen,
    occupied: &BTreeMap<&NodeName, usize>,
    wanted: &BTreeMap<&NodeName, usize>,
) -> Option<&'a NodeName> {
    let max = view.bounds.repairs_per_node_max;
    let count = |of: &BTreeMap<&NodeName, usize>, node: &NodeName| of.get(node).copied().unwrap_or(0);
    let able = view.seen.nodes.iter().filter(|(_, known)| known.may_attach && !known.is_silent);
    let free = able.filter(|(node, _)| count(wanted, node) < max).map(|(node, _)| node);
    let has_replica = |node: &NodeName| volume.held().any(|(_, member)| member.node == *node && view.is_safe(member));
    free.min_by_key(|node| (count(occupied, node) >= max, !has_replica(node), count(occupied, node), *node))
}
