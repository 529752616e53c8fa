//! What the planner sees: the state of the cluster at one moment, as the control plane knows it. Nothing here is a
//! wish. Times are not among it, but for `now`: how long something lasts the planner measures itself (`clock.rs`), so
//! that neither a jump of the clock nor a restart of the control plane makes it act early.

use crate::repair::BytesPerSecond;
use ashlar_types::{
    ByteCount, ChunkRun, Class, DiskId, Duration, Instant, Lsn, MemberState, NodeName, VolumeId, VolumeRecord, ZoneName,
};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub now: Instant,
    pub nodes: BTreeMap<NodeName, NodeSeen>,
    pub disks: BTreeMap<DiskId, DiskSeen>,
    pub volumes: BTreeMap<VolumeId, VolumeSeen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    pub zone: Option<ZoneName>,
    /// Its chunkserver has missed its reports.
    pub is_silent: bool,
    /// An operator wants every replica elsewhere (`ashlar node drain`).
    pub is_draining: bool,
    /// Its datapath answers and could take one volume more.
    pub may_attach: bool,
    /// How long foreground I/O of the node's disks takes. `None`: there is none, or nothing is known.
    pub foreground: Option<Latency>,
}

/// Latency of foreground I/O on the worst disk of the node: mean or 99th percentile, whichever suffers more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub now: Duration,
    /// The same while nothing was copied: what it is compared with.
    pub quiet: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSeen {
    pub node: NodeName,
    pub capacity: ByteCount,
    /// Promised to volumes, those included that are to be deleted there.
    pub claimed: ByteCount,
    /// Written, snapshots included.
    pub used: ByteCount,
    pub fate: Fate,
    /// Share of its time for which foreground I/O keeps it busy; 0 if not known.
    pub busy_permille: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Usable,
    /// An operator wants it empty, or its errors grow: it works, and takes nothing new.
    Draining,
    /// Refuses writes for good; reads go on.
    Failed,
    /// Its chunkserver answers and does not name it: it was pulled, or has not been read yet.
    Missing,
    /// Declared lost: never counted on again.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSeen {
    pub class: Class,
    pub holder: Option<Holder>,
    /// What one replica takes of a disk's promises.
    pub claim: ByteCount,
    /// How many replicas it shall have.
    pub replicas: u8,
    pub min_replicas: u8,
    pub wish: Wish,
    /// It reads from no other volume's replicas. A clone that does is replaced where it must be (a member that begins
    /// at commit zero is sent everything), but is moved only when it has become flat.
    pub is_flat: bool,
    pub members: Vec<MemberSeen>,
    /// Nodes read it beside each other, and a writer would end them: it is left as it is until the last one is gone.
    pub is_read: bool,
    /// Disks that take none of it: what they had of it is still to be deleted.
    pub buried: Vec<DiskId>,
    /// Consecutive chunks with the same replicas; their `members` index into `members` above.
    pub chunks: Vec<ChunkRun>,
}

/// Where the volume's StorageClass wants replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only in these zones; empty: in any.
    pub zones: Vec<ZoneName>,
    /// No two replicas in one zone. Otherwise zones are spread where that is possible.
    pub spread_zones: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub node: NodeName,
    /// The planner asked for this attachment (`Step::Repair`), and no pod uses it.
    pub is_repair: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSeen {
    pub disk: DiskId,
    pub node: NodeName,
    pub state: MemberState,
    /// As the writer reports it; `None`: nobody copies to it, or how much there is to copy is not known yet.
    pub copy: Option<Copied>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub done: ByteCount,
    pub total: ByteCount,
    /// As measured over the last seconds; `None`: not yet.
    pub rate: Option<BytesPerSecond>,
}

