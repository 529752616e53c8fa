//! `ashlar-databases`: a PostgreSQL with checksums and fio with verification on replicated volumes, through rounds in
//! which a chunkserver, the control plane or everything dies. After every round the databases' own checkers must find
//! nothing.
//!
//! Exits 0 only if every round was clean, and leaves nothing on the machine, on failure and on Ctrl-C too.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod checks;
mod fio;
mod ledger;
mod pgbench;
mod postgres;
mod rounds;
mod stage;

use anyhow::{Context, Result};
use clap::Parser;
use stage::Stage;
use std::{path::PathBuf, process::ExitCode};

/// PostgreSQL and fio on replicated volumes, through rounds of kills, each followed by every check there is.
#[derive(Debug, Parser)]
#[command(name = "ashlar-databases", version)]
struct Arguments {
    /// Odd rounds kill a chunkserver or the control plane under load, even ones kill everything.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-databases: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let stage = Stage::set_up()?;
    clear_on_signal(stage.dir().to_owned())?;
    let outcome = rounds::play(&stage, arguments.rounds);
    stage::clear(stage.dir())?;
    outcome
}

/// Ctrl-C and SIGTERM end the program at once and leave no more behind than its own end does.
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
            eprintln!("ashlar-databases: cannot hear of signals: {error}");
            return;
        }
        eprintln!("\nashlar-databases: interrupted, clearing away");
        if let Err(error) = stage::clear(&dir) {
            eprintln!("ashlar-databases: {error:#}");
        }
        std::process::exit(130);
    });
    Ok(())
}
