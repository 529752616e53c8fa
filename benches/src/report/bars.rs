//! The eight bars at the end of every run, whichever parts ran.

use super::{Bar, Clause, Figure};
use serde::Serialize;

/// What became of one clause.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) bar_number: u8,
    pub(crate) clause: Clause,
    pub(crate) text: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bar: Bar,
    pub(crate) outcome: Outcome,
    /// Measured while the raw disk's own speed moved too much.
    pub(crate) unsteady: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) enum Outcome {
    Pass {
        value: f64,
        spread: (f64, f64),
    },
    Fail {
        value: f64,
        spread: (f64, f64),
    },
    /// What it needs.
    NotRun(&'static str),
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Pass { .. } => "PASS",
            Outcome::Fail { .. } => "FAIL",
            Outcome::NotRun(_) => "not run",
        }
    }

    /// Median, lowest, highest.
    pub(crate) fn measured(&self) -> Option<(f64, f64, f64)> {
        match self.outcome {
            Outcome::Pass { value, spread: (low, high) } | Outcome::Fail { value, spread: (low, high) } => {
                Some((value, low, high))
            }
            Outcome::NotRun(_) => None,
        }
    }
}

/// Every clause, in the order.
pub(super) fn judge<'a>(figures: impl Iterator<Item = &'a Figure> + Clone) -> Vec<Verdict> {
    let of = |clause: Clause| {
        let figure = figures.clone().find(|figure| figure.clause == Some(clause));
        let outcome = match figure {
            None => Outcome::NotRun(clause.needs()),
            Some(Figure { value, spread, .. }) if clause.bar().holds(*value) => {
                Outcome::Pass { value: *value, spread: *spread }
            }
            Some(Figure { value, spread, .. }) => Outcome::Fail { value: *value, spread: *spread },
        };
        let (bar_number, text, unit, bar) = (clause.bar_number(), clause.text(), clause.unit(), clause.bar());
        let unsteady = figure.is_some_and(|figure| figure.unsteady);
        Verdict { bar_number, clause, text, unit, bar, outcome, unsteady }
    };
    Clause::ALL.into_iter().map(of).collect()
}
