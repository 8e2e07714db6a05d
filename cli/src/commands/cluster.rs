//! `ropewalk cluster`.

use std::time::Duration;

use anyhow::bail;
use ropewalk_client::{Client, ClusterStatus, NodeState, TopicInfo};
use serde::Serialize;
use tokio::time::Instant;

use super::Context;
use super::rows::{NodeRow, PartitionRow};
use crate::args::ClusterCommand;
use crate::output::{list, spinner};

/// Interval between two checks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time that partitions of living nodes may take to get a leader and to be in sync.
const GRACE: Duration = Duration::from_secs(3);

pub async fn run(context: Context, verb: ClusterCommand) -> anyhow::Result<()> {
    match verb {
        ClusterCommand::Status => {
            let mut nodes = context
                .client()
                .await?
                .admin()
                .cluster_status()
                .await?
                .nodes;
            nodes.sort_by_key(|node| node.node_id);
            let rows: Vec<NodeRow> = nodes.iter().map(NodeRow::from).collect();
            Ok(context.output.rows(&rows)?)
        }
        ClusterCommand::Health { wait } => health(context, wait.unwrap_or_default()).await,
        ClusterCommand::Drain { node } => set_state(context, node, NodeState::Draining).await,
        ClusterCommand::Recommission { node } => set_state(context, node, NodeState::Active).await,
        ClusterCommand::Decommission { node, wait: false } => {
            set_state(context, node, NodeState::Decommissioning).await
        }
        ClusterCommand::Decommission { node, wait: true } => decommission(context, node).await,
    }
}

/// Health of the cluster.
#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    partitions: usize,
    /// Partitions without a leader, as TOPIC/P.
    without_leader: Vec<String>,
    /// Partitions with a replica that lags or is missing, as TOPIC/P.
    not_in_sync: Vec<String>,
    /// Nodes that do not respond.
    dead_nodes: Vec<u64>,
}

impl Health {
    fn of(topics: &[TopicInfo], nodes: &[NodeRow]) -> Health {
        let rows: Vec<PartitionRow> = topics.iter().flat_map(PartitionRow::of).collect();
        let named = |wrong: &dyn Fn(&&PartitionRow) -> bool| -> Vec<String> {
            let found = rows.iter().filter(wrong);
            found
                .map(|row| format!("{}/{}", row.topic, row.partition))
                .collect()
        };
        let without_leader = named(&|row| row.leader.is_none());
        let not_in_sync = named(&|row| row.leader.is_some() && !row.is_in_sync());
        let dead = nodes.iter().filter(|node| node.state == "dead");
        Health {
            healthy: without_leader.is_empty() && not_in_sync.is_empty(),
            partitions: rows.len(),
            without_leader,
            not_in_sync,
            dead_nodes: dead.map(|node| node.node_id).collect(),
        }
    }

    /// Time to keep checking. Partitions that were just created, such as `_groups` by the first member of a
    /// group, get a leader and in-sync replicas shortly. No extra time while nodes are missing.
    fn patience(&self, wait: Duration) -> Duration {
        match (self.healthy, self.dead_nodes.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => wait.max(GRACE),
            (false, false) => wait,
        }
    }

    /// Describes a healthy cluster, with the nodes that do not respond.
    fn praise(&self) -> String {
        let partitions = self.partitions;
        let led =
            format!("healthy: {partitions} partitions have a leader and all replicas in sync");
        led + &self.missed()
    }

    /// Describes the problems in a sentence.
    fn complaint(&self) -> String {
        let mut wrong = Vec::new();
        let examples = |names: &[String]| names.first().cloned().unwrap_or_default();
        if !self.without_leader.is_empty() {
            let (count, first) = (self.without_leader.len(), examples(&self.without_leader));
            wrong.push(format!("{count} without a leader (first {first})"));
        }
        if !self.not_in_sync.is_empty() {
            let (count, first) = (self.not_in_sync.len(), examples(&self.not_in_sync));
            wrong.push(format!("{count} not in sync (first {first})"));
        }
        let (partitions, wrong) = (self.partitions, wrong.join(", "));
        let missed = self.missed();
        format!(
            "cluster is not healthy: of {partitions} partitions, {wrong}{missed}; wait with --wait until the replicas catch up"
        )
    }

