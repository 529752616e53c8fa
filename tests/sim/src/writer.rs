//! A writer: one attachment of one volume. Drives the production volume core, and does for it what its shell does:
//! links, calls to the control plane, completions to its guest.
//!
//! A writer that was replaced is not told so by anyone: it lives on, with its guest, until it hears that it is fenced.

use crate::catalog::node_name;
use crate::guest::Guest;
use crate::names::{Disk, Link, MICROS, MILLIS, Nanos, Node, SECONDS, Vol, Writer};
use crate::net::{Connection, Message, Pipe, Way};
use crate::trace::Touch;
use crate::world::{Happening, World, disk_of};
use ashlar_types::{Change, ChangeAnswer, Duration, Epoch, Instant, SessionId, VolumeRecord};
use ashlar_volume::{Action, Config, Ending, Event, Notice, ProposalId, Volume};
use ashlar_wire::Request;
use std::collections::BTreeMap;

/// How long a shell waits for the control plane's answer.
const CALL_TIMEOUT: Nanos = SECONDS;
/// How long a shell waits for a link to be made.
const CONNECT_TIMEOUT: Nanos = 500 * MILLIS;
/// A deadline that has passed and stays, or hardly moves, is a busy loop. A few come by clocks that drift.
const IDLE_TICKS_MAX: u32 = 100;
const DEADLINE_MOVES_MIN: Duration = Duration::from_millis(1);
/// However far the deadline moves: more than the reads that may wait, each of which has a time to be asked once more.
const EMPTY_TICKS_MAX: u32 = 1000;

pub struct WriterState {
    pub volume: Vol,
    pub node: Node,
    pub epoch: Epoch,
    /// `None` once it is dead or has ended.
    pub core: Option<Volume>,
    pub paused: Option<Vec<Happening>>,
    pub tick_at: Option<Nanos>,
    pub links: BTreeMap<Disk, Link>,
    pub serving: bool,
    pub detaching: bool,
    pub guest: Guest,
    /// Steps of its protocol so far, and the one after which it dies.
    pub steps: u32,
    pub dies_after: Option<u32>,
    proposals: BTreeMap<ProposalId, Nanos>,
    /// Ticks in a row by which it did nothing and wanted the next one at about the same time.
    idle_ticks: u32,
    /// Ticks in a row by which it did nothing.
    empty_ticks: u32,
}

impl WriterState {
    /// It serves, and the control plane has answered all that it asked.
    pub fn is_settled(&self) -> bool {
        let status = self.core.as_ref().map(Volume::status);
        status.is_some_and(|status| status.serving && !status.in_doubt)
    }
}

/// A call to the control plane on its way.
#[derive(Clone, Debug)]
pub struct Call {
    pub writer: Writer,
    pub proposal: ProposalId,
    pub epoch: Epoch,
    pub version: u64,
    pub change: Change,
}

impl World {
    /// A writer starts with the record that it was granted.
    pub fn start_writer(&mut self, volume: Vol, node: Node, record: VolumeRecord) -> Writer {
        let writer = Writer(self.writers.len() as u32);
        let epoch = record.epoch;
        let now = self.local(node);
        self.trace.line(self.now, Touch::all(volume), || {
            format!("{writer} starts on {node} for {volume} with epoch {epoch}: {}", crate::describe::record(&record))
        });
        self.trace.count("state: writer started");
        if self.replaced_writer_lives() {
            self.trace.count("state: replaced writer still lives");
        }
        let dies_after = self.death_of_next_writer();
        // Often enough for a run to see it.
        let (heal_pause_min, heal_pause_max) = (Duration::from_secs(1), Duration::from_secs(8));
        let compare_period = self.scenario.compare_period.map(Duration::from_nanos);
        let config = Config { heal_pause_min, heal_pause_max, compare_period, ..Config::new(node_name(node), None) };
        let mut core = Volume::new(config, record, now);
        let mut actions = Vec::new();
        core.start(now, &mut actions);
        self.writers.push(WriterState {
            volume,
            node,
            epoch,
            core: Some(core),
            paused: None,
            tick_at: None,
            links: BTreeMap::new(),
            serving: false,
            detaching: false,
            guest: Guest::new(self.scenario.depth),
            steps: 0,
            dies_after,
            proposals: BTreeMap::new(),
            idle_ticks: 0,
            empty_ticks: 0,
        });
        self.perform_for_writer(writer, actions);
        writer
    }

