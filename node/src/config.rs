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

/// Bounds of a limit that may be 0.
const ANY: RangeInclusive<i128> = 0..=i128::MAX;
/// Bounds of a limit that would admit nothing, or leave no time, if it were 0.
const POSITIVE: RangeInclusive<i128> = 1..=i128::MAX;
/// Bounds of the session timeout, as for members that ask for one.
const SESSION: RangeInclusive<i128> = *SESSION_MS.start() as i128..=*SESSION_MS.end() as i128;
/// Bounds of the time to give up a partition, as for members that ask for one.
const REBALANCE: RangeInclusive<i128> = 1..=MAX_REBALANCE_MS as i128;

/// Unit of a limit's number. The end of the limit's name states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds, for a name in `_ms`.
    Milliseconds,
    /// Bytes, for a name in `_bytes`.
    Bytes,
    /// Bytes a second, for a name in `_bytes_per_s`.
    BytesPerSecond,
    /// A plain number, for all other names.
    Count,
}

impl Unit {
    /// The unit of the limit of this name.
    pub fn of(name: &str) -> Unit {
        match name {
            name if name.ends_with("_ms") => Unit::Milliseconds,
            name if name.ends_with("_bytes") => Unit::Bytes,
            name if name.ends_with("_bytes_per_s") => Unit::BytesPerSecond,
            _ => Unit::Count,
        }
    }
}

/// Description of one of the [`Limits`]. The reference of the settings lists them.
#[derive(Debug)]
pub struct Limit {
    /// Its name in the config file.
    pub name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<i128>,
    value: fn(&Limits) -> i128,
}

impl Limit {
    /// Its effect, in sentences.
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim()
    }

    /// The unit of its number.
    pub fn unit(&self) -> Unit {
        Unit::of(self.name)
    }

    /// Its value in these limits.
    pub fn value(&self, limits: &Limits) -> i128 {
        (self.value)(limits)
    }

    /// The lowest value that a node accepts.
    pub fn lowest(&self) -> i128 {
        *self.bounds.start()
    }

    /// The highest value that a node accepts, if the type of the number does not decide it.
    pub fn highest(&self) -> Option<i128> {
        Some(*self.bounds.end()).filter(|end| *end != i128::MAX)
    }
}

/// Defines the limits, their defaults and their table from one list: meaning, name, type, default, bounds.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $bounds:ident;)+) => {
        /// Timings and bounds. One of these limits every queue, buffer and loop of a node.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Default for Limits {
            fn default() -> Limits {
                Limits { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// All limits, in the order of the list.
            pub const ALL: &[Limit] = &[$(
                Limit {
                    name: stringify!($name),
                    meaning: concat!($($doc),+),
                    bounds: $bounds,
                    value: |limits| limits.$name as i128,
                },
            )+];
        }
    };
}

