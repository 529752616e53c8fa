//! Limits of volumes on real daemons: what a guest gets is bounded, ends well, and changes while it runs.
//!
//! Speed is not asserted: only that no more was done in a time than the limit allows, and that without the limit the
//! same takes a small part of that time.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{NbdClient, Scene, nbd_socket, on_cluster, run_ok, wait_until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const BLOCK_BYTES: u64 = 4096;
const SIZE: &str = "64M";
/// Requests under way at a time: fewer than a connection may have.
const DEPTH: u64 = 32;

fn connect(uri: &str) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(uri)?)
}

fn submit(client: &mut NbdClient, number: u64) -> Result<u64> {
    client.submit_write(number * BLOCK_BYTES, &[number as u8; BLOCK_BYTES as usize])
}

/// Writes so many blocks, some at a time; tells of each answer how many there are, and how long after the beginning.
fn write(
    client: &mut NbdClient,
    count: u64,
    mut answered: impl FnMut(u64, Duration) -> Result<()>,
) -> Result<Duration> {
    let began = Instant::now();
    for number in 0..count.min(DEPTH) {
        submit(client, number)?;
    }
    for number in 1..=count {
        let reply = client.next_reply()?;
        ensure!(reply.error == 0, "a write was answered with error {}", reply.error);
        answered(number, began.elapsed())?;
        if number + DEPTH <= count {
            submit(client, number + DEPTH - 1)?;
        }
    }
    Ok(began.elapsed())
}

/// Until then, so many operations may have been answered.
fn check_limit(answered: u64, after: Duration, per_second: u64, burst: u64) -> Result<()> {
    let allowed = burst as f64 + per_second as f64 * after.as_secs_f64();
    ensure!(answered as f64 <= allowed, "{answered} operations within {after:?}, {allowed:.1} are allowed");
    Ok(())
}

fn metric(scene: &Scene, name: &str) -> Result<f64> {
    scene.cluster.metric("datapath-n1", &format!("ashlar_datapath_{name}"))
}

/// The limit that the datapath works by is the catalog's.
fn wait_settings(scene: &Scene, volume: &str) -> Result<()> {
    wait_until("the datapath to have the volume's settings", Duration::from_secs(30), || {
        let shown = scene.cluster.volume(volume)?;
        let wanted = shown.settings.context("a volume has settings")?.version;
        Ok((scene.cluster.attached("n1", &shown.id)?.settings_version == wanted).then_some(()))
    })
}

#[test]
fn a_limit_bounds_a_guest_and_a_higher_one_counts_while_it_runs() -> Result<()> {
    const LIMIT: u64 = 50;
    const BURST: u64 = 25;
    on_cluster("limits", |scene| {
        let cluster = &scene.cluster;
        cluster.cli(&[
            "volume",
            "create",
            "v",
            "--size",
            SIZE,
            "--param",
            "iopsLimit=50",
            "--param",
            "iopsBurst=25",
        ])?;
        let mut client = connect(&cluster.attach("v", "n1", "nbd")?)?;
        let slow = write(&mut client, 200, |answered, after| check_limit(answered, after, LIMIT, BURST))?;
        ensure!(metric(scene, "limit_held_seconds_count")? >= 150.0, "most of them were held back");
        ensure!(metric(scene, "limit_held_seconds_sum")? > 1.0, "for some time");
        ensure!(metric(scene, "limit_admitted_total")? == 200.0 * (1 + BLOCK_BYTES) as f64, "each is counted once");
        ensure!(metric(scene, "longest_gap_seconds")? < slow.as_secs_f64() / 2.0, "a limit is no gap");
        ensure!(cluster.cli(&["volume", "show", "v"])?.contains("50 per second, burst 25"));

        // Under way, with others waiting, it is lifted: the rest takes a part of what it would have.
        let mut changed_at = None;
        let all = write(&mut client, 400, |answered, after| {
            if answered == 50 {
                cluster.cli(&["volume", "modify", "v", "--iops-limit", "none"])?;
                changed_at = Some(after);
            }
            Ok(())
        })?;
        let rest = all - changed_at.context("it was changed")?;
        ensure!(rest < Duration::from_secs(350 / LIMIT) / 2, "350 writes without a limit took {rest:?}");
        ensure!(metric(scene, "limit_per_second")? == 0.0 && metric(scene, "limit_held_operations")? == 0.0);
        let fast = write(&mut client, 200, |_, _| Ok(()))?;
        ensure!(fast < slow / 2, "{fast:?} without a limit, {slow:?} with it");
        client.flush()?;
        client.close()
    })
}

