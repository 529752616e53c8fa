//! What is judged of the databases, and what is run.

use super::*;

fn cell(name: &str, l1: &[f64], ashlar: &[f64]) -> Cell {
    let reading = |candidate, rounds: &[f64]| Reading {
        candidate,
        rounds: rounds.to_vec(),
        p99_us: vec![],
        latency: None,
        costs: vec![],
        seconds: vec![],
    };
    let readings = vec![reading(L1, l1), reading(ASHLAR, ashlar)];
    Cell { name: name.to_owned(), unit: "transactions/s", command: String::new(), readings, sentinels: vec![] }
}

#[test]
fn of_several_thread_counts_the_worst_is_judged_and_only_the_named_cells() {
    let of = |script, threads| Sysbench { script, threads }.name();
    let cells = [
        cell(&of("read_only", 1), &[100.0, 100.0], &[99.0, 90.0]),
        cell(&of("read_only", 32), &[100.0, 100.0], &[98.0, 120.0]),
        cell(&of("write_only", 8), &[100.0], &[1.0]),
        cell(&of("write_only", 32), &[100.0], &[71.0]),
        cell(&Pgbench { options: &["-S", "-c16"] }.name(), &[100.0], &[1.0]),
        cell(&Pgbench { options: &["-c16", "-j2"] }.name(), &[100.0], &[85.0]),
    ];
    let figures = judge(&cells);
    let rounds =
        |clause| figures.iter().find(|figure| figure.clause == Some(clause)).map(|figure| figure.rounds.clone());
    assert_eq!(rounds(Clause::MariaRead), Some(vec![0.98, 0.9]));
    assert_eq!(rounds(Clause::MariaWrite), Some(vec![0.71]));
    assert_eq!(rounds(Clause::Pgbench), Some(vec![0.85]));
    assert_eq!(rounds(Clause::MariaMixed), None, "it was not run");
    assert_eq!(rounds(Clause::MariaCeph), None);
}

#[test]
fn a_short_run_has_what_the_bars_need_and_a_full_one_has_all() {
    let plan = |all| DatabasesPlan {
        rounds: 1,
        cell: Duration::from_secs(1),
        volume_bytes: 1 << 30,
        disk_size: "2G",
        rows_per_table: 1,
        pgbench_scale: 1,
        all,
    };
    let names = |all| plan(all).loads().iter().map(Load::name).collect::<Vec<_>>();
    assert_eq!(names(false).len(), 4);
    assert_eq!(names(true).len(), 13);
    assert!(names(false).iter().all(|name| names(true).contains(name)));
}
