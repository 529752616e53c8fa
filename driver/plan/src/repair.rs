//! The planner of self-healing: what is seen of the cluster in, what is to be done out. It decides everything about
//! repair, drain, balance and the pace of copies; who carries its steps out decides nothing.
//!
//! ```text
//!               ┌ clock: how long has it been so?
//!   Seen ──────►├ order: who first?  grace: who is gone?   ┌─► Replace, Widen, Narrow   (control plane: membership)
//!   every       ├ place: where?      moves: drain, follow, ├─► Repair, StopRepair        (some node's datapath)
//!   second      │                           balance        ├─► Copy                      (the volume's writer)
//!   or so       ├ pace, share: how fast?                   ├─► Forecast                  (shown)
//!               └ estimate: until when? ───────────────────┴─► Stuck                     (shown)
//! ```
//!
//! Use: one [`Planner`] for the cluster. Whenever something has happened, and once a second while a volume has
//! something to copy, [`Planner::plan`] is given what is seen and says what is to be done now. It is level-triggered: a
//! step that was not done, or whose answer was lost, comes again with the next look, and doing one twice does nothing.
//! The planner keeps only what can be measured again (how long, how fast); losing it costs time, never safety.
//!
//! Invariants, with the states that the steps lead to:
//! - no two replicas of a volume on one node;
//! - no step leaves a chunk with fewer replicas in-sync than it had, but `Narrow` after a move, which leaves at least
//!   `replicas` of them;
//! - what is promised of a disk stays below its watermark;
//! - the same looks give the same steps, in the same order.

mod attach;
mod balance;
mod bounds;
mod clock;
mod estimate;
mod foreground;
mod grace;
mod moves;
mod narrow;
mod order;
mod pace;
mod place;
mod replace;
mod seen;
mod share;
mod step;
mod stop;
mod temporary;

use ashlar_types::{DiskId, VolumeId};
pub use bounds::{Bounds, BytesPerSecond, Order};
use clock::{Clock, Lasting};
pub use foreground::{Felt, Foreground};
use grace::View;
use order::Case;
pub use place::{candidates, surroundings};
pub use seen::{Copied, DiskSeen, Fate, Holder, Latency, MemberSeen, NodeSeen, Seen, VolumeSeen, Wish};
use share::Copying;
pub use step::{Forecast, Plan, Step, Stuck, Why};
pub use stop::{
    Against, Drain, LastCopy, NotEmpty, Removal, SHOWN_MAX, Stop, TooFewLeft, may_drain, may_remove, safe_to_stop,
};

/// What is remembered between two looks.
#[derive(Clone, Debug)]
pub struct Planner {
    bounds: Bounds,
    clock: Clock,
    unreachable: Lasting<DiskId>,
    /// Volumes that have something to copy and are given nothing by their rank.
    waiting: Lasting<VolumeId>,
    /// Volumes that were given something to copy by look after look.
    running: Lasting<VolumeId>,
    /// Volumes that wait for a replica in place of a lost one; kept for [`Order::FirstCome`] alone.
    queued: Lasting<VolumeId>,
    moves: moves::Moves,
    pace: pace::Pace,
    /// Of the last look: something that was to be placed found no room.
    room_is_wanted: bool,
}

impl Planner {
    /// # Panics
    /// If the bounds contradict each other.
    pub fn new(bounds: Bounds) -> Planner {
        bounds.check();
        Planner {
            bounds,
            clock: Clock::default(),
            unreachable: Lasting::default(),
            waiting: Lasting::default(),
            running: Lasting::default(),
            queued: Lasting::default(),
            moves: moves::Moves::default(),
            pace: pace::Pace::default(),
            room_is_wanted: false,
        }
    }

    /// What is to be done now.
    pub fn plan(&mut self, seen: &Seen) -> Plan {
        self.clock.tick(seen.now, self.bounds.tick_max);
        let now = self.clock.now();
        self.unreachable.observe(now, grace::unreachable_disks(seen));
        self.moves.observe(seen, now);
        self.pace.observe(seen, &self.bounds, now);
        let room_is_wanted = self.room_is_wanted;
        let view = View { seen, bounds: &self.bounds, unreachable: &self.unreachable, now, room_is_wanted };
        if self.bounds.order == Order::FirstCome {
            self.queued.observe(now, order::queue(&view, &self.moves));
        }
        let cases = order::ordered(&view, &self.moves, &self.queued);
        let mut plan = Plan::default();
        let mut places = place::Places::of(&view);
        plan.steps.extend(narrow::narrow(&view, &cases, &self.moves));
        replace::replace(&view, &cases, &mut places, &mut plan);
        self.moves.begin(&view, &cases, &mut places, &mut plan);
        temporary::begin(&view, &cases, &mut places, &mut plan);
        plan.steps.extend(attach::attachments(&view, &cases, &self.moves));
        let waited = |id| self.waiting.lasted(id, now).unwrap_or_default();
        let copying: Vec<Copying> =
            cases.iter().filter_map(|case| Copying::of(&view, case, &self.moves, waited(&case.id))).collect();
        let shares = share::shares(&view, &copying, &self.pace);
        plan.steps.extend(copy_steps(&cases, &shares));
        plan.steps.extend(temporary::copies_nothing(&view, &cases, &self.moves));
        let running = shares.given.iter().filter(|(_, share)| share.rate.0 > 0);
        self.running.observe(now, running.map(|(&id, _)| id));
        plan.forecasts = estimate::forecasts(&view, &cases, &copying, &shares, &self.pace, &self.running);
        self.waiting.observe(now, shares.given.iter().filter(|(_, share)| !share.by_rank).map(|(&id, _)| id));
        self.pace.gave(&shares.of_nodes);
        self.room_is_wanted = !plan.stuck.is_empty();
        plan
    }
}

fn copy_steps(cases: &[Case], shares: &share::Shares) -> Vec<Step> {
    let step = |case: &Case| {
        let share = shares.given.get(&case.id)?;
        Some(Step::Copy { volume: case.id, rate: share.rate, source: share.source })
    };
    cases.iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests;
