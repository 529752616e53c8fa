//! The typed record of a run: what was measured, on what, and how it is judged. Everything that is shown (the tables on
//! the terminal, the JSON file, the page, `RESULTS.md`) is made from it and adds nothing to it.
//!
//! ```text
//!   part ──► Findings { figures, cells, curves } ──► Report ─┬─► table.rs   terminal, RESULTS.md
//!                                                            ├─► JSON       serde
//!                                                            └─► html.rs    one file, plots by plot.rs
//! ```

mod bars;
mod clause;
mod html;
mod machine;
mod plot;
mod table;

pub(crate) use bars::Verdict;
pub(crate) use clause::Clause;
pub(crate) use machine::Machine;
pub(crate) use table::{print, results};

use crate::histogram::Percentiles;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// From the lowest to the highest sentinel of a cell, of their median: above, the cell's figures are rough.
const DRIFT_MAX_PERCENT: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtMost(bound) => value <= bound,
            Bar::AtLeast(bound) => value >= bound,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Bar::AtMost(bound) => format!("<= {}", table::short(bound)),
            Bar::AtLeast(bound) => format!(">= {}", table::short(bound)),
        }
    }

    pub(crate) fn bound(self) -> f64 {
        match self {
            Bar::AtMost(bound) | Bar::AtLeast(bound) => bound,
        }
    }
}

/// What a bar judges, or would.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Median over the rounds; lowest and highest.
    pub(crate) value: f64,
    pub(crate) spread: (f64, f64),
    /// In the order in which they were taken.
    pub(crate) rounds: Vec<f64>,
    /// `None`: told, not judged.
    pub(crate) bar: Option<Bar>,
    /// Which of the eight bars' clauses this is.
    pub(crate) clause: Option<Clause>,
    /// The raw disk's own speed moved too much meanwhile: a verdict on it is worth little.
    pub(crate) unsteady: bool,
    /// Absolute figures behind a ratio, for orientation: they hold for this machine and moment.
    pub(crate) detail: String,
}

impl Figure {
    /// From one value a round.
    pub(crate) fn of_rounds(name: &str, unit: &'static str, rounds: Vec<f64>, bar: Bar, detail: String) -> Figure {
        Figure { bar: Some(bar), ..Figure::told(name, unit, rounds, detail) }
    }

    /// One that no bar judges.
    pub(crate) fn told(name: &str, unit: &'static str, rounds: Vec<f64>, detail: String) -> Figure {
        let mut sorted = rounds.clone();
        assert!(!sorted.is_empty());
        sorted.sort_by(f64::total_cmp);
        let (value, spread) = (median(&sorted), (sorted[0], sorted[sorted.len() - 1]));
        Figure { name: name.to_owned(), unit, value, spread, rounds, bar: None, clause: None, unsteady: false, detail }
    }

    /// Name, unit and bar are the clause's.
    pub(crate) fn of_clause(clause: Clause, rounds: Vec<f64>, detail: String) -> Figure {
        let figure = Figure::of_rounds(clause.text(), clause.unit(), rounds, clause.bar(), detail);
        Figure { clause: Some(clause), ..figure }
    }

    pub(crate) fn passes(&self) -> bool {
        self.bar.is_none_or(|bar| bar.holds(self.value))
    }
}

/// Of an even number the mean of the two in the middle: the better one of two rounds is no median.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

/// One piece of work, done by several candidates.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// As fio would be asked for it, or as the program was called.
    pub(crate) command: String,
    pub(crate) readings: Vec<Reading>,
    /// 4 KiB durable writes a second on the raw disk between the candidates, in the order in which they were taken.
    pub(crate) sentinels: Vec<f64>,
}

/// What one candidate did in a cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reading {
    pub(crate) candidate: &'static str,
    /// One value a round, in the cell's unit.
    pub(crate) rounds: Vec<f64>,
    /// The 99th percentile of each round, in microseconds.
    pub(crate) p99_us: Vec<f64>,
    /// Over all rounds.
    pub(crate) latency: Option<Percentiles>,
    /// Of each round.
    pub(crate) costs: Vec<Costs>,
    /// Answers in each second of the last round, where that is what matters.
    pub(crate) seconds: Vec<u32>,
}

/// What an operation cost in one round, with what is done behind the answer until the daemons rest.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Costs {
    /// Of all daemons and of who asks.
    pub(crate) cpu_us_per_op: f64,
    pub(crate) switches_per_op: f64,
    /// What all processes wrote (`/proc/PID/io`), by what the user wrote. 0: nothing was written.
    pub(crate) written_per_user_byte: f64,
    /// The same by what the disk counted (`/proc/diskstats`): others on this disk are in it.
    pub(crate) disk_per_user_byte: f64,
    /// Resident memory of all daemons, MiB.
    pub(crate) memory_mib: f64,
}

impl Reading {
    /// One of the costs, round by round.
    pub(crate) fn cost(&self, of: impl Fn(&Costs) -> f64) -> Vec<f64> {
        self.costs.iter().map(of).collect()
    }

