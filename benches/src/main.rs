//! `ashlar-bench`: Ashlar beside what it could be and beside others, in one run, as ratios.
//!
//! Rounds are interleaved, and a ratio is taken within a round, because the machine's speed drifts between rounds.
//! Exit status 1 if a bar does not hold, 2 if a part could not be run.

mod ceph;
mod contestant;
mod costs;
mod databases;
mod engine;
mod fio;
mod front;
mod growth;
mod guest;
mod histogram;
mod idle;
mod job;
mod load;
mod nbd;
mod offsets;
mod parts;
mod plan;
mod rebuild;
mod report;
mod snapshots;
mod speed;
mod target;

use anyhow::{Context, Result};
use ashlar_tests::{Stage, clear_stage};
use clap::{Parser, Subcommand, ValueEnum};
use parts::{Bench, Part};
use plan::Plan;
use report::{Machine, Report};
use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::PathBuf, process::ExitCode};

/// Allocates as the daemons do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ashlar beside local files and others, as ratios.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Fewer and shorter rounds on less data.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only the cells of the part `speed` whose name contains this, and nothing else.
    #[arg(long, value_name = "TEXT", value_parser = speed::cells::named, conflicts_with_all = ["only", "results"])]
    cells: Option<String>,
    /// Others that take part.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Where the JSON file and the page are written.
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    report: PathBuf,
    /// Also write the tables to this file.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Where the files of all candidates are made.
    #[arg(long, env = "TMPDIR", default_value = "/var/tmp")]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A node with the load in its own process; for the bench itself.
    #[command(hide = true)]
    Engine(ashlar_node::NodeArguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Ceph RBD, of Debian's packages.
    Ceph,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Some(Role::Engine(engine)) => engine::serve(engine).map(|()| ExitCode::SUCCESS),
        None => run(&arguments),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stage = Stage::set_up_in(&arguments.dir, "bench")?;
    std::fs::set_permissions(stage.dir(), Permissions::from_mode(0o711))?;
    let machine = Machine::look(stage.dir());
    let only = if arguments.cells.is_some() { &[Part::Speed][..] } else { &arguments.only };
    let wanted = Part::ALL.into_iter().filter(|part| only.is_empty() || only.contains(part));
    let mut plan = Plan::of(arguments.quick);
    plan.speed.only = arguments.cells.clone();
    let bench = Bench { plan, dir: stage.dir(), ceph: arguments.peers.contains(&Peer::Ceph) };
    let parts = wanted.map(|part| bench.record(part)).collect();
    clear_stage(stage.dir())?;
    let report = Report::new(machine, command(arguments), parts);
    report::print(&report);
    println!("One machine, one disk: {}.", arguments.dir.display());
    println!("Not said by these figures: speed over a real network, or on disks with power-loss protection.");
    println!("The report: {}", report.write(&arguments.report)?.display());
    if let Some(path) = &arguments.results {
        std::fs::write(path, report::results(&report)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(match (report.failed_part(), report.passes()) {
        (true, _) => ExitCode::from(2),
        (false, holds) => ExitCode::from(u8::from(!holds)),
    })
}

/// What was asked for, without where things are put.
fn command(arguments: &Arguments) -> String {
    let names = |values: Vec<String>, option: &str| match values.join(",") {
        none if none.is_empty() => none,
        some => format!(" {option} {some}"),
    };
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let only = arguments.only.iter().filter_map(|part| name(part.to_possible_value())).collect();
    let peers = arguments.peers.iter().filter_map(|peer| name(peer.to_possible_value())).collect();
    let quick = if arguments.quick { " --quick" } else { "" };
    let cells = arguments.cells.iter().map(|text| format!("'{text}'")).collect();
    format!("ashlar-bench{quick}{}{}{}", names(only, "--only"), names(cells, "--cells"), names(peers, "--peers"))
}
