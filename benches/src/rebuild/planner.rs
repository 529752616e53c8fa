//! How long the planner thinks when one of 1,000 nodes is lost: `lost_node`, an example of the planner's crate, which
//! has the simulated cluster.

use crate::report::{Bar, Figure};
use anyhow::{Context, Result};
use ashlar_tests::{program, run_ok};

pub(crate) fn measure() -> Result<Vec<Figure>> {
    eprintln!("the planner on 1,000 nodes and 1,000,000 chunks");
    let printed = run_ok(program("examples/lost_node")?, Vec::<String>::new())?;
    let longest = |line: &str| -> Result<f64> {
        let figure = line.split_once("after the loss ").and_then(|(_, rest)| rest.split_once(" ms"));
        figure.and_then(|(figure, _)| figure.parse().ok()).with_context(|| format!("a time in {line:?}"))
    };
    let times = printed.lines().map(longest).collect::<Result<Vec<f64>>>()?;
    let worst = times.into_iter().fold(0.0, f64::max);
    let detail = "longest look; 976 and 15,625 volumes".to_owned();
    Ok(vec![Figure::of_rounds("planner, a node of 1,000 lost", "ms", vec![worst], Bar::AtMost(2000.0), detail)])
}
