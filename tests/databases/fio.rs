//! fio over NBD: a pass of random writes that is verified while it is written, and read again after a crash.

use anyhow::{Context, Result, ensure};
use ashlar_tests::run_ok;
use std::process::{Child, Command, Stdio};

/// The same for the pass and for its second reading: fio draws places and contents from it.
const PASS: [&str; 12] = [
    "--name=pass",
    "--ioengine=nbd",
    "--rw=randwrite",
    "--bsrange=4k-64k",
    "--size=96M",
    "--iodepth=8",
    "--verify=crc32c",
    "--verify_fatal=1",
    // Else fio leaves a file in the working directory.
    "--verify_state_save=0",
    "--norandommap=0",
    "--allrandrepeat=1",
    "--output-format=terse",
];

/// A pass under way; killed when dropped.
pub struct Pass {
    process: Child,
}

/// Starts a pass of some 4000 writes, in ten seconds or more, so that something can die meanwhile.
pub fn start(uri: &str, seed: u32) -> Result<Pass> {
    let process = Command::new("fio")
        .args(PASS)
        .args([format!("--uri={uri}"), format!("--randseed={seed}")])
        .args(["--do_verify=1", "--verify_backlog=256", "--rate=,10M"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run fio")?;
    Ok(Pass { process })
}

/// Reads everything that the pass with this seed wrote.
pub fn verify(uri: &str, seed: u32) -> Result<()> {
    let (uri, seed) = (format!("--uri={uri}"), format!("--randseed={seed}"));
    let options = PASS.into_iter().chain([uri.as_str(), seed.as_str(), "--verify_only=1"]);
    run_ok("fio", options).context("read what fio wrote before the crash").map(drop)
}

impl Pass {
    /// A pass that had ended before would have met nothing.
    pub fn is_under_way(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Waits for its end, which must be a good one.
    pub fn finish(mut self) -> Result<()> {
        let mut complaints = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut complaints).context("read what fio says")?;
        }
        let status = self.process.wait().context("wait for fio")?;
        ensure!(status.success(), "fio ended with {status}: {complaints}");
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Both can only fail when it has just ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
