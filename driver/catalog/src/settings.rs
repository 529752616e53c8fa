//! How a volume is served: what may change while it is in use, and is no matter of membership.

pub use ashlar_types::Class;
use serde::{Deserialize, Serialize};

/// How a class is written in the catalog.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Class", rename_all = "kebab-case")]
enum ClassText {
    Critical,
    High,
    Normal,
    Low,
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
    #[serde(with = "ClassText")]
    pub class: Class,
    /// Reads, writes and discards.
    pub operations: Option<Limit>,
    /// Bytes read and written.
    pub bytes: Option<Limit>,
}
