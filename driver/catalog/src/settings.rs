//! How a volume is served: what may change while it is in use, and is no matter of membership.

use serde::{Deserialize, Serialize};

/// Which of several volumes goes first where not all can: the business class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Critical,
    High,
    #[default]
    Normal,
    Low,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Critical, Class::High, Class::Normal, Class::Low];

    pub fn name(self) -> &'static str {
        match self {
            Class::Critical => "critical",
            Class::High => "high",
            Class::Normal => "normal",
            Class::Low => "low",
        }
    }
}

/// A rate, and what may go at once after a pause. Neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    pub per_second: u64,
    /// As it was asked for; `None`: what comes in within a second.
    pub burst: Option<u64>,
}

impl Limit {
    pub fn burst(self) -> u64 {
        self.burst.unwrap_or(self.per_second)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Grows with every change: a writer never goes back to older ones.
    pub version: u64,
    pub class: Class,
    /// Reads, writes and discards.
    pub operations: Option<Limit>,
    /// Bytes read and written.
    pub bytes: Option<Limit>,
}
