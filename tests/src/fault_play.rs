//! A guest at work on a volume while something below one of its replicas goes wrong.

use crate::{NbdClient, Scene, StampedGuest, nbd_socket, wait_until};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::Member;
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

const VOLUME: &str = "v";
const VOLUME_SIZE: &str = "192M";
/// So many that after the first writes most places are still to be given out.
const GUEST_BLOCKS: usize = (128 << 20) / 4096;
const FAULT_LIMIT: Duration = Duration::from_secs(30);
const RESYNC_LIMIT: Duration = Duration::from_secs(120);
const FIRST_WRITES: u64 = 500;
const WRITES_BEFORE_FAULT: u64 = 300;
const WRITES_AT_A_TIME: u64 = 100;
const WRITES_AFTER_FAULT: u64 = 1000;

/// What `ashlar events --json` prints.
#[derive(Deserialize)]
pub struct ToldEvent {
    pub kind: String,
    pub disk: Option<String>,
    pub text: String,
}

/// A guest on a volume of three replicas, attached on n1, and the node whose disk is to fail.
pub struct FaultPlay<'a> {
    pub scene: &'a Scene,
    pub volume: &'static str,
    node: &'static str,
    client: NbdClient,
    guest: StampedGuest,
}

impl<'a> FaultPlay<'a> {
    /// The same seed gives the same writes.
    pub fn begin(scene: &'a Scene, node: &'static str, seed: u64) -> Result<FaultPlay<'a>> {
        scene.cluster.cli(&["volume", "create", VOLUME, "--size", VOLUME_SIZE, "--node", "n1"])?;
        let uri = scene.cluster.attach(VOLUME, "n1", "nbd")?;
        let client = NbdClient::connect(&nbd_socket(&uri)?)?;
        let guest = StampedGuest::new(GUEST_BLOCKS, seed);
        let mut play = FaultPlay { scene, volume: VOLUME, node, client, guest };
        play.write(FIRST_WRITES)?;
        Ok(play)
    }

    pub fn write(&mut self, writes: u64) -> Result<()> {
        self.guest.write(&mut self.client, writes, &AtomicU64::new(0))
    }

    /// Reads everything: what was acknowledged is there.
    pub fn verify(&mut self) -> Result<()> {
        self.guest.verify(&mut self.client)
    }

    /// The fault strikes in the middle of writes, 1000 of which come after it; each must be acknowledged.
    pub fn write_through(&mut self, fault: impl FnOnce() -> Result<()>) -> Result<()> {
        let (guest, client) = (&mut self.guest, &mut self.client);
        let (done, struck) = (&AtomicU64::new(0), &AtomicBool::new(false));
        std::thread::scope(|threads| {
            let load = threads.spawn(|| {
                while !struck.load(Ordering::SeqCst) {
                    guest.write(client, WRITES_AT_A_TIME, done)?;
                }
                guest.write(client, WRITES_AFTER_FAULT, done)
            });
            let some = || Ok((done.load(Ordering::SeqCst) > WRITES_BEFORE_FAULT).then_some(()));
            let outcome = wait_until("some writes", FAULT_LIMIT, some).and_then(|()| fault().context("make the fault"));
            struck.store(true, Ordering::SeqCst);
            load.join().expect("the guest does not panic").context("the guest writes through the fault")?;
            outcome
        })
    }

    /// Of the node whose disk fails.
    pub fn chunkserver(&self) -> String {
        format!("chunkserver-{}", self.node)
    }

    /// The replica there.
    pub fn member(&self) -> Result<Member> {
        let members = self.scene.cluster.members(VOLUME)?;
        members.into_iter().find(|member| member.node == self.node).context("the disk is a member")
    }

    /// The longest time in which writes waited and none was completed.
    pub fn longest_gap_ms(&self) -> Result<u64> {
        let id = self.scene.cluster.volume(VOLUME)?.id;
        Ok(self.scene.cluster.attached("n1", &id)?.longest_gap_ms)
    }

    pub fn repaired_blocks(&self) -> Result<u64> {
        let id = self.scene.cluster.volume(VOLUME)?.id;
        Ok(self.scene.cluster.attached("n1", &id)?.repaired_blocks)
    }

    /// Of this kind, about this disk, oldest first.
    pub fn events(&self, kind: &str) -> Result<Vec<ToldEvent>> {
        let disk = self.member()?.disk;
        let printed = self.scene.cluster.cli(&["events", "--last", "5000", "--json"])?;
        let events: Vec<ToldEvent> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(events.into_iter().filter(|event| event.kind == kind && event.disk.as_ref() == Some(&disk)).collect())
    }

    pub fn restart_chunkserver(&self) -> Result<()> {
        self.scene.cluster.kill(&self.chunkserver(), Signal::SIGKILL)?;
        self.scene.cluster.start(&self.chunkserver())
    }

    /// The replica returns while the guest writes; all that was acknowledged is there, on all replicas alike.
    pub fn end(mut self) -> Result<()> {
        self.write(300)?;
        self.scene.cluster.wait_in_sync(VOLUME, RESYNC_LIMIT)?;
        self.verify()?;
        self.client.close()?;
        self.scene.cluster.detach(VOLUME)?;
        let compared: serde_json::Value = self.scene.cluster.cli_json(&["volume", "compare", VOLUME])?;
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "compared: {compared}");
        Ok(())
    }
}
