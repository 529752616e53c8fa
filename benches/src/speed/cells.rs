//! The cells, and what of them the bars judge (pure).

use crate::job::{Job, Outcome, Pattern};
use crate::report::{Cell, Clause, Figure};
use std::time::Duration;

pub(crate) const L1: &str = "L1";
pub(crate) const L3: &str = "L3";
pub(crate) const LN: &str = "LN";
pub(crate) const ASHLAR: &str = "Ashlar";
/// Datapath and chunkserver of a node are one process: through NBD, and with the load in it.
pub(crate) const NODE: &str = "Ashlar, one process";
pub(crate) const ENGINE: &str = "Ashlar, engine";
pub(crate) const CEPH: &str = "Ceph RBD";

const WRITE_1: &str = "4 KiB random write, depth 1";
pub(super) const WRITE_32: &str = "4 KiB random write, depth 32";
const SEQUENTIAL: &str = "1 MiB sequential write, depth 8";
const READ_1: &str = "4 KiB random read, depth 1";
const READ_32: &str = "4 KiB random read, depth 32";
const HALF: &str = "4 KiB random write at half of the own speed";

/// What a cell is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    PerSecond,
    MibPerSecond,
    P99,
}

pub(super) struct CellPlan {
    pub(super) name: &'static str,
    pub(super) job: Job,
    pub(super) value: Value,
}

impl Value {
    pub(super) fn unit(self) -> &'static str {
        match self {
            Value::PerSecond => "IOPS",
            Value::MibPerSecond => "MiB/s",
            Value::P99 => "us, p99",
        }
    }

    pub(super) fn of(self, outcome: &Outcome, job: &Job) -> f64 {
        match self {
            Value::PerSecond => outcome.per_second(),
            Value::MibPerSecond => outcome.per_second() * f64::from(job.bytes) / f64::from(1 << 20),
            Value::P99 => outcome.latencies.percentile_us(99.0),
        }
    }
}

impl CellPlan {
    /// Its rate is each candidate's own, from the cell at depth 32 of the same round.
    pub(super) fn is_half_load(&self) -> bool {
        self.name == HALF
    }
}

/// In the order in which a round goes through them.
pub(super) fn all(cell: Duration, burst: Duration) -> Vec<CellPlan> {
    let of = |name, job: Job, value| CellPlan { name, job: job.lasting(cell), value };
    let sequential = |bytes, depth| Job::write(bytes, depth).pattern(Pattern::Sequential);
    let rate = Value::PerSecond;
    vec![
        of(WRITE_1, Job::write(4096, 1), rate),
        of("4 KiB random write, depth 8", Job::write(4096, 8), rate),
        CellPlan { name: WRITE_32, job: Job::write(4096, 32).lasting(burst), value: rate },
        of("4 KiB random write, depth 128", Job::write(4096, 128), rate),
        of("8 KiB sequential write, depth 1 (a WAL)", sequential(8192, 1), rate),
        of("16 KiB random write, depth 16 (InnoDB pages)", Job::write(16384, 16), rate),
        of(SEQUENTIAL, sequential(1 << 20, 8), Value::MibPerSecond),
        of(READ_1, Job::read(4096, 1), rate),
        of(READ_32, Job::read(4096, 32), rate),
        of("8 KiB random, 70 % reads, depth 16", Job::write(8192, 16).mixed(70), rate),
        of("4 KiB write, zipf 1.1, depth 16", Job::write(4096, 16).pattern(Pattern::Zipf), rate),
        of(HALF, Job::write(4096, 32), Value::P99),
    ]
}

/// A text that some cell's name contains.
pub(crate) fn named(text: &str) -> Result<String, String> {
    let cells = all(Duration::ZERO, Duration::ZERO);
    match cells.iter().any(|cell| cell.name.contains(text)) {
        true => Ok(text.to_owned()),
        false => {
            let names: Vec<&str> = cells.iter().map(|cell| cell.name).collect();
            Err(format!("no cell is named so; there are: {}", names.join("; ")))
        }
    }
}

