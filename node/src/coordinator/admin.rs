//! Group calls of operators.

use std::collections::BTreeSet;
use std::time::Duration;

use ropewalk_machines::consumer_group::{Group, TopicPartitionId, unknown_group};
use ropewalk_machines::meta::view::{MetadataImage, TopicImage};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GROUPS_TOPIC, NodeId};
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_proto::v1::seek_group_request::Position as Asked;
use ropewalk_proto::v1::{
    GroupDeleted, GroupInfo, GroupPartition, GroupPosition, GroupSummary, ListGroupsRequest,
    PositionsCommitted, SeekGroupRequest, SeekTo, group_command,
};

use super::{Coordinator, check_places, invalid, not_yet, resolve};
use crate::partition::Position;

/// Timeout of a question to another node.
const ASK_WITHIN: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Lists the groups that this node coordinates.
    pub fn list_here(&self) -> Vec<GroupSummary> {
        let view = self.view();
        let topic = view.topics.get(GROUPS_TOPIC);
        let mut found = Vec::new();
        for at in topic.iter().flat_map(|topic| &topic.partitions) {
            let partition = self.0.partitions.get(at.group);
            let Some(partition) = partition.filter(|partition| partition.coordinates().is_ok())
            else {
                continue;
            };
            partition.with_groups(|groups| {
                found.extend(
                    groups
                        .iter()
                        .map(|(name, group)| summary(name, group, &view)),
                );
            });
        }
        found
    }

    /// Lists all groups, by name.
    ///
    /// # Errors
    /// `NoLeader` if a coordinator is not known now; otherwise the error of the coordinator that could not be
    /// asked.
    pub async fn list(&self) -> Result<Vec<GroupSummary>, WireError> {
        let view = self.view();
        let Some(topic) = view.topics.get(GROUPS_TOPIC) else {
            return Ok(Vec::new());
        };
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        for at in &topic.partitions {
            let told = self.0.cluster.leaders().get(at.group);
            let told = told.ok_or_else(|| {
                not_yet(format!(
                    "partition {GROUPS_TOPIC}/{}, which stores a part of the groups, has no \
                     leader; try again shortly",
                    at.partition
                ))
            })?;
            nodes.insert(told.node);
        }
        let mut found = Vec::new();
        for node in nodes {
            if node == self.0.cluster.node_id() {
                found.extend(self.list_here());
                continue;
            }
            let Some(node) = view.nodes.get(&node) else {
                continue;
            };
            let mut request = tonic::Request::new(ListGroupsRequest { local: true });
            request.set_timeout(ASK_WITHIN);
            let mut client = RopewalkClient::new(self.0.peers.channel(&node.address));
            let answer = client.list_groups(request).await;
            let answer = answer.map_err(|status| WireError::from(&status))?;
            found.extend(answer.into_inner().groups);
        }
        found.sort_by(|a, b| a.group.cmp(&b.group));
        // A partition whose leader changed meanwhile answers twice.
        found.dedup_by(|a, b| a.group == b.group);
        Ok(found)
    }

    /// Describes one group in full. Only its coordinator can answer.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotLeader` and `NoLeader`.
    pub async fn describe(&self, name: &str) -> Result<GroupInfo, WireError> {
        let partition = self.led(self.home(name).await?)?;
        partition.groups_caught_up().await?;
        let view = self.view();
        partition.with_groups(|groups| {
            let group = groups.get(name).ok_or_else(|| unknown_group(name))?;
            let places: BTreeSet<TopicPartitionId> = group
                .shares
                .keys()
                .chain(group.positions.keys())
                .copied()
                .collect();
            let partitions = places
                .into_iter()
                .map(|place| partition_info(group, place, &view));
            let members = group.members.values();
            let missing: BTreeSet<&str> =
                members.flat_map(|member| group.missing(member)).collect();
            Ok(GroupInfo {
                group: name.to_owned(),
                generation: group.generation,
                coordinator_node_id: self.0.cluster.node_id().0,
                members: group
                    .members
                    .values()
                    .map(|member| member.told.clone())
                    .collect(),
                partitions: partitions.collect(),
                missing_topics: missing.into_iter().map(str::to_owned).collect(),
            })
        })
    }

    /// Changes the committed offsets of a group without members; returns the new ones. Only its coordinator
    /// can do this.
    ///
    /// # Errors
    /// `UnknownGroup`, unless the request may create it; `GroupInUse`, `Overloaded`; `UnknownTopic`,
    /// `UnknownPartition`, `OffsetOutOfRange`; `NotLeader` and `NoLeader`.
    pub async fn seek(&self, request: &SeekGroupRequest) -> Result<Vec<SeekTo>, WireError> {
        check_places(request.to.len())?;
        let partition = self.led(self.home(&request.group).await?)?;
        // Under older rules, the command would create any group.
        partition.groups_caught_up().await?;
        let exists = partition.with_groups(|groups| groups.get(&request.group).is_some());
        if !exists {
            match request.create {
                true => self.check_room_for_group(&partition, &request.group)?,
                false => return Err(unknown_group(&request.group)),
            }
        }
        let view = self.view();
        let topic = view.topics.get(&request.topic).ok_or_else(|| {
            WireError::new(
                ErrorCode::UnknownTopic,
                format!(
                    "topic {:?} does not exist; `ropewalk topic list` lists the topics",
                    request.topic
                ),
            )
        })?;
        let to = match request.to.is_empty() {
            false => request.to.clone(),
            true => self.everywhere(&view, topic, request.position).await?,
        };
        for one in &to {
            self.check_offset(&view, topic, one).await?;
        }
        let positions = to.iter().map(|one| GroupPosition {
            topic_id: topic.id.0,
            partition: one.partition,
            epoch: 0,
            offset: one.offset,
            note: String::new(),
        });
        let committed = PositionsCommitted {
            member_id: String::new(),
            positions: positions.collect(),
            session: 0,
            topic: Some(resolve::as_group_knows(topic)),
            create: request.create,
        };
        let kind = group_command::Kind::Committed(committed);
        self.write(&partition, &request.group, kind).await?;
        Ok(to)
    }

    /// Resolves one position to an offset in every partition.
    async fn everywhere(
        &self,
        view: &MetadataImage,
        topic: &TopicImage,
        asked: Option<Asked>,
    ) -> Result<Vec<SeekTo>, WireError> {
        let asked = asked.ok_or_else(|| {
            invalid("request has no position; give the beginning, the end, an offset or a time")
        })?;
        let mut to = Vec::with_capacity(topic.partitions.len());
        for at in &topic.partitions {
            let partition = at.partition;
            let position = match asked {
                Asked::Beginning(_) => Position::Beginning,
                Asked::End(_) => Position::End,
                Asked::AtOrAfterMs(time_ms) => Position::AtOrAfter(time_ms),
                Asked::Offset(offset) => {
                    to.push(SeekTo { partition, offset });
                    continue;
                }
            };
            let offset = self.offset_at(view, topic, partition, position).await?;
            to.push(SeekTo { partition, offset });
        }
        Ok(to)
    }

    async fn check_offset(
        &self,
        view: &MetadataImage,
        topic: &TopicImage,
        to: &SeekTo,
    ) -> Result<(), WireError> {
        let name = format!("{}/{}", topic.name, to.partition);
        if to.partition as usize >= topic.partitions.len() {
            return Err(WireError::new(
                ErrorCode::UnknownPartition,
                format!(
                    "partition {name} does not exist; `ropewalk topic describe` lists the topic's \
                     partitions"
                ),
            ));
        }
        let end = self
            .offset_at(view, topic, to.partition, Position::End)
            .await?;
        if to.offset <= end {
            return Ok(());
        }
        Err(WireError::new(
            ErrorCode::OffsetOutOfRange,
            format!(
                "offset {} is past the end of partition {name}, which is {end}; seek to the end \
                 instead",
                to.offset
            ),
        ))
    }

    /// Deletes a group without members, and its committed offsets. Only its coordinator can do this.
    ///
    /// # Errors
    /// `UnknownGroup`, `GroupInUse`; `NotLeader` and `NoLeader`.
    pub async fn delete(&self, name: &str) -> Result<(), WireError> {
        let partition = self.led(self.home(name).await?)?;
        let kind = group_command::Kind::Deleted(GroupDeleted::default());
        self.write(&partition, name, kind).await.map(drop)
    }
}

