//! The NBD front-end against other people's clients: nbdinfo, nbdcopy, qemu-img and fio.

use anyhow::{Context, Result, ensure};
use ashlar_tests::{on_cluster, run_ok};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

const SIZE_BYTES: u64 = 128 << 20;

/// Half of it random, the other half runs of zeros and data, as a disk image has them.
fn write_image(path: &Path) -> Result<()> {
    let mut image = File::create(path)?;
    let mut random = File::open("/dev/urandom")?.take(SIZE_BYTES / 2);
    std::io::copy(&mut random, &mut image)?;
    let megabyte = vec![0x5a; 1 << 20];
    for at in (SIZE_BYTES / 2..SIZE_BYTES).step_by(1 << 20) {
        if at >> 20 & 3 == 0 {
            image.write_all(&megabyte)?;
        } else {
            image.write_all(&vec![0; 1 << 20])?;
        }
    }
    Ok(())
}

fn fio(uri: &str, options: &[&str]) -> Result<()> {
    let uri = format!("--uri={uri}");
    let fixed = [
        "--name=job",
        "--ioengine=nbd",
        &uri,
        "--verify=crc32c",
        "--verify_fatal=1",
        // Else fio leaves a file in the working directory.
        "--verify_state_save=0",
        "--size=64M",
        "--output-format=terse",
    ];
    run_ok("fio", fixed.iter().chain(options)).map(drop)
}

#[test]
fn other_clients_find_what_they_wrote() -> Result<()> {
    on_cluster("nbd", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "128M"])?;
        let uri = scene.cluster.attach("v", "n1", "nbd")?;
        ensure!(scene.cluster.attach("v", "n1", "nbd")? == uri, "attaching again gives the same device");
        let size = run_ok("nbdinfo", ["--size", &uri])?;
        ensure!(size.trim() == SIZE_BYTES.to_string(), "nbdinfo says {size}");
        let info = run_ok("nbdinfo", [&uri])?;
        for promise in ["can_flush: true", "can_fua: true", "can_trim: true", "can_zero: true", "is_read_only: false"] {
            ensure!(info.contains(promise), "nbdinfo does not say {promise:?}: {info}");
        }
        let image = scene.files().join("image.raw");
        write_image(&image)?;
        let image_path = image.to_str().context("a path in UTF-8")?;
        run_ok("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", image_path, &uri])?;
        run_ok("qemu-img", ["compare", "-f", "raw", "-F", "raw", image_path, &uri])?;
        let copy = scene.files().join("copy.raw");
        run_ok("nbdcopy", [uri.as_str(), copy.to_str().context("a path in UTF-8")?])?;
        ensure!(fs::read(&image)? == fs::read(&copy)?, "nbdcopy read something else than qemu-img wrote");
        Ok(())
    })
}

#[test]
fn fio_verifies_random_and_sequential_writes() -> Result<()> {
    on_cluster("fio", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "128M"])?;
        let uri = scene.cluster.attach("v", "n1", "nbd")?;
        fio(&uri, &["--rw=randwrite", "--bs=4k", "--iodepth=32", "--do_verify=1"])?;
        fio(&uri, &["--rw=randrw", "--bsrange=4k-256k", "--iodepth=8", "--do_verify=1"])?;
        fio(&uri, &["--rw=write", "--bs=1M", "--iodepth=4", "--do_verify=1"])?;
        scene.cluster.detach("v")?;
        // What the last job wrote is read on another node, by another datapath.
        let uri = scene.cluster.attach("v", "n2", "nbd")?;
        fio(&uri, &["--rw=write", "--bs=1M", "--iodepth=4", "--verify_only=1"])
    })
}
