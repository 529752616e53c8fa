//! Where replicas go on real daemons: zones and spread, why each is where it is, the steps of one that is lost, and
//! disks that are taken out.

use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{Member, MemberState};
use ashlar_tests::{NbdClient, Scene, StampedGuest, nbd_socket, on_placing_cluster, on_repairing_cluster, wait_until};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Event {
    kind: String,
}

#[derive(Deserialize)]
struct Disk {
    id: String,
    node: String,
    state: String,
}

#[derive(Deserialize)]
struct Why {
    replicas: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    disk: String,
    occasion: String,
    left_out: Vec<LeftOut>,
}

#[derive(Deserialize)]
struct LeftOut {
    reason: String,
}

#[derive(Deserialize)]
struct Status {
    reasons: Vec<String>,
    three_failures: ThreeFailures,
}

#[derive(Deserialize)]
struct ThreeFailures {
    combinations: u64,
    losing: u64,
}

fn create(scene: &Scene, name: &str, parameters: &[&str]) -> Result<()> {
    let parameters = parameters.iter().flat_map(|parameter| ["--param", parameter]);
    let args: Vec<&str> = ["volume", "create", name, "--size", "64M"].into_iter().chain(parameters).collect();
    scene.cluster.cli(&args).map(drop)
}

/// What the command says on its standard error; it must not succeed.
fn refusal(scene: &Scene, args: &[&str]) -> Result<String> {
    let output = scene.cluster.try_cli(args)?;
    ensure!(!output.success, "{} succeeded: {}", args.join(" "), output.stdout);
    Ok(output.stderr)
}

fn zones(members: &[Member]) -> BTreeSet<&str> {
    members.iter().map(|member| member.zone.as_str()).collect()
}

fn why(scene: &Scene, volume: &str) -> Result<Vec<Choice>> {
    Ok(scene.cluster.cli_json::<Why>(&["volume", "show", volume, "--why"])?.replicas)
}

fn kinds(scene: &Scene) -> Result<Vec<String>> {
    let printed = scene.cluster.cli(&["events", "--last", "10000", "--json"])?;
    printed.lines().map(|line| Ok(serde_json::from_str::<Event>(line)?.kind)).collect()
}

fn wait_told(scene: &Scene, kind: &str) -> Result<()> {
    wait_until(&format!("the event {kind}"), LIMIT, || {
        Ok(kinds(scene)?.iter().any(|other| other == kind).then_some(()))
    })
}

fn disks(scene: &Scene) -> Result<Vec<Disk>> {
    scene.cluster.cli_json(&["disk", "list"])
}

fn disk_of(scene: &Scene, node: &str) -> Result<String> {
    let found = disks(scene)?.into_iter().find(|disk| disk.node == node);
    found.map(|disk| disk.id).with_context(|| format!("{node} has a disk"))
}

fn wait_series(scene: &Scene, series: &str) -> Result<()> {
    wait_until(&format!("the metric {series}"), LIMIT, || {
        let page = scene.cluster.metrics("control")?;
        Ok(page.lines().any(|line| line == format!("ashlar_driver_{series}")).then_some(()))
    })
}

#[test]
fn zones_and_spread_are_kept_refused_or_told_of() -> Result<()> {
    on_placing_cluster("zones", 4, GRACE, &["a", "a", "b", "c"], |scene| {
        create(scene, "spread", &["spread=zone"])?;
        ensure!(zones(&scene.cluster.members("spread")?).len() == 3, "one replica in each zone");
        let create_x = ["volume", "create", "x", "--size", "64M", "--param"];
        let refused = refusal(scene, &[&create_x[..], &["zones=b,c"]].concat())?;
        ensure!(refused.contains("parameter zones is b,c") && refused.contains("2 have one"), "{refused}");
        let refused = refusal(scene, &[&create_x[..], &["zones=a,b", "--param", "spread=zone"]].concat())?;
        ensure!(refused.contains("set spread to zone-preferred"), "{refused}");
        scene.cluster.kill("chunkserver-n4", Signal::SIGKILL)?;
        wait_told(scene, "silent")?;
        let refused = refusal(scene, &[&create_x[..], &["spread=zone"]].concat())?;
        ensure!(refused.contains("2 have one: a, b"), "{refused}");
        create(scene, "preferred", &["spread=zone-preferred"])?;
        let condition = scene.cluster.volume("preferred")?.condition.context("a volume has a condition")?;
        ensure!(condition.abnormal && condition.message.contains("all in zone a"), "{}", condition.message);
        Ok(())
    })
}

