//! Twelve volumes of four classes that lose a replica together: when the critical ones are safe, beside first come
//! first served on the same seed, and whether what was told of the end came true.

use super::RebuildPlan;
use crate::report::{Bar, Figure};
use anyhow::{Result, ensure};
use ashlar_tests::{Clock, LossPlan, LossResult, play_loss};
use std::path::Path;

/// Scarce, so that there is an order, and what the machine has to spare.
const COPY_LIMIT_MIB: u64 = 48;
const SEED: u64 = 1;

pub(crate) fn measure(dir: &Path, plan: &RebuildPlan) -> Result<Vec<Figure>> {
    let clock = Clock::start();
    let played = |order: &'static str| -> Result<LossResult> {
        let volume_mib = plan.mixed_mib;
        let plan =
            LossPlan { order, seed: SEED, volume_mib, copy_limit_mib: COPY_LIMIT_MIB, second_loss_percent: None };
        play_loss(&dir.join(order), &plan, clock)
    };
    let (ours, theirs) = (played("urgency")?, played("first-come")?);
    let [critical, first_come] = [&ours, &theirs].map(|run| run.classes[0].whole_after.as_secs_f64());
    let detail = format!("{critical:.1} s against {first_come:.1} s, seed {SEED}");
    let name = "critical volumes safe, in order / first come first served";
    let order = Figure::of_rounds(name, "x", vec![critical / first_come], Bar::AtMost(0.35), detail);
    ensure!(!ours.estimates.is_empty(), "no volume had an estimate after a tenth of the work");
    let errors: Vec<f64> = ours.estimates.iter().map(|told| (told - 1.0).abs() * 100.0).collect();
    let detail =
        format!("{} volumes, told after a tenth of the work; told / came: {:.2?}", errors.len(), ours.estimates);
    Ok(vec![order, Figure::of_rounds("\"protected again\", error", "%", errors, Bar::AtMost(25.0), detail)])
}
