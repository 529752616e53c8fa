//! Plots as SVG text, to stand in the page. Colours say who, and on the bars whether they hold.

use super::table::short;
use super::{Cell, Curve, Figure, Reading, Verdict};
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const GOOD: RGBColor = RGBColor(26, 127, 55);
const BAD: RGBColor = RGBColor(207, 34, 46);
const INK: RGBColor = RGBColor(31, 35, 40);
const FAINT: RGBColor = RGBColor(175, 184, 193);
const FONT: &str = "sans-serif";
const ROW: u32 = 26;
/// The widest that a bar is shown beside its bound.
const RATIO_SHOWN: Range<f64> = 0.1..10.0;

fn colour(candidate: &str, at: usize) -> RGBColor {
    const OTHERS: [RGBColor; 4] =
        [RGBColor(130, 80, 223), RGBColor(191, 135, 0), RGBColor(17, 99, 41), RGBColor(87, 96, 106)];
    match candidate {
        "L1" => RGBColor(140, 149, 159),
        "L3" => RGBColor(87, 96, 106),
        "LN" => RGBColor(31, 136, 143),
        "Ashlar" => RGBColor(9, 105, 218),
        "Ceph RBD" => RGBColor(188, 76, 0),
        _ => OTHERS[at % OTHERS.len()],
    }
}

/// Median, lowest, highest.
fn spread(rounds: &[f64]) -> (f64, f64, f64) {
    let figure = Figure::told("", "", rounds.to_vec(), String::new());
    (figure.value, figure.spread.0, figure.spread.1)
}

