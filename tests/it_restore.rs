//! Snapshots taken under load show what they must: filesystems restored from them beside their origins, and two
//! hundred of one volume, taken and deleted in random order.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{ListDisksRequest, VolumeRecord};
use ashlar_tests::{
    FileLoad, Kubelet, NbdClient, Scene, SnapshotView, StampBounds, StampedGuest, Stamps, check_files, nbd_socket,
    on_cluster, run_ok, wait_until,
};
use ashlar_types::{BLOCKS_PER_SLOT, SLOT_BYTES, SessionId};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

const LIMIT: Duration = Duration::from_secs(120);

/// mkfs.xfs makes nothing below 300 MiB.
const FILESYSTEM_BYTES: i64 = 320 << 20;
const THREADS: usize = 4;

#[test]
fn ext4_restored_from_a_snapshot_under_load_holds_what_was_synced() -> Result<()> {
    on_cluster("restore-ext4", |scene| restored_filesystem(scene, "ext4", &["e2fsck", "-fn"]))
}

#[test]
fn xfs_restored_from_a_snapshot_under_load_holds_what_was_synced() -> Result<()> {
    on_cluster("restore-xfs", |scene| restored_filesystem(scene, "xfs", &["xfs_repair", "-n"]))
}

fn restored_filesystem(scene: &Scene, fs_type: &str, fsck: &[&str]) -> Result<()> {
    let kubelet = scene.cluster.kubelet("n1")?;
    let origin = kubelet.create("origin", FILESYSTEM_BYTES, Kubelet::mount_capability(fs_type))?;
    kubelet.mount(&origin)?;
    let load = FileLoad::start(&origin.target.join("files"), THREADS)?;
    load.wait_for_more(60)?;
    let synced = load.synced();
    let snapshot = scene.cluster.take_snapshot("origin", "under-load")?;
    let begun = load.begun();
    load.wait_for_more(30).context("writes go on after the snapshot")?;

    // Beside its origin, on the same node, while that is written.
    let restored = kubelet.restore("restored", FILESYSTEM_BYTES, Kubelet::mount_capability(fs_type), &snapshot)?;
    kubelet.mount(&restored).context("mount the restored volume")?;
    let files = check_files(&restored.target.join("files"), &synced, &begun)?;
    ensure!(files >= 60 * THREADS as u64, "{files} files were synced before the snapshot");
    let own = FileLoad::start(&restored.target.join("own"), THREADS)?;
    own.wait_for_more(20).context("the restored volume is written too")?;
    load.wait_for_more(20).context("the origin is written beside it")?;
    let (own, load) = (own.stop()?, load.stop()?);

    // Mounted once more, so that all caches are empty.
    for volume in [&restored, &origin] {
        kubelet.unmount(volume)?;
        kubelet.mount(volume)?;
    }
    check_files(&restored.target.join("files"), &synced, &begun).context("restored, mounted again")?;
    check_files(&restored.target.join("own"), &own, &own).context("written after the restore")?;
    check_files(&origin.target.join("files"), &load, &load).context("the origin")?;
    ensure!(!origin.target.join("own").exists(), "what was written to the restored volume is not in its origin");
    // From then on nothing changes but by our own hand.
    wait_until("the restored volume to be flat", LIMIT, || {
        let shown: serde_json::Value = scene.cluster.cli_json(&["volume", "show", "restored"])?;
        Ok(shown["origin"].is_null().then_some(()))
    })?;
    for (name, volume) in [("restored", &restored), ("origin", &origin)] {
        kubelet.unmount(volume)?;
        let device = scene.cluster.attach(name, "n1", "fuse")?;
        run_ok(fsck[0], [&fsck[1..], &[device.as_str()]].concat()).with_context(|| format!("check {name}"))?;
        scene.cluster.detach(name)?;
        compare(scene, name)?;
    }
    scene.cluster.delete_snapshot(&snapshot)?;
    kubelet.delete(&origin)?;
    kubelet.delete(&restored)
}

/// All three replicas hold the same, now and in each snapshot; gives the number of snapshots.
fn compare(scene: &Scene, volume: &str) -> Result<u64> {
    #[derive(Deserialize)]
    struct Compared {
        replicas: u64,
        views_compared: u64,
        differing: u64,
    }
    let compared: Compared = scene.cluster.cli_json(&["volume", "compare", volume])?;
    ensure!(compared.replicas == 3, "{volume}: {} replicas were compared", compared.replicas);
    ensure!(compared.differing == 0, "{volume}: the replicas differ in {} blocks", compared.differing);
    Ok(compared.views_compared - 1)
}

const SNAPSHOTS: usize = 200;
/// At the same time.
const KEPT_MAX: u64 = 24;
/// Every so many steps one that is kept is read from every replica.
const STEPS_PER_READ: usize = 10;
const WRITES_PER_STEP: u64 = 10;
/// Small, so that each snapshot sees much of it written again.
const GUEST_BLOCKS: usize = (8 << 20) / 4096;
const BLOCKS_PER_READ: u32 = 16 * BLOCKS_PER_SLOT;

/// The seed of the order and of the writes is printed; `SEED` in the environment sets it.
#[test]
fn two_hundred_snapshots_in_random_order_are_right_and_leave_no_space_behind() -> Result<()> {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().context("SEED is a number")?,
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64,
    };
    println!("SEED={seed}");
    on_cluster("snap-many", |scene| many_snapshots(scene, seed)).with_context(|| format!("SEED={seed}"))
}

