//! After an unclean end.

use crate::Event;
use crate::testing::{Bench, OUT, disk, record};
use ashlar_types::*;
use ashlar_wire::{Request, Status};

const IN: MemberState = MemberState::InSync;

fn dirty(states: &[MemberState]) -> Bench {
    let mut bench = Bench::new(VolumeRecord { clean: false, ..record(states) });
    for replica in &mut bench.replicas {
        replica.had(0, 0, 90, 1);
        replica.had(1, 0, 91, 1);
    }
    bench
}

fn same(bench: &Bench) -> bool {
    let differs = |pair: &[crate::testing::Replica]| {
        pair[0].blocks != pair[1].blocks
            || [0, 1].iter().any(|chunk| {
                let prefix = |at: usize| pair[at].chunks.get(&ChunkIndex(*chunk)).map(|chunk| chunk.prefix);
                prefix(0) != prefix(1)
            })
    };
    !bench.replicas.windows(2).any(differs)
}

fn asked(bench: &Bench, name: &str) -> usize {
    let log = bench.replicas.iter().flat_map(|replica| &replica.log);
    log.filter(|request| format!("{request:?}").starts_with(name)).count()
}

#[test]
fn a_clean_volume_is_compared_and_nothing_is_copied() {
    let mut bench = Bench::serving(&[IN; 3]);
    bench.settle();
    assert_eq!((asked(&bench, "Report"), asked(&bench, "Fill")), (3, 0));
    assert_eq!(bench.proposed[0].1, Change::OpenDirty);
    assert!(!bench.catalog.clean, "before the first write");
}

#[test]
fn equal_replicas_are_served_without_a_copy() {
    let mut bench = dirty(&[IN; 3]);
    bench.start();
    assert!(bench.volume.status().serving);
    assert_eq!((asked(&bench, "Report"), asked(&bench, "Fill")), (3, 0));
}

#[test]
fn a_member_that_is_called_in_sync_meanwhile_makes_reconcile_begin_again() {
    let mut bench = dirty(&[IN, IN, OUT(80)]);
    bench.replicas[0].had(0, 5, 100, 2);
    bench.replicas[2].had(0, 5, 100, 2);
    bench.replicas[2].had(0, 6, 101, 3);
    bench.kill(2);
    bench.event(Event::Tick);
    while bench.volume.status().phase != "reconciling" {
        assert!(bench.step());
    }
    bench.catalog.version += 1;
    bench.catalog.members[2].state = IN;
    let record = bench.catalog.clone();
    bench.event(Event::Record(record));
    bench.settle();
    assert!(!bench.volume.status().serving, "it has not said what it has");
    bench.come_back(2);
    bench.advance(Duration::from_secs(3));
    assert!(bench.volume.status().serving);
    assert!(same(&bench));
}

#[test]
fn the_longest_complete_prefix_wins() {
    let mut bench = dirty(&[IN; 3]);
    bench.replicas[1].had(0, 5, 100, 2);
    bench.replicas[2].had(0, 5, 100, 2);
    bench.replicas[2].had(0, 600, 101, 3);
    // Longer still, but incomplete: an earlier reconcile was cut off.
    for (block, lsn, byte) in [(5, 100, 2), (600, 101, 3), (700, 102, 4)] {
        bench.replicas[0].had(0, block, lsn, byte);
    }
    bench.replicas[0].stale.insert((ChunkIndex(0), 5, Lsn::ZERO));
    bench.replicas[0].blocks.remove(&(ChunkIndex(0), 5, Lsn::ZERO));
    bench.replicas[0].chunk(ChunkIndex(0)).complete = false;
    bench.start();
    assert!(bench.volume.status().serving);
    assert!(same(&bench));
    assert_eq!((bench.replicas[0].byte(0, 600), bench.replicas[0].byte(0, 700)), (3, 0));
    assert_eq!(bench.replicas[0].chunks[&ChunkIndex(0)].prefix, Lsn::from_raw(101));
}

#[test]
fn where_none_is_complete_the_marks_are_voided() {
    let mut bench = dirty(&[IN; 3]);
    for replica in &mut bench.replicas {
        replica.had(0, 5, 100, 2);
        replica.chunk(ChunkIndex(0)).complete = false;
        replica.stale.insert((ChunkIndex(0), 5, Lsn::ZERO));
    }
    bench.start();
    assert!(bench.volume.status().serving && same(&bench));
    assert_eq!(asked(&bench, "VoidStale"), 1);
}

