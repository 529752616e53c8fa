//! The planner against a model of a cluster: each rule by name here; promises that hold for every cluster in
//! `properties.rs`; order, estimate and the pace against time in `timing.rs`.

mod model;
mod properties;
mod timing;
mod truth;

use super::*;
use ashlar_types::{Class, Duration};
use model::{GIB, MIB, World, disk, node, volume};

/// Of the one volume.
const BYTES: u64 = 8 * GIB;

fn world() -> World {
    let mut world = World::new(6, 6, 0, 100 * GIB);
    world.add_on(volume(1), Class::Normal, BYTES, Some(node(0)), &[disk(0), disk(1), disk(2)]);
    world
}

fn planner() -> Planner {
    Planner::new(Bounds::default())
}

fn looks(world: &mut World, planner: &mut Planner, count: usize) {
    for _ in 0..count {
        world.look(planner);
    }
}

#[test]
fn a_silent_node_has_its_grace_and_a_return_within_it_is_a_resync() {
    let (mut world, mut planner) = (world(), planner());
    looks(&mut world, &mut planner, 3);
    world.stop_node(&node(2));
    looks(&mut world, &mut planner, 58);
    world.start_node(&node(2));
    world.settle(&mut planner, 1000);
    assert_eq!(world.counts.replaces, 0);
    assert!(world.counts.copied <= BYTES / 10 + 64 * MIB, "{} bytes for a resync", world.counts.copied);
    world.stop_node(&node(2));
    looks(&mut world, &mut planner, 60);
    let holds = |world: &World| world.volumes[&volume(1)].held().any(|member| member.disk == disk(2));
    assert!(holds(&world));
    looks(&mut world, &mut planner, 3);
    assert!(!holds(&world));
}

#[test]
fn a_failed_disk_and_the_last_replica_have_no_grace() {
    let (mut failing, mut planned) = (world(), planner());
    failing.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    looks(&mut failing, &mut planned, 2);
    assert_eq!(failing.counts.replaces, 1);
    let (mut last, mut planned) = (world(), planner());
    last.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    last.stop_node(&node(1));
    looks(&mut last, &mut planned, 1);
    // The writer ejects one of the two, and the other only when a third one is in-sync.
    looks(&mut last, &mut planned, 3);
    assert!(last.counts.replaces >= 1);
    last.settle(&mut planned, 1000);
    assert_eq!(last.counts.replaces, 2);
}

#[test]
fn a_detached_volume_is_attached_for_repair_and_let_go_of() {
    let (mut world, mut planner) = (world(), planner());
    world.volumes.get_mut(&volume(1)).unwrap().record.holder = None;
    world.stop_node(&node(0));
    world.settle(&mut planner, 1000);
    let after = &world.volumes[&volume(1)];
    assert_eq!((world.safe(after), &after.record.holder, world.counts.replaces), (3, &None, 1));
}

#[test]
fn a_node_repairs_so_many_volumes_and_the_most_urgent_ones() {
    let mut world = World::new(4, 4, 0, 100 * GIB);
    let places = [disk(0), disk(1), disk(2)];
    (1..7).for_each(|number| world.add_on(volume(number), Class::Low, 4 * GIB, None, &places));
    world.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    world.nodes.get_mut(&node(2)).unwrap().down_since_ms = Some(0);
    let mut planner = Planner::new(Bounds { repairs_per_node_max: 1, ..Bounds::default() });
    let attached = |world: &World| world.volumes.values().filter(|volume| volume.by_repair).count();
    for _ in 0..5 {
        world.look(&mut planner);
        assert!(attached(&world) <= 3, "three nodes, one each");
    }
    assert_eq!(attached(&world), 3);
    let urgent = world.volumes.values_mut().find(|volume| volume.record.holder.is_none()).unwrap();
    urgent.class = Class::Critical;
    let urgent = urgent.record.volume;
    let stopped = world.look(&mut planner).steps;
    let makes_room = |step: &Step| matches!(step, Step::StopRepair { why: Why::MakesRoom { .. }, .. });
    assert_eq!(stopped.iter().filter(|step| makes_room(step)).count(), 1);
    world.look(&mut planner);
    assert!(world.volumes[&urgent].by_repair && attached(&world) == 3);
    world.settle(&mut planner, 2000);
    assert!(attached(&world) == 0 && world.volumes.values().all(|volume| world.safe(volume) == 3));
}

