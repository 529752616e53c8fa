//! Whatever happens, every snapshot reads on every replica as it was when it was taken.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Write(u64, u8),
    Discard(u64),
    Snapshot,
    Forget(usize),
    Kill(usize),
    ComeBack(usize),
    Steps(u8),
    Settle,
    /// Everybody's links and the writer are gone; a new one attaches.
    NewWriter,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0u64..40, 1u8..250).prop_map(|(block, fill)| Deed::Write(block, fill)),
        1 => (0u64..40).prop_map(Deed::Discard),
        2 => Just(Deed::Snapshot),
        1 => (0usize..4).prop_map(Deed::Forget),
        1 => (0usize..3).prop_map(Deed::Kill),
        2 => (0usize..3).prop_map(Deed::ComeBack),
        4 => (0u8..40).prop_map(Deed::Steps),
        2 => Just(Deed::Settle),
        1 => Just(Deed::NewWriter),
    ]
}

/// What every block was when a snapshot was taken.
#[derive(Default)]
struct Model {
    now: BTreeMap<u64, u8>,
    taken: BTreeMap<u128, BTreeMap<u64, u8>>,
    next: u128,
}

impl Bench {
    fn do_deed(&mut self, deed: Deed, model: &mut Model) {
        match deed {
            Deed::Write(block, fill) => {
                self.write(block, 1, fill);
                model.now.insert(block, fill);
            }
            Deed::Discard(block) => {
                self.guest(crate::GuestOp::Discard { start: BlockIndex(block), count: BlockCount(1) });
                model.now.insert(block, 0);
            }
            // With a request waiting, what is in the snapshot and what is not would not be known.
            Deed::Snapshot => {
                self.settle();
                if !self.all_done() {
                    return;
                }
                model.next += 1;
                self.snapshot(model.next);
                model.taken.insert(model.next, model.now.clone());
            }
            Deed::Forget(which) => {
                let Some(&number) = model.taken.keys().nth(which) else { return };
                self.settle();
                model.taken.remove(&number);
                self.forget(number);
            }
            // Two must stay, or nothing would end.
            Deed::Kill(index) if self.replicas.iter().all(|replica| !replica.down) => {
                let others_in_sync = (0..3).filter(|&other| other != index && self.state(other) == IN).count();
                if others_in_sync == 2 {
                    self.kill(index);
                }
            }
            Deed::ComeBack(index) if self.replicas[index].down => self.come_back(index),
            Deed::Steps(count) => self.steps(count),
            Deed::Settle => self.settle(),
            Deed::NewWriter => self.new_writer(),
            Deed::Kill(_) | Deed::ComeBack(_) => {}
        }
    }

    /// Only if everything is acknowledged, so that the model knows what there is.
    fn new_writer(&mut self) {
        self.settle();
        if !self.all_done() {
            return;
        }
        let mut next = Bench::new(granted(&self.catalog));
        std::mem::swap(&mut next.replicas, &mut self.replicas);
        next.replicas.iter_mut().for_each(|replica| (replica.session, replica.connecting) = (None, false));
        next.start();
        next.advance(Duration::from_secs(10));
        *self = next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Every replica in-sync gives every snapshot as it was, whatever happened since.
    #[test]
    fn every_snapshot_reads_as_its_instant_on_every_replica(deeds in proptest::collection::vec(deed(), 1..60)) {
        let mut bench = Bench::serving(&[IN; 3]);
        let mut model = Model::default();
        for deed in deeds {
            bench.do_deed(deed, &mut model);
        }
        for index in 0..3 {
            if bench.replicas[index].down {
                bench.come_back(index);
            }
        }
        bench.advance(Duration::from_secs(60));
        prop_assert!((0..3).all(|index| bench.state(index) == IN), "{:?}", bench.notices);
        let mut views: Vec<(Lsn, &BTreeMap<u64, u8>)> = vec![(Lsn::MAX, &model.now)];
        for (&number, content) in &model.taken {
            views.push((bench.point(number).expect("it was taken"), content));
        }
        for (below, content) in views {
            for block in 0..40 {
                let expected = content.get(&block).copied().unwrap_or(0);
                for (index, replica) in bench.replicas.iter().enumerate() {
                    prop_assert_eq!(replica.byte_below(0, block, below), expected, "replica {} block {}", index, block);
                }
            }
        }
    }
}
