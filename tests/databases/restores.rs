//! Databases restored from snapshots that were taken while transactions ran: the copy must look as after a crash in
//! that moment. Each database recovers on the copy, on the same node, while its origin goes on.
//!
//! ```text
//!   origin    load ── rows seen ── snapshot ── rows seen ── load goes on ─────────────────── stop ── replicas compared
//!   restored                          └ volume ── mount ── server recovers ── every check ── deleted
//! ```

use crate::{
    checks::{self, Checked},
    ledger, mariadb, pgbench,
    stage::Stage,
};
use anyhow::{Context, Result, ensure};
use ashlar_tests::postgres::Server;
use ashlar_tests::{DevCluster, Kubelet, MariaDb, MariaPaths, MountedVolume};
use std::{
    fs,
    ops::RangeInclusive,
    path::Path,
    time::{Duration, Instant},
};

const NODES: u16 = 3;
const HOME: &str = "n1";
const DISK_SIZE: &str = "3G";
const JOURNAL_SIZE: &str = "64M";
const POSTGRES_BYTES: i64 = 512 << 20;
/// InnoDB's log alone takes 256 MiB.
const MARIADB_BYTES: i64 = 768 << 20;
/// Of each client, before the snapshot and after.
const ROWS: u64 = 100;
const TRANSFERS: u64 = 300;
const IN_SYNC_LIMIT: Duration = Duration::from_secs(60);

/// Restores each database so many times, on a cluster of its own.
pub fn play(stage: &Stage, restores: u32) -> Result<()> {
    let begun = Instant::now();
    println!("starting {NODES} nodes, each with a disk of {DISK_SIZE}, in {}", stage.dir().display());
    let cluster = DevCluster::up(&stage.cluster_dir(), NODES, DISK_SIZE, Some(JOURNAL_SIZE))?;
    let played = postgres(&cluster, stage, restores).context("PostgreSQL");
    let played = played.and_then(|()| maria(&cluster, stage, restores).context("MariaDB"));
    if let Err(error) = played {
        eprintln!("{}", cluster.log_tails());
        return Err(error);
    }
    cluster.down()?;
    println!(
        "{restores} restores of each database in {:.0} s: nothing lost, nothing damaged, nothing from later",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A database's volume.
struct Home<'a> {
    cluster: &'a DevCluster,
    kubelet: Kubelet,
    volume: MountedVolume,
    name: &'static str,
    bytes: i64,
}

impl<'a> Home<'a> {
    fn set_up(cluster: &'a DevCluster, name: &'static str, bytes: i64, fs_type: &str) -> Result<Home<'a>> {
        let kubelet = cluster.kubelet(HOME)?;
        let volume = kubelet.create(name, bytes, Kubelet::mount_capability(fs_type))?;
        kubelet.mount(&volume)?;
        Ok(Home { cluster, kubelet, volume, name, bytes })
    }

    /// Mounts a new volume with what the snapshot holds, lets it be looked at, and deletes both. Beside it the origin
    /// stays mounted.
    fn restore<T>(&self, snapshot: &str, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let name = format!("{}-restored", self.name);
        let restored = self.kubelet.restore(&name, self.bytes, self.volume.capability.clone(), snapshot)?;
        self.kubelet.mount(&restored).context("mount the restored volume")?;
        let seen = look(&restored.target)?;
        self.kubelet.unmount(&restored)?;
        self.kubelet.delete(&restored)?;
        self.cluster.delete_snapshot(snapshot)?;
        Ok(seen)
    }

    fn take_down(self) -> Result<()> {
        self.cluster.wait_in_sync(self.name, IN_SYNC_LIMIT)?;
        self.kubelet.unmount(&self.volume)?;
        let compared: serde_json::Value = self.cluster.cli_json(&["volume", "compare", self.name])?;
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "volume {}: {compared}", self.name);
        self.kubelet.delete(&self.volume)
    }
}