#[test]
fn a_new_disk_that_dies_while_it_is_filled_is_replaced_whether_somebody_holds_the_volume_or_not() {
    for is_detached in [false, true] {
        let (mut world, mut planner) = (world(), planner());
        world.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
        looks(&mut world, &mut planner, 4);
        let filled = world.volumes[&volume(1)].held().find(|member| !member.state.is_in_sync()).unwrap().node.clone();
        world.stop_node(&filled);
        if is_detached {
            world.volumes.get_mut(&volume(1)).unwrap().record.holder = None;
        }
        world.settle(&mut planner, 1000);
        assert_eq!((world.safe(&world.volumes[&volume(1)]), world.counts.replaces), (3, 2));
    }
}

#[test]
fn a_drained_node_ends_empty_and_redundancy_never_falls() {
    let (mut world, mut planner) = (world(), planner());
    world.nodes.get_mut(&node(1)).unwrap().is_draining = true;
    for _ in 0..1000 {
        world.look(&mut planner);
        assert!(world.safe(&world.volumes[&volume(1)]) >= 3);
    }
    let held: Vec<_> = world.volumes[&volume(1)].held().map(|member| member.node.clone()).collect();
    assert!(!held.contains(&node(1)), "{held:?}");
    assert_eq!((world.counts.widens, world.counts.narrows), (1, 1));
}

#[test]
fn a_replica_that_the_move_does_not_touch_is_replaced_while_it_is_under_way() {
    let (mut world, mut planner) = (World::new(8, 8, 0, 100 * GIB), planner());
    let places = [disk(0), disk(1), disk(2), disk(3)];
    world.add_on(volume(1), Class::Normal, GIB, Some(node(1)), &places);
    world.nodes.get_mut(&node(0)).unwrap().is_draining = true;
    looks(&mut world, &mut planner, 2);
    world.disks.get_mut(&disk(3)).unwrap().fate = Fate::Failed;
    world.settle(&mut planner, 1000);
    let after = &world.volumes[&volume(1)];
    assert_eq!((world.safe(after), after.widest(), world.counts.replaces, world.counts.narrows), (3, 3, 1, 1));
}

#[test]
fn a_drain_that_is_taken_back_is_cancelled() {
    let (mut world, mut planner) = (world(), planner());
    world.nodes.get_mut(&node(1)).unwrap().is_draining = true;
    looks(&mut world, &mut planner, 3);
    assert_eq!(world.counts.widens, 1);
    world.nodes.get_mut(&node(1)).unwrap().is_draining = false;
    world.settle(&mut planner, 1000);
    assert_eq!((world.counts.narrows, world.volumes[&volume(1)].held().count()), (1, 3));
    assert!(world.volumes[&volume(1)].held().any(|member| member.disk == disk(1)));
}

#[test]
fn data_follows_a_pod_that_stays_and_not_one_that_moves_on() {
    let (mut world, mut planner) = (world(), planner());
    let attach = |world: &mut World, on: usize| {
        let now_ms = world.now_ms;
        let volume = world.volumes.get_mut(&volume(1)).unwrap();
        (volume.record.holder, volume.attached_since_ms) = (Some(node(on)), now_ms);
    };
    attach(&mut world, 4);
    looks(&mut world, &mut planner, 600);
    assert_eq!(world.counts.widens, 0);
    looks(&mut world, &mut planner, 3);
    assert_eq!(world.counts.widens, 1);
    attach(&mut world, 5);
    looks(&mut world, &mut planner, 2);
    assert_eq!(world.counts.narrows, 1, "cancelled");
    world.settle(&mut planner, 2000);
    assert!(world.volumes[&volume(1)].held().any(|member| member.node == node(5)));
    assert_eq!((world.counts.widens, world.counts.narrows), (2, 2));
}

