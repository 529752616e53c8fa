//! A chunkserver process on its disk: drives the production engine and performs, on the simulated medium, what the
//! engine asks for.
//!
//! Operations of the medium complete in any order. What the process knows dies with it; the medium stays.

use crate::medium::{InFlight, Medium};
use crate::names::{Disk, Link, MICROS, MILLIS, Nanos, Node};
use crate::net::{Message, Way};
use crate::scenario::Class;
use crate::world::{Happening, World};
use ashlar_engine::{Action, DiskError, Engine, Event, IndexEdit, LinkId, OpToken};
use ashlar_types::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// An operation that the device has.
pub enum Op {
    Read { offset: u64, bytes: u64 },
    Write(InFlight),
    Flush { mark: u64 },
    Commit(Vec<IndexEdit>),
}

pub struct Process {
    pub engine: Engine,
    pub in_flight: BTreeMap<OpToken, Op>,
    pub links: BTreeSet<Link>,
    /// Set while the process is stopped; what happens to it waits here.
    pub paused: Option<Vec<Happening>>,
    pub tick_at: Option<Nanos>,
    pub failed: bool,
    pub recovered: bool,
}

/// Errors and delays that strike the next operations of a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ailment {
    pub write_errors: u32,
    pub read_errors: u32,
    pub flush_errors: u32,
    pub commit_errors: u32,
    /// Durable writes that are answered and never come, or come to another place.
    pub lost_writes: u32,
    pub misdirected_writes: u32,
    /// Operations take this many times as long until `slow_until`.
    pub slowness: u64,
    pub slow_until: Nanos,
}

pub struct Server {
    pub node: Node,
    pub medium: Medium,
    pub incarnation: u32,
    pub process: Option<Process>,
    pub ailment: Ailment,
    /// Of an earlier stop, to be put back later.
    pub image: Option<Medium>,
}

impl World {
    pub fn start_server(&mut self, disk: Disk) {
        if self.servers[disk.index()].process.is_some() {
            return;
        }
        let now = self.server_clock(disk);
        let config = self.engine_config(disk);
        let server = &mut self.servers[disk.index()];
        server.incarnation += 1;
        let incarnation = server.incarnation;
        let mut engine = crate::format::open_engine(config, disk, &server.medium, now);
        let mut actions = Vec::new();
        engine.start(&mut actions);
        server.process = Some(Process {
            engine,
            in_flight: BTreeMap::new(),
            links: BTreeSet::new(),
            paused: None,
            tick_at: None,
            failed: false,
            recovered: false,
        });
        self.trace.line(self.now, None, || format!("{disk} chunkserver starts (#{incarnation})"));
        self.trace.count("state: chunkserver started");
        self.perform_for_server(disk, actions);
        self.crash_during_recovery(disk);
    }

    /// Where processes die at all, some die again while they recover.
    fn crash_during_recovery(&mut self, disk: Disk) {
        let incarnation = self.servers[disk.index()].incarnation;
        let on = |class| self.scenario.classes.iter().any(|(on, _)| *on == class);
        let (dies, power) = (on(Class::ServerCrash), on(Class::NodePowerCut));
        if self.quiet || incarnation == 1 || !(dies || power) || self.fault_rng.below(5) > 0 {
            return;
        }
        self.trace.count("fault: crash during recovery");
        let power = power && (!dies || self.fault_rng.coin());
        let after = self.fault_rng.range(0, 20_000) * MICROS;
        self.agenda.add(self.now + after, Happening::CrashServer { disk, incarnation, power });
    }

