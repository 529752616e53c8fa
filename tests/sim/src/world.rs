//! The simulated cluster and its one loop: take the next thing that happens, let it happen.

use crate::agenda::Agenda;
use crate::catalog::Catalog;
use crate::changes::Changes;
use crate::clock::Clock;
use crate::clones::Clones;
use crate::compare::Comparisons;
use crate::directed::Move;
use crate::durable::Promises;
use crate::format;
use crate::groups::Group;
use crate::healing::Healing;
use crate::history::History;
use crate::keep::Keep;
use crate::names::{Disk, Link, Nanos, Node, SECONDS, Vol, Writer};
use crate::net::{Message, Net, Way};
use crate::relocate::Relocation;
use crate::rng::Rng;
use crate::scenario::{Class, Scenario};
use crate::server::{Ailment, Server};
use crate::site::Site;
use crate::snapshots::Taken;
use crate::trace::Trace;
use crate::writer::{Call, WriterState};
use ashlar_engine::{EngineConfig, OpToken};
use ashlar_types::{ChangeAnswer, DiskId, Duration, Instant, SnapshotId};
use ashlar_volume::ProposalId;
use std::collections::BTreeMap;

/// More than any run needs: beyond it something spins.
pub const EVENTS_MAX: u64 = 20_000_000;

#[derive(Clone, Debug)]
pub enum Happening {
    ToServer { disk: Disk, incarnation: u32, event: ashlar_engine::Event },
    ServerTick { disk: Disk, incarnation: u32, at: Nanos },
    DiskDone { disk: Disk, incarnation: u32, op: OpToken },
    ToWriter { writer: Writer, event: ashlar_volume::Event },
    WriterTick { writer: Writer, at: Nanos },
    ConnectArrives { writer: Writer, disk: Disk },
    LinkMade { writer: Writer, link: Link },
    LinkLost { link: Link, reset: bool },
    Arrives { link: Link, way: Way, message: Message },
    CallArrives { call: Call, asked: Nanos },
    CallAnswered { writer: Writer, proposal: ProposalId, asked: Nanos, answer: ChangeAnswer },
    CallTimesOut { writer: Writer, proposal: ProposalId, asked: Nanos },
    GuestActs { writer: Writer },
    Supervise { volume: Vol },
    AttachAt { volume: Vol, node: Node },
    Strike { class: Class, every: Nanos },
    StartServer { disk: Disk },
    CrashServer { disk: Disk, incarnation: u32, power: bool },
    PowerOn { node: Node },
    HealPath { from: Node, to: Node },
    ResumeServer { disk: Disk, incarnation: u32 },
    ResumeWriter { writer: Writer },
    CatalogUp,
    DirectedStep { step: u32 },
    Move { next: Move },
    ClockLeaps { every: Nanos },
    CloneActs { every: Nanos },
    CloneStep { volume: Vol },
    RelocationActs { every: Nanos },
    RelocationStep { volume: Vol },
    Heal,
    DeleteVolume { volume: Vol },
    Reap { volume: Vol },
    LookAtChanges { every: Nanos },
    ChangesSeen { link: Link },
    KeepStep { volume: Vol },
    ForgetSnapshot { volume: Vol, id: SnapshotId },
}

/// What went wrong, and on which block if it is about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Nanos,
    pub text: String,
    pub block: Option<(Vol, u64)>,
}

pub struct World {
    pub now: Nanos,
    pub agenda: Agenda<Happening>,
    pub scenario: Scenario,
    pub clocks: Vec<Clock>,
    pub node_power: Vec<bool>,
    pub servers: Vec<Server>,
    pub writers: Vec<WriterState>,
    pub sites: Vec<Site>,
    pub net: Net,
    pub catalog: Catalog,
    pub history: Vec<History>,
    pub snapshots: Vec<BTreeMap<SnapshotId, Taken>>,
    pub group: Group,
    pub clones: Clones,
    pub changes: Changes,
    pub keep: Keep,
    pub comparisons: Comparisons,
    pub relocations: BTreeMap<Vol, Relocation>,
    pub healing: Option<Healing>,
    pub trace: Trace,
    pub violation: Option<Violation>,
    pub promises: Promises,
    /// Guests make new requests.
    pub guests_active: bool,
    /// Faults are over.
    pub quiet: bool,
    /// The last stamp that was given to a block.
    pub stamps: u64,
    pub disk_rng: Rng,
    pub guest_rng: Rng,
    pub fault_rng: Rng,
    pub site_rng: Rng,
    pub leap_rng: Rng,
    pub clone_rng: Rng,
    pub changes_rng: Rng,
    pub keep_rng: Rng,
    pub relocation_rng: Rng,
    pub plant_rng: Rng,
    /// The one disk that loses bits.
    pub rotten: Disk,
    /// Disks that were replaced by empty ones.
    pub emptied: std::collections::BTreeSet<Disk>,
    pub inspections: BTreeMap<Link, Vec<ashlar_wire::ReplyFrame>>,
}

