//! Asks `smartctl` of each disk's device, now and every hour, one after the other. Never on the path of an I/O: a
//! process of its own, which is killed when it takes too long.
//!
//! What is told is logged when it changes, and so is why nothing is told.

use super::{Health, Report, device, parse};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch::{Receiver, Sender, channel};

const INTERVAL: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any device has to say.
const PRINTED_BYTES_MAX: u64 = 1 << 20;

/// By path of the disk, as last told.
pub(crate) type Reports = Receiver<Arc<BTreeMap<PathBuf, Report>>>;

/// Asks from now on, for as long as the runtime lives that this is called in.
pub(crate) fn watch(smartctl: PathBuf, disks: Vec<PathBuf>) -> Reports {
    let (told, reports) = channel(Arc::new(BTreeMap::new()));
    tokio::spawn(async move {
        loop {
            for disk in &disks {
                let report = report(&smartctl, disk).await;
                tell(&told, disk, report);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
    reports
}

fn tell(told: &Sender<Arc<BTreeMap<PathBuf, Report>>>, disk: &Path, report: Report) {
    let before = told.borrow().get(disk).cloned();
    let verdict = |report: &Report| report.health.as_ref().map(|health| health.is_failing).map_err(Clone::clone);
    if before.as_ref().map(verdict) != Some(verdict(&report)) {
        match &report.health {
            Ok(health) if health.is_failing => {
                tracing::error!(disk = %disk.display(), ?health, "the device says that it is about to fail");
            }
            Ok(health) => tracing::info!(disk = %disk.display(), ?health, "the device tells of its health"),
            Err(reason) => tracing::info!(disk = %disk.display(), reason, "the device's health is not known"),
        }
    }
    told.send_modify(|all| {
        Arc::make_mut(all).insert(disk.to_path_buf(), report);
    });
}

async fn report(smartctl: &Path, disk: &Path) -> Report {
    match device::below(disk) {
        Err(reason) => Report { device: None, health: Err(reason) },
        Ok(device) => {
            Report { device: Some(device.display().to_string()), health: ask(smartctl, &device, TIMEOUT).await }
        }
    }
}

async fn ask(smartctl: &Path, device: &Path, patience: Duration) -> Result<Health, String> {
    match tokio::time::timeout(patience, print(smartctl, device)).await {
        // Its exit status has a bit for everything that is amiss with the device: what it printed says the same.
        Ok(Ok(printed)) => parse(&printed),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("there is no {}: install smartmontools, or say where it is by --smartctl", smartctl.display()))
        }
        Ok(Err(error)) => Err(format!("run {}: {error}", smartctl.display())),
        Err(_) => Err(format!("{} took more than {patience:?}", smartctl.display())),
    }
}

async fn print(smartctl: &Path, device: &Path) -> io::Result<Vec<u8>> {
    let mut command = Command::new(smartctl);
    command.args(["--json=c", "--info", "--health", "--attributes"]).arg(device);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut printed = Vec::new();
    let stdout = child.stdout.take().expect("it is piped");
    stdout.take(PRINTED_BYTES_MAX).read_to_end(&mut printed).await?;
    child.wait().await?;
    Ok(printed)
}

#[cfg(test)]
mod tests;
