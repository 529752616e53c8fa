//! What a run leaves behind: a rolling hash of everything that happened, counts of faults fired and states reached,
//! and, if asked for, a line for each event. The lines that touch one block are the story of a failure.

use crate::names::{Link, Nanos, Vol};
use ashlar_types::RequestId;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Which blocks of a volume an event touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub volume: Vol,
    /// First block, counted within the volume, and number of blocks; `None`: the whole volume.
    pub blocks: Option<(u64, u32)>,
}

impl Touch {
    pub fn all(volume: Vol) -> Option<Touch> {
        Some(Touch { volume, blocks: None })
    }

    pub fn blocks(volume: Vol, start: u64, count: u32) -> Option<Touch> {
        Some(Touch { volume, blocks: Some((start, count)) })
    }

    /// Whether an event that touches `self` belongs to the story of `block`.
    fn concerns(self, volume: Vol, block: u64) -> bool {
        let hit = |(start, count): (u64, u32)| (start..start + u64::from(count)).contains(&block);
        self.volume == volume && self.blocks.is_none_or(hit)
    }
}

struct Line {
    at: Nanos,
    touch: Option<Touch>,
    text: String,
}

pub struct Trace {
    hash: u64,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
    lines: Option<Vec<Line>>,
    /// What each request touches, for the lines of its answer.
    asked: HashMap<(Link, RequestId), Option<Touch>>,
}

impl Trace {
    pub fn new(with_lines: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            counts: BTreeMap::new(),
            lines: with_lines.then(Vec::new),
            asked: HashMap::new(),
        }
    }

    /// Takes numbers into the hash.
    pub fn fold(&mut self, numbers: &[u64]) {
        self.events += 1;
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn add(&mut self, what: &'static str, number: u64) {
        *self.counts.entry(what).or_default() += number;
    }

    /// Adds a line if lines are kept; a line without touch is part of every story.
    pub fn line(&mut self, at: Nanos, touch: Option<Touch>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, touch, text: text() });
        }
    }

    /// A request is sent: its answer will touch what it touches.
    pub fn asked(&mut self, link: Link, request: RequestId, touch: Option<Touch>) {
        if self.lines.is_some() {
            self.asked.insert((link, request), touch);
        }
    }

    pub fn touch_of_answer(&self, link: Link, request: RequestId) -> Option<Touch> {
        self.asked.get(&(link, request)).copied().flatten()
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The lines, or only those that concern `block`; empty if none were kept.
    pub fn story(&self, block: Option<(Vol, u64)>) -> String {
        let mut text = String::new();
        let concerns = |line: &&Line| match (block, line.touch) {
            (Some((volume, block)), Some(touch)) => touch.concerns(volume, block),
            _ => true,
        };
        for line in self.lines.iter().flatten().filter(concerns) {
            let (seconds, micros) = (line.at / 1_000_000_000, line.at / 1000 % 1_000_000);
            writeln!(text, "{seconds:4}.{micros:06} {}", line.text).expect("a string takes every line");
        }
        text
    }
}
