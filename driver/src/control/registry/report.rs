//! One heartbeat: checked, compared with what is known, kept in the catalog if it is news, and only then believed.

use super::{Daemon, DiskState, Liveness, NodeState, Registry, State, Told};
use crate::control::wall_clock_ms;
use crate::error::{Error, Result};
use ashlar_catalog::{Catalog, Disk, DiskFate, Event, Node, TRANSACTION_OPS_MAX};
use ashlar_plan::wear::{BadBlocks, gives_notice, unjudged, wears_out};
use ashlar_rpc::control::{self, heartbeat_request};
use ashlar_types::{ByteCount, DiskId, NodeName, VolumeId, ZoneName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::time::Instant;

const DISKS_MAX: usize = 32;
const VOLUMES_MAX: usize = 4096;
const EVENTS_MAX: usize = 256;
const REASON_CHARS_MAX: usize = 200;

/// A node, its disks, for each of them an event that pushes an older one out of the ring, and the ring's tail.
const OPS_MAX: usize = 1 + DISKS_MAX + 2 * (DISKS_MAX + 2) + 1;
const _: () = assert!(OPS_MAX <= TRANSACTION_OPS_MAX);

/// A heartbeat that was checked.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) node: NodeName,
    zone: Option<ZoneName>,
    daemon: DaemonReport,
    events: Vec<Event>,
}

#[derive(Debug)]
pub(crate) enum DaemonReport {
    Chunkserver { data: String, rpc: String, disks: Vec<ReportedDisk> },
    Datapath { rpc: String, volumes: BTreeMap<VolumeId, control::AttachedVolume> },
}

#[derive(Debug)]
pub(crate) struct ReportedDisk {
    id: DiskId,
    path: String,
    capacity_bytes: u64,
    free: ByteCount,
    /// Why it refuses writes, if it does.
    failure: Option<String>,
    told: Told,
}

/// Why a disk that a chunkserver reports is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Removed,
    /// Two disks have one identity: one is a copy of the other, and this node was there first.
    IsOf(NodeName),
    /// The report names it twice.
    Twice,
}

impl Refused {
    pub(super) fn text(&self, disk: DiskId, node: &NodeName) -> String {
        let (what, way_out) = match self {
            Refused::Removed => ("was removed".to_owned(), "take it out, or format it anew"),
            Refused::IsOf(owner) => (
                format!("is one of node {owner} already"),
                "one is a copy of the other: take it out, or format it anew",
            ),
            Refused::Twice => ("is there twice".to_owned(), "one is a copy of the other: take one out"),
        };
        format!("node {node} reports disk {disk}, which {what}: it is not used; {way_out}")
    }
}

/// What a heartbeat changes.
struct News {
    node: Node,
    disks: Vec<(Disk, ByteCount, Told)>,
    refused: BTreeMap<(NodeName, DiskId), Refused>,
    /// Whether the catalog must learn of it.
    durable: bool,
    events: Vec<Event>,
}

impl Report {
    pub(crate) fn check(request: control::HeartbeatRequest) -> Result<Report> {
        let node: NodeName = request.node.parse().map_err(|error| Error::invalid(format!("node: {error}")))?;
        let zone = match request.zone.as_str() {
            "" => None,
            zone => Some(zone.parse().map_err(|error| Error::invalid(format!("zone: {error}")))?),
        };
        // News that does not fit must not make the daemon look silent: the newest are taken.
        let left_out = request.events.len().saturating_sub(EVENTS_MAX);
        if left_out > 0 {
            tracing::warn!(%node, left_out, "events of a report left out");
        }
        let events = request.events.into_iter().skip(left_out).map(|event| checked_event(event, &node)).collect();
        let daemon = match request.daemon.ok_or_else(|| Error::invalid("daemon is missing"))? {
            heartbeat_request::Daemon::Chunkserver(beat) => {
                bounded("disks", beat.disks.len(), DISKS_MAX)?;
                DaemonReport::Chunkserver {
                    data: checked_address("data_address", beat.data_address)?,
                    rpc: checked_address("rpc_address", beat.rpc_address)?,
                    disks: beat.disks.into_iter().map(checked_disk).collect::<Result<_>>()?,
                }
            }
            heartbeat_request::Daemon::Datapath(beat) => {
                bounded("volumes", beat.volumes.len(), VOLUMES_MAX)?;
                DaemonReport::Datapath {
                    rpc: checked_address("rpc_address", beat.rpc_address)?,
                    volumes: beat.volumes.into_iter().map(checked_attached).collect::<Result<_>>()?,
                }
            }
        };
        Ok(Report { node, zone, daemon, events })
    }