    /// The process dies. With `power` the medium loses what it had not made durable, and peers hear nothing.
    pub fn crash_server(&mut self, disk: Disk, power: bool) {
        let server = &mut self.servers[disk.index()];
        let Some(process) = server.process.take() else { return };
        self.trace.add("state: versions merged", process.engine.status().counters.merges);
        let mut writes = Vec::new();
        let mut commit = None;
        for op in process.in_flight.into_values() {
            match op {
                Op::Write(write) => writes.push(write),
                Op::Commit(edits) => commit = Some(edits),
                Op::Read { .. } | Op::Flush { .. } => {}
            }
        }
        if power {
            let torn = server.medium.power_cut(writes, &mut self.disk_rng);
            self.trace.add("fault: torn pages", torn);
        } else {
            let torn = server.medium.process_crash(writes, &mut self.disk_rng);
            self.trace.add("fault: write torn by the death of a process", torn);
        }
        if let Some(edits) = commit
            && self.disk_rng.coin()
        {
            self.trace.count("fault: index commit unanswered but done");
            server.medium.commit(edits);
        }
        self.trace
            .line(self.now, None, || format!("{disk} chunkserver dies{}", if power { ", power is cut" } else { "" }));
        for link in process.links {
            self.server_end_gone(link, power);
        }
    }

    fn server_clock(&self, disk: Disk) -> Instant {
        self.local(self.servers[disk.index()].node)
    }

    /// Something happens to a chunkserver process; waits if it is stopped.
    pub fn tell_server(&mut self, disk: Disk, event: Event) {
        let now = self.server_clock(disk);
        let incarnation = self.servers[disk.index()].incarnation;
        let Some(process) = &mut self.servers[disk.index()].process else { return };
        if let Some(backlog) = &mut process.paused {
            backlog.push(Happening::ToServer { disk, incarnation, event });
            return;
        }
        let touch = self.touch_of_engine_event(&event);
        self.trace.line(self.now, touch, || format!("{disk} hears {}", crate::describe::engine_event(&event)));
        let process = self.servers[disk.index()].process.as_mut().expect("looked at above");
        let mut actions = Vec::new();
        process.engine.handle(now, event, &mut actions);
        self.perform_for_server(disk, actions);
    }

    fn perform_for_server(&mut self, disk: Disk, actions: Vec<Action>) {
        for action in actions {
            self.perform_one_for_server(disk, action);
        }
        self.set_server_tick(disk);
    }

    pub fn set_server_tick(&mut self, disk: Disk) {
        let clock = self.clocks[self.servers[disk.index()].node.index()];
        let incarnation = self.servers[disk.index()].incarnation;
        let Some(process) = &mut self.servers[disk.index()].process else { return };
        let due = clock.when(process.engine.next_deadline()).map(|at| at.max(self.now + MICROS));
        if let Some(at) = due
            && process.tick_at.is_none_or(|set| at < set)
        {
            process.tick_at = Some(at);
            self.agenda.add(at, Happening::ServerTick { disk, incarnation, at });
        }
    }

