//! Each rule of placement by name, and the promises that hold for every cluster.

use super::*;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn node(number: usize) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn disk(id: u128, on: usize, zone: Option<&str>, gib: u64) -> Candidate {
    let zone = zone.map(|zone| zone.parse().unwrap());
    Candidate { disk: DiskId::from_u128(id), node: node(on), zone, offer: Offer::Room(ByteCount(gib * GIB)) }
}

fn ask(gib: u64, first_nodes: &[usize], strict: bool) -> Ask {
    Ask { size: ByteCount(gib * GIB), replicas: 3, first_nodes: first_nodes.iter().map(|&n| node(n)).collect(), strict }
}

fn place<'a>(ask: &Ask, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>, PlacementError> {
    place_for(ask, &Need::default(), candidates)
}

/// In a cluster of which nothing else is known.
fn place_for<'a>(ask: &Ask, need: &Need, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>, PlacementError> {
    let placed = place_among(ask, need, candidates, &Surroundings::default())?;
    Ok(placed.into_iter().map(|(candidate, _)| candidate).collect())
}

fn zone(name: &str) -> ZoneName {
    name.parse().unwrap()
}

fn ids(placed: &[&Candidate]) -> Vec<u128> {
    placed.iter().map(|candidate| candidate.disk.as_u128()).collect()
}

#[test]
fn the_first_replica_is_local_and_the_others_have_most_room() {
    let disks = [disk(1, 1, None, 5), disk(2, 2, None, 50), disk(3, 3, None, 40), disk(4, 4, None, 60)];
    assert_eq!(ids(&place(&ask(4, &[1], false), &disks).unwrap()), [1, 4, 2]);
}

#[test]
fn why_the_first_replica_is_local_names_the_other_nodes_too() {
    let disks = [disk(1, 1, None, 5), disk(2, 2, None, 50), disk(3, 3, None, 1), disk(4, 4, None, 60)];
    let placed = place_among(&ask(4, &[1], false), &Need::default(), &disks, &Surroundings::default()).unwrap();
    let said: Vec<String> = placed[0].1.left_out.iter().map(|left| left.reason.to_string()).collect();
    assert!(said[0].contains("asked for before") && said[1].contains("of 4294967296 bytes"), "{said:?}");
    assert_eq!(said.len(), 3);
    let many: Vec<Candidate> = (1..40).map(|id| disk(id, id as usize, None, 9)).collect();
    let placed = place_among(&ask(4, &[7], false), &Need::default(), &many, &Surroundings::default()).unwrap();
    assert!(placed.iter().all(|(_, why)| why.left_out.len() == 16 && why.left_out.len() + why.more == 38));
}

#[test]
fn two_disks_of_one_node_hold_one_replica() {
    let disks = [disk(1, 1, None, 90), disk(2, 1, None, 80), disk(3, 2, None, 10), disk(4, 3, None, 10)];
    assert_eq!(ids(&place(&ask(4, &[], false), &disks).unwrap()), [1, 3, 4]);
    let error = place(&ask(4, &[], false), &disks[..3]).unwrap_err();
    assert!(matches!(error, PlacementError::TooFewNodes { usable: 2, .. }), "{error}");
}

#[test]
fn zones_are_spread_before_room_is_balanced() {
    let disks = [
        disk(1, 1, Some("a"), 50),
        disk(2, 2, Some("a"), 90),
        disk(3, 3, Some("b"), 10),
        disk(4, 4, Some("a"), 80),
        disk(5, 5, Some("c"), 5),
    ];
    assert_eq!(ids(&place(&ask(4, &[1], false), &disks).unwrap()), [1, 3, 5]);
}

#[test]
fn equal_disks_are_taken_in_the_order_of_their_ids() {
    let disks = [disk(4, 4, None, 9), disk(2, 2, None, 9), disk(3, 3, None, 9), disk(1, 1, None, 9)];
    assert_eq!(ids(&place(&ask(4, &[], false), &disks).unwrap()), [1, 2, 3]);
}

#[test]
fn an_asked_node_without_room_is_passed_over_unless_the_ask_is_strict() {
    let disks = [disk(1, 1, None, 1), disk(2, 2, None, 9), disk(3, 3, None, 9), disk(4, 4, None, 9)];
    assert_eq!(ids(&place(&ask(4, &[1, 3], false), &disks).unwrap()), [3, 2, 4]);
    assert_eq!(ids(&place(&ask(4, &[1], false), &disks).unwrap()), [2, 3, 4]);
    let error = place(&ask(4, &[1], true), &disks).unwrap_err();
    assert!(error.to_string().contains("n1: disk"), "{error}");
}

#[test]
fn an_error_says_why_each_node_is_no_use() {
    let mut silent = disk(2, 2, None, 9);
    silent.offer = Offer::Closed("silent".to_owned());
    let error =
        place(&ask(4, &[], false), &[disk(1, 1, None, 9), silent, disk(3, 3, None, 2)]).unwrap_err().to_string();
    assert!(error.contains("1 have one") && error.contains("n2: disk") && error.contains("is silent"), "{error}");
    assert!(error.contains(&(2 * GIB).to_string()), "{error}");
}

#[test]
fn capacity_counts_each_node_once_per_volume() {
    let disks = [disk(1, 1, None, 10), disk(2, 1, None, 20), disk(3, 2, None, 8), disk(4, 3, None, 6)];
    let any = Need::default();
    let capacity = |replicas, first_nodes: &[NodeName]| super::capacity(replicas, first_nodes, &any, &disks);
    let all = capacity(3, &[]);
    assert_eq!((all.largest, all.total), (ByteCount(6 * GIB), ByteCount(6 * GIB)));
    assert_eq!(capacity(1, &[]).largest, ByteCount(20 * GIB));
    assert_eq!(capacity(2, &[node(3)]).total, ByteCount(6 * GIB));
    assert_eq!(capacity(3, &[node(9)]).largest, ByteCount(0));
}