#[test]
fn a_clone_that_is_not_flat_is_replaced_but_not_moved() {
    let (mut planner, world) = (planner(), world());
    let mut seen = world.see();
    seen.nodes.get_mut(&node(1)).unwrap().is_draining = true;
    seen.volumes.get_mut(&volume(1)).unwrap().is_flat = false;
    assert!(planner.plan(&seen).steps.is_empty());
    seen.disks.get_mut(&disk(1)).unwrap().fate = Fate::Lost;
    let out = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::ZERO };
    seen.volumes.get_mut(&volume(1)).unwrap().members[1].state = out;
    assert!(matches!(planner.plan(&seen).steps[..], [Step::Replace { .. }]));
}

#[test]
fn a_disk_that_is_not_named_has_its_grace_as_a_silent_node_has() {
    let (mut planner, world) = (planner(), world());
    let mut seen = world.see();
    seen.disks.get_mut(&disk(2)).unwrap().fate = Fate::Missing;
    let out = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::ZERO };
    seen.volumes.get_mut(&volume(1)).unwrap().members[2].state = out;
    let replaces = |plan: &Plan| plan.steps.iter().any(|step| matches!(step, Step::Replace { .. }));
    for _ in 0..60 {
        assert!(!replaces(&planner.plan(&seen)));
        seen.now = seen.now + Duration::from_secs(1);
    }
    let after = planner.plan(&seen);
    let why = after.steps.iter().find_map(|step| match step {
        Step::Replace { why, .. } => Some(why.to_string()),
        _ => None,
    });
    assert!(why.unwrap().contains("has not been named by its chunkserver for 60 s"));
}

#[test]
fn an_old_copy_is_not_given_up_where_nothing_else_can_be_counted_on() {
    let (mut planner, world) = (planner(), world());
    let out = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::from_raw(5) };
    let mut seen = world.see();
    seen.volumes.get_mut(&volume(1)).unwrap().members[2].state = out;
    for number in 0..3 {
        seen.disks.get_mut(&disk(number)).unwrap().fate = Fate::Failed;
    }
    assert!(planner.plan(&seen).steps.iter().all(|step| !matches!(step, Step::Replace { .. } | Step::Narrow { .. })));
    // One that can be counted on is back.
    seen.disks.get_mut(&disk(0)).unwrap().fate = Fate::Usable;
    assert!(planner.plan(&seen).steps.iter().any(|step| matches!(step, Step::Replace { .. })));
}

/// Copies of the volume that a plan asks for: how fast.
fn rate_of(plan: &Plan, id: VolumeId) -> Option<BytesPerSecond> {
    plan.steps.iter().find_map(|step| match step {
        Step::Copy { volume, rate, .. } if *volume == id => Some(*rate),
        _ => None,
    })
}

/// One volume in use on node 1, whose replica on node 2 falls silent; looked at until that is out and replaced for a
/// while.
fn with_a_temporary_one() -> (Planner, World) {
    let (mut planner, mut world) = (planner(), world());
    world.stop_node(&node(2));
    for _ in 0..4 {
        world.look(&mut planner);
    }
    assert_eq!((world.counts.widens, world.volumes[&volume(1)].widest()), (1, 4));
    (planner, world)
}

#[test]
fn new_writes_have_their_third_copy_while_a_node_is_away_and_nothing_else_is_sent_there() {
    let (mut planner, mut world) = with_a_temporary_one();
    for _ in 0..50 {
        let plan = world.look(&mut planner);
        assert_eq!(rate_of(&plan, volume(1)), Some(BytesPerSecond::ZERO));
        assert_eq!(plan.forecasts[&volume(1)].remaining.0, world.volumes[&volume(1)].claim);
    }
    world.start_node(&node(2));
    world.settle(&mut planner, 5000);
    let volume = &world.volumes[&volume(1)];
    assert!(volume.held().any(|member| member.disk == disk(2)), "the one that was away is back");
    assert_eq!((volume.widest(), world.counts.widens, world.counts.replaces), (3, 1, 0));
    assert!(world.counts.copied <= volume.claim / 5, "{} bytes were copied", world.counts.copied);
}

#[test]
fn a_temporary_replica_takes_the_place_of_one_that_stays_away() {
    let (mut planner, mut world) = with_a_temporary_one();
    world.settle(&mut planner, 5000);
    let volume = &world.volumes[&volume(1)];
    assert!(volume.held().all(|member| member.disk != disk(2)));
    assert_eq!((volume.widest(), world.safe(volume), world.counts.replaces), (3, 3, 0));
}

