//! The registry in memory: which daemons are alive, what they last reported, and where they listen. What must outlive
//! a restart (nodes, addresses, disks and their fate) is kept in the catalog before it is believed here.
//!
//! A daemon is alive while its last report is younger than three intervals. After a restart of the control plane every
//! daemon gets that long to report before it is called silent.
//!
//! ```text
//!            report              no report for 3 intervals
//!  expected ───────► alive ───────────────────────────────► silent
//!      └───────────────┴◄───────────── report ────────────────┘
//! ```

mod report;

use crate::error::{Error, Result};
use ashlar_catalog::{Catalog, CatalogError, Claims, Disk, DiskFate, Event, Node, StoredVolume, Volume};
use ashlar_rpc::control::{AttachedVolume, DiskScrub, DiskSmart};
use ashlar_types::{ByteCount, DiskId, NodeName, VolumeId, VolumeRecord, ZoneName};
use report::Refused;
pub(crate) use report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// Reports that may be missed before a daemon is silent.
const MISSED_MAX: u32 = 3;

#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    interval: Duration,
    /// A disk of which more blocks went bad lately is drained; 0: none is.
    bad_blocks_max: u64,
    /// A daemon reported that was not expected to: the next silence may be due earlier.
    reported: Notify,
    /// Daemons fell silent.
    pub(crate) silenced: Notify,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<NodeName, NodeState>,
    disks: BTreeMap<DiskId, DiskState>,
    removed: BTreeSet<DiskId>,
    /// Disks that chunkservers report and that are not used, as of their last reports.
    refused: BTreeMap<(NodeName, DiskId), Refused>,
}

#[derive(Debug)]
struct NodeState {
    node: Node,
    chunkserver: Liveness,
    datapath: Liveness,
    attached: BTreeMap<VolumeId, AttachedVolume>,
}

#[derive(Debug)]
struct DiskState {
    disk: Disk,
    /// As last reported, since this process started, by a chunkserver that still has it.
    free: Option<ByteCount>,
    told: Told,
}

/// What a disk's chunkserver tells of it, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) scrub: Option<DiskScrub>,
    pub(crate) smart: Option<DiskSmart>,
}

/// One daemon of a node.
#[derive(Clone, Copy, Debug)]
enum Liveness {
    /// There is no such daemon, as far as is known.
    Unknown,
    /// Last heard of at this instant (or expected since), on the clock of people, 0 if never.
    Alive {
        since: Instant,
        heard_ms: u64,
    },
    Silent {
        heard_ms: u64,
    },
}

/// Which of a node's daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    Chunkserver,
    Datapath,
}

/// A node, for answers.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) node: Node,
    pub(crate) chunkserver_alive: bool,
    pub(crate) datapath_alive: bool,
    pub(crate) heard_ms: u64,
    pub(crate) disk_count: usize,
    pub(crate) attached_count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DiskHealth {
    Online,
    Silent,
    Failed,
    Lost,
}

/// A disk, for answers and for placement.
#[derive(Clone, Debug)]
pub(crate) struct DiskView {
    pub(crate) disk: Disk,
    pub(crate) zone: Option<ZoneName>,
    pub(crate) health: DiskHealth,
    pub(crate) free: ByteCount,
    pub(crate) data_address: String,
    pub(crate) chunkserver_rpc: String,
    pub(crate) heard_ms: u64,
    pub(crate) told: Told,
}

/// Data addresses of the disks of one record.
#[derive(Debug)]
pub(crate) struct Addresses(BTreeMap<DiskId, String>);

impl Addresses {
    /// Empty if the disk was never heard of.
    pub(crate) fn of(&self, disk: DiskId) -> String {
        self.0.get(&disk).cloned().unwrap_or_default()
    }
}

impl Registry {
    /// Everyone that the catalog knows of is expected to report.
    pub(crate) async fn load(catalog: &Catalog, interval: Duration) -> Result<Registry> {
        let since = Instant::now();
        let expected = |address: &str| match address.is_empty() {
            true => Liveness::Unknown,
            false => Liveness::Alive { since, heard_ms: 0 },
        };
        let mut state = State::default();
        for node in catalog.nodes().await? {
            let (chunkserver, datapath) = (expected(&node.chunkserver_rpc), expected(&node.datapath_rpc));
            let name = node.name.clone();
            state.nodes.insert(name, NodeState { node, chunkserver, datapath, attached: BTreeMap::new() });
        }
        for disk in catalog.disks().await? {
            state.disks.insert(disk.id, DiskState { disk, free: None, told: Told::default() });
        }
        state.removed = catalog.removed_disks().await?.into_iter().map(|removed| removed.id).collect();
        let (reported, silenced) = (Notify::new(), Notify::new());
        Ok(Registry { state: Mutex::new(state), interval, bad_blocks_max: 0, reported, silenced })
    }

