//! Administration of a cluster. Any node accepts these calls.

mod cluster;
mod convert;
mod group;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ropewalk_proto::error::ErrorCode;
use ropewalk_proto::v1;
use tonic::Status;

pub use cluster::{ClusterStatus, NodeState, NodeStatus};
pub use group::{GroupInfo, GroupMember, GroupPartition, GroupSummary, PartitionLag};
pub use topic::{Cleanup, PartitionInfo, Partitioner, TopicInfo, TopicSettings};

use crate::client::{Idempotency, Inner, bounded};
use crate::connections::Node;
use crate::error::{Error, Result};
use crate::record::Offset;

/// Administration of topics, nodes and leaders. The client's request timeout bounds each call. The client
/// retries within it, on other nodes too, as long as a retry may help.
#[derive(Debug, Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

/// Target of a seek of a group's offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeekGroup {
    /// All partitions of the topic, each at this position.
    All(Offset),
    /// The named partitions, each at its own offset.
    Partitions(Vec<(u32, u64)>),
}

/// A call with one message, safe to repeat.
macro_rules! repeat {
    ($self:ident, $what:expr, $call:ident, $message:expr) => {{
        let message = $message;
        let call = |mut node: Node, within| {
            let request = bounded(message.clone(), within);
            async move { node.$call(request).await }
        };
        $self.inner.call($what, Idempotency::ToRepeat, call).await
    }};
}

/// True if a try with an unknown outcome may have taken effect.
#[derive(Debug, Default)]
struct OutcomeUnknown(AtomicBool);

impl OutcomeUnknown {
    /// Makes one try. A try that is dropped before its end leaves doubt.
    async fn of<T>(
        &self,
        call: impl Future<Output = std::result::Result<T, Status>>,
    ) -> std::result::Result<T, Status> {
        let before = self.0.swap(true, Ordering::Relaxed);
        let result = call.await;
        let known = match &result {
            Ok(_) => true,
            Err(status) => !Error::from_status(status, "").outcome_unknown(),
        };
        if known {
            self.0.store(before, Ordering::Relaxed);
        }
        result
    }

    fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Admin {
    pub(crate) fn new(inner: Arc<Inner>) -> Admin {
        Admin { inner }
    }

    /// All topics, in no particular order.
    ///
    /// # Errors
    /// The error of the nodes, if none answered in time.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let request = v1::ListPartitionsRequest { topics: Vec::new() };
        let answer = repeat!(self, "listing topics", list_partitions, request)?;
        Ok(answer.topics.into_iter().map(TopicInfo::from).collect())
    }