#[test]
fn a_temporary_replica_ends_with_the_writer_and_where_room_is_wanted() {
    let (mut planner, mut world) = with_a_temporary_one();
    let mut restarted = planner.clone();
    let mut closed = world.clone();
    closed.volumes.get_mut(&volume(1)).unwrap().record.holder = None;
    let plan = closed.look(&mut restarted);
    assert!(
        plan.steps.iter().any(|step| matches!(step, Step::Narrow { why: Why::NoLongerAway { .. }, .. })),
        "{plan:?}"
    );
    // Somebody else's replica finds a place nowhere but there.
    let is_temporary = |disk: &DiskId| world.volumes[&volume(1)].held().any(|member| member.disk == *disk);
    let taken = (3..6).map(disk).find(is_temporary).unwrap();
    let other = (3..6).map(disk).find(|disk| *disk != taken).unwrap();
    for (&id, disk) in world.disks.iter_mut().filter(|(id, _)| **id > super::tests::disk(2)) {
        disk.capacity = if id == taken { 2 * GIB } else { GIB / 2 };
    }
    world.add_on(volume(2), Class::Normal, GIB, Some(node(1)), &[disk(0), disk(1), other]);
    world.disks.get_mut(&other).unwrap().fate = Fate::Failed;
    looks(&mut world, &mut planner, 8);
    let holds = |number: usize| world.volumes[&volume(number)].held().any(|member| member.disk == taken);
    assert_eq!((holds(1), holds(2)), (false, true));
}

/// One volume in use, and beside its three replicas one disk.
fn with_one_other_disk() -> World {
    let mut world = World::new(4, 4, 0, 100 * GIB);
    world.add_on(volume(1), Class::Normal, GIB, Some(node(0)), &[disk(0), disk(1), disk(2)]);
    world
}

#[test]
fn a_disk_that_gave_chunks_up_takes_none_before_the_next_writer_and_it_is_said() {
    let (mut planner, mut world) = (planner(), with_one_other_disk());
    world.stop_node(&node(2));
    looks(&mut world, &mut planner, 4);
    world.start_node(&node(2));
    world.settle(&mut planner, 1000);
    assert_eq!((world.counts.widens, world.counts.narrows), (1, 1), "the other one had the new writes meanwhile");
    world.stop_node(&node(2));
    let plan = world.settle(&mut planner, 1000);
    let said = plan.stuck[0].choice.to_string();
    assert!(
        said.contains("on node n003: its replica was given up, and it takes none again until the volume"),
        "{said}"
    );
    assert_eq!((world.safe(&world.volumes[&volume(1)]), world.counts.replaces), (2, 0));
    world.volumes.get_mut(&volume(1)).unwrap().attach(&node(0));
    world.settle(&mut planner, 1000);
    let after = &world.volumes[&volume(1)];
    assert!(world.safe(after) == 3 && after.held().any(|member| member.disk == disk(3)));
}

#[test]
fn a_disk_that_still_has_what_is_to_be_deleted_takes_nothing_and_it_is_said() {
    let (mut planner, world) = (planner(), with_one_other_disk());
    let mut seen = world.see();
    seen.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    let lacking = seen.volumes.get_mut(&volume(1)).unwrap();
    lacking.members[2].state = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::ZERO };
    lacking.buried = vec![disk(3)];
    let plan = planner.plan(&seen);
    let said = plan.stuck[0].choice.to_string();
    assert!(said.contains("on node n003: what it had of the volume is still to be deleted there"), "{said}");
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Replace { .. })), "{:?}", plan.steps);
    seen.volumes.get_mut(&volume(1)).unwrap().buried.clear();
    assert!(planner.plan(&seen).steps.iter().any(|step| matches!(step, Step::Replace { .. })));
}

