//! Direct: whole slots that are written beside the journal, each at a fresh place.
//!
//! What one request brings is written as it is admitted. A slot that comes alone, as a copy does, waits for others,
//! until they fill a write or their batch is written: those that adjoin are one write, and the disk flushes once for
//! all of them.

use crate::Action;
use crate::config::DIRECT_RUN_SLOTS_MAX;
use crate::engine::{Engine, Op};
use crate::place::Place;
use ashlar_types::SLOT_BYTES;
use bytes::Bytes;

/// A whole slot to be written.
pub(crate) struct Direct {
    pub(crate) place: Place,
    pub(crate) data: Bytes,
}

/// Whole slots at adjoining places: one durable write.
struct Run {
    first: Place,
    parts: Vec<Bytes>,
}

fn adjoining(mut directs: Vec<Direct>) -> Vec<Run> {
    directs.sort_by_key(|direct| direct.place);
    let mut runs: Vec<Run> = Vec::new();
    for Direct { place, data } in directs {
        assert_eq!(data.len() as u64, SLOT_BYTES);
        let follows =
            |run: &&mut Run| run.parts.len() < DIRECT_RUN_SLOTS_MAX && run.first.0 + run.parts.len() as u32 == place.0;
        match runs.last_mut().filter(follows) {
            Some(run) => run.parts.push(data),
            None => runs.push(Run { first: place, parts: vec![data] }),
        }
    }
    runs
}

impl Engine {
    /// These wait for others of the open batch.
    pub(crate) fn hold(&mut self, directs: Vec<Direct>, out: &mut Vec<Action>) {
        if self.journal.hold(directs) >= DIRECT_RUN_SLOTS_MAX {
            self.write_held(out);
        }
    }

    pub(crate) fn write_held(&mut self, out: &mut Vec<Action>) {
        let held = self.journal.take_held();
        self.write_directs(held, out);
    }

    /// Of the open batch.
    pub(crate) fn write_directs(&mut self, directs: Vec<Direct>, out: &mut Vec<Action>) {
        for Run { first, parts } in adjoining(directs) {
            self.counters.direct_bytes += parts.len() as u64 * SLOT_BYTES;
            let sequence = self.journal.direct_begun();
            let op = self.begin_op(Op::Direct(sequence));
            let offset = first.offset(self.data_offset());
            out.push(Action::Write { op, offset, parts, durable: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_adjoin_are_one_write_of_bounded_length() {
        let places = [7, 40, 6, 41, 9, 8].into_iter().chain(100..100 + DIRECT_RUN_SLOTS_MAX as u32 + 3);
        let data = Bytes::from(vec![0; SLOT_BYTES as usize]);
        let runs = adjoining(places.map(|place| Direct { place: Place(place), data: data.clone() }).collect());
        let runs: Vec<(u32, usize)> = runs.iter().map(|run| (run.first.0, run.parts.len())).collect();
        let rest = 100 + DIRECT_RUN_SLOTS_MAX as u32;
        assert_eq!(runs, [(6, 4), (40, 2), (100, DIRECT_RUN_SLOTS_MAX), (rest, 3)]);
    }
}
