//! Events in words, for stories, and in numbers, for the hash of the trace.

use crate::names::{Nanos, Vol};
use crate::net::Message;
use crate::trace::Touch;
use crate::world::{Happening, World};
use ashlar_types::{
    Change, ChangeAnswer, ChunkIndex, ChunkRange, FloorRange, Lsn, MemberState, SlotIndex, Snapshot, VolumeRecord,
};
use ashlar_volume::GuestOp;
use ashlar_wire::{Reply, ReplyFrame, Request, RequestFrame, SlotContent};
use std::fmt::Write as _;

const BLOCKS_PER_SLOT: u32 = ashlar_types::BLOCKS_PER_SLOT;

fn range(range: ChunkRange) -> String {
    format!("{}+{}", range.volume_start(), range.count)
}

fn slot(chunk: ChunkIndex, slot: SlotIndex) -> String {
    format!("chunk {chunk} slot {slot} (blocks {}..)", chunk.first_block().0 + slot.first_block().0)
}

fn floors(floors: FloorRange) -> String {
    format!("floors {}..{}", floors.from, floors.below)
}

pub fn request(frame: &RequestFrame) -> String {
    let what = match &frame.message {
        Request::Open(_) => "Open".to_owned(),
        Request::Write { range: r, lsn, floor, .. } => format!("Write {} lsn {lsn} floor {floor}", range(*r)),
        Request::Discard { range: r, lsn, floor } => format!("Discard {} lsn {lsn} floor {floor}", range(*r)),
        Request::Read { range: r, below } => format!("Read {} below {below}", range(*r)),
        Request::Repair { range: r, .. } => format!("Repair {}", range(*r)),
        Request::ReadSlot { chunk, slot: s, floors: f } => format!("ReadSlot {} {}", slot(*chunk, *s), floors(*f)),
        Request::Fill { chunk, slot: s, floors: f, content, .. } => {
            let SlotContent { stamp, set, valid, .. } = content;
            format!("Fill {} {} stamp {stamp} set {set:04x} valid {valid:04x}", slot(*chunk, *s), floors(*f))
        }
        other => format!("{other:?}"),
    };
    format!("[{} e{} commit {}] {what}", frame.request.0, frame.epoch, frame.commit)
}

pub fn reply(frame: &ReplyFrame) -> String {
    let what = match &frame.message {
        Reply::Data(data) => format!("Data of {} blocks", data.crcs.len()),
        Reply::Slot(SlotContent { stamp, set, valid, .. }) => {
            format!("Slot stamp {stamp} set {set:04x} valid {valid:04x}")
        }
        other => format!("{other:?}"),
    };
    format!("[{} e{} commit {}] {what}", frame.request.0, frame.epoch, frame.commit)
}

pub fn engine_event(event: &ashlar_engine::Event) -> String {
    use ashlar_engine::Event;
    match event {
        Event::Request { link, frame } => format!("on l{} {}", link.0, request(frame)),
        Event::ReadDone { op, result } => format!("read {} done: {:?}", op.0, result.as_ref().map(|bytes| bytes.len())),
        other => format!("{other:?}"),
    }
}

pub fn volume_event(event: &ashlar_volume::Event) -> String {
    use ashlar_volume::Event;
    match event {
        Event::Guest { tag, op } => match op {
            GuestOp::Read { start, count, below: Lsn::MAX } => format!("guest #{} read {start}+{count}", tag.0),
            GuestOp::Read { start, count, below } => format!("guest #{} read {start}+{count} below {below}", tag.0),
            GuestOp::Write { start, data } => format!("guest #{} write {start}+{}", tag.0, data.len() / 4096),
            GuestOp::Discard { start, count } => format!("guest #{} discard {start}+{count}", tag.0),
            GuestOp::Flush => format!("guest #{} flush", tag.0),
        },
        Event::Reply { disk, frame } => format!("from d{}: {}", disk.as_u128() as u16 - 1, reply(frame)),
        Event::Answer { proposal, answer: a } => format!("answer to #{}: {}", proposal.0, answer(a)),
        Event::Record(r) => format!("record {}", record(r)),
        other => format!("{other:?}"),
    }
}