    /// By which settings the datapath serves each of its volumes.
    pub(crate) fn settings_versions(&self) -> BTreeMap<VolumeId, u64> {
        match &self.daemon {
            DaemonReport::Chunkserver { .. } => BTreeMap::new(),
            DaemonReport::Datapath { volumes, .. } => {
                volumes.iter().map(|(&id, attached)| (id, attached.settings_version)).collect()
            }
        }
    }

    /// Of which record the writer of each of the datapath's volumes knows.
    pub(crate) fn record_versions(&self) -> BTreeMap<VolumeId, u64> {
        match &self.daemon {
            DaemonReport::Chunkserver { .. } => BTreeMap::new(),
            DaemonReport::Datapath { volumes, .. } => {
                volumes.iter().map(|(&id, attached)| (id, attached.record_version)).collect()
            }
        }
    }

    fn daemon(&self) -> Daemon {
        match self.daemon {
            DaemonReport::Chunkserver { .. } => Daemon::Chunkserver,
            DaemonReport::Datapath { .. } => Daemon::Datapath,
        }
    }
}

impl Registry {
    /// Takes a heartbeat in; true if it came from a chunkserver that was not alive before.
    pub(crate) async fn report(&self, catalog: &Catalog, report: Report) -> Result<bool> {
        let mut state = self.state.lock().await;
        let mut news = state.news(&report, self.bad_blocks_max);
        if news.durable {
            let disks: Vec<Disk> = news.disks.iter().map(|(disk, ..)| disk.clone()).collect();
            catalog.register(&news.node, &disks, std::mem::take(&mut news.events)).await?;
        }
        news.events.extend(report.events.iter().cloned());
        catalog.append_events(std::mem::take(&mut news.events)).await?;
        let back = state.believe(report, news, Instant::now(), wall_clock_ms());
        drop(state);
        self.reported.notify_one();
        Ok(back)
    }
}

impl State {
    fn news(&self, report: &Report, bad_blocks_max: u64) -> News {
        let known = self.nodes.get(&report.node);
        let mut node = match known {
            Some(known) => known.node.clone(),
            None => Node {
                name: report.node.clone(),
                zone: None,
                datapath_rpc: String::new(),
                chunkserver_rpc: String::new(),
                chunkserver_data: String::new(),
                is_draining: false,
            },
        };
        // Where the disks are counts; a datapath only fills the gap.
        if report.daemon() == Daemon::Chunkserver || node.zone.is_none() {
            node.zone.clone_from(&report.zone);
        }
        let (disks, refused, events) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut news = News { node: node.clone(), disks, refused, durable: false, events };
        let now_ms = wall_clock_ms();
        if known.is_none() {
            let text = format!("node {} reports for the first time", report.node);
            news.events.push(Event::new(now_ms, "node-new", text).of_node(&report.node));
        }
        let silent = known.is_some_and(|known| match report.daemon() {
            Daemon::Chunkserver => matches!(known.chunkserver, Liveness::Silent { .. }),
            Daemon::Datapath => matches!(known.datapath, Liveness::Silent { .. }),
        });
        if silent {
            let text = format!("{} of node {} is back", report.daemon().name(), report.node);
            news.events.push(Event::new(now_ms, "back", text).of_node(&report.node));
        }
        match &report.daemon {
            DaemonReport::Chunkserver { data, rpc, disks } => {
                (node.chunkserver_data, node.chunkserver_rpc) = (data.clone(), rpc.clone());
                disks.iter().for_each(|disk| self.news_of_disk(report, disk, bad_blocks_max, &mut news));
                self.news_of_missing(report, disks, &mut news);
            }
            DaemonReport::Datapath { rpc, .. } => node.datapath_rpc = rpc.clone(),
        }
        news.durable |= known.is_none_or(|known| known.node != node);
        news.node = node;
        news
    }

    fn news_of_missing(&self, report: &Report, disks: &[ReportedDisk], news: &mut News) {
        let own = self.disks.values().filter(|entry| entry.disk.node == report.node && entry.free.is_some());
        for entry in own.filter(|entry| disks.iter().all(|disk| disk.id != entry.disk.id)) {
            let text = format!("disk {} is no longer reported by node {}", entry.disk.id, report.node);
            let event = Event::new(wall_clock_ms(), "disk-missing", text);
            news.events.push(event.of_disk(entry.disk.id).of_node(&report.node));
        }
    }

