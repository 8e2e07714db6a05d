//! Conversions between the messages of the protocol and the types of [`super::Admin`]. No other file of the
//! public interface names a message.

use std::time::Duration;

use ropewalk_proto::error::WireError;
use ropewalk_proto::v1;

use super::cluster::{ClusterStatus, NodeState, NodeStatus};
use super::group::{GroupInfo, GroupMember, GroupPartition, GroupSummary, PartitionLag};
use super::topic::{Cleanup, PartitionInfo, Partitioner, TopicInfo, TopicSettings};
use crate::record::Offset;

/// The protocol sends an empty text in place of none.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<v1::TopicInfo> for TopicInfo {
    fn from(topic: v1::TopicInfo) -> TopicInfo {
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let newest = topic.growths.last();
        TopicInfo {
            name: topic.name,
            topic_id: topic.topic_id,
            settings: topic.settings.unwrap_or_default().into(),
            ring_partitions: match topic.ring_partitions {
                0 => count,
                mapped => mapped,
            },
            is_growing: newest.is_some_and(|growth| growth.ring_version > topic.ring_version),
            partitions: topic.partitions.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::PartitionInfo> for PartitionInfo {
    fn from(partition: v1::PartitionInfo) -> PartitionInfo {
        PartitionInfo {
            partition: partition.partition,
            leader_node_id: Some(partition.leader_node_id).filter(|node_id| *node_id != 0),
            leader_epoch: partition.leader_epoch,
            replica_node_ids: partition.replica_node_ids,
            in_sync_node_ids: partition.in_sync_node_ids,
            log_start_offset: partition.log_start_offset,
            high_watermark: partition.high_watermark,
            log_bytes: partition.log_bytes,
        }
    }
}

impl From<v1::TopicSettings> for TopicSettings {
    fn from(settings: v1::TopicSettings) -> TopicSettings {
        TopicSettings {
            replicas: settings.replicas,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            segment_bytes: settings.segment_bytes,
            max_batch_bytes: settings.max_batch_bytes,
            partitioner: match settings.partitioner() {
                v1::Partitioner::Unspecified => Partitioner::Unspecified,
                v1::Partitioner::Ring => Partitioner::Ring,
                v1::Partitioner::Murmur2 => Partitioner::Murmur2,
            },
            cleanup: match settings.cleanup() {
                v1::Cleanup::Delete => Cleanup::Delete,
                v1::Cleanup::Compact => Cleanup::Compact,
                v1::Cleanup::CompactDelete => Cleanup::CompactDelete,
            },
            delete_horizon_ms: settings.delete_horizon_ms,
            min_compaction_lag_ms: settings.min_compaction_lag_ms,
            min_dirty_percent: settings.min_dirty_percent,
            max_timestamp_ahead_ms: settings.max_timestamp_ahead_ms,
        }
    }
}

impl From<TopicSettings> for v1::TopicSettings {
    fn from(settings: TopicSettings) -> v1::TopicSettings {
        let partitioner = match settings.partitioner {
            Partitioner::Unspecified => v1::Partitioner::Unspecified,
            Partitioner::Ring => v1::Partitioner::Ring,
            Partitioner::Murmur2 => v1::Partitioner::Murmur2,
        };
        let cleanup = match settings.cleanup {
            Cleanup::Delete => v1::Cleanup::Delete,
            Cleanup::Compact => v1::Cleanup::Compact,
            Cleanup::CompactDelete => v1::Cleanup::CompactDelete,
        };
        v1::TopicSettings {
            replicas: settings.replicas,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            segment_bytes: settings.segment_bytes,
            max_batch_bytes: settings.max_batch_bytes,
            partitioner: partitioner.into(),
            cleanup: cleanup.into(),
            delete_horizon_ms: settings.delete_horizon_ms,
            min_compaction_lag_ms: settings.min_compaction_lag_ms,
            min_dirty_percent: settings.min_dirty_percent,
            max_timestamp_ahead_ms: settings.max_timestamp_ahead_ms,
        }
    }
}

impl From<v1::ClusterStatusResponse> for ClusterStatus {
    fn from(status: v1::ClusterStatusResponse) -> ClusterStatus {
        ClusterStatus {
            cluster_id: status.cluster_id,
            nodes: status.nodes.into_iter().map(Into::into).collect(),
            metadata_index: status.metadata_index,
            removed_node_ids: status.removed_node_ids,
            metadata_voter_node_ids: status.metadata_voter_node_ids,
        }
    }
}

impl From<v1::NodeStatus> for NodeStatus {
    fn from(status: v1::NodeStatus) -> NodeStatus {
        let info = status.info.unwrap_or_default();
        NodeStatus {
            node_id: info.node_id,
            state: info.state().into(),
            address: info.address,
            http: some(info.http),
            rack: some(info.rack),
            external: some(info.external),
            version: info.version,
            alive: status.alive,
            leaders: status.leaders,
            replicas: status.replicas,
            controller: status.controller,
        }
    }
}

impl From<v1::NodeState> for NodeState {
    fn from(state: v1::NodeState) -> NodeState {
        match state {
            v1::NodeState::Unspecified => NodeState::Unknown,
            v1::NodeState::Active => NodeState::Active,
            v1::NodeState::Draining => NodeState::Draining,
            v1::NodeState::Decommissioning => NodeState::Decommissioning,
            v1::NodeState::Removed => NodeState::Removed,
        }
    }
}

impl From<NodeState> for v1::NodeState {
    fn from(state: NodeState) -> v1::NodeState {
        match state {
            NodeState::Unknown => v1::NodeState::Unspecified,
            NodeState::Active => v1::NodeState::Active,
            NodeState::Draining => v1::NodeState::Draining,
            NodeState::Decommissioning => v1::NodeState::Decommissioning,
            NodeState::Removed => v1::NodeState::Removed,
        }
    }
}

impl From<v1::GroupSummary> for GroupSummary {
    fn from(summary: v1::GroupSummary) -> GroupSummary {
        GroupSummary {
            group: summary.group,
            members: summary.members,
            generation: summary.generation,
            topics: summary.topics,
        }
    }
}

impl From<v1::GroupInfo> for GroupInfo {
    fn from(info: v1::GroupInfo) -> GroupInfo {
        GroupInfo {
            group: info.group,
            generation: info.generation,
            coordinator_node_id: info.coordinator_node_id,
            members: info.members.into_iter().map(Into::into).collect(),
            partitions: info.partitions.into_iter().map(Into::into).collect(),
            missing_topics: info.missing_topics,
        }
    }
}

impl From<v1::GroupMember> for GroupMember {
    fn from(member: v1::GroupMember) -> GroupMember {
        GroupMember {
            member_id: member.member_id,
            instance_id: some(member.instance_id),
            client: member.client,
            topics: member.topics,
            pattern: some(member.pattern),
            session_timeout: Duration::from_millis(member.session_ms.into()),
        }
    }
}

impl From<v1::GroupPartition> for GroupPartition {
    fn from(partition: v1::GroupPartition) -> GroupPartition {
        GroupPartition {
            topic: some(partition.topic),
            deleted_topic: some(partition.deleted_topic),
            topic_id: partition.topic_id,
            partition: partition.partition,
            member_id: some(partition.member_id),
            next_member_id: some(partition.next_member_id),
            epoch: partition.epoch,
            committed: partition.committed,
            committed_at_ms: partition.committed.map(|_| partition.committed_at_ms),
            note: partition.note,
        }
    }
}

impl From<v1::PartitionLag> for PartitionLag {
    fn from(lag: v1::PartitionLag) -> PartitionLag {
        PartitionLag {
            topic: lag.topic,
            partition: lag.partition,
            committed: lag.committed,
            high_watermark: lag.high_watermark,
            lag_records: lag.lag_records,
            lag_ms: lag.lag_ms,
            member_id: some(lag.member_id),
            error: lag.error.map(|error| WireError::from(error).into()),
        }
    }
}

impl From<Offset> for v1::seek_group_request::Position {
    fn from(place: Offset) -> v1::seek_group_request::Position {
        use v1::seek_group_request::Position;
        match place {
            Offset::Beginning => Position::Beginning(true),
            Offset::End => Position::End(true),
            Offset::At(offset) => Position::Offset(offset),
            Offset::TimestampMs(time_ms) => Position::AtOrAfterMs(time_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_way_there_and_back() {
        let settings = v1::TopicSettings {
            replicas: 1,
            retention_ms: 2,
            retention_bytes: 3,
            segment_bytes: 4,
            max_batch_bytes: 5,
            partitioner: v1::Partitioner::Murmur2.into(),
            cleanup: v1::Cleanup::CompactDelete.into(),
            delete_horizon_ms: 6,
            min_compaction_lag_ms: 7,
            min_dirty_percent: 8,
            max_timestamp_ahead_ms: 9,
        };
        let back = v1::TopicSettings::from(TopicSettings::from(settings));
        assert_eq!(back, settings);
    }

    #[test]
    fn what_the_protocol_sends_in_place_of_none_is_none() {
        let topic = TopicInfo::from(v1::TopicInfo {
            partitions: vec![v1::PartitionInfo::default(); 3],
            ..Default::default()
        });
        assert_eq!((topic.ring_partitions, topic.is_growing), (3, false));
        assert_eq!(topic.partitions[0].leader_node_id, None);
        let partition = GroupPartition::from(v1::GroupPartition {
            committed_at_ms: 5,
            ..Default::default()
        });
        assert_eq!((partition.topic, partition.committed_at_ms), (None, None));
    }

    #[test]
    fn a_topic_grows_until_its_ring_is_that_of_its_newest_growth() {
        let growth = v1::TopicGrowth {
            ring_version: 2,
            ..Default::default()
        };
        let grows = |ring_version| {
            let topic = TopicInfo::from(v1::TopicInfo {
                ring_version,
                growths: vec![growth.clone()],
                ..Default::default()
            });
            topic.is_growing
        };
        assert_eq!([1, 2, 3].map(grows), [true, false, false]);
    }
}
