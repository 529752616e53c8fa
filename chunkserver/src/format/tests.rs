//! Tests of `format`.

use super::*;
use crate::config::DiskPaths;
use crate::disk::{DiskFailure, DiskRefusal, OpenDisk};
use ashlar_engine::SuperblockError;
use ashlar_types::ClusterId;
use std::path::Path;

const SIZE: ByteCount = ByteCount(32 << 20);

fn config(path: &Path) -> FormatConfig {
    FormatConfig {
        cluster: ClusterId::from_u128(1),
        node: None,
        disk: DiskPaths { disk: path.to_path_buf(), index_parent: None },
        size: Some(SIZE),
        journal: None,
        json: false,
    }
}

#[test]
fn a_formatted_disk_opens_and_every_byte_of_it_is_allocated() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let made = format(&config(&path)).unwrap();
    let open = OpenDisk::open(&config(&path).disk, Some(ClusterId::from_u128(1)), Access::ReadWrite).unwrap();
    assert_eq!(open.superblock.disk.to_string(), made.disk);
    assert_eq!(open.superblock.layout.total, SIZE);
    assert_eq!(open.rows.count(), 0);
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= SIZE.0);
    assert_eq!(metadata.mode() & 0o077, 0, "what users store is nobody else's to read");
}

#[test]
fn a_file_that_holds_anything_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for at in [0, 5000, SIZE.0 - 1] {
        let mut content = vec![0u8; SIZE.0 as usize];
        content[at as usize] = 1;
        std::fs::write(&path, &content).unwrap();
        let error = format(&config(&path)).unwrap_err();
        assert!(error.to_string().contains(&format!("at byte {at}")), "{error}");
        assert!(std::fs::read(&path).unwrap() == content);
    }
}

#[test]
fn a_disk_of_ashlar_is_never_formatted_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let first = format(&config(&path)).unwrap();
    assert!(matches!(format(&config(&path)), Err(Error::WouldOverwrite { .. })));
    std::fs::remove_dir_all(&first.index).unwrap();
    assert!(matches!(format(&config(&path)), Err(Error::WouldOverwrite { .. })));
}

#[test]
fn a_file_of_zeros_is_formatted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(SIZE.0).unwrap();
    let other_size = FormatConfig { size: Some(ByteCount(SIZE.0 * 2)), ..config(&path) };
    assert!(matches!(format(&other_size), Err(Error::WouldOverwrite { .. })));
    assert!(format(&FormatConfig { size: None, ..config(&path) }).is_ok());
}

#[test]
fn impossible_sizes_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for size in [0, 4095, 1 << 20, (32 << 20) + 1] {
        assert!(format(&FormatConfig { size: Some(ByteCount(size)), ..config(&path) }).is_err(), "{size}");
        assert!(!path.exists(), "{size}");
    }
    assert!(format(&FormatConfig { size: None, ..config(&path) }).is_err());
}

#[test]
fn a_disk_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    format(&config(&path)).unwrap();
    let held = Medium::open(&path, Access::ReadWrite).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = Medium::open(&path, access).unwrap_err();
        assert!(matches!(error, Error::Disk { reason: DiskRefusal::InUse, .. }), "{error}");
    }
    drop(held);
    assert!(Medium::open(&path, Access::ReadOnly).is_ok());
}

#[test]
fn a_disk_that_a_killed_process_still_holds_is_opened_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    format(&config(&path)).unwrap();
    let mut held = Some(Medium::open(&path, Access::ReadWrite).unwrap());
    let cluster = ClusterId::from_u128(1);
    let refused = OpenDisk::open_when_free(&config(&path).disk, cluster, || false);
    assert!(matches!(refused, Err(DiskFailure { error: Error::Disk { reason: DiskRefusal::InUse, .. }, .. })));
    let mut asked = 0;
    let opened = OpenDisk::open_when_free(&config(&path).disk, cluster, || {
        asked += 1;
        if asked == 3 {
            held.take();
        }
        true
    });
    assert!(opened.is_ok() && asked == 3, "{asked}");
}

#[test]
fn a_disk_of_another_cluster_a_newer_format_or_truncated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    format(&config(&path)).unwrap();
    let reason = |cluster: u128| match OpenDisk::open(
        &config(&path).disk,
        Some(ClusterId::from_u128(cluster)),
        Access::ReadOnly,
    ) {
        Err(DiskFailure { error: Error::Disk { reason: DiskRefusal::Superblock(error), .. }, .. }) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(reason(2), SuperblockError::OtherCluster { .. }));

    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(SIZE.0 / 2).unwrap();
    assert!(matches!(reason(1), SuperblockError::Truncated { .. }));
    file.set_len(100).unwrap();
    assert!(matches!(reason(1), SuperblockError::Truncated { .. }));
}
