//! `ashlar-datapath`: the node's volume engine as a process.

use ashlar_datapath::{Config, RunFlags, StatusFlags};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The node's volume engine: attaches volumes and serves them as block devices.
#[derive(Parser)]
#[command(name = "ashlar-datapath", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Run(RunFlags),
    /// Show what a running datapath has attached.
    Status(StatusFlags),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-datapath: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    // One thread: it serves gRPC and nothing else. Guests' requests have a thread of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Run(flags) => {
            ashlar_datapath::start_logging();
            runtime.block_on(ashlar_datapath::run(Config::from_flags(flags)?, None))
        }
        Command::Status(flags) => runtime.block_on(ashlar_datapath::status(flags)),
    }
}