pub fn answer(answer: &ChangeAnswer) -> String {
    match answer {
        ChangeAnswer::Applied { record: r } => format!("applied: {}", record(r)),
        ChangeAnswer::Refused { reason, record: r } => format!("refused ({reason}): {}", record(r)),
        ChangeAnswer::Fenced { epoch } => format!("fenced by epoch {epoch}"),
    }
}

pub fn record(record: &VolumeRecord) -> String {
    let mut text = format!("e{} version {}{}", record.epoch, record.version, if record.clean { " clean" } else { "" });
    for member in &record.members {
        let disk = member.disk.as_u128() as u16 - 1;
        let state = match member.state {
            MemberState::InSync => "in-sync".to_owned(),
            MemberState::Syncing { commit } => format!("syncing({commit})"),
            MemberState::Out { commit } => format!("out({commit})"),
        };
        write!(text, " d{disk}:{state}").expect("a string takes everything");
    }
    for Snapshot { id, point } in &record.snapshots {
        write!(text, " {id}:{point}").expect("a string takes everything");
    }
    text
}

pub fn change_name(change: &Change) -> &'static str {
    match change {
        Change::Eject { .. } => "transition: in-sync -> out",
        Change::BeginReturn { .. } => "transition: out -> syncing",
        Change::Join { .. } => "transition: syncing -> in-sync",
        Change::AbandonReturn { .. } => "transition: syncing -> out",
        Change::CloseClean => "transition: closed clean",
        Change::OpenDirty => "transition: opened dirty",
        Change::Snapshot(_) => "transition: snapshot",
    }
}

pub fn touch_of_request(volume: Vol, request: &Request) -> Option<Touch> {
    let range_of = |range: &ChunkRange| Touch::blocks(volume, range.volume_start().0, range.count.0);
    let slot_of = |chunk: &ChunkIndex, slot: &SlotIndex| {
        Touch::blocks(volume, chunk.first_block().0 + slot.first_block().0, BLOCKS_PER_SLOT)
    };
    match request {
        Request::Write { range, .. } | Request::Discard { range, .. } | Request::Read { range, .. } => range_of(range),
        Request::Repair { range, .. } => range_of(range),
        Request::ReadSlot { chunk, slot, .. } | Request::Fill { chunk, slot, .. } => slot_of(chunk, slot),
        Request::MarkStale { chunk, .. }
        | Request::CompleteChunk { chunk, .. }
        | Request::AdoptPrefix { chunk, .. } => {
            Touch::blocks(volume, chunk.first_block().0, ashlar_types::BLOCKS_PER_CHUNK)
        }
        // Pings belong to no block's story.
        Request::Ping => Touch::blocks(volume, 0, 0),
        _ => Touch::all(volume),
    }
}

pub fn touch_of_volume_event(volume: Vol, event: &ashlar_volume::Event) -> Option<Touch> {
    use ashlar_volume::Event;
    match event {
        Event::Guest { op, .. } => match op {
            GuestOp::Read { start, count, .. } | GuestOp::Discard { start, count } => {
                Touch::blocks(volume, start.0, count.0)
            }
            GuestOp::Write { start, data } => Touch::blocks(volume, start.0, (data.len() / 4096) as u32),
            GuestOp::Flush => Touch::all(volume),
        },
        _ => Touch::all(volume),
    }
}

impl World {
    pub fn touch_of_engine_event(&self, event: &ashlar_engine::Event) -> Option<Touch> {
        use ashlar_engine::Event;
        match event {
            Event::Request { link, frame } => self.touch_of_request(crate::names::Link(link.0 as u32), &frame.message),
            Event::ReadDone { .. }
            | Event::WriteDone { result: Ok(()), .. }
            | Event::Committed { result: Ok(()), .. }
            | Event::Tick => Touch::blocks(Vol(0), 0, 0),
            _ => None,
        }
    }
}