/// Those whose name contains the text, and what they need.
pub(super) fn some(cell: Duration, burst: Duration, text: Option<&str>) -> Vec<CellPlan> {
    let mut plans = all(cell, burst);
    let is_wanted = |name: &str| text.is_none_or(|text| name.contains(text));
    let half_load = is_wanted(HALF);
    plans.retain(|plan| is_wanted(plan.name) || (half_load && plan.name == WRITE_32));
    plans
}

/// The clauses that these cells decide, and what stands beside them.
pub(super) fn judge(cells: &[Cell]) -> Vec<Figure> {
    let cell = |name: &str| cells.iter().find(|cell| cell.name == name);
    let mut figures = vec![];
    let mut add = |clause: Clause, name: &str, rounds: Option<Vec<f64>>| {
        if let (Some(cell), Some(rounds)) = (cell(name), rounds) {
            let unsteady = cell.is_unsteady();
            figures.push(Figure { unsteady, ..Figure::of_clause(clause, rounds, cell.medians()) });
        }
    };
    let ratio = |name: &str, of: &str, to: &str| cell(name).and_then(|cell| cell.ratios(of, to));
    let p99 = |name: &str| cell(name).and_then(|cell| cell.ratios_by(ENGINE, L1, |reading| reading.p99_us.clone()));
    let bytes = |name: &str| {
        let reading = cell(name)?.reading(ENGINE)?;
        Some(reading.cost(|costs| costs.written_per_user_byte / 3.0)).filter(|rounds| !rounds.is_empty())
    };
    let cpu = |reading: &crate::report::Reading| reading.cost(|costs| costs.cpu_us_per_op);
    // One after the other, so the latencies are as the rates, upside down.
    add(Clause::WriteEngineL3, WRITE_1, ratio(WRITE_1, L3, ENGINE));
    add(Clause::WriteEngineL1, WRITE_1, ratio(WRITE_1, L1, ENGINE));
    add(Clause::WriteNbdL3, WRITE_1, ratio(WRITE_1, L3, NODE));
    add(Clause::BurstL1, WRITE_32, ratio(WRITE_32, ENGINE, L1));
    add(Clause::Read1, READ_1, ratio(READ_1, ENGINE, L1));
    add(Clause::Read32, READ_32, ratio(READ_32, ENGINE, L1));
    add(Clause::Read1P99, READ_1, p99(READ_1));
    add(Clause::Read32P99, READ_32, p99(READ_32));
    add(Clause::BytesLarge, SEQUENTIAL, bytes(SEQUENTIAL));
    add(Clause::BytesSmall, WRITE_32, bytes(WRITE_32));
    add(Clause::SequentialL3, SEQUENTIAL, ratio(SEQUENTIAL, ENGINE, L3));
    add(Clause::CpuWrite, WRITE_32, cell(WRITE_32).and_then(|cell| cell.reading(ENGINE)).map(cpu));
    add(Clause::CpuCeph, WRITE_32, cell(WRITE_32).and_then(|cell| cell.ratios_by(ENGINE, CEPH, cpu)));
    let told = [
        ("4 KiB write, depth 1, latency / L1, through NBD", WRITE_1, L1, NODE),
        ("4 KiB write, depth 1, latency / L3, all processes, NBD", WRITE_1, L3, ASHLAR),
        ("front-end alone: 4 KiB write, depth 1, latency LN / L1", WRITE_1, L1, LN),
        ("4 KiB write, depth 32, IOPS / L3, engine", WRITE_32, ENGINE, L3),
        ("4 KiB write, depth 32, IOPS / L1, through NBD", WRITE_32, NODE, L1),
        ("4 KiB write, depth 32, IOPS / L1, all processes, NBD", WRITE_32, ASHLAR, L1),
        ("4 KiB read, depth 1, IOPS / L1, through NBD", READ_1, NODE, L1),
        ("4 KiB read, depth 1, IOPS / LN, through NBD", READ_1, NODE, LN),
        ("4 KiB read, depth 1, IOPS / L1, all processes, NBD", READ_1, ASHLAR, L1),
        ("4 KiB read, depth 32, IOPS / L1, through NBD", READ_32, NODE, L1),
        ("4 KiB read, depth 32, IOPS / L1, all processes, NBD", READ_32, ASHLAR, L1),
        ("p99 at half load / L3, engine", HALF, ENGINE, L3),
        ("4 KiB write, depth 1, IOPS / Ceph RBD, engine", WRITE_1, ENGINE, CEPH),
        ("4 KiB write, depth 32, IOPS / Ceph RBD, engine", WRITE_32, ENGINE, CEPH),
        ("4 KiB read, depth 32, IOPS / Ceph RBD, engine", READ_32, ENGINE, CEPH),
    ];
    for (text, name, of, to) in told {
        if let (Some(cell), Some(rounds)) = (cell(name), ratio(name, of, to)) {
            figures.push(Figure::told(text, "x", rounds, cell.medians()));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Costs, Reading};

    fn reading(candidate: &'static str, rounds: &[f64], p99: f64, written: f64) -> Reading {
        let costs = Costs { written_per_user_byte: written, cpu_us_per_op: 25.0, ..Costs::default() };
        let (p99_us, costs) = (vec![p99; rounds.len()], vec![costs; rounds.len()]);
        Reading { candidate, rounds: rounds.to_vec(), p99_us, latency: None, costs, seconds: vec![] }
    }

    fn cell(name: &str, readings: Vec<Reading>) -> Cell {
        Cell { name: name.to_owned(), unit: "IOPS", command: String::new(), readings, sentinels: vec![] }
    }

    fn value(figures: &[Figure], clause: Clause) -> Option<f64> {
        figures.iter().find(|figure| figure.clause == Some(clause)).map(|figure| figure.value)
    }

    #[test]
    fn clauses_take_the_right_ratio_the_right_way_round() {
        let of = |l1: f64, l3: f64, ashlar: f64| {
            vec![
                reading(L1, &[l1; 3], 100.0, 1.0),
                reading(L3, &[l3; 3], 200.0, 3.0),
                reading(NODE, &[ashlar; 3], 150.0, 6.0),
                reading(ENGINE, &[ashlar; 3], 150.0, 6.0),
            ]
        };
        let names = [WRITE_1, WRITE_32, SEQUENTIAL, READ_1, READ_32];
        let cells: Vec<Cell> = names.iter().map(|name| cell(name, of(8000.0, 4000.0, 2000.0))).collect();
        let figures = judge(&cells);
        assert_eq!(value(&figures, Clause::WriteNbdL3), Some(2.0), "latency: the slower one is on top");
        assert_eq!(value(&figures, Clause::BurstL1), Some(0.25));
        assert_eq!(value(&figures, Clause::SequentialL3), Some(0.5));
        assert_eq!(value(&figures, Clause::Read1P99), Some(1.5));
        assert_eq!(value(&figures, Clause::BytesSmall), Some(2.0));
        assert_eq!(value(&figures, Clause::CpuWrite), Some(25.0));
        assert_eq!(value(&figures, Clause::CpuCeph), None, "nobody ran Ceph");
        assert!(judge(&[]).is_empty());
    }

    #[test]
    fn half_load_brings_the_cell_that_it_is_half_of() {
        let second = Duration::from_secs(1);
        let names = |text| some(second, second, text).iter().map(|plan| plan.name).collect::<Vec<_>>();
        assert_eq!(names(Some("half")), [WRITE_32, HALF]);
        assert_eq!(names(Some("random read")), [READ_1, READ_32]);
        assert_eq!(names(None).len(), all(second, second).len());
        assert_eq!(named("random read").as_deref(), Ok("random read"));
        assert!(named("reads of the moon").is_err());
    }

    #[test]
    fn every_name_that_is_judged_is_a_cell_and_half_load_comes_after_depth_32() {
        let second = Duration::from_secs(1);
        let cells = all(second, 2 * second);
        for name in [WRITE_1, WRITE_32, SEQUENTIAL, READ_1, READ_32, HALF] {
            assert_eq!(cells.iter().filter(|cell| cell.name == name).count(), 1, "{name}");
        }
        let at = |name: &str| cells.iter().position(|cell| cell.name == name);
        assert!(at(WRITE_32) < at(HALF));
        assert!(cells[at(HALF).unwrap()].is_half_load());
    }
}
