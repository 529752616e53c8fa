//! Replacement: the chunks of a replica that is not in-sync and given up go to another disk. One replica of a volume
//! with each look: the next sees the first in the record. A replica beside an extra one (a move was under way) is not
//! replaced but narrowed: the extra one takes its place. Where no replica can be counted on nothing is replaced: there
//! is nothing to copy from, and an old copy that comes back may be the last one.

use super::order::Case;
use super::{
    Plan, Step, Stuck,
    grace::View,
    place::{Going, Places},
};

pub(super) fn replace(view: &View, cases: &[Case], places: &mut Places, plan: &mut Plan) {
    let mut replaced = 0;
    for case in cases.iter().filter(|case| case.is_unprotected() && view.safe(case.volume) > 0) {
        let volume = case.volume;
        let gone = volume.held().filter(|(index, member)| !member.state.is_in_sync() && !volume.is_spare(*index));
        let gone = gone.filter_map(|(_, member)| view.given_up(volume, member).map(|why| (member.disk, why)));
        let Some((gone, why)) = gone.min_by_key(|(disk, _)| *disk) else { continue };
        match places.choose(volume, Going::Replaced(gone), |_| true) {
            Ok((with, choice)) => plan.steps.push(Step::Replace { volume: case.id, gone, with, why, choice }),
            Err(choice) => plan.stuck.push(Stuck { volume: case.id, disk: gone, why, choice }),
        }
        replaced += 1;
        if replaced == view.bounds.replaces_max {
            return;
        }
    }
}
