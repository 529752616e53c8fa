//! What a run tells at its end: faults, operations, times.

use crate::fault::KINDS;
use crate::record::{Record, Tally};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tabled::{builder::Builder, settings::Style};

pub struct Report {
    pub seed: u64,
    pub rounds: u32,
    /// Guests of an old writer that were refused to the end.
    pub zombies: u64,
    begun: Instant,
    faults: BTreeMap<&'static str, u64>,
    healthy_after_max: Duration,
}

impl Report {
    pub fn begin(seed: u64) -> Report {
        Report {
            seed,
            rounds: 0,
            zombies: 0,
            begun: Instant::now(),
            faults: KINDS.into_iter().map(|kind| (kind, 0)).collect(),
            healthy_after_max: Duration::ZERO,
        }
    }

    pub fn count(&mut self, kind: &'static str) {
        *self.faults.get_mut(kind).expect("every kind is listed") += 1;
    }

    pub fn healthy_after(&mut self, time: Duration) {
        self.healthy_after_max = self.healthy_after_max.max(time);
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Kinds that never struck.
    pub fn never(&self) -> Vec<&'static str> {
        self.faults.iter().filter(|(_, count)| **count == 0).map(|(kind, _)| *kind).collect()
    }

    pub fn tell(&self, records: &[Arc<Record>]) {
        let faults: Vec<String> = KINDS.iter().map(|kind| format!("{kind} {}", self.faults[kind])).collect();
        println!("faults: {}", faults.join(", "));
        let mut table = Builder::default();
        table.push_record([
            "volume",
            "operations",
            "acknowledged",
            "failed",
            "never answered",
            "blocks",
            "epoch",
            "gap",
        ]);
        for record in records {
            let summary = record.summary();
            let kinds = [
                ("reads", summary.reads),
                ("writes", summary.writes),
                ("trims", summary.trims),
                ("flushes", summary.flushes),
            ];
            for (kind, Tally { begun, acknowledged, failed }) in kinds {
                let (blocks, epoch) = (summary.blocks.to_string(), summary.epoch.to_string());
                let gap = format!("{:.1} s", summary.longest_gap.as_secs_f64());
                let of_volume = if kind == "writes" { [blocks, epoch, gap] } else { Default::default() };
                let counts = [acknowledged, failed, begun - acknowledged - failed].map(|count| count.to_string());
                let row = [record.name.clone(), kind.to_owned()].into_iter().chain(counts).chain(of_volume);
                table.push_record(row);
            }
        }
        println!("{}", table.build().with(Style::psql()));
        println!(
            "{} rounds in {:.0} s, seed {}; {} zombie connections refused; slowest way back to health {:.1} s",
            self.rounds,
            self.elapsed().as_secs_f64(),
            self.seed,
            self.zombies,
            self.healthy_after_max.as_secs_f64()
        );
    }
}
