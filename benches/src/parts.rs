//! The parts of a run: each on clusters of its own, in a folder of its own.

use crate::ceph::Ceph;
use crate::plan::Plan;
use crate::report::{Findings, PartRecord};
use crate::{databases, growth, rebuild, snapshots, speed};
use anyhow::{Context, Result};
use ashlar_tests::{DevCluster, clear_stage};
use clap::ValueEnum;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Of each of Ceph's OSDs; they hold what one volume has, and what BlueStore keeps for itself.
const OSD_BYTES: u64 = 4 << 30;

const SNAPSHOTS_NOT_SAID: &[&str] =
    &["Snapshots: Ashlar with and without; volumes are thin, and of one TiB a few MiB are written."];
const REBUILD_NOT_SAID: &[&str] = &["Raw copy: one file to another, O_DIRECT, 64 KiB, depth 16, fdatasync at the end."];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All candidates side by side, and through an outage.
    Speed,
    /// MariaDB and PostgreSQL on each candidate.
    Databases,
    /// How figures grow with what there is.
    Growth,
    /// What snapshots cost.
    Snapshots,
    /// Replicas that are made again.
    Rebuild,
}

impl Part {
    pub(crate) const ALL: [Part; 5] = [Part::Speed, Part::Databases, Part::Growth, Part::Snapshots, Part::Rebuild];
}

pub(crate) struct Bench<'a> {
    pub(crate) plan: Plan,
    pub(crate) dir: &'a Path,
    /// Whether it takes part.
    pub(crate) ceph: bool,
}

