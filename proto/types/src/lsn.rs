//! Lsn: the order of writes within a volume.
//!
//! ```text
//!  63           40 39                                   0
//! +---------------+--------------------------------------+
//! |  epoch (24)   |  counter within the epoch (40 bits)  |
//! +---------------+--------------------------------------+
//! ```
//! A new epoch's writes sort after all older ones. 2^40 writes are 35 years at 1000 per second within one attachment.

use crate::Epoch;
use std::fmt;

/// Log sequence number of one write, unique within its volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// Before every write.
    pub const ZERO: Lsn = Lsn(0);
    pub const MAX: Lsn = Lsn(u64::MAX);

    const COUNTER_BITS: u32 = 40;
    const COUNTER_MAX: u64 = (1 << Lsn::COUNTER_BITS) - 1;

    /// The point just before the first write of `epoch`.
    pub fn start_of(epoch: Epoch) -> Lsn {
        Lsn(u64::from(epoch.number()) << Lsn::COUNTER_BITS)
    }

    /// The following lsn of the same epoch. Panics when the counter is used up, which 2^40 writes do not reach.
    pub fn next(self) -> Lsn {
        assert!(self.counter() < Lsn::COUNTER_MAX, "lsn counter is used up");
        Lsn(self.0 + 1)
    }

    pub fn epoch(self) -> Epoch {
        Epoch::new((self.0 >> Lsn::COUNTER_BITS) as u32).expect("24 bits fit an epoch")
    }

    pub fn counter(self) -> u64 {
        self.0 & Lsn::COUNTER_MAX
    }

    pub fn from_raw(raw: u64) -> Lsn {
        Lsn(raw)
    }

    pub fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> Lsn::COUNTER_BITS, self.counter())
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_epoch_sorts_after_every_older_write() {
        let old = Lsn::from_raw(Lsn::start_of(Epoch::new(4).unwrap()).raw() | Lsn::COUNTER_MAX);
        let new = Lsn::start_of(Epoch::new(5).unwrap());
        assert!(new > old);
        assert_eq!(new.next().epoch(), Epoch::new(5).unwrap());
        assert_eq!(new.next().counter(), 1);
    }

    #[test]
    #[should_panic(expected = "used up")]
    fn the_counter_never_spills_into_the_epoch() {
        let _ = Lsn::from_raw(Lsn::start_of(Epoch::new(4).unwrap()).raw() | Lsn::COUNTER_MAX).next();
    }
}
