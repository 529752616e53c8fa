//! `ashlar-torture`: the cluster of `ashlar dev up`, guests on NBD that write down what they ask for and see, and
//! rounds in which daemons are killed, stopped and cut off from each other. The simulator's checker reads what was
//! written down.
//!
//! Exits 0 only if nothing was wrong, and leaves nothing on the machine, on failure and on Ctrl-C too, but the logs of
//! a failure.
#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "in a program, `pub` tells what a module offers to the others")]

mod api;
mod arena;
mod content;
mod fault;
mod finish;
mod guest;
mod keeper;
mod record;
mod report;
mod rounds;
mod sabotage;
mod stage;
mod usurp;

use anyhow::{Context, Result, ensure};
use ashlar_tests::faults::in_own_network;
use ashlar_tests::{clear_stage, on_interrupt};
use clap::Parser;
use rounds::{Bound, Play};
use stage::Stage;
use std::process::ExitCode;
use std::time::Duration;

/// Real daemons under SIGKILL, SIGSTOP and partitions, their history read by the simulator's checker.
#[derive(Debug, Parser)]
#[command(name = "ashlar-torture", version)]
struct Arguments {
    /// No new round begins after so many minutes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Nor after so many rounds.
    #[arg(long, default_value_t = u32::MAX)]
    rounds: u32,
    /// Draws faults, places and operations. What the machine makes of them differs from run to run.
    #[arg(long)]
    seed: Option<u64>,
    /// In the end the disks and the catalog are put back to an older state, so writes are lost: the run fails unless
    /// the checker finds that.
    #[arg(long)]
    sabotage: bool,
}

/// In ten minutes there are some 200 rounds. Far fewer, and the run has proven less than it says.
const ROUNDS_PER_MINUTE_MIN: u32 = 10;
/// Shorter runs need not have met every kind of fault.
const LONG_RUN_MINUTES: u32 = 10;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ stage::now_seconds());
    match run(&arguments, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-torture: FAILED with seed {seed}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, seed: u64) -> Result<()> {
    let stage = Stage::set_up()?;
    let dir = stage.dir().to_owned();
    on_interrupt("ashlar-torture", move || clear_stage(&dir))?;
    println!("seed {seed}: three nodes in {}", stage.dir().display());
    let outcome = in_own_network(|| torture(&stage, arguments, seed));
    clear_stage(stage.dir())?;
    outcome
}

fn torture(stage: &Stage, arguments: &Arguments, seed: u64) -> Result<()> {
    let mut play = Play::set_up(&stage.cluster_dir(), seed)?;
    let outcome = play_to_the_end(&mut play, arguments);
    if let Err(error) = outcome {
        // What is stopped or cut off could not be taken down in good order.
        play.heal().context("heal after a failure").unwrap_or_else(|second| eprintln!("{second:#}"));
        let kept = stage.keep_logs(seed)?;
        return Err(error.context(format!("the daemons' logs are in {}", kept.display())));
    }
    play.arena.cluster.down().context("stop the cluster")
}

fn play_to_the_end(play: &mut Play, arguments: &Arguments) -> Result<()> {
    let time = Duration::from_secs(u64::from(arguments.minutes) * 60);
    if arguments.sabotage {
        return sabotage::play(play, Bound { rounds: arguments.rounds, time });
    }
    play.rounds(Bound { rounds: arguments.rounds, time })?;
    let records = play.dismiss()?;
    let outcome = finish::finish(play, &records);
    play.report.tell(&records);
    outcome?;
    let whole = arguments.minutes >= LONG_RUN_MINUTES && arguments.rounds == u32::MAX;
    if whole {
        let least = arguments.minutes * ROUNDS_PER_MINUTE_MIN;
        ensure!(play.report.rounds >= least, "only {} rounds, where {least} are the least", play.report.rounds);
        ensure!(play.report.never().is_empty(), "these faults never struck: {}", play.report.never().join(", "));
    }
    println!("nothing was lost, nothing came back, nothing is torn, replicas are equal");
    Ok(())
}
