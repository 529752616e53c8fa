//! Why a disk was chosen and the others were not.

use super::name_of;
use ashlar_types::{ByteCount, DiskId, NodeName, ZoneName};
use std::fmt;

/// One choice of one disk. Printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `None`: no disk would do.
    pub taken: Option<Taken>,
    /// Those that would not do, or were less good: at most [`Explanation::SHOWN_MAX`], by disk.
    pub left_out: Vec<LeftOut>,
    /// How many more were left out.
    pub more: usize,
}

/// What was known of a disk that would do. The lower goes first, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// Replicas of the volume that are in its zone already.
    pub zone_shared: usize,
    /// Pairs of nodes that would become partners although one of the two has as many as it may.
    pub partners_above_bound: usize,
    /// How full it would be, in sixteenths of what the emptiest candidate offers: less room, higher number.
    pub fullness: u8,
    /// Whether no volume has just this set of nodes yet.
    pub is_new_set: bool,
    pub busy_permille: u16,
    /// Bytes less than the emptiest candidate offers.
    pub less_room: ByteCount,
    pub disk: DiskId,
    pub node: NodeName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub disk: DiskId,
    pub node: NodeName,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Takes nothing: "silent", "failed", "draining", ...
    Closed(String),
    /// A replica of the volume is on its node.
    NodeTaken,
    /// It held chunks of the volume under the present epoch, and under that it takes none again.
    Member,
    /// What it had of the volume is not deleted yet.
    Buried,
    Room {
        room: ByteCount,
        needed: ByteCount,
    },
    ZoneNotAsked {
        zone: Option<ZoneName>,
    },
    ZoneTaken {
        zone: Option<ZoneName>,
    },
    /// It would do, but a node that was asked for before its own would do too.
    AskedLater,
    /// It would do, but another was better by this.
    Behind(Rule),
}

/// By which rule one disk was better than another, in the order of [`Taken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Zone,
    Partners,
    Room,
    Set,
    Load,
    Id,
}

impl Explanation {
    pub const SHOWN_MAX: usize = 16;

    /// These were left out as well.
    pub(super) fn leave_out(&mut self, others: impl Iterator<Item = LeftOut>) {
        self.left_out.extend(others);
        self.left_out.sort_by_key(|left| left.disk);
        self.more += self.left_out.len().saturating_sub(Explanation::SHOWN_MAX);
        self.left_out.truncate(Explanation::SHOWN_MAX);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.taken {
            Some(taken) => write!(f, "disk {} on node {}: {taken}", taken.disk, taken.node)?,
            None => f.write_str("no disk will do")?,
        }
        for left in &self.left_out {
            write!(f, "; not disk {} on node {}: {}", left.disk, left.node, left.reason)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; nor {more} more"),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone_shared {
            0 => f.write_str("no replica in its zone yet")?,
            shared => write!(f, "{shared} replicas in its zone already")?,
        }
        match self.partners_above_bound {
            0 => f.write_str(", partners within the bound")?,
            above => write!(f, ", {above} partners above the bound")?,
        }
        let set = if self.is_new_set { "a new set of nodes" } else { "a set of nodes that is in use" };
        write!(f, ", {} bytes less room than the emptiest, {set}", self.less_room)?;
        write!(f, ", busy for {}.{} % of the time", self.busy_permille / 10, self.busy_permille % 10)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Closed(why) => write!(f, "it is {why}"),
            Reason::NodeTaken => f.write_str("its node has a replica already"),
            Reason::Member => {
                f.write_str("its replica was given up, and it takes none again until the volume is attached anew")
            }
            Reason::Buried => f.write_str("what it had of the volume is still to be deleted there"),
            Reason::Room { room, needed } => write!(f, "it has {room} of {needed} bytes"),
            Reason::ZoneNotAsked { zone } => write!(f, "zone {} is not among those asked for", name_of(zone)),
            Reason::ZoneTaken { zone } => write!(f, "zone {} has a replica already", name_of(zone)),
            Reason::AskedLater => f.write_str("another node was asked for before its own"),
            Reason::Behind(rule) => f.write_str(match rule {
                Rule::Zone => "more replicas in its zone",
                Rule::Partners => "more partners above the bound",
                Rule::Room => "less room",
                Rule::Set => "a new set of nodes",
                Rule::Load => "busier",
                Rule::Id => "as good, but with a higher id",
            }),
        }
    }
}
