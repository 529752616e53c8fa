//! The longest time without an answer while a replica's process is hit in the middle of a load of writes.

use super::cells::{ASHLAR, CEPH};
use super::{NODES, Stage, VOLUME};
use crate::ceph::Ceph;
use crate::contestant::Driver;
use crate::fio;
use crate::job::{Job, Outcome};
use crate::load;
use crate::report::{Bar, Clause, Figure};
use anyhow::{Context, Result, bail};
use ashlar_tests::wait_until;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const LASTING: Duration = Duration::from_secs(10);
/// Ceph hears of a death after up to 20 s, and goes on by itself.
const CEPH_LASTING: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_secs(120);

impl Stage<'_> {
    pub(super) fn outages(&mut self, ceph: Option<&Ceph>) -> Result<Vec<Figure>> {
        let killed = self.outage(Signal::SIGKILL)?;
        let stopped = self.outage(Signal::SIGSTOP)?;
        let gap = killed.longest_gap.as_secs_f64() * 1e3;
        let detail = format!("{:.0} writes/s over the whole, depth 8", killed.per_second());
        let mut figures = vec![
            Figure::of_clause(Clause::Gap, vec![gap], detail),
            Figure::of_rounds(
                "longest I/O gap, SIGSTOP of a chunkserver",
                "s",
                vec![stopped.longest_gap.as_secs_f64()],
                Bar::AtMost(2.0),
                format!("{:.0} writes/s over the whole, depth 8", stopped.per_second()),
            ),
        ];
        if let Some(ceph) = ceph {
            let theirs = self.ceph_outage(ceph)?.latencies.longest().as_secs_f64() * 1e3;
            let ours = killed.latencies.longest().as_secs_f64() * 1e3;
            let detail = format!("longest write meanwhile: {ours:.0} ms against {theirs:.0} ms");
            figures.push(Figure::of_clause(Clause::GapCeph, vec![ours / theirs], detail));
        }
        Ok(figures)
    }

    fn outage(&mut self, signal: Signal) -> Result<Outcome> {
        eprintln!("a remote chunkserver gets {signal} under load");
        let victim = format!("chunkserver-{}", NODES[2]);
        let job = Job::write(4096, 8).lasting(LASTING);
        let ashlar = self.contestants.iter_mut().find(|one| one.candidate == ASHLAR).context("Ashlar takes part")?;
        let Driver::Loop(target) = &mut ashlar.driver else { bail!("Ashlar is driven by our loop") };
        let (reactor, cluster) = (&mut *self.ring.reactor, self.cluster);
        let outcome = load::run(reactor, target, &job, self.ring.span_bytes, 7, || cluster.kill(&victim, signal))?;
        match signal {
            Signal::SIGSTOP => cluster.kill(&victim, Signal::SIGCONT)?,
            _ => cluster.start(&victim)?,
        }
        cluster.wait_in_sync(VOLUME, LIMIT)?;
        Ok(outcome)
    }

    fn ceph_outage(&mut self, ceph: &Ceph) -> Result<Outcome> {
        eprintln!("one of Ceph's OSDs gets SIGKILL under load");
        let theirs = self.contestants.iter().find(|one| one.candidate == CEPH).context("Ceph takes part")?;
        let Driver::Fio(engine) = &theirs.driver else { bail!("Ceph is driven by fio") };
        let (engine, span_bytes) = (engine.clone(), self.ring.span_bytes);
        std::thread::scope(|scope| {
            let job = Job::write(4096, 8).lasting(CEPH_LASTING);
            let load = scope.spawn(move || fio::run(&engine, &job, span_bytes, 7));
            let half = Instant::now() + CEPH_LASTING / 4;
            wait_until("a quarter of the load", LIMIT, || Ok((Instant::now() >= half).then_some(())))?;
            ceph.kill_osd(2)?;
            load.join().expect("the load does not panic")
        })
    }
}
