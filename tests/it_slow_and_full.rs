//! A disk or a link that is slow, and a disk that is full: the guest goes on, and what was mended returns.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::{DeleteReplicaRequest, Member, MemberState, chunkserver_client::ChunkserverClient};
use ashlar_tests::faults::{LoopDisk, LoopMode, Throttle, fast_ports, in_own_network, slow_port};
use ashlar_tests::{FaultPlay, Peer, on_cluster, on_cluster_on, on_cluster_with, wait_until};
use ashlar_types::{BlockCount, BlockIndex, ChunkIndex, ChunkRange, Epoch, Lsn, SessionId, VolumeId};
use ashlar_wire::{BlockData, Open, Refusal, Reply, Request, Status};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const DISK_BYTES: u64 = 512 << 20;
const FAULT_LIMIT: Duration = Duration::from_secs(30);
/// The bound of silence is half a second where answers used to be fast; the rest is for a machine that is busy.
const GAP_MAX_MS: u64 = 2000;
/// Writes by which the guest's speed is told.
const SAMPLE: u64 = 1000;
/// How much longer a sample may take while the slow replica is away, on a busy machine. With it, one would take some
/// 6 s: 16 writes at a time, 100 ms each.
const LONGER_MAX: Duration = Duration::from_secs(3);
/// Within ten minutes; the volume says so.
const SLOW_EJECTIONS_MAX: usize = 3;

/// Something becomes slow in the middle of the guest's writes. It is ejected, for being slow or silent; from then on
/// the guest is as fast as before, and nothing flaps; when it is fast again it returns.
fn slow_and_mended(
    mut play: FaultPlay,
    slow: impl FnOnce() -> Result<()>,
    mend: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let sample = |play: &mut FaultPlay| {
        let begun = Instant::now();
        play.write(SAMPLE).map(|()| begun.elapsed())
    };
    let healthy = sample(&mut play)?;
    play.write_through(slow)?;
    let away = || Ok((play.member()?.state() != MemberState::InSync).then_some(()));
    wait_until("the slow replica to be ejected", FAULT_LIMIT, away)?;
    let without = sample(&mut play)?;
    ensure!(without < healthy + LONGER_MAX, "{SAMPLE} writes took {healthy:?} before, and {without:?} without it");
    // Its attempts to return cost the guest nothing.
    wait_until("an attempt to return", FAULT_LIMIT, || {
        play.write(20)?;
        Ok((!play.events("return-abandoned")?.is_empty()).then_some(()))
    })?;
    let gap_ms = play.longest_gap_ms()?;
    ensure!(gap_ms <= GAP_MAX_MS, "the guest's writes stood still for {gap_ms} ms");
    let ejecting = play.events("ejecting")?;
    let told = ejecting.iter().all(|event| event.text.contains("slow") || event.text.contains("silent"));
    ensure!(told, "the events do not say that it was slow");
    ensure!((1..=SLOW_EJECTIONS_MAX).contains(&ejecting.len()), "it was ejected {} times", ejecting.len());
    play.verify().context("reads go on")?;
    mend()?;
    play.end()
}

/// Operations a second.
fn slow_disk(label: &str, rate: u32, seed: u64) -> Result<()> {
    let make = |files: &Path| LoopDisk::new(&files.join("disk"), DISK_BYTES, LoopMode::Direct);
    on_cluster_on(label, "n2", make, |scene, disk| {
        let play = FaultPlay::begin(scene, "n2", seed)?;
        let pid = scene.cluster.daemon("chunkserver-n2")?.pid.context("the chunkserver runs")?;
        let name = scene.files().parent().and_then(Path::file_name).context("the test has a folder")?;
        let throttle = Throttle::new(&name.to_string_lossy(), disk.as_ref())?;
        slow_and_mended(play, || throttle.limit(pid, rate), || throttle.limit(pid, 0))
    })
}

#[test]
fn a_disk_that_hardly_answers_is_ejected_and_holds_nobody_back() -> Result<()> {
    slow_disk("silent-disk", 20, 31)
}

