//! The rounds: load, a death, recovery, every check.
//!
//! ```text
//!   odd   pgbench, ledger, fio ── SIGKILL one chunkserver (or control) ── ejected ── started ── in-sync ── stop
//!   even  pgbench, ledger ── SIGKILL everything ── start ── mount ── PostgreSQL recovers ── stop
//!   then  pg_checksums ── start ── amcheck ── sums ── ledger ── fio's last pass read again, on another node
//!   end   unmounted, detached; the replicas of both volumes compared, block by block
//! ```

use crate::{
    checks::{self, Checked},
    fio, ledger, pgbench,
    stage::Stage,
};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::postgres::{Installation, Server};
use ashlar_tests::{DevCluster, Kubelet, MountedVolume, sweep_devices};
use nix::sys::signal::{Signal, kill};
use std::time::{Duration, Instant};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const HOME: &str = "n1";
const DISK_SIZE: &str = "2G";
const DATABASE: &str = "postgres";
const DATABASE_BYTES: i64 = 1 << 30;
/// Volume of fio's passes.
const RAW: &str = "fio";
const RAW_SIZE: &str = "128M";
/// Rows and transfers before something dies, and after.
const LEDGER_ROWS: u64 = 100;
const TRANSFERS: u64 = 300;
const EJECT_LIMIT: Duration = Duration::from_secs(30);
const RESYNC_LIMIT: Duration = Duration::from_secs(180);

