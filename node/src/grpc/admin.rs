//! Calls of operators about topics, leaders and nodes. Any node accepts these calls, and forwards each to the
//! node that can carry it out.

use std::time::Duration;

use ropewalk_machines::meta::settings;
use ropewalk_machines::meta::view::{ClusterView, TopicView, unknown_topic};
use ropewalk_proto::command::{RINGS_SINCE_VERSION, SETTINGS_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{NodeId, is_internal};
use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_proto::v1;
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::meta_reply;
use ropewalk_proto::v1::ropewalk_client::RopewalkClient;
use tokio::time::{Instant, sleep};

use super::metadata;
use crate::service::Serving;

/// Maximum time until the node that handled a metadata change sees the change itself.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// Maximum time that the creation of a topic waits for its partitions to have leaders.
const LED_WITHIN: Duration = Duration::from_secs(5);
/// Interval between two checks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Timeout of a call forwarded to another node.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn create_topic(
    serving: &Serving,
    request: v1::CreateTopicRequest,
) -> Result<v1::TopicInfo, WireError> {
    check_internal(&request.name)?;
    let name = request.name.clone();
    let kind = Kind::CreateTopic(v1::CreateTopic {
        name: request.name,
        partitions: request.partitions,
        settings: Some(settings::resolve(request.settings.as_ref())?),
        max_replicas_per_node: replicas_bound(serving),
    });
    serving.cluster.propose(kind).await?;
    led(serving, &name).await
}

/// Bound on replicas that a command carries. Older nodes would ignore it, so it is left out while the cluster
/// has any.
fn replicas_bound(serving: &Serving) -> u32 {
    match serving.cluster.view().borrow().understood >= SETTINGS_SINCE_VERSION {
        true => serving.limits.replicas_per_node,
        false => 0,
    }
}

pub(super) async fn alter_topic(
    serving: &Serving,
    request: v1::AlterTopicRequest,
) -> Result<v1::TopicInfo, WireError> {
    check_internal(&request.name)?;
    let view = serving.cluster.view().borrow().clone();
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

/// Builds the command with the changes. It carries all settings, merged here, until every node can merge
/// changes while it applies them. In such a cluster, the later of two concurrent changes undoes the earlier.
fn alteration(
    view: &ClusterView,
    topic: &TopicView,
    request: v1::AlterTopicRequest,
) -> Result<v1::AlterTopic, WireError> {
    let set = request.set.iter();
    let set = set.map(|(name, value)| (name.as_str(), value.as_str()));
    // 0: a founder has yet to register. The command waits for it.
    let older = (1..SETTINGS_SINCE_VERSION).contains(&view.understood);
    if older || made(Mistake::MergeOutsideApply) {
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

pub(super) async fn grow_topic(
    serving: &Serving,
    request: v1::GrowTopicRequest,
) -> Result<v1::TopicInfo, WireError> {
    check_internal(&request.name)?;
    let partitions = request.partitions as usize;
    let kind = Kind::GrowTopic(v1::GrowTopic {
        name: request.name.clone(),
        partitions: request.partitions,
        max_replicas_per_node: replicas_bound(serving),
    });
    serving.cluster.propose(kind).await?;
    seen(serving, &request.name, |topic| {
        topic.partitions.len() >= partitions
    })
    .await
}

pub(super) async fn delete_topic(
    serving: &Serving,
    request: v1::DeleteTopicRequest,
) -> Result<(), WireError> {
    check_internal(&request.name)?;
    let understood = serving.cluster.view().borrow().understood;
    let kind = Kind::DeleteTopic(v1::DeleteTopic {
        name: request.name,
        keep_ring_version: understood >= RINGS_SINCE_VERSION,
    });
    serving.cluster.propose(kind).await?;
    Ok(())
}

pub(super) async fn move_partition(
    serving: &Serving,
    request: v1::MovePartitionRequest,
) -> Result<(), WireError> {
    let view = serving.cluster.view().borrow().clone();
    let partition = view
        .partition(&request.topic, request.partition)
        .ok_or_else(|| unknown_partition(&request.topic, request.partition))?;
    let kind = Kind::MoveReplicas(v1::MoveReplicas {
        group_id: partition.group.0,
        node_ids: request.replica_node_ids,
    });
    serving.cluster.propose(kind).await?;
    Ok(())
}

pub(super) async fn set_node_state(
    serving: &Serving,
    request: v1::SetNodeStateRequest,
) -> Result<(), WireError> {
    let kind = Kind::SetNodeState(v1::SetNodeState {
        node_id: request.node_id,
        state: request.state,
    });
    serving.cluster.propose(kind).await?;
    Ok(())
}

/// Transfers leadership. Only the leader can do so; any other node forwards the call to it, once.
pub(super) async fn transfer_leader(
    serving: &Serving,
    request: v1::TransferLeaderRequest,
) -> Result<(), WireError> {
    let view = serving.cluster.view().borrow().clone();
    let partition = view
        .partition(&request.topic, request.partition)
        .ok_or_else(|| unknown_partition(&request.topic, request.partition))?;
    let leader = serving
        .cluster
        .leaders()
        .get(partition.group)
        .map(|told| told.node);
    match leader {
        Some(leader) if leader == serving.cluster.node_id() => {
            let local = serving.local(&request.topic, 0, request.partition)?;
            local.transfer_leader(NodeId(request.to_node_id)).await
        }
        Some(leader) => {
            let node = view.nodes.get(&leader).ok_or_else(|| no_leader(&request))?;
            let mut forward = tonic::Request::new(request);
            forward.set_timeout(FORWARD_TIMEOUT);
            let mut client = RopewalkClient::new(serving.peers.channel(&node.address));
            let answer = client.transfer_leader(forward).await;
            answer
                .map(|_| ())
                .map_err(|status| WireError::from(&status))
        }
        None => Err(no_leader(&request)),
    }
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
    as_wished: impl Fn(&TopicView) -> bool,
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
                    "topic {name:?} is committed, but this node has not seen it yet; list the topics to look again"
                ),
            ));
        }
    };
    let topic = view.topics.get(name).ok_or_else(|| unknown_topic(name))?;
    Ok(metadata::topic_info(serving, topic))
}

/// Refuses calls on the cluster's internal topics.
fn check_internal(topic: &str) -> Result<(), WireError> {
    if !is_internal(topic) {
        return Ok(());
    }
    Err(WireError::new(
        ErrorCode::InvalidTopicName,
        format!(
            "topic {topic:?} is the cluster's own, as all whose names begin with '_'; choose another name"
        ),
    ))
}

fn unknown_partition(topic: &str, partition: u32) -> WireError {
    WireError::new(
        ErrorCode::UnknownPartition,
        format!(
            "there is no partition {topic}/{partition}; `ropewalk partition list {topic}` shows those there are"
        ),
    )
}

fn no_leader(request: &v1::TransferLeaderRequest) -> WireError {
    WireError::new(
        ErrorCode::NoLeader,
        format!(
            "no leader of {}/{} is known right now; try again in a second",
            request.topic, request.partition
        ),
    )
}
