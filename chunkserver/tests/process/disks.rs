//! Disks that cannot be used, and disks that are used already.

use crate::client::{Client, open};
use crate::daemon::{CLUSTER, Daemon, Disks, run, text};
use ashlar_types::ClusterId;
use ashlar_wire::{Request, Status};
use std::os::unix::fs::FileExt;
use std::process::Output;

fn failure(output: Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_second_process_on_a_disk_is_refused_and_so_are_inspect_and_format() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let path = disks.path(0);
    let second = Daemon::start(&disks, &[]).err().expect("a second process must not start");
    assert!(failure(second).contains("another process uses it"));
    assert!(failure(run(&["inspect", "--disk", text(&path)])).contains("another process uses it"));
    let cluster = CLUSTER.to_string();
    assert!(
        failure(run(&["format", "--cluster", &cluster, "--disk", text(&path)])).contains("another process uses it")
    );
    Client::open(daemon.address("data_address"), disks.ids[0], 1);
}

#[test]
fn a_disk_of_another_cluster_is_refused() {
    let disks = Disks::format(1, 64);
    let other = ClusterId::from_u128(0xc2).to_string();
    let config = disks.dir.path().join("config.toml");
    std::fs::write(&config, format!("cluster = \"{other}\"\nnode = \"n\"\ndisks = [{:?}]\n", disks.path(0))).unwrap();
    let stderr = failure(run(&["run", "--config", text(&config)]));
    assert!(stderr.contains("belongs to cluster"), "{stderr}");
}

#[test]
fn a_failed_disk_does_not_keep_the_others_from_serving() {
    let disks = Disks::format(3, 64);
    // The first is truncated, the second lost its index.
    let file = std::fs::OpenOptions::new().write(true).open(disks.path(0)).unwrap();
    file.set_len(32 << 20).unwrap();
    std::fs::remove_dir_all(disks.dir.path().join("disk-1.index")).unwrap();
    let daemon = disks.serve();
    let listed = daemon.ready["disks"].as_array().unwrap();
    let failures = listed.iter().filter(|disk| disk["failure"].is_string()).count();
    assert_eq!((listed.len(), failures), (3, 2), "{listed:?}");
    let address = daemon.address("data_address");
    Client::open(address, disks.ids[2], 1);
    let mut client = Client::connect(address, 1);
    assert_eq!(client.refused(Request::Open(open(CLUSTER, disks.ids[1]))), Status::DiskFailed);
    let metrics = crate::ports::get(daemon.address("metrics_address"), "/metrics");
    assert!(metrics.contains("ashlar_chunkserver_failed_disks 2"), "{metrics}");
}

#[test]
fn a_damaged_superblock_is_read_from_its_copy_and_two_damaged_ones_are_refused() {
    let disks = Disks::format(1, 64);
    let file = std::fs::OpenOptions::new().write(true).open(disks.path(0)).unwrap();
    file.write_all_at(&[0xff; 64], 100).unwrap();
    file.sync_all().unwrap();
    let daemon = disks.serve();
    Client::open(daemon.address("data_address"), disks.ids[0], 1);
    daemon.kill();
    file.write_all_at(&[0xff; 64], 4196).unwrap();
    file.sync_all().unwrap();
    let stderr = failure(Daemon::start(&disks, &[]).err().expect("must not start"));
    assert!(stderr.contains("superblock are damaged"), "{stderr}");
}

#[test]
fn a_copy_of_a_disk_in_the_same_process_is_refused() {
    let disks = Disks::format(2, 64);
    std::fs::copy(disks.path(0), disks.path(1)).unwrap();
    std::fs::remove_dir_all(disks.dir.path().join("disk-1.index")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([disks.dir.path().join("disk-0.index"), disks.dir.path().join("disk-1.index")])
        .status();
    assert!(copied.unwrap().success());
    let daemon = disks.serve();
    let listed = daemon.ready["disks"].as_array().unwrap();
    assert!(listed.iter().any(|disk| disk["failure"].as_str().is_some_and(|text| text.contains("copy"))), "{listed:?}");
}