/// Each clause that was measured, as a multiple of its bound, from low to high; the line is the bound.
pub(super) fn bars(verdicts: &[Verdict]) -> Result<String> {
    let rows: Vec<(&Verdict, (f64, f64, f64))> =
        verdicts.iter().filter_map(|verdict| Some((verdict, verdict.measured()?))).collect();
    let (width, height) = (1000, ROW * (rows.len() as u32 + 2));
    let mut svg = String::new();
    {
        let root: Area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let (_, plot) = root.split_horizontally(430);
        let mut chart = ChartBuilder::on(&plot).margin_right(20).x_label_area_size(ROW).build_cartesian_2d(
            RATIO_SHOWN.log_scale().with_key_points(vec![0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0]),
            -(rows.len() as f64)..0.5,
        )?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_y_mesh().disable_y_axis().light_line_style(WHITE).bold_line_style(FAINT.mix(0.4));
        mesh.x_label_formatter(&|x| format!("{} x bound", short(*x))).label_style((FONT, 12)).draw()?;
        chart.draw_series(LineSeries::new([(1.0, -(rows.len() as f64)), (1.0, 0.5)], INK.stroke_width(2)))?;
        let clip = |value: f64| value.clamp(RATIO_SHOWN.start, RATIO_SHOWN.end);
        for (at, (verdict, (value, low, high))) in rows.iter().enumerate() {
            let (bound, y) = (verdict.bar.bound(), -(at as f64) - 0.5);
            let tone = if verdict.word() == "PASS" { GOOD } else { BAD };
            let line = [(clip(low / bound), y), (clip(high / bound), y)];
            chart.draw_series(LineSeries::new(line, tone.stroke_width(3)))?;
            chart.draw_series([Circle::new((clip(value / bound), y), 6, tone.filled())])?;
            let label = format!("{}. {}", verdict.bar_number, verdict.text);
            let beside = (4, chart.backend_coord(&(1.0, y)).1 - 8);
            root.draw(&Text::new(label, beside, (FONT, 13).into_font().color(&tone)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// A bar for each candidate, from low to high on top of it.
pub(super) fn cell(cell: &Cell) -> Result<String> {
    let values: Vec<_> = cell.readings.iter().map(|reading| spread(&reading.rounds)).collect();
    let top = values.iter().map(|value| value.2).fold(0.0, f64::max).max(1e-9) * 1.15;
    let mut svg = String::new();
    {
        let root: Area =
            SVGBackend::with_string(&mut svg, (480, 40 + ROW * cell.readings.len() as u32)).into_drawing_area();
        let (_, plot) = root.split_horizontally(150);
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(55)
            .x_label_area_size(24)
            .build_cartesian_2d(0.0..top, -(cell.readings.len() as f64)..0.0)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_y_mesh().disable_y_axis().light_line_style(WHITE).bold_line_style(FAINT.mix(0.4)).x_labels(4);
        mesh.label_style((FONT, 11)).x_label_formatter(&|x| short(*x)).draw()?;
        for (at, (reading, (value, low, high))) in cell.readings.iter().zip(values).enumerate() {
            let (y, tone) = (-(at as f64), colour(reading.candidate, at));
            chart.draw_series([Rectangle::new([(0.0, y - 0.18), (value, y - 0.82)], tone.filled())])?;
            chart.draw_series(LineSeries::new([(low, y - 0.5), (high, y - 0.5)], INK.stroke_width(2)))?;
            let number = if value >= 10.0 { format!("{value:.0}") } else { short(value) };
            let style = (FONT, 12).into_font().color(&INK);
            chart.draw_series([Text::new(format!(" {number}"), (value.max(high), y - 0.32), style.clone())])?;
            let beside = (4, chart.backend_coord(&(0.0, y - 0.5)).1 - 7);
            root.draw(&Text::new(reading.candidate, beside, style))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// How many operations took no longer than so much; the higher, the rarer: 0, 90 %, 99 %, 99.9 %.
pub(super) fn latencies(readings: &[Reading]) -> Result<String> {
    let rarity = |share: f64| -(1.0 - share).max(1e-5).log10();
    let curve_of = |reading: &Reading| -> Vec<(f64, f64)> {
        let curve = reading.latency.iter().flat_map(|latency| latency.curve.iter());
        curve.map(|(us, share)| (us.max(1.0), rarity(*share))).collect()
    };
    let curves: Vec<Vec<(f64, f64)>> = readings.iter().map(curve_of).collect();
    let all = || curves.iter().flatten().map(|(us, _)| *us);
    let (low, high) = (all().fold(1e6, f64::min), all().fold(10.0, f64::max));
    let lines = readings.iter().zip(curves).map(|(reading, curve)| (reading.candidate, curve)).collect();
    let label = |y: f64| match y.round() as i64 {
        0 => "0".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines as usize - 2)),
    };
    let svg = lines_on(lines, (low * 0.9)..(high * 1.2), 0.0..5.0, "us", &label, true)?;
    Ok(svg)
}

/// Answers in each second.
pub(super) fn seconds(readings: &[Reading]) -> Result<String> {
    let points = |reading: &Reading| -> Vec<(f64, f64)> {
        reading.seconds.iter().enumerate().map(|(at, count)| (at as f64, f64::from(*count))).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        readings.iter().map(|reading| (reading.candidate, points(reading))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let (end, top) = all().fold((1.0f64, 1.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
    lines_on(lines, 0.0..end, 0.0..top * 1.1, "s", &|y| format!("{y:.0}"), false)
}

/// Medians, with the spread at each point.
pub(super) fn curve(curve: &Curve) -> Result<String> {
    let points: Vec<(f64, (f64, f64, f64))> =
        curve.points.iter().map(|point| (point.x.max(0.5), spread(&point.rounds))).collect();
    let (low, high) = points.iter().fold((1e18f64, 0.5f64), |(low, high), (x, _)| (low.min(*x), high.max(*x)));
    let top = points.iter().map(|(_, value)| value.2).fold(0.0, f64::max).max(1e-9) * 1.15;
    let mut lines = vec![("median", points.iter().map(|(x, value)| (*x, value.0)).collect::<Vec<_>>())];
    lines.extend(points.iter().map(|(x, (_, least, most))| ("", vec![(*x, *least), (*x, *most)])));
    // The title says what the axis counts.
    lines_on(lines, low..high.max(low * 1.01), 0.0..top, "", &short, true)
}

type Line<'a> = (&'a str, Vec<(f64, f64)>);

fn lines_on(
    lines: Vec<Line>,
    x: Range<f64>,
    y: Range<f64>,
    unit: &str,
    y_label: &dyn Fn(f64) -> String,
    log: bool,
) -> Result<String> {
    // On a logarithmic axis, else evenly.
    let place = |value: f64| if log { value.log10() } else { value };
    let back = |place: f64| if log { 10f64.powf(place) } else { place };
    let mut svg = String::new();
    {
        let root: Area = SVGBackend::with_string(&mut svg, (480, 260)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(26)
            .y_label_area_size(64)
            .build_cartesian_2d(place(x.start)..place(x.end), y)?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE).bold_line_style(FAINT.mix(0.4)).label_style((FONT, 11)).x_labels(5).y_labels(6);
        mesh.x_label_formatter(&|x| format!("{} {unit}", rounded(back(*x))))
            .y_label_formatter(&|y| y_label(*y))
            .draw()?;
        for (at, (name, points)) in lines.into_iter().enumerate() {
            let tone = if name.is_empty() { INK } else { colour(name, at) };
            let points = points.into_iter().map(|(x, y)| (place(x), y));
            chart.draw_series(LineSeries::new(points, tone.stroke_width(2)))?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// Two leading digits.
fn rounded(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let unit = 10f64.powf(value.abs().log10().floor() - 1.0);
    short((value / unit).round() * unit)
}

/// Who has which colour, as a line of HTML.
pub(super) fn legend(readings: &[Reading]) -> String {
    let entry = |(at, reading): (usize, &Reading)| {
        let RGBColor(red, green, blue) = colour(reading.candidate, at);
        format!("<span class=\"key\" style=\"background:rgb({red},{green},{blue})\"></span>{}", reading.candidate)
    };
    readings.iter().enumerate().map(entry).collect::<Vec<_>>().join(" ")
}
