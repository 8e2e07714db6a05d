//! Topics: their creation, changes and description. Any node accepts these operations, and proposes changes to
//! the metadata group.

use std::collections::BTreeSet;
use std::time::Duration;

use ropewalk_machines::meta::settings;
use ropewalk_machines::meta::view::{MetadataImage, PartitionImage, TopicImage, unknown_topic};
use ropewalk_proto::command::{RINGS_SINCE_VERSION, SETTINGS_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1;
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::meta_reply;
use tokio::time::{Instant, sleep};

use super::{Api, Serving, check_internal};

/// Maximum time until the node that handled a metadata change sees the change itself.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time that the creation of a topic waits for its partitions to have leaders.
const LED_WITHIN: Duration = Duration::from_secs(5);
/// Interval between two checks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Api<'_> {
    /// Creates a topic.
    pub async fn create_topic(
        &self,
        request: v1::CreateTopicRequest,
    ) -> Result<v1::TopicInfo, WireError> {
        check_internal(&request.name)?;
        self.note_change("CreateTopic", &request.name);
        let name = request.name.clone();
        let kind = Kind::CreateTopic(v1::CreateTopic {
            name: request.name,
            partitions: request.partitions,
            settings: Some(settings::resolve(request.settings.as_ref())?),
            max_replicas_per_node: replicas_bound(self.serving),
        });
        self.serving.cluster.propose(kind).await?;
        led(self.serving, &name).await
    }

    /// Changes settings of a topic.
    pub async fn alter_topic(
        &self,
        request: v1::AlterTopicRequest,
    ) -> Result<v1::TopicInfo, WireError> {
        check_internal(&request.name)?;
        self.note_change("AlterTopic", &request.name);
        let serving = self.serving;
        let view = serving.view();
        let topic = view
            .topics
            .get(&request.name)
            .ok_or_else(|| unknown_topic(&request.name))?;
        let name = request.name.clone();
        if request.set.is_empty() {
            return visible(serving, &name).await;
        }
        let command = alteration(&view, topic, request)?;
        let applied = serving.cluster.propose(Kind::AlterTopic(command)).await?;
        let mut info = visible(serving, &name).await?;
        if let Some(meta_reply::Kind::Topic(topic)) = applied {
            info.settings = topic.settings;
        }
        Ok(info)
    }

    /// Adds partitions to a topic.
    pub async fn grow_topic(
        &self,
        request: v1::GrowTopicRequest,
    ) -> Result<v1::TopicInfo, WireError> {
        check_internal(&request.name)?;
        self.note_change("GrowTopic", &request.name);
        let partitions = request.partitions as usize;
        let kind = Kind::GrowTopic(v1::GrowTopic {
            name: request.name.clone(),
            partitions: request.partitions,
            max_replicas_per_node: replicas_bound(self.serving),
        });
        self.serving.cluster.propose(kind).await?;
        seen(self.serving, &request.name, |topic| {
            topic.partitions.len() >= partitions
        })
        .await
    }

    /// Deletes a topic.
    pub async fn delete_topic(
        &self,
        request: v1::DeleteTopicRequest,
    ) -> Result<v1::DeleteTopicResponse, WireError> {
        check_internal(&request.name)?;
        self.note_change("DeleteTopic", &request.name);
        let understood = self.serving.view().understood;
        let kind = Kind::DeleteTopic(v1::DeleteTopic {
            name: request.name,
            keep_ring_version: understood >= RINGS_SINCE_VERSION,
        });
        self.serving.cluster.propose(kind).await?;
        Ok(v1::DeleteTopicResponse {})
    }

    /// Describes the partitions of the named topics that exist; without names, of all topics.
    pub fn list_partitions(
        &self,
        request: &v1::ListPartitionsRequest,
    ) -> v1::ListPartitionsResponse {
        v1::ListPartitionsResponse {
            topics: topics(self.serving, &request.topics),
        }
    }
}

/// Bound on replicas that a command carries. Older nodes would ignore it, so it is left out while the cluster
/// has any.
fn replicas_bound(serving: &Serving) -> u32 {
    match serving.view().understood >= SETTINGS_SINCE_VERSION {
        true => serving.limits.replicas_per_node,
        false => 0,
    }
}

