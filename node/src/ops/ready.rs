//! Readiness: whether the node can serve, with the reasons if it cannot. It is about this node only, never
//! about its cluster. A node whose peers are gone is as ready as it can be; taking its traffic away would not
//! help.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ropewalk_machines::meta::MetadataImage;
use ropewalk_machines::meta::view::PartitionImage;
use ropewalk_proto::ids::{GroupId, NodeId};
use ropewalk_raft_store::DiskStatus;
use serde::Serialize;
use tokio::time::Instant;

use super::OpsContext;
use crate::cluster::Cluster;

/// Number of unapplied entries above which a metadata replica's view is too old.
const METADATA_BEHIND: u64 = 1_000;
/// Time that a newly started node waits for a partition's leader to be known. After that it is ready without
/// its replica of the partition.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// Maximum number of partitions named in a reason.
const NAMED: usize = 5;

/// The replicas that were placed here when the node began and have not caught up since. Replicas that have
/// caught up, or that are added later, never make the node unready: readiness would change with every move.
#[derive(Debug)]
pub struct InitialCatchUp {
    since: Instant,
    groups: BTreeSet<GroupId>,
}

impl InitialCatchUp {
    /// The replicas of a node that has just joined or rejoined its cluster.
    pub fn new(cluster: &Cluster) -> InitialCatchUp {
        let view = cluster.view().borrow().clone();
        let placed = placed(&view, cluster.node_id());
        InitialCatchUp {
            since: Instant::now(),
            groups: placed.map(|(_, partition)| partition.group).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    node_id: u64,
    why_not: Vec<String>,
}

pub(super) async fn readyz(State(seen): State<Arc<OpsContext>>) -> (StatusCode, Json<Readiness>) {
    let why_not = why_not(&seen);
    let ready = why_not.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let node_id = seen.cluster.node_id().0;
    let readiness = Readiness {
        ready,
        node_id,
        why_not,
    };
    (status, Json(readiness))
}

/// All reasons why the node is not ready.
pub(super) fn why_not(seen: &OpsContext) -> Vec<String> {
    let view = seen.cluster.view().borrow().clone();
    let own = seen.cluster.node_id();
    let condition = Condition {
        stopping: seen.stopping.is_cancelled(),
        in_cluster: view.nodes.contains_key(&own),
        controller_known: seen.cluster.controller().is_some(),
        metadata: seen.cluster.metadata_progress(),
        disk: seen.store.disk_status().borrow().clone(),
    };
    let behind = seen.joined.get().and_then(|joined| {
        let standing = |group| Standing {
            runs: joined.partitions.get(group).is_some(),
            keeps_up: seen
                .cluster
                .leaders()
                .get(group)
                .map(|leader| leader.in_sync.contains(&own)),
        };
        joined.returning.lock().behind(placed(&view, own), standing)
    });
    let mut why_not = condition.complaints();
    why_not.extend(behind);
    why_not
}

/// The conditions of readiness, except for the replicas.
#[derive(Debug)]
struct Condition {
    stopping: bool,
    in_cluster: bool,
    controller_known: bool,
    /// The applied index and the last index of the metadata log.
    metadata: Option<(u64, u64)>,
    disk: DiskStatus,
}

impl Condition {
    fn complaints(&self) -> Vec<String> {
        let mut why_not = Vec::new();
        if self.stopping {
            why_not.push("node is stopping: it is transferring its leaderships".to_owned());
        }
        if !self.in_cluster {
            why_not
                .push("node is not in a cluster yet; its log names what it waits for".to_owned());
        } else if !self.controller_known {
            why_not.push("metadata group has no leader that this node knows of".to_owned());
        }
        if let Some((applied, last)) = self.metadata
            && last.saturating_sub(applied) > METADATA_BEHIND
        {
            why_not.push(format!(
                "cluster metadata is stale: {applied} of {last} entries of the metadata log are \
                 applied"
            ));
        }
        match &self.disk {
            DiskStatus::Healthy => {}
            DiskStatus::Full => why_not.push("disk is full; writes are refused".to_owned()),
            DiskStatus::Failed(reason) => why_not.push(format!("disk failed: {reason}")),
        }
        why_not
    }
}

/// The partitions of which this node should hold a replica that is not damaged.
fn placed(view: &MetadataImage, own: NodeId) -> impl Iterator<Item = (&str, &PartitionImage)> {
    let all = view.topics.values().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.as_str(), partition))
    });
    all.filter(move |(_, partition)| {
        let mut here = partition.replicas.iter();
        here.any(|at| at.node == own && !partition.damaged.contains(&at.replica))
    })
}

/// The state of a replica of this node.
struct Standing {
    runs: bool,
    /// True if its leader counts it as in sync; `None` without a leader.
    keeps_up: Option<bool>,
}

