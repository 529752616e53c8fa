//! A volume that many nodes read: restored from a snapshot of a busy one, mounted everywhere at once, the same
//! everywhere, and never another one.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::{AttachRole, AttachVolumeRequest, Frontend, ListNodesRequest};
use ashlar_rpc::csi::{
    ControllerGetVolumeRequest, VolumeCapability,
    volume_capability::{AccessMode, access_mode::Mode},
};
use ashlar_tests::{
    DevCluster, FileLoad, Kubelet, MountedVolume, NbdClient, Scene, check_files, nbd_socket, on_cluster_with, run,
    wait_until,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(120);
/// mkfs.xfs makes nothing below 300 MiB.
const FILESYSTEM_BYTES: i64 = 320 << 20;
const RAW_BYTES: i64 = 64 << 20;
/// Room for an origin and its clone, promised in full.
const DISK_SIZE: &str = "1G";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const BLOCK: usize = 4096;

fn with_mode(capability: &VolumeCapability, mode: Mode) -> VolumeCapability {
    VolumeCapability { access_mode: Some(AccessMode { mode: mode as i32 }), ..capability.clone() }
}

fn for_many(capability: &VolumeCapability) -> VolumeCapability {
    with_mode(capability, Mode::MultiNodeReaderOnly)
}

fn refusal<T>(result: Result<T>) -> Result<Status> {
    match result {
        Ok(_) => bail!("the call was not refused"),
        Err(error) => Ok(error.downcast_ref::<Status>().context("a refusal by the driver")?.clone()),
    }
}

/// One node that reads.
struct Pod {
    kubelet: Kubelet,
    volume: MountedVolume,
}

impl Pod {
    fn new(cluster: &DevCluster, node: &str, volume: &MountedVolume) -> Result<Pod> {
        let kubelet = cluster.kubelet(node)?;
        let volume = volume.on(&kubelet);
        Ok(Pod { kubelet, volume })
    }

    /// As a kubelet does: one that is told to come again comes again.
    fn mount(&self) -> Result<()> {
        wait_until("the volume to be mounted", LIMIT, || match self.kubelet.mount(&self.volume) {
            Ok(()) => Ok(Some(())),
            Err(error) => match error.downcast_ref::<Status>().map(Status::code) {
                Some(Code::Aborted | Code::Unavailable) => Ok(None),
                _ => Err(error),
            },
        })
    }

    fn unmount(&self) -> Result<()> {
        self.kubelet.unmount(&self.volume)
    }

    /// Every file's content, from the volume and not from this machine's memory.
    fn files(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.volume.target.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let content = read_anew(&path).with_context(|| format!("read {}", path.display()))?;
                    files.insert(path.strip_prefix(&self.volume.target)?.to_owned(), content);
                }
            }
        }
        Ok(files)
    }
}

