//! What the writer knows of a replica's past, to notice one whose content has gone back in time: an older image of
//! its disk was put back, or the end of its journal was lost without its knowing.
//!
//! Such a replica says that it is complete, and its checksums are right; only it is old. Three things give it away:
//! - it has not agreed in the last epoch in which it was in-sync and served: it was not made equal to the others then;
//! - the session before this one is none that this writer had with it;
//! - its highest lsn is below one that it answered durable to this writer.
//!
//! Answers go out in lsn order, so the highest stands for all.

use ashlar_types::{Epoch, Lsn, SessionId};
use ashlar_wire::Opened;
use std::collections::VecDeque;

/// Unanswered attempts remembered; with more of them an unknown session is taken for one of the past, which is safe.
const ATTEMPTS_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct History {
    /// The last session that was opened.
    opened: Option<SessionId>,
    /// Sessions whose `Open` had no answer. It may have become durable, and it may arrive late, after newer ones; but
    /// once only: when a later session has been told of it, it is of the past.
    unanswered: VecDeque<SessionId>,
    /// Highest lsn that it answered durable to this writer.
    answered: Lsn,
}

impl History {
    /// `Open` is being sent.
    pub(crate) fn note_attempt(&mut self, session: SessionId) {
        if self.unanswered.len() == ATTEMPTS_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(session);
    }

    /// A write is durable there.
    pub(crate) fn note_answer(&mut self, lsn: Lsn) {
        self.answered = self.answered.max(lsn);
    }

    /// A return begins: the replica takes back what it has after this point, and with it the prefixes.
    pub(crate) fn note_begun(&mut self, after: Lsn) {
        self.answered = self.answered.min(after);
    }

    /// The answer to the `Open` of the latest attempt has come. `served`: the epoch in which it must have agreed.
    /// Returns why its content is of the past, if it is.
    pub(crate) fn note_opened(&mut self, opened: &Opened, served: Epoch) -> Option<&'static str> {
        let session = self.unanswered.pop_back().expect("an `Open` was sent");
        let before = opened.session_before;
        let arrived = self.unanswered.iter().position(|&attempt| attempt == before);
        let is_known = arrived.is_some() || self.opened.is_none_or(|last| last == before);
        if let Some(arrived) = arrived {
            self.unanswered.remove(arrived);
        }
        self.opened = Some(session);
        match opened {
            _ if opened.agreed < served => Some("it was not made equal to the others: an older image of its disk"),
            _ if !is_known => Some("it has forgotten its last session: an older image of its disk"),
            _ if opened.last < self.answered => Some("it has lost writes that were durable"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
