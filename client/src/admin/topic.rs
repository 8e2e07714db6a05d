//! Topics as an operator sees them.

/// A topic with its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Name of the topic.
    pub name: String,
    /// Id of the topic. A topic that is created again under the same name has a higher one.
    pub topic_id: u64,
    /// Partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// Settings. They are all set, except for those that older nodes do not know.
    pub settings: TopicSettings,
    /// Number of partitions that keys map to. While the topic grows, it is lower than the number of
    /// partitions.
    pub ring_partitions: u32,
    /// True while keys do not map to the newest partitions yet.
    pub is_growing: bool,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// Number of the partition, from 0.
    pub partition: u32,
    /// Node that leads the partition; none if no leader is known.
    pub leader_node_id: Option<u64>,
    /// Epoch of that leader, its Raft term.
    pub leader_epoch: u64,
    /// Nodes that hold a replica.
    pub replica_node_ids: Vec<u64>,
    /// Nodes with a replica that is in sync, as the leader last reported it.
    pub in_sync_node_ids: Vec<u64>,
    /// Offset of the first record in the log.
    pub log_start_offset: u64,
    /// Offset after the last committed record.
    pub high_watermark: u64,
    /// Size of the leader's log in bytes, as last reported; 0 if it is not known.
    pub log_bytes: u64,
}

/// Settings of a topic. In a request, 0 means the default of the cluster; so does each setting of
/// `TopicSettings::default()`.
///
/// ```
/// use ropewalk_client::{Cleanup, TopicSettings};
///
/// let settings = TopicSettings::default().replicas(3).cleanup(Cleanup::Compact);
/// assert_eq!(settings.replicas, 3);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSettings {
    /// Number of replicas of each partition.
    pub replicas: u32,
    /// Time for which records are kept, in ms; -1 for no limit.
    pub retention_ms: i64,
    /// Bytes of records that each partition keeps; -1 for no limit.
    pub retention_bytes: i64,
    /// Bytes of one segment of a log: the unit of trimming.
    pub segment_bytes: u64,
    /// Maximum size of a batch in bytes.
    pub max_batch_bytes: u32,
    /// Mapping of keys to partitions.
    pub partitioner: Partitioner,
    /// Records to remove.
    pub cleanup: Cleanup,
    /// Time for which a compacted tombstone stays readable, in ms.
    pub delete_horizon_ms: i64,
    /// Minimum age at which a record is compacted, in ms.
    pub min_compaction_lag_ms: i64,
    /// Uncompacted part of a log at which compaction starts, in percent.
    pub min_dirty_percent: u32,
    /// Maximum lead of a record's timestamp over the cluster's clock, in ms; -1 for no limit.
    pub max_timestamp_ahead_ms: i64,
}

impl TopicSettings {
    /// Sets the number of replicas of each partition.
    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> TopicSettings {
        self.replicas = replicas;
        self
    }

    /// Sets the time for which records are kept, in ms; -1 for no limit.
    #[must_use]
    pub fn retention_ms(mut self, retention_ms: i64) -> TopicSettings {
        self.retention_ms = retention_ms;
        self
    }

    /// Sets the bytes of records that each partition keeps; -1 for no limit.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: i64) -> TopicSettings {
        self.retention_bytes = bytes;
        self
    }

    /// Sets the bytes of one segment of a log.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> TopicSettings {
        self.segment_bytes = bytes;
        self
    }

    /// Sets the maximum size of a batch in bytes.
    #[must_use]
    pub fn max_batch_bytes(mut self, bytes: u32) -> TopicSettings {
        self.max_batch_bytes = bytes;
        self
    }

    /// Sets the mapping of keys to partitions.
    #[must_use]
    pub fn partitioner(mut self, partitioner: Partitioner) -> TopicSettings {
        self.partitioner = partitioner;
        self
    }

    /// Sets which records are removed.
    #[must_use]
    pub fn cleanup(mut self, cleanup: Cleanup) -> TopicSettings {
        self.cleanup = cleanup;
        self
    }

    /// Sets the time for which a compacted tombstone stays readable, in ms.
    #[must_use]
    pub fn delete_horizon_ms(mut self, horizon_ms: i64) -> TopicSettings {
        self.delete_horizon_ms = horizon_ms;
        self
    }

    /// Sets the minimum age at which a record is compacted, in ms.
    #[must_use]
    pub fn min_compaction_lag_ms(mut self, lag_ms: i64) -> TopicSettings {
        self.min_compaction_lag_ms = lag_ms;
        self
    }

    /// Sets the uncompacted part of a log at which compaction starts, in percent.
    #[must_use]
    pub fn min_dirty_percent(mut self, percent: u32) -> TopicSettings {
        self.min_dirty_percent = percent;
        self
    }

    /// Sets the maximum lead of a record's timestamp over the cluster's clock, in ms; -1 for no limit.
    #[must_use]
    pub fn max_timestamp_ahead_ms(mut self, ahead_ms: i64) -> TopicSettings {
        self.max_timestamp_ahead_ms = ahead_ms;
        self
    }
}

/// Mapping of keys to partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partitioner {
    /// In a request, the cluster's default. In an answer, a mapping that this client does not know.
    #[default]
    Unspecified,
    /// Consistent hashing, Ropewalk's default.
    Ring,
    /// The mapping of Kafka's Java clients, for keys shared with Kafka producers.
    Murmur2,
}

/// Records that a topic removes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cleanup {
    /// Records past the retention.
    #[default]
    Delete,
    /// Records with a later record of the same key.
    Compact,
    /// Both.
    CompactDelete,
}
