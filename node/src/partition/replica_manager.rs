//! The replicas of this node. It starts the replicas that the metadata places here, and stops those that it
//! no longer names. It destroys a replica on disk only when it is certain that the group has removed it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::RwLock;
use ropewalk_machines::meta::MetadataImage;
use ropewalk_proto::ids::{GroupId, ReplicaId};
use ropewalk_proto::v1::{TopicSettings, meta_command};
use ropewalk_raft_store::Store;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::compaction;
use super::node_context::NodeContext;
use super::quarantine::Quarantine;
use super::replica::{Partition, PartitionId};
use super::turns::Turns;
use crate::cluster::Cluster;
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::peer::{Peers, ReplicaRouter};
use crate::raft::leadership;
use crate::unpack::Unpackers;

/// Replicas that start, stop, or transfer leadership at a time.
const AT_ONCE: usize = 16;
/// Time after which a replica whose Raft has stopped is started again.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// Interval between checks of new replicas that wait for others.
const FOUNDING_TICK: Duration = Duration::from_millis(50);
/// Capacity of the queue of facts for the metadata group.
const FACTS_WAITING: usize = 64;
/// Key of the local value with the highest metadata index as of which replicas were created here.
const PLACED_AS_OF: &str = "placed-as-of";

/// Replicas of this node. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaManager {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<NodeContext>,
    running: RwLock<BTreeMap<(GroupId, ReplicaId), Arc<Partition>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions")
            .field("running", &self.inner.running.read().len())
            .finish()
    }
}

impl ReplicaManager {
    /// Starts the replicas that the metadata places on this node, now and from now on.
    pub fn start(
        config: &Config,
        store: &Store,
        peers: &Peers,
        inbound: &ReplicaRouter,
        cluster: &Cluster,
        metrics: &Arc<Metrics>,
    ) -> ReplicaManager {
        let (facts, to_tell) = mpsc::channel(FACTS_WAITING);
        let host = NodeContext {
            node_id: cluster.node_id(),
            clock: cluster.clock(),
            store: store.clone(),
            peers: peers.clone(),
            inbound: inbound.clone(),
            leaders: cluster.leaders().clone(),
            view: cluster.view(),
            limits: config.limits.clone(),
            produce_room: Arc::new(Semaphore::new(
                config
                    .limits
                    .produce_inflight_bytes
                    .min(Semaphore::MAX_PERMITS),
            )),
            unpackers: Arc::new(Unpackers::new(&config.limits)),
            facts,
            metrics: metrics.clone(),
            damage_found: Notify::new(),
            leaving: AtomicBool::new(false),
        };
        let partitions = ReplicaManager::on(Arc::new(host));
        partitions.inner.tasks.spawn(tell(
            to_tell,
            cluster.clone(),
            partitions.inner.stop.clone(),
        ));
        partitions
    }

    /// Starts on an existing host.
    pub(super) fn on(host: Arc<NodeContext>) -> ReplicaManager {
        let inner = Inner {
            host,
            running: RwLock::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let stop = inner.stop.clone();
        let partitions = ReplicaManager {
            inner: Arc::new(inner),
        };
        partitions
            .inner
            .tasks
            .spawn(ReplicaRegistrar::new(partitions.clone()).run());
        partitions
            .inner
            .tasks
            .spawn(compaction::run(partitions.clone(), stop));
        partitions
    }

    /// Returns the replica of a group on this node, if one runs here. While one is replaced by another there
    /// are two: then the one that leads, or else the newer.
    pub fn get(&self, group: GroupId) -> Option<Arc<Partition>> {
        let running = self.inner.running.read();
        let mut here = running.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        let newest = here.next_back()?.1;
        let leads = here
            .map(|(_, partition)| partition)
            .find(|partition| partition.is_leader());
        Some(leads.unwrap_or(newest).clone())
    }

    /// All replicas that run here.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.inner.running.read().values().cloned().collect()
    }