fn message_numbers(message: &Message) -> [u64; 3] {
    match message {
        Message::Request(frame) => {
            let lsn = match &frame.message {
                Request::Write { lsn, blocks, .. } => {
                    lsn.raw() ^ blocks.crcs.first().map_or(0, |crc| u64::from(crc.0)) << 32
                }
                Request::Discard { lsn, .. } => lsn.raw(),
                _ => 0,
            };
            [frame.request.0, frame.commit.raw(), lsn]
        }
        Message::Reply(frame) => {
            let crc = match &frame.message {
                Reply::Data(data) => data.crcs.first().map_or(0, |crc| u64::from(crc.0)),
                Reply::Slot(content) => content.stamp.raw(),
                _ => 0,
            };
            [frame.request.0 | 1 << 63, frame.commit.raw(), crc]
        }
        Message::End => [u64::MAX; 3],
    }
}

/// What goes into the hash of the trace.
pub fn numbers(now: Nanos, happening: &Happening) -> [u64; 6] {
    let pair = |kind: u64, a: u64, b: u64| [now, kind, a, b, 0, 0];
    match happening {
        Happening::ToServer { disk, .. } => pair(1, u64::from(disk.0), 0),
        Happening::ServerTick { disk, .. } => pair(2, u64::from(disk.0), 0),
        Happening::DiskDone { disk, op, .. } => pair(3, u64::from(disk.0), op.0),
        Happening::ToWriter { writer, .. } => pair(4, u64::from(writer.0), 0),
        Happening::WriterTick { writer, .. } => pair(5, u64::from(writer.0), 0),
        Happening::ConnectArrives { writer, disk } => pair(6, u64::from(writer.0), u64::from(disk.0)),
        Happening::LinkMade { link, .. } => pair(7, u64::from(link.0), 0),
        Happening::LinkLost { link, reset } => pair(8, u64::from(link.0), u64::from(*reset)),
        Happening::Arrives { link, message, .. } => {
            let [a, b, c] = message_numbers(message);
            [now, 9, u64::from(link.0), a, b, c]
        }
        Happening::CallArrives { call, .. } => pair(10, u64::from(call.writer.0), call.proposal.0),
        Happening::CallAnswered { writer, proposal, .. } => pair(11, u64::from(writer.0), proposal.0),
        Happening::CallTimesOut { writer, proposal, .. } => pair(12, u64::from(writer.0), proposal.0),
        Happening::GuestActs { writer } => pair(13, u64::from(writer.0), 0),
        Happening::Supervise { volume } => pair(14, u64::from(volume.0), 0),
        Happening::AttachAt { volume, node } => pair(15, u64::from(volume.0), u64::from(node.0)),
        Happening::Strike { class, .. } => pair(16, *class as u64, 0),
        Happening::StartServer { disk } => pair(17, u64::from(disk.0), 0),
        Happening::CrashServer { disk, .. } => pair(18, u64::from(disk.0), 0),
        Happening::PowerOn { node } => pair(19, u64::from(node.0), 0),
        Happening::HealPath { from, to } => pair(20, u64::from(from.0), u64::from(to.0)),
        Happening::ResumeServer { disk, .. } => pair(21, u64::from(disk.0), 0),
        Happening::ResumeWriter { writer } => pair(22, u64::from(writer.0), 0),
        Happening::CatalogUp => pair(23, 0, 0),
        Happening::DirectedStep { step } => pair(24, u64::from(*step), 0),
        Happening::Move { next } => pair(25, next.number(), 0),
        Happening::ClockLeaps { .. } => pair(26, 0, 0),
        Happening::CloneActs { .. } => pair(27, 0, 0),
        Happening::CloneStep { volume } => pair(28, u64::from(volume.0), 0),
        Happening::DeleteVolume { volume } => pair(29, u64::from(volume.0), 0),
        Happening::Reap { volume } => pair(30, u64::from(volume.0), 0),
        Happening::LookAtChanges { .. } => pair(31, 0, 0),
        Happening::KeepStep { volume } => pair(33, u64::from(volume.0), 0),
        Happening::ForgetSnapshot { volume, .. } => pair(34, u64::from(volume.0), 0),
        Happening::ChangesSeen { link } => pair(32, u64::from(link.0), 0),
        Happening::RelocationActs { .. } => pair(35, 0, 0),
        Happening::RelocationStep { volume } => pair(36, u64::from(volume.0), 0),
        Happening::Heal => pair(37, 0, 0),
    }
}
