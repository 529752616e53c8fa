//! `ashlar-datapath`: the node's volume engine as a process.

use ashlar_datapath::{Config, RunFlags, StatusFlags};
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

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
            // fuser warns when a mount is gone that was taken away on purpose.
            let filter = EnvFilter::try_from_env("ASHLAR_LOG").unwrap_or_else(|_| EnvFilter::new("info,fuser=error"));
            let is_terminal = std::io::stderr().is_terminal();
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(is_terminal)
                .with_writer(std::io::stderr)
                .init();
            runtime.block_on(ashlar_datapath::run(Config::from_flags(flags)?))
        }
        Command::Status(flags) => runtime.block_on(ashlar_datapath::status(flags)),
    }
}