#[test]
fn zones_that_are_not_asked_for_get_nothing_and_are_told_of() {
    let disks = [disk(1, 1, Some("a"), 9), disk(2, 2, Some("b"), 9), disk(3, 3, None, 9), disk(4, 4, Some("a"), 9)];
    let zones = [zone("a")];
    let need = Need { zones: &zones, ..Need::default() };
    let two = Ask { replicas: 2, ..ask(4, &[2], false) };
    assert_eq!(ids(&place_for(&two, &need, &disks).unwrap()), [1, 4], "the node asked for is in another zone");
    let error = place_for(&ask(4, &[], false), &need, &disks).unwrap_err().to_string();
    assert!(error.contains("2 have one") && error.contains("in zone b, which is not asked for"), "{error}");
    assert!(error.contains("in zone none"), "{error}");
    let strict = place_for(&Ask { strict: true, ..two }, &need, &disks).unwrap_err().to_string();
    assert!(strict.contains("n2: disk") && strict.contains("zone b, which is not asked for"), "{strict}");
}

#[test]
fn spread_over_zones_holds_or_nothing_is_placed() {
    let spread = Need { spread_zones: true, ..Need::default() };
    let mut disks = vec![disk(1, 1, Some("a"), 50), disk(2, 2, Some("a"), 90), disk(3, 3, Some("b"), 10)];
    let error = place_for(&ask(4, &[], false), &spread, &disks).unwrap_err().to_string();
    assert!(error.contains("3 zones") && error.contains("2 have one: a, b"), "{error}");
    disks.push(disk(4, 4, None, 9));
    assert_eq!(ids(&place_for(&ask(4, &[1], false), &spread, &disks).unwrap()), [1, 3, 4], "no zone is one too");
    assert!(place_for(&ask(10, &[], false), &spread, &disks).unwrap_err().to_string().contains("2 have one: a, b"));
}

/// Disks of one node are in one zone.
fn clusters() -> impl Strategy<Value = Vec<Candidate>> {
    let candidate = (1usize..7, 0u64..200, prop::bool::weighted(0.2));
    let zones = prop::collection::vec(0usize..4, 7);
    (prop::collection::vec(candidate, 0..14), zones).prop_map(|(disks, zones)| {
        let made = |(i, (on, slots, closed)): (usize, (usize, u64, bool))| {
            let offer = match closed {
                true => Offer::Closed("silent".to_owned()),
                false => Offer::Room(ByteCount(slots)),
            };
            let zone = (zones[on] > 0).then(|| zone(&format!("z{}", zones[on])));
            Candidate { disk: DiskId::from_u128(i as u128), node: node(on), zone, offer }
        };
        disks.into_iter().enumerate().map(made).collect()
    })
}

proptest! {
    #[test]
    fn a_placement_keeps_its_promises(disks in clusters(), size in 1u64..150, replicas in 1u8..4, first in 1usize..7) {
        let ask = Ask { size: ByteCount(size), replicas, first_nodes: vec![node(first)], strict: false };
        let placed = match place(&ask, &disks) {
            Ok(placed) => placed,
            Err(PlacementError::TooFewNodes { usable, .. }) => {
                prop_assert!(usable < usize::from(replicas));
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        prop_assert_eq!(placed.len(), usize::from(replicas));
        let nodes: BTreeSet<&NodeName> = placed.iter().map(|candidate| &candidate.node).collect();
        prop_assert_eq!(nodes.len(), placed.len());
        prop_assert!(placed.iter().all(|candidate| room(candidate) >= size));
        let local = disks.iter().any(|candidate| candidate.node == node(first) && room(candidate) >= size);
        prop_assert!(!local || placed[0].node == node(first));
    }

    #[test]
    fn the_order_of_the_disks_decides_nothing(disks in clusters(), size in 1u64..150) {
        let ask = Ask { size: ByteCount(size), replicas: 3, first_nodes: vec![], strict: false };
        let mut reversed = disks.clone();
        reversed.reverse();
        let placed = |disks: &[Candidate]| place(&ask, disks).map(|placed| ids(&placed)).map_err(|_| ());
        prop_assert_eq!(placed(&disks), placed(&reversed));
    }

    #[test]
    fn capacity_agrees_with_placement(
        disks in clusters(),
        replicas in 1u8..4,
        first in 1usize..7,
        spread_zones in any::<bool>(),
        zones in prop::sample::subsequence(vec!["z1", "z2", "z3"], 0..4),
    ) {
        let zones: Vec<ZoneName> = zones.into_iter().map(zone).collect();
        let need = Need { zones: &zones, spread_zones, ..Need::default() };
        let first_nodes = vec![node(first)];
        let capacity = capacity(replicas, &first_nodes, &need, &disks);
        let placed = |size: u64| {
            let first_nodes = first_nodes.clone();
            let ask = Ask { size: ByteCount(size), replicas, first_nodes, strict: true };
            place_for(&ask, &need, &disks).is_ok()
        };
        prop_assert!(capacity.largest.0 == 0 || placed(capacity.largest.0));
        prop_assert!(!placed(capacity.largest.0 + 1));
        prop_assert!(capacity.largest <= capacity.total);
    }
}
