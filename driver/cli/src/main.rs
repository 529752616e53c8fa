//! `ashlar`: parses the arguments, runs the command, and tells how it ended.

use ashlar_cli::args::{Arguments, Command};
use ashlar_cli::{client, cluster, dev, snapshot, volume};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start the runtime")),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // The chain on one line: what was tried, then why it failed.
    eprintln!("ashlar: {}", format!("{error:#}").replace('\n', " | "));
    ExitCode::from(1)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let endpoint = client::Endpoint { control: arguments.control, dir: arguments.dir };
    match arguments.command {
        Command::Dev(command) => dev::run(command, endpoint.dir).await,
        Command::Volume(command) => volume::run(command, &endpoint).await,
        Command::Snapshot(command) => snapshot::run(command, &endpoint).await,
        Command::Node(command) => cluster::nodes(command, &endpoint).await,
        Command::Disk(command) => cluster::disks(command, &endpoint).await,
        Command::Cluster(command) => cluster::status(command, &endpoint).await,
        Command::Events(command) => cluster::events(command, &endpoint).await,
    }
}
