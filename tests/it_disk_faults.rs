//! Faults of real devices below one chunkserver, with a guest at work: the guest hears of none, the fault is told where
//! people look, and once it is mended the replica returns and is equal to the others.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::{Member, MemberState};
use ashlar_tests::faults::{LoopDisk, LoopMode, Tmpfs, Zram, changes_asked};
use ashlar_tests::{FaultPlay, on_cluster_on, on_nodes_on, run_ok, wait_until};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes of the disks that the tests make.
const DISK_BYTES: u64 = 512 << 20;
/// Superblock and journal of such a disk, with some places beyond.
const FIRST_PLACES_END: u64 = (1 + 64 + 16) << 20;
const FAULT_LIMIT: Duration = Duration::from_secs(30);
const REPLACED_LIMIT: Duration = Duration::from_secs(120);
/// A chunkserver that says that its disk failed is ejected at once; the rest is for a machine that is busy.
const GAP_MAX_MS: u64 = 2000;

#[derive(Deserialize)]
struct Disk {
    node: String,
    state: String,
    failure: Option<String>,
}

/// It is told in the list of disks, among the events and in the log, once and with the reason; the volume has let go of
/// the disk and has not stood still for it.
fn expect_failed(play: &FaultPlay, reason: &str) -> Result<()> {
    let cluster = &play.scene.cluster;
    let node = play.member()?.node;
    cluster.wait_member(play.volume, &node, MemberState::Out, FAULT_LIMIT)?;
    wait_until("the disk to be listed as failed", FAULT_LIMIT, || {
        let disks: Vec<Disk> = cluster.cli_json(&["disk", "list"])?;
        let ours = disks.iter().find(|disk| disk.node == node).context("the disk is listed")?;
        let told = ours.failure.as_ref().is_some_and(|failure| failure.contains(reason));
        Ok((ours.state == "failed" && told).then_some(()))
    })?;
    let events = play.events("disk-failed")?;
    let [event] = &events[..] else { bail!("{} events of a failed disk", events.len()) };
    ensure!(event.text.contains(reason), "the event says {:?}", event.text);
    let log = fs::read_to_string(cluster.daemon(&play.chunkserver())?.log)?;
    let lines = log.lines().filter(|line| line.contains("disk failed: it takes no more writes"));
    ensure!(lines.count() == 1, "the chunkserver's log does not tell of the failure, or more than once");
    let gap_ms = play.longest_gap_ms()?;
    ensure!(gap_ms <= GAP_MAX_MS, "the guest's writes stood still for {gap_ms} ms");
    Ok(())
}

/// The medium would take writes again, but this process has seen one fail: it never tries again, however often the
/// writer asks it to open.
fn expect_no_second_try(play: &mut FaultPlay, device: &Path) -> Result<()> {
    let (cluster, chunkserver) = (&play.scene.cluster, play.chunkserver());
    let refused = || cluster.metric(&chunkserver, "ashlar_chunkserver_refused_requests_total");
    let (changes, refusals) = (changes_asked(device)?, refused()?);
    ensure!(changes > 0, "{} does not count what is written to it", device.display());
    wait_until("the writer to ask twice more", FAULT_LIMIT, || Ok((refused()? >= refusals + 2.0).then_some(())))?;
    play.write(300)?;
    let more = changes_asked(device)? - changes;
    ensure!(more == 0, "the chunkserver wrote {more} times to a disk that had failed");
    let state = play.member()?.state();
    ensure!(state == MemberState::Out, "the failed disk is {state:?}");
    Ok(())
}

#[test]
fn a_write_error_ends_the_disk_for_this_process_and_the_guest_hears_nothing() -> Result<()> {
    // The replica on the guest's own node: its reads have to go elsewhere, too.
    on_cluster_on(
        "zram",
        "n1",
        |_| Zram::add("512M"),
        |scene, disk| {
            let mut play = FaultPlay::begin(scene, "n1", 21)?;
            play.write_through(|| disk.fail_writes())?;
            expect_failed(&play, "Input/output error")?;
            play.verify().context("reads go on")?;
            disk.mend()?;
            expect_no_second_try(&mut play, disk.as_ref())?;
            play.restart_chunkserver()?;
            play.end()
        },
    )
}

#[test]
fn a_disk_that_has_failed_is_replaced_at_once_by_one_of_another_node() -> Result<()> {
    on_nodes_on(
        "zram-4",
        4,
        "n1",
        |_| Zram::add("512M"),
        |scene, disk| {
            let mut play = FaultPlay::begin(scene, "n1", 25)?;
            let failed = play.member()?.disk;
            play.write_through(|| disk.fail_writes())?;
            wait_until("three replicas on other disks", REPLACED_LIMIT, || {
                let members = scene.cluster.members(play.volume)?;
                let is_whole = |member: &Member| member.disk != failed && member.state() == MemberState::InSync;
                Ok((members.len() == 3 && members.iter().all(is_whole)).then_some(()))
            })?;
            let printed = scene.cluster.cli(&["events", "--volume", play.volume, "--json"])?;
            ensure!(printed.contains(&format!("disk {failed} has failed")), "the reason is told: {printed}");
            disk.mend()?;
            play.end()
        },
    )
}

/// A loop device on a filesystem that can be filled.
struct OnTmpfs {
    disk: LoopDisk,
    below: Tmpfs,
}

