//! A node is lost: what the demo of self-healing and its bench play. Six nodes, twelve volumes of the four classes with
//! a replica on the last node each, all written to by a guest, the last node's chunkserver killed for good; and, where
//! it is asked for, the next one while the first is being made up for.
//!
//! The control plane hears of all twelve in the same moment, so "first come" is the order of their ids; which class
//! each has is shuffled by the seed over that order. So the same seed gives every order of repair the same queue.

mod guests;
mod watch;

use crate::{Clock, Compared, DevCluster, nbd_socket};
use anyhow::{Context, Result, ensure};
use ashlar_rpc::control::{Class, CreateVolumeRequest, ModifyVolumeRequest, cluster_client::ClusterClient};
use guests::{Guest, percentile, under_load};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use watch::Watch;

const NODES: u16 = 6;
/// Where every volume has a replica, and nobody uses it.
const LOST: &str = "n6";
const LOST_NEXT: &str = "n5";
const CLASSES: [(Class, &str); 4] =
    [(Class::Critical, "critical"), (Class::High, "high"), (Class::Normal, "normal"), (Class::Low, "low")];
const PER_CLASS: usize = 3;
const JOURNAL_SIZE: &str = "128M";
const GRACE_MS: &str = "1000";
/// For what the filling left to be done, and for quiet latencies.
const SETTLE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(8);

/// How it is played.
#[derive(Clone, Copy, Debug)]
pub struct LossPlan {
    /// As `ashlar-driver control --repair-order` takes it.
    pub order: &'static str,
    pub seed: u64,
    /// Of each volume; all of it is written.
    pub volume_mib: u64,
    /// What all copies together may take per second.
    pub copy_limit_mib: u64,
    /// The second loss comes when so much of what the first took is copied.
    pub second_loss_percent: Option<u64>,
}

/// The volumes of one class. Times count from when the first loss was given up.
#[derive(Clone, Debug)]
pub struct ClassTimes {
    pub name: &'static str,
    pub volumes: usize,
    /// Until each had three replicas again.
    pub whole_after: Duration,
    /// Until each had them for good: the second loss comes between.
    pub whole_for_good_after: Duration,
}

#[derive(Clone, Debug)]
pub struct LossResult {
    /// The most important first.
    pub classes: Vec<ClassTimes>,
    /// Of volumes that were whole before the second loss: "protected again" as told after a tenth of the work, over
    /// what came, both from that moment on.
    pub estimates: Vec<f64>,
    /// The 99th percentile of the guests' writes.
    pub quiet_p99: Duration,
    pub repairing_p99: Duration,
    pub longest_write: Duration,
    pub writes: usize,
    pub lost_bytes: u64,
    pub copied_bytes: u64,
    /// Two losses at once left these with one replica, so their writes waited.
    pub left_with_one: usize,
    /// Of all volumes together.
    pub compared: Compared,
}

/// Plays it in a new cluster in `dir`, and checks what every guest has.
pub fn play_loss(dir: &Path, plan: &LossPlan, clock: Clock) -> Result<LossResult> {
    // Four nodes must have room for everything.
    let disk_size = format!("{}M", plan.volume_mib * 12 + 512);
    clock.say(&format!("order of repair: {}; starting {NODES} nodes, each with a disk of {disk_size}", plan.order));
    let [limit, order] =
        [format!("--copy-limit-mib={}", plan.copy_limit_mib), format!("--repair-order={}", plan.order)];
    // The last node is full on purpose.
    let controls = [limit.as_str(), order.as_str(), "--balance-gap-percent=100"];
    let controls = controls.iter().flat_map(|option| ["--control-option", option]);
    let options: Vec<&str> = ["--rebuild-grace-ms", GRACE_MS].into_iter().chain(controls).collect();
    let cluster = DevCluster::up_with(dir, NODES, &disk_size, Some(JOURNAL_SIZE), &options)?;
    let played = Play { cluster: &cluster, client: cluster.client()?, plan, clock }.play();
    let played = played.inspect_err(|_| eprintln!("{}", cluster.log_tails()))?;
    cluster.down().context("stop the cluster")?;
    Ok(played)
}

struct Play<'a> {
    cluster: &'a DevCluster,
    client: ClusterClient<Channel>,
    plan: &'a LossPlan,
    clock: Clock,
}