    /// Why the disk is not used. One that its owner no longer names may have been carried here, and so may one whose
    /// owner is silent; but not where both were there at one time: then it is a copy, maybe an old one.
    fn refusal(&self, report: &Report, disk: DiskId, news: &News) -> Option<Refused> {
        if self.removed.contains(&disk) {
            return Some(Refused::Removed);
        }
        if news.disks.iter().any(|(other, ..)| other.id == disk) {
            return Some(Refused::Twice);
        }
        let entry = self.disks.get(&disk).filter(|known| known.disk.node != report.node)?;
        let node = &entry.disk.node;
        let owner = self.nodes.get(node)?;
        let is_of = Refused::IsOf(node.clone());
        let has_it = match owner.chunkserver.is_alive() {
            true => entry.free.is_some() || owner.chunkserver.is_awaited(),
            false => self.refused.get(&(report.node.clone(), disk)) == Some(&is_of),
        };
        has_it.then_some(is_of)
    }

    fn news_of_disk(&self, report: &Report, disk: &ReportedDisk, bad_blocks_max: u64, news: &mut News) {
        if let Some(why) = self.refusal(report, disk.id, news) {
            let key = (report.node.clone(), disk.id);
            if self.refused.get(&key) != Some(&why) && !news.refused.contains_key(&key) {
                let text = why.text(disk.id, &report.node);
                tracing::error!(disk = %disk.id, node = %report.node, ?why, "disk is not used");
                let event = Event::new(wall_clock_ms(), "disk-refused", text);
                news.events.push(event.of_disk(disk.id).of_node(&report.node));
            }
            news.refused.insert(key, why);
            return;
        }
        let known = self.disks.get(&disk.id);
        let kept = known.map(|known| &known.disk);
        let fate = match (&disk.failure, kept.map(|kept| &kept.fate)) {
            // The first reason counts, and a disk declared lost that fails stays lost.
            (Some(_), Some(fate @ (DiskFate::Failed { .. } | DiskFate::Lost))) => fate.clone(),
            (Some(reason), _) => DiskFate::Failed { reason: reason.clone() },
            (None, _) => DiskFate::Usable,
        };
        let mut next = Disk {
            id: disk.id,
            node: report.node.clone(),
            path: disk.path.clone(),
            capacity_bytes: disk.capacity_bytes,
            fate,
            is_draining: kept.is_some_and(|kept| kept.is_draining),
            judged_blocks: kept.map_or(0, |kept| kept.judged_blocks),
            judged_failing: kept.is_some_and(|kept| kept.judged_failing),
        };
        news.events.extend(judge(&mut next, disk.told.scrub.as_ref(), bad_blocks_max));
        news.events.extend(judge_device(&mut next, disk.told.smart.as_ref(), bad_blocks_max));
        if kept != Some(&next) {
            news.durable = true;
            news.events.extend(disk_event(kept, &next));
        }
        news.disks.push((next, disk.free, disk.told.clone()));
    }

    fn believe(&mut self, report: Report, news: News, now: Instant, now_ms: u64) -> bool {
        // A report names all disks of its chunkserver. One that it no longer has is silent.
        if report.daemon() == Daemon::Chunkserver {
            let own = self.disks.values_mut().filter(|entry| entry.disk.node == report.node);
            own.for_each(|entry| entry.free = None);
            self.refused.retain(|(node, _), _| *node != report.node);
            self.refused.extend(news.refused);
        }
        for (disk, free, told) in news.disks {
            self.disks.insert(disk.id, DiskState { disk, free: Some(free), told });
        }
        let daemon = report.daemon();
        let fresh = || NodeState {
            node: news.node.clone(),
            chunkserver: Liveness::Unknown,
            datapath: Liveness::Unknown,
            attached: BTreeMap::new(),
        };
        let known = self.nodes.entry(report.node).or_insert_with(fresh);
        known.node = news.node;
        if let DaemonReport::Datapath { volumes, .. } = report.daemon {
            known.attached = volumes;
        }
        let before = std::mem::replace(known.liveness(daemon), Liveness::Alive { since: now, heard_ms: now_ms });
        daemon == Daemon::Chunkserver && before.heard_ms() == 0 || matches!(before, Liveness::Silent { .. })
    }
}

