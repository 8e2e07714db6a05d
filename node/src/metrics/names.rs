//! Every metric family: its name, its kind, its labels, and its help text. The table in `docs/observe.md` has
//! the same rows; a test compares them.

use prometheus_client::metrics::MetricType;

/// The kind of a family's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, except for a restart of the node.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl Kind {
    /// The kind's name in the docs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Units by the end of a name, without `_total`. The first that fits counts.
const UNITS: &[(&str, &str)] = &[
    ("_info", "0 or 1"),
    ("_state", "0 or 1"),
    ("ropewalk_ready", "0 or 1"),
    ("_controller", "0 or 1"),
    ("_controller_known", "0 or 1"),
    ("_partition_series_left_out", "0 or 1"),
    ("_timestamp_seconds", "Unix time, s"),
    ("_start_time_seconds", "Unix time, s"),
    ("_seconds", "s"),
    ("_bytes", "bytes"),
    ("_records", "records"),
    ("_high_watermark", "offset"),
    ("_offset", "offset"),
];

/// One family.
#[derive(Debug)]
pub struct Family {
    /// The name in queries; for a histogram, without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

impl Family {
    /// The name without the suffix that the format itself adds to counters.
    pub fn stem(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// The unit of its values.
    pub fn unit(&self) -> &'static str {
        let unit = UNITS.iter().find(|(end, _)| self.stem().ends_with(end));
        unit.map_or("count", |(_, unit)| *unit)
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> MetricType {
        match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        }
    }
}

macro_rules! families {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All families.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    BUILD_INFO = Gauge "ropewalk_build_info" ["version", "commit"] "Build of this node; always 1";
    NODE_INFO = Gauge "ropewalk_node_info" ["node_id", "cluster_id", "rack"] "Identity of this node and its cluster; always 1";
    NODE_STATE = Gauge "ropewalk_node_state" ["state"] "1 for the state that the operator set for this node, 0 for the others";
    READY = Gauge "ropewalk_ready" [] "1 if /readyz answers 200, else 0";

    CLOCK = Gauge "ropewalk_clock_timestamp_seconds" [] "Wall clock of this node, in Unix time";

    PRODUCED_RECORDS = Counter "ropewalk_produced_records_total" ["topic"] "Records acknowledged by this node, without duplicates";
    PRODUCED_BYTES = Counter "ropewalk_produced_bytes_total" ["topic"] "Bytes of the batches acknowledged by this node, as received";
    FETCHED_RECORDS = Counter "ropewalk_fetched_records_total" ["topic"] "Records in the batches sent to readers";
    FETCHED_BYTES = Counter "ropewalk_fetched_bytes_total" ["topic"] "Bytes of the batches sent to readers";
    STAGE = Histogram "ropewalk_produce_stage_seconds" ["stage"] "Time a batch, a disk write or a replication call spends in one stage of the produce path";
    PRODUCE = Histogram "ropewalk_produce_seconds" [] "Time from a batch's arrival until its answer is handed to the connection";
    PRODUCE_INFLIGHT = Gauge "ropewalk_produce_inflight_bytes" [] "Bytes of batches in flight on this node";
    PRODUCE_INFLIGHT_BOUND = Gauge "ropewalk_produce_inflight_bound_bytes" [] "Bytes of batches in flight above which batches wait";

    REQUESTS = Counter "ropewalk_requests_total" ["rpc", "code"] "Answers to clients by call and error, Ok for none; each answer of a stream counts. A series starts with its first answer";
    REFUSALS = Counter "ropewalk_refusals_total" ["code"] "Errors returned to clients, by error; every error has a series from the start";
    CONNECTIONS = Gauge "ropewalk_connections" ["port"] "Open connections";
    CONNECTIONS_BOUND = Gauge "ropewalk_connections_bound" ["port"] "Maximum number of open connections";
    CONNECTIONS_OPENED = Counter "ropewalk_connections_opened_total" ["port"] "Connections accepted";
    CONNECTIONS_REFUSED = Counter "ropewalk_connections_refused_total" ["port"] "Connections closed at once because the maximum was open";
    CONNECTIONS_MADE_ROOM = Counter "ropewalk_connections_made_room_total" ["port"] "Idle connections closed to make room for others";

    DISK_STATE = Gauge "ropewalk_disk_state" ["state"] "1 for the current state of the disk, 0 for the others";
    DISK_FREE = Gauge "ropewalk_disk_free_bytes" [] "Free space on the data disk";
    DISK_FLOOR = Gauge "ropewalk_disk_floor_bytes" [] "Free space below which writes are refused";
    DISK_TOTAL = Gauge "ropewalk_disk_total_bytes" [] "Size of the data disk";
    DISK_WRITTEN = Counter "ropewalk_disk_written_bytes_total" [] "Bytes of keys and values written by the committer";
    COMMIT_BATCHES = Counter "ropewalk_commit_batches_total" [] "Batches written by the committer";
    COMMIT_SYNCS = Counter "ropewalk_commit_syncs_total" [] "Synced batches written by the committer: one fsync each";
    COMMIT_SUBMISSIONS = Counter "ropewalk_commit_submissions_total" [] "Writes submitted to the committer, which share its batches";
    COMMIT_BATCH_BYTES = Histogram "ropewalk_commit_batch_bytes" [] "Size of the committer's batches";
    COMMIT_QUEUE = Gauge "ropewalk_commit_queue_bytes" [] "Bytes that the committer has queued or is writing";
    COMMIT_QUEUE_BOUND = Gauge "ropewalk_commit_queue_bound_bytes" [] "Bytes in the committer's queue above which writers wait";

    CONTROLLER = Gauge "ropewalk_controller" [] "1 on the node that leads the metadata group, else 0";
    CONTROLLER_KNOWN = Gauge "ropewalk_controller_known" [] "1 if this node knows a live controller, else 0";
    CLUSTER_NODES = Gauge "ropewalk_cluster_nodes" ["state"] "Nodes of the cluster by the state that the operator set, as known to this node, without removed nodes";
    OFFLINE_NODES = Gauge "ropewalk_offline_nodes" [] "Nodes from which this node has not heard lately";
    CLUSTER_TOPICS = Gauge "ropewalk_cluster_topics" [] "Topics of the cluster";
    CLUSTER_PARTITIONS = Gauge "ropewalk_cluster_partitions" [] "Partitions of the cluster";
    LEADERLESS = Gauge "ropewalk_leaderless_partitions" [] "Partitions of the cluster without a live leader known to this node";
    UNDER_REPLICATED = Gauge "ropewalk_under_replicated_partitions" [] "Partitions led by this node with fewer in-sync replicas than configured";
    LEADERS = Gauge "ropewalk_leaders" [] "Partitions led by this node";
    REPLICAS = Gauge "ropewalk_replicas" [] "Replicas running on this node";
    REPLICAS_STOPPED = Gauge "ropewalk_replicas_stopped" [] "Replicas on this node whose Raft core has stopped, and which only serve their existing data";
    LEADERSHIPS_WON = Counter "ropewalk_leaderships_won_total" [] "Times a replica on this node became leader, by election or transfer";
    LEADERSHIPS_LOST = Counter "ropewalk_leaderships_lost_total" [] "Times a replica on this node lost leadership";
    QUARANTINED = Gauge "ropewalk_quarantined_replicas" [] "Damaged replicas on this node that have not been replaced yet";
    DAMAGE_FOUND = Counter "ropewalk_damage_found_total" [] "Replicas found damaged on this node";
    SCRUB_BYTES = Counter "ropewalk_scrub_bytes_total" [] "Bytes read by the scrubber";
    SCRUB_PASSES = Counter "ropewalk_scrub_passes_total" [] "Complete scrub passes over the data of this node";
    RETENTION_BYTES = Counter "ropewalk_retention_bytes_total" [] "Bytes of log removed by retention on this node";
    COMPACTION_BEFORE = Counter "ropewalk_compaction_before_bytes_total" [] "Bytes of log read by compaction on this node";
    COMPACTION_AFTER = Counter "ropewalk_compaction_after_bytes_total" [] "Bytes of that log left after compaction";

    PEER_ROUND_TRIP = Gauge "ropewalk_peer_round_trip_seconds" ["peer"] "Round-trip time of the last report to another node";
    PEER_FAILURES = Counter "ropewalk_peer_failures_total" ["peer"] "Failed reports to another node";

    TOPIC_PARTITIONS = Gauge "ropewalk_topic_partitions" ["topic"] "Replicas of the topic's partitions on this node";
    TOPIC_LEADERS = Gauge "ropewalk_topic_leaders" ["topic"] "Partitions of the topic led by this node";
    TOPIC_LOG_BYTES = Gauge "ropewalk_topic_log_bytes" ["topic"] "Bytes of log of the topic on this node";
    PARTITION_HIGH_WATERMARK = Gauge "ropewalk_partition_high_watermark" ["topic", "partition"] "Offset after the last committed record; from the leader";
    PARTITION_LOG_START = Gauge "ropewalk_partition_log_start_offset" ["topic", "partition"] "First readable offset; from the leader";
    PARTITION_IN_SYNC = Gauge "ropewalk_partition_in_sync_replicas" ["topic", "partition"] "In-sync replicas; from the leader";
    PARTITIONS_LEFT_OUT = Gauge "ropewalk_partition_series_left_out" [] "1 if this node has more replicas than the limit for per-partition series, and shows them by topic only";

    GROUP_MEMBERS = Gauge "ropewalk_group_members" ["group"] "Members of the group; from its coordinator";
    GROUP_STATE = Gauge "ropewalk_group_state" ["group", "state"] "1 for the current state of the group; from its coordinator";
    GROUP_LAG_RECORDS = Gauge "ropewalk_group_lag_records" ["group", "topic", "partition"] "Records between the group's position and the high watermark; from its coordinator";
    GROUP_LAG_SECONDS = Gauge "ropewalk_group_lag_seconds" ["group", "topic", "partition"] "Age of the next record for the group; from its coordinator";
    GROUPS = Gauge "ropewalk_groups" [] "Groups coordinated by this node";
    GROUPS_LEFT_OUT = Gauge "ropewalk_group_series_left_out" [] "Groups and partitions of groups without series, because they exceed the limit";
    GROUP_LAG_AGE = Gauge "ropewalk_group_lag_age_seconds" [] "Age of the lag measurement";

    LOG_LINES_LEFT_OUT = Counter "ropewalk_log_lines_left_out_total" [] "Log lines suppressed by the rate limit, or because nobody read them";
    SCRAPES_REFUSED = Counter "ropewalk_scrapes_refused_total" [] "Scrapes refused because the maximum was in progress";
    CERTIFICATE_EXPIRY = Gauge "ropewalk_tls_certificate_expiry_timestamp_seconds" [] "Expiry of this node's certificate, in Unix time; only with TLS";

    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time used by the process";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of the process";
    PROCESS_FDS = Gauge "process_open_fds" [] "Open file descriptors, including sockets";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "Maximum number of open file descriptors";
    PROCESS_START = Gauge "process_start_time_seconds" [] "Start time of the process, in Unix time";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The page for operators.
    const DOCS: &str = include_str!("../../../docs/observe.md");

    #[test]
    fn names_are_the_fields_and_used_once() {
        let names: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            let ours = ["ropewalk_", "process_"];
            assert!(
                ours.iter().any(|ours| family.name.starts_with(ours)),
                "{}",
                family.name
            );
            let total = family.name.ends_with("_total");
            assert_eq!(total, family.kind == Kind::Counter, "{}", family.name);
        }
    }

    #[test]
    fn the_docs_have_every_family_with_its_labels_kind_and_unit() {
        for family in ALL {
            let labels = family.labels.join("`, `");
            let labels = match labels.as_str() {
                "" => String::new(),
                labels => format!("`{labels}`"),
            };
            let (name, kind, unit) = (family.name, family.kind.name(), family.unit());
            let row = format!("| `{name}` | {labels} | {kind} | {unit} |").replace("|  |", "| |");
            assert!(DOCS.contains(&row), "docs/observe.md has no row {row}");
        }
    }
}