/// Builds the command with the changes. It carries all settings, merged here, until every node can merge
/// changes while it applies them. In such a cluster, the later of two concurrent changes undoes the earlier.
fn alteration(
    view: &MetadataImage,
    topic: &TopicImage,
    request: v1::AlterTopicRequest,
) -> Result<v1::AlterTopic, WireError> {
    let set = request.set.iter();
    let set = set.map(|(name, value)| (name.as_str(), value.as_str()));
    // 0: a founder has yet to register. The command waits for it.
    let older = (1..SETTINGS_SINCE_VERSION).contains(&view.understood);
    if older || is_planted(PlantedBug::MergeOutsideApply) {
        let merged = settings::merge(&topic.settings, set)?;
        return Ok(v1::AlterTopic {
            name: request.name,
            settings: Some(merged),
            changed: Vec::new(),
        });
    }
    let changes = settings::Changes::parse(set)?;
    Ok(v1::AlterTopic {
        settings: Some(changes.values),
        changed: changes.fields,
        name: request.name,
    })
}

/// Waits, for a bounded time, until every partition of a new topic has a leader. The answer shows partitions
/// that still have none.
async fn led(serving: &Serving, name: &str) -> Result<v1::TopicInfo, WireError> {
    let deadline = Instant::now() + LED_WITHIN;
    loop {
        let info = visible(serving, name).await?;
        let led = info.partitions.iter().all(|one| one.leader_node_id != 0);
        if led || Instant::now() + LOOK_AGAIN >= deadline {
            return Ok(info);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Waits until this node's own view has the topic, so that later calls on this connection see it.
async fn visible(serving: &Serving, name: &str) -> Result<v1::TopicInfo, WireError> {
    seen(serving, name, |_| true).await
}

/// Waits until this node's own view has the topic in the expected state.
async fn seen(
    serving: &Serving,
    name: &str,
    as_wished: impl Fn(&TopicImage) -> bool,
) -> Result<v1::TopicInfo, WireError> {
    let mut view = serving.cluster.view();
    let has_it = view.wait_for(|view| view.topics.get(name).is_some_and(&as_wished));
    let seen = tokio::time::timeout(VISIBLE_WITHIN, has_it).await;
    let view = match seen {
        Ok(Ok(view)) => view.clone(),
        _ => {
            return Err(WireError::new(
                ErrorCode::Timeout,
                format!(
                    "topic {name:?} has changed, but this node has not seen the change yet; list the topics to check"
                ),
            ));
        }
    };
    let topic = view.topics.get(name).ok_or_else(|| unknown_topic(name))?;
    Ok(topic_info(serving, topic))
}

/// Returns the named topics that exist, each once; without names, all topics.
pub(super) fn topics(serving: &Serving, names: &[String]) -> Vec<v1::TopicInfo> {
    let view = serving.view();
    if names.is_empty() {
        return view
            .topics
            .values()
            .map(|topic| topic_info(serving, topic))
            .collect();
    }
    let names: BTreeSet<&String> = names.iter().collect();
    let found = names.into_iter().filter_map(|name| view.topics.get(name));
    found.map(|topic| topic_info(serving, topic)).collect()
}

fn topic_info(serving: &Serving, topic: &TopicImage) -> v1::TopicInfo {
    v1::TopicInfo {
        name: topic.name.clone(),
        topic_id: topic.id.0,
        partitions: topic
            .partitions
            .iter()
            .map(|one| partition_info(serving, one))
            .collect(),
        settings: Some(topic.settings),
        ring_version: topic.ring_version,
        ring_partitions: topic.ring_partitions,
        growths: topic.growths.clone(),
    }
}

fn partition_info(serving: &Serving, partition: &PartitionImage) -> v1::PartitionInfo {
    let told = serving.cluster.leaders().get(partition.group);
    let alive = told
        .as_ref()
        .filter(|told| serving.cluster.alive(told.node));
    v1::PartitionInfo {
        partition: partition.partition,
        leader_node_id: alive.map_or(0, |told| told.node.0),
        leader_epoch: told.as_ref().map_or(0, |told| told.epoch),
        replica_node_ids: partition
            .replicas
            .iter()
            .map(|place| place.node.0)
            .collect(),
        in_sync_node_ids: alive
            .map(|told| told.in_sync.iter().map(|node| node.0).collect())
            .unwrap_or_default(),
        log_start_offset: told.as_ref().map_or(0, |told| told.log_start_offset),
        high_watermark: told.as_ref().map_or(0, |told| told.high_watermark),
        log_bytes: told.as_ref().map_or(0, |told| told.log_bytes),
    }
}
