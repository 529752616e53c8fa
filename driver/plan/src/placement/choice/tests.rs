//! Each rule of a choice by name, and that the explanation is true.

use super::*;
use proptest::prelude::*;

fn node(number: usize) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn candidate(id: u128, on: usize, zone: Option<&str>, room: u64) -> Candidate {
    let zone = zone.map(|zone| zone.parse().unwrap());
    Candidate { disk: DiskId::from_u128(id), node: node(on), zone, offer: Offer::Room(ByteCount(room)) }
}

fn chosen(need: &Need, standing: &[Site], all: &[Candidate], around: &Surroundings) -> (Option<u128>, Explanation) {
    let (found, explanation) = choose(need, standing, all.iter(), around);
    (found.map(|found| found.disk.as_u128()), explanation)
}

fn need() -> Need<'static> {
    Need { size: ByteCount(10), ..Need::default() }
}

#[test]
fn full_nodes_get_no_new_partner_while_another_has_room() {
    let all = [candidate(1, 1, None, 900), candidate(2, 2, None, 500)];
    let mut around = Surroundings { partners: Partners::new(1), ..Surroundings::default() };
    around.partners.add(&[&node(0), &node(2)]);
    let (home, fresh) = (node(0), node(7));
    let standing = [Site { node: &home, zone: None }];
    let (found, explanation) = chosen(&need(), &standing, &all, &around);
    assert_eq!(found, Some(2));
    assert_eq!(explanation.left_out[0].reason, Reason::Behind(Rule::Partners));
    assert_eq!(
        chosen(&need(), &[Site { node: &fresh, zone: None }], &all, &around).0,
        Some(1),
        "it has no partner yet"
    );
    assert_eq!(chosen(&need(), &standing, &all[..1], &around).0, Some(1), "room goes before the bound");
}

#[test]
fn of_equals_the_less_busy_is_taken_and_an_old_set_before_that() {
    let all = [candidate(1, 1, None, 100), candidate(2, 2, None, 100), candidate(3, 3, None, 100)];
    let mut around = Surroundings::default();
    around.busy_permille.insert(DiskId::from_u128(1), 300);
    let home = node(0);
    let standing = [Site { node: &home, zone: None }];
    assert_eq!(chosen(&need(), &standing, &all, &around).0, Some(2));
    around.partners.add(&[&node(0), &node(1)]);
    assert_eq!(chosen(&need(), &standing, &all, &around).0, Some(1));
}

#[test]
fn zones_that_were_not_asked_for_or_are_taken_will_not_do() {
    let all = [candidate(1, 1, Some("a"), 100), candidate(2, 2, Some("b"), 100), candidate(3, 3, None, 100)];
    let asked: Vec<ZoneName> = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    let (home, zone): (NodeName, ZoneName) = (node(0), "a".parse().unwrap());
    let standing = [Site { node: &home, zone: Some(&zone) }];
    let spread = Need { zones: &asked, spread_zones: true, ..need() };
    let (found, explanation) = chosen(&spread, &standing, &all, &Surroundings::default());
    assert_eq!(found, Some(2));
    assert!(matches!(explanation.left_out[0].reason, Reason::ZoneTaken { .. }), "{explanation}");
    assert!(matches!(explanation.left_out[1].reason, Reason::ZoneNotAsked { .. }), "{explanation}");
}

#[test]
fn a_refusal_names_every_disk_and_what_is_wrong_with_it() {
    let mut all: Vec<Candidate> = (0..20).map(|id| candidate(id, 1 + id as usize, None, 5)).collect();
    all[3].offer = Offer::Closed("silent".to_owned());
    let (found, explanation) = chosen(&need(), &[], &all, &Surroundings::default());
    let text = explanation.to_string();
    assert!(found.is_none() && text.contains("no disk will do") && text.contains("it is silent"), "{text}");
    assert!(text.contains("it has 5 of 10 bytes") && text.ends_with("nor 4 more"), "{text}");
}

proptest! {
    #[test]
    fn what_is_said_of_a_choice_is_true(
        disks in prop::collection::vec((0usize..8, 0usize..4, 0u64..40, 0u16..3, any::<bool>()), 0..16),
        kept in prop::collection::vec(0usize..8, 0..3),
        spread_zones in any::<bool>(),
        partners_max in 1usize..4,
    ) {
        let mut around = Surroundings { partners: Partners::new(partners_max), ..Surroundings::default() };
        let mut all = vec![];
        for (id, (on, zone, room, busy, open)) in disks.into_iter().enumerate() {
            let zone = (zone > 0).then(|| format!("z{zone}"));
            let mut made = candidate(id as u128, on, zone.as_deref(), room);
            if !open { made.offer = Offer::Closed("failed".to_owned()) }
            around.busy_permille.insert(made.disk, busy * 100);
            around.partners.add(&[&node(on), &node(on / 2)]);
            all.push(made);
        }
        let names: Vec<NodeName> = kept.into_iter().map(node).collect();
        let standing: Vec<Site> = names.iter().map(|node| Site { node, zone: None }).collect();
        let need = Need { spread_zones, ..need() };
        let (found, explanation) = choose(&need, &standing, all.iter(), &around);
        prop_assert_eq!(found.map(|found| found.disk), explanation.taken.as_ref().map(|taken| taken.disk));
        prop_assert_eq!(explanation.left_out.len() + usize::from(found.is_some()), all.len());
        let nodes: Vec<&NodeName> = names.iter().collect();
        let most = all.iter().filter(|other| against(&need, &standing, other).is_none()).map(room).max().unwrap_or(0);
        for left in &explanation.left_out {
            let other = all.iter().find(|other| other.disk == left.disk).unwrap();
            match &left.reason {
                Reason::Closed(why) => prop_assert_eq!(&other.offer, &Offer::Closed(why.clone())),
                Reason::NodeTaken => prop_assert!(names.contains(&other.node)),
                Reason::Room { room: said, needed } => prop_assert!(room(other) == said.0 && said < needed),
                Reason::ZoneTaken { zone } => prop_assert!(spread_zones && *zone == other.zone && zone.is_none()),
                Reason::ZoneNotAsked { .. } | Reason::Member | Reason::Buried | Reason::AskedLater => {
                    prop_assert!(false, "nobody asked");
                }
                Reason::Behind(said) => {
                    let better = explanation.taken.as_ref().unwrap();
                    let worse = taken(other, &standing, &nodes, &around, most);
                    prop_assert!(*better < worse);
                    prop_assert_eq!(*said, rule(better, &worse));
                }
            }
        }
    }
}
