//! One page that needs nothing but itself: what holds at the top, then every part's figures, cells and curves, then on
//! what machine, how it was called, and what is not said.

use super::bars::Outcome;
use super::clause::bar_title;
use super::table::short;
use super::{Cell, Figure, PartRecord, Reading, Report, Verdict, plot};
use anyhow::Result;
use std::fmt::Write;

const STYLE: &str = "body{font:14px/1.45 sans-serif;color:#1f2328;margin:2em auto;max-width:1080px;padding:0 1em}\
h1{font-size:22px}h2{font-size:18px;margin-top:2em;border-bottom:1px solid #d1d9e0}h3{font-size:15px}\
table{border-collapse:collapse;margin:.7em 0;width:100%}td,th{border-bottom:1px solid #d1d9e0;padding:3px 8px;\
text-align:left;vertical-align:top}td.n{text-align:right;white-space:nowrap}.PASS{color:#1a7f37;font-weight:bold}\
.FAIL{color:#cf222e;font-weight:bold}.not{color:#818b98}.sum{font-size:20px}.small{color:#59636e;font-size:12px}\
.grid{display:flex;flex-wrap:wrap;gap:18px}.grid>div{width:500px;overflow-x:auto}\
.small td,.small th{padding:2px 4px}.key{display:inline-block;width:10px;height:10px;\
margin:0 4px 0 10px}code{background:#f6f8fa;padding:1px 4px}";

pub(super) fn page(report: &Report) -> Result<String> {
    let mut page = String::new();
    page.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Ashlar: bench</title>");
    write!(page, "<style>{STYLE}</style></head><body><h1>Ashlar: how fast, beside what</h1>")?;
    write!(page, "<p class=\"sum\">{}</p>", sum(&report.bars))?;
    let machine = &report.machine;
    write!(
        page,
        "<p>{} · {} cores, {} · one disk for all · <code>{}</code></p>",
        escaped(&machine.date),
        machine.cores,
        escaped(&machine.processor),
        escaped(&report.command)
    )?;
    if let Some(noise) = report.noise() {
        write!(page, "<p class=\"FAIL\">{}</p>", escaped(&noise))?;
    }
    page.push_str("<h2>The eight bars</h2>");
    if report.bars.iter().any(|verdict| verdict.measured().is_some()) {
        page.push_str(
            "<p class=\"small\">The dot is the median of the rounds' ratios, the line goes from the lowest to the \
                       highest, the upright line is the bound.</p>",
        );
        page.push_str(&plot::bars(&report.bars)?);
    }
    page.push_str(&bar_table(&report.bars)?);
    for part in &report.parts {
        page.push_str(&of_part(part)?);
    }
    page.push_str(&on_what(report)?);
    page.push_str("</body></html>\n");
    Ok(page)
}

/// For text between tags and in attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn sum(bars: &[Verdict]) -> String {
    let count = |word: &str| bars.iter().filter(|verdict| verdict.word() == word).count();
    format!(
        "<span class=\"PASS\">{} PASS</span> · <span class=\"FAIL\">{} FAIL</span> · \
         <span class=\"not\">{} not run</span>",
        count("PASS"),
        count("FAIL"),
        count("not run")
    )
}

fn bar_table(bars: &[Verdict]) -> Result<String> {
    let mut table = "<table><tr><th>bar<th>what<th>bound<th>median<th>spread<th></tr>".to_owned();
    let mut last = 0;
    for verdict in bars {
        if verdict.bar_number != last {
            last = verdict.bar_number;
            write!(table, "<tr><th>{last}<th colspan=\"5\">{}</tr>", bar_title(last))?;
        }
        let sign = match verdict.bar {
            super::Bar::AtMost(_) => "≤",
            super::Bar::AtLeast(_) => "≥",
        };
        let bound = short(verdict.bar.bound());
        write!(table, "<tr><td><td>{}<td class=\"n\">{sign} {bound} {}", escaped(verdict.text), verdict.unit)?;
        match (&verdict.outcome, verdict.measured()) {
            (Outcome::NotRun(needs), _) => write!(table, "<td><td><td class=\"not\">not run: {}</tr>", escaped(needs))?,
            (_, Some((value, low, high))) => write!(
                table,
                "<td class=\"n\">{value:.3}<td class=\"n\">{low:.3} – {high:.3}<td class=\"{0}\">{0}{1}</tr>",
                verdict.word(),
                if verdict.unsteady { ", unsteady" } else { "" }
            )?,
            (_, None) => unreachable!("what has passed or failed was measured"),
        }
    }
    table.push_str("</table>");
    Ok(table)
}