/// Has a disk drained of which too many blocks went bad.
fn judge(disk: &mut Disk, scrub: Option<&control::DiskScrub>, bad_blocks_max: u64) -> Option<Event> {
    let scrub = scrub?;
    let bad = BadBlocks { ever: scrub.found_blocks, lately: scrub.found_lately_blocks };
    if disk.is_draining || disk.fate != DiskFate::Usable || !wears_out(bad, disk.judged_blocks, bad_blocks_max) {
        return None;
    }
    let (id, lately) = (disk.id, unjudged(bad, disk.judged_blocks));
    (disk.is_draining, disk.judged_blocks) = (true, bad.ever);
    let text = format!(
        "disk {id} is being drained: {lately} of its blocks went bad in two rounds of scrub, {bad_blocks_max} may; \
         replace it, or take it back with `ashlar disk undrain`"
    );
    tracing::warn!(disk = %id, lately, "disk is drained because its blocks go bad");
    Some(Event::new(wall_clock_ms(), "disk-wears-out", text).of_disk(id).of_node(&disk.node))
}

/// Has a disk drained whose device says that it is about to fail.
fn judge_device(disk: &mut Disk, smart: Option<&control::DiskSmart>, bad_blocks_max: u64) -> Option<Event> {
    let smart = smart.filter(|smart| smart.none.is_empty())?;
    disk.judged_failing &= smart.failing;
    let is_judged = disk.judged_failing || disk.is_draining || disk.fate != DiskFate::Usable;
    if !gives_notice(smart.failing, is_judged, bad_blocks_max) {
        return None;
    }
    (disk.is_draining, disk.judged_failing) = (true, true);
    let (id, device) = (disk.id, &smart.device);
    let text = format!(
        "disk {id} is being drained: its device {device} says that it is about to fail (SMART); replace it, or take it \
         back with `ashlar disk undrain`"
    );
    tracing::warn!(disk = %disk.id, device, "disk is drained because its device says that it is about to fail");
    Some(Event::new(wall_clock_ms(), "disk-failing", text).of_disk(id).of_node(&disk.node))
}

fn disk_event(kept: Option<&Disk>, next: &Disk) -> Option<Event> {
    let (kind, text) = match (kept.map(|kept| &kept.fate), &next.fate) {
        (None, _) => ("disk-new", format!("disk {} reports for the first time", next.id)),
        (Some(DiskFate::Usable), DiskFate::Failed { reason }) => {
            ("disk-failed", format!("disk {} failed: {reason}", next.id))
        }
        (Some(DiskFate::Lost), DiskFate::Usable) => ("disk-back", format!("disk {}, declared lost, is back", next.id)),
        (Some(DiskFate::Failed { .. }), DiskFate::Usable) => ("disk-back", format!("disk {} is in use again", next.id)),
        _ => return None,
    };
    Some(Event::new(wall_clock_ms(), kind, text).of_disk(next.id).of_node(&next.node))
}

fn bounded(what: &str, count: usize, max: usize) -> Result<()> {
    if count <= max {
        Ok(())
    } else {
        Err(Error::invalid(format!("{count} {what}, at most {max} are allowed in one report")))
    }
}

fn checked_address(field: &str, text: String) -> Result<String> {
    let bare = text.strip_prefix("http://").unwrap_or(&text);
    match bare.parse::<SocketAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(Error::invalid(format!("{field} {:?} is not an address with a port", shortened(&text)))),
    }
}

fn checked_disk(disk: control::Disk) -> Result<ReportedDisk> {
    let failure = match disk.state() {
        control::DiskState::Failed => Some(shortened(&disk.failure)),
        _ => None,
    };
    Ok(ReportedDisk {
        id: disk.id.parse().map_err(|error| Error::invalid(format!("disk: {error}")))?,
        path: shortened(&disk.path),
        capacity_bytes: disk.capacity_bytes,
        free: ByteCount(disk.free_bytes),
        failure,
        told: Told { scrub: disk.scrub, smart: disk.smart.map(checked_smart) },
    })
}

fn checked_smart(smart: control::DiskSmart) -> control::DiskSmart {
    control::DiskSmart { none: shortened(&smart.none), device: shortened(&smart.device), ..smart }
}

fn checked_attached(volume: control::AttachedVolume) -> Result<(VolumeId, control::AttachedVolume)> {
    let id = volume.volume.parse().map_err(|error| Error::invalid(format!("volume: {error}")))?;
    Ok((id, volume))
}

/// An event from a daemon. What does not parse is left out of it: an event is news for people, not a command.
fn checked_event(event: control::Event, node: &NodeName) -> Event {
    let checked = Event::new(event.time_ms, &shortened(&event.kind), event.text);
    let checked = event.figures.iter().fold(checked, |checked, (name, value)| checked.figure(name, value));
    Event {
        volume: event.volume.parse().ok(),
        disk: event.disk.parse().ok(),
        node: event.node.parse().ok().or_else(|| Some(node.clone())),
        ..checked
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}
