//! `ashlar dev ...`: a whole cluster on this machine, on loopback, with real daemons and real disk files.

pub mod daemon;
pub mod down;
pub mod layout;
pub mod leftovers;
pub mod ports;
pub mod process;
pub mod ready;
pub mod status;
pub mod up;

use crate::args::DevCommand;
use anyhow::Context;
use std::path::PathBuf;

pub async fn run(command: DevCommand, dir: Option<PathBuf>) -> anyhow::Result<()> {
    let dir = dir.context("which directory? Give --dir DIR (or ASHLAR_DIR)")?;
    match command {
        DevCommand::Up(wish) => up::up(&dir, wish).await,
        DevCommand::Status(format) => status::status(&dir, format),
        DevCommand::Down(how) => down::down(&dir, how).await,
        DevCommand::Kill { name, signal } => down::kill(&dir, &name, &signal).await,
        DevCommand::Start { name } => up::start_one(&dir, &name).await,
    }
}
