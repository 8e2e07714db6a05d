//! Runs the checks on the looks and on the history.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ropewalk_proto::command::Command;
use ropewalk_raft_store::inspect::Payload;
use serde::Serialize;

use super::{Check, Now, Seen, Starts, all, replicas_are_equal};
use crate::cluster::Cluster;
use crate::history::{History, Place};
use crate::load::Log;
use crate::observe::Look;
use crate::observe::committed_model::{Committed, CommittedModel};
use crate::observe::disk_reader::{Depth, DiskReader};

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Name of the check.
    pub check: &'static str,
    /// Description of the violation, with place and time.
    pub what: String,
}

/// The checks of one run.
pub struct Judge {
    checks: Vec<Box<dyn Check>>,
    eye: DiskReader,
    truth: CommittedModel,
    starts: Starts,
    /// Number of events of the history that the checks have seen.
    heard: usize,
    counts: BTreeMap<&'static str, u64>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

impl Default for Judge {
    fn default() -> Judge {
        Judge {
            checks: all(),
            eye: DiskReader::default(),
            truth: CommittedModel::default(),
            starts: Starts::default(),
            heard: 0,
            counts: BTreeMap::new(),
        }
    }
}

impl Judge {
    /// Looks at the disks and judges. Call between two steps of the simulation.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn look(
        &mut self,
        at: Duration,
        cluster: &Cluster,
        history: &History,
        depth: Depth,
    ) -> Result<(), Violation> {
        self.see(at, cluster, history, depth).map(|_| ())
    }

    /// Judges the whole run, after reading everything on the disks again.
    pub fn end(
        &mut self,
        at: Duration,
        cluster: &Cluster,
        history: &History,
        logs: &BTreeMap<Place, Log>,
    ) -> Vec<Violation> {
        let look = match self.see(at, cluster, history, Depth::Whole) {
            Ok(look) => look,
            Err(violation) => return vec![violation],
        };
        let events = history.events();
        let seen = Seen {
            history: &events,
            logs,
            truth: &self.truth,
            look: &look,
            starts: &self.starts,
        };
        let checks = self.checks.iter_mut();
        let judged = checks.map(|check| {
            let judged = check.end(&seen);
            judged.map_err(|what| violation(check.name(), at, &what))
        });
        judged.filter_map(Result::err).collect()
    }

    /// Counts of looks and of committed entries by kind.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// First difference between replicas that must be equal once everything is quiet.
    pub fn difference(
        &mut self,
        at: Duration,
        cluster: &Cluster,
        history: &History,
    ) -> Result<Option<String>, Violation> {
        let look = self.see(at, cluster, history, Depth::Whole)?;
        Ok(replicas_are_equal::first_difference(&look, &self.truth))
    }

    /// Log start offset of a partition, from the trims in its log.
    pub fn log_start(&self, place: Place) -> u64 {
        self.truth.at(place).map_or(0, |(_, group)| group.log_start)
    }

    /// Start offset of a group in a partition; none if the group has not committed one yet.
    pub fn group_start(&self, group: u32, place: Place) -> Option<u64> {
        self.starts.of(group, place)
    }

    fn see(
        &mut self,
        at: Duration,
        cluster: &Cluster,
        history: &History,
        depth: Depth,
    ) -> Result<Look, Violation> {
        let look = self.eye.look(at, cluster, &self.truth, depth);
        let fresh = self.truth.learn(&look);
        *self.counts.entry("looks").or_default() += 1;
        for one in &fresh {
            *self.counts.entry(kind(one)).or_default() += 1;
        }
        let events = history.events();
        let news = events.get(self.heard..).unwrap_or_default();
        self.starts
            .learn(news.iter().map(|(_, event)| event), &fresh);
        let now = Now {
            look: &look,
            truth: &self.truth,
            fresh: &fresh,
            news,
            starts: &self.starts,
        };
        for check in &mut self.checks {
            let judged = check.look(&now);
            judged.map_err(|what| violation(check.name(), at, &what))?;
        }
        self.heard = events.len();
        drop(events);
        Ok(look)
    }
}

fn kind(one: &Committed) -> &'static str {
    match &one.entry.payload {
        Payload::Blank => "terms",
        Payload::Voters(_) => "memberships",
        Payload::Command(Command::Append { .. } | Command::Compacted { .. }) => {
            match one.base_offset {
                None => "refused-batches",
                Some(_) => "batches",
            }
        }
        Payload::Command(Command::Compact { .. }) => "compactions",
        Payload::Command(Command::Trim { .. }) => "trims",
        Payload::Command(Command::Roll { .. }) => "rolls",
        Payload::Command(Command::Meta(_)) => "metadata-commands",
        Payload::Command(Command::Group(_)) => "group-commands",
        Payload::Command(Command::Fence { .. }) => "fences",
    }
}

fn violation(check: &'static str, at: Duration, what: &str) -> Violation {
    Violation {
        check,
        what: format!("at {at:?}: {what}"),
    }
}
