//! The rounds: something goes wrong under load, is healed, and every volume must go on; at the end everything is read
//! and compared.
//!
//! ```text
//!   strike 1 to 3 faults ── so many writes acknowledged, or a replica out, or the pause over ── heal ──┐
//!        ▲                                                                                             ▼
//!        └──────────────────────────────────── every volume acknowledges writes again (liveness) ◄─────┘
//! ```

use crate::arena::{ALL, Arena, NODES};
use crate::fault::Fault;
use crate::keeper::Keeper;
use crate::record::Record;
use crate::report::Report;
use crate::{api::Api, usurp};
use anyhow::{Context, Result, bail};
use ashlar_rpc::control::MemberState;
use ashlar_sim::Rng;
use ashlar_tests::wait_until;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VOLUMES: [&str; 3] = ["v1", "v2", "v3"];
const VOLUME_SIZE: &str = "64M";
const VOLUME_BLOCKS: u64 = (64 << 20) / 4096;
/// Writes that each volume acknowledges after a round.
const GOES_ON_WRITES: u64 = 20;
/// How long that may take: a writer that died leaves a lease, a link that was cut is tried again after seconds.
const GOES_ON_LIMIT: Duration = Duration::from_secs(60);
/// Every replica of every volume in-sync.
const HEALTHY_LIMIT: Duration = Duration::from_secs(180);
const HEALTHY_EVERY: u32 = 10;
/// A fault that lasts until something shows lasts this long at most.
const SHOWS_LIMIT: Duration = Duration::from_millis(1500);
/// One round in so many has a second death right after all was healed.
const RETURNING_KILLED_ONE_IN: u64 = 6;
const STRIKES_APART_LIMIT: Duration = Duration::from_millis(200);

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub rounds: u32,
    pub time: Duration,
}

pub struct Play {
    pub arena: Arena,
    pub keepers: Vec<Keeper>,
    pub api: Api,
    pub rng: Rng,
    pub report: Report,
}

impl Play {
    pub fn set_up(dir: &Path, seed: u64) -> Result<Play> {
        let arena = Arena::up(dir).context("start a cluster")?;
        let api = Api::new(&arena.control_url)?;
        let mut play =
            Play { keepers: vec![], api, rng: Rng::named(seed, "torture"), report: Report::begin(seed), arena };
        for (number, (name, node)) in VOLUMES.into_iter().zip(NODES).enumerate() {
            play.arena.cluster.cli(&["volume", "create", name, "--size", VOLUME_SIZE, "--node", node])?;
            let record = Arc::new(Record::new(name, number as u64 + 1, VOLUME_BLOCKS));
            play.keepers.push(Keeper::start(record, node, &play.arena.control_url, seed)?);
        }
        play.goes_on()?;
        Ok(play)
    }

    pub fn rounds(&mut self, bound: Bound) -> Result<()> {
        let begun = Instant::now();
        while self.report.rounds < bound.rounds && begun.elapsed() < bound.time {
            let round = self.report.rounds + 1;
            self.round(round).with_context(|| format!("round {round}"))?;
            self.report.rounds = round;
        }
        self.healthy()
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let (begun, before) = (Instant::now(), self.acknowledged());
        let told = match self.rng.below(100) {
            0..8 => usurp::play(self, round)?,
            8..12 => self.move_under_fault(round)?,
            _ => self.faults(round)?,
        };
        self.goes_on()?;
        let (seconds, writes) = (begun.elapsed().as_secs_f64(), self.acknowledged() - before);
        println!("round {round}: {told}; {writes} writes acknowledged in {seconds:.1} s");
        if round.is_multiple_of(HEALTHY_EVERY) {
            self.healthy()?;
        }
        Ok(())
    }

    fn faults(&mut self, round: u32) -> Result<String> {
        let count = [1, 1, 1, 1, 1, 1, 2, 2, 2, 3][self.rng.index(10)];
        let begun = Instant::now();
        let (mut told, mut length) = (vec![], Duration::ZERO);
        for _ in 0..count {
            let fault = Fault::draw(&mut self.rng);
            self.strike(round, &fault)?;
            length = length.max(begun.elapsed() + fault.length());
            told.push(fault.to_string());
            if fault == Fault::PowerCut {
                break;
            }
            let writes = self.rng.below(60);
            self.wait_writes(writes, STRIKES_APART_LIMIT);
        }
        self.wait_for_what_shows();
        // A pause is measured in time: that of the lease.
        wait_until("the pause to be over", length + HEALTHY_LIMIT, || Ok((begun.elapsed() >= length).then_some(())))?;
        self.heal()?;
        if self.rng.below(RETURNING_KILLED_ONE_IN) == 0 {
            told.push(self.kill_what_returns(round)?);
        }
        Ok(told.join(" + "))
    }