fn many_snapshots(scene: &Scene, seed: u64) -> Result<()> {
    let empty = free_bytes(scene)?;
    scene.cluster.cli(&["volume", "create", "v", "--size", "64M", "--node", "n1"])?;
    let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach("v", "n1", "nbd")?)?)?;
    let mut guest = StampedGuest::new(GUEST_BLOCKS, seed);
    // From here on the volume itself takes the same space, whatever is written.
    guest.fill(&mut client)?;
    let written = GUEST_BLOCKS as u64 / u64::from(BLOCKS_PER_SLOT) * SLOT_BYTES;
    let filled: BTreeMap<String, u64> = empty.iter().map(|(disk, free)| (disk.clone(), free - written)).collect();
    wait_free(scene, &filled).context("the volume alone")?;

    let mut play = Play { scene, stamps: guest.stamps(), random: seed | 1, kept: vec![], taken: 0, sessions: 0 };
    let (done, stopping) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut guest, mut client) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stopping.load(Ordering::SeqCst) {
                guest.write(&mut client, WRITES_PER_STEP, &done)?;
            }
            anyhow::Ok((guest, client))
        });
        let played = play.steps(&done);
        stopping.store(true, Ordering::SeqCst);
        // An error of the guest's is why the steps came no further.
        let ended = load.join().expect("the guest does not panic").context("the guest")?;
        played.map(|()| ended)
    })?;
    guest.verify(&mut client)?;
    client.close()?;
    scene.cluster.wait_in_sync("v", LIMIT)?;
    scene.cluster.detach("v")?;
    ensure!(compare(scene, "v")? == play.kept.len() as u64, "every kept snapshot was compared");
    // A writer tells the replicas which snapshots are needed no more.
    scene.cluster.attach("v", "n2", "nbd")?;
    while !play.kept.is_empty() {
        play.read_one()?;
        play.delete_one()?;
    }
    wait_free(scene, &filled).context("after the last snapshot")?;
    scene.cluster.detach("v")?;
    scene.cluster.cli(&["volume", "delete", "v"])?;
    wait_free(scene, &empty).context("after the volume")
}

/// By disk, as the control plane is told.
fn free_bytes(scene: &Scene) -> Result<BTreeMap<String, u64>> {
    let mut client = scene.cluster.client()?;
    let disks = scene.cluster.block_on(client.list_disks(ListDisksRequest {})).context("ListDisks")?.into_inner().disks;
    ensure!(disks.len() == 3, "three disks are known");
    Ok(disks.into_iter().map(|disk| (disk.id, disk.free_bytes)).collect())
}

fn wait_free(scene: &Scene, wanted: &BTreeMap<String, u64>) -> Result<()> {
    wait_until("free space to be as before, to the byte", LIMIT, || {
        let free = free_bytes(scene)?;
        ensure!(free == *wanted, "free are {free:?}, wanted {wanted:?}");
        Ok(Some(()))
    })
}

struct KeptSnapshot {
    id: String,
    bounds: StampBounds,
}

/// Takes, deletes and reads snapshots while a guest writes.
struct Play<'a> {
    scene: &'a Scene,
    stamps: Stamps,
    random: u64,
    kept: Vec<KeptSnapshot>,
    taken: usize,
    /// Each observer's session has a number of its own.
    sessions: u64,
}

impl Play<'_> {
    /// Ends when all are taken; a part of them is kept.
    fn steps(&mut self, done: &AtomicU64) -> Result<()> {
        for step in 1.. {
            if self.taken == SNAPSHOTS {
                break;
            }
            let from = done.load(Ordering::SeqCst);
            if self.next_random() % KEPT_MAX >= self.kept.len() as u64 {
                self.take_one()?;
            } else {
                self.delete_one()?;
            }
            if step % STEPS_PER_READ == 0 && !self.kept.is_empty() {
                self.read_one()?;
            }
            wait_until("some writes", LIMIT, || {
                Ok((done.load(Ordering::SeqCst) >= from + WRITES_PER_STEP).then_some(()))
            })?;
        }
        Ok(())
    }

    fn take_one(&mut self) -> Result<()> {
        self.taken += 1;
        let acknowledged = self.stamps.acknowledged();
        let id = self.scene.cluster.take_snapshot("v", &format!("s{}", self.taken))?;
        let bounds = StampBounds::new(acknowledged, self.stamps.sent());
        self.kept.push(KeptSnapshot { id, bounds });
        Ok(())
    }

    fn delete_one(&mut self) -> Result<()> {
        let kept = self.any_kept();
        let snapshot = self.kept.swap_remove(kept);
        self.scene.cluster.delete_snapshot(&snapshot.id)
    }

    /// From every replica; what the first gives, the others must give, now and later.
    fn read_one(&mut self) -> Result<()> {
        let record: VolumeRecord = self.scene.cluster.volume("v")?.record.context("a volume has a record")?;
        let kept = self.any_kept();
        for member in &record.members {
            self.sessions += 1;
            let KeptSnapshot { id, bounds } = &mut self.kept[kept];
            let mut view = SnapshotView::open(&record, member, id, SessionId(self.sessions))?;
            for start in (0..GUEST_BLOCKS).step_by(BLOCKS_PER_READ as usize) {
                let data = view.read(start as u64, BLOCKS_PER_READ)?;
                bounds.check(start, &data).with_context(|| format!("snapshot {id} on {}", member.node))?;
            }
        }
        Ok(())
    }

    fn any_kept(&mut self) -> usize {
        self.next_random() as usize % self.kept.len()
    }

    /// xorshift64 (Marsaglia 2003).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
