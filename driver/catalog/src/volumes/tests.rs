//! Volumes in the catalog: nothing is lost between writing and reading, and every change is compared.

use super::*;
use crate::{Class, Limit, MetaStore, RocksStore};
use ashlar_types::{Change, ChunkIndex, ChunkRun, ClusterId, Epoch, Lsn, Member, MemberState, Snapshot, SnapshotId};
use std::path::Path;

const CLUSTER: ClusterId = ClusterId::from_u128(1);

pub(crate) async fn open(directory: &Path) -> Catalog {
    let store = MetaStore::Rocks(RocksStore::open(directory).await.unwrap());
    Catalog::open(store, None, CLUSTER).await.unwrap()
}

pub(crate) fn disk(number: u128) -> DiskId {
    DiskId::from_u128(number)
}

pub(crate) fn volume(id: u128, name: &str) -> Volume {
    let member = |number: u128| Member {
        disk: disk(number),
        node: format!("n{number}").parse().unwrap(),
        zone: (number == 2).then(|| "z".parse().unwrap()),
        state: MemberState::InSync,
    };
    Volume {
        name: name.parse().unwrap(),
        parameters: BTreeMap::from([("replicas".to_owned(), "3".to_owned())]),
        allowed_nodes: vec!["n1".parse().unwrap()],
        use_state: UseState::Blank,
        fs_type: String::new(),
        created_ms: 5,
        settings: Settings {
            version: 0,
            class: Class::High,
            operations: Some(Limit { per_second: 500, burst: None }),
            bytes: Some(Limit { per_second: 1 << 20, burst: Some(1 << 30) }),
        },
        published_read_only: false,
        readers: Vec::new(),
        settled: Epoch::NONE,
        is_repaired: false,
        source: None,
        data_lost: None,
        record: VolumeRecord {
            cluster: CLUSTER,
            volume: VolumeId::from_u128(id),
            size: ByteCount(1 << 30),
            epoch: Epoch::NONE,
            version: 1,
            holder: None,
            served: Epoch::NONE,
            clean: true,
            min_replicas: 2,
            members: [1, 2, 3].map(member).to_vec(),
            chunks: vec![ChunkRun { first: ChunkIndex(0), count: 16, members: vec![0, 1, 2] }],
            declared_lost: Vec::new(),
            snapshots: vec![Snapshot { id: SnapshotId::from_u128(4), point: Lsn::from_raw(77) }],
            clones: Vec::new(),
            origin: None,
            last_change: None,
        },
    }
}

pub(crate) fn event() -> Event {
    Event::new(1, "test", "t")
}

pub(crate) async fn create(catalog: &Catalog, volume: &Volume) -> StoredVolume {
    let claims = catalog.claims().await.unwrap();
    catalog.create_volume(volume, &claims, &[], event()).await.unwrap()
}

#[tokio::test]
async fn a_volume_survives_a_restart_in_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    let mut next = made.volume.record.clone();
    next.version = 2;
    next.epoch = Epoch::new(7).unwrap();
    next.holder = Some("n2".parse().unwrap());
    next.clean = false;
    next.members[0].state = MemberState::Out { commit: Lsn::from_raw(u64::MAX >> 1) };
    next.members[1].state = MemberState::Syncing { commit: Lsn::from_raw(3) };
    next.declared_lost = vec![disk(1)];
    next.last_change =
        Some(Change::Eject { disks: vec![disk(1)], commit: Lsn::from_raw(9), reason: "silent \"x\"".to_owned() });
    let changed = catalog.change_record(&made, next, vec![event()]).await.unwrap();
    let used = catalog.change_use(&changed, UseState::Formatting, "ext4", vec![]).await.unwrap();
    drop(catalog);
    let catalog = open(directory.path()).await;
    let found = catalog.volume(VolumeId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(found, used);
    assert_eq!(catalog.volume_by_name(&"a".parse().unwrap()).await.unwrap().unwrap(), used);
    assert_eq!((found.volume.use_state, found.volume.fs_type.as_str()), (UseState::Formatting, "ext4"));
}

#[tokio::test]
async fn a_name_belongs_to_one_volume_and_is_free_when_that_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let first = create(&catalog, &volume(1, "a")).await;
    let claims = catalog.claims().await.unwrap();
    let taken = catalog.create_volume(&volume(2, "a"), &claims, &[], event()).await.unwrap_err();
    assert_eq!(taken.kind(), CatalogErrorKind::Exists);
    assert!(catalog.volume(VolumeId::from_u128(2)).await.unwrap().is_none());
    catalog.delete_volume(&first, None, event()).await.unwrap();
    create(&catalog, &volume(2, "a")).await;
}

