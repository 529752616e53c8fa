//! What comes from the control plane unasked: a newer record, and how the volume's members are to be treated.

use super::Hosted;
use crate::runtime::command::Addresses;
use crate::runtime::io::Io;
use ashlar_types::{ByteCount, VolumeRecord};
use ashlar_volume::Event;

impl Hosted {
    pub(in crate::runtime) fn adopt(&mut self, io: &mut Io, record: VolumeRecord, addresses: Addresses) {
        self.addresses.extend(addresses);
        self.feed(io, Event::Record(record));
    }

    /// Takes over the record, and gives the size that front-ends may show from now on.
    pub(in crate::runtime) fn grow(&mut self, io: &mut Io, record: VolumeRecord, addresses: Addresses) -> ByteCount {
        self.adopt(io, record, addresses);
        let size = self.core.size();
        if let Some(nbd) = &mut self.nbd {
            nbd.grow(size);
        }
        size
    }

    pub(in crate::runtime) fn steer(&mut self, io: &mut Io, words: Vec<Event>) {
        self.events.extend(words);
        self.work_off(io);
    }

    pub(in crate::runtime) fn learn_addresses(&mut self, addresses: Addresses) {
        self.addresses.extend(addresses);
    }
}
