//! `inspect`: what a disk holds, while nobody serves it.

use crate::client::{Client, VOLUME, content, write};
use crate::daemon::Disks;
use ashlar_types::Crc32;

#[test]
fn inspect_digests_the_journal_and_the_slots_and_changes_nothing() {
    let disks = Disks::format(2, 64);
    let daemon = disks.serve();
    for (number, &disk) in disks.ids.iter().enumerate() {
        let mut client = Client::open(daemon.address("data_address"), disk, 1);
        client.done(write(1, 1, 16, &content(1, 64)));
        client.done(write(1, 2, 20, &content(2, 1)));
        client.done(write(1, 3, 900, &vec![0; 4096].into()));
        if number == 1 {
            client.done(write(1, 4, 5000, &content(3, 1)));
        }
    }
    daemon.kill();

    let before = std::fs::read(disks.path(0)).unwrap();
    let volume = VOLUME.to_string();
    let arguments = ["--volume", volume.as_str(), "--digest"];
    let (one, two) = (disks.inspect(0, &arguments), disks.inspect(1, &arguments));
    assert!(std::fs::read(disks.path(0)).unwrap() == before, "inspect wrote to the disk");
    assert_eq!(disks.inspect(0, &arguments), one, "a second look sees the same");

    let blocks = one["content"]["blocks"].as_array().unwrap();
    let crc = |bytes: &[u8]| format!("{:08x}", Crc32::of(bytes).0);
    let block =
        |number: u64| blocks.iter().find(|entry| entry[0] == number).map(|entry| entry[1].as_str().unwrap().to_owned());
    assert_eq!(block(16), Some(crc(&content(1, 64)[..4096])));
    assert_eq!(block(20), Some(crc(&content(2, 1))));
    assert_eq!(block(900), None, "zeros read like nothing");
    assert_eq!(blocks.len(), 64);
    assert_ne!(one["content"]["digest"], two["content"]["digest"]);
    assert_eq!(two["content"]["blocks"].as_array().unwrap().len(), 65);
}

#[test]
fn a_block_that_rotted_on_the_disk_is_reported_and_its_neighbours_are_read() {
    let disks = Disks::format(1, 64);
    let daemon = disks.serve();
    let mut client = Client::open(daemon.address("data_address"), disks.ids[0], 1);
    let data = content(5, 64);
    client.done(write(1, 1, 0, &data));
    daemon.terminate();
    let file = std::fs::OpenOptions::new().write(true).read(true).open(disks.path(0)).unwrap();
    let disk = std::fs::read(disks.path(0)).unwrap();
    let place = disk.windows(4096).step_by(4096).position(|block| block == &data[5 * 4096..6 * 4096]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rotten", place as u64 * 4096 + 100).unwrap();
    file.sync_all().unwrap();

    let report = disks.inspect(0, &["--volume", &VOLUME.to_string(), "--digest"]);
    assert_eq!(report["content"]["unreadable_blocks"], serde_json::json!([5]));
    assert_eq!(report["content"]["block_count"], 63);
}
