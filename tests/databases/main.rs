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
mod restores;
mod rounds;
mod stage;

use anyhow::Result;
use ashlar_tests::{clear_stage, on_interrupt};
use clap::Parser;
use stage::Stage;
use std::process::ExitCode;

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
    let dir = stage.dir().to_owned();
    on_interrupt("ashlar-databases", move || clear_stage(&dir))?;
    let outcome = play(&stage, arguments);
    clear_stage(stage.dir())?;
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
