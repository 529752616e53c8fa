//! Prints answers: a table for people, JSON for programs.

use crate::args::Format;
use serde::Serialize;
use std::io::Write;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

/// Rows under a heading. Without rows there is only the heading.
pub struct Table(Builder);

impl Table {
    pub fn new<const N: usize>(heading: [&str; N]) -> Table {
        let mut builder = Builder::default();
        builder.push_record(heading);
        Table(builder)
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push_record(cells);
    }

    pub fn print(self) {
        let mut table = self.0.build();
        table.with(Style::blank()).with(Padding::new(0, 2, 0, 0));
        print_lines(&table.to_string());
    }
}

/// Names on the left, values on the right.
#[derive(Default)]
pub struct Sheet(Builder);

impl Sheet {
    pub fn line(&mut self, name: &str, value: impl ToString) {
        self.0.push_record([name.to_owned(), value.to_string()]);
    }

    pub fn print(self) {
        let mut table = self.0.build();
        table.with(Style::blank()).with(Padding::new(0, 2, 0, 0));
        print_lines(&table.to_string());
    }
}

fn print_lines(text: &str) {
    for text in text.lines() {
        line(text.trim_end());
    }
}

/// One line of the answer. A reader that has seen enough (`| head`) is no failure.
pub fn line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}") {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("ashlar: write the answer: {error}");
            std::process::exit(1);
        }
    }
}

pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// One line, for streams.
pub fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// JSON if asked for, else what `table` prints.
pub fn print<T: Serialize>(format: Format, value: &T, table: impl FnOnce(&T)) -> anyhow::Result<()> {
    if format.json {
        return print_json(value);
    }
    table(value);
    Ok(())
}

/// A dash for what is empty or unknown.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
