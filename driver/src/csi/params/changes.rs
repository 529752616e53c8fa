//! Parameters that may change while a volume is in use, as a wish: what is not named stays as it is.

use crate::quantity;
use ashlar_catalog::{Class, Limit, Settings};

const OPERATIONS_MAX: u64 = 1_000_000_000;
const BYTES_MIN: u64 = 4 << 10;
const BYTES_MAX: u64 = 1 << 40;
/// Lifts a limit; of a burst: what comes in within a second.
const LIFTED: &str = "none";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub min_replicas: Option<u8>,
    pub(super) class: Option<Class>,
    pub(super) iops_limit: Wish,
    pub(super) iops_burst: Wish,
    pub(super) bandwidth_limit: Wish,
    pub(super) bandwidth_burst: Wish,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    #[default]
    AsItIs,
    Lifted,
    Is(u64),
}

impl Wish {
    fn over(self, before: Option<u64>) -> Option<u64> {
        match self {
            Wish::AsItIs => before,
            Wish::Lifted => None,
            Wish::Is(number) => Some(number),
        }
    }

    pub(super) fn operations(text: &str) -> Result<Wish, String> {
        let number = text.parse().ok().filter(|number| (1..=OPERATIONS_MAX).contains(number));
        wish(text, number).ok_or_else(|| format!("a whole number from 1 to {OPERATIONS_MAX}, or {LIFTED}"))
    }

    pub(super) fn bytes(text: &str) -> Result<Wish, String> {
        let number = quantity::parse(text).filter(|bytes| (BYTES_MIN..=BYTES_MAX).contains(bytes));
        wish(text, number).ok_or_else(|| format!("a quantity of bytes from 4Ki to 1Ti such as 200Mi, or {LIFTED}"))
    }
}

fn wish(text: &str, number: Option<u64>) -> Option<Wish> {
    if text == LIFTED { Some(Wish::Lifted) } else { number.map(Wish::Is) }
}

pub(super) fn class(text: &str) -> Result<Class, String> {
    let found = Class::ALL.into_iter().find(|class| class.name() == text);
    found.ok_or_else(|| Class::ALL.map(Class::name).join(", "))
}

impl Changes {
    /// The settings as they would be, under the same version; or everything that does not fit together.
    pub fn apply(&self, before: Settings) -> Result<Settings, Vec<String>> {
        let mut faults = Vec::new();
        let mut limit = |name: &str, before: Option<Limit>, rate: Wish, burst: Wish| {
            let Some(per_second) = rate.over(before.map(|limit| limit.per_second)) else {
                if matches!(burst, Wish::Is(_)) {
                    faults.push(format!("parameter {name}Burst is given, but there is no {name}Limit"));
                }
                return None;
            };
            Some(Limit { per_second, burst: burst.over(before.and_then(|limit| limit.burst)) })
        };
        let operations = limit("iops", before.operations, self.iops_limit, self.iops_burst);
        let bytes = limit("bandwidth", before.bytes, self.bandwidth_limit, self.bandwidth_burst);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Settings { class: self.class.unwrap_or(before.class), operations, bytes, ..before })
    }
}
