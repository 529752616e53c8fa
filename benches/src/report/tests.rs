//! The record, its verdicts, and that the page is whole.

use super::bars::Outcome;
use super::*;

fn reading(candidate: &'static str, rounds: &[f64]) -> Reading {
    Reading { candidate, rounds: rounds.to_vec(), p99_us: vec![], latency: None, costs: vec![], seconds: vec![] }
}

fn cell(readings: Vec<Reading>) -> Cell {
    Cell {
        name: "<4 KiB>".to_owned(),
        unit: "IOPS",
        command: "fio".to_owned(),
        readings,
        sentinels: vec![90.0, 100.0, 110.0],
    }
}

fn report_of(findings: Findings) -> Report {
    let machine = Machine::look(Path::new("/"));
    let part = PartRecord { part: "speed", seconds: 1.0, failure: None, not_said: &["what & how"], findings };
    Report::new(machine, "ashlar-bench --dir \"<x>\"".to_owned(), vec![part])
}

#[test]
fn a_ratio_is_taken_within_a_round_and_its_median_is_judged() {
    let cell = cell(vec![reading("Ashlar", &[10.0, 30.0, 8.0]), reading("L1", &[10.0, 10.0, 10.0])]);
    let ratios = cell.ratios("Ashlar", "L1").unwrap();
    assert_eq!(ratios, [1.0, 3.0, 0.8]);
    let figure = Figure::of_clause(Clause::BurstL1, ratios, String::new());
    assert_eq!((figure.value, figure.spread), (1.0, (0.8, 3.0)));
    assert!(figure.passes());
    assert_eq!(Figure::told("", "x", vec![3.0, 1.0], String::new()).value, 2.0, "of two rounds not the better one");
    assert!(cell.ratios("Ashlar", "Ceph RBD").is_none());
    assert_eq!(cell.drift_percent(), Some(20.0));
}

#[test]
fn every_clause_is_told_and_what_was_not_measured_says_what_it_needs() {
    let pass = Figure::of_clause(Clause::Read1, vec![0.97], String::new());
    let fail = Figure::of_clause(Clause::WriteNbdL3, vec![1.6, 1.4, 1.7], String::new());
    let verdicts = bars::judge([pass, fail].iter());
    assert_eq!(verdicts.len(), Clause::ALL.len());
    let of = |clause| verdicts.iter().find(|verdict| verdict.clause == clause).unwrap();
    assert_eq!(of(Clause::Read1).outcome, Outcome::Pass { value: 0.97, spread: (0.97, 0.97) });
    assert_eq!(of(Clause::WriteNbdL3).outcome, Outcome::Fail { value: 1.6, spread: (1.4, 1.7) });
    assert_eq!(of(Clause::Gap).word(), "not run");
    assert!(of(Clause::Gap).measured().is_none());
}

#[test]
fn the_clauses_are_the_issues_eight_bars_in_order() {
    let numbers: Vec<u8> = Clause::ALL.iter().map(|clause| clause.bar_number()).collect();
    assert!(numbers.is_sorted() && numbers[0] == 1 && numbers[numbers.len() - 1] == 8);
    for (at, clause) in Clause::ALL.iter().enumerate() {
        assert!(!Clause::ALL[..at].contains(clause), "{clause:?} stands there twice");
    }
}

#[test]
fn bars_hold_on_their_bound() {
    assert!(Bar::AtMost(1.5).holds(1.5) && !Bar::AtMost(1.5).holds(1.51));
    assert!(Bar::AtLeast(0.9).holds(0.9) && !Bar::AtLeast(0.9).holds(0.89));
}

#[test]
fn the_page_is_whole_escaped_and_asks_for_nothing_outside() {
    let findings = Findings {
        figures: vec![Figure::of_clause(Clause::Read1, vec![0.5, 0.6], "a < b".to_owned())],
        cells: vec![cell(vec![reading("Ashlar", &[10.0, 12.0]), reading("L1", &[0.0, 0.0])])],
        curves: vec![Curve {
            name: "latency".to_owned(),
            x: "volumes",
            y: "us",
            points: vec![Point { x: 1.0, rounds: vec![3.0] }, Point { x: 64.0, rounds: vec![4.0, 5.0] }],
        }],
    };
    let page = html::page(&report_of(findings)).unwrap();
    assert!(page.contains("&lt;4 KiB&gt;") && !page.contains("<4 KiB>"));
    assert!(page.contains("a &lt; b") && page.contains("what &amp; how") && page.contains("&quot;&lt;x&gt;&quot;"));
    assert!(page.contains("in 1 of 1 cells the raw disk"));
    assert!(page.contains("1 FAIL") && page.matches("<svg").count() == 3);
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page has {outside}");
    }
    assert_eq!(html::escaped("<a b='c' d=\"e\">&"), "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;");
}

#[test]
fn results_are_tables_of_markdown() {
    let figures = vec![Figure::of_clause(Clause::Read1, vec![0.5], "behind".to_owned())];
    let text = results(&report_of(Findings::from(figures)));
    assert!(text.contains("|---") && text.contains("FAIL") && text.contains("not run (PART=growth)"));
    assert!(text.lines().any(|line| line.starts_with("| 3 ") && line.contains("0.500")));
}

#[test]
fn the_record_goes_through_json() {
    let report = report_of(Findings::from(vec![Figure::of_clause(Clause::Gap, vec![12.0], String::new())]));
    let value: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(value["parts"][0]["figures"][0]["clause"], "Gap");
    assert_eq!(value["bars"].as_array().unwrap().len(), Clause::ALL.len());
}
