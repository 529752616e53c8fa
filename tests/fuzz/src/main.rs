//! `ashlar-fuzz`: runs the targets under libFuzzer and says what came of it, and keeps their corpora.

use anyhow::{Context, Result, bail, ensure};
use ashlar_fuzz::campaign::{self, Campaign};
use ashlar_fuzz::{Target, corpus, seeds, slips};
use clap::{Parser, Subcommand};
use std::fs;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Fuzz targets: run them, replay an input, keep their corpora")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the worker and runs targets; ends with an error when something is found.
    Run {
        /// For each target.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Begins from the repository's corpus alone, and with this seed; else from all that was ever found too.
        #[arg(long)]
        seed: Option<u32>,
        /// Targets at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only these; all, if none is named.
        #[arg(long = "target")]
        targets: Vec<String>,
    },
    /// Checks the fuzzer: builds the worker with deliberate bugs and runs each bug's target until it is found.
    Slips {
        /// For each bug.
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Bugs at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only these bugs, by name.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Runs inputs once, without a fuzzer: panics where the fuzzer found something.
    Replay { target: String, inputs: Vec<PathBuf> },
    /// Writes the inputs to begin with, made of real values, into the repository's corpora.
    Seed,
    /// Takes what the fuzzer has found worth keeping into the repository's corpus, within its bounds.
    Keep { targets: Vec<String> },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run { seconds, seed, jobs, targets } => {
            let targets = named(&targets)?;
            let worker = campaign::build_worker(false)?;
            let found = Campaign { worker, seconds, seed }.run(&targets, jobs.max(1))?;
            ensure!(found == 0, "{found} of {} targets found something, or too little", targets.len());
        }
        Command::Slips { seconds, jobs, only } => {
            let worker = campaign::build_worker(true)?;
            let alive = slips::check(&worker, seconds, jobs.max(1), &only)?;
            ensure!(alive == 0, "{alive} deliberate bugs were not found");
        }
        Command::Replay { target, inputs } => {
            let target = one(&target)?;
            for path in inputs {
                (target.run)(&fs::read(&path).with_context(|| format!("read {}", path.display()))?);
                println!("{}: nothing wrong", path.display());
            }
        }
        Command::Seed => {
            for (target, inputs) in seeds::all() {
                println!("{target}: {} new inputs", corpus::add(target, &inputs)?);
            }
        }
        Command::Keep { targets } => {
            let worker = campaign::build_worker(false)?;
            for target in named(&targets)? {
                let kept = Campaign { worker: worker.clone(), seconds: 0, seed: None }.keep(target)?;
                println!("{}: {kept} inputs", target.name);
            }
        }
    }
    Ok(())
}

fn one(name: &str) -> Result<&'static Target> {
    match Target::named(name) {
        Some(target) => Ok(target),
        None => bail!("{name} is no target; there are {}", campaign::names().join(", ")),
    }
}

fn named(names: &[String]) -> Result<Vec<&'static Target>> {
    match names {
        [] => Ok(ashlar_fuzz::TARGETS.iter().collect()),
        names => names.iter().map(|name| one(name)).collect(),
    }
}