#[tokio::test]
async fn of_two_changes_of_one_reading_the_second_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let seen = create(&catalog, &volume(1, "a")).await;
    let next = VolumeRecord { version: 2, ..seen.volume.record.clone() };
    catalog.change_record(&seen, next.clone(), vec![event()]).await.unwrap();
    let late = catalog.change_record(&seen, next, vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    assert_eq!(catalog.delete_volume(&seen, None, event()).await.unwrap_err().kind(), CatalogErrorKind::Conflict);
    catalog.change_use(&seen, UseState::Used, "", vec![]).await.unwrap();
    assert_eq!(
        catalog.change_use(&seen, UseState::Used, "", vec![]).await.unwrap_err().kind(),
        CatalogErrorKind::Conflict
    );
    let (events, _) = catalog.events(None, 10).await.unwrap();
    assert_eq!(events.len(), 2, "a change that was not made is not told of");
}

#[tokio::test]
async fn space_is_claimed_until_the_replica_is_confirmed_gone_also_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let made = create(&catalog, &volume(1, "a")).await;
    create(&catalog, &volume(2, "b")).await;
    let stale = crate::Claims::default();
    let raced = catalog.create_volume(&volume(3, "c"), &stale, &[], event()).await.unwrap_err();
    assert_eq!(raced.kind(), CatalogErrorKind::Conflict, "the placement was decided on older claims");
    let gone = catalog.delete_volume(&made, None, event()).await.unwrap();
    assert_eq!(gone.len(), 3);
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert_eq!(catalog.tombstones().await.unwrap().0, gone);
    assert_eq!(catalog.claims().await.unwrap().of(disk(1)), ByteCount(2 << 30));
    catalog.drop_tombstone(&gone[0], vec![]).await.unwrap();
    catalog.drop_tombstone(&gone[0], vec![]).await.unwrap();
    assert_eq!(catalog.claims().await.unwrap().of(gone[0].disk), ByteCount(1 << 30));
    let bad = Transaction::default().put(format!("{}x", keys::TOMBSTONES), b"{}".to_vec());
    catalog.store().commit(bad).await.unwrap();
    let (left, unreadable) = catalog.tombstones().await.unwrap();
    assert_eq!((left.len(), unreadable.len()), (2, 1), "one that cannot be read hides no other");
}

#[tokio::test]
async fn pages_cover_every_volume_once_and_one_bad_value_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    for id in 1..=5 {
        create(&catalog, &volume(id, &format!("v{id}"))).await;
    }
    let bad = Transaction::default().put(keys::record(VolumeId::from_u128(3)), b"{\"format\":9,\"body\":{}}".to_vec());
    catalog.store().commit(bad).await.unwrap();
    let (mut seen, mut unreadable, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = catalog.volumes(after, 2).await.unwrap();
        seen.extend(page.volumes.iter().map(|found| found.volume.id().as_u128()));
        unreadable.extend(page.unreadable.into_iter().map(|(_, error)| error.kind()));
        after = page.last;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 4, 5]);
    assert_eq!(unreadable, [CatalogErrorKind::Newer]);
}

#[tokio::test]
async fn a_change_of_membership_does_not_write_the_chunk_table() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let mut big = volume(1, "a");
    let runs = RUNS_PER_PAGE as u32 * 2 + 5;
    big.record.size = ByteCount(u64::from(runs) * ashlar_types::CHUNK_BYTES);
    let run = |i: u32| ChunkRun { first: ChunkIndex(i), count: 1, members: vec![(i % 3) as u16, ((i + 1) % 3) as u16] };
    big.record.chunks = (0..runs).map(run).collect();
    let seen = create(&catalog, &big).await;
    let pages = || async {
        let range = KeyRange::prefix(&keys::chunks(big.id()));
        catalog.store().read(vec![range]).await.unwrap().ranges.remove(0)
    };
    let before = pages().await;
    assert_eq!(before.len(), 3);
    let next = VolumeRecord { version: 2, ..seen.volume.record.clone() };
    let changed = catalog.change_record(&seen, next, vec![event()]).await.unwrap();
    assert_eq!(pages().await, before);
    assert_eq!(catalog.volume(big.id()).await.unwrap().unwrap(), changed);
    catalog.delete_volume(&changed, None, event()).await.unwrap();
    assert!(pages().await.is_empty());
}

#[tokio::test]
async fn a_chunk_table_with_a_gap_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let seen = create(&catalog, &volume(1, "a")).await;
    let gone = Transaction::default().delete(keys::chunk_page(seen.volume.id(), 0));
    catalog.store().commit(gone).await.unwrap();
    assert_eq!(catalog.volume(seen.volume.id()).await.unwrap_err().kind(), CatalogErrorKind::Corrupt);
}

/// As `volume/<id>` was written before there were settings.
const VOLUME_OF_FORMAT_1: &str = r#"{"format":1,"body":{"name":"a","parameters":{"replicas":"3"},
    "allowed_nodes":["n1"],"use":"used","fs_type":"ext4","created_ms":5}}"#;