    /// Names the dead nodes. A dead node may hold no replica, so a healthy cluster can have one.
    fn missed(&self) -> String {
        if self.dead_nodes.is_empty() {
            return String::new();
        }
        let dead = list(&self.dead_nodes);
        format!(
            "; dead nodes: {dead}, restart them, or decommission those that are permanently lost"
        )
    }
}

async fn look(client: &Client) -> anyhow::Result<Health> {
    let admin = client.admin();
    let nodes = admin.cluster_status().await?.nodes;
    let nodes: Vec<NodeRow> = nodes.iter().map(NodeRow::from).collect();
    Ok(Health::of(&admin.topics().await?, &nodes))
}

/// Checks until the cluster is healthy or the time is over. Also retries while the cluster is unreachable.
async fn health(context: Context, wait: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    let progress = (!wait.is_zero()).then(|| spinner("waiting until the cluster is healthy"));
    let found = loop {
        let found = match context.client().await {
            Ok(client) => look(&client).await,
            Err(error) => Err(error),
        };
        let patience = match &found {
            Ok(health) => health.patience(wait),
            Err(_) => wait,
        };
        if begun.elapsed() + LOOK_EVERY > patience {
            break found?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    context.output.one(&found, |health| match health.healthy {
        true => health.praise(),
        false => "not healthy".to_string(),
    })?;
    if !found.healthy {
        bail!("{}", found.complaint());
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct NodeChanged {
    node_id: u64,
    state: &'static str,
}

fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Decommissioning => "decommissioning",
        NodeState::Removed => "removed",
        _ => "unknown",
    }
}

async fn set_state(context: Context, node: u64, state: NodeState) -> anyhow::Result<()> {
    context
        .client()
        .await?
        .admin()
        .set_node_state(node, state)
        .await?;
    say(&context, node, state)
}

fn say(context: &Context, node: u64, state: NodeState) -> anyhow::Result<()> {
    let changed = NodeChanged {
        node_id: node,
        state: state_name(state),
    };
    let text = |changed: &NodeChanged| format!("node {} is {}", changed.node_id, changed.state);
    Ok(context.output.one(&changed, text)?)
}

/// Starts to decommission a node, and waits until it is removed.
async fn decommission(context: Context, node: u64) -> anyhow::Result<()> {
    let client = context.client().await?;
    let admin = client.admin();
    admin
        .set_node_state(node, NodeState::Decommissioning)
        .await?;
    let progress = spinner("moving replicas to other nodes");
    let mut leaving = Leaving::default();
    loop {
        match leaving.look(&admin.cluster_status().await?, node) {
            Left::Yes => break,
            Left::NotYet { replicas } => {
                progress.set_prefix(format!("{replicas} replicas left on node {node}"));
            }
            Left::Stays => {
                bail!(
                    "node {node} is no longer being decommissioned: it was recommissioned meanwhile; decommission it again"
                )
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    progress.finish_and_clear();
    say(&context, node, NodeState::Removed)
}

/// State of a node that leaves, collected from consecutive answers. Each answer may come from another node,
/// and one that lags may not know the leaving node. Its absence from an answer does not prove its removal,
/// after which an operator may wipe its disks.
#[derive(Debug, Default)]
struct Leaving {
    /// Metadata index of the newest answer.
    newest: u64,
    seen: bool,
    replicas: u32,
}

#[derive(Debug, PartialEq)]
enum Left {
    Yes,
    NotYet { replicas: u32 },
    Stays,
}

impl Leaving {
    fn look(&mut self, status: &ClusterStatus, node: u64) -> Left {
        let old = status.metadata_index < self.newest;
        self.newest = self.newest.max(status.metadata_index);
        if status.removed_node_ids.contains(&node) {
            return Left::Yes;
        }
        let found = status.nodes.iter().find(|one| one.node_id == node);
        if let (Some(found), false) = (found, old) {
            if found.state == NodeState::Decommissioning {
                self.seen = true;
                self.replicas = found.replicas;
            } else if self.seen {
                return Left::Stays;
            }
        }
        Left::NotYet {
            replicas: self.replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropewalk_client::NodeStatus;
    use ropewalk_proto::v1;

    fn topic(leader: u64, in_sync: &[u64]) -> TopicInfo {
        TopicInfo::from(v1::TopicInfo {
            name: "t".into(),
            partitions: vec![v1::PartitionInfo {
                leader_node_id: leader,
                replica_node_ids: vec![1, 2, 3],
                in_sync_node_ids: in_sync.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    /// An answer from a node at this metadata index.
    fn status(metadata_index: u64, state: Option<NodeState>, removed: &[u64]) -> ClusterStatus {
        let node = |state| {
            let mut node = NodeStatus::default();
            node.node_id = 4;
            node.state = state;
            node.replicas = 7;
            node
        };
        let mut status = ClusterStatus::default();
        status.metadata_index = metadata_index;
        status.nodes = state.map(node).into_iter().collect();
        status.removed_node_ids = removed.to_vec();
        status
    }

    #[test]
    fn a_node_has_left_only_when_somebody_says_so() {
        let mut leaving = Leaving::default();
        let not_yet = |replicas| Left::NotYet { replicas };
        // An answer from a node that is behind: it does not know the leaving node, or does not know that it
        // leaves.
        assert_eq!(leaving.look(&status(3, None, &[]), 4), not_yet(0));
        let unaware = status(5, Some(NodeState::Active), &[]);
        assert_eq!(leaving.look(&unaware, 4), not_yet(0));
        let aware = status(9, Some(NodeState::Decommissioning), &[1]);
        assert_eq!(leaving.look(&aware, 4), not_yet(7));
        assert_eq!(leaving.look(&unaware, 4), not_yet(7));
        assert_eq!(leaving.look(&status(12, None, &[1, 4]), 4), Left::Yes);
    }

    #[test]
    fn a_node_that_is_called_back_stays() {
        let mut leaving = Leaving::default();
        leaving.look(&status(9, Some(NodeState::Decommissioning), &[]), 4);
        let back = status(10, Some(NodeState::Active), &[]);
        assert_eq!(leaving.look(&back, 4), Left::Stays);
    }

    #[test]
    fn healthy_means_led_and_in_sync_everywhere() {
        assert!(Health::of(&[], &[]).healthy);
        assert!(Health::of(&[topic(1, &[1, 2, 3])], &[]).healthy);
        let lagging = Health::of(&[topic(1, &[1, 2])], &[]);
        assert!(!lagging.healthy);
        assert!(
            lagging.complaint().contains("1 not in sync (first t/0)"),
            "{}",
            lagging.complaint()
        );
        let leaderless = Health::of(&[topic(0, &[])], &[]);
        assert!(!leaderless.healthy);
        assert!(
            leaderless
                .complaint()
                .contains("1 without a leader (first t/0)")
        );
    }

    #[test]
    fn what_is_being_created_gets_a_moment_and_a_missed_node_does_not() {
        let seconds = Duration::from_secs;
        let (whole, young) = (topic(1, &[1, 2, 3]), topic(1, &[1]));
        assert_eq!(Health::of(&[whole], &[]).patience(seconds(60)), seconds(0));
        let young = Health::of(&[young], &[]);
        assert_eq!(young.patience(seconds(0)), GRACE);
        assert_eq!(young.patience(seconds(60)), seconds(60));
        let missed = Health {
            dead_nodes: vec![4],
            ..young
        };
        assert_eq!(missed.patience(seconds(0)), seconds(0));
    }

    #[test]
    fn a_node_that_is_missed_is_named_even_if_no_partition_misses_it() {
        let node = |alive| {
            let mut node = NodeStatus::default();
            node.node_id = 4;
            node.state = NodeState::Active;
            node.alive = alive;
            NodeRow::from(&node)
        };
        let whole = Health::of(&[topic(1, &[1, 2, 3])], &[node(true)]);
        assert!(!whole.praise().contains("nodes"), "{}", whole.praise());
        let missing = Health::of(&[topic(1, &[1, 2, 3])], &[node(false)]);
        assert!(missing.healthy);
        assert!(
            missing.praise().contains("dead nodes: 4"),
            "{}",
            missing.praise()
        );
    }
}
