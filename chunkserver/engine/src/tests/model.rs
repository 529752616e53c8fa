//! Random work with power cuts, against a model: what was acknowledged is there, what was not is wholly there or
//! wholly absent, in the order of the chunk's history.

use crate::EngineConfig;
use crate::testing::*;
use ashlar_types::{Lsn, RequestId};
use ashlar_wire::{Reply, Request, Status};
use proptest::prelude::*;
use std::collections::BTreeMap;

const BLOCKS: u64 = 16 * 40;
/// Two chunks take turns.
const CHUNK_STRIDE: u64 = 16_384;

#[derive(Clone)]
struct Step {
    lsn: Lsn,
    start: u64,
    fills: Vec<u8>,
}

/// One chunk: every write sent, in order; how many are acknowledged.
#[derive(Default)]
struct Model {
    steps: Vec<Step>,
    acknowledged: usize,
}

impl Model {
    fn content(&self, steps: usize) -> Vec<u8> {
        let mut content = vec![0; BLOCKS as usize];
        for step in &self.steps[..steps] {
            content[step.start as usize..step.start as usize + step.fills.len()].copy_from_slice(&step.fills);
        }
        content
    }

    /// After a crash the replica says up to which lsn it has everything: at least what was acknowledged.
    fn settle_at(&mut self, prefix: Lsn) {
        let steps = self.steps.iter().take_while(|step| step.lsn <= prefix).count();
        assert!(steps >= self.acknowledged, "{} of {} acknowledged writes are there", steps, self.acknowledged);
        assert!(steps == 0 || self.steps[steps - 1].lsn == prefix);
        self.steps.truncate(steps);
        self.acknowledged = steps;
    }
}

struct World {
    rig: Option<Rig>,
    random: Random,
    models: [Model; 2],
    waiting: BTreeMap<RequestId, usize>,
    epoch: u32,
    counter: u64,
    seen: usize,
    /// Mostly whole slots: places come and go.
    is_large: bool,
}

impl World {
    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("the rig runs")
    }

    fn send_change(&mut self) {
        let chunk = self.random.below(2) as usize;
        self.counter += 1;
        let lsn = lsn(self.epoch, self.counter);
        let count = match self.random.below(10) {
            0..8 if self.is_large => 16 * (1 + self.random.below(12)),
            0..6 => 1 + self.random.below(8),
            6..9 => 9 + self.random.below(60),
            _ => 16 * (1 + self.random.below(8)),
        };
        let start = match self.random.below(3) {
            0 => 16 * self.random.below((BLOCKS - count) / 16 + 1),
            _ => self.random.below(BLOCKS - count + 1),
        };
        let at = start + chunk as u64 * CHUNK_STRIDE;
        let (fills, request) = match self.random.below(6) {
            0 => (vec![0; count as usize], discard(at, count as u32, lsn)),
            _ => {
                let fill = 1 + self.random.below(255) as u8;
                let fills: Vec<u8> = (0..count).map(|i| fill.wrapping_add(i as u8).max(1)).collect();
                let request = write(at, &fills, lsn);
                (fills, request)
            }
        };
        self.models[chunk].steps.push(Step { lsn, start, fills });
        let link = u64::from(self.epoch);
        let request = self.rig().send(link, request);
        self.waiting.insert(request, chunk);
        self.hear();
    }

    fn hear(&mut self) {
        let rig = self.rig.as_ref().expect("the rig runs");
        for (_, frame) in &rig.replies[self.seen..] {
            if let Some(chunk) = self.waiting.remove(&frame.request) {
                assert_eq!(frame.message, Reply::Done);
                self.models[chunk].acknowledged += 1;
            }
        }
        self.seen = rig.replies.len();
    }

    fn complete_some(&mut self, most: u64) {
        for _ in 0..self.random.below(most) {
            let count = self.rig().in_flight.len() as u64;
            if count > 0 {
                let at = self.random.below(count) as usize;
                self.rig().complete(at);
                self.hear();
            }
        }
    }

    fn crash(&mut self, config: &EngineConfig) {
        let rig = self.rig.take().expect("the rig runs");
        let rig = if self.random.below(3) == 0 { rig.die(config.clone()) } else { self.restart(rig, config) };
        self.rig = Some(rig);
        self.waiting.clear();
        self.seen = 0;
        self.rig().settle();
        assert_eq!(self.rig().recovered.map(|(_, lost)| lost), Some(0));
        self.epoch += 1;
        self.counter = 0;
        let (epoch, link) = (self.epoch, u64::from(self.epoch));
        self.rig().opened(link, epoch);
        let Reply::Reported { entries, next: None } = self.rig().ask(link, Request::Report { from: range(0, 1).chunk })
        else {
            panic!("a report")
        };
        for (index, model) in self.models.iter_mut().enumerate() {
            let report = entries.iter().find(|entry| entry.chunk.0 as usize == index);
            assert!(report.is_none_or(|report| report.complete));
            model.settle_at(report.map_or(Lsn::ZERO, |report| report.prefix));
        }
        self.seen = self.rig().replies.len();
        self.compare();
    }

    /// Power fails, sometimes again during recovery.
    fn restart(&mut self, rig: Rig, config: &EngineConfig) -> Rig {
        let mut media = rig.crash(&mut self.random);
        while self.random.below(3) == 0 {
            let mut rig = Rig::start_with(media, config.clone());
            for _ in 0..self.random.below(30) {
                if !rig.in_flight.is_empty() {
                    let at = self.random.below(rig.in_flight.len() as u64) as usize;
                    rig.complete(at);
                }
            }
            media = rig.crash(&mut self.random);
        }
        Rig::start_with(media, config.clone())
    }

    fn compare(&mut self) {
        let link = u64::from(self.epoch);
        for chunk in 0..2 {
            let content = self.models[chunk].content(self.models[chunk].steps.len());
            for start in (0..BLOCKS).step_by(128) {
                let expected = &content[start as usize..start as usize + 128];
                self.rig().expect(link, chunk as u64 * CHUNK_STRIDE + start, expected);
            }
        }
        self.seen = self.rig().replies.len();
    }
}

