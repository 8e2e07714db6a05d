//! What an operator can set: flags, environment and file, in that order of precedence, and the
//! named bounds of everything that could grow.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

/// Longest silence between two reports of a node: its other nodes are told within it that it lives.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The shortest and the longest session of a group's member, in ms.
pub(crate) const SESSION_MS: RangeInclusive<u32> = 500..=30 * 60_000;
/// The longest that a member may take to give a partition up, in ms.
pub(crate) const MAX_REBALANCE_MS: u32 = 60 * 60_000;

/// The settings of one node. As a file it is TOML with these names as keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address other nodes and clients reach this node at, host:port.
    pub advertise: String,
    /// The address of the gRPC listener, host:port.
    pub listen: String,
    /// The address of metrics and health, if on.
    pub http: Option<String>,
    /// The address of health alone, for probes, if on. It is plain whatever the other ports take.
    pub probes: Option<String>,
    /// A second way in for clients that don't reach `advertise`, if there is one.
    pub external: Option<External>,
    /// The nodes to form or find a cluster through.
    pub seeds: Vec<String>,
    /// The rack (zone) this node stands in.
    pub rack: String,
    /// The cluster this node's data directory belongs to, if it was in one already: the node joins no
    /// other and founds none, even if its database is empty. Nothing an operator sets; it is kept
    /// beside the database.
    #[serde(skip)]
    pub member_of: Option<String>,
    /// All nodes of the cluster stop when this one does: there is nobody to hand leaderships over to. Not for
    /// operators to set: true where all nodes share a process.
    #[serde(skip)]
    pub stops_with_all: bool,
    /// Timings and bounds.
    pub limits: Limits,
}

/// Where clients from elsewhere come in, as those outside of the Kubernetes cluster a node is in. They
/// are told the other nodes' external addresses; nodes talk to each other by `advertise` all the same,
/// and what they say to each other is not served here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The address of this listener, host:port.
    pub listen: String,
    /// The address those clients reach it at, host:port.
    pub advertise: String,
}

