//! The steps of a lost replica that nobody proposes and nobody decides, told as events, each once for each time that it
//! begins: the others are told by whoever takes them.
//!
//! ```text
//!  suspect ────► ejected ─────► grace-begun ──► rebuild-begun ──► in-sync     replica-gone ──► space-freed
//!  its writer    the writer's   no answer, and  replace           a Join      who was          its chunkserver has
//!  cannot reach  proposal       volumes need it                               replaced         deleted what it had
//!  it                           └► grace-ended: it answers again, and gets what changed
//! ```
//! A control plane that restarts tells what holds once more.

use super::seen::Look;
use crate::control::{Control, wall_clock_ms};
use ashlar_catalog::{Event, Tombstone};
use ashlar_plan::repair::{Fate, Seen};
use ashlar_types::{DiskId, Duration, NodeName, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Of one kind at one look; what is left is told at the next ones.
const TOLD_AT_ONCE_MAX: usize = 32;

/// What has been told and still holds.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    suspects: BTreeSet<(VolumeId, DiskId)>,
    waited_for: BTreeMap<DiskId, NodeName>,
}

impl Ladder {
    /// What is new with this look.
    pub(super) fn news(&mut self, look: &Look, grace: Duration) -> Vec<Event> {
        let mut news = Vec::new();
        self.suspects.retain(|suspect| look.unreached.contains(suspect));
        let new: Vec<_> = look.unreached.difference(&self.suspects).take(TOLD_AT_ONCE_MAX).copied().collect();
        for (volume, disk) in new {
            news.push(suspect(&look.seen, volume, disk));
            self.suspects.insert((volume, disk));
        }
        let awaited = awaited(&look.seen, &look.unheard);
        let over = self.waited_for.iter().filter(|(disk, _)| !awaited.contains_key(disk)).take(TOLD_AT_ONCE_MAX);
        let over: Vec<(DiskId, NodeName)> = over.map(|(&disk, node)| (disk, node.clone())).collect();
        for (disk, node) in over {
            self.waited_for.remove(&disk);
            news.extend(look.seen.is_alive(disk).then(|| grace_ended(disk, &node)));
        }
        for (&disk, volumes) in &awaited {
            let Some(known) = look.seen.disks.get(&disk).filter(|_| !self.waited_for.contains_key(&disk)) else {
                continue;
            };
            news.push(grace_begun(disk, &known.node, *volumes, grace));
            self.waited_for.insert(disk, known.node.clone());
        }
        news
    }
}

/// Disks that may come back and do not answer, and how many volumes have a replica there. `unheard`: those whose
/// chunkserver has time to report still, after a restart of the control plane.
fn awaited(seen: &Seen, unheard: &BTreeSet<DiskId>) -> BTreeMap<DiskId, usize> {
    let is_awaited = |disk: &DiskId| {
        let may_return = seen.disks.get(disk).is_some_and(|known| !matches!(known.fate, Fate::Failed | Fate::Lost));
        may_return && !seen.is_alive(*disk) && !unheard.contains(disk)
    };
    let mut awaited = BTreeMap::new();
    for disk in seen.volumes.values().flat_map(|volume| volume.held()).map(|(_, member)| member.disk) {
        if is_awaited(&disk) {
            *awaited.entry(disk).or_default() += 1;
        }
    }
    awaited
}

fn suspect(seen: &Seen, volume: VolumeId, disk: DiskId) -> Event {
    let holder = seen.volumes.get(&volume).and_then(|volume| volume.holder.as_ref());
    let writer = holder.map_or("the writer".to_owned(), |holder| format!("the writer on node {}", holder.node));
    let text = format!("{writer} cannot reach disk {disk}: it ejects it, or writes wait where too few are left");
    let event = Event::new(wall_clock_ms(), "suspect", text).of_volume(volume).of_disk(disk);
    match seen.disks.get(&disk) {
        Some(known) => event.of_node(&known.node),
        None => event,
    }
}

fn grace_begun(disk: DiskId, node: &NodeName, volumes: usize, grace: Duration) -> Event {
    let text = format!(
        "disk {disk} does not answer: the volumes that have a replica there get another one in {} s, at once those \
         that have one left",
        grace.as_secs()
    );
    let event = Event::new(wall_clock_ms(), "grace-begun", text).of_disk(disk).of_node(node);
    event.figure("volumes", volumes).figure("grace_ms", grace.as_millis())
}

fn grace_ended(disk: DiskId, node: &NodeName) -> Event {
    let text = format!("disk {disk} answers again: what it still is a member of copies what changed");
    Event::new(wall_clock_ms(), "grace-ended", text).of_disk(disk).of_node(node)
}

impl Control {
    /// What is told when a disk has deleted what it had of a volume that others hold. Of a volume that was deleted that
    /// has been told.
    pub(in crate::control) async fn space_freed(&self, tombstone: &Tombstone) -> Vec<Event> {
        let Tombstone { disk, volume, claim, .. } = *tombstone;
        if !matches!(self.catalog.volume(volume).await, Ok(Some(_))) {
            return Vec::new();
        }
        let text = format!("disk {disk} has deleted what it had of the volume, which others hold");
        let event = Event::new(wall_clock_ms(), "space-freed", text).of_volume(volume).of_disk(disk);
        vec![event.figure("bytes", claim)]
    }
}
