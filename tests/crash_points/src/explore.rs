//! Runs a workload and cuts the power at each boundary; checks what every cut leaves, and cuts recovery as well.

use crate::disk::{Durable, Lie};
use crate::observe::{Expected, Places, Seen, observe, places};
use crate::rig::{Rig, Setup, volume_id};
use crate::subsets::{Bounds, Random, subsets};
use crate::work::{Op, Work, blocks, lsn, range};
use ashlar_types::{Base, Epoch, Lsn, SLOT_BYTES};
use ashlar_wire::{Reply, Request, Status};
use rustc_hash::FxHashSet;
use std::fmt;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    pub bounds: Bounds,
    /// Of so many states one has its recovery cut, too; of so many cut recoveries one once more.
    pub recovery_share: u64,
    /// Of so many states one is worked with afterwards, and opened again.
    pub go_on_share: u64,
    /// Cuts within each other.
    pub nested: u32,
}

impl Depth {
    /// A minute or less for everything.
    pub const QUICK: Depth = Depth {
        bounds: Bounds { exhaustive: 6, single: 10, random: 4 },
        recovery_share: 16,
        go_on_share: 8,
        nested: 2,
    };
    /// A million states.
    pub const FULL: Depth = Depth {
        bounds: Bounds { exhaustive: 10, single: 96, random: 96 },
        recovery_share: 5,
        go_on_share: 4,
        nested: 3,
    };
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub workloads: u64,
    pub boundaries: u64,
    /// Different states of the disk that were recovered and checked.
    pub states: u64,
    /// Of these, left by a cut of recovery.
    pub states_of_recovery: u64,
    /// Worked with afterwards.
    pub gone_on: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.workloads += other.workloads;
        self.boundaries += other.boundaries;
        self.states += other.states;
        self.states_of_recovery += other.states_of_recovery;
        self.gone_on += other.gone_on;
    }
}

/// What was promised and did not hold, and after which cut.
#[derive(Clone, Debug)]
pub struct Violation {
    pub work: String,
    pub boundary: String,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\ncut {}\n{}", self.work, self.boundary, self.what)
    }
}

pub struct Explorer<'a> {
    work: &'a Work,
    setup: Setup,
    places: Places,
    depth: Depth,
    lie: Lie,
    seen: FxHashSet<u64>,
    pub figures: Figures,
}

/// Explores one workload.
pub fn explore(work: &Work, depth: Depth, lie: Lie) -> Result<Figures, Box<Violation>> {
    let setup = Setup::new(work.slots);
    let places = places(work);
    let mut explorer =
        Explorer { work, setup, places, depth, lie, seen: FxHashSet::default(), figures: Figures::default() };
    explorer.figures.workloads = 1;
    explorer.run()?;
    Ok(explorer.figures)
}

