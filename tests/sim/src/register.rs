//! One 4 KiB block as a linearizable register whose unanswered writes may or may not have happened.
//!
//! Every write has a unique stamp, so which write a read saw is known, and the check is polynomial (Gibbons and
//! Korach, "Testing shared memories", 1997). For each value, its cluster is the write and its reads; between the
//! first end and the last start of a cluster (its forward zone) the register must hold that value. A history is
//! linearizable if and only if no read ends before its write starts, no two forward zones overlap, and no cluster
//! without forward zone lies wholly within the forward zone of another.
//!
//! Zeros are the exception: the beginning and every discard write the same value. A read of zeros is given to the
//! first of those, by end, with which it fits; zones of zeros do not conflict with each other.

use crate::stamp::Stamp;
use rustc_hash::FxHashMap;

/// A point in the order of everything that guests saw; all points differ.
pub type Point = u64;
/// The end of what was never answered.
pub const NEVER: Point = Point::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    Read,
}

/// One block's part of one guest operation. An operation that failed or was never answered ends [`NEVER`] if it is
/// a write, and is no part of the history if it is a read.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub kind: Kind,
    pub stamp: Stamp,
    pub start: Point,
    pub end: Point,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub text: String,
    pub stamps: [Stamp; 2],
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    stamp: Stamp,
    first_end: Point,
    last_start: Point,
}

impl Zone {
    fn of(access: &Access) -> Zone {
        Zone { stamp: access.stamp, first_end: access.end, last_start: access.start }
    }

    fn with(self, access: &Access) -> Zone {
        let Zone { stamp, first_end, last_start } = self;
        Zone { stamp, first_end: first_end.min(access.end), last_start: last_start.max(access.start) }
    }

    fn is_forward(self) -> bool {
        self.first_end < self.last_start
    }

    fn conflicts(self, other: Zone) -> bool {
        match (self.is_forward(), other.is_forward()) {
            (true, true) => self.first_end < other.last_start && other.first_end < self.last_start,
            (true, false) => self.first_end < other.last_start && other.first_end < self.last_start,
            (false, true) => other.conflicts(self),
            (false, false) => false,
        }
    }
}

/// Checks one block's history.
pub fn check(history: &[Access]) -> Result<(), Violation> {
    let values = zones_of_writes(history)?;
    conflict_among(&values)?;
    zeros_fit(history, &values)
}

/// Zones of the nonzero values; a write that was never answered and never read has none.
fn zones_of_writes(history: &[Access]) -> Result<Vec<Zone>, Violation> {
    let mut order = Vec::new();
    let mut clusters: FxHashMap<Stamp, (Zone, Point, bool)> = FxHashMap::default();
    for access in history.iter().filter(|a| a.kind == Kind::Write && a.stamp != Stamp::ZERO) {
        order.push(access.stamp);
        let before = clusters.insert(access.stamp, (Zone::of(access), access.start, access.end != NEVER));
        assert!(before.is_none(), "stamp {:?} is written twice", access.stamp);
    }
    for read in history.iter().filter(|a| a.kind == Kind::Read && a.stamp != Stamp::ZERO) {
        let Some((zone, written, seen)) = clusters.get_mut(&read.stamp) else {
            let text = format!("a read returns {:?}, which nobody wrote to this block", read.stamp);
            return Err(Violation { text, stamps: [read.stamp; 2] });
        };
        if read.end < *written {
            let text = format!("a read returns {:?} before it is written", read.stamp);
            return Err(Violation { text, stamps: [read.stamp; 2] });
        }
        *zone = zone.with(read);
        *seen = true;
    }
    Ok(order.iter().map(|stamp| clusters[stamp]).filter(|(_, _, seen)| *seen).map(|(zone, _, _)| zone).collect())
}