fn read_anew(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let mut content = vec![];
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn mount_all(pods: &[Pod]) -> Result<()> {
    pods.iter().try_for_each(Pod::mount)
}

fn published(kubelet: &Kubelet, volume_id: &str) -> Result<Vec<String>> {
    let request = ControllerGetVolumeRequest { volume_id: volume_id.to_owned() };
    let answer = kubelet.block_on(async {
        Ok::<_, anyhow::Error>(kubelet.controller().await?.controller_get_volume(request).await?)
    })?;
    Ok(answer.into_inner().status.context("a status")?.published_node_ids)
}

/// Mounts on all nodes at the same time; each from a thread of its own, as the kubelets that they play.
fn mount_at_once(cluster: &DevCluster, volume: &MountedVolume) -> Result<Vec<Pod>> {
    std::thread::scope(|scope| {
        let threads = NODES.map(|node| {
            scope.spawn(move || {
                let pod = Pod::new(cluster, node, volume)?;
                pod.mount().with_context(|| format!("mount on {node}"))?;
                Ok(pod)
            })
        });
        threads.into_iter().map(|thread| thread.join().expect("a pod's thread does not panic")).collect()
    })
}

fn many_read_a_snapshot_of_a_busy_filesystem(scene: &Scene, fs_type: &str) -> Result<()> {
    let cluster = &scene.cluster;
    let kubelet = cluster.kubelet("n1")?;
    let capability = Kubelet::mount_capability(fs_type);
    let origin = kubelet.create("origin", FILESYSTEM_BYTES, capability.clone())?;
    kubelet.mount(&origin)?;
    let load = FileLoad::start(&origin.target.join("load"), 2)?;
    load.wait_for_more(10)?;
    let synced = load.synced();
    let snapshot = cluster.take_snapshot(&origin.id, "s")?;
    let begun = load.begun();
    load.wait_for_more(5)?;

    let volume = kubelet.restore("shared", FILESYSTEM_BYTES, for_many(&capability), &snapshot)?;
    let pods = mount_at_once(cluster, &volume)?;
    load.stop()?;
    let first = pods[0].files()?;
    for pod in &pods {
        ensure!(check_files(&pod.volume.target.join("load"), &synced, &begun)? > 0, "files were synced before");
        ensure!(pod.files()? == first, "every node reads the same");
        let refused = fs::write(pod.volume.target.join("own"), b"x").err().context("a write is refused")?;
        ensure!(refused.raw_os_error() == Some(nix::errno::Errno::EROFS as i32), "{refused}");
    }
    ensure!(published(&kubelet, &volume.id)? == NODES, "every node is told of");
    let shown = cluster.cli(&["volume", "show", &volume.id])?;
    ensure!(shown.contains("n1, n2, n3"), "{shown}");
    for node in NODES {
        ensure!(cluster.attached(node, &volume.id)?.phase == "reading", "{node} reads");
    }

    cluster.kill("chunkserver-n2", Signal::SIGKILL)?;
    for pod in &pods {
        ensure!(pod.files()? == first, "with the replica of n2 gone");
    }
    cluster.start("chunkserver-n2")?;
    cluster.kill("datapath-n3", Signal::SIGKILL)?;
    cluster.start("datapath-n3")?;
    pods[2].unmount().context("what the dead datapath left")?;
    mount_all(&pods[2..])?;
    ensure!(pods[2].files()? == first, "with a new datapath");
    refused_while_many_read(cluster, &pods, &volume, &capability)?;

    kubelet.unmount(&origin)?;
    cluster.delete_snapshot("s")?;
    kubelet.delete(&origin)?;
    for pod in &pods {
        ensure!(pod.files()? == first, "without snapshot and source");
        pod.unmount()?;
    }
    mount_all(&pods[..1])?;
    ensure!(pods[0].files()? == first, "mounted again, as nobody wrote meanwhile");
    pods[0].unmount()?;
    kubelet.delete(&volume)
}

/// The last of them leaves, to ask for what a stranger may not have.
fn refused_while_many_read(
    cluster: &DevCluster,
    pods: &[Pod],
    volume: &MountedVolume,
    capability: &VolumeCapability,
) -> Result<()> {
    let last = &pods[2];
    last.unmount()?;
    let writer = MountedVolume { capability: capability.clone(), ..volume.on(&last.kubelet) };
    let told = |what: &str, status: Status| {
        let names = status.message().contains("n1, n2") && status.message().contains("unpublish");
        ensure!(status.code() == Code::FailedPrecondition && names, "{what}: {status}");
        Ok(())
    };
    told("publish for writing", refusal(last.kubelet.publish(&writer))?)?;
    told("delete", refusal(last.kubelet.delete(volume))?)?;
    let attached = cluster.try_cli(&["volume", "attach", &volume.id, "--node", "n3", "--frontend", "nbd"])?;
    ensure!(!attached.success && attached.stderr.contains("n1, n2"), "attach: {}", attached.stderr);
    told("expand", refusal(pods[0].kubelet.expand(&pods[0].volume, 2 * FILESYSTEM_BYTES))?)?;
    let otherwise = MountedVolume { capability: capability.clone(), ..volume.on(&pods[0].kubelet) };
    ensure!(refusal(pods[0].kubelet.publish(&otherwise))?.code() == Code::AlreadyExists);
    mount_all(&pods[2..])
}

#[test]
fn many_nodes_read_a_snapshot_of_a_busy_ext4() -> Result<()> {
    on_cluster_with("readers-ext4", DISK_SIZE, |scene| many_read_a_snapshot_of_a_busy_filesystem(scene, "ext4"))
}

#[test]
fn many_nodes_read_a_snapshot_of_a_busy_xfs() -> Result<()> {
    on_cluster_with("readers-xfs", DISK_SIZE, |scene| many_read_a_snapshot_of_a_busy_filesystem(scene, "xfs"))
}

/// As a node service leaves it that is stopped on the way: attached to be made ready, and not mounted yet.
#[test]
fn a_volume_that_was_left_half_ready_is_made_ready_by_the_next() -> Result<()> {
    on_cluster_with("readers-half", DISK_SIZE, |scene| {
        let cluster = &scene.cluster;
        let kubelet = cluster.kubelet("n1")?;
        let capability = Kubelet::mount_capability("ext4");
        let origin = kubelet.create("origin", FILESYSTEM_BYTES, capability.clone())?;
        kubelet.mount(&origin)?;
        let load = FileLoad::start(&origin.target.join("load"), 1)?;
        load.wait_for_more(5)?;
        let snapshot = cluster.take_snapshot(&origin.id, "s")?;
        load.stop()?;
        let volume = kubelet.restore("shared", FILESYSTEM_BYTES, for_many(&capability), &snapshot)?;
        let pods = NODES.map(|node| Pod::new(cluster, node, &volume)).into_iter().collect::<Result<Vec<_>>>()?;
        for pod in &pods {
            pod.kubelet.publish(&pod.volume)?;
        }
        let settler = AttachVolumeRequest {
            volume: volume.id.clone(),
            node: "n1".to_owned(),
            frontend: Frontend::Fuse as i32,
            keeps_use: true,
            role: AttachRole::Settler as i32,
            ..AttachVolumeRequest::default()
        };
        let mut client = cluster.client()?;
        cluster.block_on(client.attach_volume(settler)).context("attach to make it ready")?;
        let early = refusal(pods[1].kubelet.mount(&pods[1].volume))?;
        ensure!(early.code() == Code::Aborted && early.message().contains("n1"), "{early}");
        // A clean close alone says nothing of the journal: read as it is, it could not be mounted.
        pods[0].unmount().context("leave it half ready")?;
        pods[1].mount().context("the next one makes it ready")?;
        pods[2].mount()?;
        let first = pods[1].files()?;
        ensure!(first.len() >= 5 && pods[2].files()? == first, "both read the same");
        pods[1..].iter().try_for_each(Pod::unmount)?;
        kubelet.unmount(&origin)
    })
}

/// A raw volume that two nodes read, and what its blocks begin with.
fn raw_volume(cluster: &DevCluster) -> Result<(Vec<Pod>, Vec<u8>)> {
    let kubelet = cluster.kubelet("n1")?;
    let capability = Kubelet::block_capability();
    let origin = kubelet.create("raw", RAW_BYTES, capability.clone())?;
    kubelet.mount(&origin)?;
    let content: Vec<u8> = (0..256 * BLOCK).map(|at| (at / BLOCK) as u8).collect();
    let mut device = fs::OpenOptions::new().write(true).open(&origin.target)?;
    device.write_all(&content)?;
    device.sync_all()?;
    drop(device);
    let snapshot = cluster.take_snapshot(&origin.id, "s")?;
    let volume = kubelet.restore("shared", RAW_BYTES, for_many(&capability), &snapshot)?;
    let pods: Vec<Pod> = ["n2", "n3"].iter().map(|node| Pod::new(cluster, node, &volume)).collect::<Result<_>>()?;
    mount_all(&pods)?;
    kubelet.unmount(&origin)?;
    Ok((pods, content))
}

#[test]
fn two_nodes_read_a_raw_volume() -> Result<()> {
    on_cluster_with("readers-raw", DISK_SIZE, |scene| {
        let (pods, content) = raw_volume(&scene.cluster)?;
        for pod in &pods {
            ensure!(read_anew(&pod.volume.target)?.starts_with(&content));
            let mut device = fs::OpenOptions::new().write(true).open(&pod.volume.target);
            let written = device.as_mut().map(|device| device.write_all(&[1; BLOCK]).and_then(|()| device.sync_all()));
            ensure!(!matches!(written, Ok(Ok(()))), "the device takes a write");
        }
        pods.iter().try_for_each(Pod::unmount)?;
        pods[0].kubelet.delete(&pods[0].volume)
    })
}

/// One block of a device, past the page cache; `None`: an error.
fn direct_block(device: &Path, block: u64) -> Result<Option<u8>> {
    let args = [format!("if={}", device.display()), "bs=4096".to_owned(), "count=1".to_owned()];
    let direct = [format!("skip={block}"), "iflag=direct".to_owned(), "status=none".to_owned()];
    let read = run("sh", ["-c", &format!("dd {} {} | od -An -tu1 -N1", args.join(" "), direct.join(" "))])?;
    Ok(read.stdout.trim().parse().ok())
}

/// A node that was given up for gone reads on when another one has written: errors, never what was written.
#[test]
fn a_reader_that_was_given_up_never_sees_what_the_next_writer_writes() -> Result<()> {
    on_cluster_with("readers-fenced", DISK_SIZE, |scene| {
        let cluster = &scene.cluster;
        let (pods, _) = raw_volume(cluster)?;
        let volume = pods[0].volume.id.clone();
        pods[1].unmount()?;
        let device = PathBuf::from(cluster.device("n2", &volume)?.path);
        ensure!(direct_block(&device, 7)? == Some(7), "it reads");
        cluster.kill("datapath-n2", Signal::SIGSTOP)?;
        wait_until("the node to be taken for gone", LIMIT, || {
            let mut client = cluster.client()?;
            let nodes =
                cluster.block_on(client.list_nodes(ListNodesRequest {})).context("list nodes")?.into_inner().nodes;
            Ok(nodes.iter().any(|node| node.name == "n2" && !node.datapath_alive).then_some(()))
        })?;
        cluster.cli(&["volume", "detach", &volume, "--force"])?;
        let mut writer = NbdClient::connect(&nbd_socket(&cluster.attach(&volume, "n3", "nbd")?)?)?;
        (0..64).try_for_each(|block| writer.write(block * BLOCK as u64, &[200; BLOCK]))?;
        cluster.kill("datapath-n2", Signal::SIGCONT)?;
        for block in 0..64 {
            let seen = direct_block(&device, block)?;
            ensure!(seen.is_none_or(|byte| u64::from(byte) == block), "block {block} is {seen:?}");
        }
        wait_until("the reader to be fenced", LIMIT, || Ok(direct_block(&device, 9)?.is_none().then_some(())))?;
        writer.close()?;
        cluster.detach(&volume)?;
        pods[0].unmount()?;
        cluster.cli(&["volume", "delete", &volume])?;
        Ok(())
    })
}