/// Timings and bounds. Every queue, buffer and loop of a node is held by one of these.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How often a leader tells its followers that it lives.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for this long, or up to twice this long, stands for election.
    pub election_timeout_ms: u64,
    /// Bound of one peer RPC.
    pub peer_rpc_timeout_ms: u64,
    /// The most entry bytes in one AppendEntries.
    pub append_bytes: usize,
    /// Memory for the tails of all logs together: what replication and tailing readers are served
    /// from without the disk.
    pub log_tail_bytes: usize,
    /// Bytes of writes waiting for the committer before producers are made to wait.
    pub commit_queue_bytes: usize,
    /// Bytes of log for each byte of a checkpoint that follows them, unless it has 4 KiB or less; 0: a
    /// checkpoint at each end of a segment, whatever it costs.
    pub checkpoint_factor: u64,
    /// The most bytes of a checkpoint that is sent to another node, and of those from others that are taken in
    /// at a time.
    pub checkpoint_bytes: usize,
    /// The block cache and memtables of the database, together.
    pub database_bytes: usize,
    /// Below this much free space, writes are refused.
    pub free_space_floor_bytes: u64,
    /// Bytes of produce requests under way in the whole node before new ones wait.
    pub produce_inflight_bytes: usize,
    /// The most bytes the records of one batch may unpack to, whatever its topic allows.
    pub unpack_batch_bytes: usize,
    /// The most bytes they may unpack to, as a multiple of the topic's `max_batch_bytes`.
    pub unpack_factor: usize,
    /// Bytes of records that may be unpacked at a time in the whole node, to be checked, filtered or
    /// searched: half of them for producers, half for readers. Beside them, one batch for each that
    /// unpacks to over 64 times its size.
    pub unpack_inflight_bytes: usize,
    /// Rate at which the node unpacks batches that unpack to over 64 times their size, in unpacked bytes.
    /// Half of it is for producers, half for readers; 0: unlimited.
    pub unpack_bytes_per_s: usize,
    /// The most bytes one fetch returns.
    pub fetch_bytes: usize,
    /// The longest a fetch may wait for records.
    pub fetch_wait_ms: u64,
    /// Requests under way on one client stream before the next is not read yet.
    pub stream_inflight: usize,
    /// Connections to each port; half of them from one address, unless a node called from there. When all are
    /// open, the one idle for longest is closed.
    pub connections: usize,
    /// Connections to the port for probes, likewise.
    pub probe_connections: usize,
    /// Calls and streams of clients under way; half of them from one address. The calls of other nodes have a
    /// bound of the same size.
    pub streams: usize,
    /// Streams of one connection.
    pub streams_per_connection: u32,
    /// The most bytes of the headers of one call.
    pub header_bytes: u32,
    /// The most bytes of one request of a client, except those with records: these may be as large as the
    /// largest batch of any topic.
    pub request_bytes: usize,
    /// The most fields of one request of a client, those of messages in it included.
    pub request_fields: usize,
    /// Time one request may take to come, in ms.
    pub request_within_ms: u64,
    /// Bytes of requests that are not whole, or not answered yet, before the next are not read.
    pub request_inflight_bytes: usize,
    /// Bytes of answers to clients that are not sent yet; past it, those that no client reads are dropped
    /// with their connections, and others wait.
    pub answer_inflight_bytes: usize,
    /// Time that the head of an HTTP request may take to come, and a connection may wait for the next, in ms.
    pub http_head_within_ms: u64,
    /// A node with more replicas than this shows metrics of them by topic only.
    pub metrics_partitions: usize,
    /// Topics with metrics under their own names; those of the others are added up.
    pub metrics_topics: usize,
    /// Consumer groups, and partitions read by consumer groups, with metrics of their own.
    pub metrics_groups: usize,
    /// How often a coordinator looks how far its groups are behind, for metrics.
    pub metrics_lag_interval_ms: u64,
    /// How often retention looks at each partition.
    pub retention_interval_ms: u64,
    /// A node silent for this long is shown as dead, and leads nothing as far as routing goes.
    pub node_dead_after_ms: u64,
    /// A node silent for this long gets its replicas rebuilt elsewhere.
    pub node_lost_after_ms: u64,
    /// The most replicas each node holds before further topics and partitions are refused.
    pub replicas_per_node: u32,
    /// New replicas a node opens at a time: the next ones wait until these have a leader.
    pub founding_replicas: usize,
    /// How often the controller compares wish and fact.
    pub reconcile_interval_ms: u64,
    /// How fast a node that leads sends records to replicas that are new, all together; 0: as fast as it
    /// goes.
    pub rebalance_bytes_per_s: usize,
    /// How fast a node reads what it has stored, only to find what has been damaged; 0: not at all.
    pub scrub_bytes_per_s: usize,
    /// Between two such passes over everything.
    pub scrub_interval_ms: u64,
    /// How fast a node reads and writes to compact its topics, all together; 0: not at all.
    pub compaction_bytes_per_s: usize,
    /// Memory for the keys of the partition that is being compacted; with less, the log is gone through
    /// more often.
    pub compaction_memory_bytes: usize,
    /// Partitions of the internal topic that consumer groups are spread over; once, when it is made.
    pub group_partitions: u32,
    /// Consumer groups of one coordinator.
    pub groups_per_coordinator: usize,
    /// Members of one consumer group.
    pub group_members: usize,
    /// Bytes of one consumer group: its positions with their notes, its members with what they subscribe to,
    /// and who owns what.
    pub group_bytes: u64,
    /// Bytes of all consumer groups of one coordinator together. A replica of them is replaced by sending all.
    pub coordinator_group_bytes: u64,
    /// A member that says nothing for this long is out of its group, if it asks for nothing else.
    pub group_session_ms: u32,
    /// A member whose connection ended has this long to come back, unless it is a static one.
    pub group_return_ms: u64,
    /// How long a member may take to give a partition up, if it asks for nothing else.
    pub group_rebalance_ms: u32,
    /// A group without members is forgotten after this long.
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
    /// The mistake, and what to do about it.
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
                "limits.node_dead_after_ms = {} is below {}: nodes report every {reports} ms, and one that reports \
                 late would pass for dead; raise it",
                self.node_dead_after_ms,
                reports.saturating_mul(2)
            ));
        }
        if self.node_lost_after_ms < self.node_dead_after_ms {
            return Err(format!(
                "limits.node_lost_after_ms = {} is below limits.node_dead_after_ms = {}: a node is dead before it is \
                 lost; raise the first, or lower the second",
                self.node_lost_after_ms, self.node_dead_after_ms
            ));
        }
        if !SESSION_MS.contains(&self.group_session_ms) {
            return Err(format!(
                "limits.group_session_ms = {} is outside of what members may ask for; choose {} to {}",
                self.group_session_ms,
                SESSION_MS.start(),
                SESSION_MS.end()
            ));
        }
        if self.group_rebalance_ms > MAX_REBALANCE_MS {
            return Err(format!(
                "limits.group_rebalance_ms = {} is above what members may ask for; choose {MAX_REBALANCE_MS} at most",
                self.group_rebalance_ms
            ));
        }
        Ok(())
    }

    /// Refuses 0 where it would let nothing through, or leave no time.
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
                "limits.{name} leaves nothing to work with; write 1 or more, or leave it out for the default"
            )),
            None => Ok(()),
        }
    }
}

/// Refuses a time in which its beats are not heard: one of them may be lost.
fn at_least_twice(time: (&str, u64), beat: (&str, u64)) -> Result<(), String> {
    if time.1 >= beat.1.saturating_mul(2) {
        return Ok(());
    }
    let ((time, time_ms), (beat, beat_ms)) = (time, beat);
    Err(format!(
        "limits.{time} = {time_ms} is below twice limits.{beat} = {beat_ms}: one heartbeat that is late would count as \
         silence; raise the first, or lower the second"
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