    /// The process dies; its guest's unanswered requests stay unanswered.
    pub fn crash_writer(&mut self, writer: Writer, silently: bool) {
        let state = &mut self.writers[writer.index()];
        if state.core.take().is_none() {
            return;
        }
        state.paused = None;
        state.guest.stop();
        let (volume, links) = (state.volume, std::mem::take(&mut state.links));
        self.trace.line(self.now, Touch::all(volume), || format!("{writer} dies"));
        for link in links.into_values() {
            self.writer_end_gone(link, silently);
        }
    }

    fn writer_clock(&self, writer: Writer) -> Instant {
        self.local(self.writers[writer.index()].node)
    }

    /// Something happens to a writer; waits if the process is stopped.
    pub fn tell_writer(&mut self, writer: Writer, event: Event) {
        let now = self.writer_clock(writer);
        let state = &mut self.writers[writer.index()];
        if let Some(backlog) = &mut state.paused {
            backlog.push(Happening::ToWriter { writer, event });
            return;
        }
        let Some(core) = &mut state.core else { return };
        let is_step = step_of_event(&event);
        if !matches!(event, Event::Tick) {
            let touch = match &event {
                Event::Reply { disk, frame, .. } => {
                    let link = state.links.get(&disk_of(*disk));
                    link.and_then(|&link| self.trace.touch_of_answer(link, frame.request))
                }
                event => crate::describe::touch_of_volume_event(state.volume, event),
            };
            self.trace.line(self.now, touch, || format!("{writer} hears {}", crate::describe::volume_event(&event)));
        }
        let is_tick = matches!(event, Event::Tick);
        let mut actions = Vec::new();
        let due = core.next_deadline();
        core.handle(now, event, &mut actions);
        let is_empty = is_tick && actions.is_empty();
        let is_idle = is_empty && core.next_deadline() < due + DEADLINE_MOVES_MIN;
        state.empty_ticks = if is_empty { state.empty_ticks + 1 } else { 0 };
        state.idle_ticks = if is_idle { state.idle_ticks + 1 } else { 0 };
        if state.idle_ticks > IDLE_TICKS_MAX || state.empty_ticks > EMPTY_TICKS_MAX {
            let volume = state.volume;
            self.violated(format!("{writer} of {volume} asks for ticks and does nothing"), None);
        }
        self.perform_for_writer(writer, actions);
        if is_step {
            self.count_step(writer, None);
        }
    }

    fn perform_for_writer(&mut self, writer: Writer, actions: Vec<Action>) {
        for action in actions {
            // A writer that dies at a step does nothing more of what it had decided.
            if self.writers[writer.index()].core.is_none() {
                return;
            }
            let is_step = step_of_action(&action);
            let peer = match &action {
                Action::Send { disk, .. } => Some(disk_of(*disk)),
                _ => None,
            };
            self.perform_one_for_writer(writer, action);
            if is_step {
                self.count_step(writer, peer);
            }
        }
        self.set_writer_tick(writer);
    }

    /// A step of its protocol; `peer` is the chunkserver that it concerns, if it is a message to one.
    fn count_step(&mut self, writer: Writer, peer: Option<Disk>) {
        let state = &mut self.writers[writer.index()];
        state.steps += 1;
        if state.dies_after == Some(state.steps) && state.core.is_some() {
            self.strike_between_steps(writer, peer);
        }
    }

    pub fn set_writer_tick(&mut self, writer: Writer) {
        let state = &mut self.writers[writer.index()];
        let clock = self.clocks[state.node.index()];
        let Some(core) = &state.core else { return };
        let due = clock.when(core.next_deadline()).map(|at| at.max(self.now + MICROS));
        if let Some(at) = due
            && state.tick_at.is_none_or(|set| at < set)
        {
            state.tick_at = Some(at);
            self.agenda.add(at, Happening::WriterTick { writer, at });
        }
    }

