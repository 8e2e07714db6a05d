//! Coordinators of consumer groups: sessions of members, revocation of partitions, and messages to members.
//!
//! A group's coordinator is the leader of one partition of the internal topic `_groups`, Ropewalk's
//! counterpart of Kafka's `__consumer_offsets`. State that must outlive the coordinator - members, owners,
//! committed offsets - is in that partition's log. `ropewalk_machines::consumer_group` computes it, assignments
//! included. The state here dies with the coordinator: the times of the members' last heartbeats.
//!
//! A [`Session`] is one stream of a member. If the stream breaks, the member can return in another session
//! until its session timeout ends. A group's **home** is its partition of `_groups`. The **reaper** is the
//! background task that removes members whose timeout has ended, and revokes partitions by force.
//!
//! **A new coordinator ends no session before that member could have found it.** It does not know the times
//! of earlier heartbeats. The log does not record them, because clocks of two nodes are not comparable. But
//! the grace period can be shorter than a session timeout. A live member sends a heartbeat every heartbeat
//! interval, to the node that it takes for its coordinator. It looks for another as soon as that stream ends
//! or stops answering. So a member gets one interval and [`FIND_WITHIN`], or its session timeout if that is
//! shorter. A member that was silent before is removed that long after the coordinator moved. If a member is
//! removed too early, no record is lost: its commits are refused, and the records it did not commit are
//! delivered to other members. But its partitions move twice. A static member may be restarting, and gets a
//! whole session timeout.

mod admin;
mod compare;
mod group_reaper;
mod lag;
mod lag_collector;
mod resolve;
mod room;
mod session;
mod session_table;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use room::{Reserved, UnderWay};
use ropewalk_machines::meta::frozen::MAX_PARTITIONS;
use ropewalk_machines::meta::view::MetadataImage;
use ropewalk_machines::meta::{INTERNAL_REPLICAS, invalid, settings};
use ropewalk_proto::command::group_rules;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::{GROUPS_TOPIC, GroupId};
use ropewalk_proto::partitioner::Partitioner;
use ropewalk_proto::v1::meta_command::Kind;
use ropewalk_proto::v1::{
    CreateTopic, GroupCommand, GroupReply, NodeState, TopicSettings, group_command,
};
use session_table::SessionTable;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::Limits;
use crate::env::Clock;
use crate::metrics::Metrics;
use crate::partition::{Partition, ReplicaManager};
use crate::peer::Peers;

pub use lag_collector::{GroupPhase, LagCollector, LagSnapshot, PartitionLagSnapshot};
pub use session::Session;

/// Segment size of the internal topic. Group commands are small, so its log is cut often.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Maximum time until this node's own view shows the new internal topic.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// Heartbeats that a member sends per session timeout.
const HEARTBEATS_PER_SESSION: u32 = 3;
/// Time that a member has, besides one heartbeat interval, to notice the loss of its coordinator and find the
/// next one. It counts from the moment the next one has a majority; the election itself comes before that.
const FIND_WITHIN: Duration = Duration::from_secs(4);
/// Maximum length of the names of groups and members, and of a client's name.
const MAX_NAME_BYTES: usize = 249;
/// Maximum partitions in one request: as many as a topic can have.
const MAX_PLACES: usize = MAX_PARTITIONS as usize;

/// Coordinator of the groups whose partitions this node leads.
#[derive(Clone)]
pub struct Coordinator(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    partitions: ReplicaManager,
    peers: Peers,
    clock: Arc<dyn Clock>,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// Mapping of groups to partitions of the internal topic, with the number of partitions it is for.
    mapping: Mutex<Option<(u32, Arc<Partitioner>)>>,
    /// Lock that lets only one task create the internal topic.
    making: AsyncMutex<()>,
    /// Known sessions, by the partitions of the internal topic that this node leads.
    led: Mutex<BTreeMap<u32, SessionTable>>,
    /// Channels that signal changes of a group, for groups with a waiting session.
    changes: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    /// Bytes that commands in flight will add to groups.
    under_way: UnderWay,
    /// Counter of sessions, to distinguish successive sessions of a member.
    sessions: AtomicU64,
}

/// Coordinating partition of a group.
#[derive(Debug, Clone, Copy)]
pub struct GroupHome {
    /// Number of the internal topic's partition.
    pub partition: u32,
    /// Raft group of the partition.
    pub group: GroupId,
}