#[tokio::test]
async fn a_volume_from_before_there_were_settings_has_the_usual_ones_and_can_get_others() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let id = create(&catalog, &volume(1, "a")).await.volume.id();
    let old = Transaction::default().put(keys::volume(id), VOLUME_OF_FORMAT_1.as_bytes().to_vec());
    catalog.store().commit(old).await.unwrap();
    let seen = catalog.volume(id).await.unwrap().unwrap();
    assert_eq!((seen.volume.settings, seen.volume.fs_type.as_str()), (Settings::default(), "ext4"));
    let low = Settings { version: 1, class: Class::Low, ..Settings::default() };
    let changed = catalog.change_settings(&seen, low, None, vec![event()]).await.unwrap();
    assert_eq!(catalog.volume(id).await.unwrap().unwrap(), changed);
    assert_eq!(changed.volume, Volume { settings: low, ..seen.volume });
}

#[tokio::test]
async fn a_volume_of_a_newer_program_is_told_apart_from_a_damaged_one() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let id = create(&catalog, &volume(1, "a")).await.volume.id();
    for (value, kind) in [
        (r#"{"format":6,"body":{"mood":1}}"#, CatalogErrorKind::Newer),
        (r#"{"format":5,"body":{"mood":1}}"#, CatalogErrorKind::Corrupt),
    ] {
        let put = Transaction::default().put(keys::volume(id), value.as_bytes().to_vec());
        catalog.store().commit(put).await.unwrap();
        assert_eq!(catalog.volume(id).await.unwrap_err().kind(), kind);
        let settings = catalog.settings(&[id]).await.unwrap().remove(0).1;
        assert_eq!(settings.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn settings_and_record_change_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let seen = create(&catalog, &volume(1, "a")).await;
    let settings = Settings { version: 1, ..Settings::default() };
    let next = VolumeRecord { version: 2, min_replicas: 1, ..seen.volume.record.clone() };
    let other = VolumeRecord { version: 2, ..seen.volume.record.clone() };
    let moved = catalog.change_record(&seen, other, vec![]).await.unwrap();
    let late = catalog.change_settings(&seen, settings, Some(next.clone()), vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    assert_eq!(catalog.volume(seen.volume.id()).await.unwrap().unwrap(), moved, "nothing of it was kept");
    let next = VolumeRecord { version: 3, ..next };
    let changed = catalog.change_settings(&moved, settings, Some(next), vec![event()]).await.unwrap();
    assert_eq!(catalog.volume(seen.volume.id()).await.unwrap().unwrap(), changed);
    assert_eq!((changed.volume.settings, changed.volume.record.min_replicas), (settings, 1));
}

#[tokio::test]
async fn settings_of_many_volumes_are_read_together() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let a = create(&catalog, &volume(1, "a")).await.volume;
    let b = create(&catalog, &volume(300, "b")).await.volume;
    let all: Vec<VolumeId> = (1..=300).map(VolumeId::from_u128).collect();
    let found = catalog.settings(&all).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(id, settings)| (id, settings.unwrap())).collect();
    assert_eq!(found, [(a.id(), a.settings), (b.id(), b.settings)]);
}

#[tokio::test]
async fn a_volume_grows_with_its_chunks_and_claims_in_one_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let mut wide = volume(1, "a");
    let runs = RUNS_PER_PAGE as u32 + 5;
    wide.record.size = ByteCount(u64::from(runs) * ashlar_types::CHUNK_BYTES);
    let run = |i: u32| ChunkRun { first: ChunkIndex(i), count: 1, members: vec![(i % 3) as u16] };
    wide.record.chunks = (0..runs).map(run).collect();
    let seen = create(&catalog, &wide).await;
    let mut next = VolumeRecord { version: 2, ..seen.volume.record.clone() };
    next.size = ByteCount(next.size.0 + 3 * ashlar_types::CHUNK_BYTES);
    next.chunks.last_mut().unwrap().count = 4;
    let stale = crate::Claims::default();
    let raced = catalog.grow_volume(&seen, next.clone(), &stale, vec![event()]).await.unwrap_err();
    assert_eq!(raced.kind(), CatalogErrorKind::Conflict, "the room was judged by older claims");
    let claims = catalog.claims().await.unwrap();
    let grown = catalog.grow_volume(&seen, next.clone(), &claims, vec![event()]).await.unwrap();
    let claims = catalog.claims().await.unwrap();
    let late = catalog.grow_volume(&seen, next.clone(), &claims, vec![event()]).await.unwrap_err();
    assert_eq!(late.kind(), CatalogErrorKind::Conflict);
    drop(catalog);
    let catalog = open(directory.path()).await;
    assert_eq!(catalog.volume(wide.id()).await.unwrap().unwrap(), grown);
    assert_eq!(grown.volume.record, next);
    assert_eq!([1, 2, 3].map(|number| claims.of(disk(number))), [next.size; 3]);
    let gone = catalog.delete_volume(&grown, None, event()).await.unwrap();
    for tombstone in &gone {
        catalog.drop_tombstone(tombstone, vec![]).await.unwrap();
    }
    assert_eq!(catalog.claims().await.unwrap().of(disk(1)), ByteCount(0), "what was claimed is given back");
}
