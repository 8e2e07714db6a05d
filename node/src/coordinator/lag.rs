//! Lag of a group: its committed offsets compared with the offsets that partition leaders report.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ropewalk_machines::consumer_group::{Group, TopicPartitionId, unknown_group};
use ropewalk_machines::meta::view::{MetadataImage, TopicImage};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1;
use ropewalk_proto::v1::list_offsets_request::Position as Asked;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use ropewalk_proto::v1::{
    Backlog, BacklogFrom, BacklogRequest, BacklogResponse, GroupLagResponse, ListOffsetsRequest,
    PartitionLag,
};

use super::{Coordinator, not_yet};
use crate::partition::Position;

/// Timeout of a question to another node.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// Nodes asked at a time.
const AT_ONCE: usize = 16;

/// Committed offset and owner of one partition of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) committed: Option<u64>,
    member_id: String,
}

/// Rows by topic and partition.
pub(super) type Rows = BTreeMap<(String, u32), Row>;

impl Coordinator {
    /// Returns the backlog in partitions that this node leads.
    pub async fn backlog(&self, request: BacklogRequest) -> BacklogResponse {
        let view = self.view();
        let topic = (request.topic.as_str(), request.topic_id);
        let mut partitions = Vec::with_capacity(request.from.len());
        for from in request.from {
            let answer = match self.backlog_of(&view, topic, &from).await {
                Ok(answer) => answer,
                Err(error) => Backlog {
                    partition: from.partition,
                    error: Some(error.into()),
                    ..Backlog::default()
                },
            };
            partitions.push(answer);
        }
        BacklogResponse { partitions }
    }

    async fn backlog_of(
        &self,
        view: &MetadataImage,
        (topic, topic_id): (&str, u64),
        from: &BacklogFrom,
    ) -> Result<Backlog, WireError> {
        let found = match view.meant(topic, topic_id) {
            Err(error) if error.code == ErrorCode::TopicRecreated => return Err(error),
            found => found.ok(),
        };
        let found = found.and_then(|topic| topic.partitions.get(from.partition as usize));
        let local = found.and_then(|found| self.0.partitions.get(found.group));
        let local = local.ok_or_else(|| no_leader(topic, from.partition))?;
        let backlog = local.backlog(from.offset).await?;
        Ok(Backlog {
            partition: from.partition,
            high_watermark: backlog.high_watermark,
            log_start_offset: backlog.log_start_offset,
            appended_ms: backlog.appended_ms,
            now_ms: backlog.now_ms,
            error: None,
        })
    }

    /// Returns the lag of a group, partition by partition. Only its coordinator can answer.
    ///
    /// # Errors
    /// `UnknownGroup`; `NotLeader` and `NoLeader` of the group's own partition.
    pub async fn lag(&self, name: &str) -> Result<GroupLagResponse, WireError> {
        let partition = self.led(self.home(name).await?)?;
        partition.groups_caught_up().await?;
        let view = self.view();
        let rows = partition.with_groups(|groups| {
            let group = groups.get(name).ok_or_else(|| unknown_group(name))?;
            Ok::<_, WireError>(rows(group, &view))
        })?;
        let mut questions: BTreeMap<(String, Option<NodeId>), Vec<BacklogFrom>> = BTreeMap::new();
        for ((topic, partition), row) in &rows {
            let from = BacklogFrom {
                partition: *partition,
                offset: row.committed.unwrap_or(0),
            };
            let leader = self.leader(&view, topic, *partition);
            questions
                .entry((topic.clone(), leader))
                .or_default()
                .push(from);
        }
        let answers = stream::iter(questions).map(|((topic, leader), from)| {
            let view = &view;
            async move {
                let answer = self.ask(view, leader, &topic, from).await;
                (topic, answer)
            }
        });
        let answers: Vec<_> = answers.buffer_unordered(AT_ONCE).collect().await;
        let mut partitions = Vec::new();
        for (topic, backlogs) in answers {
            for backlog in backlogs {
                let row = rows.get(&(topic.clone(), backlog.partition));
                partitions.push(lag_of(&topic, &backlog, row.cloned().unwrap_or_default()));
            }
        }
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(GroupLagResponse { partitions })
    }

    pub(super) fn leader(
        &self,
        view: &MetadataImage,
        topic: &str,
        partition: u32,
    ) -> Option<NodeId> {
        let found = view.partition(topic, partition)?;
        self.0
            .cluster
            .leaders()
            .get(found.group)
            .map(|told| told.node)
    }

    /// Asks a leader for its backlogs. If that fails, returns an error for each partition.
    pub(super) async fn ask(
        &self,
        view: &MetadataImage,
        leader: Option<NodeId>,
        topic: &str,
        from: Vec<BacklogFrom>,
    ) -> Vec<Backlog> {
        let request = BacklogRequest {
            topic: topic.to_owned(),
            from: from.clone(),
            // The offsets belong to the topic in this view.
            topic_id: view.topics.get(topic).map_or(0, |topic| topic.id.0),
        };
        let node = leader.and_then(|leader| view.nodes.get(&leader));
        let error = match node {
            Some(node) if node.id == self.0.cluster.node_id() => {
                return self.backlog(request).await.partitions;
            }
            Some(node) => {
                let mut asked = tonic::Request::new(request);
                asked.set_timeout(ASK_WITHIN);
                let mut client = RopewalkClient::new(self.0.peers.channel(&node.address));
                match client.backlog(asked).await {
                    Ok(answer) => return answer.into_inner().partitions,
                    Err(status) => Some(WireError::from(&status)),
                }
            }
            None => None,
        };
        let failed = from.iter().map(|from| {
            let error = error.clone();
            let error = error.unwrap_or_else(|| no_leader(topic, from.partition));
            Backlog {
                partition: from.partition,
                error: Some(error.into()),
                ..Backlog::default()
            }
        });
        failed.collect()
    }