    /// Medians.
    pub(crate) fn usual_costs(&self) -> Option<Costs> {
        let median = |of: fn(&Costs) -> f64| Figure::told("", "", self.cost(of), String::new()).value;
        (!self.costs.is_empty()).then(|| Costs {
            cpu_us_per_op: median(|costs| costs.cpu_us_per_op),
            switches_per_op: median(|costs| costs.switches_per_op),
            written_per_user_byte: median(|costs| costs.written_per_user_byte),
            disk_per_user_byte: median(|costs| costs.disk_per_user_byte),
            memory_mib: median(|costs| costs.memory_mib),
        })
    }
}

impl Cell {
    pub(crate) fn reading(&self, candidate: &str) -> Option<&Reading> {
        self.readings.iter().find(|reading| reading.candidate == candidate)
    }

    /// Round by round, of what both have done.
    pub(crate) fn ratios(&self, of: &str, to: &str) -> Option<Vec<f64>> {
        self.ratios_by(of, to, |reading| reading.rounds.clone())
    }

    /// The same of something else than the cell's unit.
    pub(crate) fn ratios_by(&self, of: &str, to: &str, by: impl Fn(&Reading) -> Vec<f64>) -> Option<Vec<f64>> {
        let (of, to) = (by(self.reading(of)?), by(self.reading(to)?));
        let ratios: Vec<f64> = of.iter().zip(&to).map(|(of, to)| of / to).collect();
        (!ratios.is_empty()).then_some(ratios)
    }

    /// What stands behind a ratio.
    pub(crate) fn medians(&self) -> String {
        let of = |reading: &Reading| {
            let median = Figure::told("", "", reading.rounds.clone(), String::new()).value;
            format!("{} {median:.0}", reading.candidate)
        };
        format!("{}: {}", self.unit, self.readings.iter().map(of).collect::<Vec<_>>().join(", "))
    }

    pub(crate) fn is_unsteady(&self) -> bool {
        self.drift_percent().is_some_and(|drift| drift > DRIFT_MAX_PERCENT)
    }

    /// How far the raw disk's speed moved meanwhile: (highest − lowest) / median, in percent.
    pub(crate) fn drift_percent(&self) -> Option<f64> {
        let mut sorted = self.sentinels.clone();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        Some(100.0 * (last - first) / median(&sorted))
    }
}

/// How a figure grows with a count.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) rounds: Vec<f64>,
}

/// What a part found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) figures: Vec<Figure>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) curves: Vec<Curve>,
}

impl From<Vec<Figure>> for Findings {
    fn from(figures: Vec<Figure>) -> Findings {
        Findings { figures, ..Findings::default() }
    }
}

impl Findings {
    pub(crate) fn extend(&mut self, other: Findings) {
        self.figures.extend(other.figures);
        self.cells.extend(other.cells);
        self.curves.extend(other.curves);
    }
}

/// A part that was run.
#[derive(Debug, Serialize)]
pub(crate) struct PartRecord {
    pub(crate) part: &'static str,
    pub(crate) seconds: f64,
    /// Why it could not be run to its end. What it had found by then is here.
    pub(crate) failure: Option<String>,
    /// What its figures do not say.
    pub(crate) not_said: &'static [&'static str],
    #[serde(flatten)]
    pub(crate) findings: Findings,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// How the bench was called.
    pub(crate) command: String,
    pub(crate) bars: Vec<Verdict>,
    pub(crate) parts: Vec<PartRecord>,
}

impl Report {
    pub(crate) fn new(machine: Machine, command: String, parts: Vec<PartRecord>) -> Report {
        let bars = bars::judge(parts.iter().flat_map(|part| &part.findings.figures));
        Report { machine, command, bars, parts }
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.parts.iter().flat_map(|part| &part.findings.figures)
    }

    /// Whether somebody else was at work, by the raw disk's own speed and the machine's load.
    pub(crate) fn noise(&self) -> Option<String> {
        let cells = self.parts.iter().flat_map(|part| &part.findings.cells);
        let watched = cells.clone().filter(|cell| !cell.sentinels.is_empty()).count();
        let unsteady = cells.filter(|cell| cell.is_unsteady()).count();
        (unsteady > 0).then(|| {
            format!(
                "Unsteady: in {unsteady} of {watched} cells the raw disk's own speed moved by more than \
                 {DRIFT_MAX_PERCENT} %; load {} on {} cores at the start.",
                self.machine.load, self.machine.cores
            )
        })
    }

    pub(crate) fn failed_part(&self) -> bool {
        self.parts.iter().any(|part| part.failure.is_some())
    }

    pub(crate) fn passes(&self) -> bool {
        self.figures().all(Figure::passes)
    }

    /// `report.json` and `report.html`; gives the page's path.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        write("report.json", serde_json::to_string_pretty(self)?)?;
        write("report.html", html::page(self)?)
    }
}

#[cfg(test)]
mod tests;
