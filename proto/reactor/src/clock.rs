//! The clock of a node: CLOCK_BOOTTIME, which goes on while the machine is suspended, as leases must.

use ashlar_types::Instant;
use nix::time::{ClockId, clock_gettime};

/// The present instant.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    Instant::from_nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