impl Explorer<'_> {
    fn run(&mut self) -> Result<(), Box<Violation>> {
        let refused = self.refused();
        let after = self.states_without_cuts(&refused);
        let mut rig = self.fresh();
        let (mut sent, mut answered, mut boundary) = (Vec::new(), 0, 0u64);
        loop {
            if sent.len() >= self.work.cuts_from {
                let expected = Expected { after: &after, answered, sent: sent.len() };
                let place = format!("at boundary {boundary}, {answered} of {} operations answered", sent.len());
                self.figures.boundaries += 1;
                self.cut(&rig, expected, 0, &place)?;
            }
            boundary += 1;
            if !self.step(&mut rig, &mut sent, answered) {
                return Ok(());
            }
            answered += sent[answered..].iter().take_while(|request| rig.answers.contains_key(request)).count();
        }
    }

    /// Sends the next operation, or ends one on the disk, or lets time pass.
    fn step(&self, rig: &mut Rig, sent: &mut Vec<u64>, answered: usize) -> bool {
        // A new session or a deletion ends the older session, and what that has unanswered may then never be; so these
        // come when everything is answered.
        let window = match self.work.ops.get(sent.len()) {
            None => 0,
            Some(Op::Ask { .. }) => self.work.pace.window,
            Some(Op::Open { .. } | Op::Delete { .. } | Op::Clone { .. }) => 1,
        };
        if sent.len() - answered < window {
            sent.push(send(rig, &self.work.ops[sent.len()]));
            return true;
        }
        match rig.in_flight.len() {
            0 => rig.tick(),
            count => {
                rig.complete(if self.work.pace.newest_first { count - 1 } else { 0 });
                true
            }
        }
    }

    fn fresh(&self) -> Rig {
        let mut rig = Rig::start(&self.setup, Durable::default(), self.lie);
        rig.settle();
        rig
    }

    /// Which operations are refused when nothing goes wrong: they must leave no trace.
    fn refused(&self) -> Vec<bool> {
        let mut rig = self.fresh();
        let (mut sent, mut answered) = (Vec::new(), 0);
        while self.step(&mut rig, &mut sent, answered) {
            answered += sent[answered..].iter().take_while(|request| rig.answers.contains_key(request)).count();
        }
        let is_refused = |request: &u64| matches!(rig.answers[request], Some(Reply::Refused(_)));
        sent.iter().map(is_refused).collect()
    }

    /// What is seen after each number of operations, each brought to its end before the next.
    fn states_without_cuts(&self, refused: &[bool]) -> Vec<Seen> {
        let mut rig = Rig::start(&self.setup, Durable::default(), Lie::None);
        rig.settle();
        let mut states = vec![observe(&mut rig, &self.places, 1000)];
        for (number, op) in self.work.ops.iter().enumerate() {
            if !refused[number] {
                let request = send(&mut rig, op);
                rig.rest();
                let answer = rig.answers.remove(&request).expect("an operation is answered");
                assert!(!matches!(answer, Some(Reply::Refused(_))), "{}: {op:?}: {answer:?}", self.work.name);
            }
            states.push(observe(&mut rig, &self.places, 1001 + number as u64));
        }
        states
    }

    /// Cuts the power here, in every way that the bounds allow.
    fn cut(&mut self, rig: &Rig, expected: Expected<'_>, level: u32, place: &str) -> Result<(), Box<Violation>> {
        let cut = rig.disk.cut(&rig.in_flight);
        let bounds = match level {
            0 => self.depth.bounds,
            _ => Bounds { exhaustive: 3, single: 2, random: 2 },
        };
        let salt = (expected.answered as u64) << 32 | expected.sent as u64;
        for committed in [false, true].into_iter().take(if cut.commits.is_empty() { 1 } else { 2 }) {
            for kept in subsets(cut.loose.len(), bounds, cut.loose.len() as u64) {
                let after = cut.outcome(&kept, committed);
                let key = Random(after.hash() ^ salt.rotate_left(7)).next();
                if !self.seen.insert(key) {
                    continue;
                }
                self.figures.states += 1;
                self.figures.states_of_recovery += u64::from(level > 0);
                let kept_count = kept.iter().filter(|kept| **kept).count();
                let place = format!("{place}, {kept_count} of {} sectors kept, committed: {committed}", kept.len());
                self.check(after, expected, level, key, &place)?;
            }
        }
        Ok(())
    }

    fn check(
        &mut self,
        durable: Durable,
        expected: Expected<'_>,
        level: u32,
        key: u64,
        place: &str,
    ) -> Result<(), Box<Violation>> {
        let mut rig = Rig::start(&self.setup, durable, self.lie);
        let cuts = level < self.depth.nested && key.is_multiple_of(self.depth.recovery_share);
        for step in 0.. {
            if rig.in_flight.is_empty() {
                break;
            }
            let reads_only = rig.in_flight.iter().all(|action| matches!(action, ashlar_engine::Action::Read { .. }));
            if cuts && !reads_only {
                let place = format!("{place}; in recovery after {step} operations");
                self.cut(&rig, expected, level + 1, &place)?;
            }
            rig.complete(0);
        }
        let violation = |what: String| {
            let work = format!("{} at {:?}", self.work.name, self.work.pace);
            Box::new(Violation { work, boundary: place.to_owned(), what })
        };
        match (&rig.failed, rig.recovered) {
            (Some(reason), _) => return Err(violation(format!("the disk failed: {reason}"))),
            (None, None) => return Err(violation("recovery does not end".to_owned())),
            (None, Some((_, lost))) if lost > 0 => {
                return Err(violation(format!("{lost} blocks are said to be lost: a cut is no corruption")));
            }
            _ => {}
        }
        let seen = observe(&mut rig, &self.places, 500);
        if let Some(what) = expected.mismatch(&seen) {
            return Err(violation(what));
        }
        if (key >> 20).is_multiple_of(self.depth.go_on_share) {
            self.figures.gone_on += 1;
            self.go_on(rig, &seen).map_err(violation)?;
        }
        Ok(())
    }

    /// The disk must go on as if nothing had been: a new writer, space that adds up, and the same again after one
    /// more start.
    fn go_on(&self, mut rig: Rig, seen: &Seen) -> Result<(), String> {
        rig.rest();
        let again = observe(&mut rig, &self.places, 501);
        if again != *seen {
            return Err(format!("a checkpoint changed what is seen from {seen:?} to {again:?}"));
        }
        space_adds_up(&rig)?;
        let open = rig.open(0);
        let epoch = Epoch::new(900).expect("a small epoch");
        let floor = match rig.ask(600, Some(epoch), Request::Open(open)) {
            Some(Reply::Opened(opened)) => opened.floor,
            other => return Err(format!("a new writer is answered {other:?}")),
        };
        let place = range(0, 5, 1);
        let write = Request::Write { range: place, lsn: lsn(900, 1), floor, blocks: blocks(&[251]) };
        let written = match rig.ask(600, None, write) {
            Some(Reply::Done) => true,
            Some(Reply::Refused(refusal)) if refusal.status == Status::NoSpace => false,
            other => return Err(format!("a write after recovery is answered {other:?}")),
        };
        let before = observe(&mut rig, &self.places, 502);
        let mut rig = Rig::start(&self.setup, rig.disk.durable, self.lie);
        rig.settle();
        let after = observe(&mut rig, &self.places, 503);
        if before != after {
            return Err(format!("another start changed what is seen from {before:?} to {after:?}"));
        }
        match rig
            .ask(601, None, Request::Observe(open))
            .and_then(|_| rig.ask(601, None, Request::Read { range: place, below: Lsn::MAX }))
        {
            Some(Reply::Data(data)) if data.data[..] == blocks(&[251]).data[..] => Ok(()),
            _ if !written => Ok(()),
            other => Err(format!("what was written after recovery is read as {other:?}")),
        }
    }
}

