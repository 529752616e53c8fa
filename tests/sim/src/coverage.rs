//! What a sweep of seeds must have reached: every fault, schedule, event, state and transition by name. One that never
//! happens means that the generator is blind there, and fails the sweep; so does one that is counted and not listed.

use ashlar_wire::Status;
use std::collections::BTreeMap;

/// Sweeps of fewer seeds than this are not judged.
pub const SEEDS_MIN: u64 = 1000;

/// In the order of the report.
pub const GROUPS: [(&str, &[&str]); 9] = [
    ("faults of processes, nodes and people", &PROCESSES),
    ("faults of the network and the control plane", &NETWORK),
    ("faults of disks", &DISKS),
    ("directed schedules", &DIRECTED),
    ("changes of the layout", &LAYOUT),
    ("snapshots", &SNAPSHOTS),
    ("clones", &CLONES),
    ("states", &STATES),
    ("transitions", &TRANSITIONS),
];

const PROCESSES: [&str; 19] = [
    "fault: attached by force elsewhere",
    "fault: chunkserver crash",
    "fault: chunkserver is lost between two steps",
    "fault: chunkserver paused",
    "fault: clock drifts",
    "fault: clock leaps",
    "fault: clock leaps far",
    "fault: crash during recovery",
    "fault: disk declared lost",
    "fault: operator thinks of declaring a disk lost",
    "fault: power cut of a node",
    "fault: power cut of everything",
    "fault: torn pages",
    "fault: writer crash",
    "fault: writer dies between two steps",
    "fault: write torn by the death of a process",
    "fault: writer paused",
    "event: detach",
    "state: replaced writer still lives",
];

const NETWORK: [&str; 13] = [
    "event: nodes are far apart",
    "fault: answer of the control plane lost",
    "fault: call to the control plane arrives twice",
    "fault: call to the control plane lost",
    "fault: control plane outage",
    "fault: cut both ways",
    "fault: cut one way",
    "fault: grant lost",
    "fault: link reset",
    "fault: node isolated",
    "fault: slow path",
    "state: late messages delivered after a cut",
    "state: link stands still at a cut",
];

const DISKS: [&str; 28] = [
    "fault: a row of the index lost without a trace",
    "fault: bit flip at rest",
    "fault: bit flip in the index",
    "fault: bit flip in the newest batch",
    "fault: disk emptied",
    "fault: flush error",
    "fault: flush error hit",
    "fault: index commit error",
    "fault: index commit error hit",
    "fault: index commit unanswered but done",
    "fault: older image put back",
    "fault: read error",
    "fault: read error hit",
    "fault: slow disk",
    "fault: two disks emptied at once",
    "fault: write error",
    "fault: write error hit",
    "fault: write lost",
    "fault: write misdirected",
    "event: a bit may flip in the index",
    "event: a bit may flip in the newest batch",
    "event: a disk may be emptied",
    "event: a write may be lost",
    "event: a write may go elsewhere",
    "event: an older image may be put back",
    "event: two disks may be emptied at once",
    "refused: disk failed",
    "refused: no space",
];

const DIRECTED: [&str; 10] = [
    "directed: dying peer",
    "directed: dying writer",
    "directed: ejection without an answer",
    "directed: flapping disk",
    "directed: relay",
    "directed: sleeper",
    "directed: slow promise",
    "directed: small disk",
    "directed: usurper",
    "directed: zombie",
];

const LAYOUT: [&str; 21] = [
    "event: a disk may be replaced",
    "event: a volume may grow",
    "event: copies get another rate",
    "event: disk chosen again",
    "event: disk replaced",
    "event: node drained",
    "event: clone laid anew",
    "event: planner ends a move",
    "event: planner ends a temporary replica",
    "event: planner lets another one take the place",
    "event: planner makes a temporary replica",
    "event: planner moves a replica",
    "event: planner replaces a replica",
    "event: planner restarted",
    "event: planner takes a move back",
    "event: relocation begun",
    "event: relocation given up",
    "event: volume grown",
    "state: relocation done",
    "state: returning replica read",
    "state: replica let go of",
];

const SNAPSHOTS: [&str; 24] = [
    "event: a snapshot may be taken, read or given up",
    "event: changes asked",
    "event: group of snapshots asked",
    "event: snapshot asked",
    "event: snapshot given up",
    "state: changes not believed, a snapshot is gone",
    "state: changes not told",
    "state: changes of a clone told",
    "state: changes told",
    "state: content told",
    "state: group held",
    "state: hold refused",
    "state: hold was over before the point",
    "state: points kept by word of the control plane",
    "state: points not kept, a writer is there",
    "state: points to be kept, a writer tells them",
    "state: points told late",
    "state: snapshot not taken, writer ends",
    "state: snapshot of a detached volume",
    "state: snapshot read",
    "state: snapshot taken",
    "state: versions merged",
    "state: writes held",
    "transition: snapshot",
];