/// No two zones of which one is forward overlap.
fn conflict_among(zones: &[Zone]) -> Result<(), Violation> {
    let zones_of = Zones::of(zones);
    let mut latest: Option<Zone> = None;
    for forward in &zones_of.forward.by_first_end {
        if let Some(earlier) = latest.filter(|earlier| earlier.conflicts(*forward)) {
            return Err(conflict(earlier, *forward));
        }
        latest = latest.into_iter().chain([*forward]).max_by_key(|zone| zone.last_start);
    }
    for zone in zones.iter().filter(|zone| !zone.is_forward()) {
        if let Some(forward) = zones_of.against(*zone) {
            return Err(conflict(forward, *zone));
        }
    }
    Ok(())
}

/// Gives each read of zeros to a source of zeros with which it fits.
fn zeros_fit(history: &[Access], values: &[Zone]) -> Result<(), Violation> {
    let beginning = Access { kind: Kind::Write, stamp: Stamp::ZERO, start: 0, end: 0 };
    let is_zero = |kind: Kind| move |a: &&Access| a.kind == kind && a.stamp == Stamp::ZERO;
    let mut sources: Vec<(Access, Zone)> = std::iter::once(&beginning)
        .chain(history.iter().filter(is_zero(Kind::Write)))
        .map(|a| (*a, Zone::of(a)))
        .collect();
    sources.sort_by_key(|(access, _)| (access.end, access.start));
    let values = Zones::of(values);
    for (access, zone) in sources.iter().filter(|(access, _)| access.end != NEVER) {
        assert!(access.start <= access.end);
        if let Some(value) = values.against(*zone) {
            return Err(conflict(value, *zone));
        }
    }
    let mut reads: Vec<&Access> = history.iter().filter(is_zero(Kind::Read)).collect();
    reads.sort_by_key(|read| read.start);
    for read in reads {
        let mut reason = None;
        let fits = sources.iter_mut().filter(|(source, _)| source.start < read.end).any(|(_, zone)| {
            let merged = zone.with(read);
            match values.against(merged) {
                None => {
                    *zone = merged;
                    true
                }
                Some(value) => {
                    reason = Some((value, merged));
                    false
                }
            }
        });
        if !fits {
            let (value, merged) = reason.expect("the beginning is always a candidate");
            return Err(conflict(value, merged));
        }
    }
    Ok(())
}

/// Zones of values, so that one that conflicts with a given zone is found by bisection.
struct Zones {
    all: Ordered,
    forward: Ordered,
}

struct Ordered {
    by_first_end: Vec<Zone>,
    /// Of the first n zones the one that starts last, at n - 1.
    latest: Vec<Zone>,
}

impl Zones {
    fn of(zones: &[Zone]) -> Zones {
        let forward = zones.iter().copied().filter(|zone| zone.is_forward());
        Zones { all: Ordered::of(zones.iter().copied()), forward: Ordered::of(forward) }
    }

    /// One of them that conflicts with a zone that is not among them, if there is one.
    fn against(&self, zone: Zone) -> Option<Zone> {
        let Ordered { by_first_end, latest } = if zone.is_forward() { &self.all } else { &self.forward };
        let before = by_first_end.partition_point(|value| value.first_end < zone.last_start);
        latest[..before].last().copied().filter(|value| zone.conflicts(*value))
    }
}

impl Ordered {
    fn of(zones: impl Iterator<Item = Zone>) -> Ordered {
        let mut by_first_end: Vec<Zone> = zones.collect();
        by_first_end.sort_by_key(|zone| zone.first_end);
        let latest = by_first_end.iter().scan(None, |latest: &mut Option<Zone>, zone| {
            *latest = latest.iter().chain([zone]).copied().max_by_key(|zone| zone.last_start);
            *latest
        });
        Ordered { latest: latest.collect(), by_first_end }
    }
}

fn conflict(a: Zone, b: Zone) -> Violation {
    let describe = |zone: Zone| match zone.is_forward() {
        true => format!("{:?} is seen from {} until {}", zone.stamp, zone.first_end, zone.last_start),
        false => format!("{:?} happens between {} and {}", zone.stamp, zone.last_start, zone.first_end),
    };
    Violation { text: format!("{}, but {}", describe(a), describe(b)), stamps: [a.stamp, b.stamp] }
}

#[cfg(test)]
mod tests;
