//! An engine with a disk and peers of whom nobody is honest; and what must hold of the engine whatever they do.
//!
//! Rules: an operation is asked for within the disk, and at most one commit at a time; a request has at most one
//! answer, and only on a link that stands; after `Failed` nothing is written; slots and ring are never used beyond
//! what there is.

use crate::disk::SparseDisk;
use crate::reach;
use ashlar_engine::{
    Action, DiskError, DiskLayout, Engine, EngineConfig, Event, IndexLoad, LinkId, OpToken, Superblock,
};
use ashlar_types::{ByteCount, ByteOffset, ClusterId, DiskId, Duration, Instant, SLOT_BYTES};
use ashlar_wire::RequestFrame;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(1);
pub(crate) const DISK: DiskId = DiskId::from_u128(2);
pub(crate) const SLOTS: u32 = 256;
pub(crate) const JOURNAL_BYTES: u64 = 8 << 20;
/// More than this under way at once means that something is asked for without bound.
const OPS_MAX: usize = 4096;

pub(crate) fn superblock() -> Superblock {
    let total = ByteCount((1 << 20) + JOURNAL_BYTES + u64::from(SLOTS) * SLOT_BYTES);
    let layout = DiskLayout::new(total, ByteCount(JOURNAL_BYTES)).expect("a small disk");
    assert_eq!(layout.slot_count, SLOTS);
    Superblock { cluster: CLUSTER, disk: DISK, layout }
}

pub(crate) struct Site {
    pub(crate) engine: Engine,
    pub(crate) disk: SparseDisk,
    pub(crate) now: Instant,
    pub(crate) under_way: Vec<Action>,
    pub(crate) failed: bool,
    pub(crate) recovered: bool,
    /// Requests of each link that stands that are not answered, by number: how often it was asked.
    asked: BTreeMap<LinkId, BTreeMap<u64, usize>>,
    deletions: BTreeSet<OpToken>,
    clonings: BTreeSet<OpToken>,
    keepings: BTreeSet<OpToken>,
    out: Vec<Action>,
}

impl Site {
    /// `None` if the engine refuses the index. Recovery is under way.
    pub(crate) fn start(disk: SparseDisk, now: Instant) -> Option<Site> {
        let config = EngineConfig {
            idle_delay: Duration::from_millis(50),
            scrub_period: Some(Duration::from_secs(20)),
            ..EngineConfig::default()
        };
        let index = IndexLoad::of(superblock(), &disk.index);
        let engine = Engine::new(config, index, now).ok()?;
        let mut site = Site {
            engine,
            disk,
            now,
            under_way: vec![],
            failed: false,
            recovered: false,
            asked: BTreeMap::new(),
            deletions: BTreeSet::new(),
            clonings: BTreeSet::new(),
            keepings: BTreeSet::new(),
            out: vec![],
        };
        let mut out = vec![];
        site.engine.start(&mut out);
        site.out = out;
        site.take();
        Some(site)
    }

    pub(crate) fn event(&mut self, event: Event) {
        match &event {
            Event::Request { link, frame } => {
                let link = self.asked.entry(*link).or_default();
                *link.entry(frame.request.0).or_default() += 1;
            }
            Event::LinkClosed { link } => drop(self.asked.remove(link)),
            Event::Delete { op, .. } => drop(self.deletions.insert(*op)),
            Event::Clone { op, .. } => drop(self.clonings.insert(*op)),
            Event::KeepPoints { op, .. } => drop(self.keepings.insert(*op)),
            _ => {}
        }
        self.engine.handle(self.now, event, &mut self.out);
        self.take();
    }

    pub(crate) fn request(&mut self, link: LinkId, frame: RequestFrame) {
        self.event(Event::Request { link, frame });
    }

    pub(crate) fn stands(&self, link: LinkId) -> bool {
        self.asked.contains_key(&link)
    }

    fn take(&mut self) {
        for action in std::mem::take(&mut self.out) {
            self.check(&action);
            match action {
                Action::Read { .. } | Action::Write { .. } | Action::Flush { .. } | Action::Commit { .. } => {
                    self.under_way.push(action);
                }
                Action::Failed { .. } => self.failed = true,
                Action::Recovered { .. } => self.recovered = true,
                Action::CloseLink { link } => drop(self.asked.remove(&link)),
                Action::Reply { .. } | Action::Deleted { .. } | Action::Cloned { .. } | Action::PointsKept { .. } => {}
                Action::ScrubFound { .. } | Action::ScrubEnded { .. } => {}
            }
        }
        assert!(self.under_way.len() <= OPS_MAX, "operations are bounded");
    }

