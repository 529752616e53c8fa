//! What a node is to a volume that it has attached: its one writer, or one of its readers. The shell hosts either.

use crate::{Action, Event, Reader, Volume, VolumeStatus};
use ashlar_types::{ByteCount, Epoch, Instant, VolumeId};

pub enum Core {
    Writer(Box<Volume>),
    Reader(Box<Reader>),
}

impl Core {
    pub fn volume(&self) -> VolumeId {
        match self {
            Core::Writer(volume) => volume.record.volume,
            Core::Reader(reader) => reader.volume(),
        }
    }

    /// The writer's own, or that of the record by which the reader reads.
    pub fn epoch(&self) -> Epoch {
        match self {
            Core::Writer(volume) => volume.epoch,
            Core::Reader(reader) => reader.epoch(),
        }
    }

    /// Of the device.
    pub fn size(&self) -> ByteCount {
        match self {
            Core::Writer(volume) => volume.size(),
            Core::Reader(reader) => reader.size(),
        }
    }

    /// To be called once, before the first event.
    pub fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self {
            Core::Writer(volume) => volume.start(now, out),
            Core::Reader(reader) => reader.start(now, out),
        }
    }

    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match self {
            Core::Writer(volume) => volume.handle(now, event, out),
            Core::Reader(reader) => reader.handle(now, event, out),
        }
    }

    /// When `Event::Tick` is due, if nothing else happens.
    pub fn next_deadline(&self) -> Instant {
        match self {
            Core::Writer(volume) => volume.next_deadline(),
            Core::Reader(reader) => reader.next_deadline(),
        }
    }

    pub fn status(&self) -> VolumeStatus {
        match self {
            Core::Writer(volume) => volume.status(),
            Core::Reader(reader) => reader.status(),
        }
    }
}