impl VolumeSeen {
    /// What the record says. `held_by_repair`: the present attachment is one that a `Step::Repair` asked for.
    pub fn of(record: &VolumeRecord, class: Class, replicas: u8, claim: ByteCount, held_by_repair: bool) -> VolumeSeen {
        let member = |member: &ashlar_types::Member| MemberSeen {
            disk: member.disk,
            node: member.node.clone(),
            state: member.state,
            copy: None,
        };
        VolumeSeen {
            class,
            holder: record.holder.clone().map(|node| Holder { node, is_repair: held_by_repair }),
            claim,
            replicas,
            min_replicas: record.min_replicas,
            wish: Wish::default(),
            is_flat: record.origin.is_none(),
            members: record.members.iter().map(member).collect(),
            is_read: false,
            buried: Vec::new(),
            chunks: record.chunks.clone(),
        }
    }

    /// Members that hold a chunk. The others are kept in the record until the next grant only.
    pub fn held(&self) -> impl Iterator<Item = (u16, &MemberSeen)> {
        let holds = |index: u16| self.chunks.iter().any(|run| run.members.contains(&index));
        let indexed = self.members.iter().enumerate().map(|(index, member)| (index as u16, member));
        indexed.filter(move |(index, _)| holds(*index))
    }

    pub fn holds_on(&self, node: &NodeName) -> bool {
        self.held().any(|(_, member)| member.node == *node)
    }

    /// The fewest members for which `counts` holds that any chunk has; 0 if there is no chunk.
    pub fn fewest(&self, counts: impl Fn(&MemberSeen) -> bool) -> u8 {
        let of_run =
            |run: &ChunkRun| run.members.iter().filter(|index| counts(&self.members[usize::from(**index)])).count();
        self.chunks.iter().map(of_run).min().unwrap_or(0) as u8
    }

    pub fn fewest_in_sync(&self) -> u8 {
        self.fewest(|member| member.state.is_in_sync())
    }

    /// The most replicas that any chunk has, in-sync or not.
    pub fn widest(&self) -> u8 {
        self.chunks.iter().map(|run| run.members.len()).max().unwrap_or(0) as u8
    }

    /// Each chunk of the member has a replica too many.
    pub fn is_spare(&self, index: u16) -> bool {
        let mut runs = self.chunks.iter().filter(|run| run.members.contains(&index));
        runs.all(|run| run.members.len() > usize::from(self.replicas))
    }

    /// Bytes that members which are not in-sync still lack, at most; of more of them than the volume needs those that
    /// lack least count.
    pub fn remaining(&self) -> ByteCount {
        let lacking = self.held().filter(|(_, member)| !member.state.is_in_sync());
        let mut lacking: Vec<u64> = lacking.map(|(_, member)| member.remaining(self.claim).0).collect();
        lacking.sort_unstable();
        let needed = self.replicas.saturating_sub(self.fewest_in_sync()).max(1);
        ByteCount(lacking.into_iter().take(usize::from(needed)).fold(0, u64::saturating_add))
    }
}

impl MemberSeen {
    pub fn is_out(&self) -> bool {
        matches!(self.state, MemberState::Out { .. })
    }

    /// Nothing of the volume was ever copied there: it is new, and no resync will do.
    pub fn is_blank(&self) -> bool {
        matches!(self.state, MemberState::Out { commit: Lsn::ZERO } | MemberState::Syncing { commit: Lsn::ZERO })
    }

    /// What it still lacks; all of it as long as that is not known.
    pub fn remaining(&self, claim: ByteCount) -> ByteCount {
        match self.copy {
            _ if self.state.is_in_sync() => ByteCount(0),
            Some(copied) => ByteCount(copied.total.0.saturating_sub(copied.done.0)),
            None => claim,
        }
    }
}

impl Seen {
    /// The disk works and its chunkserver answers.
    pub fn is_alive(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|seen| {
            matches!(seen.fate, Fate::Usable | Fate::Draining)
                && self.nodes.get(&seen.node).is_some_and(|n| !n.is_silent)
        })
    }

    /// Somebody wants the disk or its node empty, and it still works.
    pub fn is_leaving(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|seen| {
            seen.fate == Fate::Draining || self.nodes.get(&seen.node).is_some_and(|node| node.is_draining)
        })
    }
}
