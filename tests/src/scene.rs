//! The frame of one test on real daemons: a small cluster of its own, a folder for files, and everything gone
//! afterwards.

use crate::{DevCluster, Leftovers, scratch_dir, sweep};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Three of these are written in full for each test, so they are as small as the volumes of the tests allow.
const DISK_SIZE: &str = "1G";
const JOURNAL_SIZE: &str = "64M";

/// What a test has.
pub struct Scene {
    pub cluster: DevCluster,
    files: PathBuf,
}

impl Scene {
    /// A folder for the test's own files.
    pub fn files(&self) -> &Path {
        &self.files
    }
}

/// Runs a test on three nodes. A failure shows the end of each daemon's log; a success includes that nothing was left
/// behind.
pub fn on_cluster(label: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    on_cluster_with(label, DISK_SIZE, test)
}

/// The same, with disks of another size.
pub fn on_cluster_with(label: &str, disk_size: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let dir = ScratchDir::new(label)?;
    let cluster = DevCluster::up(&dir.0.join("c"), 3, disk_size, Some(JOURNAL_SIZE)).context("start a cluster")?;
    play(&dir, Scene { cluster, files: dir.files() }, test)
}

/// On so many nodes, where a node may be silent for so long before its replicas are made elsewhere.
pub fn on_repairing_cluster(
    label: &str,
    nodes: u16,
    grace: Duration,
    test: impl FnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    on_repairing_cluster_with(label, nodes, grace, &[], test)
}

/// The same, with these zones of n1, n2, ...; nodes beyond have none.
pub fn on_placing_cluster(
    label: &str,
    nodes: u16,
    grace: Duration,
    zones: &[&str],
    test: impl FnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    let zones: Vec<String> = zones.iter().enumerate().map(|(at, zone)| format!("n{}={zone}", at + 1)).collect();
    let options: Vec<&str> = zones.iter().flat_map(|zone| ["--zone", zone.as_str()]).collect();
    on_repairing_cluster_with(label, nodes, grace, &options, test)
}

/// The same, with more options of `ashlar dev up`.
pub fn on_repairing_cluster_with(
    label: &str,
    nodes: u16,
    grace: Duration,
    options: &[&str],
    test: impl FnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    let dir = ScratchDir::new(label)?;
    let grace = grace.as_millis().to_string();
    let options = [&["--rebuild-grace-ms", grace.as_str()], options].concat();
    let cluster = DevCluster::up_with(&dir.0.join("c"), nodes, DISK_SIZE, Some(JOURNAL_SIZE), &options);
    play(&dir, Scene { cluster: cluster.context("start a cluster")?, files: dir.files() }, test)
}

/// On three nodes, each of which has its datapath and its chunkserver in one process.
pub fn on_single_process_nodes(label: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let dir = ScratchDir::new(label)?;
    let cluster = DevCluster::up_with(&dir.0.join("c"), 3, DISK_SIZE, Some(JOURNAL_SIZE), &["--one-process"]);
    play(&dir, Scene { cluster: cluster.context("start a cluster")?, files: dir.files() }, test)
}

/// On three nodes whose disks verify all that they have in this time.
pub fn on_scrubbing_cluster(label: &str, period: &str, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let dir = ScratchDir::new(label)?;
    let options = ["--scrub-period", period];
    let cluster = DevCluster::up_with(&dir.0.join("c"), 3, DISK_SIZE, Some(JOURNAL_SIZE), &options);
    play(&dir, Scene { cluster: cluster.context("start a cluster")?, files: dir.files() }, test)
}

/// The same, with a disk of the test's own making on one node; `make` is given the folder for files. The disk goes
/// when the cluster is gone.
pub fn on_cluster_on<D: AsRef<Path>>(
    label: &str,
    node: &str,
    make: impl FnOnce(&Path) -> Result<D>,
    test: impl FnOnce(&Scene, &D) -> Result<()>,
) -> Result<()> {
    on_nodes_on(label, 3, node, make, test)
}

/// The same with more nodes.
pub fn on_nodes_on<D: AsRef<Path>>(
    label: &str,
    nodes: u16,
    node: &str,
    make: impl FnOnce(&Path) -> Result<D>,
    test: impl FnOnce(&Scene, &D) -> Result<()>,
) -> Result<()> {
    let dir = ScratchDir::new(label)?;
    let disk = make(&dir.files()).context("make a disk")?;
    let cluster = DevCluster::up_on(&dir.0.join("c"), nodes, DISK_SIZE, Some(JOURNAL_SIZE), &[(node, disk.as_ref())]);
    let scene = Scene { cluster: cluster.context("start a cluster")?, files: dir.files() };
    let played = play_to_the_end(scene, |scene| test(scene, &disk));
    // Shown now: a disk that cannot be taken away panics.
    let played = played.inspect_err(|error| eprintln!("{error:#}"));
    drop(disk);
    played.and_then(|()| dir.check_empty())
}

fn play(dir: &ScratchDir, scene: Scene, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    play_to_the_end(scene, test).and_then(|()| dir.check_empty())
}

fn play_to_the_end(scene: Scene, test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    if let Err(error) = test(&scene) {
        // First what is wrong: of a long output the end may be cut off.
        eprintln!("{error:#}\n{}", scene.cluster.log_tails());
        return Err(error);
    }
    scene.cluster.down().context("stop the cluster")
}

/// Emptied and removed however the test ends.
struct ScratchDir(PathBuf);

impl ScratchDir {
    fn new(label: &str) -> Result<ScratchDir> {
        let dir = ScratchDir(scratch_dir(label)?);
        fs::create_dir(dir.files()).context("make a folder for files")?;
        Ok(dir)
    }

    fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    fn check_empty(&self) -> Result<()> {
        let left = Leftovers::of(&self.0)?;
        ensure!(left.is_empty(), "the test left {left}");
        Ok(())
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let gone = sweep(&self.0).and_then(|()| fs::remove_dir_all(&self.0).context("remove the folder"));
        if let Err(error) = gone {
            eprintln!("{} was not wholly removed: {error:#}", self.0.display());
        }
    }
}
