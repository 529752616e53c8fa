//! How fast a replica is made on another disk: with nobody at work, beside a raw copy of as many bytes; and under a
//! guest, who must hardly feel it.

use super::{HOME, LIMIT, RebuildPlan, VOLUME, raw};
use crate::guest::{Guest, p99, spread, under_writers};
use crate::idle;
use crate::report::{Bar, Figure};
use anyhow::{Context, Result};
use ashlar_rpc::control::{Volume, VolumeRef, cluster_client::ClusterClient};
use ashlar_tests::{DevCluster, NbdClient, holders, in_sync, nbd_socket, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const WRITE_BYTES: u64 = 1 << 20;
/// The guest's: one write of 4 KiB in about so much time, over as many places.
const PAUSE: Duration = Duration::from_millis(5);
const PLACES: u64 = 4096;

struct Stage<'a> {
    cluster: &'a DevCluster,
    client: ClusterClient<Channel>,
    plan: &'a RebuildPlan,
}

/// From when the lost disk was given up until another one was in-sync.
#[derive(Clone, Copy)]
struct Rebuilt {
    began: Instant,
    ended: Instant,
}

pub(crate) fn measure(cluster: &DevCluster, dir: &Path, plan: &RebuildPlan) -> Result<Vec<Figure>> {
    let stage = Stage { cluster, client: cluster.client()?, plan };
    stage.make_volume()?;
    let (mut of_raw, mut of_idle, mut latencies) = (vec![], vec![], vec![]);
    let (mut idle_detail, mut loaded_detail, mut latency_detail) = (String::new(), String::new(), String::new());
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}: a raw copy, a rebuild, a rebuild under a guest", plan.rounds);
        idle::wait_until_quiet(cluster)?;
        let raw = stage.rate(raw::copy(dir, plan.volume_bytes)?);
        idle::wait_until_quiet(cluster)?;
        let idle = stage.rate(stage.rebuild_alone()?);
        idle::wait_until_quiet(cluster)?;
        let (quiet, busy, took) = stage.rebuild_under_guest()?;
        let loaded = stage.rate(took);
        eprintln!(
            "  raw {raw:.0} MiB/s, nobody at work {idle:.0}, under a guest {loaded:.0}; p99 {} us, quiet {} us",
            busy.as_micros(),
            quiet.as_micros()
        );
        of_raw.push(idle / raw);
        of_idle.push(loaded / idle);
        latencies.push(busy.as_secs_f64() / quiet.as_secs_f64());
        idle_detail = format!("last round: {idle:.0} MiB/s against {raw:.0} MiB/s");
        loaded_detail = format!("last round: {loaded:.0} MiB/s against {idle:.0} MiB/s");
        latency_detail = format!("last round: {} us against {} us", busy.as_micros(), quiet.as_micros());
    }
    Ok(vec![
        Figure::of_rounds("rebuild, nobody at work / raw copy", "x", of_raw, Bar::AtLeast(0.8), idle_detail),
        Figure::of_rounds("guest's write p99, rebuild / quiet", "x", latencies, Bar::AtMost(1.3), latency_detail),
        Figure::of_rounds("rebuild under a guest / nobody at work", "x", of_idle, Bar::AtLeast(0.25), loaded_detail),
    ])
}

impl Stage<'_> {
    fn make_volume(&self) -> Result<()> {
        let bytes = self.plan.volume_bytes;
        eprintln!("writing {} MiB", bytes >> 20);
        self.cluster.cli(&["volume", "create", VOLUME, "--size", &bytes.to_string(), "--node", HOME])?;
        let data = vec![0x5a; WRITE_BYTES as usize];
        let mut client = self.attach()?;
        (0..bytes / WRITE_BYTES).try_for_each(|piece| client.write(piece * WRITE_BYTES, &data))?;
        self.detach(client)
    }

    /// Anew for each loss: a disk that was replaced takes nothing of the volume as long as its writer lives.
    fn attach(&self) -> Result<NbdClient> {
        NbdClient::connect(&nbd_socket(&self.cluster.attach(VOLUME, HOME, "nbd")?)?)
    }

    fn detach(&self, client: NbdClient) -> Result<()> {
        client.close()?;
        self.cluster.detach(VOLUME)
    }

    fn rebuild_alone(&self) -> Result<Duration> {
        let client = self.attach()?;
        let rebuilt = self.rebuild()?;
        self.detach(client)?;
        Ok(rebuilt.ended - rebuilt.began)
    }

    /// The guest's 99th percentile before and meanwhile, and how long it took.
    fn rebuild_under_guest(&self) -> Result<(Duration, Duration, Duration)> {
        let offsets = spread(PLACES, self.plan.volume_bytes);
        let mut guest = [Guest { client: self.attach()?, offsets, pause: PAUSE }];
        let began = Instant::now();
        let mut rebuilt = None;
        let written = under_writers(&mut guest, |_| {
            self.wait_for(self.plan.quiet)?;
            rebuilt = Some(self.rebuild()?);
            Ok(())
        })?;
        let Rebuilt { began: from, ended } = rebuilt.context("the guest wrote through a rebuild")?;
        let [quiet, busy] = [p99(&written[0], began, began + self.plan.quiet), p99(&written[0], from, ended)];
        let [guest] = guest;
        self.detach(guest.client)?;
        Ok((quiet, busy, ended - from))
    }

    /// MiB/s, of the whole volume.
    fn rate(&self, took: Duration) -> f64 {
        (self.plan.volume_bytes >> 20) as f64 / took.as_secs_f64()
    }

    fn volume(&self) -> Result<Volume> {
        let request = VolumeRef { volume: VOLUME.to_owned() };
        Ok(self.cluster.block_on(self.client.clone().get_volume(request)).context("GetVolume")?.into_inner())
    }

    /// A chunkserver is killed, its replica made elsewhere; then it is started again, and gives back what it had.
    fn rebuild(&self) -> Result<Rebuilt> {
        let of_volume = holders(&self.volume()?);
        let lost = of_volume.into_iter().map(|(node, _)| node).find(|node| node != HOME);
        let lost = lost.context("a replica on another node")?;
        let chunkserver = format!("chunkserver-{lost}");
        self.cluster.kill(&chunkserver, Signal::SIGKILL)?;
        let is_elsewhere = |volume: &Volume| holders(volume).iter().all(|(node, _)| *node != lost);
        let began = wait_until("another disk to take the place", LIMIT, || {
            Ok(is_elsewhere(&self.volume()?).then(Instant::now))
        })?;
        let ended =
            wait_until("the volume to be whole", LIMIT, || Ok((in_sync(&self.volume()?) == 3).then(Instant::now)))?;
        self.cluster.start(&chunkserver)?;
        wait_until("what was there to be given back", LIMIT, || {
            let disks: Vec<Disk> = self.cluster.cli_json(&["disk", "list"])?;
            Ok(disks.iter().all(|disk| disk.node != lost || disk.provisioned_bytes == 0).then_some(()))
        })?;
        Ok(Rebuilt { began, ended })
    }

    fn wait_for(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        wait_until("time to pass", LIMIT, || Ok((Instant::now() >= end).then_some(())))
    }
}

#[derive(Deserialize)]
struct Disk {
    node: String,
    provisioned_bytes: u64,
}
