//! One seed from start to end.

use crate::names::{MILLIS, Nanos, SECONDS, Vol};
use crate::rng::Rng;
use crate::scenario::{Class, Scenario};
use crate::world::{Happening, Violation, World};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a seed's run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub hash: u64,
    pub events: u64,
    /// Simulated time.
    pub lasted: Nanos,
    pub acknowledged: u64,
    pub reads: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub violation: Option<Violation>,
    /// The events of the run, or of the block that the violation is about; empty unless asked for.
    pub story: String,
}

/// How much of a run to write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Nothing,
    Everything,
    /// Only what touches the block that a violation is about.
    Story,
}

/// Runs a seed. A panic of the code under test is a violation like any other.
pub fn run_seed(seed: u64, telling: Telling) -> Outcome {
    run_scenario(seed, Scenario::draw(seed), telling)
}

pub fn run_scenario(seed: u64, scenario: Scenario, telling: Telling) -> Outcome {
    let mut world = World::new(seed, scenario, telling != Telling::Nothing);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        begin(&mut world, seed);
        let faults_until = world.scenario.faults_until;
        world.run_until(faults_until);
        world.check_histories();
        if world.violation.is_none() {
            world.finish();
        }
    }));
    if let Err(panic) = ended {
        let said =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        world.violated(format!("panic: {}", said.unwrap_or_default()), None);
    }
    let block = world.violation.as_ref().and_then(|violation| violation.block);
    let story = match telling {
        Telling::Nothing => String::new(),
        Telling::Everything => world.trace.story(None),
        Telling::Story => world.trace.story(block),
    };
    Outcome {
        seed,
        hash: world.trace.hash(),
        events: world.trace.events(),
        lasted: world.now,
        acknowledged: world.history.iter().map(|history| history.writes).sum(),
        reads: world.history.iter().map(|history| history.reads).sum(),
        counts: world.trace.counts().clone(),
        violation: world.violation.clone(),
        story,
    }
}

fn begin(world: &mut World, seed: u64) {
    for disk in world.disks() {
        world.start_server(disk);
    }
    let mut rng = Rng::named(seed, "begin");
    for volume in (0..world.scenario.volumes).map(Vol) {
        world.agenda.add(rng.below(50 * MILLIS), Happening::Supervise { volume });
    }
    for (class, every) in world.scenario.classes.clone() {
        world.agenda.add(SECONDS / 2 + rng.below(every), Happening::Strike { class, every });
        if class == Class::Snapshot {
            world.agenda.add(SECONDS + world.changes_rng.below(every), Happening::LookAtChanges { every });
        }
    }
    if world.scenario.far {
        world.trace.count("event: nodes are far apart");
    }
    if world.scenario.clocks_drift {
        world.trace.count("fault: clock drifts");
    }
    if let Some(every) = world.scenario.clocks_leap {
        world.agenda.add(SECONDS + world.leap_rng.below(every), Happening::ClockLeaps { every });
    }
    if let Some(every) = world.scenario.clones {
        world.agenda.add(SECONDS + world.clone_rng.below(every), Happening::CloneActs { every });
    }
    if let Some(every) = world.scenario.relocations {
        world.agenda.add(SECONDS + world.relocation_rng.below(every), Happening::RelocationActs { every });
    }
    if world.scenario.healing {
        world.agenda.add(SECONDS, Happening::Heal);
    }
    if world.scenario.directed.is_some() {
        world.agenda.add(SECONDS + rng.below(2 * SECONDS), Happening::DirectedStep { step: 0 });
    }
}