impl OnTmpfs {
    fn new(files: &Path) -> Result<OnTmpfs> {
        let below = Tmpfs::mount(&files.join("ram"), DISK_BYTES + (8 << 20))?;
        let disk = LoopDisk::new(&below.dir().join("disk"), DISK_BYTES, LoopMode::Direct)?;
        Ok(OnTmpfs { disk, below })
    }
}

impl AsRef<Path> for OnTmpfs {
    fn as_ref(&self) -> &Path {
        self.disk.as_ref()
    }
}

#[test]
fn a_write_without_space_below_the_device_ends_the_disk() -> Result<()> {
    on_cluster_on("enospc", "n2", OnTmpfs::new, |scene, disk| {
        // The journal keeps its space; places that are written for the first time will have none.
        disk.disk.make_sparse_from(FIRST_PLACES_END)?;
        let mut play = FaultPlay::begin(scene, "n2", 22)?;
        play.write_through(|| disk.below.fill())?;
        expect_failed(&play, "os error")?;
        play.verify().context("reads go on")?;
        disk.below.free()?;
        expect_no_second_try(&mut play, disk.as_ref())?;
        play.restart_chunkserver()?;
        play.end()
    })
}

/// A disk that is a file, with its index beside it, on a filesystem that can be filled.
struct FileOnTmpfs {
    file: PathBuf,
    below: Tmpfs,
}

impl AsRef<Path> for FileOnTmpfs {
    fn as_ref(&self) -> &Path {
        &self.file
    }
}

#[test]
fn an_index_without_space_ends_the_disk() -> Result<()> {
    let make = |files: &Path| {
        // The disk is as large as those of the other nodes.
        let below = Tmpfs::mount(&files.join("ram"), (1 << 30) + (64 << 20))?;
        Ok(FileOnTmpfs { file: below.dir().join("disk.img"), below })
    };
    on_cluster_on("index", "n3", make, |scene, disk| {
        let mut play = FaultPlay::begin(scene, "n3", 23)?;
        play.write_through(|| disk.below.fill())?;
        // The disk's own space was taken when it was formatted: only the checkpoint's commit fails.
        play.write(100)?;
        expect_failed(&play, "No space left on device")?;
        play.verify().context("reads go on")?;
        disk.below.free()?;
        play.restart_chunkserver()?;
        play.end()
    })
}

/// A loop device that writes into the page cache of a filesystem on zram: its writes succeed, and its flushes fail
/// once, and then succeed although what was to be written is lost.
struct ForgetsOnFlush {
    disk: LoopDisk,
    _mounted: Mounted,
    below: Zram,
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run_ok("umount", [&self.0]).expect("the filesystem on zram is unmounted");
    }
}

impl AsRef<Path> for ForgetsOnFlush {
    fn as_ref(&self) -> &Path {
        self.disk.as_ref()
    }
}

impl ForgetsOnFlush {
    fn new(files: &Path) -> Result<ForgetsOnFlush> {
        let below = Zram::add("768M")?;
        let (device, dir) = (below.as_ref(), files.join("fs"));
        // Without a journal that would end the filesystem at the first error.
        run_ok("mkfs.ext4", ["-q", "-O", "^has_journal", &device.display().to_string()])?;
        fs::create_dir(&dir)?;
        run_ok("mount", [device, dir.as_path()])?;
        let mounted = Mounted(dir);
        let disk = LoopDisk::new(&mounted.0.join("disk"), DISK_BYTES, LoopMode::Buffered)?;
        Ok(ForgetsOnFlush { disk, _mounted: mounted, below })
    }
}

#[test]
fn a_flush_that_fails_once_and_then_succeeds_ends_the_disk() -> Result<()> {
    on_cluster_on("flush", "n2", ForgetsOnFlush::new, |scene, disk| {
        let mut play = FaultPlay::begin(scene, "n2", 24)?;
        play.write_through(|| disk.below.fail_writes())?;
        expect_failed(&play, "error")?;
        disk.below.mend()?;
        expect_no_second_try(&mut play, disk.as_ref())?;
        disk.disk.forget_cache()?;
        play.restart_chunkserver()?;
        play.end()
    })
}

#[test]
fn a_read_error_is_answered_from_another_replica_and_repaired() -> Result<()> {
    on_cluster_on("cut", "n1", OnTmpfs::new, |scene, disk| {
        let mut play = FaultPlay::begin(scene, "n1", 25)?;
        play.write(1000)?;
        wait_until("everything to be in its place", FAULT_LIMIT, || {
            let waiting = scene.cluster.metric("chunkserver-n1", "ashlar_chunkserver_overlay_bytes")?;
            Ok((waiting == 0.0).then_some(()))
        })?;
        play.write_through(|| disk.disk.cut_off(FIRST_PLACES_END))?;
        play.verify().context("reads are answered from elsewhere")?;
        let repaired = play.repaired_blocks()?;
        ensure!(repaired > 0, "nothing was repaired");
        let bad = scene.cluster.metric("chunkserver-n1", "ashlar_chunkserver_crc_errors_total")?;
        ensure!(bad > 0.0, "the chunkserver counts no bad block");
        play.verify()?;
        let again = play.repaired_blocks()? - repaired;
        ensure!(again == 0, "{again} blocks had to be repaired a second time");
        ensure!(!play.events("repaired")?.is_empty(), "no event tells of the repair");
        scene.cluster.wait_in_sync(play.volume, FAULT_LIMIT)?;
        play.restart_chunkserver()?;
        play.end()
    })
}
