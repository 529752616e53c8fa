//! The count against trying every combination, and what the bound on partners is worth.

use super::*;
use crate::placement::{Ask, Candidate, Need, Offer, Partners, Surroundings, place_among};
use ashlar_types::{ByteCount, NodeName};
use proptest::prelude::*;

fn disk(id: u64) -> DiskId {
    DiskId::from_u128(u128::from(id))
}

fn by_trying(placements: &[Vec<DiskId>], disks: u64) -> Loss {
    let mut loss = Loss { losing: 0, of: 0 };
    for a in 0..disks {
        for b in a + 1..disks {
            for c in b + 1..disks {
                let failed = [disk(a), disk(b), disk(c)];
                let is_lost = |piece: &Vec<DiskId>| !piece.is_empty() && piece.iter().all(|disk| failed.contains(disk));
                loss.of += 1;
                loss.losing += u64::from(placements.iter().any(is_lost));
            }
        }
    }
    loss
}

proptest! {
    #[test]
    fn counting_is_trying(
        pieces in prop::collection::vec(prop::collection::vec(0u64..9, 1..5), 0..12),
        more in 0u64..3,
    ) {
        let placements: Vec<Vec<DiskId>> =
            pieces.iter().map(|piece| piece.iter().map(|&id| disk(id)).collect()).collect();
        let counted = on_three_failures(placements.iter().map(Vec::as_slice), 9 + more);
        prop_assert_eq!(counted, by_trying(&placements, 9 + more));
    }
}

#[test]
fn random_pieces_cover_what_they_must() {
    assert_eq!(at_random(0, 100).losing, 0);
    assert_eq!(at_random(1, 100).losing, 1);
    assert_eq!(at_random(1, 2), Loss { losing: 0, of: 0 });
    // 161,700 combinations: 1 - 1/e of them after as many pieces, all but none after a thousand times as many.
    assert!(at_random(161_700, 100).per_billion().abs_diff(632_121_700) < 10_000);
    assert!(at_random(161_700_000, 100).losing >= 161_699);
}

/// 100 nodes with a disk each, 3,000 volumes: the figure that DESIGN.md has.
#[test]
fn bounded_partners_lose_a_tenth_of_what_random_volumes_lose() {
    let mut candidates: Vec<Candidate> = (0..100u64)
        .map(|id| Candidate { disk: disk(id), node: node(id), zone: None, offer: Offer::Room(ByteCount(1 << 20)) })
        .collect();
    let mut surroundings = Surroundings { partners: Partners::new(6), ..Surroundings::default() };
    let mut placements = vec![];
    for volume in 0..3000u64 {
        let ask =
            Ask { size: ByteCount(1 << 12), replicas: 3, first_nodes: vec![node(volume * 37 % 100)], strict: false };
        let placed = place_among(&ask, &Need::default(), &candidates, &surroundings).unwrap();
        let taken: Vec<DiskId> = placed.iter().map(|(candidate, _)| candidate.disk).collect();
        surroundings.partners.add(&placed.iter().map(|(candidate, _)| &candidate.node).collect::<Vec<_>>());
        for candidate in candidates.iter_mut().filter(|candidate| taken.contains(&candidate.disk)) {
            let Offer::Room(room) = &mut candidate.offer else { unreachable!("every disk is open") };
            room.0 -= 1 << 12;
        }
        placements.push(taken);
    }
    let ours = on_three_failures(placements.iter().map(Vec::as_slice), 100);
    let random = at_random(3000, 100);
    println!("lost by three failures: {ours}; volumes at random {random}; chunks at random {}", at_random(48_000, 100));
    assert!(ours.losing * 10 <= random.losing, "{ours} against {random}");
    let width = (0..100).map(|id| surroundings.partners.width(&node(id))).max();
    assert!(width <= Some(7), "{width:?}");
    let rooms: Vec<u64> = candidates.iter().map(crate::placement::room).collect();
    let (least, most) = (rooms.iter().min().unwrap(), rooms.iter().max().unwrap());
    assert!(most - least <= 40 << 12, "from {least} to {most}");
}

fn node(id: u64) -> NodeName {
    format!("n{id}").parse().unwrap()
}