fn summary(name: &str, group: &Group, view: &MetadataImage) -> GroupSummary {
    let read: BTreeSet<u64> = group
        .topics
        .keys()
        .copied()
        .chain(group.positions.keys().map(|place| place.topic_id))
        .collect();
    let topics = view
        .topics
        .values()
        .filter(|topic| read.contains(&topic.id.0));
    GroupSummary {
        group: name.to_owned(),
        members: group.members.len() as u32,
        generation: group.generation,
        topics: topics.map(|topic| topic.name.clone()).collect(),
    }
}

fn partition_info(group: &Group, place: TopicPartitionId, view: &MetadataImage) -> GroupPartition {
    let share = group.shares.get(&place).cloned().unwrap_or_default();
    let position = group.positions.get(&place);
    let (topic, deleted_topic) = names(group, place.topic_id, view);
    let next = share
        .target
        .filter(|target| share.owner.as_ref() != Some(target));
    GroupPartition {
        topic: topic.to_owned(),
        topic_id: place.topic_id,
        partition: place.partition,
        member_id: share.owner.unwrap_or_default(),
        epoch: share.epoch,
        next_member_id: next.unwrap_or_default(),
        committed: position.map(|position| position.offset),
        committed_at_ms: position.map_or(0, |position| position.committed_ms),
        note: position.map_or_else(String::new, |position| position.note.clone()),
        deleted_topic: deleted_topic.to_owned(),
    }
}

/// Returns the name of a topic and the former name of a deleted one. At most one of them is set; neither is
/// if the group no longer knows a deleted topic.
fn names<'a>(group: &'a Group, topic_id: u64, view: &'a MetadataImage) -> (&'a str, &'a str) {
    let mut topics = view.topics.values();
    if let Some(topic) = topics.find(|topic| topic.id.0 == topic_id) {
        return (&topic.name, "");
    }
    let known = group.topics.get(&topic_id);
    let known = known.map_or("", |topic| topic.name.as_str());
    // A topic created after this view is not deleted.
    match topic_id < view.next_topic.0 {
        true => ("", known),
        false => (known, ""),
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::TopicId;

    use super::*;
    use ropewalk_machines::consumer_group::Topic;

    #[test]
    fn a_partition_of_a_deleted_topic_has_the_last_name_that_the_group_knows() {
        let topic = Topic {
            name: "old".to_owned(),
            partitions: 1,
            growths: Vec::new(),
        };
        let group = Group {
            topics: [(9, topic)].into(),
            ..Group::default()
        };
        let view = |next_topic| MetadataImage {
            next_topic: TopicId(next_topic),
            ..MetadataImage::default()
        };
        assert_eq!(names(&group, 9, &view(10)), ("", "old"));
        assert_eq!(names(&group, 9, &view(9)), ("old", ""), "it is newer");
        assert_eq!(names(&Group::default(), 9, &view(10)), ("", ""));
    }
}
