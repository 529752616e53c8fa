//! `ashlar-bench-front`: the datapath's front-ends over one local file, for the bench alone. No volume, no replica, no
//! network: what a front-end costs by itself.
//!
//! ```text
//!   client ─► product's NBD server, or FUSE + loop ─► product's GuestTable ─► one file, O_DIRECT, durable
//! ```
//!
//! The front-ends are the product's own source, taken in by path: the datapath's interface is its process, and it
//! should not grow doors for a bench. What stands around them here is what its runtime does for them, and nothing of
//! its core. It serves until its input ends, so it never outlives who started it.

#![allow(unexpected_cfgs, reason = "the product's source has a feature for its fuzz targets")]
#![allow(dead_code, reason = "a bench uses less of the product's source than the product")]

#[path = "../../datapath/src/frontend"]
mod frontend {
    pub(crate) mod fuse;
    pub(crate) mod loopdev;
    pub(crate) mod nbd;

    /// Who waits for a request.
    pub(crate) enum Origin {
        Nbd(nbd::NbdOrigin),
        Fuse(fuse::FuseReply),
    }
}
#[path = "../../datapath/src"]
mod product {
    pub(crate) mod guest;
}
mod local;
mod runtime;

pub(crate) use product::guest;

use anyhow::{Context, Result};
use ashlar_types::{ByteCount, Epoch, VolumeId};
use clap::Parser;
use frontend::fuse::FuseLoop;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// A front-end over one local file, which must be written in full.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    file: PathBuf,
    /// Serve NBD on this socket.
    #[arg(long, conflicts_with = "mount", required_unless_present = "mount")]
    nbd: Option<PathBuf>,
    /// Mount here, and attach a loop device, whose name is printed.
    #[arg(long)]
    mount: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-bench-front: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let size = ByteCount(std::fs::metadata(&arguments.file).context("look at the file")?.len());
    let (runtime, thread) = runtime::start(&arguments.file, arguments.nbd.clone(), size)?;
    let (place, fuse_loop) = match (&arguments.nbd, &arguments.mount) {
        (Some(socket), _) => (socket.clone(), None),
        (None, Some(mount)) => {
            let attachment = (VolumeId::from_u128(1), Epoch::NONE);
            let fuse_loop = FuseLoop::bring_up(runtime.clone(), attachment, size, false, mount)?;
            (fuse_loop.device_path().to_owned(), Some(fuse_loop))
        }
        (None, None) => unreachable!("the arguments name one"),
    };
    println!("{}", place.display());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut vec![]).context("wait for the end of the input")?;
    if let Some(mut fuse_loop) = fuse_loop {
        fuse_loop.take_down()?;
    }
    runtime.stop();
    thread.join().expect("the I/O thread does not panic")
}
