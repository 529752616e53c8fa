//! `ashlar-rebuild-demo`: a node under twelve volumes of four classes is lost for good, and another while the first is
//! being made up for; played twice, in the order of urgency and first come first served.
//!
//! Exits 0 only if all of it holds (`report`), and leaves nothing on the machine, on failure and on Ctrl-C too.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod report;

use anyhow::Result;
use ashlar_tests::{Clock, LossPlan, LossResult, Stage, clear_stage, play_loss};
use clap::Parser;
use report::Report;
use std::process::ExitCode;

/// When so much of the first loss is made up for, the second comes.
const SECOND_LOSS_PERCENT: u64 = 35;

/// Two nodes are lost under twelve volumes of four classes; in which order they are made whole.
#[derive(Debug, Parser)]
#[command(name = "ashlar-rebuild-demo", version)]
struct Arguments {
    /// Size of each volume, all of which is written.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(64..=65_536))]
    volume_mib: u64,
    /// What all copies of the cluster together may take, in MiB per second.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(8..=8192))]
    copy_limit_mib: u64,
    /// Shuffles the classes over the queue.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Should the demo fail, the daemons' logs are left in a folder of their own.
    #[arg(long)]
    keep_logs_on_failure: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ashlar-rebuild-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let (stage, clock) = (Stage::set_up("rebuild-demo")?, Clock::start());
    let holds = match play(arguments, &stage, clock) {
        Ok(report) => {
            println!("\n{}", report.text());
            report.failures().is_empty()
        }
        Err(error) => {
            eprintln!("ashlar-rebuild-demo: FAILED: {error:#}");
            false
        }
    };
    if !holds && arguments.keep_logs_on_failure {
        eprintln!("the logs are in {}", stage.keep_logs()?.display());
    }
    clear_stage(stage.dir())?;
    Ok(holds)
}

fn play(arguments: &Arguments, stage: &Stage, clock: Clock) -> Result<Report> {
    let in_order = |order: &'static str| -> Result<LossResult> {
        let plan = LossPlan {
            order,
            seed: arguments.seed,
            volume_mib: arguments.volume_mib,
            copy_limit_mib: arguments.copy_limit_mib,
            second_loss_percent: Some(SECOND_LOSS_PERCENT),
        };
        play_loss(&stage.cluster_dir(), &plan, clock)
    };
    Ok(Report { ours: in_order("urgency")?, first_come: in_order("first-come")? })
}
