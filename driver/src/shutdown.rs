//! Stopping: SIGTERM or SIGINT asks every server of the process to finish the calls in progress, within a bound.

use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long calls in progress may still take. A stream that follows events never ends by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Tells when the process is to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Stops what waits for the [`Shutdown`] that came with it; also when dropped.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    pub fn pair() -> (Trigger, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Shutdown(receiver))
    }

    /// Requested by SIGTERM or SIGINT.
    pub fn on_signal() -> io::Result<Shutdown> {
        let (trigger, shutdown) = Shutdown::pair();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("asked to stop");
            trigger.fire();
        });
        Ok(shutdown)
    }

    /// Completes when the process is to stop.
    pub async fn requested(mut self) {
        // An error means that the trigger is gone, and nobody is left who could ask.
        let _gone = self.0.wait_for(|&requested| requested).await;
    }

    /// Runs a server that was given this shutdown; cuts it off when it takes too long to stop.
    pub async fn bounded<T>(self, server: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
        let late = async {
            self.requested().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = server => result.map(Some),
            () = late => Ok(None),
        }
    }
}
