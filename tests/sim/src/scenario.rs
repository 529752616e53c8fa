//! What a seed draws before it runs: the cluster, the workload, which classes of faults are on and how often each
//! strikes (swarm: a class that is off finds what constant chaos hides), and whether the seed follows a directed
//! schedule.

use crate::names::{MILLIS, Nanos, SECONDS};
use crate::rng::Rng;

/// The least that a disk may have.
const SMALL_DISK_SLOTS: u32 = 128;
const DISK_SLOTS: u32 = 256;
/// Four volumes of 48 slots that guests reach, each with as many as eight bands between snapshots and points of clones.
const DISK_SLOTS_WITH_SNAPSHOTS: u32 = 4 * 48 * 8;

/// A class of faults that strikes at random times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    ServerCrash,
    WriterCrash,
    NodePowerCut,
    TotalPowerCut,
    CutOneWay,
    CutBothWays,
    IsolateNode,
    SlowPath,
    ResetLink,
    PauseServer,
    PauseWriter,
    CatalogOutage,
    ForceAttach,
    Detach,
    DiskSlow,
    WriteError,
    ReadError,
    FlushError,
    CommitError,
    BitFlip,
    DeclareLost,
    Grow,
    Replace,
    OldImage,
    EmptyDisk,
    TwoEmptyDisks,
    LostWrite,
    MisdirectedWrite,
    IndexFlip,
    NewestFlip,
    Snapshot,
}

impl Class {
    pub const ALL: [Class; 31] = [
        Class::ServerCrash,
        Class::WriterCrash,
        Class::NodePowerCut,
        Class::TotalPowerCut,
        Class::CutOneWay,
        Class::CutBothWays,
        Class::IsolateNode,
        Class::SlowPath,
        Class::ResetLink,
        Class::PauseServer,
        Class::PauseWriter,
        Class::CatalogOutage,
        Class::ForceAttach,
        Class::Detach,
        Class::DiskSlow,
        Class::WriteError,
        Class::ReadError,
        Class::FlushError,
        Class::CommitError,
        Class::BitFlip,
        Class::DeclareLost,
        Class::Grow,
        Class::Replace,
        Class::OldImage,
        Class::EmptyDisk,
        Class::TwoEmptyDisks,
        Class::LostWrite,
        Class::MisdirectedWrite,
        Class::IndexFlip,
        Class::NewestFlip,
        Class::Snapshot,
    ];

    /// What a disk says of itself may then be less than what it promised; see `decay`.
    pub const DECAY: [Class; 7] = [
        Class::OldImage,
        Class::EmptyDisk,
        Class::TwoEmptyDisks,
        Class::LostWrite,
        Class::MisdirectedWrite,
        Class::IndexFlip,
        Class::NewestFlip,
    ];

    /// The name under which its strikes are counted.
    pub fn name(self) -> &'static str {
        match self {
            Class::ServerCrash => "fault: chunkserver crash",
            Class::WriterCrash => "fault: writer crash",
            Class::NodePowerCut => "fault: power cut of a node",
            Class::TotalPowerCut => "fault: power cut of everything",
            Class::CutOneWay => "fault: cut one way",
            Class::CutBothWays => "fault: cut both ways",
            Class::IsolateNode => "fault: node isolated",
            Class::SlowPath => "fault: slow path",
            Class::ResetLink => "fault: link reset",
            Class::PauseServer => "fault: chunkserver paused",
            Class::PauseWriter => "fault: writer paused",
            Class::CatalogOutage => "fault: control plane outage",
            Class::ForceAttach => "fault: attached by force elsewhere",
            Class::Detach => "event: detach",
            Class::DiskSlow => "fault: slow disk",
            Class::WriteError => "fault: write error",
            Class::ReadError => "fault: read error",
            Class::FlushError => "fault: flush error",
            Class::CommitError => "fault: index commit error",
            Class::BitFlip => "fault: bit flip at rest",
            Class::DeclareLost => "fault: operator thinks of declaring a disk lost",
            Class::Grow => "event: a volume may grow",
            Class::Replace => "event: a disk may be replaced",
            Class::OldImage => "event: an older image may be put back",
            Class::EmptyDisk => "event: a disk may be emptied",
            Class::TwoEmptyDisks => "event: two disks may be emptied at once",
            Class::LostWrite => "event: a write may be lost",
            Class::MisdirectedWrite => "event: a write may go elsewhere",
            Class::IndexFlip => "event: a bit may flip in the index",
            Class::NewestFlip => "event: a bit may flip in the newest batch",
            Class::Snapshot => "event: a snapshot may be taken, read or given up",
        }
    }
}

