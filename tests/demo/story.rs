//! The six steps, in order. Each says what it does, and a failure says in which step it was.

use crate::{
    events::{Heard, Watch},
    ledger::{self, LedgerResult},
    report::{Rates, Report, Resync},
    sysbench::{self, Finished, Load},
};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{Clock, Compared, DevCluster, Kubelet, MariaDb, MariaPaths, MountedVolume, Stage, sweep_devices};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

const NODES: u16 = 3;
const HOME: &str = "n1";
const VOLUME_GIB: i64 = 4;
/// Room for the whole volume, the journal and what the chunkserver keeps free.
const DISK_SIZE: &str = "6G";
const VOLUME: &str = "demo-mariadb";
/// Rows that the ledger commits under load before everything dies, so that the crash is in the middle of work.
const ROWS_BEFORE_CRASH: u64 = 200;
const EJECT_LIMIT: Duration = Duration::from_secs(30);
const RESYNC_LIMIT: Duration = Duration::from_secs(180);

/// What went wrong, and where.
pub struct Failure {
    pub step: &'static str,
    pub error: anyhow::Error,
    /// The end of each daemon's log.
    pub logs: String,
}

/// Plays the whole story.
pub fn tell(stage: &Stage, seconds: u64, clock: Clock) -> Result<Report, Failure> {
    let mut step = "starting the cluster";
    clock.say(&format!("starting {NODES} nodes, each with a disk of {DISK_SIZE}, in {}", stage.dir().display()));
    let cluster = match DevCluster::up(&stage.cluster_dir(), NODES, DISK_SIZE, None) {
        Ok(cluster) => cluster,
        Err(error) => return Err(Failure { step, error, logs: String::new() }),
    };
    let played = Play::new(&cluster, stage, clock).and_then(|mut play| play.steps(seconds, &mut step));
    let report = match played {
        Ok(report) => report,
        Err(error) => return Err(Failure { step, error, logs: cluster.log_tails() }),
    };
    clock.say("stopping the cluster");
    let ended = cluster.down();
    ended.map(|()| report).map_err(|error| Failure { step: "stopping the cluster", error, logs: String::new() })
}

struct Play<'a> {
    cluster: &'a DevCluster,
    kubelet: Kubelet,
    stage: &'a Stage,
    clock: Clock,
}

/// What the first half leaves for the second.
struct Survived {
    load: Finished,
    killed: f64,
    in_sync: f64,
    resync: Resync,
    gap_ms: u64,
    ledger_rows: u64,
}

