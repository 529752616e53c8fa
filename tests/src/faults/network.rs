//! A network of a test's own, with nothing but loopback, in which single ports can be made slow.
//!
//! It lasts as long as a thread or process that is in it, so nothing of it can stay.

use crate::run_ok;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

/// Runs on a new thread in a new network; what that starts is in it too. Unix sockets are reached from everywhere.
pub fn in_own_network<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("this test needs network namespaces (CONFIG_NET_NS) and root")?;
        // As an Ethernet has it: a shaper cannot pass what is larger than its bucket.
        run_ok("ip", ["link", "set", "lo", "mtu", "1500", "up"]).context("this test needs `ip` (iproute2)").map(drop)
    };
    std::thread::scope(|threads| {
        let joined = threads.spawn(|| enter().and_then(|()| work())).join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What goes to or comes from this TCP port passes a token bucket. `rate` as tc reads it, for example `1mbit`. Only in
/// a network of one's own.
pub fn slow_port(port: u16, rate: &str) -> Result<()> {
    let port = port.to_string();
    let on_lo = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "PORT" => port.as_str(),
            "RATE" => rate,
            word => word,
        });
        run_ok("tc", words).context("this test needs `tc` (iproute2), sch_htb, sch_tbf and cls_u32").map(drop)
    };
    on_lo("qdisc add dev lo root handle 1: htb r2q 1000")?;
    on_lo("class add dev lo parent 1: classid 1:2 htb rate 10gbit")?;
    for end in ["sport", "dport"] {
        on_lo(&format!("filter add dev lo parent 1: protocol ip u32 match ip {end} PORT 0xffff flowid 1:2"))?;
    }
    on_lo("qdisc add dev lo parent 1:2 tbf rate RATE burst 16kb latency 400ms")
}

/// All ports are as fast as before.
pub fn fast_ports() -> Result<()> {
    run_ok("tc", ["qdisc", "del", "dev", "lo", "root"]).map(drop)
}
