//! The kept corpora come to where it matters. A target that something keeps out, a check or a change of what inputs
//! mean, fails here: that it finds nothing would mean nothing.

use ashlar_fuzz::{TARGETS, corpus, reach};
use ashlar_wire::Opcode;

/// What the inputs of each target reach together, at the least. Kinds of what is noted, each with its names.
const REACHED: &[(&str, &[(&str, &str)])] = &[
    (
        "superblock",
        &[
            ("decoded", "Superblock"),
            ("refused", "BadChecksum ForeignMagic NewerFormat Nonsense NotADisk OtherCluster Truncated"),
        ],
    ),
    ("journal_batch", &[("page", "sealed"), ("record", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17")]),
    ("index_row", &[("row", "p v c k s r b")]),
    (
        "engine_recover",
        &[
            ("index", "refused"),
            ("action", "Read Write Flush Commit Recovered Failed Reply CloseLink"),
            ("reply", "Opened Reported Changed Slot Done Refused"),
        ],
    ),
    (
        "engine_events",
        &[
            ("action", "Read Write Flush Commit Recovered Failed Reply CloseLink Deleted Cloned"),
            ("reply", "Opened Reported Data Changed Slot Held Blocks Done Refused"),
        ],
    ),
    (
        "volume_events",
        &[
            ("action", "Connect Disconnect Send Complete Propose Notice SnapshotTaken Held Ended"),
            ("request", "Open Report Write Discard Read Repair ListChanged MarkStale ListStale ReadSlot Fill"),
            ("request", "CompleteChunk BeginSync AdoptPrefix FinishSync Ping VoidStale Grow Keep"),
            ("change", "Eject BeginReturn Join CloseClean OpenDirty Snapshot"),
            ("snapshot", "taken refused"),
            ("hold", "held refused"),
            (
                "notice",
                "Serving AttachBlocked Ejecting Ejected BelowMinReplicas Returning ReturnAbandoned InSync Fenced",
            ),
            ("guest", "done read refused"),
            ("ended", "Clean Unclean Fenced"),
        ],
    ),
    ("nbd", &[("request", "Read Write Zero Trim Flush")]),
    (
        "control_api",
        &[
            ("converted", "VolumeRecord"),
            ("change", "Eject BeginReturn Join AbandonReturn CloseClean OpenDirty"),
            ("answer", "Applied Refused Fenced"),
            ("decoded", "AttachVolumeRequest HeartbeatRequest CreateVolumeRequest NodeStageVolumeRequest"),
        ],
    ),
    ("names", &[("taken", "id name")]),
    (
        "export_stream",
        &[
            ("opened", "full incremental"),
            ("frame", "data zeros"),
            ("stream", "whole"),
            ("broken", "Damaged Truncated Trailing"),
            ("refused", "Foreign Newer"),
        ],
    ),
];

#[test]
fn the_kept_corpora_come_deep() {
    let mut missing = Vec::new();
    for target in TARGETS {
        let inputs = corpus::inputs(target.name).unwrap();
        let reached = reach::during(|| inputs.iter().for_each(|(_, input)| (target.run)(input)));
        let of_target = REACHED.iter().filter(|(name, _)| *name == target.name).flat_map(|(_, kinds)| *kinds);
        let mut expected: Vec<String> =
            of_target.flat_map(|(kind, names)| names.split(' ').map(move |name| format!("{kind} {name}"))).collect();
        if target.name.starts_with("wire_") {
            let direction = |opcode: &Opcode| if (*opcode as u8) < 128 { "request" } else { "reply" };
            expected = Opcode::ALL.iter().map(|opcode| format!("{} {opcode:?}", direction(opcode))).collect();
        }
        assert!(!expected.is_empty(), "{}", target.name);
        missing.extend(expected.into_iter().filter(|name| !reached.contains(name)).map(|name| (target.name, name)));
    }
    assert!(missing.is_empty(), "no kept input comes to {missing:?}");
}