/// With nothing left to do every place is either used by a replica or free.
fn space_adds_up(rig: &Rig) -> Result<(), String> {
    let status = rig.engine.status();
    let held: u64 = status.replicas.iter().map(|replica| replica.used_bytes.0 / SLOT_BYTES).sum();
    if held != u64::from(status.slots_used) || status.slots_used + status.slots_free != status.slots_total {
        return Err(format!(
            "replicas hold {held} slots, {} are used, {} free, {} in all",
            status.slots_used, status.slots_free, status.slots_total
        ));
    }
    Ok(())
}

fn send(rig: &mut Rig, op: &Op) -> u64 {
    let link = |volume: u8, epoch: u32| u64::from(epoch) * 4 + u64::from(volume);
    match op {
        Op::Open { volume, epoch } => {
            let open = rig.open(*volume);
            rig.send(link(*volume, *epoch), Epoch::new(*epoch), Request::Open(open))
        }
        Op::Ask { volume, epoch, request } => rig.send(link(*volume, *epoch), None, request.clone()),
        Op::Delete { volume, epoch } => rig.delete(*volume, Epoch::new(*epoch).expect("a small epoch")),
        Op::Clone { volume, epoch, source, point } => {
            let base = Base { volume: volume_id(*source), point: *point };
            rig.make_clone(*volume, Epoch::new(*epoch).expect("a small epoch"), base)
        }
    }
}