impl Bench<'_> {
    /// A part that fails takes nothing from the others.
    pub(crate) fn record(&self, part: Part) -> PartRecord {
        let (began, mut findings) = (Instant::now(), Findings::default());
        let (name, not_said, ended) = match part {
            Part::Speed => ("speed", speed::NOT_SAID, self.speed(&mut findings)),
            Part::Databases => ("databases", databases::NOT_SAID, self.databases(&mut findings)),
            Part::Growth => ("growth", growth::NOT_SAID, self.growth(&mut findings)),
            Part::Snapshots => ("snapshots", SNAPSHOTS_NOT_SAID, self.snapshots(&mut findings)),
            Part::Rebuild => ("rebuild", REBUILD_NOT_SAID, self.rebuild(&mut findings)),
        };
        let failure = ended.err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("bench: {name}: {failure}");
        }
        PartRecord { part: name, seconds: began.elapsed().as_secs_f64(), failure, not_said, findings }
    }

    fn speed(&self, findings: &mut Findings) -> Result<()> {
        let dir = Scratch::new(self.dir)?;
        let ceph = self.start_ceph(&dir)?;
        let plan = &self.plan.speed;
        self.on_cluster(3, plan.disk_size, &[], |cluster, dir| {
            self.on_cluster(3, plan.disk_size, &["--one-process"], |nodes, _| {
                speed::measure(cluster, nodes, dir, plan, ceph.as_ref(), findings)
            })
        })
    }

    fn databases(&self, findings: &mut Findings) -> Result<()> {
        let dir = Scratch::new(self.dir)?;
        let ceph = self.start_ceph(&dir)?;
        findings.extend(self.on_cluster(3, self.plan.databases.disk_size, &[], |cluster, dir| {
            databases::measure(cluster, dir, &self.plan.databases, ceph.as_ref())
        })?);
        Ok(())
    }

    fn growth(&self, findings: &mut Findings) -> Result<()> {
        let plan = &self.plan.growth;
        let size = plan.disk_size;
        findings.extend(self.on_cluster(3, size, &[], |cluster, _| growth::measure(cluster, plan))?);
        let mut wide = vec![];
        for &count in plan.chunkservers {
            eprintln!("one volume on {count} chunkservers");
            let rounds = self.on_cluster(count, "1G", &[], |cluster, _| growth::on_chunkservers(cluster, plan))?;
            wide.push((f64::from(count), rounds));
        }
        findings.curves.push(growth::curve("4 KiB writes to one volume, depth 32", "chunkservers", "IOPS", wide));
        let mut restarts = vec![];
        for mib in plan.journals {
            eprintln!("a chunkserver dies with a journal of {mib} MiB that is in use");
            let journal = format!("{mib}M");
            restarts.push(self.on_cluster_with(3, "2500M", Some(&journal), &[], growth::journal)?);
        }
        findings.extend(growth::of_restarts(&restarts));
        let memory = self.on_cluster(3, size, &[], |cluster, _| growth::memory(cluster, plan.stored_mib))?;
        findings.extend(growth::of_memory(&memory));
        Ok(())
    }

    fn start_ceph(&self, dir: &Scratch) -> Result<Option<Ceph>> {
        let ceph = self.ceph.then(|| Ceph::start(&dir.0.join("ceph"), OSD_BYTES));
        ceph.transpose().context("start Ceph")
    }

    fn snapshots(&self, findings: &mut Findings) -> Result<()> {
        let plan = &self.plan.snapshots;
        let part = |cluster: &DevCluster, _: &Path| snapshots::measure(cluster, plan);
        findings.figures.extend(self.on_cluster(3, plan.disk_size, &[], part)?);
        Ok(())
    }

    fn rebuild(&self, findings: &mut Findings) -> Result<()> {
        let plan = &self.plan.rebuild;
        let figures = &mut findings.figures;
        // Nobody comes back: a node that is silent is given up.
        let at_once = ["--rebuild-grace-ms", "0"];
        let speed = |cluster: &DevCluster, dir: &Path| rebuild::speed::measure(cluster, dir, plan);
        figures.extend(self.on_cluster(4, plan.disk_size, &at_once, speed)?);
        figures.extend(self.on_cluster(3, "2G", &[], |cluster, _| rebuild::resync::measure(cluster, plan))?);
        let dir = Scratch::new(self.dir)?;
        figures.extend(rebuild::mixed::measure(&dir.0, plan)?);
        figures.extend(rebuild::planner::measure()?);
        Ok(())
    }

    /// A cluster of its own for each part: what one leaves to be done in the background is not charged to the next.
    fn on_cluster<T>(
        &self,
        nodes: u16,
        disk_size: &str,
        options: &[&str],
        part: impl FnOnce(&DevCluster, &Path) -> Result<T>,
    ) -> Result<T> {
        self.on_cluster_with(nodes, disk_size, None, options, part)
    }

    /// The same, with journals of this size.
    fn on_cluster_with<T>(
        &self,
        nodes: u16,
        disk_size: &str,
        journal_size: Option<&str>,
        options: &[&str],
        part: impl FnOnce(&DevCluster, &Path) -> Result<T>,
    ) -> Result<T> {
        let dir = Scratch::new(self.dir)?;
        eprintln!("starting a cluster of {nodes} nodes on {}", self.dir.display());
        let cluster = DevCluster::up_with(&dir.0.join("cluster"), nodes, disk_size, journal_size, options)?;
        let found = part(&cluster, &dir.0);
        if found.is_err() {
            eprintln!("{}", cluster.log_tails());
        }
        let found = found?;
        cluster.down()?;
        Ok(found)
    }
}

/// A folder that goes with everything in it: mounts and processes of it first, however a part ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Scratch> {
        let dir = tempfile::Builder::new().prefix("part-").tempdir_in(parent);
        let dir = dir.with_context(|| format!("make a folder in {}", parent.display()))?.keep();
        // PostgreSQL is not root: it may pass through, and see nothing.
        std::fs::set_permissions(&dir, Permissions::from_mode(0o711))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = clear_stage(&self.0) {
            eprintln!("bench: {} was not wholly removed: {error:#}", self.0.display());
        }
    }
}