fn of_part(part: &PartRecord) -> Result<String> {
    let mut text = format!("<h2>{}</h2>", escaped(part.part));
    write!(text, "<p class=\"small\">{:.0} s. {}</p>", part.seconds, escaped(&part.not_said.join(" ")))?;
    if let Some(failure) = &part.failure {
        write!(text, "<p class=\"FAIL\">could not be run to its end: {}</p>", escaped(failure))?;
    }
    if !part.findings.figures.is_empty() {
        text.push_str(&figure_table(&part.findings.figures)?);
    }
    text.push_str("<div class=\"grid\">");
    for curve in &part.findings.curves {
        let title = escaped(&format!("{}: {} by {}", curve.name, curve.y, curve.x));
        write!(text, "<div><h3>{title}</h3>{}</div>", plot::curve(curve)?)?;
    }
    text.push_str("</div><div class=\"grid\">");
    for cell in &part.findings.cells {
        text.push_str(&of_cell(cell)?);
    }
    text.push_str("</div>");
    Ok(text)
}

fn figure_table(figures: &[Figure]) -> Result<String> {
    let mut table = "<table><tr><th>figure<th>median<th>spread<th>bar<th><th>behind it</tr>".to_owned();
    for figure in figures {
        let (bound, word) = match figure.bar {
            Some(bar) => (bar.text(), if bar.holds(figure.value) { "PASS" } else { "FAIL" }),
            None => (String::new(), ""),
        };
        write!(
            table,
            "<tr><td>{}<td class=\"n\">{} {}<td class=\"n\">{} – {}<td class=\"n\">{}\
             <td class=\"{word}\">{word}<td>{}</tr>",
            escaped(&figure.name),
            short(figure.value),
            figure.unit,
            short(figure.spread.0),
            short(figure.spread.1),
            escaped(&bound),
            escaped(&figure.detail)
        )?;
    }
    table.push_str("</table>");
    Ok(table)
}

fn of_cell(cell: &Cell) -> Result<String> {
    let mut text = format!("<div><h3>{}, {}</h3>{}", escaped(&cell.name), cell.unit, plot::cell(cell)?);
    if cell.readings.iter().any(|reading| reading.latency.is_some()) {
        write!(
            text,
            "{}<div class=\"small\">{}</div>",
            plot::latencies(&cell.readings)?,
            plot::legend(&cell.readings)
        )?;
    }
    if cell.readings.iter().any(|reading| !reading.seconds.is_empty()) {
        text.push_str("<div class=\"small\">answers in each second</div>");
        text.push_str(&plot::seconds(&cell.readings)?);
    }
    text.push_str(&cost_table(&cell.readings)?);
    let drift = cell.drift_percent().map(|drift| format!("raw disk meanwhile: {drift:.0} % from lowest to highest; "));
    write!(
        text,
        "<div class=\"small\">{}<code>{}</code></div></div>",
        drift.unwrap_or_default(),
        escaped(&cell.command)
    )?;
    Ok(text)
}

fn cost_table(readings: &[Reading]) -> Result<String> {
    if readings.iter().all(|reading| reading.latency.is_none() && reading.costs.is_empty()) {
        return Ok(String::new());
    }
    let mut table = "<table class=\"small\"><tr><th><th>p50<th>p99<th>p99.9 µs<th>CPU µs<th>switches\
                     <th>bytes<th>by disk<th>MiB</tr>"
        .to_owned();
    for reading in readings {
        write!(table, "<tr><td>{}", escaped(reading.candidate))?;
        match &reading.latency {
            Some(l) => {
                write!(table, "<td class=n>{:.0}<td class=n>{:.0}<td class=n>{:.0}", l.p50_us, l.p99_us, l.p999_us)?;
            }
            None => table.push_str("<td><td><td>"),
        }
        match reading.usual_costs() {
            Some(c) => write!(
                table,
                "<td class=n>{:.1}<td class=n>{:.2}<td class=n>{:.2}<td class=n>{:.2}<td class=n>{:.0}",
                c.cpu_us_per_op, c.switches_per_op, c.written_per_user_byte, c.disk_per_user_byte, c.memory_mib
            )?,
            None => table.push_str("<td><td><td><td><td>"),
        }
        table.push_str("</tr>");
    }
    table.push_str("</table>");
    Ok(table)
}

fn on_what(report: &Report) -> Result<String> {
    let machine = &report.machine;
    let mut text = "<h2>On what</h2><table>".to_owned();
    let cores = format!("{} cores, {} MiB, load {} at the start", machine.cores, machine.memory_mib, machine.load);
    let mut rows = vec![
        ("processor", machine.processor.clone()),
        ("machine", cores),
        ("kernel", machine.kernel.clone()),
        ("filesystem", machine.filesystem.clone()),
    ];
    rows.extend(machine.versions.iter().map(|(name, version)| (name.as_str(), version.clone())));
    for (name, value) in rows {
        write!(text, "<tr><td>{}<td>{}</tr>", escaped(name), escaped(&value))?;
    }
    text.push_str("</table><h2>What the figures are not</h2><ul>");
    for not in report.parts.iter().flat_map(|part| part.not_said) {
        write!(text, "<li>{}", escaped(not))?;
    }
    text.push_str(
        "<li>Speed over a real network, or on disks with power-loss protection: all is on one machine and disk.</ul>",
    );
    Ok(text)
}