/// Plays so many rounds on a cluster of its own.
pub fn play(stage: &Stage, rounds: u32) -> Result<()> {
    let begun = Instant::now();
    println!("starting {} nodes, each with a disk of {DISK_SIZE}, in {}", NODES.len(), stage.dir().display());
    let cluster = DevCluster::up(&stage.cluster_dir(), NODES.len() as u16, DISK_SIZE, None)?;
    let outcome = Play::set_up(&cluster, stage).and_then(|mut play| {
        for round in 1..=rounds {
            play.round(round).with_context(|| format!("round {round}"))?;
        }
        play.end()
    });
    if let Err(error) = outcome {
        eprintln!("{}", cluster.log_tails());
        return Err(error);
    }
    cluster.down()?;
    println!(
        "{rounds} rounds in {:.0} s: nothing lost, nothing damaged, replicas equal",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Play<'a> {
    cluster: &'a DevCluster,
    stage: &'a Stage,
    kubelet: Kubelet,
    volume: MountedVolume,
    installation: Installation,
    /// Between rounds it runs.
    server: Option<Server>,
    /// Last row of the ledger that must be there.
    rows: u64,
    /// Seed of fio's last whole pass.
    pass: Option<u32>,
}

impl<'a> Play<'a> {
    fn set_up(cluster: &'a DevCluster, stage: &'a Stage) -> Result<Play<'a>> {
        let kubelet = cluster.kubelet(HOME)?;
        let volume = kubelet.create(DATABASE, DATABASE_BYTES, Kubelet::mount_capability("ext4"))?;
        kubelet.mount(&volume)?;
        stage.origin().bind(&volume.target)?;
        cluster.cli(&["volume", "create", RAW, "--size", RAW_SIZE, "--node", HOME])?;
        let installation = stage.origin().installation()?;
        installation.initialize()?;
        let server = Server::start(&installation)?;
        ledger::create(&server)?;
        pgbench::prepare(&server)?;
        println!("PostgreSQL with page checksums on ext4, pgbench's tables are filled");
        Ok(Play { cluster, stage, kubelet, volume, installation, server: Some(server), rows: 0, pass: None })
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let begun = Instant::now();
        let server = self.server.take().context("a server runs between rounds")?;
        let before = pgbench::transfers(&server)?;
        let (what, server) = if round % 2 == 1 {
            // Each chunkserver in turn, the one on the node of the database first; and the control plane.
            let victims = ["chunkserver-n1", "chunkserver-n2", "control", "chunkserver-n3"];
            let victim = victims[(round / 2) as usize % victims.len()];
            self.lose_one(&server, victim, round)?;
            (victim, server)
        } else {
            self.lose_everything(server)?;
            ("everything", self.come_back()?)
        };
        let checked = self.check(server)?;
        let transfers = pgbench::transfers(self.server.as_ref().context("a server was checked")?)? - before;
        let Checked { pages, indexes, tables } = checked;
        println!(
            "round {round}: {what} died; {transfers} transfers, ledger at {} with none missing; {pages} pages, \
             {indexes} indexes, {tables} tables and fio's blocks clean; {:.0} s",
            self.rows,
            begun.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Under load; nobody may notice.
    fn lose_one(&mut self, server: &Server, victim: &str, round: u32) -> Result<()> {
        let uri = self.cluster.attach(RAW, HOME, "nbd")?;
        let mut pass = fio::start(&uri, round)?;
        self.pass = None;
        let client = ledger::start(server, self.rows)?;
        let mut load = pgbench::Load::start(&self.installation)?;
        load.wait_for_more(server, TRANSFERS)?;
        ensure!(pass.is_under_way()?, "fio's pass ended before anything died");
        self.cluster.kill(victim, Signal::SIGKILL)?;
        if let Some(node) = victim.strip_prefix("chunkserver-") {
            for volume in [DATABASE, RAW] {
                self.cluster.wait_member(volume, node, MemberState::Out, EJECT_LIMIT)?;
            }
        }
        client.wait_for_more(LEDGER_ROWS)?;
        load.wait_for_more(server, TRANSFERS)?;
        self.cluster.start(victim)?;
        for volume in [DATABASE, RAW] {
            self.cluster.wait_in_sync(volume, RESYNC_LIMIT)?;
        }
        load.wait_for_more(server, TRANSFERS)?;
        load.stop()?;
        self.rows = client.stop()?;
        pass.finish()?;
        self.pass = Some(round);
        self.cluster.detach(RAW)
    }

    /// Under load, all at once, as when the power fails (but for the page cache, which stays: the simulator cuts that).
    fn lose_everything(&mut self, server: Server) -> Result<()> {
        let client = ledger::start(&server, self.rows)?;
        let mut load = pgbench::Load::start(&self.installation)?;
        load.wait_for_more(&server, TRANSFERS)?;
        client.wait_for_more(LEDGER_ROWS)?;
        let mut pids = self.cluster.pids()?;
        pids.extend(server.pids()?);
        pids.extend([load.pid(), client.pid()]);
        for &pid in &pids {
            match kill(pid, Signal::SIGKILL) {
                // A backend may just have ended.
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("kill {pid}")),
            }
        }
        self.rows = client.reap()?;
        load.reap()?;
        server.reap()?;
        self.cluster.wait_dead()?;
        sweep_devices(self.stage.dir()).context("take away dead mounts, as a reboot does")
    }

    fn come_back(&self) -> Result<Server> {
        self.cluster.up_again()?;
        self.kubelet.mount(&self.volume)?;
        self.stage.origin().bind(&self.volume.target)?;
        Server::start(&self.installation)
    }

    /// Leaves a server that runs.
    fn check(&mut self, server: Server) -> Result<Checked> {
        server.stop()?;
        let pages = checks::page_checksums(&self.installation)?;
        let server = Server::start(&self.installation)?;
        let (indexes, tables) = checks::structure(&server)?;
        checks::sums(&server)?;
        self.rows = ledger::verify(&server, self.rows..=self.rows + 1)?;
        self.server = Some(server);
        if let Some(pass) = self.pass {
            let uri = self.cluster.attach(RAW, NODES[pass as usize % NODES.len()], "nbd")?;
            fio::verify(&uri, pass)?;
            self.cluster.detach(RAW)?;
        }
        Ok(Checked { pages, indexes, tables })
    }

    fn end(mut self) -> Result<()> {
        self.server.take().context("a server runs between rounds")?.stop()?;
        self.cluster.wait_in_sync(DATABASE, RESYNC_LIMIT)?;
        self.stage.origin().unbind()?;
        self.kubelet.unmount(&self.volume)?;
        for volume in [DATABASE, RAW] {
            let compared: serde_json::Value = self.cluster.cli_json(&["volume", "compare", volume])?;
            ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "volume {volume}: {compared}");
            println!("volume {volume}: {} blocks equal on 3 replicas", compared["blocks_compared"]);
        }
        self.kubelet.delete(&self.volume)
    }
}
