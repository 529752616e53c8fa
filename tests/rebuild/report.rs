//! What the demo found, as two tables, and whether all of it holds.

use ashlar_tests::LossResult;
use std::time::Duration;
use tabled::{
    builder::Builder,
    settings::{Alignment, Modify, Style, object::Rows},
};

/// The same story twice, from the same seed.
pub struct Report {
    pub ours: LossResult,
    pub first_come: LossResult,
}

impl Report {
    /// What does not hold; empty if all does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = vec![];
        let mut hold = |holds: bool, text: &str| {
            if !holds {
                failures.push(text.to_owned());
            }
        };
        let classes = &self.ours.classes;
        hold(classes.is_sorted_by_key(|class| class.whole_after), "the classes were not whole in order");
        hold(
            classes.is_sorted_by_key(|class| class.whole_for_good_after),
            "the classes were not whole for good in order",
        );
        hold(
            classes[0].whole_after < self.first_come.classes[0].whole_after,
            "critical volumes were not whole sooner than first come first served",
        );
        for run in [&self.ours, &self.first_come] {
            hold(run.compared.differing == 0, "replicas differ");
            hold(run.compared.blocks_compared > 0 && run.writes > 0, "nothing was compared");
        }
        failures
    }

    pub fn text(&self) -> String {
        format!("{}\n{}", self.by_class(), self.whole())
    }

    fn by_class(&self) -> String {
        let mut table = Builder::default();
        table.push_record([
            "class",
            "volumes",
            "3 replicas again after",
            "first come first served",
            "ratio",
            "for good, after a second loss",
            "first come first served",
        ]);
        for (ours, theirs) in self.ours.classes.iter().zip(&self.first_come.classes) {
            table.push_record([
                ours.name,
                &ours.volumes.to_string(),
                &seconds(ours.whole_after),
                &seconds(theirs.whole_after),
                &format!("{:.2}", ours.whole_after.as_secs_f64() / theirs.whole_after.as_secs_f64()),
                &seconds(ours.whole_for_good_after),
                &seconds(theirs.whole_for_good_after),
            ]);
        }
        built(table)
    }

    fn whole(&self) -> String {
        let mut table = Builder::default();
        table.push_record(["what", "in order of urgency", "first come first served"]);
        let mut row = |what: &str, of: &dyn Fn(&LossResult) -> String| {
            table.push_record([what, &of(&self.ours), &of(&self.first_come)]);
        };
        row("MiB lost, copied", &|run| format!("{}, {}", run.lost_bytes >> 20, run.copied_bytes >> 20));
        row("volumes that the second loss left with one replica", &|run| run.left_with_one.to_string());
        row("guests' writes, p99 before and meanwhile", &|run| {
            format!("{}, {}", milliseconds(run.quiet_p99), milliseconds(run.repairing_p99))
        });
        row("longest write (below two replicas writes wait)", &|run| seconds(run.longest_write));
        row("told after a tenth: \"protected again\", of what came", &|run| estimates(&run.estimates));
        row("acknowledged writes, missing when read back", &|run| format!("{}, 0", run.writes));
        row("replicas compared: blocks, differing", &|run| {
            format!("{}: {}, {}", run.compared.replicas, run.compared.blocks_compared, run.compared.differing)
        });
        let failures = self.failures();
        let verdict =
            if failures.is_empty() { "all holds".to_owned() } else { format!("FAILED: {}", failures.join("; ")) };
        table.push_record(["verdict", &verdict, ""]);
        built(table)
    }
}

fn built(table: Builder) -> String {
    let mut table = table.build();
    table.with(Style::rounded()).with(Modify::new(Rows::new(1..)).with(Alignment::left()));
    table.to_string()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Of several volumes, the earliest and the latest.
fn estimates(ratios: &[f64]) -> String {
    let mut percents: Vec<i64> = ratios.iter().map(|ratio| (ratio * 100.0).round() as i64).collect();
    percents.sort_unstable();
    match percents.as_slice() {
        [] => "-".to_owned(),
        [only] => format!("{only} %"),
        [first, .., last] => format!("{first} .. {last} %, {} volumes", percents.len()),
    }
}
