//! Consumer groups as an operator sees them.

use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::timestamp::from_ms;

/// A consumer group in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSummary {
    /// Name of the group.
    pub group: String,
    /// Number of members.
    pub members: u32,
    /// Generation of the assignment.
    pub generation: u64,
    /// Names of the topics that the group reads.
    pub topics: Vec<String>,
}

/// A consumer group with its members and partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupInfo {
    /// Name of the group.
    pub group: String,
    /// Generation of the assignment.
    pub generation: u64,
    /// Node that coordinates the group.
    pub coordinator_node_id: u64,
    /// Members.
    pub members: Vec<GroupMember>,
    /// Partitions that the group knows.
    pub partitions: Vec<GroupPartition>,
    /// Topics that members name and that do not exist.
    pub missing_topics: Vec<String>,
}

/// A member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Id of the member.
    pub member_id: String,
    /// Name of a static member.
    pub instance_id: Option<String>,
    /// Name that the member's application gave.
    pub client: String,
    /// Topics that the member names.
    pub topics: Vec<String>,
    /// Pattern of further topics, if the member has one.
    pub pattern: Option<String>,
    /// Session timeout of the member.
    pub session_timeout: Duration,
}

/// A partition in a group: its owner, and its committed offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupPartition {
    /// Name of the topic; none if it was deleted.
    pub topic: Option<String>,
    /// Name of a deleted topic, if the group still knows it.
    pub deleted_topic: Option<String>,
    /// Id of the topic.
    pub topic_id: u64,
    /// Number of the partition.
    pub partition: u32,
    /// Member that owns the partition, if there is one.
    pub member_id: Option<String>,
    /// Member that gets the partition next, if that is another one.
    pub next_member_id: Option<String>,
    /// Epoch of the assignment.
    pub epoch: u64,
    /// Committed offset, if there is one.
    pub committed: Option<u64>,
    /// Time of that commit, in ms since 1970.
    pub committed_at_ms: Option<i64>,
    /// Note of the application at that commit.
    pub note: String,
}

impl GroupPartition {
    /// Time of the last commit, if there is one.
    pub fn committed_at(&self) -> Option<SystemTime> {
        self.committed_at_ms.map(from_ms)
    }
}

/// Lag of a group in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: u32,
    /// Committed offset, if there is one.
    pub committed: Option<u64>,
    /// Offset after the last committed record of the log.
    pub high_watermark: u64,
    /// Number of records from the committed offset, or from the start of the log, to its end.
    pub lag_records: u64,
    /// Time since the first unread record was appended, in ms.
    pub lag_ms: i64,
    /// Member that owns the partition, if there is one.
    pub member_id: Option<String>,
    /// Failure to ask the partition. The other fields then mean nothing, except for its name and number.
    pub error: Option<Error>,
}

impl PartitionLag {
    /// Time since the first unread record was appended.
    pub fn lag(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.lag_ms).unwrap_or(0))
    }
}
