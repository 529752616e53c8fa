//! What a volume says of itself, as an event of the control plane's log.

use ashlar_rpc::control;
use ashlar_types::{Crc32, DiskId, Lsn, NodeName, VolumeId};
use ashlar_volume::Notice;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) fn event(node: &NodeName, volume: VolumeId, notice: &Notice) -> control::Event {
    let (kind, disk, text, figures) = describe(notice);
    let figures = figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    control::Event {
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        kind: kind.to_owned(),
        volume: volume.to_string(),
        disk: disk.map(|disk| disk.to_string()).unwrap_or_default(),
        node: node.to_string(),
        text,
        sequence: 0,
        figures,
    }
}

type Description = (&'static str, Option<DiskId>, String, Vec<(&'static str, String)>);

fn describe(notice: &Notice) -> Description {
    match notice {
        Notice::Serving { reconciled_blocks } => (
            "serving",
            None,
            format!("the volume is served, {reconciled_blocks} blocks were reconciled"),
            vec![("reconciled_blocks", reconciled_blocks.to_string())],
        ),
        Notice::AttachBlocked { reason } => ("attach-blocked", None, reason.clone(), vec![]),
        Notice::WritesHeld { id, duration } => (
            "writes-held",
            None,
            format!("new writes waited {:.3} ms for snapshot {id} of a group", duration.as_secs_f64() * 1e3),
            vec![("snapshot", id.to_string()), ("held_us", duration.as_micros().to_string())],
        ),
        Notice::Ejecting { disk, reason } => ("ejecting", Some(*disk), reason.clone(), vec![]),
        Notice::Ejected { disk, commit } => (
            "ejected",
            Some(*disk),
            format!("the disk is out since commit point {commit}"),
            vec![("commit_lsn", commit.raw().to_string())],
        ),
        Notice::BelowMinReplicas => {
            ("below-min-replicas", None, "writes wait: too few replicas answer".to_owned(), vec![])
        }
        Notice::Returning { disk } => ("returning", Some(*disk), "the disk comes back".to_owned(), vec![]),
        Notice::ReturnAbandoned { disk, reason } => ("return-abandoned", Some(*disk), reason.clone(), vec![]),
        Notice::InSync { disk, copied_blocks, changed_blocks } => (
            "in-sync",
            Some(*disk),
            format!("the disk is in-sync again: {copied_blocks} blocks copied, {changed_blocks} had changed"),
            vec![("copied_blocks", copied_blocks.to_string()), ("changed_blocks", changed_blocks.to_string())],
        ),
        Notice::Repaired { disk, blocks } => (
            "repaired",
            Some(*disk),
            format!("{blocks} blocks were repaired from another replica"),
            vec![("blocks", blocks.to_string())],
        ),
        Notice::Differs { chunk, slot, below, said } => {
            let digest = |digest: &Option<Crc32>| digest.map_or("zeros".to_owned(), |digest| format!("{digest:?}"));
            let said: Vec<String> = said.iter().map(|(disk, said)| format!("{disk} {}", digest(said))).collect();
            let view = if *below == Lsn::MAX { String::new() } else { format!(", in the snapshot at {below}") };
            (
                "scrub-differs",
                None,
                format!("replicas differ in chunk {chunk}, slot {slot}{view}: {}", said.join(", ")),
                vec![("chunk", chunk.0.to_string()), ("slot", slot.0.to_string())],
            )
        }
        Notice::Fenced { epoch } => (
            "fenced",
            None,
            format!("epoch {epoch} has the volume; this writer is ended"),
            vec![("epoch", epoch.number().to_string())],
        ),
    }
}