fn run(seed: u64, rounds: u64, is_large: bool, config: EngineConfig) {
    let mut rig = Rig::start_with(Media::format(128), config.clone());
    rig.settle();
    rig.opened(1, 1);
    let random = Random::new(seed);
    let (models, waiting) = ([Model::default(), Model::default()], BTreeMap::new());
    let seen = rig.replies.len();
    let mut world = World { rig: Some(rig), random, models, waiting, epoch: 1, counter: 0, seen, is_large };
    for _ in 0..rounds {
        for _ in 0..world.random.below(60) {
            world.send_change();
            world.complete_some(8);
            if world.random.below(20) == 0 {
                let now = world.rig().now + ashlar_types::Duration::from_millis(60);
                world.rig().now = now;
                world.rig().handle(crate::Event::Tick);
            }
        }
        match world.random.below(4) {
            0 => {
                world.rig().rest();
                world.hear();
                assert!(world.waiting.is_empty());
                world.compare();
            }
            _ => world.crash(&config),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_writes_survive_power_cuts(seed: u64) {
        run(seed, 8, false, config());
    }

    #[test]
    fn acknowledged_writes_survive_when_checkpoints_come_all_the_time(seed: u64) {
        let eager = EngineConfig { checkpoint_ring_percent: 1, idle_delay: ashlar_types::Duration::ZERO, ..config() };
        run(seed, 8, false, eager);
    }

    #[test]
    fn acknowledged_writes_survive_when_places_are_scarce(seed: u64) {
        run(seed, 8, true, config());
    }
}

#[test]
fn the_same_events_give_the_same_actions() {
    let trace = |seed| {
        let mut rig = Rig::format(256);
        rig.opened(1, 1);
        let mut random = Random::new(seed);
        let mut trace = Vec::new();
        for i in 0..200 {
            rig.send(1, write(random.below(500), &vec![1; 1 + random.below(40) as usize], lsn(1, 1 + i)));
            if !rig.in_flight.is_empty() {
                rig.complete(random.below(rig.in_flight.len() as u64) as usize);
            }
            trace.push(format!("{:?}", rig.in_flight));
        }
        trace
    };
    assert!(trace(5) == trace(5));
}

/// Refusals of the model's disk would hide what it is for.
#[test]
fn the_models_disk_is_large_enough() {
    let mut rig = Rig::format(128);
    rig.opened(1, 1);
    for chunk in 0..2 {
        for at in (0..BLOCKS).step_by(128) {
            let reply = rig.ask(1, write(chunk * CHUNK_STRIDE + at, &[1; 128], lsn(1, 1 + chunk * 1000 + at)));
            assert!(!matches!(reply, Reply::Refused(refusal) if refusal.status == Status::NoSpace));
        }
    }
}
