//! Tests of `device`, on a sysfs of the test's own.

use super::*;

fn folder(sys: &Path, name: &str) -> PathBuf {
    let folder = sys.join("devices").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn slave(sys: &Path, of: &Path, name: &str) {
    fs::create_dir_all(of.join("slaves")).unwrap();
    std::os::unix::fs::symlink(folder(sys, name), of.join("slaves").join(Path::new(name).file_name().unwrap()))
        .unwrap();
}

fn found(sys: &Path, folder: &Path) -> Result<String, String> {
    below_device(sys, folder, LAYERS_MAX).map(|device| device.display().to_string())
}

#[test]
fn the_whole_device_is_found_below_partitions_and_mappings() {
    let sys = tempfile::tempdir().unwrap();
    let sys = sys.path();
    let (disk, partition) = (folder(sys, "sda"), folder(sys, "sda/sda2"));
    fs::write(partition.join("partition"), "2\n").unwrap();
    assert_eq!(found(sys, &disk), Ok("/dev/sda".to_owned()));
    assert_eq!(found(sys, &partition), Ok("/dev/sda".to_owned()));
    let mapped = folder(sys, "virtual/dm-0");
    slave(sys, &mapped, "sda/sda2");
    assert_eq!(found(sys, &mapped), Ok("/dev/sda".to_owned()));
    slave(sys, &mapped, "sdb");
    assert_eq!(found(sys, &mapped), Err("dm-0 consists of 2 devices".to_owned()));
}

#[test]
fn below_a_loop_device_is_what_its_file_lies_on() {
    let sys = tempfile::tempdir().unwrap();
    let sys = sys.path();
    let file = sys.join("image");
    fs::write(&file, "").unwrap();
    let number = fs::metadata(&file).unwrap().dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    fs::create_dir_all(sys.join("dev/block")).unwrap();
    std::os::unix::fs::symlink(folder(sys, "nvme0n1"), sys.join(format!("dev/block/{major}:{minor}"))).unwrap();
    let device = folder(sys, "virtual/loop3");
    fs::create_dir_all(device.join("loop")).unwrap();
    fs::write(device.join("loop/backing_file"), format!("{}\n", file.display())).unwrap();
    assert_eq!(found(sys, &device), Ok("/dev/nvme0n1".to_owned()));
    assert_eq!(below_path(sys, &file, LAYERS_MAX), Ok(PathBuf::from("/dev/nvme0n1")));
    fs::write(device.join("loop/backing_file"), "/nowhere (deleted)\n").unwrap();
    assert!(found(sys, &device).unwrap_err().contains("/nowhere"));
}

#[test]
fn a_filesystem_without_a_device_and_devices_in_a_circle_are_told() {
    let sys = tempfile::tempdir().unwrap();
    let sys = sys.path();
    fs::write(sys.join("file"), "").unwrap();
    assert!(below_path(sys, &sys.join("file"), LAYERS_MAX).unwrap_err().contains("without a block device"));
    let circle = folder(sys, "virtual/dm-1");
    slave(sys, &circle, "virtual/dm-1");
    assert!(found(sys, &circle).unwrap_err().contains("too many devices"));
}