    /// Volumes are being attached and reconciled, replicas brought up to date: once more, before that is done.
    fn kill_what_returns(&mut self, round: u32) -> Result<String> {
        let node = *self.rng.pick(&NODES);
        let victims = [ALL.to_owned(), format!("chunkserver-{node}"), format!("datapath-{node}")];
        let victim = self.rng.pick(&victims).clone();
        let writes = self.rng.below(30);
        self.wait_writes(writes, STRIKES_APART_LIMIT);
        self.note(round, "kill what returns", &format!("SIGKILL {victim} again"));
        self.arena.kill(&victim)?;
        self.heal()?;
        Ok(format!("SIGKILL {victim} as it returns"))
    }

    fn move_under_fault(&mut self, round: u32) -> Result<String> {
        let at = self.rng.index(self.keepers.len());
        let node = *self.rng.pick(&NODES);
        self.note(round, "move volume", &format!("{} moves to {node}", self.keepers[at].record.name));
        self.keepers[at].move_to(node)?;
        let told = if self.rng.coin() { self.faults(round)? } else { "nothing else".to_owned() };
        Ok(format!("{} moves to {node} + {told}", self.keepers[at].record.name))
    }

    pub fn strike(&mut self, round: u32, fault: &Fault) -> Result<()> {
        self.note(round, fault.kind(), &fault.to_string());
        fault.strike(&mut self.arena).with_context(|| fault.to_string())
    }

    pub fn note(&mut self, round: u32, kind: &'static str, what: &str) {
        self.report.count(kind);
        self.keepers.iter().for_each(|keeper| keeper.record.mark(&format!("round {round}: {what}")));
    }

    /// Some writes, or a replica that is out, or neither in time: then whatever it is has lasted that long.
    fn wait_for_what_shows(&mut self) {
        if self.rng.below(3) == 0 {
            let out = || {
                let mut any = false;
                for name in VOLUMES {
                    any |= self.api.members(name)?.iter().any(|member| member.state() == MemberState::Out);
                }
                Ok(any.then_some(()))
            };
            let _ = wait_until("a replica to be out", SHOWS_LIMIT, out);
        } else {
            let writes = self.rng.range(100, 1500);
            self.wait_writes(writes, SHOWS_LIMIT);
        }
    }

    fn wait_writes(&self, writes: u64, limit: Duration) {
        let enough = self.acknowledged() + writes;
        let _ = wait_until("writes", limit, || Ok((self.acknowledged() >= enough).then_some(())));
    }

    fn acknowledged(&self) -> u64 {
        self.keepers.iter().map(|keeper| keeper.record.acknowledged_writes()).sum()
    }

    /// Everything runs and everyone hears everyone.
    pub fn heal(&mut self) -> Result<()> {
        self.arena.mend_wires()?;
        self.arena.resume_all()?;
        self.arena.start_missing()?;
        self.keepers.iter().for_each(|keeper| keeper.record.mark("healed"));
        Ok(())
    }

    /// Liveness: each volume acknowledges more writes. Stops at the first violation that is known already.
    fn goes_on(&mut self) -> Result<()> {
        for keeper in &self.keepers {
            let record = &keeper.record;
            let enough = record.acknowledged_writes() + GOES_ON_WRITES;
            let goes_on = || Ok((record.acknowledged_writes() >= enough).then_some(()));
            wait_until(&format!("{} to acknowledge writes again", record.name), GOES_ON_LIMIT, goes_on)
                .with_context(|| format!("liveness; the last trouble of its keeper: {}", keeper.trouble()))?;
            if let Some(story) = record.violation() {
                bail!("VIOLATION: {story}");
            }
        }
        Ok(())
    }

    /// Liveness: every replica of every volume is in-sync.
    fn healthy(&mut self) -> Result<()> {
        for name in VOLUMES {
            let begun = Instant::now();
            self.in_sync(name)?;
            self.report.healthy_after(begun.elapsed());
        }
        Ok(())
    }

    /// Liveness: every replica of the volume is in-sync.
    pub fn in_sync(&self, name: &str) -> Result<()> {
        let in_sync = || Ok(self.api.is_in_sync(name)?.then_some(()));
        wait_until(&format!("every replica of {name} to be in-sync"), HEALTHY_LIMIT, in_sync).context("liveness")
    }

    /// The guests have ended; nobody is left behind.
    pub fn dismiss(&mut self) -> Result<Vec<Arc<Record>>> {
        let mut records = vec![];
        for keeper in std::mem::take(&mut self.keepers) {
            records.push(keeper.record.clone());
            keeper.stop()?;
        }
        Ok(records)
    }
}