fn postgres(cluster: &DevCluster, stage: &Stage, restores: u32) -> Result<()> {
    let home = Home::set_up(cluster, "postgres", POSTGRES_BYTES, "ext4")?;
    stage.origin().bind(&home.volume.target)?;
    let installation = stage.origin().installation()?;
    installation.initialize()?;
    let server = Server::start(&installation)?;
    ledger::create(&server)?;
    pgbench::prepare(&server)?;
    let client = ledger::start(&server, 0)?;
    let mut load = pgbench::Load::start(&installation)?;
    for restore in 1..=restores {
        load.wait_for_more(&server, TRANSFERS)?;
        client.wait_for_more(ROWS)?;
        let (seen, transfers) = (client.seen(), pgbench::transfers(&server)?);
        let snapshot = cluster.take_snapshot(home.name, "pg")?;
        let last = seen..=client.seen() + 1;
        load.wait_for_more(&server, TRANSFERS)?;
        let (rows, checked) = home.restore(&snapshot, |target| {
            stage.restored().bind(target)?;
            let looked = restored_postgres(stage, last, transfers);
            stage.restored().unbind()?;
            looked
        })?;
        let Checked { pages, indexes, tables } = checked;
        println!(
            "restore {restore}: PostgreSQL recovers; {rows} rows of the ledger with none missing, {pages} pages, \
             {indexes} indexes and {tables} tables clean"
        );
    }
    load.stop()?;
    let rows = client.stop()?;
    ledger::verify(&server, rows..=rows)?;
    checks::sums(&server)?;
    server.stop()?;
    stage.origin().unbind()?;
    home.take_down()
}

/// Every check, on a server that recovers first.
fn restored_postgres(stage: &Stage, last: RangeInclusive<u64>, transfers: u64) -> Result<(u64, Checked)> {
    let installation = stage.restored().installation()?;
    installation.forget_origin()?;
    let server = Server::start(&installation)?;
    let rows = ledger::verify(&server, last)?;
    let found = pgbench::transfers(&server)?;
    ensure!(found >= transfers, "{found} transfers are there, {transfers} were committed");
    checks::sums(&server)?;
    let (indexes, tables) = checks::structure(&server)?;
    server.stop()?;
    let pages = checks::page_checksums(&installation)?;
    Ok((rows, Checked { pages, indexes, tables }))
}

fn maria(cluster: &DevCluster, stage: &Stage, restores: u32) -> Result<()> {
    let home = Home::set_up(cluster, "mariadb", MARIADB_BYTES, "xfs")?;
    let paths = |target: &Path, name: &str| -> Result<MariaPaths> {
        let dir = stage.mariadb_dir().join(name);
        fs::create_dir_all(&dir).context("make a folder for MariaDB's socket")?;
        Ok(MariaPaths::new(target, &dir))
    };
    let origin = paths(&home.volume.target, "origin")?;
    MariaDb::initialize(&origin)?;
    let server = MariaDb::start(&origin)?;
    mariadb::create_tables(&server)?;
    let transfers = mariadb::Transfers::start(&server)?;
    for restore in 1..=restores {
        transfers.wait_for_more(ROWS)?;
        let seen = transfers.seen();
        let snapshot = cluster.take_snapshot(home.name, "maria")?;
        let seen_after = transfers.seen();
        transfers.wait_for_more(ROWS)?;
        let rows = home.restore(&snapshot, |target| {
            let server = MariaDb::start(&paths(target, "restored")?)?;
            let rows = mariadb::verify(&server, &seen, &seen_after)?;
            server.stop()?;
            Ok(rows)
        })?;
        println!("restore {restore}: MariaDB recovers; sums right, {rows} rows of the ledger with none missing");
    }
    let seen = transfers.stop()?;
    mariadb::verify(&server, &seen, &seen)?;
    server.stop()?;
    home.take_down()
}
