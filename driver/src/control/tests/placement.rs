//! Where new volumes go: partner sets, zones and spread; and why.

use super::*;
use crate::control::repair::seen::Measured;
use ashlar_plan::repair::Planner;
use ashlar_types::ZoneName;
use std::collections::BTreeSet;

fn given(parameters: &[(&str, &str)]) -> NewVolume {
    asked("v", parameters)
}

fn asked(name: &str, parameters: &[(&str, &str)]) -> NewVolume {
    let parameters: BTreeMap<String, String> =
        parameters.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    NewVolume { params: params::parse(&parameters).unwrap(), parameters, ..wish(name, GIB) }
}

impl World {
    /// Node n1 in the first zone, and so on.
    async fn in_zones(zones: &[&str]) -> World {
        let world = World::with_nodes(0).await;
        for (at, zone) in zones.iter().enumerate() {
            world.zone_of(at as u128 + 1, zone).await;
        }
        world
    }

    async fn zone_of(&self, number: u128, zone: &str) {
        let beat = proto::HeartbeatRequest { zone: zone.to_owned(), ..chunkserver_beat(number, NOWHERE) };
        self.report(beat).await.unwrap();
    }
}

fn nodes(seen: &StoredVolume) -> Vec<String> {
    seen.volume.record.holders().map(|member| member.node.to_string()).collect()
}

#[tokio::test]
async fn volumes_share_few_sets_of_nodes_also_after_a_look_and_a_restart() {
    let world = World::with_nodes(9).await;
    let mut sets = BTreeSet::new();
    let make = async |world: &World, from: usize, to: usize| {
        let mut sets = Vec::new();
        for at in from..to {
            let mut set = nodes(&world.create(&format!("v{at}")).await);
            set.sort();
            sets.push(set);
        }
        sets
    };
    sets.extend(make(&world, 0, 20).await);
    world.control.look(&mut Planner::new(Bounds::default()), &mut Measured::default()).await.unwrap();
    sets.extend(make(&world, 20, 30).await);
    let world = world.restarted().await;
    for number in 1..=9 {
        world.chunkserver_reports(number, NOWHERE).await;
    }
    sets.extend(make(&world, 30, 40).await);
    assert!(sets.len() <= 9, "40 volumes on nine nodes use few of the 84 sets: {sets:?}");
    let used: BTreeSet<&String> = sets.iter().flatten().collect();
    assert_eq!(used.len(), 9, "and room is balanced: {sets:?}");
}

#[tokio::test]
async fn only_the_zones_that_are_asked_for_are_used() {
    let world = World::in_zones(&["a", "a", "b", "b", "c", "c"]).await;
    let made = world.control.create_volume(given(&[("zones", "a,c")])).await.unwrap();
    let zone = |name: &str| Some(name.parse::<ZoneName>().unwrap());
    assert!(made.volume.record.members.iter().all(|member| [zone("a"), zone("c")].contains(&member.zone)));
    let error = world.control.create_volume(asked("w", &[("zones", "a")])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
    assert!(error.message.contains("parameter zones is a") && error.message.contains("2 have one"), "{error}");
    let capacity = world.control.capacity(&given(&[("zones", "a")]).params, &[]).await.unwrap();
    assert_eq!(capacity.largest, ByteCount(0), "what could not be created has no room");
    // A node elsewhere that the pod would like is no obstacle; one that it needs is.
    let liked = NewVolume { first_nodes: vec![node("n3")], ..asked("x", &[("zones", "a,c")]) };
    assert!(!nodes(&world.control.create_volume(liked).await.unwrap()).contains(&"n3".to_owned()));
    let needed = NewVolume { allowed_nodes: vec![node("n3")], ..asked("y", &[("zones", "a,c")]) };
    let error = world.control.create_volume(needed).await.unwrap_err();
    assert!(error.kind == ErrorKind::Exhausted && error.message.contains("zone b, which is not asked"), "{error}");
}

#[tokio::test]
async fn a_spread_that_is_not_possible_is_refused_or_told_of() {
    let world = World::in_zones(&["a", "a", "b"]).await;
    let error = world.control.create_volume(given(&[("spread", "zone")])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
    let named = ["parameter spread is zone", "3 zones", "2 have one: a, b", "set spread to zone-preferred"];
    assert!(named.iter().all(|part| error.message.contains(part)), "{error}");
    assert_eq!(world.control.capacity(&given(&[("spread", "zone")]).params, &[]).await.unwrap().total, ByteCount(0));

    let preferred = world.control.create_volume(given(&[("spread", "zone-preferred")])).await.unwrap();
    let plain = world.control.create_volume(asked("plain", &[])).await.unwrap();
    let disks = world.control.disks_by_id().await;
    let condition = world.control.condition(&preferred, &disks).await;
    assert!(condition.abnormal && condition.message.contains("are all in zone a"), "{condition:?}");
    assert!(condition.message.contains("3 of 3 replicas are in-sync"), "{condition:?}");
    assert!(!world.control.condition(&plain, &disks).await.abnormal, "who asks for nothing is told of nothing");

    world.zone_of(4, "c").await;
    let spread = world.control.create_volume(asked("spread", &[("spread", "zone")])).await.unwrap();
    let zones: BTreeSet<_> = spread.volume.record.members.iter().map(|member| member.zone.clone()).collect();
    assert_eq!(zones.len(), 3);
    let disks = world.control.disks_by_id().await;
    assert!(!world.control.condition(&spread, &disks).await.abnormal);
}

#[tokio::test]
async fn a_repair_keeps_to_what_the_volume_was_made_by() {
    let world = World::in_zones(&["a", "b", "c", "a", "d"]).await;
    let made = world.control.create_volume(given(&[("zones", "a,b,c"), ("spread", "zone")])).await.unwrap();
    let seen = world.control.seen_now().await.unwrap();
    let wish = &seen.volumes[&made.volume.id()].wish;
    assert!(wish.spread_zones && wish.zones.len() == 3);
}

#[tokio::test]
async fn why_a_replica_is_where_it_is_is_kept_as_it_was() {
    let world = World::with_nodes(4).await;
    let made = world.create("a").await;
    let restarted = world.restarted().await;
    let choices = restarted.control.volume_choices(&made).await.unwrap().replicas;
    assert_eq!(choices.len(), 3);
    for (choice, member) in choices.iter().zip(&made.volume.record.members) {
        assert_eq!((&choice.disk, &choice.node), (&member.disk.to_string(), &member.node.to_string()));
        assert!(choice.chosen_ms > 0 && choice.occasion == "the volume was created", "{choice:?}");
        assert!(choice.taken.contains("partners within the bound") && choice.left_out.len() == 3, "{choice:?}");
    }
    let second = &choices[1].left_out;
    assert!(second.iter().any(|left| left.reason == "its node has a replica already"), "{second:?}");
}