    fn perform_one_for_server(&mut self, disk: Disk, action: Action) {
        match action {
            Action::Reply { link, frame } => {
                let link = Link(link.0 as u32);
                if let Some(replies) = self.inspections.get_mut(&link) {
                    replies.push(frame);
                    return;
                }
                self.check_reply(disk, link, &frame);
                if let ashlar_wire::Reply::Refused(refusal) = &frame.message {
                    self.trace.count(crate::coverage::refusal(refusal.status));
                }
                let touch = self.trace.touch_of_answer(link, frame.request);
                self.trace
                    .line(self.now, touch, || format!("{disk} answers on {link}: {}", crate::describe::reply(&frame)));
                self.send(link, Way::ToWriter, Message::Reply(frame));
            }
            Action::CloseLink { link } => {
                let link = Link(link.0 as u32);
                if let Some(process) = &mut self.servers[disk.index()].process {
                    process.links.remove(&link);
                }
                self.net.link(link).server_open = false;
                self.trace.count("state: link ended by chunkserver");
                self.send(link, Way::ToWriter, Message::End);
            }
            Action::Read { op, offset, bytes } => {
                self.submit(disk, op, Op::Read { offset: offset.0, bytes: bytes.0 });
            }
            Action::Write { op, offset, parts, durable } => {
                self.submit(disk, op, Op::Write(InFlight { offset: offset.0, parts, durable }));
            }
            Action::Flush { op } => {
                let mark = self.servers[disk.index()].medium.flush_mark();
                self.submit(disk, op, Op::Flush { mark });
            }
            Action::Commit { op, edits } => self.submit(disk, op, Op::Commit(edits)),
            Action::Deleted { op, result } => self.replica_deleted(disk, op, &result),
            Action::Cloned { op, result } => self.replica_cloned(disk, op, &result),
            Action::PointsKept { op, result } => self.points_kept(disk, op, &result),
            Action::Recovered { replayed_records, lost_blocks } => {
                if let Some(process) = &mut self.servers[disk.index()].process {
                    process.recovered = true;
                }
                self.check_recovered(disk);
                self.trace.add("state: records replayed", replayed_records);
                self.trace.add("state: blocks lost at replay", lost_blocks);
                self.trace.line(self.now, None, || {
                    format!("{disk} has recovered: {replayed_records} records replayed, {lost_blocks} blocks lost")
                });
            }
            Action::ScrubFound { volume, chunk, slot, blocks } => {
                self.trace.count("state: scrub has found bad blocks");
                self.trace.line(self.now, None, || {
                    format!("{disk} finds bad blocks {blocks:016b} in {volume} {chunk:?} {slot:?}")
                });
            }
            Action::ScrubEnded { .. } => self.trace.count("state: round of scrub ended"),
            Action::Failed { reason } => self.server_failed(disk, &reason),
        }
    }

    /// The disk's life has ended; the operator replaces nothing here, but restarts the process after a while.
    fn server_failed(&mut self, disk: Disk, reason: &str) {
        self.trace.count("state: disk failed");
        self.trace.line(self.now, None, || format!("{disk} has failed: {reason}"));
        let server = &mut self.servers[disk.index()];
        let incarnation = server.incarnation;
        if let Some(process) = &mut server.process {
            process.failed = true;
        }
        let after = self.fault_rng.range(500, 4000) * MILLIS;
        self.agenda.add(self.now + after, Happening::CrashServer { disk, incarnation, power: false });
    }

    fn submit(&mut self, disk: Disk, op: OpToken, what: Op) {
        let ailment = self.servers[disk.index()].ailment;
        let (low, high) = match &what {
            Op::Read { .. } => (30 * MICROS, 400 * MICROS),
            Op::Write(write) if write.durable => (60 * MICROS, 900 * MICROS),
            Op::Write(_) => (20 * MICROS, 600 * MICROS),
            Op::Flush { .. } => (100 * MICROS, 2 * MILLIS),
            Op::Commit(_) => (200 * MICROS, 5 * MILLIS),
        };
        let mut takes = self.disk_rng.tail(low, high);
        if self.now < ailment.slow_until {
            takes *= ailment.slowness;
        }
        let server = &mut self.servers[disk.index()];
        let incarnation = server.incarnation;
        let Some(process) = &mut server.process else { return };
        let before = process.in_flight.insert(op, what);
        assert!(before.is_none(), "{disk}: token {op:?} is used twice");
        self.agenda.add(self.now + takes, Happening::DiskDone { disk, incarnation, op });
    }

