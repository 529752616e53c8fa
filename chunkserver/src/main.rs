//! `ashlar-chunkserver`: parses, logs, and hands over.

use ashlar_chunkserver::config::{Arguments, Command, LogFormat};
use ashlar_chunkserver::{format, inspect, process};
use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.log_format);
    process::abort_on_panic();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ashlar-chunkserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command()? {
        Command::Run(config) => process::run(&config)?,
        Command::Format(config) => {
            let made = format::format(&config)?;
            if config.json {
                println!("{}", serde_json::to_string(&made)?);
            } else {
                println!(
                    "{} is disk {} with {} slots; its index is {}",
                    made.path.display(),
                    made.disk,
                    made.slots,
                    made.index.display()
                );
            }
        }
        Command::Inspect(config) => inspect::inspect(&config, &mut std::io::stdout().lock())?,
    }
    Ok(())
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::builder().with_env_var("ASHLAR_LOG").from_env_lossy();
    let filter = if std::env::var_os("ASHLAR_LOG").is_some() { filter } else { EnvFilter::new("info") };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
