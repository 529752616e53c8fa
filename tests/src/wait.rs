//! Waiting for a condition, with a bound.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks again every 20 ms until `ready` gives a value; after `limit` fails, naming `what` and the last reason.
pub fn wait_until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = ready();
        if let Ok(Some(value)) = last {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            match last {
                Err(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                _ => bail!("waited {limit:?} for {what}"),
            }
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
