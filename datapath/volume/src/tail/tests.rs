//! Disks that lost the end of their journal and do not know.

use crate::testing::{Bench, OUT, record};
use ashlar_types::*;
use ashlar_wire::Request;

const IN: MemberState = MemberState::InSync;

/// Out at lsn 100, which it had once.
fn cut_off(lost_chunk: bool) -> Bench {
    let mut bench = Bench::new(record(&[IN, IN, OUT(100)]));
    for index in 0..3 {
        bench.replicas[index].had(0, 0, 80, 1);
        if index < 2 || !lost_chunk {
            bench.replicas[index].had(1, 40, 90, 2);
        }
        if index < 2 {
            bench.replicas[index].had(0, 400, 100, 3);
        }
    }
    bench.replicas[2].down = true;
    bench.start();
    bench
}

#[test]
fn what_is_missing_below_the_commit_point_is_copied() {
    for lost_chunk in [false, true] {
        let mut bench = cut_off(lost_chunk);
        bench.replicas[2].down = false;
        bench.advance(Duration::from_secs(3));
        assert_eq!(bench.state(2), IN);
        assert!(bench.replicas[2].blocks == bench.replicas[0].blocks, "{lost_chunk}");
        let prefixes =
            |index: usize| bench.replicas[index].chunks.values().map(|chunk| chunk.prefix).collect::<Vec<_>>();
        assert_eq!(prefixes(2), prefixes(0), "or the next writer takes it for one that lacks something");
    }
}

#[test]
fn it_is_not_forgotten_when_an_attempt_is_cut_off_after_new_writes() {
    for steps in 0..60 {
        let mut bench = cut_off(true);
        bench.come_back(2);
        for _ in 0..steps {
            bench.step();
        }
        let writes = [bench.write(1, 1, 7), bench.write(16384 + 900, 1, 8)];
        bench.step();
        bench.step();
        bench.reset(2);
        bench.advance(Duration::from_secs(5));
        assert!(writes.iter().all(|tag| bench.is_done(*tag)));
        assert_eq!(bench.state(2), IN, "{steps}");
        assert!(bench.replicas[2].blocks == bench.replicas[0].blocks, "{steps}");
    }
}

#[test]
fn a_sound_disk_is_marked_nowhere_below_its_commit_point() {
    let mut bench = cut_off(false);
    bench.replicas[2].had(0, 400, 100, 3);
    bench.replicas[2].down = false;
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.state(2), IN);
    assert!(!bench.replicas[2].log.iter().any(|request| matches!(request, Request::MarkStale { .. })));
}