impl<'a> Play<'a> {
    fn new(cluster: &'a DevCluster, stage: &'a Stage, clock: Clock) -> Result<Play<'a>> {
        Ok(Play { cluster, kubelet: cluster.kubelet(HOME)?, stage, clock })
    }

    fn steps(&mut self, seconds: u64, step: &mut &'static str) -> Result<Report> {
        *step = "creating and mounting the volume";
        let volume = self.mount_volume()?;
        let paths = MariaPaths::new(&volume.target, &self.stage.run_dir());
        *step = "setting up MariaDB";
        let server = self.set_up_database(&paths)?;
        *step = "losing a chunkserver under load";
        let survived = self.lose_a_chunkserver(&server, &volume, seconds)?;
        *step = "killing everything";
        let ledger_rows = self.crash(server, survived.ledger_rows)?;
        *step = "recovering";
        let recovery_start = self.clock.seconds();
        let (server, ledger, tables_checked) = self.recover(&paths, &volume, ledger_rows)?;
        let recovery_seconds = self.clock.seconds() - recovery_start;
        *step = "stopping and unmounting";
        self.put_away(server, &volume)?;
        *step = "comparing the replicas";
        let comparison = self.compare()?;
        *step = "deleting the volume";
        self.kubelet.delete(&volume)?;
        Ok(Report {
            volume_size: format!("{VOLUME_GIB} GiB"),
            rates: Rates::of(&survived.load.seconds, survived.killed, survived.in_sync),
            transactions: survived.load.transactions,
            retried: survived.load.retried,
            gap_ms: survived.gap_ms,
            resync: survived.resync,
            recovery_seconds,
            ledger,
            tables_checked,
            comparison,
        })
    }

    fn mount_volume(&self) -> Result<MountedVolume> {
        self.clock.say(&format!("CSI: create, publish, stage and mount a volume of {VOLUME_GIB} GiB, ext4, on {HOME}"));
        let volume = self.kubelet.create(VOLUME, VOLUME_GIB << 30, Kubelet::mount_capability("ext4"))?;
        self.kubelet.mount(&volume)?;
        self.clock.say(&format!("mounted at {}", volume.target.display()));
        Ok(volume)
    }

    fn set_up_database(&self, paths: &MariaPaths) -> Result<MariaDb> {
        self.clock.say("MariaDB: making the system tables");
        MariaDb::initialize(paths)?;
        let server = self.start_database(paths)?;
        ledger::create(&server)?;
        self.clock.say("sysbench: filling its tables");
        sysbench::prepare(server.socket())?;
        Ok(server)
    }

    fn start_database(&self, paths: &MariaPaths) -> Result<MariaDb> {
        let started = self.clock.seconds();
        let server = MariaDb::start(paths)?;
        self.clock.say(&format!("MariaDB answers after {:.1} s", self.clock.seconds() - started));
        Ok(server)
    }

    fn lose_a_chunkserver(&self, server: &MariaDb, volume: &MountedVolume, seconds: u64) -> Result<Survived> {
        let (disk, node) = self.remote_replica()?;
        let victim = format!("chunkserver-{node}");
        let watch = Watch::start(&self.cluster.control_url()?, &volume.id, self.clock)?;
        let complaints = self.stage.run_dir().join("sysbench.log");
        let ledger = ledger::start(server, 0)?;
        self.clock.say(&format!("sysbench oltp_read_write, 8 threads, {seconds} s; beside it the ledger"));
        let mut load = Load::start(server.socket(), Duration::from_secs(seconds), &complaints, self.clock)?;
        load.wait_for_second(seconds / 3)?;
        self.clock.say(&format!("SIGKILL to {victim}, which holds a remote replica"));
        let killed = self.clock.seconds();
        self.cluster.kill(&victim, Signal::SIGKILL)?;
        watch.wait_for("ejected", &disk, EJECT_LIMIT)?;
        load.wait_for_second(seconds * 2 / 3)?;
        let gap_ms = self.cluster.attached(HOME, &volume.id)?.longest_gap_ms;
        self.clock.say(&format!("starting {victim} again (longest I/O gap so far: {gap_ms} ms)"));
        let started = self.clock.seconds();
        self.cluster.start(&victim)?;
        let joined = watch.wait_for("in-sync", &disk, RESYNC_LIMIT)?;
        let finished = load.finish()?;
        self.clock.say(&format!("sysbench ended without an error after {} transactions", finished.transactions));
        self.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
        let gap_ms = self.cluster.attached(HOME, &volume.id)?.longest_gap_ms;
        let told = watch.wait_for_figure("in-sync", &disk, "copied_blocks", RESYNC_LIMIT)?;
        let resync = resync_of(&told, joined.clock - started)?;
        Ok(Survived { load: finished, killed, in_sync: joined.clock, resync, gap_ms, ledger_rows: ledger.stop()? })
    }

    /// Disk and node of an in-sync replica that is not on the node of the pod.
    fn remote_replica(&self) -> Result<(String, String)> {
        let members = self.cluster.members(VOLUME)?;
        ensure!(members.len() == usize::from(NODES), "the volume has {} members: {members:?}", members.len());
        let remote = members.into_iter().find(|member| member.node != HOME && member.state() == MemberState::InSync);
        let member = remote.context("a member on another node is in-sync")?;
        Ok((member.disk, member.node))
    }

    /// Under load, everything dies at the same moment. Gives the last row that the ledger saw committed.
    fn crash(&self, server: MariaDb, rows: u64) -> Result<u64> {
        let ledger = ledger::start(&server, rows)?;
        let complaints = self.stage.run_dir().join("sysbench-crash.log");
        let mut load = Load::start(server.socket(), Duration::from_secs(600), &complaints, self.clock)?;
        load.wait_for_second(1)?;
        ledger.wait_for_more(ROWS_BEFORE_CRASH)?;
        let mut pids = self.cluster.pids()?;
        pids.extend([server.pid(), load.pid(), ledger.pid()]);
        self.clock
            .say(&format!("SIGKILL to everything at once: {} processes, in the middle of transactions", pids.len()));
        for &pid in &pids {
            kill(pid, Signal::SIGKILL).with_context(|| format!("kill {pid}"))?;
        }
        let rows = ledger.reap()?;
        load.reap()?;
        server.reap()?;
        self.cluster.wait_dead()?;
        self.clock.say(&format!("all dead; the ledger's client had seen row {rows} committed"));
        sweep_devices(self.cluster.dir()).context("take away dead mounts, as a reboot does")?;
        Ok(rows)
    }

    fn recover(&self, paths: &MariaPaths, volume: &MountedVolume, rows: u64) -> Result<(MariaDb, LedgerResult, usize)> {
        self.clock.say("starting the cluster again, CSI: publish, stage and mount");
        self.cluster.up_again()?;
        self.kubelet.mount(volume)?;
        self.clock.say("mounted; InnoDB recovers");
        let server = self.start_database(paths)?;
        let ledger = ledger::verify(&server, rows)?;
        self.clock.say(&format!("ledger: {} rows seen committed, {} missing", ledger.seen_committed, ledger.missing));
        let tables: Vec<String> = sysbench::table_names().chain(["ledger".to_owned()]).collect();
        server.check_tables(tables.iter().map(|table| format!("sbtest.{table}")))?;
        Ok((server, ledger, tables.len()))
    }

    fn put_away(&self, server: MariaDb, volume: &MountedVolume) -> Result<()> {
        self.clock.say("stopping MariaDB, CSI: unmount, unstage and unpublish");
        server.stop()?;
        self.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
        self.kubelet.unmount(volume)
    }

    fn compare(&self) -> Result<Compared> {
        self.clock.say("comparing the replicas block by block");
        self.cluster.compare(VOLUME)
    }
}

fn resync_of(told: &Heard, seconds: f64) -> Result<Resync> {
    let figure = |name: &str| {
        let text =
            told.event.figures.get(name).with_context(|| format!("the event has no {name}: {:?}", told.event))?;
        text.parse().with_context(|| format!("{name} is {text:?}"))
    };
    Ok(Resync { copied_blocks: figure("copied_blocks")?, changed_blocks: figure("changed_blocks")?, seconds })
}
