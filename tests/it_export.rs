//! Snapshots into files and back, on real daemons: while the volume is written to, through
//! the death of a chunkserver and of the export, with streams that are wrong and volumes that are the wrong ones.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::MemberState;
use ashlar_tests::{NbdClient, Scene, StampedGuest, nbd_socket, on_cluster, program, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SIZE: &str = "192M";
const SIZE_BYTES: u64 = 192 << 20;
const GUEST_BLOCKS: usize = (32 << 20) / 4096;
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Difference {
    ranges: Vec<Range>,
    changed_bytes: u64,
    zeros_bytes: u64,
}

#[derive(Deserialize, PartialEq, Eq, Debug)]
struct Range {
    offset_bytes: u64,
    length_bytes: u64,
    zeros: bool,
}

fn range(block: u64, blocks: u64, zeros: bool) -> Range {
    Range { offset_bytes: block * 4096, length_bytes: blocks * 4096, zeros }
}

fn create(scene: &Scene, volume: &str, size: &str) -> Result<()> {
    scene.cluster.cli(&["volume", "create", volume, "--size", size, "--node", "n1"]).map(drop)
}

fn attach(scene: &Scene, volume: &str) -> Result<NbdClient> {
    NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, "n1", "nbd")?)?)
}

fn path(scene: &Scene, name: &str) -> String {
    scene.files().join(name).to_string_lossy().into_owned()
}

fn read_all(client: &mut NbdClient) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    for offset in (0..client.size()).step_by(1 << 20) {
        content.extend(client.read(offset, (client.size() - offset).min(1 << 20) as u32)?);
    }
    Ok(content)
}

/// What a volume holds that nobody has attached.
fn content(scene: &Scene, volume: &str) -> Result<Vec<u8>> {
    let mut client = attach(scene, volume)?;
    let content = read_all(&mut client)?;
    client.close()?;
    scene.cluster.detach(volume)?;
    Ok(content)
}

fn write(client: &mut NbdClient, block: u64, blocks: usize, fill: u8) -> Result<()> {
    client.write(block * 4096, &vec![fill; blocks * 4096])
}

fn trim(client: &mut NbdClient, block: u64, blocks: u32) -> Result<()> {
    client.submit_trim(block * 4096, blocks * 4096)?;
    ensure!(client.next_reply()?.error == 0, "a trim is answered");
    Ok(())
}

fn refused(scene: &Scene, args: &[&str], why: &str) -> Result<()> {
    let output = scene.cluster.try_cli(args)?;
    ensure!(!output.success, "ashlar {} was not refused", args.join(" "));
    ensure!(output.stderr.contains(why), "ashlar {} says {:?}, not {why:?}", args.join(" "), output.stderr);
    ensure!(output.stderr.lines().count() == 1, "one line says why, and nothing shows progress: {:?}", output.stderr);
    Ok(())
}

/// A volume with two snapshots that differ in data, zeros and nothing; gives what it held at each.
fn two_snapshots(scene: &Scene) -> Result<[Vec<u8>; 2]> {
    create(scene, "v", SIZE)?;
    let mut client = attach(scene, "v")?;
    write(&mut client, 10, 20, 1)?;
    write(&mut client, 16384 - 2, 4, 2)?;
    write(&mut client, 40000, 600, 3)?;
    scene.cluster.cli(&["snapshot", "create", "v", "a"])?;
    let first = read_all(&mut client)?;
    write(&mut client, 12, 2, 4)?;
    trim(&mut client, 14, 3)?;
    write(&mut client, 16384, 1, 5)?;
    write(&mut client, 45000, 1, 6)?;
    scene.cluster.cli(&["snapshot", "create", "v", "b"])?;
    let second = read_all(&mut client)?;
    write(&mut client, 12, 500, 7)?;
    client.close()?;
    scene.cluster.detach("v")?;
    Ok([first, second])
}

