//! The figures of one look.

use super::*;
use ashlar_plan::repair::{BytesPerSecond, Copied, DiskSeen, Fate, Forecast, NodeSeen, Wish};
use ashlar_types::{ByteCount, ChunkIndex, ChunkRun, Duration, Lsn, MemberState};

const IN_SYNC: MemberState = MemberState::InSync;
const OUT: MemberState = MemberState::Out { commit: Lsn::ZERO };

/// Disks 1, 2, 3 hold it.
fn volume(class: Class, states: [MemberState; 3]) -> VolumeSeen {
    let member = |(at, &state): (usize, &MemberState)| MemberSeen {
        disk: DiskId::from_u128(at as u128 + 1),
        node: format!("n{}", at + 1).parse().unwrap(),
        state,
        copy: None,
    };
    VolumeSeen {
        class,
        holder: None,
        claim: ByteCount(100),
        replicas: 3,
        min_replicas: 2,
        wish: Wish::default(),
        is_flat: true,
        members: states.iter().enumerate().map(member).collect(),
        is_read: false,
        buried: vec![],
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 1, members: vec![0, 1, 2] }],
    }
}

fn look(volumes: Vec<VolumeSeen>) -> Look {
    let mut seen = Seen::default();
    for number in 1..=3u128 {
        let (node, zone): (NodeName, _) = (format!("n{number}").parse().unwrap(), None);
        let (is_silent, is_draining) = (false, number == 3);
        seen.nodes.insert(node.clone(), NodeSeen { zone, is_silent, is_draining, may_attach: true, foreground: None });
        let (capacity, claimed, used) = (ByteCount(1000), ByteCount(0), ByteCount(0));
        let disk = DiskSeen { node, capacity, claimed, used, fate: Fate::Usable, busy_permille: 0 };
        seen.disks.insert(DiskId::from_u128(number), disk);
    }
    let volumes = volumes.into_iter().enumerate();
    seen.volumes = volumes.map(|(at, volume)| (VolumeId::from_u128(at as u128), volume)).collect();
    Look { seen, volumes: BTreeMap::new(), unreached: BTreeSet::new(), unheard: BTreeSet::new() }
}

#[test]
fn each_volume_counts_once_by_what_it_can_count_on() {
    let mut copying = volume(Class::High, [IN_SYNC, OUT, MemberState::Syncing { commit: Lsn::ZERO }]);
    let rate = Some(BytesPerSecond(7));
    copying.members[2].copy = Some(Copied { done: ByteCount(1), total: ByteCount(2), rate });
    let volumes = vec![
        volume(Class::Low, [IN_SYNC; 3]),
        volume(Class::Low, [IN_SYNC, IN_SYNC, OUT]),
        copying,
        volume(Class::Critical, [OUT; 3]),
    ];
    let forecast = |position, seconds: Option<u64>| Forecast {
        position,
        remaining: ByteCount(50),
        protected_in: seconds.map(Duration::from_secs),
    };
    let forecasts = [(1, forecast(0, Some(9))), (2, forecast(1, None)), (3, forecast(FORECASTS_MAX, Some(9)))];
    let forecasts = forecasts.into_iter().map(|(id, forecast)| (VolumeId::from_u128(id), forecast)).collect();
    let figures = Figures::of(&look(volumes), &Plan { forecasts, ..Plan::default() });
    let of = |protection, class| figures.volumes.get(&(protection, class)).copied().unwrap_or(0);
    assert_eq!([of(Protection::Whole, Class::Low), of(Protection::Degraded, Class::Low)], [1, 1]);
    assert_eq!([of(Protection::OneLeft, Class::High), of(Protection::None, Class::Critical)], [1, 1]);
    assert_eq!(figures.volumes.values().sum::<u64>(), 4);
    assert_eq!(figures.bytes_left, BTreeMap::from([(Class::Low, 50), (Class::High, 50), (Class::Critical, 50)]));
    assert_eq!(figures.protected_in_s, BTreeMap::from([(VolumeId::from_u128(1), 9)]), "known, and among the first");
    assert_eq!(figures.copied_per_s, BTreeMap::from([("n3".parse().unwrap(), 7)]));
    assert_eq!((figures.nodes_draining, figures.disks_draining, figures.replicas_to_drain), (1, 1, 4));
}
