//! The checker of the recorded history is itself checked: what real stores got wrong is refused.

use super::*;

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

struct Guest {
    record: Record,
    epoch: Epoch,
}

impl Guest {
    fn new() -> Guest {
        let record = Record::new("v1", 1, 16);
        record.serves(epoch(1));
        Guest { record, epoch: epoch(1) }
    }

    fn begin(&self, ask: Ask) -> Operation {
        self.record.begin(ask, Connection(0), self.epoch)
    }

    /// A write of one block; its stamp, and its content.
    fn write(&self, block: u64, answered: bool) -> Vec<u8> {
        let write = self.begin(Ask::Write { start: block, count: 1 });
        let data = self.record.data(&write);
        if answered {
            self.record.acknowledged(&write, &[]);
        }
        data
    }

    fn read(&self, block: u64, data: &[u8]) {
        let read = self.begin(Ask::Read { start: block, count: (data.len() / content::BLOCK_BYTES) as u32 });
        self.record.acknowledged(&read, data);
    }

    fn refused(&self, because: &str) {
        let story = self.record.check().unwrap_err();
        assert!(story.contains(because), "{story}");
    }
}

const ZEROS: [u8; content::BLOCK_BYTES] = [0; content::BLOCK_BYTES];

#[test]
fn what_a_right_store_does_is_accepted() {
    let guest = Guest::new();
    guest.read(3, &ZEROS);
    let first = guest.write(3, true);
    let unknown = guest.write(3, false);
    guest.read(3, &first);
    guest.read(3, &unknown);
    let trim = guest.begin(Ask::Trim { start: 2, count: 4 });
    guest.read(3, &unknown);
    guest.record.acknowledged(&trim, &[]);
    guest.read(3, &ZEROS);
    guest.record.check().unwrap();
    let summary = guest.record.summary();
    assert_eq!((summary.writes.begun, summary.writes.acknowledged, summary.reads.acknowledged), (2, 1, 5));
}

#[test]
fn a_lost_write_is_refused_with_its_story() {
    let guest = Guest::new();
    let first = guest.write(3, true);
    guest.write(3, true);
    guest.record.mark("round 7: power cut");
    guest.read(3, &first);
    guest.refused("Stamp(1) is seen");
    let story = guest.record.check().unwrap_err();
    for part in ["volume v1, block 3", "write 2 begins, ends", "round 7: power cut", "read of 1"] {
        assert!(story.contains(part), "{part} in\n{story}");
    }
}

#[test]
fn a_lost_first_write_is_refused() {
    let guest = Guest::new();
    guest.write(3, true);
    guest.read(3, &ZEROS);
    guest.refused("Stamp(0)");
}

#[test]
fn a_write_that_was_read_and_is_gone_is_refused() {
    let guest = Guest::new();
    let first = guest.write(3, true);
    let unknown = guest.write(3, false);
    guest.read(3, &unknown);
    guest.read(3, &first);
    guest.refused("Stamp(1) is seen");
}

#[test]
fn a_trim_that_gives_back_old_data_is_refused() {
    let guest = Guest::new();
    let first = guest.write(3, true);
    let trim = guest.begin(Ask::Trim { start: 0, count: 8 });
    guest.record.acknowledged(&trim, &[]);
    guest.read(3, &first);
    guest.refused("Stamp(1) is seen");
}

#[test]
fn a_write_that_an_older_epoch_acknowledges_is_refused() {
    let guest = Guest::new();
    guest.record.serves(epoch(2));
    guest.write(3, true);
    guest.refused("epoch 1 acknowledges");
}

#[test]
fn a_foreign_or_torn_block_is_refused() {
    let guest = Guest::new();
    let other = guest.write(4, true);
    guest.read(3, &other);
    guest.refused("foreign");
    let guest = Guest::new();
    let mut torn = guest.write(3, false);
    torn[4000] ^= 1;
    guest.read(3, &torn);
    guest.refused("torn");
}
