//! `ashlar-driver`: the control plane with the CSI controller, or the CSI service of one node.

use ashlar_driver::config::{Cli, Mode};
use ashlar_driver::control::server;
use ashlar_driver::node_server;
use ashlar_driver::shutdown::Shutdown;
use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// gRPC only, never on the path of an I/O: two threads are enough.
const THREADS: usize = 2;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-driver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("ASHLAR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).json().init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = Shutdown::on_signal()?;
        match &cli.mode {
            Mode::Control(config) => server::run(config, shutdown).await,
            Mode::Node(config) => node_server::run(config, shutdown).await,
        }
    });
    // A call that was cut off may still hold a thread; the process ends without it.
    runtime.shutdown_background();
    result
}