/// A schedule that random faults would hardly find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directed {
    /// The writer and one replica are cut off together; the volume is attached elsewhere, where that replica cannot
    /// be reached.
    Zombie { beside_its_replica: bool },
    /// Writers die right after the n-th step of their protocol (a proposal, an answer, a message of attach or return).
    DyingWriter,
    /// The writer is paused for longer than its lease while another takes the volume, then goes on.
    Sleeper,
    /// As `Zombie`, but the new writer dies soon after its attach, and the next one comes at once.
    Relay { beside_its_replica: bool },
    /// The answer to the writer's ejection of a replica is lost; then it is cut off from all but that replica, and the
    /// volume is attached elsewhere.
    LostEjection,
    /// The volume is attached elsewhere while the old writer lives, hears everything, and only reads.
    Usurper,
    /// One disk fails and returns again and again; calls to the control plane arrive twice, the second time late.
    Flapping,
    /// The chunkserver that a step of attach, eject or return concerns dies right after it, or is cut off.
    DyingPeer,
    /// One disk has less space than the others, and less than the guests touch at first.
    FullDisk,
    /// The old writer's last writes are on their way to one slow disk, and to no other, when the new one opens it.
    SlowPromise,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub nodes: u16,
    pub volumes: u16,
    pub min_replicas: u8,
    /// Faults stop here.
    pub faults_until: Nanos,
    /// Class and mean time between its strikes.
    pub classes: Vec<(Class, Nanos)>,
    pub directed: Option<Directed>,
    /// Of a million calls to the control plane, how many are lost on the way there, and how many on the way back.
    pub calls_lost_ppm: u32,
    pub answers_lost_ppm: u32,
    /// Guests keep this many requests in flight at most, and think this long between two on average.
    pub depth: u32,
    pub think: Nanos,
    pub read_share_ppm: u32,
    pub discard_share_ppm: u32,
    pub blocks_max: u32,
    pub hot_slots: u16,
    /// Slots of data space of each disk; small ones fill up.
    pub disk_slots: u32,
    pub clocks_drift: bool,
    /// Nodes' clocks leap now and then; the time between two leaps is drawn from up to this, beside a shortest one.
    pub clocks_leap: Option<Nanos>,
    /// Clones are made and volumes deleted, about as often.
    pub clones: Option<Nanos>,
    /// Replicas are moved, moves given up, and copies slowed down, about as often.
    pub relocations: Option<Nanos>,
    /// The planner looks after the volumes.
    pub healing: bool,
    /// Disks verify everything that they have in this time.
    pub scrub_period: Option<Nanos>,
    /// Writers compare replicas in this time.
    pub compare_period: Option<Nanos>,
    /// At the end a disk loses something without a trace, for the comparison to find.
    pub plants: bool,
    /// Nodes are at different distances, farther than a link that was lost takes to be made again.
    pub far: bool,
}

impl Scenario {
    /// Draws the scenario of a seed.
    pub fn draw(seed: u64) -> Scenario {
        let mut rng = Rng::named(seed, "scenario");
        let directed = draw_directed(&mut rng);
        let quiet = rng.below(20) == 0;
        let mut classes = draw_classes(&mut rng, directed, quiet);
        let lossy = rng.coin() && !quiet;
        let full = directed == Some(Directed::FullDisk);
        if full {
            // Volumes that grow, and disks that come and go, would need more than the small disk has.
            classes.clear();
        }
        // A disk that fills up: what the guests touch is less than first touches may have at rest, and more while
        // overwrites take places too. A volume that grows, snapshots, and the cold blocks of directed schedules, would
        // touch more than that for good.
        let small = rng.below(10) == 0 && directed.is_none();
        if small {
            classes.retain(|(class, _)| !matches!(class, Class::Grow | Class::Snapshot));
        }
        let healing = !small && !full && draw_healing(seed);
        let snapshots = classes.iter().any(|(class, _)| *class == Class::Snapshot);
        Scenario {
            nodes: match full {
                true => 3,
                // With disks on which volumes could be healed.
                false => rng.range(3, 5).max(if healing { 6 } else { 0 }) as u16,
            },
            volumes: if small || full { 1 } else { rng.range(1, 2) as u16 },
            min_replicas: 2,
            faults_until: rng.range(6, 30) * SECONDS,
            classes,
            directed,
            calls_lost_ppm: if lossy { rng.below(200_000) as u32 } else { 0 },
            answers_lost_ppm: if lossy { rng.below(300_000) as u32 } else { 0 },
            depth: rng.range(1, 8) as u32,
            think: rng.range(2, 16) * MILLIS,
            read_share_ppm: rng.range(200_000, 700_000) as u32,
            discard_share_ppm: if rng.coin() { rng.below(150_000) as u32 } else { 0 },
            blocks_max: if full {
                48
            } else if small {
                12
            } else {
                *rng.pick(&[1, 2, 4, 8, 24, 48])
            },
            hot_slots: if full {
                72
            } else if small {
                54
            } else {
                rng.range(2, 6) as u16
            },
            disk_slots: match () {
                _ if small && !full => SMALL_DISK_SLOTS,
                _ if snapshots => DISK_SLOTS_WITH_SNAPSHOTS,
                _ => DISK_SLOTS,
            },
            clocks_drift: rng.coin(),
            clocks_leap: if quiet { None } else { draw_leaps(seed) },
            clones: if small || full { None } else { draw_clones(seed) },
            relocations: if small || full { None } else { draw_relocations(seed) },
            healing,
            scrub_period: draw_scrub(seed),
            compare_period: draw_compare(seed),
            plants: Rng::named(seed, "plants").below(3) == 0,
            far: rng.below(16) == 0,
        }
    }

