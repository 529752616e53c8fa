//! `ashlar-node`: the datapath and the chunkserver of a node as one process.

use ashlar_chunkserver::config::{Arguments, Command};
use ashlar_datapath::{Config, RunFlags};
use ashlar_node::LocalChunkserver;
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The datapath and the chunkserver of a node in one process: what is written to a volume of this node reaches the
/// disk of this node without a socket. Options of the datapath come first, then `--`, then those of the chunkserver's
/// `run`.
#[derive(Parser)]
#[command(name = "ashlar-node", version)]
struct Cli {
    #[command(flatten)]
    datapath: RunFlags,
    /// Options of `ashlar-chunkserver run`.
    #[arg(last = true, value_name = "CHUNKSERVER OPTIONS", allow_hyphen_values = true)]
    chunkserver: Vec<String>,
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let arguments = ["ashlar-node --", "run"].map(str::to_owned).into_iter().chain(cli.chunkserver);
    let Command::Run(chunkserver) = Arguments::parse_from(arguments).command()? else {
        unreachable!("the command is `run`")
    };
    let datapath = Config::from_flags(cli.datapath)?;
    anyhow::ensure!(
        datapath.node == chunkserver.node && datapath.zone == chunkserver.zone,
        "--node and --zone must be the same before and after `--`: both are of one node"
    );
    ashlar_datapath::start_logging();
    ashlar_chunkserver::process::abort_on_panic();
    // One thread: it serves gRPC and nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let companion = move |reactor: &mut _| Ok(Box::new(LocalChunkserver::start(&chunkserver, reactor)?) as Box<_>);
    runtime.block_on(ashlar_datapath::run(datapath, Some(Box::new(companion))))
}
