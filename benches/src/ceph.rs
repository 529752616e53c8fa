//! Ceph RBD on this machine for the time of a run: a monitor, a manager and three OSDs on files, on loopback, without
//! authentication. Everything is below one folder and ends with the value.
//!
//! What is set follows Ceph's manual deployment and its developers' clusters: replicas 3, two of them enough to serve,
//! a copy on each OSD and not each host, BlueStore on files that are written in full, no scrubbing, the client's cache
//! off.

use crate::fio::Engine;
use crate::target::prewritten;
use anyhow::{Context, Result, ensure};
use ashlar_tests::{run, run_ok, wait_until};
use nix::sys::signal::Signal;
use std::cell::RefCell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const OSDS: usize = 3;
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const NEEDED: [&str; 8] =
    ["ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "ceph", "rbd", "fio", "qemu-storage-daemon"];

pub(crate) struct Ceph {
    dir: PathBuf,
    monitor: Child,
    manager: Child,
    osds: RefCell<Vec<Option<Child>>>,
}

impl Ceph {
    /// `bytes_each`: of each OSD.
    pub(crate) fn start(dir: &Path, bytes_each: u64) -> Result<Ceph> {
        for program in NEEDED {
            let found = run("which", [program])?.success;
            ensure!(found, "PEERS=ceph: {program} is not installed (deploy/install.sh bench ceph)");
        }
        eprintln!("starting Ceph: a monitor, a manager, {OSDS} OSDs of {} MiB on files", bytes_each >> 20);
        for name in ["mon", "mgr", "log", "run"] {
            fs::create_dir_all(dir.join(name)).with_context(|| format!("make {}", dir.display()))?;
        }
        let fsid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("draw an id")?;
        let (fsid, address) = (fsid.trim().to_owned(), monitor_address()?);
        let conf = dir.join("ceph.conf");
        fs::write(&conf, configuration(dir, &fsid, &address)).context("write ceph.conf")?;
        let monmap = dir.join("monmap").to_string_lossy().into_owned();
        run_ok("monmaptool", ["--create", "--clobber", "--fsid", &fsid, "--addv", "a", &address, &monmap])?;
        let conf = conf.to_string_lossy().into_owned();
        run_ok("ceph-mon", ["--conf", &conf, "--mkfs", "-i", "a", "--monmap", &monmap])?;
        let monitor = daemon(dir, "ceph-mon", "a")?;
        let manager = daemon(dir, "ceph-mgr", "x")?;
        let ceph = Ceph { dir: dir.to_owned(), monitor, manager, osds: RefCell::default() };
        wait_until("Ceph's monitor", START_LIMIT, || ceph.ask(&["mon", "stat"]).map(Some))?;
        for at in 0..OSDS {
            ceph.add_osd(at, bytes_each)?;
        }
        for flag in ["noscrub", "nodeep-scrub"] {
            ceph.ask(&["osd", "set", flag])?;
        }
        ceph.ask(&["osd", "pool", "create", "rbd", "32", "32", "replicated"])?;
        ceph.ask(&["osd", "pool", "application", "enable", "rbd", "rbd"])?;
        wait_until(
            "Ceph's placement groups",
            START_LIMIT,
            || Ok(all_clean(&ceph.ask(&["pg", "stat"])?).then_some(())),
        )?;
        Ok(ceph)
    }

    fn add_osd(&self, at: usize, bytes: u64) -> Result<()> {
        let dir = self.dir.join(format!("osd-{at}"));
        fs::create_dir_all(&dir).context("make an OSD's folder")?;
        // BlueStore takes a file that is there as it is: one of holes would be measured with its first touches.
        drop(prewritten(&dir.join("block"), bytes)?);
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("draw an id")?;
        let (uuid, id) = (uuid.trim(), at.to_string());
        let given = self.ask(&["osd", "new", uuid])?;
        ensure!(given.trim() == id, "OSD {at} is called {given:?}");
        run_ok("ceph-osd", ["--conf", &self.conf(), "-i", &id, "--mkfs", "--osd-uuid", uuid])?;
        self.osds.borrow_mut().push(Some(daemon(&self.dir, "ceph-osd", &id)?));
        Ok(())
    }

    fn conf(&self) -> String {
        self.dir.join("ceph.conf").to_string_lossy().into_owned()
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let conf = self.conf();
        run_ok("ceph", [&["--conf", &conf, "--connect-timeout", "10"], arguments].concat())
    }

    /// A new image; it is not written yet.
    pub(crate) fn image(&self, name: &str, bytes: u64) -> Result<Engine> {
        let conf = self.conf();
        let size = format!("{}M", bytes >> 20);
        run_ok("rbd", ["--conf", &conf, "create", "--pool", "rbd", "--size", &size, name])?;
        Ok(Engine::Rbd { conf, image: name.to_owned() })
    }

    /// A new image as a block device: qemu's FUSE export with a loop device on it, as Ashlar's front-end is here.
    pub(crate) fn device(&self, name: &str, bytes: u64) -> Result<CephDevice> {
        let Engine::Rbd { conf, image } = self.image(name, bytes)? else { unreachable!("images are RBD's") };
        let file = self.dir.join(format!("export-{name}"));
        File::create(&file).context("make a file for the export")?;
        let node = format!("driver=rbd,node-name=rbd0,pool=rbd,image={image},conf={conf},cache.direct=on");
        let export =
            format!("type=fuse,id=export0,node-name=rbd0,mountpoint={},writable=on,growable=off", file.display());
        let process = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node, "--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .context("run qemu-storage-daemon")?;
        let exported = || Ok((fs::metadata(&file)?.len() == bytes).then_some(()));
        let mut device = CephDevice { process, device: None };
        wait_until("the export of an image", START_LIMIT, exported)?;
        let options = ["--find", "--show", "--direct-io=on", "--sector-size", "4096"];
        let printed = run_ok("losetup", options.iter().map(Path::new).chain([file.as_path()]))?;
        device.device = Some(PathBuf::from(printed.trim()));
        Ok(device)
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        let osds = self.osds.borrow();
        let all = osds.iter().flatten().chain([&self.monitor, &self.manager]);
        all.map(|child| child.id() as i32).collect()
    }

    pub(crate) fn kill_osd(&self, at: usize) -> Result<()> {
        let mut osd = self.osds.borrow_mut()[at].take().context("the OSD runs")?;
        osd.kill().context("kill an OSD")?;
        osd.wait().context("wait for a killed OSD")?;
        Ok(())
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        let mut osds = self.osds.borrow_mut();
        for child in osds.iter_mut().flatten().chain([&mut self.manager, &mut self.monitor]) {
            // Both can only fail when it has just ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `33 pgs: 33 active+clean; 0 B data, ...`: there may be pools that Ceph makes for itself.
fn all_clean(status: &str) -> bool {
    let Some((count, states)) = status.split_once(" pgs: ") else { return false };
    states.starts_with(&format!("{} active+clean;", count.trim()))
}

/// An image as a block device; gone with the value.
pub(crate) struct CephDevice {
    process: Child,
    device: Option<PathBuf>,
}

impl CephDevice {
    pub(crate) fn path(&self) -> &Path {
        self.device.as_deref().expect("one that is up has its device")
    }

    pub(crate) fn close(mut self) -> Result<()> {
        if let Some(device) = self.device.take() {
            run_ok("losetup", [Path::new("--detach"), &device])?;
        }
        Ok(())
    }
}

impl Drop for CephDevice {
    fn drop(&mut self) {
        if let Some(device) = self.device.take() {
            // The run's folder is swept, which finds it too.
            let _ = run("losetup", [Path::new("--detach"), &device]);
        }
        // Asked to end it unmounts its export, unless it waits for OSDs that are gone. Signals can only fail when it
        // has just ended.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        if wait_until("an export to end", STOP_LIMIT, || Ok(self.process.try_wait()?)).is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// In the foreground, so that it is this process's own to end.
fn daemon(dir: &Path, program: &str, id: &str) -> Result<Child> {
    let log = File::create(dir.join(format!("log/{program}.{id}.out"))).context("make a log")?;
    Command::new(program)
        .arg("--conf")
        .arg(dir.join("ceph.conf"))
        .args(["-i", id, "-f"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("run {program}"))
}

/// Both of its protocols, on ports that nobody listens on now.
fn monitor_address() -> Result<String> {
    let free = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    Ok(format!("[v2:127.0.0.1:{}/0,v1:127.0.0.1:{}/0]", free()?, free()?))
}

fn configuration(dir: &Path, fsid: &str, address: &str) -> String {
    let dir = dir.display();
    format!(
        "[global]\n\
         fsid = {fsid}\n\
         mon_host = {address}\n\
         mon_initial_members = a\n\
         auth_cluster_required = none\n\
         auth_service_required = none\n\
         auth_client_required = none\n\
         public_addr = 127.0.0.1\n\
         run_dir = {dir}/run\n\
         admin_socket = {dir}/run/$name.$pid.asok\n\
         pid_file = {dir}/run/$name.pid\n\
         crash_dir = {dir}/run\n\
         log_file = {dir}/log/$name.log\n\
         mon_data = {dir}/mon\n\
         mgr_data = {dir}/mgr\n\
         osd_data = {dir}/osd-$id\n\
         osd_objectstore = bluestore\n\
         osd_crush_chooseleaf_type = 0\n\
         osd_pool_default_size = 3\n\
         osd_pool_default_min_size = 2\n\
         osd_pool_default_pg_autoscale_mode = off\n\
         osd_memory_target = 1073741824\n\
         osd_crush_update_on_start = true\n\
         mon_data_avail_crit = 1\n\
         rbd_cache = false\n\
         debug_ms = 0/0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_groups_are_all_clean_or_not() {
        assert!(all_clean("33 pgs: 33 active+clean; 0 B data, 871 MiB used"));
        assert!(!all_clean("33 pgs: 26 active+clean, 1 unknown, 6 peering; 0 B data"));
        assert!(!all_clean("32 pgs: 32 unknown; 0 B data") && !all_clean(""));
    }

    #[test]
    fn everything_of_ceph_is_below_its_folder() {
        let text = configuration(Path::new("/x/ceph"), "f", "[v2:127.0.0.1:1/0,v1:127.0.0.1:2/0]");
        for line in text.lines().filter(|line| line.contains("= /")) {
            assert!(line.contains("= /x/ceph/"), "{line}");
        }
        assert!(text.contains("osd_pool_default_size = 3") && text.contains("rbd_cache = false"));
    }
}
