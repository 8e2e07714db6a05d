//! Lag of this node's groups, for metrics. A background task samples it, so that no scrape causes a question
//! to another node.
//!
//! Lag in records comes from the reports that leaders send every second. For partitions with a lag, the
//! leader is also asked how long the next record has waited. All of it is bounded: groups and partitions by a
//! limit, one sample by a deadline. The rest is only counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ropewalk_machines::consumer_group::Group;
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_proto::ids::{GROUPS_TOPIC, NodeId};
use ropewalk_proto::v1::BacklogFrom;
use tokio::time::{Instant, MissedTickBehavior};

use super::Coordinator;
use super::lag::rows;

/// State of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPhase {
    /// The group has no members.
    Empty,
    /// Partitions are moving between members.
    Rebalancing,
    /// Every partition is with its target owner.
    Stable,
}

impl GroupPhase {
    /// All phases.
    pub const ALL: [GroupPhase; 3] = [
        GroupPhase::Empty,
        GroupPhase::Rebalancing,
        GroupPhase::Stable,
    ];

    /// Name of the phase in metrics.
    pub fn name(self) -> &'static str {
        match self {
            GroupPhase::Empty => "empty",
            GroupPhase::Rebalancing => "rebalancing",
            GroupPhase::Stable => "stable",
        }
    }

    fn of(group: &Group) -> GroupPhase {
        let moves = |share: &ropewalk_machines::consumer_group::PartitionAssignment| {
            share.owner != share.target
        };
        if group.members.is_empty() {
            GroupPhase::Empty
        } else if group.shares.values().any(moves) {
            GroupPhase::Rebalancing
        } else {
            GroupPhase::Stable
        }
    }
}

/// One group.
#[derive(Debug, Clone)]
pub struct GroupSnapshot {
    /// Name of the group.
    pub name: String,
    /// Number of its members.
    pub members: usize,
    /// Its phase.
    pub phase: GroupPhase,
}

/// One partition that a group reads.
#[derive(Debug, Clone)]
pub struct PartitionLagSnapshot {
    /// Name of the group.
    pub group: String,
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: u32,
    /// Committed offset of the group.
    pub committed: u64,
    /// Lag in records.
    pub records: u64,
    /// Time that the next record has waited, in ms; `None` if its leader could not be asked.
    pub waited_ms: Option<i64>,
}

/// One sample of all groups.
#[derive(Debug, Clone)]
pub struct LagSnapshot {
    /// Time of the sample.
    pub at: Instant,
    /// Number of groups that this node coordinates.
    pub count: usize,
    /// Groups within the bound.
    pub groups: Vec<GroupSnapshot>,
    /// Partitions that they read, within the same bound.
    pub lags: Vec<PartitionLagSnapshot>,
    /// Number of groups and partitions beyond the bound.
    pub left_out: usize,
}

/// The last sample.
#[derive(Debug, Clone, Default)]
pub struct LagCollector(Arc<Mutex<Option<Arc<LagSnapshot>>>>);

impl LagCollector {
    /// Returns the last sample, if there is one.
    pub fn last(&self) -> Option<Arc<LagSnapshot>> {
        self.0.lock().clone()
    }

    /// Samples the groups of a coordinator, until it is dropped.
    pub async fn run(self, coordinator: Coordinator) {
        let every = Duration::from_millis(coordinator.0.limits.metrics_lag_interval_ms.max(100));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut seen = coordinator.look();
            let deadline = Instant::now() + every;
            // Answers that miss the deadline leave the waiting time unknown.
            let asked = coordinator.ask_how_long(&mut seen.lags);
            let _ = tokio::time::timeout_at(deadline, asked).await;
            *self.0.lock() = Some(Arc::new(seen));
        }
    }
}

impl Coordinator {
    /// Samples the local knowledge, without a question to another node.
    fn look(&self) -> LagSnapshot {
        let view = self.view();
        let bound = self.0.limits.metrics_groups;
        let mut seen = LagSnapshot {
            at: Instant::now(),
            count: 0,
            groups: Vec::new(),
            lags: Vec::new(),
            left_out: 0,
        };
        let homes = view.topics.get(GROUPS_TOPIC);
        for at in homes.iter().flat_map(|topic| &topic.partitions) {
            let partition = self.0.partitions.get(at.group);
            let Some(partition) = partition.filter(|partition| partition.coordinates().is_ok())
            else {
                continue;
            };
            partition.with_groups(|groups| {
                for (name, group) in groups.iter() {
                    seen.count += 1;
                    if seen.groups.len() >= bound {
                        seen.left_out += 1;
                        continue;
                    }
                    self.look_at(name, group, &view, bound, &mut seen);
                }
            });
        }
        seen
    }

    fn look_at(
        &self,
        name: &str,
        group: &Group,
        view: &MetadataImage,
        bound: usize,
        seen: &mut LagSnapshot,
    ) {
        seen.groups.push(GroupSnapshot {
            name: name.to_owned(),
            members: group.members.len(),
            phase: GroupPhase::of(group),
        });
        for ((topic, partition), row) in rows(group, view) {
            if seen.lags.len() >= bound {
                seen.left_out += 1;
                continue;
            }
            let found = view.partition(&topic, partition);
            let told = found.and_then(|found| self.0.cluster.leaders().get(found.group));
            let Some(told) = told else { continue };
            // Records that retention deleted do not count as lag.
            let next = row.committed.unwrap_or(0).max(told.log_start_offset);
            seen.lags.push(PartitionLagSnapshot {
                group: name.to_owned(),
                topic,
                partition,
                committed: row.committed.unwrap_or(0),
                records: told.high_watermark.saturating_sub(next),
                waited_ms: None,
            });
        }
    }

    /// Asks the leaders how long the next record of each lagging partition has waited.
    async fn ask_how_long(&self, lags: &mut [PartitionLagSnapshot]) {
        let view = self.view();
        let mut questions: BTreeMap<(String, Option<NodeId>), Vec<usize>> = BTreeMap::new();
        for (at, lag) in lags.iter_mut().enumerate() {
            if lag.records == 0 {
                lag.waited_ms = Some(0);
                continue;
            }
            let leader = self.leader(&view, &lag.topic, lag.partition);
            questions
                .entry((lag.topic.clone(), leader))
                .or_default()
                .push(at);
        }
        // One after the other: no caller waits for the answers, while leaders have clients to serve.
        for ((topic, leader), places) in questions {
            let from = places.iter().filter_map(|at| lags.get(*at));
            let from = from.map(|lag| BacklogFrom {
                partition: lag.partition,
                offset: lag.committed,
            });
            let answers = self.ask(&view, leader, &topic, from.collect()).await;
            for (at, answer) in places.into_iter().zip(answers) {
                let known = answer.error.is_none();
                let waited = answer
                    .appended_ms
                    .map(|at_ms| answer.now_ms.saturating_sub(at_ms).max(0));
                if let Some(lag) = lags.get_mut(at).filter(|_| known) {
                    lag.waited_ms = Some(waited.unwrap_or(0));
                }
            }
        }
    }
}
