//! `ashlar-node`: the datapath and the chunkserver of a node as one process.

use ashlar_node::{LocalChunkserver, NodeArguments};
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
    node: NodeArguments,
}

fn main() -> ExitCode {
    match ashlar_node::run(Cli::parse().node, LocalChunkserver::start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