#[test]
fn a_disk_that_answers_slowly_is_ejected_and_holds_nobody_back() -> Result<()> {
    slow_disk("slow-disk", 90, 32)
}

#[test]
fn a_slow_link_is_ejected_and_holds_nobody_back() -> Result<()> {
    in_own_network(|| {
        on_cluster("slow-link", |scene| {
            let play = FaultPlay::begin(scene, "n3", 33)?;
            let daemon = scene.cluster.daemon("chunkserver-n3")?;
            let port = daemon.addresses["data"].rsplit(':').next().context("a port")?.parse()?;
            slow_and_mended(play, || slow_port(port, "1mbit"), fast_ports)
        })
    })
}

/// The disk that is filled up, by a volume of which only this peer knows.
struct Target {
    member: Member,
    open: Open,
}

impl Target {
    fn of(play: &FaultPlay) -> Result<Target> {
        let record = play.scene.cluster.volume(play.volume)?.record.context("a volume has a record")?;
        let member = play.member()?;
        let volume = VolumeId::from_u128(0xf111).to_string();
        let open = Peer::open(&record.cluster, &member.disk, &volume, 4 << 30)?;
        Ok(Target { member, open })
    }

    fn fill_up(&self) -> Result<()> {
        let epoch = Epoch::new(1).context("an epoch")?;
        let mut peer = Peer::connect(&self.member.address, SessionId(9), epoch)?;
        let reply = peer.ask(Request::Open(self.open))?;
        ensure!(matches!(reply, Reply::Opened(_)), "{reply:?}");
        let mut lsn = Lsn::start_of(epoch);
        for mebibyte in 0..DISK_BYTES >> 20 {
            lsn = lsn.next();
            let chunk = ChunkIndex((mebibyte / 64) as u32);
            let range = ChunkRange { chunk, start: BlockIndex(mebibyte % 64 * 256), count: BlockCount(256) };
            let blocks = BlockData::seal(vec![0xf1; 1 << 20].into());
            match peer.ask(Request::Write { range, lsn, floor: Lsn::ZERO, blocks })? {
                Reply::Done => {}
                Reply::Refused(Refusal { status: Status::NoSpace, .. }) => return Ok(()),
                other => bail!("{other:?}"),
            }
        }
        bail!("the disk does not become full")
    }

    fn free_again(&self, play: &FaultPlay) -> Result<()> {
        let rpc = play.scene.cluster.daemon(&play.chunkserver())?.addresses["rpc"].clone();
        let request =
            DeleteReplicaRequest { disk: self.member.disk.clone(), volume: self.open.volume.to_string(), epoch: 1 };
        play.scene.cluster.block_on(async {
            let mut client = ChunkserverClient::connect(format!("http://{rpc}")).await.context("connect")?;
            client.delete_replica(request).await.context("DeleteReplica")?;
            Ok(())
        })
    }
}

#[test]
fn a_full_disk_is_left_out_until_it_has_room_again() -> Result<()> {
    on_cluster_with("full-guest", "512M", |scene| {
        let mut play = FaultPlay::begin(scene, "n2", 34)?;
        let target = Target::of(&play)?;
        play.write_through(|| target.fill_up())?;
        // Half of the guest's blocks are still to be written for the first time.
        play.write(500)?;
        let away = || Ok((play.member()?.state() != MemberState::InSync).then_some(()));
        wait_until("the full replica to be ejected", FAULT_LIMIT, away)?;
        let ejecting = play.events("ejecting")?;
        ensure!(ejecting.iter().all(|event| event.text.contains("NoSpace")), "the events do not say that it was full");
        ensure!(ejecting.len() == 1, "it was ejected {} times", ejecting.len());
        let gap_ms = play.longest_gap_ms()?;
        ensure!(gap_ms <= GAP_MAX_MS, "the guest's writes stood still for {gap_ms} ms");
        play.verify().context("reads go on")?;
        target.free_again(&play)?;
        play.end()
    })
}
