//! What is seen from outside while replicas are made: which volumes are whole, how much was copied, what is told of
//! the end.

use super::{ClassTimes, guests::Load};
use crate::{DevCluster, holders, in_sync};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{Class, EventsRequest, ListVolumesRequest, Volume, cluster_client::ClusterClient};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(100);
const REPLICAS: usize = 3;
/// More than a story has.
const EVENTS_MAX: u32 = 10_000;

/// One volume, since the loss.
struct Seen {
    class: Class,
    copied_blocks: BTreeMap<String, u64>,
    whole_first: Option<Instant>,
    whole_since: Option<Instant>,
    /// When it was told to be whole, and when it was told.
    told: Option<(Instant, Instant)>,
}

pub(super) struct Watch<'a> {
    cluster: &'a DevCluster,
    client: ClusterClient<Channel>,
    volumes: BTreeMap<String, Seen>,
    lost_nodes: Vec<&'static str>,
    pub(super) lost_bytes: u64,
    first_lost_bytes: u64,
    second_loss: Option<Instant>,
    pub(super) left_with_one: usize,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        cluster: &'a DevCluster,
        client: ClusterClient<Channel>,
        classes: BTreeMap<String, Class>,
    ) -> Watch<'a> {
        let seen =
            |class| Seen { class, copied_blocks: BTreeMap::new(), whole_first: None, whole_since: None, told: None };
        Watch {
            cluster,
            client,
            volumes: classes.into_iter().map(|(id, class)| (id, seen(class))).collect(),
            lost_nodes: vec![],
            lost_bytes: 0,
            first_lost_bytes: 0,
            second_loss: None,
            left_with_one: 0,
        }
    }

    /// Just before a node's chunkserver is killed.
    pub(super) fn lose(&mut self, node: &'static str) -> Result<()> {
        let volumes = self.list()?;
        let held: Vec<&Volume> =
            volumes.iter().filter(|volume| holders(volume).iter().any(|(holder, _)| holder == node)).collect();
        self.lost_bytes += held.iter().map(|volume| volume.size_bytes).sum::<u64>();
        if self.lost_nodes.is_empty() {
            ensure!(held.len() == volumes.len(), "{} of {} volumes are on {node}", held.len(), volumes.len());
            self.first_lost_bytes = self.lost_bytes;
        } else {
            self.second_loss = Some(Instant::now());
            self.left_with_one = held.iter().filter(|volume| in_sync(volume) == 2).count();
        }
        self.lost_nodes.push(node);
        Ok(())
    }

    pub(super) fn until_given_up(&mut self, load: &Load) -> Result<()> {
        let lost = self.lost_nodes.clone();
        self.until(load, "the node to be given up", |_, volumes| {
            volumes.iter().all(|volume| holders(volume).iter().all(|(node, _)| !lost.contains(&node.as_str())))
        })
    }

    pub(super) fn until_copied(&mut self, load: &Load, percent: u64) -> Result<()> {
        self.until(load, "some of it to be copied", |watch, _| watch.copied_percent() >= percent)
    }

    pub(super) fn until_whole(&mut self, load: &Load) -> Result<()> {
        self.until(load, "every volume to be whole", |watch, _| {
            watch.volumes.values().all(|seen| seen.whole_since.is_some())
        })
    }

    fn until(&mut self, load: &Load, what: &str, ready: impl Fn(&Watch, &[Volume]) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let volumes = self.list()?;
            self.look(&volumes)?;
            if ready(self, &volumes) {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
            load.check()?;
            std::thread::park_timeout(LOOK);
        }
    }

    fn list(&mut self) -> Result<Vec<Volume>> {
        let listed = self.cluster.block_on(self.client.list_volumes(ListVolumesRequest::default()));
        Ok(listed.context("ListVolumes")?.into_inner().volumes)
    }

    fn look(&mut self, volumes: &[Volume]) -> Result<()> {
        let now = Instant::now();
        for volume in volumes {
            let is_whole = in_sync(volume) == REPLICAS
                && holders(volume).iter().all(|(node, _)| !self.lost_nodes.contains(&node.as_str()));
            let seen = self.volumes.get_mut(&volume.id).context("a volume that nobody made")?;
            seen.whole_since = is_whole.then(|| seen.whole_since.unwrap_or(now));
            seen.whole_first = seen.whole_first.or(seen.whole_since);
            for member in volume.attached.iter().flat_map(|attached| &attached.members) {
                let copied = seen.copied_blocks.entry(member.disk.clone()).or_default();
                *copied = (*copied).max(member.resync_blocks_copied);
            }
        }
        if self.copied_percent() >= 10 && self.volumes.values().all(|seen| seen.told.is_none()) {
            for volume in volumes {
                let seen = self.volumes.get_mut(&volume.id).context("a volume that nobody made")?;
                let told = volume.forecast.and_then(|forecast| forecast.protected_in_ms);
                seen.told = told.map(|told| (now + Duration::from_millis(told), now));
            }
        }
        Ok(())
    }

    /// Of what the first loss took.
    fn copied_percent(&self) -> u64 {
        let blocks: u64 = self.volumes.values().flat_map(|seen| seen.copied_blocks.values()).sum();
        (blocks * ashlar_types::BLOCK_BYTES * 100).checked_div(self.first_lost_bytes).unwrap_or(0)
    }

    pub(super) fn times(&self, class: Class, name: &'static str, from: Instant) -> ClassTimes {
        let of_class: Vec<&Seen> = self.volumes.values().filter(|seen| seen.class == class).collect();
        let latest = |times: Vec<Option<Instant>>| {
            times.into_iter().flatten().max().map_or(Duration::ZERO, |time| time.saturating_duration_since(from))
        };
        ClassTimes {
            name,
            volumes: of_class.len(),
            whole_after: latest(of_class.iter().map(|seen| seen.whole_first).collect()),
            whole_for_good_after: latest(of_class.iter().map(|seen| seen.whole_since).collect()),
        }
    }

    pub(super) fn estimates(&self) -> Vec<f64> {
        let estimate = |seen: &Seen| {
            let ((told, asked), whole) = (seen.told?, seen.whole_first?);
            let counts = self.second_loss.is_none_or(|loss| whole < loss);
            counts.then(|| (told - asked).as_secs_f64() / whole.saturating_duration_since(asked).as_secs_f64())
        };
        self.volumes.values().filter_map(estimate).collect()
    }

    pub(super) fn copied_bytes_by_events(&mut self) -> Result<u64> {
        let request = EventsRequest { volume: String::new(), max_entries: EVENTS_MAX, follow: false };
        let mut blocks = 0;
        self.cluster.block_on(async {
            let mut events = self.client.events(request).await.context("Events")?.into_inner();
            while let Some(event) = events.message().await.context("read an event")? {
                if let Some(copied) = event.figures.get("copied_blocks") {
                    blocks += copied.parse::<u64>().context("copied_blocks")?;
                }
            }
            anyhow::Ok(())
        })?;
        Ok(blocks * ashlar_types::BLOCK_BYTES)
    }
}