#[test]
fn what_changed_is_told_and_a_full_and_an_incremental_stream_give_the_bytes() -> Result<()> {
    on_cluster("export", |scene| {
        let [first, second] = two_snapshots(scene)?;
        let told: Difference = scene.cluster.cli_json(&["snapshot", "diff", "a", "b"])?;
        let expected = [range(12, 2, false), range(14, 3, true), range(16384, 1, false), range(45000, 1, false)];
        ensure!(told.ranges == expected, "{:?}", told.ranges);
        ensure!((told.changed_bytes, told.zeros_bytes) == (7 * 4096, 3 * 4096), "{}", told.changed_bytes);
        let table = scene.cluster.cli(&["snapshot", "diff", "a", "b"])?;
        ensure!(table.contains("changed: 28 KiB in 4 ranges, 12 KiB of it zeros"), "{table}");
        refused(scene, &["snapshot", "diff", "b", "a"], "give the older one first")?;

        let (full, since) = (path(scene, "a.ashlar"), path(scene, "a-b.ashlar"));
        scene.cluster.cli(&["snapshot", "export", "a", &full])?;
        scene.cluster.cli(&["snapshot", "export", "b", "--since", "a", &since])?;
        ensure!(fs::metadata(&since)?.len() < 5 * 4096 + 1000, "only what changed is in it");
        create(scene, "w", SIZE)?;
        refused(scene, &["snapshot", "import", "w", &since], "import a full stream of it first")?;
        scene.cluster.cli(&["snapshot", "import", "w", &full])?;
        ensure!(content(scene, "w")? == first, "a full stream gives the snapshot's bytes");
        scene.cluster.cli(&["snapshot", "import", "w", &since])?;
        ensure!(content(scene, "w")? == second, "an incremental one on it gives the later one's");
        refused(scene, &["snapshot", "import", "w", &since], "does not hold that one")?;
        let left = scene.cluster.cli(&["snapshot", "list", "--volume", "w"])?;
        ensure!(left.matches("import.").count() == 1, "one snapshot says what the volume holds: {left}");
        Ok(())
    })
}

#[test]
fn wrong_streams_and_wrong_volumes_are_refused_and_keep_what_they_hold() -> Result<()> {
    on_cluster("import-no", |scene| {
        let [first, _] = two_snapshots(scene)?;
        let (full, since) = (path(scene, "a.ashlar"), path(scene, "a-b.ashlar"));
        scene.cluster.cli(&["snapshot", "export", "a", &full])?;
        scene.cluster.cli(&["snapshot", "export", "b", "--since", "a", &since])?;
        let import = |volume: &str, file: &str, why: &str| refused(scene, &["snapshot", "import", volume, file], why);
        create(scene, "small", "128M")?;
        import("small", &full, "expand it to that first")?;
        import("v", &full, "lose what it holds with --overwrite")?;
        let client = attach(scene, "small")?;
        import("small", &full, "in use on n1")?;
        client.close()?;
        scene.cluster.detach("small")?;

        create(scene, "w", SIZE)?;
        let whole = fs::read(&full)?;
        let bad = path(scene, "bad.ashlar");
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        let mut newer = whole.clone();
        newer[8] = 2;
        for (bytes, why) in [
            (&damaged[..], "the stream is damaged at byte"),
            (&whole[..whole.len() - 1], "it was cut off"),
            (&newer[..], "the stream has version 2"),
            (&b"notes about something"[..], "this is not a stream"),
            (&[b'x'; 4096][..], "this is not a stream"),
        ] {
            fs::write(&bad, bytes)?;
            import("w", &bad, why)?;
        }
        let untouched = scene.cluster.volume("w")?;
        ensure!(untouched.r#use() == ashlar_rpc::control::Use::Blank, "nothing of it was written");

        // A volume that was written to since its import is not the base any more; its own import may be repeated.
        scene.cluster.cli(&["snapshot", "import", "w", &full])?;
        let mut client = attach(scene, "w")?;
        write(&mut client, 12, 1, 9)?;
        client.close()?;
        scene.cluster.detach("w")?;
        import("w", &since, "repeat it with --overwrite")?;
        scene.cluster.cli(&["snapshot", "import", "w", &since, "--overwrite"])?;
        let mut client = attach(scene, "w")?;
        write(&mut client, 20000, 1, 9)?;
        client.close()?;
        scene.cluster.detach("w")?;
        scene.cluster.cli(&["snapshot", "import", "w", &full, "--overwrite"])?;
        ensure!(content(scene, "w")? == first, "what the stream has not is zeros then");
        let mut client = attach(scene, "w")?;
        write(&mut client, 20000, 1, 9)?;
        client.close()?;
        scene.cluster.detach("w")?;
        refused(scene, &["snapshot", "import", "w", &since, "--overwrite"], "not by this stream")
    })
}

/// Under load, with a chunkserver dying; then the export itself is killed and goes on.
#[test]
fn an_export_goes_on_through_deaths_to_the_same_bytes() -> Result<()> {
    on_cluster("export-kill", |scene| {
        create(scene, "v", SIZE)?;
        let mut client = attach(scene, "v")?;
        for megabyte in 32..160 {
            write(&mut client, megabyte * 256, 256, megabyte as u8)?;
        }
        let done = AtomicU64::new(0);
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 11);
        guest.write(&mut client, 500, &done)?;
        scene.cluster.cli(&["snapshot", "create", "v", "s"])?;
        let expected = read_all(&mut client)?;
        let (whole, cut) = (path(scene, "whole.ashlar"), path(scene, "cut.ashlar"));
        std::thread::scope(|scope| -> Result<()> {
            let load = scope.spawn(|| guest.write(&mut client, 4000, &done));
            let before = done.load(Ordering::SeqCst);
            wait_until("writes under way", LIMIT, || Ok((done.load(Ordering::SeqCst) > before + 50).then_some(())))?;
            let mut export = start_export(scene, "s", &whole)?;
            wait_size(&whole, 1 << 20)?;
            scene.cluster.kill("chunkserver-n1", Signal::SIGKILL)?;
            ensure!(export.wait()?.success(), "the export takes the next replica");
            let mut export = start_export(scene, "s", &cut)?;
            wait_size(&cut, 1 << 20)?;
            export.kill()?;
            export.wait()?;
            load.join().expect("the guest does not panic").context("no write fails")
        })?;
        let torn = fs::metadata(&cut)?.len();
        ensure!(torn < fs::metadata(&whole)?.len(), "it was killed before its end");
        scene.cluster.cli(&["snapshot", "export", "s", &cut])?;
        ensure!(fs::read(&cut)? == fs::read(&whole)?, "an export that goes on gives the same bytes");
        refused(scene, &["snapshot", "export", "s", "--since", "s", &cut], "there is another stream already")?;
        scene.cluster.wait_member("v", "n1", MemberState::Out, LIMIT)?;
        scene.cluster.start("chunkserver-n1")?;
        scene.cluster.wait_in_sync("v", LIMIT)?;
        create(scene, "w", SIZE)?;
        let piped = format!("{0} snapshot export s - | {0} snapshot import w -", program("ashlar")?.display());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &piped]).env("ASHLAR_DIR", scene.cluster.dir()).stdin(Stdio::null());
        let piped = bash.output().context("run the pipe")?;
        ensure!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
        let imported = content(scene, "w")?;
        ensure!(imported.len() as u64 == SIZE_BYTES && imported == expected, "the snapshot came through the pipe");
        client.close()?;
        scene.cluster.detach("v")
    })
}

