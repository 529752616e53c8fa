//! What the demo found, as one table, and whether all of it holds.

use crate::{ledger::LedgerResult, sysbench::Second};
use ashlar_tests::Compared;
use tabled::{
    builder::Builder,
    settings::{Alignment, Modify, Style, object::Rows},
};

/// Above this the gap is a failure even on a slow machine.
pub const GAP_MS_MAX: u64 = 2000;

/// How the load went while a chunkserver was away.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub before: Option<f64>,
    pub during: Option<f64>,
    pub after: Option<f64>,
}

impl Rates {
    /// Times are on the demo's clock. The first seconds, in which caches fill, do not count.
    pub fn of(seconds: &[Second], killed: f64, in_sync: f64) -> Rates {
        let mean = |wanted: &dyn Fn(&Second) -> bool| {
            let chosen: Vec<f64> =
                seconds.iter().filter(|second| wanted(second)).map(|second| second.transactions).collect();
            (!chosen.is_empty()).then(|| chosen.iter().sum::<f64>() / chosen.len() as f64)
        };
        Rates {
            before: mean(&|second| second.at > 2 && second.clock <= killed),
            during: mean(&|second| second.clock > killed && second.clock <= in_sync),
            after: mean(&|second| second.clock > in_sync),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Resync {
    pub copied_blocks: u64,
    pub changed_blocks: u64,
    pub seconds: f64,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub volume_size: String,
    pub rates: Rates,
    pub transactions: u64,
    pub retried: u64,
    pub gap_ms: u64,
    pub resync: Resync,
    pub recovery_seconds: f64,
    pub ledger: LedgerResult,
    pub tables_checked: usize,
    pub comparison: Compared,
}

impl Report {
    /// What does not hold; empty if all does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = vec![];
        let mut hold = |holds: bool, text: String| {
            if !holds {
                failures.push(text);
            }
        };
        hold(self.gap_ms <= GAP_MS_MAX, format!("the I/O gap was {} ms, more than {GAP_MS_MAX}", self.gap_ms));
        hold(self.ledger.missing == 0, format!("{} committed rows are missing", self.ledger.missing));
        hold(self.ledger.seen_committed > 0, "the ledger saw no row committed".to_owned());
        hold(self.comparison.replicas == 3, format!("{} replicas were compared, not 3", self.comparison.replicas));
        hold(self.comparison.blocks_compared > 0, "no block was compared".to_owned());
        hold(self.comparison.differing == 0, format!("the replicas differ in {} blocks", self.comparison.differing));
        failures
    }

    pub fn table(&self) -> String {
        let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
        let mut table = Builder::default();
        table.push_record(["what", "result"]);
        table.push_record([
            "transactions/s before, during, after",
            &[self.rates.before, self.rates.during, self.rates.after].map(rate).join(", "),
        ]);
        table.push_record([
            "transactions, of them run again after a deadlock",
            &format!("{}, {}", self.transactions, self.retried),
        ]);
        table.push_record(["longest I/O gap", &format!("{} ms", self.gap_ms)]);
        table.push_record(["blocks resynced (copied of changed)", &self.resync_text()]);
        table.push_record(["everything killed, database back after", &format!("{:.1} s", self.recovery_seconds)]);
        table.push_record([
            "ledger: rows seen committed, missing",
            &format!("{}, {}", self.ledger.seen_committed, self.ledger.missing),
        ]);
        table.push_record(["tables checked by CHECK TABLE", &format!("{} ok", self.tables_checked)]);
        table.push_record(["replicas compared: blocks, differing", &self.comparison_text()]);
        let failures = self.failures();
        let verdict =
            if failures.is_empty() { "all holds".to_owned() } else { format!("FAILED: {}", failures.join("; ")) };
        table.push_record(["verdict", &verdict]);
        let mut table = table.build();
        table.with(Style::rounded()).with(Modify::new(Rows::new(1..)).with(Alignment::left()));
        table.to_string()
    }

    fn resync_text(&self) -> String {
        let Resync { copied_blocks, changed_blocks, seconds } = self.resync;
        format!(
            "{copied_blocks} of {changed_blocks} ({} copied, volume {}) in {seconds:.1} s",
            mebibytes(copied_blocks),
            self.volume_size
        )
    }

    fn comparison_text(&self) -> String {
        let Compared { replicas, blocks_compared, differing } = self.comparison;
        format!("{replicas} replicas: {blocks_compared}, {differing}")
    }
}

fn mebibytes(blocks: u64) -> String {
    format!("{:.1} MiB", blocks as f64 * 4096.0 / (1 << 20) as f64)
}
