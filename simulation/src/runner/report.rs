//! What a run's process tells of it, in JSON on one line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What came of a run; see [`Outcome`](crate::run::Outcome), of which this is what another process
/// reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How much time passed in it, in ms.
    pub simulated_ms: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Records of which nobody knows.
    pub unknown: u64,
    /// Records that were refused.
    pub refused: u64,
    /// How much else clients did, and how much there was to judge.
    pub counts: BTreeMap<String, u64>,
    /// How many faults of each kind fell.
    pub faults: BTreeMap<String, u64>,
    /// What did not hold.
    pub violations: Vec<Finding>,
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check that found it.
    pub check: String,
    /// What it found.
    pub what: String,
}

/// The check that finds panics.
pub const PANIC: &str = "panic";

impl Report {
    /// Of a run that could not tell itself what came of it.
    pub fn failed(check: &str, what: String) -> Report {
        let check = check.to_string();
        Report {
            violations: vec![Finding { check, what }],
            ..Report::default()
        }
    }

    /// Whether it found this, too.
    pub fn finds(&self, wanted: &Finding) -> bool {
        let mut found = self.violations.iter();
        found.any(|finding| finding.kind() == wanted.kind())
    }
}

impl Finding {
    /// What two findings of the same bug share: the check, and of a panic the line of code.
    pub fn kind(&self) -> (&str, &str) {
        let place = match self.check.as_str() {
            PANIC => self.what.split(": ").next().unwrap_or_default(),
            _ => "",
        };
        (&self.check, place)
    }
}