impl Coordinator {
    /// Starts to maintain the groups of this node, until `stop`.
    pub fn start(
        cluster: &Cluster,
        partitions: &ReplicaManager,
        peers: &Peers,
        limits: &Limits,
        metrics: &Arc<Metrics>,
        stop: CancellationToken,
    ) -> Coordinator {
        let coordinator = Coordinator(Arc::new(Inner {
            cluster: cluster.clone(),
            partitions: partitions.clone(),
            peers: peers.clone(),
            clock: cluster.clock(),
            limits: limits.clone(),
            metrics: metrics.clone(),
            mapping: Mutex::default(),
            making: AsyncMutex::default(),
            led: Mutex::default(),
            changes: Mutex::default(),
            under_way: UnderWay::default(),
            sessions: AtomicU64::new(0),
        }));
        let keeper = coordinator.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = group_reaper::run(&keeper) => {}
            }
        });
        coordinator
    }

    /// Returns the coordinating partition of a group. The first group creates the internal topic.
    ///
    /// # Errors
    /// `InvalidRequest` for an invalid group name; the errors of the metadata group.
    pub async fn home(&self, group: &str) -> Result<GroupHome, WireError> {
        check_name("group", group)?;
        if let Some(home) = self.home_in(&self.view(), group)? {
            return Ok(home);
        }
        self.make_topic().await?;
        let home = self.home_in(&self.view(), group)?;
        home.ok_or_else(|| {
            not_yet("topic of consumer groups is not known to this node yet; try again shortly")
        })
    }

    fn view(&self) -> Arc<MetadataImage> {
        self.0.cluster.view().borrow().clone()
    }

    fn home_in(&self, view: &MetadataImage, group: &str) -> Result<Option<GroupHome>, WireError> {
        let Some(topic) = view.topics.get(GROUPS_TOPIC) else {
            return Ok(None);
        };
        let count = topic.partitions.len() as u32;
        let mapping = {
            let mut known = self.0.mapping.lock();
            match &*known {
                Some((of, mapping)) if *of == count => mapping.clone(),
                _ => {
                    let mapping = Arc::new(Partitioner::of_settings(&topic.settings, count)?);
                    *known = Some((count, mapping.clone()));
                    mapping
                }
            }
        };
        let partition = mapping.partition(group.as_bytes());
        let found = topic.partitions.get(partition as usize);
        Ok(found.map(|found| GroupHome {
            partition,
            group: found.group,
        }))
    }

    async fn make_topic(&self) -> Result<(), WireError> {
        let _one = self.0.making.lock().await;
        let view = self.view();
        if view.topics.contains_key(GROUPS_TOPIC) {
            return Ok(());
        }
        let active = view
            .nodes
            .values()
            .filter(|node| node.state == NodeState::Active);
        let wanted = TopicSettings {
            replicas: active.count().clamp(1, INTERNAL_REPLICAS) as u32,
            retention_ms: -1,
            retention_bytes: -1,
            segment_bytes: SEGMENT_BYTES,
            ..TopicSettings::default()
        };
        let kind = Kind::CreateTopic(CreateTopic {
            name: GROUPS_TOPIC.to_owned(),
            partitions: self.0.limits.group_partitions,
            settings: Some(settings::resolve(Some(&wanted))?),
            // Limits on user topics must not refuse the cluster's own.
            max_replicas_per_node: 0,
        });
        match self.0.cluster.propose(kind).await {
            Err(error) if error.code != ErrorCode::TopicExists => return Err(error),
            _ => {}
        }
        let mut view = self.0.cluster.view();
        let seen = view.wait_for(|view| view.topics.contains_key(GROUPS_TOPIC));
        // If the view does not show the topic in time, the caller gets a retriable error.
        let _ = tokio::time::timeout(VISIBLE_WITHIN, seen).await;
        Ok(())
    }

    /// Returns the coordinating partition, if this node leads it.
    fn led(&self, home: GroupHome) -> Result<Arc<Partition>, WireError> {
        let partition = self.0.partitions.get(home.group).ok_or_else(|| {
            WireError::new(
                ErrorCode::NotLeader,
                format!(
                    "partition {GROUPS_TOPIC}/{}, which coordinates the group, has no replica on \
                     this node; ask its leader",
                    home.partition
                ),
            )
        })?;
        partition.coordinates()?;
        Ok(partition)
    }

    /// Writes a command of a group, if there is room for it.
    async fn write(
        &self,
        partition: &Partition,
        group: &str,
        kind: group_command::Kind,
    ) -> Result<GroupReply, WireError> {
        let room = self.reserve(partition, group, &kind)?;
        self.write_reserved(partition, group, kind, room).await
    }

    /// Writes a command of a group, and notifies its sessions if that changed the assignment. The room for it
    /// is kept until the outcome is known.
    async fn write_reserved(
        &self,
        partition: &Partition,
        group: &str,
        kind: group_command::Kind,
        _room: Option<Reserved>,
    ) -> Result<GroupReply, WireError> {
        let command = GroupCommand {
            leader_time_ms: self.0.clock.now_ms(),
            group: group.to_owned(),
            kind: Some(kind),
            rules: group_rules(self.view().understood),
        };
        let reply = partition.propose_group(command).await?;
        if reply.changed {
            self.notify(group);
        }
        match reply.error {
            Some(error) => Err(error.into()),
            None => Ok(reply),
        }
    }

    /// Notifies the sessions of a group that it has changed.
    fn notify(&self, group: &str) {
        if let Some(changes) = self.0.changes.lock().get(group) {
            changes.send_modify(|count| *count += 1);
        }
    }

    /// Subscribes to changes of a group.
    fn watch(&self, group: &str) -> watch::Receiver<u64> {
        let mut changes = self.0.changes.lock();
        changes.retain(|_, sender| sender.receiver_count() > 0);
        changes
            .entry(group.to_owned())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coordinator")
    }
}

/// Checks a name of a group or member, by the same rules as topic names.
fn check_name(what: &str, name: &str) -> Result<(), WireError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(invalid(format!(
        "invalid {what} name {shown:?}: use 1-{MAX_NAME_BYTES} characters of a-z A-Z 0-9 . _ -"
    )))
}

/// Refuses a request with more partitions than a topic can have.
///
/// # Errors
/// `InvalidRequest`.
pub fn check_places(places: usize) -> Result<(), WireError> {
    match places > MAX_PLACES {
        true => Err(invalid(format!(
            "request names {places} partitions, and the maximum is {MAX_PLACES}; name each \
             partition once"
        ))),
        false => Ok(()),
    }
}

fn not_yet(what: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::NoLeader, what)
}
