//! What is printed: a row a figure, with its bar; the same as JSON.

use serde::Serialize;
use tabled::{Table, Tabled, settings::Style};

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtMost(bound) => value <= bound,
            Bar::AtLeast(bound) => value >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Bar::AtMost(bound) => format!("<= {bound}"),
            Bar::AtLeast(bound) => format!(">= {bound}"),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Median over the rounds; lowest and highest.
    pub(crate) value: f64,
    pub(crate) spread: (f64, f64),
    pub(crate) bar: Bar,
    /// Absolute figures behind a ratio, for orientation: they hold for this machine and moment.
    pub(crate) detail: String,
}

impl Figure {
    /// From one value a round.
    pub(crate) fn of_rounds(name: &str, unit: &'static str, mut values: Vec<f64>, bar: Bar, detail: String) -> Figure {
        assert!(!values.is_empty());
        values.sort_by(f64::total_cmp);
        let value = values[values.len() / 2];
        let spread = (values[0], values[values.len() - 1]);
        Figure { name: name.to_owned(), unit, value, spread, bar, detail }
    }

    pub(crate) fn passes(&self) -> bool {
        self.bar.holds(self.value)
    }
}

#[derive(Tabled)]
struct Row {
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

pub(crate) fn print(figures: &[Figure]) {
    let row = |figure: &Figure| Row {
        name: figure.name.clone(),
        value: format!("{:.2} {}", figure.value, figure.unit),
        spread: format!("{:.2} .. {:.2}", figure.spread.0, figure.spread.1),
        bar: figure.bar.text(),
        verdict: if figure.passes() { "PASS" } else { "FAIL" },
        detail: figure.detail.clone(),
    };
    println!("{}", Table::new(figures.iter().map(row)).with(Style::sharp()));
}
