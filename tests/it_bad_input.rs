//! What users and orchestrators may send that makes no sense: a clear refusal with the right code, and nothing
//! changed.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::{
    control::CreateVolumeRequest,
    csi::{self, CapacityRange},
};
use ashlar_tests::{Kubelet, NbdClient, Scene, nbd_socket, on_cluster, on_cluster_with, run};
use std::collections::HashMap;
use tonic::{Code, Status};

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Result<Code> {
    match result {
        Ok(answer) => bail!("not refused, but {answer:?}"),
        Err(status) => {
            ensure!(!status.message().is_empty(), "a refusal says why: {status:?}");
            ensure!(status.message().len() < 2000, "a refusal is short: {} bytes", status.message().len());
            Ok(status.code())
        }
    }
}

fn hostile_names() -> Vec<String> {
    let fixed = ["", "/", "a/b", "..", "../../etc", ".", "a\0b", "a b", "-rf", "naïve", "a\nb"];
    fixed.iter().map(|&name| name.to_owned()).chain(["x".repeat(300), "x".repeat(1 << 20)]).collect()
}

#[test]
fn sizes_names_and_parameters_that_make_no_sense_are_refused() -> Result<()> {
    on_cluster("control", |scene| {
        let mut client = scene.cluster.client()?;
        let good = CreateVolumeRequest { name: "v".to_owned(), size_bytes: 64 << 20, ..CreateVolumeRequest::default() };
        let mut ask = |request: CreateVolumeRequest| scene.cluster.block_on(client.create_volume(request));
        for size_bytes in [0, 1, 4095, 4097, (64 << 40) + 4096, u64::MAX, 1 << 40] {
            let code = code(ask(CreateVolumeRequest { size_bytes, ..good.clone() }))
                .with_context(|| format!("size {size_bytes}"))?;
            let expected = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
            ensure!(expected.contains(&code), "size {size_bytes}: {code:?}");
        }
        for name in hostile_names() {
            let code = code(ask(CreateVolumeRequest { name: name.clone(), ..good.clone() }))?;
            ensure!(code == Code::InvalidArgument, "name of {} bytes: {code:?}", name.len());
        }
        for (key, value) in [("replicas", "9"), ("replicas", "many"), ("compression", "lz4"), ("minReplicas", "0")] {
            let parameters = HashMap::from([(key.to_owned(), value.to_owned())]);
            let code = code(ask(CreateVolumeRequest { parameters, ..good.clone() }))?;
            ensure!(code == Code::InvalidArgument, "{key}={value}: {code:?}");
        }
        for node in ["n9", "../n1"] {
            let refused = code(ask(CreateVolumeRequest { node: node.to_owned(), ..good.clone() }));
            refused.with_context(|| format!("node {node}"))?;
        }
        let listed: Vec<serde_json::Value> = scene.cluster.cli_json(&["volume", "list"])?;
        ensure!(listed.is_empty(), "a refused volume leaves nothing: {listed:?}");
        Ok(())
    })
}

#[test]
fn the_csi_controller_refuses_what_makes_no_sense() -> Result<()> {
    on_cluster("csi", |scene| {
        let kubelet = scene.cluster.kubelet("n1")?;
        let good = kubelet.create_request("pvc-1", 64 << 20, &Kubelet::mount_capability("ext4"));
        let ask = |request: csi::CreateVolumeRequest| {
            let answer = kubelet.block_on(async {
                let mut controller = kubelet.controller().await?;
                anyhow::Ok(controller.create_volume(request).await)
            });
            answer.and_then(code)
        };
        // CSI's names may hold nearly everything; what the catalog's may not is escaped.
        for name in ["", "a\0b", "a\u{7f}", &"x".repeat(129), &"x".repeat(1 << 20)] {
            let asked = ask(csi::CreateVolumeRequest { name: name.to_owned(), ..good.clone() })?;
            ensure!(asked == Code::InvalidArgument, "name of {} bytes: {asked:?}", name.len());
        }
        let climbing = kubelet.create("../../etc", 64 << 20, Kubelet::mount_capability("ext4"))?;
        let again = kubelet.create("../../etc", 64 << 20, Kubelet::mount_capability("ext4"))?;
        ensure!(climbing.id == again.id, "the same name is the same volume");
        kubelet.delete(&climbing)?;
        for (required_bytes, limit_bytes) in [(-1, 0), (4096, -1), (2 << 20, 1 << 20), (i64::MAX, 0), (5000, 8191)] {
            let capacity_range = Some(CapacityRange { required_bytes, limit_bytes });
            let asked = ask(csi::CreateVolumeRequest { capacity_range, ..good.clone() })?;
            let expected = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
            ensure!(expected.contains(&asked), "{required_bytes}..{limit_bytes}: {asked:?}");
        }
        let parameters = HashMap::from([("tier".to_owned(), "gold".to_owned())]);
        ensure!(ask(csi::CreateVolumeRequest { parameters, ..good.clone() })? == Code::InvalidArgument, "a parameter");
        let no_capability = csi::CreateVolumeRequest { volume_capabilities: vec![], ..good.clone() };
        ensure!(ask(no_capability)? == Code::InvalidArgument, "no capability");
        let unknown_fs = vec![Kubelet::mount_capability("ntfs")];
        let asked = ask(csi::CreateVolumeRequest { volume_capabilities: unknown_fs, ..good.clone() })?;
        ensure!(asked == Code::InvalidArgument, "an unknown filesystem: {asked:?}");
        kubelet.create("pvc-1", 64 << 20, Kubelet::mount_capability("ext4"))?;
        let larger = kubelet.create_request("pvc-1", 128 << 20, &Kubelet::mount_capability("ext4"));
        ensure!(ask(larger)? == Code::AlreadyExists, "the same name with another size");
        Ok(())
    })
}

