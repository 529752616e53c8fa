//! `ashlar-demo`: a real database on a replicated volume; a chunkserver dies in the middle, then everything does.
//!
//! Exits 0 only if all of it holds (`report`), and leaves nothing on the machine, on failure and on Ctrl-C too
//! (`stage`).
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod events;
mod ledger;
mod report;
mod story;
mod sysbench;

use anyhow::Result;
use ashlar_tests::{Clock, Stage, clear_stage};
use clap::Parser;
use std::process::ExitCode;
use story::Failure;

/// A MariaDB under load on a replicated volume, through the death of a chunkserver and of everything.
#[derive(Debug, Parser)]
#[command(name = "ashlar-demo", version)]
struct Arguments {
    /// How long the load runs; a chunkserver dies after a third and returns after two thirds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(12..=3600))]
    seconds: u64,
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
            eprintln!("ashlar-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let stage = Stage::set_up("demo")?;
    let outcome = story::tell(&stage, arguments.seconds, Clock::start());
    let holds = match outcome {
        Ok(report) => {
            println!("\n{}", report.table());
            report.failures().is_empty()
        }
        Err(Failure { step, error, logs }) => {
            eprintln!("\n{logs}\nashlar-demo: FAILED while {step}: {error:#}");
            false
        }
    };
    if !holds && arguments.keep_logs_on_failure {
        eprintln!("the logs are in {}", stage.keep_logs()?.display());
    }
    clear_stage(stage.dir())?;
    Ok(holds)
}
