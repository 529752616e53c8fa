//! `ashlar-demo`: a real database on a replicated volume; a chunkserver dies in the middle, then everything does.
//!
//! Exits 0 only if all of it holds (`report`), and leaves nothing on the machine, on failure and on Ctrl-C too
//! (`stage`).
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod clock;
mod events;
mod ledger;
mod report;
mod stage;
mod story;
mod sysbench;

use anyhow::{Context, Result};
use clap::Parser;
use clock::Clock;
use stage::Stage;
use std::{path::PathBuf, process::ExitCode};
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
    let stage = Stage::set_up()?;
    clear_on_signal(stage.dir().to_owned())?;
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
    stage::clear(stage.dir())?;
    Ok(holds)
}

/// Ctrl-C and SIGTERM end the demo at once and leave no more behind than its own end does.
fn clear_on_signal(dir: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    std::thread::spawn(move || {
        let waited = runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                signal = tokio::signal::ctrl_c() => signal,
                _ = terminate.recv() => Ok(()),
            }
        });
        if let Err(error) = waited {
            eprintln!("ashlar-demo: cannot hear of signals: {error}");
            return;
        }
        eprintln!("\nashlar-demo: interrupted, clearing away");
        if let Err(error) = stage::clear(&dir) {
            eprintln!("ashlar-demo: {error:#}");
        }
        std::process::exit(130);
    });
    Ok(())
}
