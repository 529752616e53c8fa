//! Everything is killed in the middle of a run; then every write that was acknowledged in it is read back. A figure of
//! speed that was had by losing data would be worth nothing.

use super::NODES;
use crate::report::{Bar, Figure};
use anyhow::{Context, Result, ensure};
use ashlar_tests::{DevCluster, NbdClient, StampedGuest, nbd_socket, wait_until};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const VOLUME: &str = "stamped";
const BLOCKS: usize = 16 << 10;
const WRITES: u64 = 3000;
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn measure(cluster: &DevCluster) -> Result<Figure> {
    eprintln!("everything is killed under load, and what was acknowledged is read back");
    let bytes = (BLOCKS as u64 * ashlar_types::BLOCK_BYTES).to_string();
    cluster.cli(&["volume", "create", VOLUME, "--size", &bytes, "--node", NODES[0]])?;
    let attach = || NbdClient::connect(&nbd_socket(&cluster.attach(VOLUME, NODES[0], "nbd")?)?);
    let (mut client, mut guest, done) = (attach()?, StampedGuest::new(BLOCKS, 1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| guest.write(&mut client, u64::MAX, &done));
        let enough = || done.load(Ordering::SeqCst) >= WRITES;
        wait_until("some writes", LIMIT, || Ok((enough() || load.is_finished()).then_some(())))?;
        ensure!(enough(), "the load ended early");
        cluster.kill("all", Signal::SIGKILL)?;
        let broken = load.join().expect("the guest does not panic");
        ensure!(broken.is_err(), "a load without end ends by the kill");
        Ok(())
    })?;
    cluster.up_again()?;
    let mut client = attach().context("attach after everything was killed")?;
    let intact = guest.verify(&mut client);
    client.close()?;
    cluster.detach(VOLUME)?;
    let (lost, detail) = match intact {
        Ok(()) => (0.0, format!("{} writes acknowledged, all read back", done.load(Ordering::SeqCst))),
        Err(error) => (1.0, format!("{error:#}")),
    };
    let name = "acknowledged writes lost when everything was killed";
    Ok(Figure::of_rounds(name, "", vec![lost], Bar::AtMost(0.0), detail))
}
