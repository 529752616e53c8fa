//! A disk with growing errors is emptied before it dies: its blocks go bad one after the other, and each that goes is
//! mended from another replica, until two go in one place.
//!
//! What counts are blocks found bad lately, in this round of scrub and the one before, whoever found them. What was
//! judged once is not judged again: an operator who takes the disk back knows of these.

/// Blocks that were found bad, as a disk tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BadBlocks {
    /// Since the disk was formatted.
    pub ever: u64,
    /// In this round of scrub and the one before.
    pub lately: u64,
}

/// Of what is lately bad, the blocks that were not there when the disk was last judged, with `judged` bad ones ever. A
/// disk that was formatted anew, and counts from zero, has none of those any more.
pub fn unjudged(bad: BadBlocks, judged: u64) -> u64 {
    bad.lately.min(bad.ever.checked_sub(judged).unwrap_or(bad.ever))
}

/// Whether the disk should be emptied; never with a bound of zero.
pub fn wears_out(bad: BadBlocks, judged: u64, blocks_max: u64) -> bool {
    blocks_max > 0 && unjudged(bad, judged) > blocks_max
}

/// Whether the disk should be emptied because its device says that it is about to fail. What was judged is not judged
/// again, and a bound of zero empties nothing here either.
pub fn gives_notice(is_failing: bool, was_judged: bool, blocks_max: u64) -> bool {
    blocks_max > 0 && is_failing && !was_judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bad(ever: u64, lately: u64) -> BadBlocks {
        BadBlocks { ever, lately }
    }

    #[test]
    fn a_disk_wears_out_by_what_it_lost_lately() {
        for (ever, lately, judged, expected) in [
            (64, 64, 0, false),
            (65, 65, 0, true),
            (1000, 10, 0, false),
            (1000, 65, 0, true),
            // Taken back by an operator: only what came since.
            (1000, 65, 1000, false),
            (1064, 129, 1000, false),
            (1065, 130, 1000, true),
            // Formatted anew.
            (65, 65, 1000, true),
            (3, 3, 1000, false),
        ] {
            assert_eq!(wears_out(bad(ever, lately), judged, 64), expected, "{ever} {lately} {judged}");
        }
    }

    #[test]
    fn a_device_gives_notice_once() {
        assert!(gives_notice(true, false, 64));
        assert!(!gives_notice(true, true, 64) && !gives_notice(false, false, 64));
    }

    #[test]
    fn a_bound_of_zero_empties_nothing() {
        assert!(!gives_notice(true, false, 0));
        assert!(!wears_out(bad(u64::MAX, u64::MAX), 0, 0));
    }

    proptest! {
        #[test]
        fn what_was_just_judged_is_fine_and_more_errors_never_make_a_disk_better(
            ever in 0u64..1000, lately in 0u64..1000, judged in 0u64..1000, bound in 1u64..100, more in 0u64..100,
        ) {
            prop_assert!(!wears_out(bad(ever, lately), ever, bound));
            if wears_out(bad(ever, lately), judged, bound) && ever >= judged {
                prop_assert!(wears_out(bad(ever + more, lately + more), judged, bound));
            }
        }
    }
}