#[test]
fn a_lost_link_begins_it_again_with_new_sessions_and_new_reports() {
    for victim in 0..3 {
        for steps in 0..60 {
            let mut bench = dirty(&[IN; 3]);
            bench.replicas[2].had(0, 600, 101, 3);
            bench.replicas[2].had(1, 601, 102, 4);
            bench.replicas[1].had(1, 601, 102, 4);
            bench.replicas[1].had(1, 900, 103, 5);
            bench.event(crate::Event::Tick);
            for _ in 0..steps {
                bench.step();
            }
            let served = bench.volume.status().serving;
            let sessions = bench.replicas.iter().map(|replica| replica.session).collect::<Vec<_>>();
            bench.catalog_up = served;
            bench.reset(victim);
            bench.withheld = Some("Eject");
            bench.catalog_up = true;
            bench.advance(Duration::from_secs(3));
            if !served {
                // The ejection of the one that was lost is proposed and in doubt: nothing is served meanwhile.
                bench.withheld = None;
                bench.advance(Duration::from_secs(10));
                assert!(bench.volume.status().serving, "{victim} {steps} {:?}", bench.volume.status().blocked);
            }
            bench.withheld = None;
            bench.advance(Duration::from_secs(10));
            assert!((0..3).all(|index| bench.state(index) == IN), "{victim} {steps}");
            let blocks = |index: usize| &bench.replicas[index].blocks;
            assert!(blocks(0) == blocks(1) && blocks(1) == blocks(2), "{victim} {steps} {sessions:?}");
        }
    }
}

#[test]
fn a_bad_block_of_the_source_is_taken_from_an_equal_replica() {
    let mut bench = dirty(&[IN; 3]);
    for index in 0..2 {
        bench.replicas[index].had(0, 600, 101, 3);
    }
    bench.replicas[0].bad.insert((ChunkIndex(0), 601));
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    assert_eq!(bench.replicas[2].byte(0, 600), 3);
}

/// Its old prefix says no longer what it has: a shorter source has taken back what it had written.
#[test]
fn one_that_was_copied_from_a_shorter_source_in_part_is_compared_from_there() {
    let mut bench = dirty(&[IN; 3]);
    bench.replicas[0].had(0, 32, 101, 1);
    bench.replicas[2].had(0, 32, 101, 1);
    for (block, lsn) in [(64, 102), (96, 103)] {
        bench.replicas[0].had(0, block, lsn, 2);
    }
    // The longest one cannot be read, so the shortest takes its place; and is lost when it has given one slot.
    bench.replicas[0].bad.insert((ChunkIndex(0), 97));
    let reverted = |request: &Request| matches!(request, Request::Fill { slot: SlotIndex(2), .. });
    bench.event(Event::Tick);
    while !bench.replicas[2].log.iter().any(reverted) {
        if !bench.step() {
            bench.now = bench.now.max(bench.volume.next_deadline());
            bench.event(Event::Tick);
        }
    }
    bench.kill(1);
    bench.advance(Duration::from_secs(10));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    for block in [32, 64, 96] {
        assert_eq!(bench.replicas[0].byte(0, block), bench.replicas[2].byte(0, block), "block {block}");
    }
}

#[test]
fn a_damaged_replica_of_a_clean_volume_is_made_whole_before_it_is_served() {
    let mut bench = Bench::new(record(&[IN, IN]));
    for replica in &mut bench.replicas {
        replica.had(0, 0, 90, 1);
    }
    bench.replicas[0].distrust();
    bench.replicas[0].blocks.clear();
    bench.replicas[0].stamps.clear();
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving);
    assert!(!bench.catalog.clean);
    assert_eq!(bench.replicas[0].byte(0, 0), 1);
    let write = bench.write(0, 1, 2);
    bench.settle();
    assert!(bench.is_done(write));
}

/// It can tell only of chunks; one that it does not hold must not keep it incomplete.
#[test]
fn a_damaged_replica_of_some_of_the_chunks_is_made_whole_too() {
    let run = |first, members| ChunkRun { first: ChunkIndex(first), count: 1, members };
    let chunks = vec![run(0, vec![0, 1, 2]), run(1, vec![0, 1])];
    let mut bench = Bench::new(VolumeRecord { chunks, ..record(&[IN; 3]) });
    for replica in &mut bench.replicas {
        replica.had(0, 0, 90, 1);
    }
    bench.replicas[2].distrust();
    bench.start();
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    assert!(!bench.replicas[2].distrusted, "its next session says that it is whole");
}

