//! Settings of a node, and the named bounds of everything that could grow. Flags override the environment,
//! and the environment overrides the file.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

/// Longest time between two reports of a node to every other node. They also show that the node is alive.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Shortest and longest session timeout of a group member, in ms.
pub(crate) const SESSION_MS: RangeInclusive<u32> = 500..=30 * 60_000;
/// Longest time that a member may take to give up a partition, in ms.
pub(crate) const MAX_REBALANCE_MS: u32 = 60 * 60_000;

/// Settings of one node. The file is TOML, with these names as keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address at which other nodes and clients reach this node, `host:port`.
    pub advertise: String,
    /// Address of the gRPC listener, `host:port`.
    pub listen: String,
    /// Address of the HTTP listener for metrics and health, if on.
    pub http: Option<String>,
    /// Address of the HTTP listener that serves only health probes, if on. It never uses TLS, whatever the
    /// other listeners use.
    pub probes: Option<String>,
    /// Second listener, for clients that cannot reach `advertise`.
    pub external: Option<External>,
    /// Seed nodes, through which the node forms or finds a cluster.
    pub seeds: Vec<String>,
    /// Rack (zone) of this node.
    pub rack: String,
    /// Cluster that this node's data directory belongs to, if any. The node then joins no other cluster and
    /// founds none, even if its database is empty. Not set by operators: it is stored beside the database.
    #[serde(skip)]
    pub member_of: Option<String>,
    /// True if all nodes of the cluster share a process, and so stop together. A stopping node then has no
    /// successor for its leaderships. Not set by operators.
    #[serde(skip)]
    pub stops_with_all: bool,
    /// Timings and bounds.
    pub limits: Limits,
}

/// Listener for clients outside the nodes' network, for example outside their Kubernetes cluster. These
/// clients get the other nodes' external addresses. Nodes still reach each other by `advertise`, and this
/// listener does not serve calls between nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Address of this listener, `host:port`.
    pub listen: String,
    /// Address at which those clients reach it, `host:port`.
    pub advertise: String,
}