#[test]
fn bytes_are_limited_and_a_device_of_the_kernel_is_as_well() -> Result<()> {
    on_cluster("limits-fuse", |scene| {
        let cluster = &scene.cluster;
        cluster.cli(&["volume", "create", "v", "--size", SIZE])?;
        let limits = ["--bandwidth-limit", "256K", "--bandwidth-burst", "128K"];
        cluster.cli(&[&["volume", "modify", "v"], &limits[..]].concat())?;
        let device = cluster.attach("v", "n1", "fuse")?;
        let began = Instant::now();
        run_ok("dd", ["if=/dev/zero", &format!("of={device}"), "bs=32k", "count=24", "oflag=direct", "status=none"])?;
        // In units of 4 KiB.
        check_limit(24 * 8, began.elapsed(), 64, 32)?;
        cluster.cli(&["volume", "modify", "v", "--bandwidth-limit", "none", "--class", "low"])?;
        ensure!(metric(scene, "limit_per_second")? == 0.0);
        cluster.detach("v")
    })
}

#[test]
fn what_is_held_back_is_done_when_the_volume_is_detached() -> Result<()> {
    on_cluster("limits-detach", |scene| {
        let cluster = &scene.cluster;
        cluster.cli(&["volume", "create", "v", "--size", SIZE, "--param", "iopsLimit=1", "--param", "iopsBurst=1"])?;
        let mut client = connect(&cluster.attach("v", "n1", "nbd")?)?;
        for number in 0..100 {
            submit(&mut client, number)?;
        }
        // All of them have come, and a flush waits for none.
        let flushed = client.submit_flush()?;
        while client.next_reply()?.cookie != flushed {}
        drop(client);
        wait_until("the client to be gone", Duration::from_secs(30), || {
            Ok(cluster.try_cli(&["volume", "detach", "v"])?.success.then_some(()))
        })?;
        let mut client = connect(&cluster.attach("v", "n2", "nbd")?)?;
        cluster.cli(&["volume", "modify", "v", "--iops-limit", "none"])?;
        for number in 0..100u64 {
            let block = client.read(number * BLOCK_BYTES, BLOCK_BYTES as u32)?;
            ensure!(block.iter().all(|&byte| byte == number as u8), "write {number} is missing");
        }
        client.close()
    })
}

#[test]
fn a_datapath_that_could_not_be_told_takes_the_change_up_when_it_is_back() -> Result<()> {
    on_cluster("limits-stopped", |scene| {
        let cluster = &scene.cluster;
        cluster.cli(&["volume", "create", "v", "--size", SIZE])?;
        let uri = cluster.attach("v", "n1", "nbd")?;
        cluster.kill("datapath-n1", Signal::SIGSTOP)?;
        cluster.cli(&["volume", "modify", "v", "--iops-limit", "50", "--iops-burst", "5"])?;
        ensure!(cluster.cli(&["volume", "show", "v"])?.contains("50 per second, burst 5"));
        let refused = cluster.try_cli(&["volume", "modify", "v", "--min-replicas", "1"])?;
        ensure!(!refused.success && refused.stderr.contains("detached"), "{}", refused.stderr);
        cluster.kill("datapath-n1", Signal::SIGCONT)?;
        wait_settings(scene, "v")?;
        let mut client = connect(&uri)?;
        write(&mut client, 50, |answered, after| check_limit(answered, after, 50, 5))?;
        client.close()
    })
}
