//! Ctrl-C and SIGTERM, for programs that have something to clear away.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// What a shell makes of a program that Ctrl-C has ended.
const EXIT_STATUS: i32 = 130;

/// From here on either of them ends the process at once, after `clear_away`.
pub fn on_interrupt(program: &'static str, clear_away: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    std::thread::spawn(move || {
        let waited = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                signal = tokio::signal::ctrl_c() => signal,
                _ = terminate.recv() => Ok(()),
            }
        });
        if let Err(error) = waited {
            eprintln!("{program}: cannot hear of signals: {error}");
            return;
        }
        eprintln!("\n{program}: interrupted, clearing away");
        if let Err(error) = clear_away() {
            eprintln!("{program}: {error:#}");
        }
        std::process::exit(EXIT_STATUS);
    });
    Ok(())
}
