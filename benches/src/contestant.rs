//! Who takes part: a candidate's name, what drives it, and whose costs are its own.

use crate::costs::Meter;
use crate::engine;
use crate::fio::{self, Engine};
use crate::idle;
use crate::job::{Job, Outcome};
use crate::load;
use crate::report::{Costs, Reading};
use crate::target::Target;
use anyhow::Result;
use ashlar_reactor::Reactor;
use std::path::Path;
use std::time::Duration;

/// Somebody else's daemons are not waited for longer than this.
const SETTLE_LIMIT: Duration = Duration::from_secs(4);

/// Where a cell takes place.
pub(crate) struct Ring<'a> {
    pub(crate) reactor: &'a mut Reactor,
    pub(crate) dir: &'a Path,
    pub(crate) span_bytes: u64,
}

pub(crate) enum Driver {
    /// Our own loop.
    Loop(Target),
    Fio(Engine),
    /// The load is in the process of one of the daemons.
    Inner(Box<engine::Engine>),
}

pub(crate) struct Contestant {
    pub(crate) candidate: &'static str,
    pub(crate) driver: Driver,
    /// Its daemons. They work on behind the answers, and are waited for.
    pub(crate) daemons: Vec<i32>,
}

/// One round of one cell.
pub(crate) struct Round {
    pub(crate) outcome: Outcome,
    pub(crate) costs: Costs,
}

impl Contestant {
    pub(crate) fn new(candidate: &'static str, target: Target, daemons: Vec<i32>) -> Contestant {
        Contestant { candidate, driver: Driver::Loop(target), daemons }
    }

    /// Runs the job, and waits until what it left to be done is done; that is among its costs.
    pub(crate) fn measure(&mut self, ring: &mut Ring, job: &Job, seed: u64) -> Result<Round> {
        let mut processes = self.daemons.clone();
        if matches!(self.driver, Driver::Loop(_)) {
            processes.push(std::process::id() as i32);
        }
        let meter = Meter::new(processes, ring.dir)?;
        let before = meter.sample()?;
        let outcome = self.run(ring, job, seed)?;
        match &self.driver {
            Driver::Loop(_) if self.daemons.is_empty() => {}
            Driver::Loop(_) | Driver::Inner(_) => idle::wait_until_resting(&self.daemons)?,
            Driver::Fio(_) => idle::settle(&self.daemons, SETTLE_LIMIT)?,
        }
        let operations = outcome.latencies.count();
        let user_bytes = operations as f64 * f64::from(job.bytes) * job.written_share();
        let costs = meter.sample()?.since(&before, operations, user_bytes, outcome.asker);
        Ok(Round { outcome, costs })
    }

    pub(crate) fn run(&mut self, ring: &mut Ring, job: &Job, seed: u64) -> Result<Outcome> {
        match &mut self.driver {
            Driver::Loop(target) => load::run(ring.reactor, target, job, ring.span_bytes, seed, || Ok(())),
            Driver::Fio(engine) => fio::run(engine, job, ring.span_bytes, seed),
            Driver::Inner(engine) => engine.run(job, ring.span_bytes, seed),
        }
    }

    pub(crate) fn close(self, reactor: &mut Reactor) -> Result<()> {
        match self.driver {
            Driver::Loop(target) => target.close(reactor),
            Driver::Inner(engine) => engine.stop()?,
            Driver::Fio(_) => {}
        }
        Ok(())
    }
}

/// What a candidate's rounds come to; `value` is what the cell is about.
pub(crate) fn reading(candidate: &'static str, rounds: &[Round], value: impl Fn(&Outcome) -> f64) -> Reading {
    let mut latencies = crate::histogram::Histogram::default();
    rounds.iter().for_each(|round| latencies.merge(&round.outcome.latencies));
    Reading {
        candidate,
        rounds: rounds.iter().map(|round| value(&round.outcome)).collect(),
        p99_us: rounds.iter().map(|round| round.outcome.latencies.percentile_us(99.0)).collect(),
        latency: Some(latencies.percentiles()),
        costs: rounds.iter().map(|round| round.costs).collect(),
        seconds: vec![],
    }
}