impl InitialCatchUp {
    /// A reason that names the initial replicas that have not caught up yet, if there are any.
    fn behind<'a>(
        &mut self,
        placed: impl Iterator<Item = (&'a str, &'a PartitionImage)>,
        standing: impl Fn(GroupId) -> Standing,
    ) -> Option<String> {
        if self.groups.is_empty() {
            return None;
        }
        let patient = self.since.elapsed() < LEADER_WITHIN;
        let (mut still, mut names, mut count) = (BTreeSet::new(), Vec::new(), 0);
        for (topic, partition) in placed {
            if !self.groups.contains(&partition.group) {
                continue;
            }
            let Standing { runs, keeps_up } = standing(partition.group);
            if runs && keeps_up == Some(true) {
                continue;
            }
            still.insert(partition.group);
            // A replica without a leader cannot be behind it: the fault is elsewhere.
            if !runs || keeps_up == Some(false) || patient {
                count += 1;
                if names.len() < NAMED {
                    names.push(format!("{topic}/{}", partition.partition));
                }
            }
        }
        self.groups = still;
        (count > 0).then(|| {
            let more = if count > names.len() { ", ..." } else { "" };
            format!(
                "{count} of the replicas that this node started with have not caught up yet: \
                 {}{more}",
                names.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Condition = Condition {
        stopping: false,
        in_cluster: true,
        controller_known: true,
        metadata: Some((5, 5)),
        disk: DiskStatus::Healthy,
    };

    #[test]
    fn each_reason_is_said_by_itself_and_none_by_a_node_that_is_well() {
        assert!(READY.complaints().is_empty());
        let behind = |by| Some((1, 1 + by));
        let metadata = |metadata| Condition { metadata, ..READY };
        assert!(metadata(behind(METADATA_BEHIND)).complaints().is_empty());
        let disk = |disk| Condition { disk, ..READY };
        let failed = DiskStatus::Failed("it burns".to_owned());
        let reasons = [
            (
                Condition {
                    stopping: true,
                    ..READY
                },
                "is stopping",
            ),
            (
                Condition {
                    in_cluster: false,
                    ..READY
                },
                "not in a cluster yet",
            ),
            (
                Condition {
                    controller_known: false,
                    ..READY
                },
                "has no leader",
            ),
            (metadata(behind(METADATA_BEHIND + 1)), "1 of 1002 entries"),
            (disk(DiskStatus::Full), "disk is full"),
            (disk(failed), "disk failed: it burns"),
        ];
        for (condition, why) in reasons {
            let complaints = condition.complaints();
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            assert!(complaints[0].contains(why), "{complaints:?}");
        }
    }

    /// This number of partitions; each is its own group.
    fn partitions(count: u32) -> Vec<PartitionImage> {
        let partition = |partition| PartitionImage {
            partition,
            group: GroupId(partition.into()),
            replicas: Vec::new(),
            retiring: Vec::new(),
            damaged: Vec::new(),
            founding: Vec::new(),
        };
        (0..count).map(partition).collect()
    }

    fn ask(
        returning: &mut InitialCatchUp,
        partitions: &[PartitionImage],
        standing: impl Fn(u64) -> (bool, Option<bool>),
    ) -> Option<String> {
        let placed = partitions.iter().map(|partition| ("t", partition));
        returning.behind(placed, |group| {
            let (runs, keeps_up) = standing(group.0);
            Standing { runs, keeps_up }
        })
    }

    fn returning(partitions: &[PartitionImage]) -> InitialCatchUp {
        InitialCatchUp {
            since: Instant::now(),
            groups: partitions.iter().map(|partition| partition.group).collect(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_are_not_back_are_named_until_they_were_and_never_again() {
        let all = partitions(3);
        let mut returning = returning(&all);
        let said = ask(&mut returning, &all, |group| match group {
            0 => (false, Some(true)),
            1 => (true, Some(false)),
            _ => (true, Some(true)),
        });
        let said = said.unwrap();
        assert!(said.starts_with("2 of the replicas"), "{said}");
        assert!(said.ends_with("t/0, t/1"), "{said}");
        let said = ask(&mut returning, &all, |group| (true, Some(group != 1)));
        assert!(said.unwrap().ends_with("t/1"));
        assert_eq!(ask(&mut returning, &all, |_| (true, Some(true))), None);
        assert_eq!(ask(&mut returning, &all, |_| (false, Some(false))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_without_a_leader_counts_for_a_while_and_one_that_does_not_run_always() {
        let all = partitions(2);
        let mut returning = returning(&all);
        let standing = |group| (group == 0, None);
        let said = ask(&mut returning, &all, standing).unwrap();
        assert!(said.ends_with("t/0, t/1"), "{said}");
        tokio::time::advance(LEADER_WITHIN).await;
        let said = ask(&mut returning, &all, standing).unwrap();
        assert!(said.ends_with(": t/1"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_replicas_that_are_not_back_are_counted_and_a_few_of_them_named() {
        let all = partitions(1_000);
        let said = ask(&mut returning(&all), &all, |_| (false, None)).unwrap();
        assert!(said.starts_with("1000 of"), "{said}");
        assert!(said.ends_with("t/0, t/1, t/2, t/3, t/4, ..."), "{said}");
    }
}