#[test]
fn what_does_not_exist_is_said_to_be_missing() -> Result<()> {
    on_cluster("missing", |scene| {
        for args in [
            &["volume", "show", "nothing"][..],
            &["volume", "delete", "nothing"],
            &["volume", "attach", "nothing", "--node", "n1", "--frontend", "nbd"],
            &["volume", "show", "../etc/passwd"],
        ] {
            let output = scene.cluster.try_cli(args)?;
            ensure!(!output.success && output.stdout.is_empty(), "{args:?} printed {}", output.stdout);
            ensure!(output.stderr.lines().count() == 1, "one line says why: {}", output.stderr);
        }
        scene.cluster.cli(&["volume", "create", "v", "--size", "64M"])?;
        let output = scene.cluster.try_cli(&["volume", "attach", "v", "--node", "n9", "--frontend", "nbd"])?;
        ensure!(!output.success, "an unknown node: {}", output.stdout);
        Ok(())
    })
}

/// Volumes are not promised more than the disks have, so the last one can still be written in full.
#[test]
fn a_cluster_whose_space_is_promised_refuses_more_and_keeps_its_promises() -> Result<()> {
    on_cluster_with("promised", "512M", |scene| {
        let volumes = fill_with_volumes(scene)?;
        for volume in &volumes {
            let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach(volume, "n1", "nbd")?)?)?;
            for offset in (0..client.size()).step_by(1 << 20) {
                let written = client.write(offset, &vec![0xa5; 1 << 20]);
                written.with_context(|| format!("{volume} was promised in full, and stops at {offset}"))?;
            }
            client.close()?;
            scene.cluster.detach(volume)?;
        }
        let last = volumes.last().context("there is a volume")?;
        let compared: serde_json::Value = scene.cluster.cli_json(&["volume", "compare", last])?;
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "compared: {compared}");
        Ok(())
    })
}

/// Creates volumes until the disks have no more to promise.
fn fill_with_volumes(scene: &Scene) -> Result<Vec<String>> {
    for number in 0..64 {
        let name = format!("v{number}");
        let output = scene.cluster.try_cli(&["volume", "create", &name, "--size", "64M"])?;
        if !output.success {
            ensure!(number > 0, "not even one volume fits: {}", output.stderr);
            ensure!(!output.stderr.contains("panic"), "{}", output.stderr);
            return Ok((0..number).map(|number| format!("v{number}")).collect());
        }
    }
    bail!("64 volumes of 64 MiB were promised on disks of 512 MiB")
}

#[test]
fn a_disk_in_use_or_of_another_cluster_is_refused_by_a_second_chunkserver() -> Result<()> {
    on_cluster("disk", |scene| {
        let daemon = scene.cluster.daemon("chunkserver-n1")?;
        let disk =
            daemon.disks.first().context("a chunkserver has a disk")?.to_str().context("a path in UTF-8")?.to_owned();
        let start = |cluster: &str, disk: &str| {
            let args = ["run", "--cluster", cluster, "--node", "n1", "--disk", disk, "--listen", "127.0.0.1:0"];
            run("timeout", [&["30", path_of("ashlar-chunkserver")?.as_str()][..], &args].concat())
        };
        let status: serde_json::Value = scene.cluster.cli_json(&["cluster", "status"])?;
        let cluster = status["cluster"].as_str().context("a cluster has an id")?.to_owned();
        let refused = start(&cluster, &disk)?;
        ensure!(!refused.success && refused.stderr.contains("use"), "in use: {}", refused.stderr);
        scene.cluster.kill("chunkserver-n1", nix::sys::signal::Signal::SIGKILL)?;
        let refused = start("00000000-0000-4000-8000-000000000001", &disk)?;
        ensure!(!refused.success && refused.stderr.contains("cluster"), "another cluster: {}", refused.stderr);
        let truncated = scene.files().join("disk.img");
        let bytes = std::fs::read(&disk)?;
        std::fs::write(&truncated, &bytes[..bytes.len() / 2])?;
        let refused = start(&cluster, truncated.to_str().context("a path in UTF-8")?)?;
        ensure!(!refused.success && !refused.stderr.is_empty(), "truncated: {}", refused.stderr);
        scene.cluster.start("chunkserver-n1").context("the disk is as good as before")
    })
}

fn path_of(program: &str) -> Result<String> {
    Ok(ashlar_tests::program(program)?.to_string_lossy().into_owned())
}