#[test]
fn what_it_has_of_a_chunk_that_it_does_not_hold_keeps_nobody_waiting() {
    let run = |first, members| ChunkRun { first: ChunkIndex(first), count: 1, members };
    let chunks = vec![run(0, vec![0, 1, 2]), run(1, vec![0, 1])];
    let mut bench = Bench::new(VolumeRecord { chunks, ..record(&[IN; 3]) });
    bench.replicas[2].distrust();
    bench.replicas[2].stale.insert((ChunkIndex(1), 7, Lsn::ZERO));
    bench.start();
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
}

/// As an image of its disk from the middle of a return looks: prefixes that grew over what it lacks.
#[test]
fn an_incomplete_replica_is_not_believed_up_to_its_prefix() {
    let mut bench = dirty(&[IN, IN]);
    bench.replicas[0].had(0, 4, 92, 7);
    bench.replicas[0].had(0, 9, 95, 1);
    bench.replicas[1].had(0, 9, 95, 1);
    bench.replicas[1].syncing = true;
    bench.start();
    bench.advance(Duration::from_secs(3));
    assert!(bench.volume.status().serving);
    assert_eq!(bench.replicas[1].byte(0, 4), 7);
}

/// A reconcile was cut off, and its source's disk is now an older image, of the same epoch.
#[test]
fn what_was_durable_on_an_incomplete_replica_is_missed_on_a_complete_one() {
    let mut bench = dirty(&[IN, IN]);
    bench.replicas[1].had(0, 5, 100, 2);
    bench.replicas[1].commit = Lsn::from_raw(100);
    bench.replicas[1].chunk(ChunkIndex(0)).complete = false;
    bench.replicas[1].stale.insert((ChunkIndex(0), 5, Lsn::ZERO));
    bench.start();
    bench.advance(Duration::from_secs(3));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    assert_eq!((bench.replicas[0].byte(0, 5), bench.replicas[1].byte(0, 5)), (2, 2));
    assert!(same(&bench));
}

#[test]
fn replicas_that_are_all_incomplete_are_not_served() {
    let mut bench = dirty(&[IN, IN]);
    for replica in &mut bench.replicas {
        replica.distrust();
    }
    bench.start();
    bench.advance(Duration::from_secs(5));
    let status = bench.volume.status();
    assert!(!status.serving && status.blocked.is_some_and(|why| why.contains("has lost writes")));
}

#[test]
fn an_unacknowledged_tail_of_one_that_was_left_out_does_not_come_back() {
    let mut bench = dirty(&[IN, IN, OUT(91)]);
    bench.replicas[2].had(0, 9, 95, 66);
    bench.start();
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(2), IN);
    assert_eq!(bench.replicas[2].byte(0, 9), 0);
}

#[test]
fn a_refusal_in_the_middle_begins_again() {
    for refused in ["Report", "MarkStale", "ListStale", "Fill", "CompleteChunk"] {
        let mut bench = dirty(&[IN; 2]);
        bench.replicas[1].had(0, 600, 101, 3);
        bench.replicas[0].refuse = Some((refused, Status::NoSpace));
        bench.start();
        bench.advance(Duration::from_secs(3));
        assert!(bench.volume.status().serving && same(&bench), "{refused}");
        assert!(asked(&bench, "Report") > 2, "{refused}");
    }
}

#[test]
fn a_commit_point_of_an_epoch_to_come_is_not_believed() {
    let mut bench = dirty(&[IN; 3]);
    bench.replicas[2].commit = Lsn::start_of(Epoch::new(9).unwrap());
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving);
    assert_eq!(bench.ejections(), 1);
    assert!(
        bench.proposed.iter().any(|(_, change)| matches!(change, Change::Eject { disks, .. } if *disks == [disk(2)]))
    );
    let opens = |index: usize| bench.replicas[index].log.iter().filter(|r| matches!(r, Request::Open(_))).count();
    assert_eq!(opens(0), 1);
}

/// Its prefix of a chunk was cut to the commit point when it returned; the last write of that chunk is older.
#[test]
fn one_that_returned_with_a_tail_makes_nobody_of_the_past() {
    let mut bench = dirty(&[IN, IN, OUT(95)]);
    bench.replicas.iter_mut().for_each(|replica| replica.had(1, 1, 95, 2));
    bench.replicas[2].had(0, 9, 96, 66);
    bench.start();
    bench.advance(Duration::from_secs(3));
    assert_eq!((bench.state(2), bench.replicas[2].byte(0, 9)), (IN, 0));
    // The next writer.
    let epoch = Epoch::new(6).unwrap();
    let mut next = Bench::new(VolumeRecord { epoch, ..bench.catalog.clone() });
    next.replicas = bench.replicas.clone();
    next.replicas.iter_mut().for_each(|replica| replica.session = None);
    next.start();
    next.advance(Duration::from_secs(3));
    assert!(next.volume.status().serving, "{:?}", next.volume.status().blocked);
    assert_eq!((next.ejections(), asked(&next, "Fill")), (0, asked(&bench, "Fill")));
    assert!(same(&next));
}