    /// Slots of data space of one disk.
    pub fn slots_of(&self, disk: u16) -> u32 {
        let is_small = self.directed == Some(Directed::FullDisk) && disk == 0;
        if is_small { SMALL_DISK_SLOTS } else { self.disk_slots }
    }

    /// Nothing goes wrong.
    pub fn without_faults(seed: u64) -> Scenario {
        let faults_until = 5 * SECONDS;
        Scenario {
            classes: Vec::new(),
            directed: None,
            clocks_leap: None,
            clones: None,
            relocations: None,
            healing: false,
            calls_lost_ppm: 0,
            answers_lost_ppm: 0,
            faults_until,
            ..Scenario::draw(seed)
        }
    }
}

/// A stream of its own: seeds without leaps are what they were before there were any.
fn draw_leaps(seed: u64) -> Option<Nanos> {
    let mut rng = Rng::named(seed, "leaps");
    (rng.below(8) == 0).then(|| rng.range(3, 8) * SECONDS)
}

/// Likewise.
fn draw_clones(seed: u64) -> Option<Nanos> {
    let mut rng = Rng::named(seed, "clones");
    (rng.below(3) == 0).then(|| rng.range(300, 2500) * MILLIS)
}

/// Likewise.
fn draw_relocations(seed: u64) -> Option<Nanos> {
    let mut rng = Rng::named(seed, "relocations");
    (rng.below(3) == 0).then(|| rng.range(300, 2500) * MILLIS)
}

/// Likewise. Nobody else moves replicas then.
fn draw_healing(seed: u64) -> bool {
    draw_relocations(seed).is_none() && Rng::named(seed, "healing scenario").coin()
}

/// Likewise.
fn draw_scrub(seed: u64) -> Option<Nanos> {
    let mut rng = Rng::named(seed, "scrub");
    (rng.below(4) == 0).then(|| rng.range(3, 20) * SECONDS)
}

/// Likewise.
fn draw_compare(seed: u64) -> Option<Nanos> {
    let mut rng = Rng::named(seed, "compare");
    (rng.below(3) == 0).then(|| rng.range(500, 4000) * MILLIS)
}

fn draw_directed(rng: &mut Rng) -> Option<Directed> {
    match rng.below(24) {
        0 | 1 => Some(Directed::Zombie { beside_its_replica: rng.coin() }),
        2..=4 => Some(Directed::DyingWriter),
        5 | 6 => Some(Directed::Sleeper),
        7 => Some(Directed::Relay { beside_its_replica: rng.coin() }),
        8 => Some(Directed::LostEjection),
        9 => Some(Directed::Usurper),
        10 => Some(Directed::Flapping),
        11 => Some(Directed::DyingPeer),
        12 => Some(Directed::FullDisk),
        13 => Some(Directed::SlowPromise),
        _ => None,
    }
}

/// Swarm: whole classes are on or off, each at a pace of its own.
fn draw_classes(rng: &mut Rng, directed: Option<Directed>, quiet: bool) -> Vec<(Class, Nanos)> {
    let often = rng.range(1, 6) * SECONDS;
    let mut classes = Vec::new();
    for class in Class::ALL {
        let on = rng.below(5) < 2 && !quiet;
        let every = rng.range(often / 2, often * 3);
        // People take snapshots more often than disks fail.
        let (on, every) = if class == Class::Snapshot { (on || rng.coin(), every / 8) } else { (on, every) };
        if on && (directed.is_none() || rng.below(3) == 0) {
            classes.push((class, every));
        }
    }
    // Each of these is rare, so that a run has a few of them and not all.
    classes.retain(|(class, _)| !Class::DECAY.contains(class) || rng.below(3) == 0);
    // What is declared lost no longer counts as a copy, and the one that is left must then be good.
    let spoils = |class: &Class| matches!(class, Class::BitFlip | Class::ReadError) || Class::DECAY.contains(class);
    if classes.iter().any(|(class, _)| spoils(class)) {
        classes.retain(|(class, _)| *class != Class::DeclareLost);
    }
    classes
}
