//! How a volume is served, as the control plane says it: checked here, once.

use crate::limits::{Limit, Limits};
use ashlar_rpc::control;
use std::num::NonZeroU64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Grows with every change, so that a message that was overtaken changes nothing.
    pub(crate) version: u64,
    pub(crate) limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the volume's {1} is zero")]
pub(crate) struct ZeroLimit(&'static str, &'static str);

impl Settings {
    pub(crate) fn from_proto(message: &control::Settings) -> Result<Settings, ZeroLimit> {
        let limit = |of: &'static str, limit: &Option<control::Limit>| match limit {
            None => Ok(None),
            Some(control::Limit { per_second, burst }) => Ok(Some(Limit {
                per_second: NonZeroU64::new(*per_second).ok_or(ZeroLimit("limit", of))?,
                burst: NonZeroU64::new(*burst).ok_or(ZeroLimit("burst", of))?,
            })),
        };
        let limits =
            Limits { operations: limit("operations", &message.operations)?, bytes: limit("bytes", &message.bytes)? };
        Ok(Settings { version: message.version, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_refused_and_an_absent_one_is_none() {
        let with = |per_second, burst| control::Settings {
            version: 7,
            bytes: Some(control::Limit { per_second, burst }),
            ..Default::default()
        };
        let known = Settings::from_proto(&with(5, 9)).unwrap();
        assert_eq!((known.version, known.limits.operations), (7, None));
        assert_eq!(known.limits.bytes.map(|limit| (limit.per_second.get(), limit.burst.get())), Some((5, 9)));
        assert_eq!(Settings::from_proto(&with(0, 9)), Err(ZeroLimit("limit", "bytes")));
        assert_eq!(Settings::from_proto(&with(5, 0)), Err(ZeroLimit("burst", "bytes")));
    }
}
