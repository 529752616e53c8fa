//! Deliberate bugs of the kind that foreign bytes find, one flag each: a check left out, a length believed, an event
//! forgotten. They show whether the fuzz targets would find their like; [`Mutant`](crate::Mutant) has those that the
//! simulator must find. Each stands where the real check is; some were there once.
//!
//! Without the feature `mutants` [`Slip::is_on`] is a constant `false`, and the compiler leaves nothing of it.

macro_rules! slips {
    ($($variant:ident $target:literal $name:literal $bug:literal,)*) => {
        /// One deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Slip {
            $(#[doc = $bug] $variant,)*
        }

        impl Slip {
            /// Every one, in the order of the targets.
            pub const ALL: &[Slip] = &[$(Slip::$variant,)*];

            /// The fuzz target that must find it.
            pub const fn target(self) -> &'static str {
                match self { $(Slip::$variant => $target,)* }
            }

            /// Its name on the command line and in tables.
            pub const fn name(self) -> &'static str {
                match self { $(Slip::$variant => $name,)* }
            }

            /// What it does wrong.
            pub const fn bug(self) -> &'static str {
                match self { $(Slip::$variant => $bug,)* }
            }
        }
    };
}

slips! {
    LengthBelieved "wire_stream" "length-believed" "a frame's data has room before its length is looked at",
    DirectCountedTwice "wire_stream" "direct-counted-twice"
        "what came before a direct receive is counted twice when its buffer returns",
    NextPageIgnored "wire_message" "next-page-ignored" "a number beside \"no next page\" is ignored",
    ReservedIgnored "superblock" "reserved-ignored" "reserved bytes of a superblock are ignored",
    LayoutBelieved "superblock" "layout-believed" "a superblock's slots may lie beyond its disk",
    PlaceBelieved "journal_batch" "place-believed" "a record's place may lie beyond the slots",
    ChunkFlagsIgnored "index_row" "chunk-flags-ignored" "unknown flags of a chunk's row are ignored",
    SequenceBelieved "engine_recover" "sequence-believed" "a batch may have the last possible sequence",
    ClosedLinkServed "engine_events" "closed-link-served" "a link that was closed is served what it asked for early",
    GrownSetUnseen "volume_events" "grown-set-unseen" "a set that grows in the middle of a reconcile is not noticed",
    EndWraps "nbd" "end-wraps" "the end of a request is counted modulo 2^64",
    MemberBelieved "control_api" "member-believed" "a run of chunks may name a member that there is not",
    NameClimbs "names" "name-climbs" "a name may have a slash in its middle",
    FrameGoesBack "export_stream" "frame-goes-back" "a frame of an exported stream may lie before the last one",
}

#[cfg(feature = "mutants")]
mod active {
    use super::Slip;
    use std::sync::atomic::{AtomicU8, Ordering};

    const NONE: u8 = u8::MAX;
    static ACTIVE: AtomicU8 = AtomicU8::new(NONE);

    impl Slip {
        /// Whether this bug is on, in this process.
        pub fn is_on(self) -> bool {
            ACTIVE.load(Ordering::Relaxed) == self as u8
        }

        /// Turns this bug on and every other one off; `None` turns all off.
        pub fn activate(slip: Option<Slip>) {
            ACTIVE.store(slip.map_or(NONE, |slip| slip as u8), Ordering::Relaxed);
        }
    }
}

#[cfg(not(feature = "mutants"))]
impl Slip {
    /// Deliberate bugs are not compiled in.
    pub const fn is_on(self) -> bool {
        false
    }
}