fn start_export(scene: &Scene, snapshot: &str, file: &str) -> Result<std::process::Child> {
    let mut command = Command::new(program("ashlar")?);
    command.args(["snapshot", "export", snapshot, file, "--dir"]).arg(scene.cluster.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("run `ashlar snapshot export`")
}

fn wait_size(file: &str, bytes: u64) -> Result<()> {
    let file = PathBuf::from(file);
    wait_until("the file to grow", LIMIT, || {
        Ok(fs::metadata(&file).is_ok_and(|metadata| metadata.len() > bytes).then_some(()))
    })
}

/// A snapshot whose content is deleted under an export leaves no whole stream.
#[test]
fn an_export_of_a_snapshot_that_is_gone_has_no_end() -> Result<()> {
    on_cluster("export-gone", |scene| {
        create(scene, "v", SIZE)?;
        let mut client = attach(scene, "v")?;
        for megabyte in 0..160 {
            write(&mut client, megabyte * 256, 256, megabyte as u8)?;
        }
        scene.cluster.cli(&["snapshot", "create", "v", "s"])?;
        let file = path(scene, "s.ashlar");
        let mut export = start_export(scene, "s", &file)?;
        wait_size(&file, 1 << 20)?;
        // Stopped, so that the deletion comes before its end.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(export.id() as i32), Signal::SIGSTOP)?;
        scene.cluster.cli(&["snapshot", "delete", "s"])?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(export.id() as i32), Signal::SIGCONT)?;
        ensure!(!export.wait()?.success(), "it ends with an error");
        create(scene, "w", SIZE)?;
        client.close()?;
        refused(scene, &["snapshot", "import", "w", &file], "it was cut off")
    })
}