    /// One topic with its partitions; none if it does not exist.
    ///
    /// # Errors
    /// As for [`Admin::topics`].
    pub async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let request = v1::ListPartitionsRequest {
            topics: vec![name.to_owned()],
        };
        let answer = repeat!(self, "describing a topic", list_partitions, request)?;
        let mut topics = answer.topics.into_iter();
        let found = topics.find(|topic| topic.name == name);
        Ok(found.map(TopicInfo::from))
    }

    /// Creates a topic. Settings left at 0 take their defaults. Returns once every partition has a leader, or
    /// after 5 s. A partition that has no leader yet takes no records.
    ///
    /// # Errors
    /// Among others `TopicExists`, `InvalidTopicName`, `NotEnoughNodes`.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<TopicInfo> {
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            settings: Some(settings.into()),
        };
        let doubt = OutcomeUnknown::default();
        let call = |mut node: Node, within| {
            let request = bounded(request.clone(), within);
            doubt.of(async move { node.create_topic(request).await })
        };
        let created = self
            .inner
            .call("creating a topic", Idempotency::ToRepeat, call)
            .await;
        match created {
            // An earlier try of this call created it, and its answer was lost.
            Err(error) if doubt.is_left() && error.code() == Some(ErrorCode::TopicExists) => {
                let found = self.topic(name).await?;
                let ours = |topic: &TopicInfo| topic.partitions.len() == partitions as usize;
                found.filter(ours).ok_or(error)
            }
            created => created.map(TopicInfo::from),
        }
    }

    /// Changes settings of a topic, with the names and values of the command line. All other settings keep
    /// their values, even under concurrent changes.
    ///
    /// # Errors
    /// Among others `UnknownTopic`, and `InvalidRequest` for an invalid setting.
    pub async fn alter_topic<K: Into<String>, V: Into<String>>(
        &self,
        name: &str,
        set: impl IntoIterator<Item = (K, V)>,
    ) -> Result<TopicInfo> {
        let set = set.into_iter();
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            set: set.map(|(key, value)| (key.into(), value.into())).collect(),
        };
        let topic = repeat!(self, "changing a topic", alter_topic, request)?;
        Ok(topic.into())
    }

    /// Adds partitions to a topic; `partitions` is the new total. Returns once the partitions exist. Keys map
    /// to them shortly later, once [`TopicInfo::is_growing`] is false in the result of [`Admin::topic`].
    ///
    /// # Errors
    /// Among others `UnknownTopic`; `InvalidRequest` for fewer partitions than the topic has; `Unsafe` while
    /// an earlier growth is in progress.
    pub async fn grow_topic(&self, name: &str, partitions: u32) -> Result<TopicInfo> {
        let request = v1::GrowTopicRequest {
            name: name.to_owned(),
            partitions,
        };
        let topic = repeat!(self, "growing a topic", grow_topic, request)?;
        Ok(topic.into())
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// Among others `UnknownTopic`.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
        };
        let doubt = OutcomeUnknown::default();
        let call = |mut node: Node, within| {
            let request = bounded(request.clone(), within);
            doubt.of(async move { node.delete_topic(request).await })
        };
        let deleted = self
            .inner
            .call("deleting a topic", Idempotency::ToRepeat, call)
            .await;
        match deleted {
            // An earlier try of this call deleted it, and its answer was lost.
            Err(error) if doubt.is_left() && error.says_there_is_none() => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    /// The nodes, with the partitions that each leads and holds.
    ///
    /// # Errors
    /// As for [`Admin::topics`].
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        let request = v1::ClusterStatusRequest {};
        let status = repeat!(
            self,
            "asking for the cluster's status",
            cluster_status,
            request
        )?;
        Ok(status.into())
    }

    /// Makes a node the leader of a partition of which it holds a replica.
    ///
    /// # Errors
    /// Among others `UnknownPartition`, `UnknownNode`, `NoLeader`.
    pub async fn transfer_leader(
        &self,
        topic: &str,
        partition: u32,
        to_node_id: u64,
    ) -> Result<()> {
        let request = v1::TransferLeaderRequest {
            topic: topic.to_owned(),
            partition,
            to_node_id,
        };
        repeat!(self, "handing over a leadership", transfer_leader, request)?;
        Ok(())
    }

    /// Starts to move a partition to exactly these nodes. Returns before the replicas have moved.
    ///
    /// # Errors
    /// Among others `UnknownPartition`, `UnknownNode`, `Unsafe`.
    pub async fn move_partition(
        &self,
        topic: &str,
        partition: u32,
        replica_node_ids: Vec<u64>,
    ) -> Result<()> {
        let request = v1::MovePartitionRequest {
            topic: topic.to_owned(),
            partition,
            replica_node_ids,
        };
        repeat!(self, "moving a partition", move_partition, request)?;
        Ok(())
    }

    /// All consumer groups, in no particular order.
    ///
    /// # Errors
    /// As for [`Admin::topics`].
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>> {
        let request = v1::ListGroupsRequest { local: false };
        let answer = repeat!(self, "listing consumer groups", list_groups, request)?;
        Ok(answer.groups.into_iter().map(GroupSummary::from).collect())
    }

    /// A consumer group with its members and their partitions.
    ///
    /// # Errors
    /// Among others `UnknownGroup`, `NoLeader`.
    pub async fn describe_group(&self, group: &str) -> Result<GroupInfo> {
        let request = v1::DescribeGroupRequest {
            group: group.to_owned(),
        };
        let described = repeat!(self, "describing a consumer group", describe_group, request)?;
        Ok(described.into())
    }

    /// The group's lag per partition, in records and in ms.
    ///
    /// # Errors
    /// Among others `UnknownGroup`, `NoLeader`. A partition whose lag is unavailable has an error of its own.
    pub async fn group_lag(&self, group: &str) -> Result<Vec<PartitionLag>> {
        let request = v1::GroupLagRequest {
            group: group.to_owned(),
        };
        let answer = repeat!(
            self,
            "asking for a consumer group's lag",
            group_lag,
            request
        )?;
        let partitions = answer.partitions.into_iter();
        Ok(partitions.map(PartitionLag::from).collect())
    }

    /// Sets the committed offsets of a group without members: those of the named partitions, or of all
    /// partitions of the topic. Returns the new ones as (partition, offset).
    ///
    /// # Errors
    /// Among others `UnknownGroup`, `UnknownTopic`, `GroupInUse`.
    pub async fn seek_group(
        &self,
        group: &str,
        topic: &str,
        to: SeekGroup,
    ) -> Result<Vec<(u32, u64)>> {
        self.seek(group, topic, to, false).await
    }

    /// Like [`Admin::seek_group`], but creates the group if it does not exist. Its first member begins at
    /// these offsets.
    ///
    /// # Errors
    /// As for [`Admin::seek_group`], except `UnknownGroup`.
    pub async fn seek_or_create_group(
        &self,
        group: &str,
        topic: &str,
        to: SeekGroup,
    ) -> Result<Vec<(u32, u64)>> {
        self.seek(group, topic, to, true).await
    }

    async fn seek(
        &self,
        group: &str,
        topic: &str,
        to: SeekGroup,
        create: bool,
    ) -> Result<Vec<(u32, u64)>> {
        let (to, position) = match to {
            SeekGroup::All(place) => (Vec::new(), Some(place.into())),
            SeekGroup::Partitions(places) => {
                let to = places.into_iter();
                let to = to.map(|(partition, offset)| v1::SeekTo { partition, offset });
                (to.collect(), None)
            }
        };
        let request = v1::SeekGroupRequest {
            group: group.to_owned(),
            topic: topic.to_owned(),
            to,
            position,
            create,
        };
        let answer = repeat!(self, "moving a consumer group", seek_group, request)?;
        let positions = answer.positions.into_iter();
        Ok(positions.map(|at| (at.partition, at.offset)).collect())
    }

    /// Deletes a group without members, and its committed offsets.
    ///
    /// # Errors
    /// Among others `UnknownGroup`, `GroupInUse`.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
        };
        let doubt = OutcomeUnknown::default();
        let call = |mut node: Node, within| {
            let request = bounded(request.clone(), within);
            doubt.of(async move { node.delete_group(request).await })
        };
        let what = "deleting a consumer group";
        let deleted = self.inner.call(what, Idempotency::ToRepeat, call).await;
        match deleted {
            // An earlier try of this call deleted it, and its answer was lost.
            Err(error) if doubt.is_left() && error.code() == Some(ErrorCode::UnknownGroup) => {
                Ok(())
            }
            deleted => deleted.map(|_| ()),
        }
    }

    /// Sets the desired state of a node: active, drained of leaderships, or leaving the cluster.
    ///
    /// # Errors
    /// Among others `UnknownNode`, `Unsafe`.
    pub async fn set_node_state(&self, node_id: u64, state: NodeState) -> Result<()> {
        let request = v1::SetNodeStateRequest {
            node_id,
            state: v1::NodeState::from(state).into(),
        };
        repeat!(self, "changing a node's state", set_node_state, request)?;
        Ok(())
    }
}