#[test]
fn what_many_nodes_read_is_left_as_it_is_and_counts_all_the_same() {
    let (mut planner, world) = (planner(), world());
    let mut seen = world.see();
    let read = seen.volumes.get_mut(&volume(1)).unwrap();
    read.holder = None;
    read.is_read = true;
    read.members[2].state = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::ZERO };
    seen.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    assert!(planner.plan(&seen).steps.is_empty());
    assert!(matches!(safe_to_stop(&seen, &node(0), &Default::default()), Stop::No { .. }));
}

#[test]
fn a_new_node_takes_its_share_and_then_nothing_moves() {
    let mut world = World::new(4, 4, 0, 300 * GIB);
    for number in 0..24 {
        assert!(world.add(volume(number), Class::Normal, (1 + number as u64 % 4) * 4 * GIB, None));
    }
    for (number, on) in [(4, 4), (5, 5)] {
        world.nodes.insert(node(on), model::Node::default());
        let fresh = model::Disk { node: node(on), capacity: 300 * GIB, fate: Fate::Usable };
        world.disks.insert(disk(number), fresh);
    }
    let mut planner = planner();
    world.settle(&mut planner, 20_000);
    let fills: Vec<u16> = world.disks.keys().map(|disk| world.fill_permille(*disk)).collect();
    let (least, most) = (fills.iter().min().unwrap(), fills.iter().max().unwrap());
    assert!(most - least <= Bounds::default().balance_gap_permille, "{fills:?}");
    assert!(world.counts.widens <= 24, "{} moves", world.counts.widens);
    let moves = world.counts.widens;
    looks(&mut world, &mut planner, 100);
    assert_eq!(world.counts.widens, moves);
}

#[test]
fn a_gap_is_promised_to_one_volume_only() {
    let mut world = World::new(4, 4, 0, 10 * GIB);
    for number in 1..3 {
        world.add_on(volume(number), Class::Normal, 5 * GIB, Some(node(0)), &[disk(0), disk(1), disk(2)]);
    }
    let mut seen = world.see();
    seen.disks.get_mut(&disk(2)).unwrap().fate = Fate::Lost;
    for volume in seen.volumes.values_mut() {
        volume.members[2].state = ashlar_types::MemberState::Out { commit: ashlar_types::Lsn::ZERO };
    }
    let plan = planner().plan(&seen);
    assert!(matches!(plan.steps[..], [Step::Replace { .. }]), "{:?}", plan.steps);
    assert_eq!((plan.steps[0].volume(), plan.stuck[0].volume), (volume(1), volume(2)));
}

#[test]
fn balance_leaves_the_replica_of_a_pod_on_its_node() {
    let mut world = World::new(4, 4, 0, 100 * GIB);
    for number in 1..5 {
        world.add_on(volume(number), Class::Normal, 15 * GIB, Some(node(0)), &[disk(0), disk(1), disk(2)]);
    }
    world.settle(&mut planner(), 2000);
    assert!(world.counts.widens > 0);
    assert!(world.volumes.values().all(|volume| volume.held().any(|member| member.disk == disk(0))));
}

#[test]
fn a_restart_in_the_middle_of_a_move_ends_it_all_the_same() {
    let (mut world, mut first) = (world(), planner());
    world.nodes.get_mut(&node(1)).unwrap().is_draining = true;
    looks(&mut world, &mut first, 5);
    assert_eq!(world.volumes[&volume(1)].held().count(), 4);
    world.settle(&mut planner(), 1000);
    assert!(world.volumes[&volume(1)].held().all(|member| member.node != node(1)));
    assert_eq!((world.counts.widens, world.counts.narrows), (1, 1));
}

#[test]
fn no_room_is_told_with_what_is_wrong_with_each_disk() {
    let mut world = World::new(3, 3, 0, 100 * GIB);
    world.add_on(volume(1), Class::Normal, GIB, Some(node(0)), &[disk(0), disk(1), disk(2)]);
    world.disks.get_mut(&disk(2)).unwrap().fate = Fate::Failed;
    let plan = world.settle(&mut planner(), 1000);
    assert_eq!(plan.stuck.len(), 1);
    let text = format!("{}: {}", plan.stuck[0].why, plan.stuck[0].choice);
    assert!(text.contains("has failed: no disk will do") && text.contains("its node has a replica already"), "{text}");
    assert_eq!(plan.forecasts[&volume(1)].protected_in, None::<Duration>);
}