    /// Bytes of produce requests in flight.
    pub fn produce_inflight_bytes(&self) -> usize {
        let host = &self.inner.host;
        let free = host.produce_room.available_permits();
        host.limits.produce_inflight_bytes.saturating_sub(free)
    }

    /// Budget of this node for unpacking batches.
    pub(crate) fn unpackers(&self) -> &Unpackers {
        &self.inner.host.unpackers
    }

    /// Bounds of the node.
    pub(super) fn limits(&self) -> &Limits {
        &self.inner.host.limits
    }

    /// Keeps every replica of this node from starting an election or becoming the leader.
    pub fn stand_down(&self) {
        self.inner.host.leaving.store(true, Ordering::Relaxed);
        let all = self.all().into_iter();
        all.for_each(|one| leadership::stand_down(&one.replica.raft));
    }

    /// Transfers every leadership of this node, and accepts no new one. Leaderships that could not be
    /// transferred `within` that time are left to elections.
    pub async fn hand_over_all(&self, within: Duration) {
        self.stand_down();
        let handed = async {
            futures_util::stream::iter(self.all())
                .for_each_concurrent(AT_ONCE, |partition| async move { partition.leave().await })
                .await;
        };
        if tokio::time::timeout(within, handed).await.is_err() {
            tracing::warn!("leaderships were not all transferred within {within:?}");
        }
    }

    /// Stops every replica. Data on disk stays.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.host.produce_room.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let running = std::mem::take(&mut *self.inner.running.write());
        futures_util::stream::iter(running.into_values())
            .for_each_concurrent(AT_ONCE, |partition| async move { partition.stop().await })
            .await;
    }
}

impl Partition {
    /// Transfers leadership away, if this replica leads.
    async fn leave(&self) {
        if let Some(heir) = self.any_heir()
            && let Err(error) = self.hand_over(heir).await
        {
            tracing::info!(partition = %self.id, %error, "leadership transfer failed");
        }
    }
}

/// Task that reconciles the running replicas with the metadata.
struct ReplicaRegistrar {
    partitions: ReplicaManager,
    stopped_at: BTreeMap<ReplicaId, Instant>,
    quarantine: Quarantine,
    turns: Turns,
}

impl ReplicaRegistrar {
    fn new(partitions: ReplicaManager) -> ReplicaRegistrar {
        ReplicaRegistrar {
            partitions,
            stopped_at: BTreeMap::new(),
            quarantine: Quarantine::default(),
            turns: Turns::default(),
        }
    }

