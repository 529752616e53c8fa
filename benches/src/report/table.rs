//! The record as tables: on the terminal, and in `RESULTS.md`.

use super::{Cell, Figure, Report, Verdict};
use tabled::{
    Table, Tabled,
    settings::{Style, style::HorizontalLine},
};

#[derive(Tabled)]
struct FigureRow {
    #[tabled(rename = "figure")]
    name: String,
    #[tabled(rename = "median")]
    value: String,
    spread: String,
    bar: String,
    verdict: &'static str,
    #[tabled(rename = "behind it")]
    detail: String,
}

#[derive(Tabled)]
struct BarRow {
    bar: u8,
    #[tabled(rename = "what")]
    text: &'static str,
    bound: String,
    #[tabled(rename = "median")]
    value: String,
    spread: String,
    verdict: String,
}

#[derive(Tabled)]
struct CellRow {
    cell: String,
    candidate: &'static str,
    #[tabled(rename = "median")]
    value: String,
    spread: String,
    #[tabled(rename = "p50, p99, p99.9 us")]
    latency: String,
    #[tabled(rename = "CPU us, switches an op")]
    work: String,
    #[tabled(rename = "written a user byte (by processes, by disk)")]
    bytes: String,
    #[tabled(rename = "MiB")]
    memory: String,
}

pub(crate) fn print(report: &Report) {
    for part in &report.parts {
        let findings = &part.findings;
        if !findings.cells.is_empty() {
            println!("{}", Table::new(findings.cells.iter().flat_map(cell_rows)).with(Style::sharp()));
        }
        if !findings.figures.is_empty() {
            println!("{}", Table::new(findings.figures.iter().map(figure_row)).with(Style::sharp()));
        }
        if let Some(failure) = &part.failure {
            println!("{} could not be run to its end: {failure}", part.part);
        }
        part.not_said.iter().for_each(|not| println!("{not}"));
    }
    if let Some(noise) = report.noise() {
        println!("{noise}");
    }
    println!("\nThe eight bars:");
    println!("{}", Table::new(report.bars.iter().map(bar_row)).with(Style::sharp()));
}

/// The text of `RESULTS.md`.
pub(crate) fn results(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "# The last run\n\nWritten by `make bench RESULTS=1`; not by hand. {}, `{}`, on {} cores of {}, {} MiB,\n\
         Linux {}, load {} at its start.\nFigures of other machines and moments differ; ratios less so. The page has \
         more.\n\n",
        machine.date,
        report.command,
        machine.cores,
        machine.processor,
        machine.memory_mib,
        machine.kernel,
        machine.load
    );
    if let Some(noise) = report.noise() {
        text.push_str(&format!("{noise}\n\n"));
    }
    let mut add = |title: &str, table: String| {
        text.push_str(&format!("## {title}\n\n{table}\n\n"));
    };
    add("The eight bars", markdown(report.bars.iter().map(bar_row)));
    for part in &report.parts {
        if !part.findings.cells.is_empty() {
            add(&format!("{}: cells", part.part), markdown(part.findings.cells.iter().flat_map(cell_rows)));
        }
        if !part.findings.figures.is_empty() {
            add(&format!("{}: figures", part.part), markdown(part.findings.figures.iter().map(figure_row)));
        }
    }
    text
}

fn markdown<R: Tabled>(rows: impl Iterator<Item = R>) -> String {
    let head = HorizontalLine::new('-').intersection('|').left('|').right('|');
    let style = Style::empty().left('|').right('|').vertical('|').horizontals([(1, head)]);
    Table::new(rows).with(style).to_string()
}

fn figure_row(figure: &Figure) -> FigureRow {
    FigureRow {
        name: figure.name.clone(),
        value: format!("{:.2} {}", figure.value, figure.unit),
        spread: format!("{:.2} .. {:.2}", figure.spread.0, figure.spread.1),
        bar: figure.bar.map(|bar| bar.text()).unwrap_or_default(),
        verdict: match figure.bar {
            None => "",
            Some(bar) if bar.holds(figure.value) => "PASS",
            Some(_) => "FAIL",
        },
        detail: figure.detail.clone(),
    }
}

fn bar_row(verdict: &Verdict) -> BarRow {
    let (value, spread) = match verdict.measured() {
        Some((value, low, high)) => (format!("{value:.3} {}", verdict.unit), format!("{low:.3} .. {high:.3}")),
        None => (String::new(), String::new()),
    };
    let verdict_text = match &verdict.outcome {
        super::bars::Outcome::NotRun(needs) => format!("not run ({needs})"),
        _ if verdict.unsteady => format!("{}, unsteady", verdict.word()),
        _ => verdict.word().to_owned(),
    };
    let bound = verdict.bar.text();
    BarRow { bar: verdict.bar_number, text: verdict.text, bound, value, spread, verdict: verdict_text }
}

/// Up to three digits after the point.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cell_rows(cell: &Cell) -> Vec<CellRow> {
    let row = |reading: &super::Reading| {
        let median = Figure::told("", cell.unit, reading.rounds.clone(), String::new());
        let latency = reading.latency.as_ref();
        let costs = reading.usual_costs();
        CellRow {
            cell: cell.name.clone(),
            candidate: reading.candidate,
            value: format!("{:.0} {}", median.value, cell.unit),
            spread: format!("{:.0} .. {:.0}", median.spread.0, median.spread.1),
            latency: latency.map(|l| format!("{:.0}, {:.0}, {:.0}", l.p50_us, l.p99_us, l.p999_us)).unwrap_or_default(),
            work: costs.map(|c| format!("{:.1}, {:.2}", c.cpu_us_per_op, c.switches_per_op)).unwrap_or_default(),
            bytes: costs
                .filter(|c| c.written_per_user_byte > 0.0)
                .map(|c| format!("{:.2}, {:.2}", c.written_per_user_byte, c.disk_per_user_byte))
                .unwrap_or_default(),
            memory: costs.map(|c| format!("{:.0}", c.memory_mib)).unwrap_or_default(),
        }
    };
    cell.readings.iter().map(row).collect()
}