limits! {
    /// Interval of a leader's heartbeats to its followers, in ms.
    heartbeat_ms: u64 = 300, POSITIVE;
    /// Leader lease, in ms. A follower without a heartbeat for 1.5 to 2 times this long starts an election.
    election_timeout_ms: u64 = 1_000, ANY;
    /// Timeout of one RPC between nodes, in ms.
    peer_rpc_timeout_ms: u64 = 2_000, POSITIVE;
    /// Maximum bytes of entries in one AppendEntries.
    append_bytes: usize = 2 << 20, POSITIVE;
    /// Memory for the log tails of all replicas together. Replication and tailing readers read from it
    /// without the disk.
    log_tail_bytes: usize = 256 << 20, ANY;
    /// Bytes of writes that may wait for the committer before producers have to wait.
    commit_queue_bytes: usize = 64 << 20, POSITIVE;
    /// Bytes of log that must follow a checkpoint before the next one, for each byte of the checkpoint. Checkpoints
    /// of at most 4 KiB need none, and after ten minutes no checkpoint does. 0: a checkpoint at the end of every
    /// segment, whatever its cost.
    checkpoint_factor: u64 = 4, ANY;
    /// Maximum bytes of one checkpoint sent to another node. It also bounds the checkpoints that a node
    /// receives at a time.
    checkpoint_bytes: usize = 1 << 30, ANY;
    /// Block cache and memtables of the database together.
    database_bytes: usize = 512 << 20, POSITIVE;
    /// Free disk space below which the node refuses writes.
    free_space_floor_bytes: u64 = 256 << 20, ANY;
    /// Bytes of produce requests in flight in the whole node before new ones wait.
    produce_inflight_bytes: usize = 128 << 20, POSITIVE;
    /// Maximum unpacked bytes of one batch's records, whatever its topic allows.
    unpack_batch_bytes: usize = 32 << 20, POSITIVE;
    /// Maximum unpacked bytes of one batch's records, as a multiple of the topic's `max_batch_bytes`.
    unpack_factor: usize = 8, POSITIVE;
    /// Unpacked bytes of records that the whole node may check, filter or search at a time. Half is for
    /// producers, half for readers. Each half may also hold one batch that unpacks to over 64 times its size.
    unpack_inflight_bytes: usize = 64 << 20, ANY;
    /// Rate at which the node unpacks batches that unpack to over 64 times their size, in unpacked bytes.
    /// Half of it is for producers, half for readers; 0: unlimited.
    unpack_bytes_per_s: usize = 256 << 20, ANY;
    /// Maximum bytes that one fetch returns.
    fetch_bytes: usize = 4 << 20, POSITIVE;
    /// Maximum time that a fetch may wait for records, in ms.
    fetch_wait_ms: u64 = 30_000, ANY;
    /// Requests in flight on one client stream before the node stops reading from it.
    stream_inflight: usize = 1_024, POSITIVE;
    /// Open connections of each port. One address gets at most half, unless a node calls from it. If all are
    /// open, a new one closes the one that was idle for longest.
    connections: usize = 4_096, POSITIVE;
    /// Open connections of the port for probes, by the same rules.
    probe_connections: usize = 256, POSITIVE;
    /// Calls and streams of clients in flight. One address gets at most half. Calls of other nodes have a
    /// separate bound of the same size.
    streams: usize = 16_384, POSITIVE;
    /// Streams of one connection.
    streams_per_connection: u32 = 2_048, POSITIVE;
    /// Maximum bytes of the headers of one call.
    header_bytes: u32 = 16 << 10, POSITIVE;
    /// Maximum bytes of one client request. Requests with records may be as large as the largest batch that
    /// any topic allows.
    request_bytes: usize = 4 << 20, POSITIVE;
    /// Maximum fields of one client request, nested messages included.
    request_fields: usize = 100_000, POSITIVE;
    /// Time within which one request must arrive, in ms.
    request_within_ms: u64 = 30_000, POSITIVE;
    /// Bytes of requests that are incomplete or unanswered, before the node stops reading further ones.
    request_inflight_bytes: usize = 128 << 20, ANY;
    /// Bytes of unsent answers to clients. Past it, the node closes the connections of clients that read
    /// nothing, and other answers wait.
    answer_inflight_bytes: usize = 128 << 20, POSITIVE;
    /// Time within which the head of an HTTP request must arrive, and maximum idle time of a connection
    /// between requests, in ms.
    http_head_within_ms: u64 = 10_000, POSITIVE;
    /// Replicas with metrics of their own. A node with more shows these metrics per topic only.
    metrics_partitions: usize = 2_000, ANY;
    /// Topics with metrics under their own names. Further topics are added up.
    metrics_topics: usize = 1_000, ANY;
    /// Consumer groups, and partitions read by consumer groups, with metrics of their own.
    metrics_groups: usize = 2_000, ANY;
    /// Interval at which a coordinator measures the lag of its groups for metrics, in ms.
    metrics_lag_interval_ms: u64 = 5_000, ANY;
    /// Interval at which retention checks each partition, in ms.
    retention_interval_ms: u64 = 10_000, POSITIVE;
    /// Silence after which a node counts as dead, in ms. Clients are not routed to a dead node as a leader.
    node_dead_after_ms: u64 = 3_000, ANY;
    /// Silence after which the replicas of a node are rebuilt on other nodes, in ms.
    node_lost_after_ms: u64 = 600_000, ANY;
    /// Replicas each node holds before the cluster refuses further topics and partitions.
    replicas_per_node: u32 = 2_000, POSITIVE;
    /// New replicas that a node opens at a time. Further ones wait until these have a leader.
    founding_replicas: usize = 16, POSITIVE;
    /// Interval at which the controller compares the desired state with the actual one, in ms.
    reconcile_interval_ms: u64 = 500, POSITIVE;
    /// Rate at which a node sends records to new replicas of the partitions it leads, for all of them
    /// together; 0: unlimited.
    rebalance_bytes_per_s: usize = 100 << 20, ANY;
    /// Rate at which a node reads its stored data in search of damage; 0: off.
    scrub_bytes_per_s: usize = 8 << 20, ANY;
    /// Pause between two such passes over all data, in ms.
    scrub_interval_ms: u64 = 6 * 3_600_000, POSITIVE;
    /// Rate at which a node reads and writes for compaction, for all its topics together; 0: off.
    compaction_bytes_per_s: usize = 32 << 20, ANY;
    /// Memory for the keys of the partition under compaction. With less, compaction needs more passes over
    /// the log.
    compaction_memory_bytes: usize = 64 << 20, ANY;
    /// Partitions of the internal topic that stores consumer groups. Used only when the topic is created.
    group_partitions: u32 = 16, POSITIVE;
    /// Consumer groups of one coordinator.
    groups_per_coordinator: usize = 10_000, POSITIVE;
    /// Members of one consumer group.
    group_members: usize = 1_000, POSITIVE;
    /// Bytes of one consumer group: committed offsets and their notes, members and their subscriptions,
    /// and assignments.
    group_bytes: u64 = 16 << 20, ANY;
    /// Bytes of all consumer groups of one coordinator together. A new replica of a coordinator receives all
    /// of them in one checkpoint.
    coordinator_group_bytes: u64 = 48 << 20, ANY;
    /// Session timeout of a member that asks for none, in ms. The coordinator removes a member that is silent
    /// for longer.
    group_session_ms: u32 = 10_000, SESSION;
    /// Time that a member has to reconnect after its connection ended, in ms. Static members have their whole
    /// session.
    group_return_ms: u64 = 3_000, ANY;
    /// Time that a member has to give up a partition, if it asks for none, in ms.
    group_rebalance_ms: u32 = 30_000, REBALANCE;
    /// Time after which a group without members is deleted, in ms.
    group_retention_ms: i64 = 7 * 24 * 3_600_000, POSITIVE;
}

