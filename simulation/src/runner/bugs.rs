//! Planting mistakes: a check that has never found anything is not known to work.

use std::fmt;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use ropewalk_proto::mistake::Mistake;
use serde::Serialize;

use super::Job;
use super::child::Children;
use super::report::Finding;

/// What came of one mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Hunt {
    /// How it is called.
    pub mistake: &'static str,
    /// What is done wrong.
    pub what: &'static str,
    /// Seeds that ran, the one that found it included.
    pub seeds: u64,
    /// What found it, and on which seed.
    pub found: Option<(Job, Finding)>,
}

/// Runs one seed after the other with a mistake in the code, until one fails that holds without it.
/// Some more may be under way by then; they don't count.
pub async fn hunt(
    children: &Children,
    mistake: Mistake,
    jobs: impl Iterator<Item = Job>,
    at_once: usize,
) -> Hunt {
    let mistaken = &children.with(mistake);
    let run = |job: Job| async move { (mistaken.run(&job, None).await, job) };
    let mut reports = pin!(stream::iter(jobs.map(run)).buffered(at_once.max(1)));
    let mut hunt = Hunt {
        mistake: mistake.name(),
        what: mistake.what(),
        seeds: 0,
        found: None,
    };
    while let Some((report, job)) = reports.next().await {
        hunt.seeds += 1;
        let Some(finding) = report.violations.into_iter().next() else {
            continue;
        };
        if children.run(&job, None).await.violations.is_empty() {
            hunt.found = Some((job, finding));
            break;
        }
    }
    hunt
}

/// A row of a table.
impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hunt {
            mistake,
            what,
            seeds,
            found,
        } = self;
        match found {
            Some((_, finding)) => {
                write!(
                    f,
                    "| `{mistake}` | {what} | `{}` | {seeds} |",
                    finding.check
                )
            }
            None => write!(f, "| `{mistake}` | {what} | **not found** | {seeds} |"),
        }
    }
}