    /// Returns the high watermark of a partition in records. A reported value of at least `enough` will do;
    /// otherwise the leader is asked.
    pub(super) async fn end_of(&self, place: TopicPartitionId, enough: u64) -> Option<u64> {
        let view = self.view();
        let mut topics = view.topics.values();
        let topic = topics.find(|topic| topic.id.0 == place.topic_id)?;
        let partition = topic.partitions.get(place.partition as usize)?;
        let told = self.0.cluster.leaders().get(partition.group);
        match told.map(|told| told.high_watermark) {
            Some(heard) if heard >= enough => Some(heard),
            _ => self
                .offset_at(&view, topic, place.partition, Position::End)
                .await
                .ok(),
        }
    }

    /// Returns the offset of a position, from the partition's leader.
    pub(super) async fn offset_at(
        &self,
        view: &MetadataImage,
        topic: &TopicImage,
        partition: u32,
        position: Position,
    ) -> Result<u64, WireError> {
        let leader = self.leader(view, &topic.name, partition);
        let node = leader.and_then(|leader| view.nodes.get(&leader));
        let node = node.ok_or_else(|| no_leader(&topic.name, partition))?;
        let found = topic.partitions.get(partition as usize);
        if node.id == self.0.cluster.node_id() {
            let local = found.and_then(|found| self.0.partitions.get(found.group));
            let local = local.ok_or_else(|| no_leader(&topic.name, partition))?;
            return local
                .list_offset(position)
                .await
                .map(|listed| listed.offset);
        }
        let mut request = tonic::Request::new(ListOffsetsRequest {
            topic: topic.name.clone(),
            partition,
            position: Some(match position {
                Position::Beginning => Asked::Beginning(true),
                Position::End => Asked::End(true),
                Position::AtOrAfter(time_ms) => Asked::AtOrAfterMs(time_ms),
            }),
            topic_id: topic.id.0,
        });
        request.set_timeout(ASK_WITHIN);
        let mut client = RopewalkClient::new(self.0.peers.channel(&node.address));
        let answer: Result<tonic::Response<v1::ListOffsetsResponse>, _> =
            client.list_offsets(request).await;
        answer
            .map(|answer| answer.into_inner().offset)
            .map_err(|status| WireError::from(&status))
    }
}

/// Returns all partitions that a group reads or has read.
pub(super) fn rows(group: &Group, view: &MetadataImage) -> Rows {
    let names: BTreeMap<u64, &str> = view
        .topics
        .values()
        .map(|topic| (topic.id.0, topic.name.as_str()))
        .collect();
    let key = |place: &TopicPartitionId| {
        let name = names.get(&place.topic_id)?;
        Some(((*name).to_owned(), place.partition))
    };
    let mut rows = Rows::new();
    for (place, share) in &group.shares {
        if let Some(key) = key(place) {
            rows.entry(key).or_default().member_id = share.owner.clone().unwrap_or_default();
        }
    }
    for (place, position) in &group.positions {
        if let Some(key) = key(place) {
            rows.entry(key).or_default().committed = Some(position.offset);
        }
    }
    rows
}

fn lag_of(topic: &str, backlog: &Backlog, row: Row) -> PartitionLag {
    // Records that retention deleted do not count as lag.
    let next = row.committed.unwrap_or(0).max(backlog.log_start_offset);
    let waited_ms = backlog
        .appended_ms
        .map(|at_ms| backlog.now_ms.saturating_sub(at_ms).max(0));
    PartitionLag {
        topic: topic.to_owned(),
        partition: backlog.partition,
        committed: row.committed,
        high_watermark: backlog.high_watermark,
        lag_records: backlog.high_watermark.saturating_sub(next),
        lag_ms: waited_ms.unwrap_or(0),
        member_id: row.member_id,
        error: backlog.error.clone(),
    }
}

fn no_leader(topic: &str, partition: u32) -> WireError {
    not_yet(format!(
        "partition {topic}/{partition}: leader unknown; try again in a second"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_retention_took_is_not_behind_and_a_clock_that_went_back_waits_for_nothing() {
        let backlog = Backlog {
            high_watermark: 15,
            log_start_offset: 10,
            appended_ms: Some(700),
            now_ms: 600,
            ..Backlog::default()
        };
        let lag_at = |committed| {
            let row = Row {
                committed,
                ..Row::default()
            };
            lag_of("flights", &backlog, row)
        };
        let records = [None, Some(3), Some(12), Some(20)].map(|at| lag_at(at).lag_records);
        assert_eq!(records, [5, 5, 3, 0]);
        assert_eq!(lag_at(Some(3)).lag_ms, 0);
    }
}