const CLONES: [&str; 8] = [
    "event: clone begun",
    "event: volume deleted",
    "state: clone flat",
    "state: clone made",
    "state: deleted replica kept for clones",
    "state: replica deleted",
    "state: replica of a clone refused",
    "state: too few replicas of a clone",
];

const STATES: [&str; 36] = [
    "state: attach blocked",
    "state: below minReplicas",
    "state: block repaired",
    "state: blocks copied by a return",
    "state: blocks lost at replay",
    "state: blocks reconciled",
    "state: chunkserver started",
    "state: disk failed",
    "state: ejected",
    "state: ejecting",
    "state: ended clean",
    "state: ended fenced",
    "state: epoch granted",
    "state: everything scrubbed",
    "state: fenced",
    "state: guest hears fenced",
    "state: link ended by chunkserver",
    "state: link made",
    "state: proposal answered again",
    "state: proposal fenced",
    "state: proposal refused",
    "state: proposal unanswered",
    "state: records replayed",
    "state: return abandoned",
    "state: replicas compared",
    "state: replicas differ",
    "state: returned in-sync",
    "state: returning",
    "state: round of scrub ended",
    "state: scrub has found bad blocks",
    "state: serving",
    "state: what was lost without a trace is found",
    "state: writer started",
    "refused: bad block",
    "refused: fenced",
    "refused: incomplete",
];

const TRANSITIONS: [&str; 5] = [
    "transition: closed clean",
    "transition: in-sync -> out",
    "transition: opened dirty",
    "transition: out -> syncing",
    "transition: syncing -> in-sync",
];

/// May happen, is counted, and is so rare, or so little a matter of the cores, that a sweep need not have it.
const RARE: [&str; 14] = [
    // The last copy has a bad block; two such faults in one run are beyond what is promised.
    "state: guest hears lost",
    "state: guest hears closed",
    // No guest has a time limit here, and none is asked to go beyond its device; `NoSpace` ejects before a guest hears.
    "state: guest hears no space",
    "state: guest hears out of range",
    "state: guest hears timed out",
    // Only as many are asked for as there may be, and only once each.
    "state: snapshot not taken, too many",
    "state: snapshot refused",
    // The end of an attachment that could not close.
    "state: ended unclean",
    // Asked for by people and planners, never by a writer.
    "transition: syncing -> out",
    // Writers read of those alone who have it; a session that was replaced hears the end of its link.
    "refused: session ended",
    "refused: stale",
    // Only a writer that was replaced, of a volume that was deleted since, can hear it.
    "refused: deleted",
    // Peers that send nonsense: the fuzz targets.
    "refused: bad request",
    "refused: other",
];

/// The name under which a refusal is counted.
pub fn refusal(status: Status) -> &'static str {
    match status {
        Status::Fenced => "refused: fenced",
        Status::SessionEnded => "refused: session ended",
        Status::BadRequest => "refused: bad request",
        Status::BadBlock => "refused: bad block",
        Status::Stale => "refused: stale",
        Status::Incomplete => "refused: incomplete",
        Status::NoSpace => "refused: no space",
        Status::DiskFailed => "refused: disk failed",
        Status::Deleted => "refused: deleted",
        Status::WrongDisk | Status::Unsupported => "refused: other",
    }
}

/// What is expected and was never reached, and what was counted and is not listed.
pub fn gaps(counts: &BTreeMap<&'static str, u64>) -> Vec<String> {
    let expected = || GROUPS.iter().flat_map(|(_, names)| names.iter());
    let never = expected().filter(|name| counts.get(**name).is_none_or(|&number| number == 0));
    let never = never.map(|name| format!("never reached: {name}"));
    let is_listed = |name: &&str| expected().any(|listed| listed == name) || RARE.contains(name);
    let unlisted = counts.keys().filter(|name| !is_listed(name)).map(|name| format!("not listed: {name}"));
    never.chain(unlisted).collect()
}

/// The counts in groups, a line each.
pub fn report(counts: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::new();
    let rare: Vec<&str> = RARE.iter().filter(|name| counts.contains_key(**name)).copied().collect();
    for (title, names) in GROUPS.into_iter().chain([("rare", rare.as_slice())]) {
        text.push_str(&format!("{title}\n"));
        for name in names {
            text.push_str(&format!("{:>14}  {name}\n", counts.get(name).copied().unwrap_or(0)));
        }
    }
    text
}

#[cfg(test)]
mod tests;
