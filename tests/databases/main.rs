//! `ashlar-databases`: a PostgreSQL with checksums and fio with verification on replicated volumes, through rounds in
//! which a chunkserver, the control plane or everything dies. After every round the databases' own checkers must find
//! nothing. Then PostgreSQL and MariaDB are restored from snapshots that were taken under load.
//!
//! Exits 0 only if every round was clean, and leaves nothing on the machine, on failure and on Ctrl-C too.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod checks;
mod fio;
mod ledger;
mod mariadb;
mod pgbench;
mod postgres;
mod restores;
mod rounds;
mod stage;

use anyhow::{Context, Result};
use clap::Parser;
use stage::Stage;
use std::{path::PathBuf, process::ExitCode};

/// Databases on replicated volumes, through rounds of kills and restores, each followed by every check there is.
#[derive(Debug, Parser)]
#[command(name = "ashlar-databases", version)]
struct Arguments {
    /// Odd rounds kill a chunkserver or the control plane under load, even ones kill everything.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100_000))]
    rounds: u32,
    /// How many times each database is then restored from a snapshot.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=1000))]
    restores: u32,
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
    let outcome = play(&stage, arguments);
    stage::clear(stage.dir())?;
    outcome
}

fn play(stage: &Stage, arguments: &Arguments) -> Result<()> {
    if arguments.rounds > 0 {
        rounds::play(stage, arguments.rounds)?;
    }
    if arguments.restores > 0 {
        restores::play(stage, arguments.restores)?;
    }
    Ok(())
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