#[test]
fn each_step_of_a_lost_replica_is_told_and_counted_and_the_new_one_says_why() -> Result<()> {
    on_repairing_cluster("steps", 4, GRACE, |scene| {
        create(scene, "v", &["class=critical"])?;
        let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach("v", "n1", "nbd")?)?)?;
        let mut guest = StampedGuest::new(4096, 21);
        guest.write(&mut client, 300, &AtomicU64::new(0))?;
        let chosen = why(scene, "v")?;
        ensure!(
            chosen.len() == 3 && chosen.iter().all(|choice| choice.left_out.len() == 3),
            "each other disk is named"
        );
        ensure!(chosen.iter().all(|choice| choice.occasion == "the volume was created"));
        let taken = |choice: &Choice| choice.left_out.iter().any(|left| left.reason.contains("has a replica already"));
        ensure!(chosen[1..].iter().all(taken), "why the disks of the other replicas were not taken");
        let lost = scene.cluster.members("v")?.into_iter().find(|member| member.node != "n1");
        let lost = lost.context("a replica beside the first")?;

        scene.cluster.kill(&format!("chunkserver-{}", lost.node), Signal::SIGKILL)?;
        guest.write(&mut client, 300, &AtomicU64::new(0)).context("writes go on with two")?;
        for kind in ["silent", "ejected", "grace-begun", "rebuild-begun", "replica-gone", "in-sync"] {
            wait_told(scene, kind)?;
        }
        wait_until("three replicas in-sync elsewhere", LIMIT, || {
            let members = scene.cluster.members("v")?;
            let in_sync = members.iter().filter(|member| member.state() == MemberState::InSync).count();
            Ok((in_sync == 3).then_some(()))
        })?;
        wait_series(scene, r#"volumes_by_protection{protection="whole",class="critical"} 1"#)?;
        ensure!(scene.cluster.metric("control", "ashlar_driver_repair_steps_total")? >= 1.0);
        wait_series(scene, r#"replica_changes_total{change="ejected"} 1"#)?;
        wait_series(scene, r#"replica_changes_total{change="rebuilt"} 1"#)?;
        let replaced = why(scene, "v")?;
        ensure!(replaced.iter().all(|choice| choice.disk != lost.disk));
        let new: Vec<&Choice> = replaced.iter().filter(|choice| choice.occasion != "the volume was created").collect();
        ensure!(new.len() == 1 && new[0].occasion.contains("disk "), "why the new one was made");
        let printed = scene.cluster.cli(&["volume", "show", "v", "--why"])?;
        ensure!(printed.contains(&new[0].occasion) && printed.contains("  not "), "{printed}");

        scene.cluster.start(&format!("chunkserver-{}", lost.node))?;
        wait_told(scene, "space-freed")?;
        let once = kinds(scene)?.iter().filter(|kind| *kind == "grace-begun").count();
        ensure!(once == 1, "told once, not at each look: {once}");
        guest.verify(&mut client)?;
        client.close()?;
        scene.cluster.detach("v")
    })
}

#[test]
fn a_disk_goes_when_it_is_empty_and_a_last_replica_only_by_name() -> Result<()> {
    on_repairing_cluster("remove", 4, GRACE, |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "64M", "--node", "n1"])?;
        let held = scene.cluster.members("v")?;
        let refused = refusal(scene, &["disk", "remove", &held[0].disk])?;
        ensure!(refused.contains("volumes v") && refused.contains("ashlar disk drain"), "{refused}");
        let status: Status = scene.cluster.cli_json(&["cluster", "status"])?;
        ensure!((status.three_failures.combinations, status.three_failures.losing) == (4, 1), "one set of four");
        ensure!(scene.cluster.cli(&["cluster", "status"])?.contains("1 of 4 combinations lose data"));

        let free = disks(scene)?.into_iter().find(|disk| held.iter().all(|member| member.disk != disk.id));
        let free = free.context("the fourth node's disk is empty")?;
        scene.cluster.cli(&["disk", "remove", &free.id])?;
        wait_told(scene, "disk-refused")?;
        scene.cluster.kill("control", Signal::SIGKILL)?;
        scene.cluster.start("control")?;
        wait_until("the removed disk to be told of again", LIMIT, || {
            let status: Status = scene.cluster.cli_json(&["cluster", "status"])?;
            let is_told = status.reasons.iter().any(|why| why.contains(&free.id) && why.contains("was removed"));
            Ok(is_told.then_some(()))
        })?;
        ensure!(disks(scene)?.iter().all(|disk| disk.id != free.id), "it never comes back");

        scene.cluster.cli(&["volume", "delete", "v"])?;
        // A control plane that was started anew has not heard of every disk at once; who is not heard of gets nothing.
        wait_until("every disk to be online again", LIMIT, || {
            Ok(disks(scene)?.iter().all(|disk| disk.state == "online").then_some(()))
        })?;
        let single = ["--size", "64M", "--node", "n1", "--param", "replicas=1"];
        scene.cluster.cli(&[&["volume", "create", "only"], &single[..]].concat())?;
        let last = disk_of(scene, "n1")?;
        let refused = refusal(scene, &["disk", "remove", &last])?;
        ensure!(refused.contains("--accept-data-loss only"), "{refused}");
        scene.cluster.cli(&["disk", "remove", &last, "--accept-data-loss", "only"])?;
        let shown = scene.cluster.cli(&["volume", "show", "only"])?;
        ensure!(shown.contains("its data is lost"), "{shown}");
        let attach = ["volume", "attach", "only", "--node", "n2", "--frontend", "nbd"];
        ensure!(refusal(scene, &attach)?.contains("is lost"), "nothing is served that is not there");
        scene.cluster.cli(&["volume", "delete", "only"]).map(drop)
    })
}