/// Timings and bounds. One of these limits every queue, buffer and loop of a node.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Interval of a leader's heartbeats to its followers, in ms.
    pub heartbeat_ms: u64,
    /// Leader lease, in ms. A follower without a heartbeat for 1.5 to 2 times this long starts an election.
    pub election_timeout_ms: u64,
    /// Timeout of one RPC between nodes, in ms.
    pub peer_rpc_timeout_ms: u64,
    /// Maximum bytes of entries in one AppendEntries.
    pub append_bytes: usize,
    /// Memory for the log tails of all replicas together. Replication and tailing readers read from it
    /// without the disk.
    pub log_tail_bytes: usize,
    /// Bytes of writes that may wait for the committer before producers have to wait.
    pub commit_queue_bytes: usize,
    /// Bytes of log that must follow a checkpoint before the next one, for each byte of the checkpoint. Checkpoints
    /// of at most 4 KiB need none, and after ten minutes no checkpoint does. 0: a checkpoint at the end of every
    /// segment, whatever its cost.
    pub checkpoint_factor: u64,
    /// Maximum bytes of one checkpoint sent to another node. It also bounds the checkpoints that a node
    /// receives at a time.
    pub checkpoint_bytes: usize,
    /// Block cache and memtables of the database together.
    pub database_bytes: usize,
    /// Free disk space below which the node refuses writes.
    pub free_space_floor_bytes: u64,
    /// Bytes of produce requests in flight in the whole node before new ones wait.
    pub produce_inflight_bytes: usize,
    /// Maximum unpacked bytes of one batch's records, whatever its topic allows.
    pub unpack_batch_bytes: usize,
    /// Maximum unpacked bytes of one batch's records, as a multiple of the topic's `max_batch_bytes`.
    pub unpack_factor: usize,
    /// Unpacked bytes of records that the whole node may check, filter or search at a time. Half is for
    /// producers, half for readers. Each half may also hold one batch that unpacks to over 64 times its size.
    pub unpack_inflight_bytes: usize,
    /// Rate at which the node unpacks batches that unpack to over 64 times their size, in unpacked bytes.
    /// Half of it is for producers, half for readers; 0: unlimited.
    pub unpack_bytes_per_s: usize,
    /// Maximum bytes that one fetch returns.
    pub fetch_bytes: usize,
    /// Maximum time that a fetch may wait for records, in ms.
    pub fetch_wait_ms: u64,
    /// Requests in flight on one client stream before the node stops reading from it.
    pub stream_inflight: usize,
    /// Open connections of each port. One address gets at most half, unless a node calls from it. If all are
    /// open, a new one closes the one that was idle for longest.
    pub connections: usize,
    /// Open connections of the port for probes, by the same rules.
    pub probe_connections: usize,
    /// Calls and streams of clients in flight. One address gets at most half. Calls of other nodes have a
    /// separate bound of the same size.
    pub streams: usize,
    /// Streams of one connection.
    pub streams_per_connection: u32,
    /// Maximum bytes of the headers of one call.
    pub header_bytes: u32,
    /// Maximum bytes of one client request. Requests with records may be as large as the largest batch that
    /// any topic allows.
    pub request_bytes: usize,
    /// Maximum fields of one client request, nested messages included.
    pub request_fields: usize,
    /// Time within which one request must arrive, in ms.
    pub request_within_ms: u64,
    /// Bytes of requests that are incomplete or unanswered, before the node stops reading further ones.
    pub request_inflight_bytes: usize,
    /// Bytes of unsent answers to clients. Past it, the node closes the connections of clients that read
    /// nothing, and other answers wait.
    pub answer_inflight_bytes: usize,
    /// Time within which the head of an HTTP request must arrive, and maximum idle time of a connection
    /// between requests, in ms.
    pub http_head_within_ms: u64,
    /// Replicas with metrics of their own. A node with more shows these metrics per topic only.
    pub metrics_partitions: usize,
    /// Topics with metrics under their own names. Further topics are added up.
    pub metrics_topics: usize,
    /// Consumer groups, and partitions read by consumer groups, with metrics of their own.
    pub metrics_groups: usize,
    /// Interval at which a coordinator measures the lag of its groups for metrics, in ms.
    pub metrics_lag_interval_ms: u64,
    /// Interval at which retention checks each partition, in ms.
    pub retention_interval_ms: u64,
    /// Silence after which a node counts as dead, in ms. Clients are not routed to a dead node as a leader.
    pub node_dead_after_ms: u64,
    /// Silence after which the replicas of a node are rebuilt on other nodes, in ms.
    pub node_lost_after_ms: u64,
    /// Replicas each node holds before the cluster refuses further topics and partitions.
    pub replicas_per_node: u32,
    /// New replicas that a node opens at a time. Further ones wait until these have a leader.
    pub founding_replicas: usize,
    /// Interval at which the controller compares the desired state with the actual one, in ms.
    pub reconcile_interval_ms: u64,
    /// Rate at which a node sends records to new replicas of the partitions it leads, for all of them
    /// together; 0: unlimited.
    pub rebalance_bytes_per_s: usize,
    /// Rate at which a node reads its stored data in search of damage; 0: off.
    pub scrub_bytes_per_s: usize,
    /// Pause between two such passes over all data, in ms.
    pub scrub_interval_ms: u64,
    /// Rate at which a node reads and writes for compaction, for all its topics together; 0: off.
    pub compaction_bytes_per_s: usize,
    /// Memory for the keys of the partition under compaction. With less, compaction needs more passes over
    /// the log.
    pub compaction_memory_bytes: usize,
    /// Partitions of the internal topic that stores consumer groups. Used only when the topic is created.
    pub group_partitions: u32,
    /// Consumer groups of one coordinator.
    pub groups_per_coordinator: usize,
    /// Members of one consumer group.
    pub group_members: usize,
    /// Bytes of one consumer group: committed offsets and their notes, members and their subscriptions,
    /// and assignments.
    pub group_bytes: u64,
    /// Bytes of all consumer groups of one coordinator together. A new replica of a coordinator receives all
    /// of them in one checkpoint.
    pub coordinator_group_bytes: u64,
    /// Session timeout of a member that asks for none, in ms. The coordinator removes a member that is silent
    /// for longer.
    pub group_session_ms: u32,
    /// Time that a member has to reconnect after its connection ended, in ms. Static members have their whole
    /// session.
    pub group_return_ms: u64,
    /// Time that a member has to give up a partition, if it asks for none, in ms.
    pub group_rebalance_ms: u32,
    /// Time after which a group without members is deleted, in ms.
    pub group_retention_ms: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            heartbeat_ms: 300,
            election_timeout_ms: 1_000,
            peer_rpc_timeout_ms: 2_000,
            append_bytes: 2 << 20,
            log_tail_bytes: 256 << 20,
            commit_queue_bytes: 64 << 20,
            checkpoint_factor: 4,
            checkpoint_bytes: 1 << 30,
            database_bytes: 512 << 20,
            free_space_floor_bytes: 256 << 20,
            produce_inflight_bytes: 128 << 20,
            unpack_batch_bytes: 32 << 20,
            unpack_factor: 8,
            unpack_inflight_bytes: 64 << 20,
            unpack_bytes_per_s: 256 << 20,
            fetch_bytes: 4 << 20,
            fetch_wait_ms: 30_000,
            stream_inflight: 1_024,
            connections: 4_096,
            probe_connections: 256,
            streams: 16_384,
            streams_per_connection: 2_048,
            header_bytes: 16 << 10,
            request_bytes: 4 << 20,
            request_fields: 100_000,
            request_within_ms: 30_000,
            request_inflight_bytes: 128 << 20,
            answer_inflight_bytes: 128 << 20,
            http_head_within_ms: 10_000,
            metrics_partitions: 2_000,
            metrics_topics: 1_000,
            metrics_groups: 2_000,
            metrics_lag_interval_ms: 5_000,
            retention_interval_ms: 10_000,
            node_dead_after_ms: 3_000,
            node_lost_after_ms: 600_000,
            replicas_per_node: 2_000,
            founding_replicas: 16,
            reconcile_interval_ms: 500,
            rebalance_bytes_per_s: 100 << 20,
            scrub_bytes_per_s: 8 << 20,
            scrub_interval_ms: 6 * 3_600_000,
            compaction_bytes_per_s: 32 << 20,
            compaction_memory_bytes: 64 << 20,
            group_partitions: 16,
            groups_per_coordinator: 10_000,
            group_members: 1_000,
            group_bytes: 16 << 20,
            coordinator_group_bytes: 48 << 20,
            group_session_ms: 10_000,
            group_return_ms: 3_000,
            group_rebalance_ms: 30_000,
            group_retention_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl Limits {
    /// Refuses limits with which no node can work, each by its name and value.
    ///
    /// # Errors
    /// Describes the mistake, and how to correct it.
    pub fn check(&self) -> Result<(), String> {
        self.check_positive()?;
        let heartbeats = ("heartbeat_ms", self.heartbeat_ms);
        let reports = u64::try_from(REPORT_EVERY.as_millis()).unwrap_or(u64::MAX);
        at_least_twice(
            ("election_timeout_ms", self.election_timeout_ms),
            heartbeats,
        )?;
        at_least_twice(("node_dead_after_ms", self.node_dead_after_ms), heartbeats)?;
        if self.node_dead_after_ms < reports.saturating_mul(2) {
            return Err(format!(
                "limits.node_dead_after_ms = {} is below {}: nodes report every {reports} ms, and \
                 a node with one late report would count as dead; raise it",
                self.node_dead_after_ms,
                reports.saturating_mul(2)
            ));
        }
        if self.node_lost_after_ms < self.node_dead_after_ms {
            return Err(format!(
                "limits.node_lost_after_ms = {} is below limits.node_dead_after_ms = {}: a node \
                 is dead before it is lost; raise the first, or lower the second",
                self.node_lost_after_ms, self.node_dead_after_ms
            ));
        }
        if !SESSION_MS.contains(&self.group_session_ms) {
            return Err(format!(
                "limits.group_session_ms = {} is outside the range that members may request; \
                 choose {} to {}",
                self.group_session_ms,
                SESSION_MS.start(),
                SESSION_MS.end()
            ));
        }
        if self.group_rebalance_ms > MAX_REBALANCE_MS {
            return Err(format!(
                "limits.group_rebalance_ms = {} is above the maximum that members may request; \
                 choose {MAX_REBALANCE_MS} at most",
                self.group_rebalance_ms
            ));
        }
        Ok(())
    }

    /// Refuses 0 for limits that would then admit nothing, or leave no time.
    fn check_positive(&self) -> Result<(), String> {
        let zero = |name: &'static str, is_zero: bool| is_zero.then_some(name);
        let zeros = [
            zero("heartbeat_ms", self.heartbeat_ms == 0),
            zero("peer_rpc_timeout_ms", self.peer_rpc_timeout_ms == 0),
            zero("append_bytes", self.append_bytes == 0),
            zero("commit_queue_bytes", self.commit_queue_bytes == 0),
            zero("database_bytes", self.database_bytes == 0),
            zero("produce_inflight_bytes", self.produce_inflight_bytes == 0),
            zero("unpack_batch_bytes", self.unpack_batch_bytes == 0),
            zero("unpack_factor", self.unpack_factor == 0),
            zero("fetch_bytes", self.fetch_bytes == 0),
            zero("stream_inflight", self.stream_inflight == 0),
            zero("connections", self.connections == 0),
            zero("probe_connections", self.probe_connections == 0),
            zero("streams", self.streams == 0),
            zero("streams_per_connection", self.streams_per_connection == 0),
            zero("header_bytes", self.header_bytes == 0),
            zero("request_bytes", self.request_bytes == 0),
            zero("request_fields", self.request_fields == 0),
            zero("request_within_ms", self.request_within_ms == 0),
            zero("answer_inflight_bytes", self.answer_inflight_bytes == 0),
            zero("http_head_within_ms", self.http_head_within_ms == 0),
            zero("retention_interval_ms", self.retention_interval_ms == 0),
            zero("reconcile_interval_ms", self.reconcile_interval_ms == 0),
            zero("scrub_interval_ms", self.scrub_interval_ms == 0),
            zero("replicas_per_node", self.replicas_per_node == 0),
            zero("founding_replicas", self.founding_replicas == 0),
            zero("group_partitions", self.group_partitions == 0),
            zero("groups_per_coordinator", self.groups_per_coordinator == 0),
            zero("group_members", self.group_members == 0),
            zero("group_rebalance_ms", self.group_rebalance_ms == 0),
            zero("group_retention_ms", self.group_retention_ms <= 0),
        ];
        match zeros.into_iter().flatten().next() {
            Some(name) => Err(format!(
                "limits.{name} must not be 0; write 1 or more, or leave it out for the default"
            )),
            None => Ok(()),
        }
    }
}