impl Limits {
    /// Refuses limits with which no node can work, each by its name and value.
    ///
    /// # Errors
    /// Describes the mistake, and how to correct it.
    pub fn check(&self) -> Result<(), String> {
        self.check_bounds()?;
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
        Ok(())
    }

    /// Refuses a limit outside of its own bounds.
    fn check_bounds(&self) -> Result<(), String> {
        let outside = |limit: &&Limit| !limit.bounds.contains(&limit.value(self));
        let Some(limit) = Limits::ALL.iter().find(outside) else {
            return Ok(());
        };
        let (name, value, low) = (limit.name, limit.value(self), limit.lowest());
        Err(match limit.highest() {
            Some(high) => {
                format!("limits.{name} = {value} is out of bounds; choose {low} to {high}")
            }
            None => format!(
                "limits.{name} must not be 0; write {low} or more, or leave it out for the default"
            ),
        })
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
    fn every_limit_is_described_in_sentences_and_may_keep_its_default() {
        let defaults = Limits::default();
        for limit in Limits::ALL {
            let meaning = limit.meaning();
            assert!(
                meaning.ends_with('.') && !meaning.contains("  "),
                "{meaning}"
            );
            assert!(limit.value(&defaults) >= limit.lowest(), "{}", limit.name);
        }
        assert_eq!(Unit::of("fetch_wait_ms"), Unit::Milliseconds);
        assert_eq!(Unit::of("scrub_bytes_per_s"), Unit::BytesPerSecond);
        assert_eq!(Unit::of("fetch_bytes"), Unit::Bytes);
        assert_eq!(Unit::of("connections"), Unit::Count);
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