impl World {
    pub fn new(seed: u64, scenario: Scenario, with_lines: bool) -> World {
        let nodes = usize::from(scenario.nodes);
        let mut rng = Rng::named(seed, "cluster");
        let drift = Clock::DRIFT_PPM_MAX;
        let clocks = (0..nodes)
            .map(|_| Clock {
                offset: rng.below(1000 * SECONDS),
                drift_ppm: if scenario.clocks_drift { rng.range(0, 2 * drift as u64) as i32 - drift } else { 0 },
            })
            .collect();
        let servers = (0..scenario.nodes)
            .map(|i| Server {
                node: Node(i),
                medium: format::format_disk(Disk(i), scenario.slots_of(i)),
                incarnation: 0,
                process: None,
                ailment: Ailment::default(),
                image: None,
            })
            .collect();
        let volumes = (0..scenario.volumes).map(Vol);
        let records =
            volumes.clone().map(|v| format::new_record(v, scenario.nodes, scenario.min_replicas, &mut rng)).collect();
        let sites = volumes.clone().map(|_| Site::draw(&scenario, &mut rng)).collect();
        World {
            now: 0,
            agenda: Agenda::new(),
            clocks,
            node_power: vec![true; nodes],
            servers,
            writers: Vec::new(),
            sites,
            net: Net::new(nodes, scenario.far, Rng::named(seed, "net")),
            catalog: Catalog::new(records),
            history: volumes.clone().map(|_| History::default()).collect(),
            snapshots: volumes.map(|_| BTreeMap::new()).collect(),
            group: Group::default(),
            clones: Clones::default(),
            changes: Changes::default(),
            keep: Keep::default(),
            comparisons: Comparisons::default(),
            relocations: BTreeMap::new(),
            healing: scenario.healing.then(|| Healing::new(seed)),
            trace: Trace::new(with_lines),
            violation: None,
            promises: Promises::default(),
            guests_active: true,
            quiet: false,
            stamps: 0,
            disk_rng: Rng::named(seed, "disk"),
            guest_rng: Rng::named(seed, "guest"),
            fault_rng: Rng::named(seed, "fault"),
            site_rng: Rng::named(seed, "site"),
            leap_rng: Rng::named(seed, "leap"),
            clone_rng: Rng::named(seed, "clone"),
            changes_rng: Rng::named(seed, "changes"),
            keep_rng: Rng::named(seed, "keep"),
            relocation_rng: Rng::named(seed, "relocation"),
            plant_rng: Rng::named(seed, "plant"),
            rotten: Disk(rng.below(u64::from(scenario.nodes)) as u16),
            emptied: std::collections::BTreeSet::new(),
            inspections: BTreeMap::new(),
            scenario,
        }
    }

    /// Lets everything happen up to `until`, or until a rule is violated.
    pub fn run_until(&mut self, until: Nanos) {
        self.run_while(until, |_| true);
        self.now = self.now.max(until);
    }

    /// Lets things happen while `goes_on`, up to `until` at most. Whether `goes_on` ended it.
    pub fn run_while(&mut self, until: Nanos, goes_on: impl Fn(&World) -> bool) -> bool {
        while self.violation.is_none() {
            if !goes_on(self) {
                return true;
            }
            if self.agenda.next_at().is_none_or(|at| at > until) {
                return false;
            }
            let (at, happening) = self.agenda.pop().expect("looked at above");
            assert!(at >= self.now);
            self.now = at;
            self.happens(happening);
            if self.trace.events() > EVENTS_MAX {
                self.violated(format!("{EVENTS_MAX} events: something spins"), None);
            }
        }
        false
    }

    pub fn violated(&mut self, text: String, block: Option<(Vol, u64)>) {
        if self.violation.is_none() {
            self.trace.line(self.now, None, || format!("VIOLATION: {text}"));
            self.violation = Some(Violation { at: self.now, text, block });
        }
    }

    /// The time on a node's clock.
    pub fn local(&self, node: Node) -> Instant {
        self.clocks[node.index()].local(self.now)
    }

    pub fn powered(&self, node: Node) -> bool {
        self.node_power[node.index()]
    }