    /// The device ends an operation, whether or not the process looks.
    pub fn disk_done(&mut self, disk: Disk, incarnation: u32, op: OpToken) {
        let server = &mut self.servers[disk.index()];
        if server.incarnation != incarnation {
            return;
        }
        let Some(process) = &mut server.process else { return };
        let what = process.in_flight.remove(&op).expect("an operation ends once");
        let (medium, ailment) = (&mut server.medium, &mut server.ailment);
        let event = match what {
            Op::Read { .. } if take_one(&mut ailment.read_errors) => {
                self.trace.count("fault: read error hit");
                Event::ReadDone { op, result: Err(simulated_error("read")) }
            }
            Op::Read { offset, bytes } => Event::ReadDone { op, result: Ok(medium.read(offset, bytes)) },
            Op::Write(write) if take_one(&mut ailment.write_errors) => {
                self.trace.count("fault: write error hit");
                if self.disk_rng.coin() {
                    medium.write(&InFlight { durable: false, ..write });
                }
                Event::WriteDone { op, result: Err(simulated_error("write")) }
            }
            Op::Write(write) => {
                self.write_somewhere(disk, &write);
                Event::WriteDone { op, result: Ok(()) }
            }
            Op::Flush { mark } if take_one(&mut ailment.flush_errors) => {
                medium.fail_flush(mark);
                self.trace.count("fault: flush error hit");
                Event::WriteDone { op, result: Err(simulated_error("flush")) }
            }
            Op::Flush { mark } => {
                medium.flush(mark);
                Event::WriteDone { op, result: Ok(()) }
            }
            Op::Commit(edits) if take_one(&mut ailment.commit_errors) => {
                self.trace.count("fault: index commit error hit");
                if self.disk_rng.coin() {
                    medium.commit(edits);
                }
                Event::Committed { op, result: Err(simulated_error("index")) }
            }
            Op::Commit(edits) => {
                medium.commit(edits);
                Event::Committed { op, result: Ok(()) }
            }
        };
        self.tell_server(disk, event);
    }

    /// Where it belongs, unless the device loses or misdirects it.
    fn write_somewhere(&mut self, disk: Disk, write: &InFlight) {
        let struck = write.durable && !self.replaced_writer_lives();
        let server = &mut self.servers[disk.index()];
        let (medium, ailment) = (&mut server.medium, &mut server.ailment);
        if struck && take_one(&mut ailment.lost_writes) {
            self.trace.count("fault: write lost");
            self.trace.line(self.now, None, || format!("{disk} loses a write of offset {}", write.offset));
            self.forgive(disk);
        } else if struck && take_one(&mut ailment.misdirected_writes) {
            let offset = medium.some_written_offset(&mut self.disk_rng).unwrap_or(write.offset);
            medium.write(&InFlight { offset, ..write.clone() });
            self.trace.count("fault: write misdirected");
            self.trace.line(self.now, None, || format!("{disk} writes offset {} at {offset}", write.offset));
            self.forgive(disk);
        } else {
            medium.write(write);
        }
    }

    pub fn server_tick(&mut self, disk: Disk, incarnation: u32, at: Nanos) {
        let server = &mut self.servers[disk.index()];
        if server.incarnation != incarnation {
            return;
        }
        let Some(process) = &mut server.process else { return };
        if process.tick_at != Some(at) {
            return;
        }
        process.tick_at = None;
        self.tell_server(disk, Event::Tick);
    }

    /// A message arrives at the chunkserver's end of a link.
    pub fn server_receives(&mut self, link: Link, message: Message) {
        let disk = self.net.link(link).disk;
        let id = LinkId(u64::from(link.0));
        match message {
            Message::Request(frame) => {
                self.note_request(disk, link, &frame);
                self.tell_server(disk, Event::Request { link: id, frame });
            }
            Message::End => {
                if let Some(process) = &mut self.servers[disk.index()].process {
                    process.links.remove(&link);
                }
                self.net.link(link).server_open = false;
                self.tell_server(disk, Event::LinkClosed { link: id });
            }
            Message::Reply(_) => unreachable!("replies go to writers"),
        }
    }
}

impl Medium {
    pub fn commit(&mut self, edits: Vec<IndexEdit>) {
        for edit in edits {
            match edit {
                IndexEdit::Put { key, value } => drop(self.index.insert(key, value)),
                IndexEdit::Delete { key } => drop(self.index.remove(&key)),
                IndexEdit::DeleteRange { from, until } => self.index.retain(|key, _| *key < from || *key >= until),
            }
        }
    }
}

fn simulated_error(what: &str) -> DiskError {
    DiskError { text: format!("simulated {what} error") }
}

fn take_one(errors: &mut u32) -> bool {
    let strikes = *errors > 0;
    *errors = errors.saturating_sub(1);
    strikes
}
