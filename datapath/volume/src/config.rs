//! Timers and bounds of one attached volume.

use ashlar_types::{Duration, Member, NodeName, SLOT_BYTES, ZoneName};
use ashlar_wire::limits::{BLOCKS_PER_FRAME_MAX, SESSION_DATA_BYTES_MAX, SESSION_REQUESTS_MAX};

#[derive(Clone, Debug)]
pub struct Config {
    /// Where this datapath runs: replicas here are read first.
    pub node: NodeName,
    pub zone: Option<ZoneName>,
    /// How long after a request was sent its answer lets reads be served.
    pub lease: Duration,
    /// A link that has been quiet for this long is asked for a sign of life.
    pub ping_interval: Duration,
    /// Least silence, with a request unanswered, after which a replica is ejected. The bound is this or 20 × p99,
    /// whichever is more.
    pub silence_min: Duration,
    pub silence_max: Duration,
    /// First and longest pause between two attempts to connect.
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    /// Longest pause between two attempts of a disk to return; the first is `reconnect_max`.
    pub return_pause_max: Duration,
    /// Pause before an unanswered proposal is made again.
    pub propose_again: Duration,
    /// Reads are asked of a second replica after this or 8 × the mean, whichever is more.
    pub hedge_min: Duration,
    /// A replica whose mean latency is above this and ten times the next one's holds back the others.
    pub slow_min: Duration,
    /// Most writes, and most bytes of them, on the way to replicas.
    pub writes_inflight_max: usize,
    pub write_bytes_inflight_max: usize,
    /// Most reads, and most bytes of them, being asked of replicas.
    pub reads_inflight_max: usize,
    pub read_bytes_inflight_max: usize,
    /// Pause between two rounds of asking replicas what their scrub has found; it doubles while what they name stays.
    pub heal_pause_min: Duration,
    pub heal_pause_max: Duration,
    /// In which replicas are compared once, as long as the volume is attached; none: they are not.
    pub compare_period: Option<Duration>,
    /// Most slots being copied at once, for reconcile, or for a return that was given no rate.
    pub copies_inflight_max: usize,
    /// Most slots being copied at once for a return, however high its rate is.
    pub paced_copies_max: usize,
    /// Most requests of listing and marking unanswered.
    pub marks_inflight_max: usize,
    /// Writes fail after waiting this long for replicas; none: they wait without limit.
    pub io_timeout: Option<Duration>,
}

impl Config {
    pub fn new(node: NodeName, zone: Option<ZoneName>) -> Config {
        let config = Config {
            node,
            zone,
            lease: Duration::from_secs(2),
            ping_interval: Duration::from_millis(500),
            silence_min: Duration::from_millis(500),
            silence_max: Duration::from_secs(5),
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_secs(1),
            return_pause_max: Duration::from_secs(8),
            propose_again: Duration::from_millis(100),
            hedge_min: Duration::from_millis(50),
            slow_min: Duration::from_millis(50),
            writes_inflight_max: 512,
            write_bytes_inflight_max: 16 << 20,
            reads_inflight_max: 128,
            read_bytes_inflight_max: 32 << 20,
            heal_pause_min: Duration::from_secs(10),
            heal_pause_max: Duration::from_secs(640),
            compare_period: None,
            copies_inflight_max: 16,
            paced_copies_max: 192,
            marks_inflight_max: 64,
            io_timeout: None,
        };
        // What goes over one link at worst, with one large read asked block by block: a chunkserver ends a session
        // that has more.
        let reads = config.reads_inflight_max + BLOCKS_PER_FRAME_MAX as usize;
        let copies = config.copies_inflight_max + config.paced_copies_max;
        let requests = config.writes_inflight_max + reads + copies + config.marks_inflight_max + 3;
        let copied_bytes = copies * SLOT_BYTES as usize;
        let bytes = config.write_bytes_inflight_max + config.read_bytes_inflight_max + copied_bytes;
        assert!(requests <= SESSION_REQUESTS_MAX && bytes <= SESSION_DATA_BYTES_MAX);
        config
    }

    /// 0: on this node, 1: in this zone, 2: elsewhere.
    pub(crate) fn distance(&self, member: &Member) -> u8 {
        match &member.zone {
            _ if member.node == self.node => 0,
            Some(zone) if self.zone.as_ref() == Some(zone) => 1,
            _ => 2,
        }
    }

    /// How long a new writer waits after the last promise before it may go on without the rest: a lease and a
    /// quarter, which covers clocks that run at different rates.
    pub fn fence_wait(&self) -> Duration {
        self.lease * 5 / 4
    }
}