#[test]
fn a_damaged_replica_of_a_volume_that_grows_meanwhile_is_made_whole_too() {
    let one = vec![ChunkRun { first: ChunkIndex(0), count: 1, members: vec![0, 1] }];
    let mut bench = Bench::new(VolumeRecord { size: ByteCount(CHUNK_BYTES), chunks: one, ..record(&[IN, IN]) });
    bench.replicas.iter_mut().for_each(|replica| replica.had(0, 0, 90, 1));
    bench.replicas[1].distrust();
    bench.event(Event::Tick);
    while asked(&bench, "MarkStale") == 0 {
        assert!(bench.step());
    }
    bench.catalog.version += 1;
    (bench.catalog.size, bench.catalog.chunks[0].count) = (ByteCount(2 * CHUNK_BYTES), 2);
    bench.event(Event::Record(bench.catalog.clone()));
    bench.advance(Duration::from_secs(3));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    assert!(!bench.replicas[1].distrusted, "its next session says that it is whole");
}

/// What the others have is enough.
#[test]
fn one_that_is_full_does_not_keep_the_volume_from_being_attached() {
    let mut bench = dirty(&[IN; 3]);
    bench.replicas[1].had(0, 600, 101, 3);
    bench.replicas[2].had(0, 600, 101, 3);
    bench.replicas[0].full = true;
    bench.start();
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving, "{:?}", bench.volume.status().blocked);
    assert!(bench.state(0) != IN && bench.ejections() == 1);
}

#[test]
fn one_that_is_full_and_needed_is_not_asked_all_the_time() {
    let mut bench = dirty(&[IN; 2]);
    bench.replicas[1].had(0, 600, 101, 3);
    bench.replicas[0].full = true;
    bench.start();
    bench.advance(Duration::from_secs(10));
    assert!(!bench.volume.status().serving && asked(&bench, "Open") < 40, "{}", asked(&bench, "Open"));
    bench.replicas[0].full = false;
    bench.advance(Duration::from_secs(2));
    assert!(bench.volume.status().serving && same(&bench));
}

/// By this alone an image of a disk from before the reconcile is told from the disk: its promise is of this epoch too.
#[test]
fn nothing_is_served_before_all_have_it_durable_that_they_are_equal() {
    let mut bench = dirty(&[IN, IN]);
    bench.replicas[0].had(0, 4, 92, 7);
    bench.replicas[1].refuse = Some(("FinishSync", Status::DiskFailed));
    bench.start();
    assert!(!bench.volume.status().serving && bench.proposed.is_empty(), "{:?}", bench.proposed);
    bench.advance(Duration::from_secs(5));
    assert!(bench.volume.status().serving);
    let epoch = bench.catalog.served;
    assert!(bench.replicas.iter().all(|replica| replica.agreed == epoch && epoch > Epoch::NONE));
    assert_eq!(bench.replicas[1].byte(0, 4), 7);
}

/// It is put back while it is out: its promise is of this epoch, and so is its prefix.
#[test]
fn an_image_from_before_the_reconcile_that_took_back_what_it_has_is_copied_whole() {
    let mut bench = dirty(&[IN, IN, IN]);
    for replica in &mut bench.replicas {
        replica.had(0, 0, 90, 1);
    }
    let epoch = bench.catalog.epoch;
    bench.start();
    assert!(bench.volume.status().serving);
    bench.kill(2);
    bench.write(40, 1, 3);
    bench.advance(Duration::from_secs(5));
    assert!(matches!(bench.state(2), MemberState::Out { .. }));
    // Another attempt of the same writer to open it was durable there, and nothing else.
    let image = &mut bench.replicas[2];
    image.had(0, 5, 91, 66);
    (image.agreed, image.promised) = (Epoch::NONE, Some(epoch));
    bench.come_back(2);
    bench.advance(Duration::from_secs(5));
    assert_eq!(bench.state(2), IN);
    assert_eq!((bench.replicas[2].byte(0, 5), bench.replicas[2].byte(0, 40)), (0, 3));
}
