//! The table of mounts, as the kernel writes it and as nobody should.

use super::*;
use proptest::prelude::*;

const TABLE: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw\n\
36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n\
40 36 7:3 / /k/a\\040b\\134c ro,nosuid,nodev - ext4 /dev/loop3 rw\n\
41 40 7:4 / /k/a\\040b\\134c rw - xfs /dev/loop4 rw\n\
50 27 0:6 /loop3 /k/block rw,nosuid - devtmpfs devtmpfs rw,size=4k\n";

#[test]
fn every_field_is_read() {
    let table = MountTable::parse(TABLE).unwrap();
    let mount = table.iter().nth(1).unwrap();
    let expected = Mount {
        id: 36,
        device: DeviceNumber { major: 98, minor: 0 },
        root: "/mnt1".into(),
        point: "/mnt/parent".into(),
        options: "rw,noatime".to_owned(),
        fs_type: "ext3".to_owned(),
        source: "/dev/root".to_owned(),
    };
    assert_eq!(mount, &expected);
}

#[test]
fn the_latest_mount_hides_the_others() {
    let table = MountTable::parse(TABLE).unwrap();
    let top = table.top_at(Path::new("/k/a b\\c")).unwrap();
    assert_eq!((top.fs_type.as_str(), top.is_read_only()), ("xfs", false));
    assert!(table.top_at(Path::new("/k")).is_none());
    let below = table.of_device(DeviceNumber { major: 7, minor: 3 }).next().unwrap();
    assert!(below.is_read_only());
}

#[test]
fn a_table_with_a_line_that_is_not_understood_is_refused() {
    for line in
        ["x", "36 35 98 / / rw - ext4 s rw", "36 35 9:9 / / rw", "36 35 9:9 / / rw -", "36 35 9:9 / / - ext4 s rw"]
    {
        assert!(MountTable::parse(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn the_table_of_this_machine_is_understood() {
    assert!(MountTable::read().unwrap().top_at(Path::new("/proc")).is_some());
}

/// As the kernel writes it.
fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in bytes {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{byte:03o}").into_bytes()),
            byte => escaped.push(byte),
        }
    }
    escaped
}

proptest! {
    #[test]
    fn what_the_kernel_escapes_is_read_back(name in proptest::collection::vec(1u8.., 1..40)) {
        prop_assert_eq!(unescape(&escape(&name)), name);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = MountTable::parse(&bytes);
    }
}
