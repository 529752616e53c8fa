//! What the parts of a simulated cluster are called, in code and in stories: n0 a node, d0 a disk, v0 a volume, w0
//! a writer, l0 a link.

use std::fmt;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident($inner:ty), $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

name! {
    /// A node: runs one chunkserver and any number of writers, has one clock.
    Node(u16), "n"
}
name! {
    /// A disk, with the chunkserver process that serves it.
    Disk(u16), "d"
}
name! {
    /// A volume of the workload.
    Vol(u16), "v"
}
name! {
    /// One incarnation of a writer: a datapath that was granted an epoch. Never used twice.
    Writer(u32), "w"
}
name! {
    /// One connection between a writer and a chunkserver. Never used twice.
    Link(u32), "l"
}

/// Nanoseconds of true time since the start of the run. No process sees it: processes see their node's clock.
pub type Nanos = u64;

pub const MICROS: Nanos = 1_000;
pub const MILLIS: Nanos = 1_000_000;
pub const SECONDS: Nanos = 1_000_000_000;
