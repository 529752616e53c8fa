//! A stretch of time as people give it to a daemon.

use crate::Duration;
use std::str::FromStr;

const PERIOD_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// A number with s, m, h or d; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Option<Duration>);

impl Period {
    /// In which everything is verified once, unless told otherwise.
    pub const SCRUB: Period = Period(Some(Duration::from_secs(14 * 86_400)));
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Period, String> {
        if text == "0" {
            return Ok(Period(None));
        }
        let (digits, unit) = text.split_at(text.char_indices().next_back().map_or(0, |(at, _)| at));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(format!("{text:?} has no unit; use s, m, h or d")),
        };
        let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a stretch of time"))?;
        let period = number.checked_mul(seconds).filter(|seconds| (1..=PERIOD_MAX.as_secs()).contains(seconds));
        let period = period.ok_or_else(|| format!("{text:?} is not 0 and not within 1s to 3650d"))?;
        Ok(Period(Some(Duration::from_secs(period))))
    }
}