    pub fn writer_tick(&mut self, writer: Writer, at: Nanos) {
        let state = &mut self.writers[writer.index()];
        if state.tick_at == Some(at) {
            state.tick_at = None;
            self.tell_writer(writer, Event::Tick);
        }
    }

    fn perform_one_for_writer(&mut self, writer: Writer, action: Action) {
        match action {
            Action::Connect { disk } => self.connect(writer, disk_of(disk)),
            Action::Disconnect { disk, session } => {
                let disk = disk_of(disk);
                let link = self.writers[writer.index()].links.get(&disk).copied();
                if let Some(link) = link.filter(|&link| self.net.link(link).session == session) {
                    self.writers[writer.index()].links.remove(&disk);
                    self.net.link(link).writer_open = false;
                    self.send(link, Way::ToServer, Message::End);
                }
            }
            Action::Send { disk, session, frame } => {
                let disk = disk_of(disk);
                let Some(&link) = self.writers[writer.index()].links.get(&disk) else { return };
                if self.net.link(link).session != session {
                    return;
                }
                self.count_near_read(writer, disk, &frame.message);
                let touch = self.touch_of_request(link, &frame.message);
                self.trace.asked(link, frame.request, touch);
                self.trace.line(self.now, touch, || {
                    format!("{writer} sends to {disk} on {link}: {}", crate::describe::request(&frame))
                });
                self.send(link, Way::ToServer, Message::Request(frame));
            }
            Action::Complete { tag, result } => self.complete(writer, tag, result),
            Action::Propose { proposal, epoch, version, change } => {
                self.call(Call { writer, proposal, epoch, version, change });
            }
            Action::Notice(notice) => self.noticed(writer, &notice),
            Action::SnapshotTaken { id, result } => self.snapshot_taken(writer, id, result),
            Action::Held { id, result } => self.held(writer, id, &result),
            Action::Ended(ending) => self.ended(writer, &ending),
        }
    }

    fn noticed(&mut self, writer: Writer, notice: &Notice) {
        let (volume, epoch) = (self.writers[writer.index()].volume, self.writers[writer.index()].epoch);
        self.trace.line(self.now, Touch::all(volume), || format!("{writer} notices {notice:?}"));
        self.trace.count(match notice {
            Notice::Serving { .. } => "state: serving",
            Notice::AttachBlocked { .. } => "state: attach blocked",
            Notice::WritesHeld { .. } => "state: writes held",
            Notice::Ejecting { .. } => "state: ejecting",
            Notice::Ejected { .. } => "state: ejected",
            Notice::BelowMinReplicas => "state: below minReplicas",
            Notice::Returning { .. } => "state: returning",
            Notice::ReturnAbandoned { .. } => "state: return abandoned",
            Notice::InSync { .. } => "state: returned in-sync",
            Notice::Repaired { .. } => "state: block repaired",
            Notice::Differs { .. } => "state: replicas differ",
            Notice::Fenced { .. } => "state: fenced",
        });
        if let Notice::Differs { chunk, slot, below, said } = notice {
            self.replicas_differ(writer, (volume, *chunk, *slot, *below), said);
        }
        if let Notice::Serving { reconciled_blocks } = notice {
            self.trace.add("state: blocks reconciled", *reconciled_blocks);
            self.writers[writer.index()].serving = true;
            self.history[volume.index()].serves(epoch, writer);
            self.wake_guest(writer);
        }
        if let Notice::InSync { copied_blocks, .. } = notice {
            self.trace.add("state: blocks copied by a return", *copied_blocks);
        }
    }

    fn ended(&mut self, writer: Writer, ending: &Ending) {
        let state = &mut self.writers[writer.index()];
        let volume = state.volume;
        self.trace.line(self.now, Touch::all(volume), || format!("{writer} has ended: {ending:?}"));
        self.trace.count(match ending {
            Ending::Clean => "state: ended clean",
            Ending::Unclean => "state: ended unclean",
            Ending::Fenced => "state: ended fenced",
        });
        state.core = None;
        state.guest.stop();
        for link in std::mem::take(&mut state.links).into_values() {
            self.writer_end_gone(link, false);
        }
    }