    pub fn id_of(&self, disk: Disk) -> DiskId {
        format::disk_id(disk)
    }

    pub fn disks(&self) -> impl Iterator<Item = Disk> + use<> {
        (0..self.scenario.nodes).map(Disk)
    }

    /// Those that exist.
    pub fn volumes(&self) -> impl Iterator<Item = Vol> + '_ {
        self.volumes_ever().filter(|volume| !self.clones.gone.contains(volume))
    }

    /// Deleted ones with them.
    pub fn volumes_ever(&self) -> impl Iterator<Item = Vol> + use<> {
        (0..self.catalog.count() as u16).map(Vol)
    }

    pub fn engine_config(&self, _disk: Disk) -> EngineConfig {
        EngineConfig {
            checkpoint_interval: Duration::from_millis(700),
            checkpoint_ring_percent: 5,
            // Recovery looks at little more than what is there, and batches lie across its reads.
            recover_read_bytes: 256 << 10,
            scrub_period: self.scenario.scrub_period.map(Duration::from_nanos),
            ..EngineConfig::default()
        }
    }

    pub fn happens(&mut self, happening: Happening) {
        let now = self.now;
        self.trace.fold(&crate::describe::numbers(now, &happening));
        match happening {
            Happening::ToServer { disk, incarnation, event } => {
                if self.servers[disk.index()].incarnation == incarnation {
                    self.tell_server(disk, event);
                }
            }
            Happening::ServerTick { disk, incarnation, at } => self.server_tick(disk, incarnation, at),
            Happening::DiskDone { disk, incarnation, op } => self.disk_done(disk, incarnation, op),
            Happening::ToWriter { writer, event } => self.tell_writer(writer, event),
            Happening::WriterTick { writer, at } => self.writer_tick(writer, at),
            Happening::ConnectArrives { writer, disk } => self.connect_arrives(writer, disk),
            Happening::LinkMade { writer, link } => self.link_made(writer, link),
            Happening::LinkLost { link, reset } => self.link_lost(link, reset),
            Happening::Arrives { link, way, message } => self.arrives(link, way, message),
            Happening::CallArrives { call, asked } => self.call_arrives(&call, asked),
            Happening::CallAnswered { writer, proposal, asked, answer } => {
                self.call_answered(writer, proposal, asked, answer);
            }
            Happening::CallTimesOut { writer, proposal, asked } => self.call_times_out(writer, proposal, asked),
            Happening::GuestActs { writer } => self.guest_acts(writer),
            Happening::Supervise { volume } => self.supervise(volume),
            Happening::AttachAt { volume, node } => {
                self.sites[volume.index()].next_node = Some(node);
                self.attach(volume);
            }
            Happening::Strike { class, every } => self.strike(class, every),
            Happening::StartServer { disk } => {
                if self.powered(self.servers[disk.index()].node) {
                    self.start_server(disk);
                }
            }
            Happening::CrashServer { disk, incarnation, power } => {
                let server = &self.servers[disk.index()];
                match server.incarnation == incarnation && server.process.is_some() {
                    true if power => self.power_cut(server.node),
                    true => self.crash_and_restart(disk),
                    false => {}
                }
            }
            Happening::PowerOn { node } => self.power_on(node),
            Happening::HealPath { from, to } => self.heal_path(from, to),
            Happening::ResumeServer { disk, incarnation } => self.resume_server(disk, incarnation),
            Happening::ResumeWriter { writer } => self.resume_writer(writer),
            Happening::CatalogUp => self.catalog.up = true,
            Happening::DirectedStep { step } => self.directed_step(step),
            Happening::Move { next } => self.make_move(next),
            Happening::ClockLeaps { every } => self.clock_leaps(every),
            Happening::CloneActs { every } => self.clone_acts(every),
            Happening::CloneStep { volume } => self.clone_step(volume),
            Happening::RelocationActs { every } => self.relocation_acts(every),
            Happening::RelocationStep { volume } => self.relocation_step(volume),
            Happening::Heal => self.heal(),
            Happening::DeleteVolume { volume } => self.delete_volume(volume),
            Happening::Reap { volume } => self.reap(volume),
            Happening::LookAtChanges { every } => self.look_at_changes(every),
            Happening::ChangesSeen { link } => self.changes_seen(link),
            Happening::KeepStep { volume } => self.keep_step(volume),
            Happening::ForgetSnapshot { volume, id } => self.forget_snapshot(volume, id),
        }
    }
}

pub fn disk_of(id: DiskId) -> Disk {
    Disk(id.as_u128() as u16 - 1)
}