    async fn run(mut self) {
        let inner = self.partitions.inner.clone();
        let mut view = inner.host.view.clone();
        let mut ticks = tokio::time::interval(Duration::from_millis(
            inner.host.limits.reconcile_interval_ms.max(1),
        ));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = inner.stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
                () = inner.host.damage_found.notified() => {}
                _ = ticks.tick() => {}
                () = tokio::time::sleep(FOUNDING_TICK), if self.turns.are_left() => {}
            }
            let picture = view.borrow_and_update().clone();
            if !picture.cluster_id.is_empty() {
                self.reconcile(&picture).await;
            }
        }
    }

    async fn reconcile(&mut self, view: &MetadataImage) {
        let wanted = placed_here(view, &self.partitions.inner.host);
        self.stop_unwanted(&wanted).await;
        self.stop_damaged(view, &wanted).await;
        self.note_stopped();
        if let Err(error) = self.start_missing(view.applied, wanted.clone()).await {
            tracing::warn!(error, "replicas could not be started; retrying");
        }
        let host = self.partitions.inner.host.clone();
        host.metrics.damage_found.set(self.quarantine.taken());
        self.quarantine
            .settle(&host, view, |replica| wanted.contains_key(&replica))
            .await;
        host.metrics.quarantined.set(self.quarantine.len() as u64);
        if let Err(error) = self.destroy_unwanted(view.applied, &wanted).await {
            tracing::warn!(error, "unassigned replicas could not be removed; retrying");
        }
    }

    async fn stop_unwanted(&mut self, wanted: &BTreeMap<ReplicaId, Wanted>) {
        let now = Instant::now();
        let writable = self.partitions.inner.host.is_writable();
        let gone: Vec<Arc<Partition>> = self
            .partitions
            .all()
            .into_iter()
            .filter(|partition| {
                let replica = partition.id.replica;
                let rested = self
                    .stopped_at
                    .get(&replica)
                    .is_some_and(|at| now >= *at + RESTART_AFTER);
                !wanted.contains_key(&replica) || (!partition.is_running() && rested && writable)
            })
            .collect();
        for partition in gone {
            self.stop(&partition).await;
        }
    }

    /// Quarantines damaged replicas. The metadata may also name a damaged replica whose mark on disk was lost
    /// in a crash.
    async fn stop_damaged(&mut self, view: &MetadataImage, wanted: &BTreeMap<ReplicaId, Wanted>) {
        for partition in self.partitions.all() {
            let damage = partition.replica.view.damage().borrow().clone();
            let damage = damage.or_else(|| told_damaged(view, &partition.id));
            if let Some(why) = damage {
                self.stop(&partition).await;
                self.quarantine.take(partition.id.clone(), why);
            }
        }
        for (id, _) in wanted.values() {
            if let Some(why) = told_damaged(view, id)
                && !self.quarantine.holds(id.replica)
            {
                self.quarantine.take(id.clone(), why);
            }
        }
    }

    async fn stop(&mut self, partition: &Partition) {
        self.stopped_at.remove(&partition.id.replica);
        self.partitions
            .inner
            .running
            .write()
            .remove(&(partition.id.group, partition.id.replica));
        partition.stop().await;
    }

    /// Notes replicas whose Raft has ended by itself. They still serve reads, and are restarted when the disk
    /// accepts writes again.
    fn note_stopped(&mut self) {
        for partition in self
            .partitions
            .all()
            .iter()
            .filter(|partition| !partition.is_running())
        {
            self.stopped_at
                .entry(partition.id.replica)
                .or_insert_with(|| {
                    let why =
                        partition.with_metrics(|metrics| format!("{:?}", metrics.running_state));
                    tracing::error!(partition = %partition.id, why, "replica stopped");
                    Instant::now()
                });
        }
    }

    async fn start_missing(
        &mut self,
        as_of: u64,
        wanted: BTreeMap<ReplicaId, Wanted>,
    ) -> Result<(), String> {
        let inner = self.partitions.inner.clone();
        let missing: Vec<Wanted> = {
            let running = inner.running.read();
            let runs = |id: &PartitionId| running.contains_key(&(id.group, id.replica));
            let out = |id: &PartitionId| runs(id) || self.quarantine.holds(id.replica);
            wanted.into_values().filter(|(id, _)| !out(id)).collect()
        };
        let missing = self.in_turn(missing);
        if missing.is_empty() {
            return Ok(());
        }
        self.placed(as_of).await?;
        // A node with thousands of replicas must be able to stop before it has started all.
        let going_on = |_: &Wanted| std::future::ready(!inner.stop.is_cancelled());
        let missing = futures_util::stream::iter(missing).take_while(going_on);
        let starts = missing.map(|(id, settings)| {
            let host = inner.host.clone();
            async move { (id.clone(), Partition::start(host, id, settings).await) }
        });
        let mut starts = std::pin::pin!(starts.buffer_unordered(AT_ONCE));
        while let Some((id, started)) = starts.next().await {
            match started {
                Ok(partition) => {
                    inner
                        .running
                        .write()
                        .insert((id.group, id.replica), partition);
                }
                Err(error) => match error.damage() {
                    Some(why) => self.quarantine.take(id, why.to_owned()),
                    None => {
                        if let Some(left_out) = inner.host.metrics.valves.not_started.pass() {
                            tracing::error!(partition = %id, %error, left_out, "replica start failed; retrying");
                        }
                    }
                },
            }
        }
        Ok(())
    }

    /// Returns the replicas to start now.
    fn in_turn(&mut self, missing: Vec<Wanted>) -> Vec<Wanted> {
        let inner = &self.partitions.inner;
        let running = inner.running.read();
        let leaderless = running.values().filter(|one| {
            self.turns.waits_for(one.id.replica)
                && one.with_metrics(|metrics| metrics.current_leader.is_none())
        });
        let leaderless = leaderless.map(|one| one.id.replica).collect();
        let on_disk = inner.host.store.replicas();
        let on_disk = on_disk.into_iter().map(|(_, replica)| replica).collect();
        let at_once = inner.host.limits.founding_replicas;
        self.turns.take(missing, &on_disk, &leaderless, at_once)
    }

    /// Destroys unwanted replicas on disk. Metadata older than the creation of a replica does not name it,
    /// and after a power loss the metadata may lag a little. So absence alone proves nothing.
    async fn destroy_unwanted(
        &self,
        as_of: u64,
        wanted: &BTreeMap<ReplicaId, Wanted>,
    ) -> Result<(), String> {
        let store = &self.partitions.inner.host.store;
        let on_disk = store.replicas();
        let unwanted = on_disk
            .into_iter()
            .filter(|(group, replica)| *group != GroupId::META && !wanted.contains_key(replica));
        let unwanted: Vec<_> = unwanted.collect();
        if unwanted.is_empty() || self.placed_as_of().await? > as_of {
            return Ok(());
        }
        for (group, replica) in unwanted {
            tracing::info!(%group, %replica, "removing an unassigned replica");
            store
                .destroy_replica(replica)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn placed_as_of(&self) -> Result<u64, String> {
        let value = self
            .partitions
            .inner
            .host
            .store
            .get_local(PLACED_AS_OF)
            .await;
        let value: Option<Bytes> = value.map_err(|error| error.to_string())?;
        match value.as_deref().map(<[u8; 8]>::try_from) {
            None => Ok(0),
            Some(Ok(bytes)) => Ok(u64::from_be_bytes(bytes)),
            Some(Err(_)) => Err(format!("stored value {PLACED_AS_OF} is damaged")),
        }
    }

    async fn placed(&self, as_of: u64) -> Result<(), String> {
        if self.placed_as_of().await? >= as_of {
            return Ok(());
        }
        let value = Bytes::copy_from_slice(&as_of.to_be_bytes());
        let written = self
            .partitions
            .inner
            .host
            .store
            .put_local(PLACED_AS_OF, value)
            .await;
        written.map_err(|error| error.to_string())
    }
}

pub(super) type Wanted = (PartitionId, TopicSettings);

/// Returns a reason if the metadata already lists the replica as damaged.
fn told_damaged(view: &MetadataImage, id: &PartitionId) -> Option<String> {
    let wish = view.partition(&id.topic, id.partition)?;
    let told = wish.group == id.group && wish.damaged.contains(&id.replica);
    told.then(|| "replica is recorded as damaged in the metadata".to_owned())
}

/// Returns the replicas that the metadata places on this node.
fn placed_here(view: &MetadataImage, host: &NodeContext) -> BTreeMap<ReplicaId, Wanted> {
    let mut wanted = BTreeMap::new();
    for topic in view.topics.values() {
        for partition in &topic.partitions {
            let places = partition.replicas.iter().chain(&partition.retiring);
            for place in places.filter(|place| place.node == host.node_id) {
                let id = PartitionId {
                    topic: topic.name.clone(),
                    partition: partition.partition,
                    group: partition.group,
                    replica: place.replica,
                };
                wanted.insert(place.replica, (id, topic.settings));
            }
        }
    }
    wanted
}

/// Sends facts about replicas to the metadata group.
async fn tell(
    mut facts: mpsc::Receiver<meta_command::Kind>,
    cluster: Cluster,
    stop: CancellationToken,
) {
    while let Some(Some(fact)) = stop.run_until_cancelled(facts.recv()).await {
        if let Err(error) = cluster.propose(fact).await {
            tracing::debug!(%error, "replica report to the metadata group failed");
        }
    }
}
