//! One operation per volume at a time: a second one is answered "busy" at once instead of waiting, as CSI asks.

use crate::error::{Error, ErrorKind, Result};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Volumes (by id, or by name while they are being created) that an operation is working on.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<BTreeSet<String>>>);

/// The right to work on one volume; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    subject: String,
    all: InFlight,
}

impl InFlight {
    pub fn begin(&self, subject: impl ToString) -> Result<Permit> {
        let subject = subject.to_string();
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone()) {
            return Ok(Permit { subject, all: self.clone() });
        }
        Err(Error::new(ErrorKind::Busy, format!("an operation on volume {subject} is in progress")))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_operation_on_a_volume_is_refused_until_the_first_has_ended() {
        let all = InFlight::default();
        let first = all.begin("v").unwrap();
        assert_eq!(all.begin("v").unwrap_err().kind, ErrorKind::Busy);
        assert!(all.begin("w").is_ok());
        drop(first);
        assert!(all.begin("v").is_ok());
    }
}
