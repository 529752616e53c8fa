//! Tests of `index`.

use super::*;

const DISK: DiskId = DiskId::from_u128(7);

fn put(key: &[u8], value: &[u8]) -> IndexEdit {
    IndexEdit::Put { key: key.to_vec(), value: value.to_vec() }
}

#[test]
fn commits_survive_in_order_of_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.index");
    Index::create(&path, DISK, None).unwrap();
    let index = Index::open(&path, DISK, Access::ReadWrite).unwrap();
    index.commit(&[put(b"b", b"2"), put(b"a", b"1"), put(b"c1", b"x"), put(b"c2", b"y"), put(b"d", b"4")]).unwrap();
    let range = IndexEdit::DeleteRange { from: b"c".to_vec(), until: b"d".to_vec() };
    index.commit(&[IndexEdit::Delete { key: b"a".to_vec() }, range]).unwrap();
    drop(index);
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let index = Index::open(&path, DISK, access).unwrap();
        let mut rows = Vec::new();
        index.for_each_row(|key, value| rows.push((key.to_vec(), value.to_vec()))).unwrap();
        assert_eq!(rows, [(b"b".to_vec(), b"2".to_vec()), (b"d".to_vec(), b"4".to_vec())]);
    }
}

#[test]
fn another_disks_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.index");
    Index::create(&path, DISK, None).unwrap();
    let error = Index::open(&path, DiskId::from_u128(8), Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("belongs to disk"), "{error}");
}

#[test]
fn a_missing_index_is_an_error_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.index");
    assert!(Index::open(&path, DISK, Access::ReadWrite).is_err());
    assert!(!path.exists());
}

#[test]
fn an_existing_directory_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("precious"), "data").unwrap();
    assert!(matches!(Index::create(dir.path(), DISK, None), Err(Error::WouldOverwrite { .. })));
}