    pub(crate) fn drain_beyond(&mut self, bad_blocks_max: u64) {
        self.bad_blocks_max = bad_blocks_max;
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    fn silent_after(&self) -> Duration {
        self.interval * MISSED_MAX
    }

    pub(crate) async fn nodes(&self) -> Vec<NodeView> {
        let state = self.state.lock().await;
        let view = |known: &NodeState| NodeView {
            chunkserver_alive: known.chunkserver.is_alive(),
            datapath_alive: known.datapath.is_alive(),
            heard_ms: known.chunkserver.heard_ms().max(known.datapath.heard_ms()),
            disk_count: state.disks.values().filter(|entry| entry.disk.node == known.node.name).count(),
            attached_count: known.attached.len(),
            node: known.node.clone(),
        };
        state.nodes.values().map(view).collect()
    }

    pub(crate) async fn disks(&self) -> Vec<DiskView> {
        let state = self.state.lock().await;
        state.disks.values().filter_map(|entry| state.disk_view(entry)).collect()
    }

    pub(crate) async fn knows_node(&self, node: &NodeName) -> bool {
        self.state.lock().await.nodes.contains_key(node)
    }

    /// gRPC address of the node's datapath, and whether it is alive.
    pub(crate) async fn datapath(&self, node: &NodeName) -> Option<(String, bool)> {
        let state = self.state.lock().await;
        let known = state.nodes.get(node)?;
        Some((known.node.datapath_rpc.clone(), known.datapath.is_alive()))
    }

    /// What the holder's datapath last said of the volume.
    pub(crate) async fn attached(&self, volume: VolumeId, holder: Option<&NodeName>) -> Option<AttachedVolume> {
        let state = self.state.lock().await;
        let known = state.nodes.get(holder?)?;
        known.datapath.is_alive().then(|| known.attached.get(&volume).cloned())?
    }

    pub(crate) async fn addresses(&self, record: &VolumeRecord) -> Addresses {
        let state = self.state.lock().await;
        let of = |disk: DiskId| Some((disk, state.disk_view(state.disks.get(&disk)?)?.data_address));
        Addresses(record.members.iter().filter_map(|member| of(member.disk)).collect())
    }

    /// What may be promised on a disk that a volume has already. `None`: the disk is failed or lost, and what it holds
    /// will be elsewhere. A silent one comes back: its capacity is known.
    pub(crate) async fn room(&self, disk: DiskId, claims: &Claims) -> Option<ByteCount> {
        let state = self.state.lock().await;
        let view = state.disk_view(state.disks.get(&disk)?)?;
        match view.health {
            DiskHealth::Online => Some(view.unclaimed(claims).min(view.free)),
            DiskHealth::Silent => Some(view.unclaimed(claims)),
            DiskHealth::Failed | DiskHealth::Lost => None,
        }
    }

    /// A disk that still works is not lost: its chunkserver would go on acknowledging writes.
    pub(crate) async fn check_may_be_lost(&self, disk: DiskId) -> Result<()> {
        let state = self.state.lock().await;
        let entry = state.disks.get(&disk).ok_or_else(|| Error::not_found(format_args!("disk {disk}")))?;
        let is_awaited = state.nodes.get(&entry.disk.node).is_some_and(|known| known.chunkserver.is_awaited());
        match state.disk_view(entry).map(|view| view.health) {
            Some(DiskHealth::Online) => Err(Error::precondition(format!(
                "disk {disk} is online: stop its chunkserver before it is declared lost"
            ))),
            Some(DiskHealth::Silent) if is_awaited => Err(Error::precondition(format!(
                "the control plane has just started, and the chunkserver of disk {disk} has time to report: try again"
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) async fn mark_lost(&self, catalog: &Catalog, disk: DiskId) -> Result<()> {
        let mut state = self.state.lock().await;
        let entry = state.disks.get_mut(&disk).ok_or_else(|| Error::not_found(format_args!("disk {disk}")))?;
        if entry.disk.fate != DiskFate::Lost {
            let lost = Disk { fate: DiskFate::Lost, ..entry.disk.clone() };
            let event =
                Event::new(super::wall_clock_ms(), "disk-lost", format!("disk {disk} declared lost")).of_disk(disk);
            catalog.put_disk(&lost, vec![event.of_node(&lost.node)]).await?;
            entry.disk = lost;
        }
        Ok(())
    }

    pub(crate) async fn is_removed(&self, disk: DiskId) -> bool {
        self.state.lock().await.removed.contains(&disk)
    }

    /// Kept before it is believed. What it holds was judged by the caller; see [`Catalog::remove_disk`].
    pub(crate) async fn remove_disk(
        &self,
        catalog: &Catalog,
        disk: DiskId,
        claims: &Claims,
        given_up: &[(StoredVolume, Volume)],
        events: Vec<Event>,
    ) -> std::result::Result<(), CatalogError> {
        let mut state = self.state.lock().await;
        // Another call came first.
        let Some(entry) = state.disks.get(&disk) else { return Ok(()) };
        catalog.remove_disk(&entry.disk, super::wall_clock_ms(), claims, given_up, events).await?;
        state.disks.remove(&disk);
        state.removed.insert(disk);
        Ok(())
    }

    /// Disks that are reported and not used, and why.
    pub(crate) async fn refused(&self) -> Vec<String> {
        let state = self.state.lock().await;
        state.refused.iter().map(|((node, disk), why)| why.text(*disk, node)).collect()
    }

    /// Whether every replica of the node's disks is to be elsewhere.
    pub(crate) async fn drain_node(&self, catalog: &Catalog, name: &NodeName, drain: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let known = state.nodes.get_mut(name).ok_or_else(|| Error::not_found(format_args!("node {name}")))?;
        if known.node.is_draining == drain {
            return Ok(());
        }
        let next = Node { is_draining: drain, ..known.node.clone() };
        let event = drain_event(drain, &format!("node {name}")).of_node(name);
        catalog.register(&next, &[], vec![event]).await?;
        known.node = next;
        Ok(())
    }

    pub(crate) async fn drain_disk(&self, catalog: &Catalog, disk: DiskId, drain: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let entry = state.disks.get_mut(&disk).ok_or_else(|| Error::not_found(format_args!("disk {disk}")))?;
        if entry.disk.is_draining == drain {
            return Ok(());
        }
        let next = Disk { is_draining: drain, ..entry.disk.clone() };
        let event = drain_event(drain, &format!("disk {disk}")).of_disk(disk).of_node(&next.node);
        catalog.put_disk(&next, vec![event]).await?;
        entry.disk = next;
        Ok(())
    }

    /// Tells of daemons that fall silent, for ever. Sleeps until the next one would.
    pub(crate) async fn watch_silence(&self, catalog: &Catalog) {
        loop {
            let next = self.end_silent(catalog, Instant::now()).await;
            let reported = self.reported.notified();
            match next {
                Some(due) => tokio::select! { () = tokio::time::sleep_until(due) => {}, () = reported => {} },
                None => reported.await,
            }
        }
    }

    /// Marks who has been silent for too long; returns when the next one will have been.
    pub(crate) async fn end_silent(&self, catalog: &Catalog, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock().await;
        let mut events = Vec::new();
        let mut next: Option<Instant> = None;
        for known in state.nodes.values_mut() {
            for daemon in [Daemon::Chunkserver, Daemon::Datapath] {
                let Liveness::Alive { since, heard_ms } = *known.liveness(daemon) else { continue };
                let due = since + self.silent_after();
                if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                *known.liveness(daemon) = Liveness::Silent { heard_ms };
                let text = format!("{} of node {} is silent", daemon.name(), known.node.name);
                tracing::warn!(node = %known.node.name, daemon = daemon.name(), "silent");
                events.push(Event::new(super::wall_clock_ms(), "silent", text).of_node(&known.node.name));
            }
        }
        drop(state);
        if !events.is_empty() {
            self.silenced.notify_one();
        }
        if let Err(error) = catalog.append_events(events).await {
            tracing::error!(%error, "keep events of silent daemons");
        }
        next
    }
}

fn drain_event(drain: bool, what: &str) -> Event {
    let (kind, text) = match drain {
        true => ("drain-begun", format!("{what} is being drained: its replicas go elsewhere")),
        false => ("drain-ended", format!("{what} takes replicas again")),
    };
    Event::new(super::wall_clock_ms(), kind, text)
}

impl State {
    fn disk_view(&self, entry: &DiskState) -> Option<DiskView> {
        let known = self.nodes.get(&entry.disk.node)?;
        let health = match (&entry.disk.fate, entry.free) {
            (DiskFate::Lost, _) => DiskHealth::Lost,
            (DiskFate::Failed { .. }, _) => DiskHealth::Failed,
            (DiskFate::Usable, Some(_)) if known.chunkserver.is_alive() => DiskHealth::Online,
            (DiskFate::Usable, _) => DiskHealth::Silent,
        };
        Some(DiskView {
            disk: entry.disk.clone(),
            zone: known.node.zone.clone(),
            health,
            free: entry.free.unwrap_or_default(),
            data_address: known.node.chunkserver_data.clone(),
            chunkserver_rpc: known.node.chunkserver_rpc.clone(),
            heard_ms: known.chunkserver.heard_ms(),
            told: entry.told.clone(),
        })
    }
}

impl DiskView {
    fn unclaimed(&self, claims: &Claims) -> ByteCount {
        ByteCount(self.disk.capacity_bytes.saturating_sub(claims.of(self.disk.id).0))
    }
}

impl NodeState {
    fn liveness(&mut self, daemon: Daemon) -> &mut Liveness {
        match daemon {
            Daemon::Chunkserver => &mut self.chunkserver,
            Daemon::Datapath => &mut self.datapath,
        }
    }
}

impl Liveness {
    fn is_alive(self) -> bool {
        matches!(self, Liveness::Alive { .. })
    }

    /// Expected to report, and not heard of yet.
    fn is_awaited(self) -> bool {
        matches!(self, Liveness::Alive { heard_ms: 0, .. })
    }

    fn heard_ms(self) -> u64 {
        match self {
            Liveness::Unknown => 0,
            Liveness::Alive { heard_ms, .. } | Liveness::Silent { heard_ms } => heard_ms,
        }
    }
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Daemon::Chunkserver => "chunkserver",
            Daemon::Datapath => "datapath",
        }
    }
}

#[cfg(test)]
mod tests;