/// Refuses a time shorter than two beats, because one beat may be lost.
fn at_least_twice(time: (&str, u64), beat: (&str, u64)) -> Result<(), String> {
    if time.1 >= beat.1.saturating_mul(2) {
        return Ok(());
    }
    let ((time, time_ms), (beat, beat_ms)) = (time, beat);
    Err(format!(
        "limits.{time} = {time_ms} is below twice limits.{beat} = {beat_ms}: one late heartbeat \
         would count as silence; raise the first, or lower the second"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_work() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn limits_that_cannot_work_together_are_refused_by_both_names_and_values() {
        type Spoil = fn(&mut Limits);
        let wrong: [(Spoil, &[&str]); 8] = [
            (
                |limits| limits.node_dead_after_ms = 1,
                &["node_dead_after_ms = 1", "heartbeat_ms = 300"],
            ),
            (
                |limits| limits.node_dead_after_ms = 1_999,
                &["node_dead_after_ms = 1999", "every 1000 ms"],
            ),
            (
                |limits| limits.election_timeout_ms = 300,
                &["election_timeout_ms = 300", "heartbeat_ms = 300"],
            ),
            (
                |limits| limits.node_lost_after_ms = 2_999,
                &["node_lost_after_ms = 2999", "node_dead_after_ms = 3000"],
            ),
            (
                |limits| limits.group_session_ms = 499,
                &["group_session_ms = 499", "500"],
            ),
            (
                |limits| limits.group_rebalance_ms = 3_600_001,
                &["group_rebalance_ms = 3600001"],
            ),
            (|limits| limits.connections = 0, &["limits.connections "]),
            (|limits| limits.heartbeat_ms = 0, &["limits.heartbeat_ms "]),
        ];
        for (change, says) in wrong {
            let mut limits = Limits::default();
            change(&mut limits);
            let error = limits.check().unwrap_err();
            for said in says {
                assert!(error.contains(said), "{said}: {error}");
            }
        }
    }
}
