//! Each answer by name.

use super::*;
use crate::repair::{DiskSeen, Fate, NodeSeen, Wish};
use ashlar_types::{ByteCount, ChunkIndex, ChunkRun, Class, Instant, Lsn, MemberState};

const VOLUME: VolumeId = VolumeId::from_u128(1);

fn node(number: u128) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn disk(number: u128) -> DiskId {
    DiskId::from_u128(number)
}

/// Four nodes with a disk each, a volume on the first three.
fn seen() -> Seen {
    let known = NodeSeen { zone: None, is_silent: false, is_draining: false, may_attach: true, foreground: None };
    let on = |number| DiskSeen {
        node: node(number),
        capacity: ByteCount(1 << 30),
        claimed: ByteCount(1 << 20),
        used: ByteCount(0),
        fate: Fate::Usable,
        busy_permille: 0,
    };
    let member = |number| MemberSeen { disk: disk(number), node: node(number), state: MemberState::InSync, copy: None };
    let volume = VolumeSeen {
        class: Class::Normal,
        holder: None,
        claim: ByteCount(1 << 20),
        replicas: 3,
        min_replicas: 2,
        wish: Wish::default(),
        is_read: false,
        buried: Vec::new(),
        is_flat: true,
        members: (0..3).map(member).collect(),
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 1, members: vec![0, 1, 2] }],
    };
    Seen {
        now: Instant::ZERO,
        nodes: (0..4).map(|number| (node(number), known.clone())).collect(),
        disks: (0..4).map(|number| (disk(number), on(number))).collect(),
        volumes: BTreeMap::from([(VOLUME, volume)]),
    }
}

fn set_out(seen: &mut Seen, index: usize) {
    let member = &mut seen.volumes.get_mut(&VOLUME).unwrap().members[index];
    member.state = MemberState::Out { commit: Lsn::ZERO };
}

#[test]
fn a_node_may_be_stopped_while_writes_go_on_without_it() {
    let mut seen = seen();
    assert_eq!(safe_to_stop(&seen, &node(0), &BTreeMap::new()), Stop::Yes);
    set_out(&mut seen, 1);
    assert_eq!(safe_to_stop(&seen, &node(3), &BTreeMap::new()), Stop::Yes, "it holds nothing");
    assert_eq!(safe_to_stop(&seen, &node(1), &BTreeMap::new()), Stop::Yes, "two others are left");
    let Stop::No { against, yes_in } = safe_to_stop(&seen, &node(0), &BTreeMap::new()) else { panic!("one is left") };
    assert_eq!(yes_in, None);
    assert!(against.to_string().contains("1 of 3 replicas would be left, writes need 2"), "{against}");
    let forecast = Forecast { position: 0, remaining: ByteCount(1), protected_in: Some(Duration::from_secs(40)) };
    let forecasts = BTreeMap::from([(VOLUME, forecast)]);
    let Stop::No { yes_in, .. } = safe_to_stop(&seen, &node(0), &forecasts) else { panic!("one is left") };
    assert_eq!(yes_in, Some(Duration::from_secs(40)));
}

#[test]
fn a_replica_on_a_silent_node_is_not_counted_on() {
    let mut seen = seen();
    seen.nodes.get_mut(&node(1)).unwrap().is_silent = true;
    assert!(matches!(safe_to_stop(&seen, &node(0), &BTreeMap::new()), Stop::No { .. }));
}

#[test]
fn a_volume_that_needs_all_its_replicas_never_lets_one_go() {
    let mut seen = seen();
    seen.volumes.get_mut(&VOLUME).unwrap().min_replicas = 3;
    let forecast = Forecast { position: 0, remaining: ByteCount(1), protected_in: Some(Duration::from_secs(40)) };
    let Stop::No { yes_in, .. } = safe_to_stop(&seen, &node(0), &BTreeMap::from([(VOLUME, forecast)])) else {
        panic!("writes would wait")
    };
    assert_eq!(yes_in, None);
}

#[test]
fn a_drain_without_a_place_elsewhere_is_refused_with_the_list() {
    let mut seen = seen();
    let bounds = Bounds::default();
    assert_eq!(may_drain(&seen, &bounds, &node(0)), Drain::Yes);
    seen.disks.get_mut(&disk(3)).unwrap().claimed = ByteCount(1 << 30);
    let Drain::No { against } = may_drain(&seen, &bounds, &node(0)) else { panic!("there is no room") };
    assert_eq!(against.volumes[0].0, VOLUME);
    assert!(against.to_string().contains("it has 0 of 1048576 bytes"), "{against}");
    assert_eq!(may_drain(&seen, &bounds, &node(3)), Drain::Yes, "it holds nothing");
}

#[test]
fn the_disk_with_the_last_copy_is_not_removed() {
    let mut seen = seen();
    assert_eq!(may_remove(&seen, disk(3)), Removal::Yes);
    assert!(matches!(may_remove(&seen, disk(0)), Removal::NotEmpty { .. }));
    set_out(&mut seen, 1);
    seen.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    assert!(matches!(may_remove(&seen, disk(0)), Removal::LastCopy { .. }));
    assert!(matches!(may_remove(&seen, disk(1)), Removal::NotEmpty { .. }));
}

#[test]
fn an_answer_is_bounded() {
    let mut seen = seen();
    let volume = seen.volumes[&VOLUME].clone();
    seen.volumes = (0..100).map(|number| (VolumeId::from_u128(number), volume.clone())).collect();
    let Removal::NotEmpty { against } = may_remove(&seen, disk(0)) else { panic!("it holds a hundred") };
    assert_eq!((against.volumes.len(), against.more), (SHOWN_MAX, 100 - SHOWN_MAX));
}
