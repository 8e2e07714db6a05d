//! Report of a run's process, in JSON on one line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Outcome of a run, as another process reads it; see [`Outcome`](crate::run::Outcome).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Simulated duration, in ms.
    pub simulated_ms: u64,
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Records with an unknown outcome.
    pub unknown: u64,
    /// Refused records.
    pub refused: u64,
    /// Counts of other client actions and of items to judge.
    pub counts: BTreeMap<String, u64>,
    /// Faults of each kind that took effect.
    pub faults: BTreeMap<String, u64>,
    /// Violated invariants.
    pub violations: Vec<Finding>,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Check that found it.
    pub check: String,
    /// Description of the violation.
    pub what: String,
}

/// The check that finds panics.
pub const PANIC: &str = "panic";

impl Report {
    /// Report of a run that could not report its own outcome.
    pub fn failed(check: &str, what: String) -> Report {
        let check = check.to_string();
        Report {
            violations: vec![Finding { check, what }],
            ..Report::default()
        }
    }

    /// True if this report has a finding of the same kind.
    pub fn finds(&self, wanted: &Finding) -> bool {
        let mut found = self.violations.iter();
        found.any(|finding| finding.kind() == wanted.kind())
    }
}

impl Finding {
    /// Common part of findings of the same bug: the check, and for a panic the line of code.
    pub fn kind(&self) -> (&str, &str) {
        let place = match self.check.as_str() {
            PANIC => self.what.split(": ").next().unwrap_or_default(),
            _ => "",
        };
        (&self.check, place)
    }
}