    fn connect(&mut self, writer: Writer, disk: Disk) {
        let (from, to) = (self.writers[writer.index()].node, self.servers[disk.index()].node);
        let there = self.net.delay(from, to);
        self.agenda.add(self.now + there, Happening::ConnectArrives { writer, disk });
    }

    /// A writer's call for a link reaches the chunkserver's node, or does not.
    pub fn connect_arrives(&mut self, writer: Writer, disk: Disk) {
        let (writer_node, server_node) = (self.writers[writer.index()].node, self.servers[disk.index()].node);
        let back = self.net.delay(server_node, writer_node);
        let id = self.id_of(disk);
        let down = |reset| Event::LinkDown { disk: id, session: None, reset };
        if self.net.is_cut(writer_node, server_node) || self.net.is_cut(server_node, writer_node) {
            let event = down(false);
            self.agenda.add(self.now + CONNECT_TIMEOUT, Happening::ToWriter { writer, event });
            return;
        }
        let powered = self.powered(server_node);
        let incarnation = self.servers[disk.index()].incarnation;
        let link = Link(self.net.links.len() as u32);
        let Some(process) = &mut self.servers[disk.index()].process else {
            let wait = if powered { back } else { CONNECT_TIMEOUT };
            self.agenda.add(self.now + wait, Happening::ToWriter { writer, event: down(powered) });
            return;
        };
        process.links.insert(link);
        let session = SessionId(self.net.rng.next());
        self.net.links.push(Connection {
            writer,
            disk,
            session,
            writer_node,
            server_node,
            incarnation,
            writer_open: true,
            server_open: true,
            to_server: Pipe::default(),
            to_writer: Pipe::default(),
        });
        self.agenda.add(self.now + back, Happening::LinkMade { writer, link });
    }

    /// The writer's end of a new link stands.
    pub fn link_made(&mut self, writer: Writer, link: Link) {
        let Connection { disk, session, .. } = *self.net.link(link);
        if self.writers[writer.index()].core.is_none() {
            self.writer_end_gone(link, false);
            return;
        }
        if let Some(backlog) = &mut self.writers[writer.index()].paused {
            backlog.push(Happening::LinkMade { writer, link });
            return;
        }
        self.writers[writer.index()].links.insert(disk, link);
        self.trace.count("state: link made");
        self.trace.line(self.now, None, || format!("{link} is {writer} to {disk}, session {session:?}"));
        self.tell_writer(writer, Event::LinkUp { disk: self.id_of(disk), session });
    }

    /// A message arrives at the writer's end of a link.
    pub fn writer_receives(&mut self, link: Link, message: Message) {
        let Connection { writer, disk, writer_open, .. } = *self.net.link(link);
        if !writer_open {
            return;
        }
        match message {
            Message::Reply(frame) => self.tell_writer(writer, Event::Reply { disk: self.id_of(disk), frame }),
            Message::End => self.link_lost(link, false),
            Message::Request(_) => unreachable!("requests go to chunkservers"),
        }
    }

    /// The writer learns that its link is gone.
    pub fn link_lost(&mut self, link: Link, reset: bool) {
        let Connection { writer, disk, session, writer_open, .. } = *self.net.link(link);
        if !writer_open {
            return;
        }
        let state = &mut self.writers[writer.index()];
        if let Some(backlog) = &mut state.paused {
            backlog.push(Happening::LinkLost { link, reset });
            return;
        }
        self.net.link(link).writer_open = false;
        if state.links.get(&disk) == Some(&link) {
            state.links.remove(&disk);
            self.tell_writer(writer, Event::LinkDown { disk: self.id_of(disk), session: Some(session), reset });
        }
    }