impl Play<'_> {
    fn play(mut self) -> Result<LossResult> {
        let classes = self.create()?;
        let mut guests = self.attach(&classes)?;
        self.clock.say(&format!("writing {} MiB to each of {} volumes", self.plan.volume_mib, guests.len()));
        guests::fill(&mut guests)?;
        let mut watch = Watch::new(self.cluster, self.client.clone(), classes);
        let began = Instant::now();
        let spans = under_load(&mut guests, |load| {
            self.clock.say("a guest writes to each of them");
            load.go_on_for(SETTLE + QUIET)?;
            self.lose(&mut watch, LOST)?;
            watch.until_given_up(load)?;
            let given_up = Instant::now();
            if let Some(percent) = self.plan.second_loss_percent {
                watch.until_copied(load, percent)?;
                self.lose(&mut watch, LOST_NEXT)?;
            }
            watch.until_whole(load)?;
            Ok((given_up, Instant::now()))
        });
        let (given_up, whole) = spans?;
        self.clock.say(&format!("every volume is whole, {:.1} s after", (whole - given_up).as_secs_f64()));
        let latencies = |from: Instant, until: Instant| -> Vec<Duration> {
            let within = |write: &&guests::Write| from <= write.began && write.began < until;
            guests.iter().flat_map(|guest| guest.writes.iter().filter(within)).map(|write| write.took).collect()
        };
        let (quiet, repairing) = (latencies(began + SETTLE, began + SETTLE + QUIET), latencies(given_up, whole));
        let longest_write = repairing.iter().max().copied().unwrap_or_default();
        let writes = guests.iter().map(|guest| guest.writes.len()).sum();
        let copied_bytes = watch.copied_bytes_by_events()?;
        let compared = self.check(guests)?;
        Ok(LossResult {
            classes: CLASSES.map(|(class, name)| watch.times(class, name, given_up)).to_vec(),
            estimates: watch.estimates(),
            quiet_p99: percentile(quiet, 99),
            repairing_p99: percentile(repairing, 99),
            longest_write,
            writes,
            lost_bytes: watch.lost_bytes,
            copied_bytes,
            left_with_one: watch.left_with_one,
            compared,
        })
    }

    /// Twelve, with a class each, which is theirs by the order of their ids.
    fn create(&mut self) -> Result<BTreeMap<String, Class>> {
        let mut ids = vec![];
        for number in 0..CLASSES.len() * PER_CLASS {
            let request = CreateVolumeRequest {
                name: format!("v{number:02}"),
                size_bytes: self.plan.volume_mib << 20,
                node: LOST.to_owned(),
                parameters: HashMap::from([("replicas".to_owned(), "3".to_owned())]),
                ..CreateVolumeRequest::default()
            };
            ids.push(
                self.cluster.block_on(self.client.create_volume(request)).context("CreateVolume")?.into_inner().id,
            );
        }
        ids.sort();
        let mut classes: Vec<(Class, &str)> = CLASSES.iter().flat_map(|class| [*class; PER_CLASS]).collect();
        shuffle(&mut classes, self.plan.seed);
        for (id, (_, name)) in ids.iter().zip(&classes) {
            let parameters = HashMap::from([("class".to_owned(), (*name).to_owned())]);
            let request = ModifyVolumeRequest { volume: id.clone(), parameters };
            self.cluster.block_on(self.client.modify_volume(request)).context("ModifyVolume")?;
        }
        let names: Vec<&str> = classes.iter().map(|(_, name)| *name).collect();
        self.clock.say(&format!("the queue as it comes: {}", names.join(", ")));
        Ok(ids.into_iter().zip(classes.into_iter().map(|(class, _)| class)).collect())
    }

    /// On the nodes that stay. Each guest knows its volume.
    fn attach(&self, classes: &BTreeMap<String, Class>) -> Result<Vec<Guest>> {
        let attach = |(number, id): (usize, &String)| {
            let node = format!("n{}", 1 + number % 4);
            let socket = nbd_socket(&self.cluster.attach(id, &node, "nbd")?)?;
            let blocks = (self.plan.volume_mib << 20) / ashlar_types::BLOCK_BYTES;
            Guest::connect(id, &socket, blocks as usize, self.plan.seed + number as u64)
        };
        classes.keys().enumerate().map(attach).collect()
    }

    fn lose(&self, watch: &mut Watch, node: &'static str) -> Result<()> {
        watch.lose(node)?;
        self.clock.say(&format!("SIGKILL to chunkserver-{node}, for good; {} MiB lost so far", watch.lost_bytes >> 20));
        self.cluster.kill(&format!("chunkserver-{node}"), Signal::SIGKILL)
    }

    /// Nothing that was acknowledged is missing, and the replicas of each volume are equal.
    fn check(&self, guests: Vec<Guest>) -> Result<Compared> {
        self.clock.say("reading everything back, and comparing the replicas block by block");
        let mut all = Compared::default();
        for volume in guests::verify(guests)? {
            self.cluster.detach(&volume)?;
            let compared = self.cluster.compare(&volume)?;
            ensure!(compared.replicas == 3, "{} replicas of {volume} were compared", compared.replicas);
            all.replicas += compared.replicas;
            all.blocks_compared += compared.blocks_compared;
            all.differing += compared.differing;
        }
        Ok(all)
    }
}

/// Fisher and Yates, over a linear congruential generator (Knuth's MMIX).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = seed;
    for at in (1..items.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (random >> 33) as usize % (at + 1));
    }
}
