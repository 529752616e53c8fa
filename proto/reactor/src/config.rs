//! What can be set on a reactor.

use std::thread::available_parallelism;
use std::time::Duration;

/// Cores from which on a loop may spin before it sleeps. Below, a spinning loop takes the core that its own peer
/// needs to answer.
const SPIN_CORES_MIN: usize = 8;

#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Operations that one turn can hand to the kernel in one system call; more take more calls. A power of two.
    pub ring_entries: u32,
    /// Connections that may stand at a time. At the bound listeners accept no more, and connecting fails.
    pub links_max: usize,
    /// Free buffers that are kept for reuse.
    pub pool_bytes_max: usize,
    /// Longest spin before the loop sleeps; the spin adapts below this, down to none on an idle loop. Zero: never
    /// spin.
    pub spin_max: Duration,
}

impl Default for ReactorConfig {
    fn default() -> ReactorConfig {
        let cores = available_parallelism().map_or(1, usize::from);
        let spin_max = if cores >= SPIN_CORES_MIN { Duration::from_micros(20) } else { Duration::ZERO };
        ReactorConfig { ring_entries: 1024, links_max: 4096, pool_bytes_max: 64 << 20, spin_max }
    }
}