    fn call(&mut self, call: Call) {
        let Call { writer, proposal, .. } = call;
        let volume = self.writers[writer.index()].volume;
        self.trace.line(self.now, Touch::all(volume), || {
            format!("{writer} proposes #{} at version {}: {:?}", call.proposal.0, call.version, call.change)
        });
        let from = self.writers[writer.index()].node;
        let plane = self.net.control_plane();
        let arrives = self.now + self.net.delay(from, plane) + self.net.rng.tail(0, 5 * MILLIS);
        self.writers[writer.index()].proposals.insert(proposal, self.now);
        self.agenda.add(self.now + CALL_TIMEOUT, Happening::CallTimesOut { writer, proposal, asked: self.now });
        if self.net.rng.chance(self.scenario.calls_lost_ppm) {
            self.trace.count("fault: call to the control plane lost");
            return;
        }
        // Now and then a call is held up for longer than its caller waits.
        let held = if self.scenario.calls_lost_ppm > 0 && self.net.rng.chance(50_000) { 3 * SECONDS } else { 0 };
        self.repeat_call_late(&call, arrives);
        self.agenda.add(arrives + held, Happening::CallArrives { call, asked: self.now });
    }

    /// A call reaches the control plane.
    pub fn call_arrives(&mut self, call: &Call, asked: Nanos) {
        let (volume, node) = (self.writers[call.writer.index()].volume, self.writers[call.writer.index()].node);
        let plane = self.net.control_plane();
        if !self.catalog.up || self.net.is_cut(node, plane) {
            return;
        }
        let before = self.catalog.record(volume).clone();
        let answer = self.catalog.apply(volume, call.epoch, call.version, &call.change);
        self.trace.line(self.now, Touch::all(volume), || {
            format!("control plane answers {} #{}: {}", call.writer, call.proposal.0, crate::describe::answer(&answer))
        });
        match &answer {
            // The same call again, late: the disk may have died since.
            ChangeAnswer::Applied { record } if record.version == before.version => {
                self.trace.count("state: proposal answered again");
            }
            ChangeAnswer::Applied { .. } => {
                self.check_change(volume, &call.change);
                self.check_leave(volume, &before, &call.change);
                self.note_snapshot_change(volume, &call.change);
                self.trace.count(crate::describe::change_name(&call.change));
            }
            ChangeAnswer::Refused { .. } => self.trace.count("state: proposal refused"),
            ChangeAnswer::Fenced { .. } => self.trace.count("state: proposal fenced"),
        }
        if self.net.is_cut(plane, node) || self.net.rng.chance(self.scenario.answers_lost_ppm) {
            self.trace.count("fault: answer of the control plane lost");
            return;
        }
        let back = self.net.delay(plane, node);
        let (writer, proposal) = (call.writer, call.proposal);
        self.agenda.add(self.now + back, Happening::CallAnswered { writer, proposal, asked, answer });
    }

    pub fn call_answered(&mut self, writer: Writer, proposal: ProposalId, asked: Nanos, answer: ChangeAnswer) {
        let proposals = &mut self.writers[writer.index()].proposals;
        if proposals.get(&proposal) == Some(&asked) {
            proposals.remove(&proposal);
            self.tell_writer(writer, Event::Answer { proposal, answer });
        }
    }

    pub fn call_times_out(&mut self, writer: Writer, proposal: ProposalId, asked: Nanos) {
        let proposals = &mut self.writers[writer.index()].proposals;
        if proposals.get(&proposal) == Some(&asked) {
            proposals.remove(&proposal);
            self.trace.count("state: proposal unanswered");
            self.tell_writer(writer, Event::Unanswered { proposal });
        }
    }
}

/// Whether the event is a step of attach, eject, return or detach, after which a directed schedule may kill the
/// writer.
fn step_of_event(event: &Event) -> bool {
    matches!(event, Event::Answer { .. } | Event::Unanswered { .. } | Event::LinkUp { .. })
}

fn step_of_action(action: &Action) -> bool {
    match action {
        Action::Propose { .. } => true,
        Action::Send { frame, .. } => !matches!(
            frame.message,
            Request::Write { .. }
                | Request::Discard { .. }
                | Request::Read { .. }
                | Request::Ping
                | Request::Repair { .. }
        ),
        _ => false,
    }
}