    fn check(&mut self, action: &Action) {
        reach::note("action", action);
        if let Action::Reply { frame, .. } = action {
            reach::note("reply", &frame.message);
        }
        let layout = superblock().layout;
        let within = |offset: ByteOffset, bytes: u64| {
            assert!(offset >= layout.journal_offset && bytes > 0 && offset.0 + bytes <= layout.total.0);
        };
        match action {
            Action::Read { offset, bytes, .. } => within(*offset, bytes.0),
            Action::Write { offset, parts, .. } => {
                assert!(!self.failed, "nothing is written by a disk that has failed");
                within(*offset, parts.iter().map(|part| part.len() as u64).sum());
            }
            Action::Commit { .. } => {
                assert!(!self.failed);
                assert!(!self.under_way.iter().any(|other| matches!(other, Action::Commit { .. })), "one commit");
            }
            Action::Flush { .. } => assert!(!self.failed),
            Action::Reply { link, frame } => {
                let link = self.asked.get_mut(link).expect("nothing is said on a link that has ended");
                let times = link.get_mut(&frame.request.0).expect("an answer is to a request");
                *times -= 1;
                if *times == 0 {
                    link.remove(&frame.request.0);
                }
            }
            Action::Deleted { op, .. } => assert!(self.deletions.remove(op), "a deletion is answered once"),
            Action::Cloned { op, .. } => assert!(self.clonings.remove(op), "a clone is answered once"),
            Action::PointsKept { op, .. } => assert!(self.keepings.remove(op), "what is to be kept is answered once"),
            Action::ScrubFound { blocks, .. } => assert_ne!(*blocks, 0),
            Action::ScrubEnded { .. } => {}
            Action::Failed { .. } => assert!(!self.failed, "said once"),
            Action::Recovered { .. } => assert!(!self.recovered, "said once"),
            Action::CloseLink { link } => assert!(self.asked.contains_key(link), "a link ends once"),
        }
    }

    /// Ends one operation well.
    pub(crate) fn complete(&mut self, at: usize) {
        let event = match self.under_way.remove(at) {
            Action::Read { op, offset, bytes } => Event::ReadDone { op, result: Ok(self.disk.read(offset, bytes)) },
            Action::Write { op, offset, parts, .. } => {
                self.disk.write(offset, &parts);
                Event::WriteDone { op, result: Ok(()) }
            }
            Action::Flush { op } => Event::WriteDone { op, result: Ok(()) },
            Action::Commit { op, edits } => {
                self.disk.edit(edits);
                Event::Committed { op, result: Ok(()) }
            }
            action => panic!("{action:?} is no operation"),
        };
        self.event(event);
    }

    /// Ends one operation badly.
    pub(crate) fn break_op(&mut self, at: usize) {
        let error = || DiskError { text: "input/output error".to_owned() };
        let event = match self.under_way.remove(at) {
            Action::Read { op, .. } => Event::ReadDone { op, result: Err(error()) },
            Action::Write { op, .. } | Action::Flush { op } => Event::WriteDone { op, result: Err(error()) },
            Action::Commit { op, .. } => Event::Committed { op, result: Err(error()) },
            action => panic!("{action:?} is no operation"),
        };
        self.event(event);
    }

    /// Ends everything that is under way and what follows from it. Panics when there is no end to it.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10 * OPS_MAX {
            if self.under_way.is_empty() {
                return self.check_status();
            }
            self.complete(0);
        }
        panic!("there is no end to what is asked of the disk");
    }

    pub(crate) fn check_status(&self) {
        let status = self.engine.status();
        assert!(status.slots_used + status.slots_free <= status.slots_total);
        assert!(status.journal_used_bytes <= status.journal_bytes);
        let used: u64 = status.replicas.iter().map(|replica| replica.used_bytes.0).sum();
        assert!(used <= u64::from(status.slots_total) * SLOT_BYTES, "replicas have no more than there is");
    }

    /// Overwrites a page of the medium, as rot would.
    pub(crate) fn spoil(&mut self, page: u64, content: Bytes) {
        self.disk.pages.insert(page, content);
    }
}
