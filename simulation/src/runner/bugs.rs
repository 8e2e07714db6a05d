//! Planted bugs: only a check that has found one is known to work.

use std::fmt;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use ropewalk_proto::planted_bug::PlantedBug;
use serde::Serialize;

use super::Job;
use super::child::Children;
use super::report::Finding;

/// Outcome of the hunt for one planted bug.
#[derive(Debug, Clone, Serialize)]
pub struct Hunt {
    /// Name of the bug.
    pub mistake: &'static str,
    /// Description of the bug.
    pub what: &'static str,
    /// Number of seeds run, including the one that found it.
    pub seeds: u64,
    /// The run that found it, with its finding.
    pub found: Option<(Job, Finding)>,
}

/// Runs one seed after another with a planted bug, until one fails that passes without it. Other runs that
/// are under way by then do not count.
pub async fn hunt(
    children: &Children,
    mistake: PlantedBug,
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

/// One row of a table.
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
