//! Epoch: the number of an attachment. A higher epoch fences every lower one.

use std::fmt;

/// Number of an attachment of one volume; granted by compare-and-swap, strictly increasing, never reused.
///
/// `Epoch::NONE` (0) is what a volume has that was never attached. At most [`Epoch::MAX`], because it is the high
/// part of an lsn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u32);

impl Epoch {
    pub const NONE: Epoch = Epoch(0);
    pub const MAX: Epoch = Epoch((1 << 24) - 1);

    /// `None` when `number` is above [`Epoch::MAX`].
    pub fn new(number: u32) -> Option<Epoch> {
        (number <= Epoch::MAX.0).then_some(Epoch(number))
    }

    /// The following epoch; `None` when the numbers are used up.
    pub fn next(self) -> Option<Epoch> {
        Epoch::new(self.0 + 1)
    }

    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
