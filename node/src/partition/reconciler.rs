//! Task that maintains one replica: founds its group, reports its leadership, writes fences, changes the
//! membership to the desired one, balances leadership, and runs retention.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use ropewalk_machines::Machine;
use ropewalk_machines::meta::view::{MetadataImage, PartitionImage, ReplicaPlacement};
use ropewalk_proto::command::SETTLE_SINCE_VERSION;
use ropewalk_proto::ids::NodeId;
use ropewalk_proto::v1::{NodeState, SettleReplicas, meta_command};
use ropewalk_raft_store::TypeConfig;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Partition;
use super::founding::{Founding, brokers};
use super::membership::{Next, next_step};
use super::preferred_leader::PreferredLeader;
use super::quarantine::{SAY_AGAIN, due, lost_majority};
use crate::cluster::LeaderInfo;
use crate::raft::ReplicationStatus;
use crate::raft::leadership::has_quorum;

/// Interval of the checks while the topic grows. It is short, because behind its fence a log refuses batches
/// of the old ring, and the new ring applies only once all fences of the topic are known.
const GROWING_TICK: Duration = Duration::from_millis(50);

/// Maintains a partition until it stops, or is found damaged: then it leaves its group at once.
pub(super) async fn run(partition: Arc<Partition>, stop: CancellationToken) {
    // In parallel: a slow step must not delay the report of a new leader.
    let work = async {
        tokio::join!(
            report(&partition),
            Reconciler::new(partition.clone()).work()
        );
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
        _ = partition.replica.damaged() => partition.withdraw().await,
    }
    partition.leads.send_replace(None);
    partition.host.leaders.release(partition.id.group);
}

/// Compares the desired state of the replica with the actual one, and takes the next step.
struct Reconciler {
    partition: Arc<Partition>,
    founding: Founding,
    balance: PreferredLeader,
    retained: Instant,
    /// True while the topic grows, and waits for the fence of this partition among others.
    growing: bool,
    /// Time of the last report of a fence.
    fence_told: Option<Instant>,
    /// Time of the last log line about a lost majority.
    said_lost: Option<Instant>,
}

impl Reconciler {
    fn new(partition: Arc<Partition>) -> Reconciler {
        Reconciler {
            partition,
            founding: Founding::new(),
            balance: PreferredLeader::default(),
            retained: Instant::now(),
            growing: false,
            fence_told: None,
            said_lost: None,
        }
    }

    /// Works until Raft has stopped for good.
    async fn work(mut self) {
        let limits = &self.partition.host.limits;
        let mut ticks =
            tokio::time::interval(Duration::from_millis(limits.reconcile_interval_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.partition.is_running() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = tokio::time::sleep(GROWING_TICK), if self.growing => {}
            }
            self.look().await;
        }
    }

    /// Does one round of checks.
    async fn look(&mut self) {
        let view = self.partition.host.view.borrow().clone();
        let Some(wish) = wish(&view, &self.partition) else {
            return;
        };
        self.partition.take_settings(&view);
        self.founding.look(&self.partition, wish).await;
        self.partition.purge().await;
        self.growing = false;
        if self.partition.is_leader() {
            self.retain().await;
            self.growing = self.partition.fence(&view, &mut self.fence_told).await;
            self.lead(wish, &view).await;
        } else {
            self.balance.reset();
            self.say_if_lost(wish, &view);
        }
    }

    /// Logs, at intervals, that the partition has lost its majority for good.
    fn say_if_lost(&mut self, wish: &PartitionImage, view: &MetadataImage) {
        let partition = &self.partition;
        if partition.host.leaders.get(wish.group).is_none()
            && let Some(nodes) = wish.lost_majority(view)
            && due(&mut self.said_lost, SAY_AGAIN)
        {
            tracing::error!("{}", lost_majority(&partition.id, &nodes).message);
        }
    }

    /// Takes the next step of the leader: towards the desired membership, or towards the preferred leader.
    async fn lead(&mut self, wish: &PartitionImage, view: &MetadataImage) {
        let group = self.partition.group();
        // With older metadata, the leader would add back a replica that was removed since, and is being
        // deleted.
        if !view.knows(group.members.keys()) {
            return;
        }
        let wished = wish.replicas.iter().map(|place| place.replica);
        let newcomers = wished.filter(|replica| !group.voters.contains(replica));
        self.partition.newcomers.set(newcomers.collect());
        let next = next_step(&brokers(&wish.replicas, view), &group);
        if matches!(next, Next::Settled | Next::Wait) {
            self.settle(wish, view).await;
        }
        if next != Next::Settled {
            return self.partition.take(next, &group).await;
        }
        let host = &self.partition.host;
        let unfit = host.leaving.load(Ordering::Relaxed) || !host.is_writable();
        // While all disks are full, leadership stays: no transfer would help.
        let fit = |node| match node == host.node_id {
            true => !unfit,
            false => host.leaders.takes_writes(node),
        };
        let may_lead = |node| may_lead(view, node) && fit(node);
        if let Some(heir) = self.balance.heir(&wish.replicas, &group, may_lead) {
            self.balance.reset();
            self.partition.take(Next::HandOver(heir), &group).await;
        }
    }

    /// Reports the membership once a retiring replica has left it and all desired ones are in it. The report
    /// does not wait for these to catch up. Retiring replicas are limited in number, and a replica that is
    /// found damaged gets a successor only below the limit.
    async fn settle(&self, wish: &PartitionImage, view: &MetadataImage) {
        let left = |group: &ReplicationStatus| {
            let is_in = |place: &ReplicaPlacement| group.members.contains_key(&place.replica);
            group.quiet && wish.replicas.iter().all(is_in) && !wish.retiring.iter().all(is_in)
        };
        // Another replica may lead meanwhile, and may have added one of them back.
        if !left(&self.partition.group()) || self.partition.catch_up().await.is_err() {
            return;
        }
        let group = self.partition.group();
        if !left(&group) {
            return;
        }
        let fact = SettleReplicas {
            group_id: wish.group.0,
            replica_ids: group.members.keys().map(|replica| replica.0).collect(),
            only_with_all_wished: view.understood >= SETTLE_SINCE_VERSION,
        };
        // If the queue is full, the next check repeats the report.
        let fact = meta_command::Kind::SettleReplicas(fact);
        let _ = self.partition.host.facts.try_send(fact);
    }

    /// Retention does not wait for membership changes, because the disk fills meanwhile.
    async fn retain(&mut self) {
        let interval = Duration::from_millis(self.partition.host.limits.retention_interval_ms);
        if self.retained.elapsed() >= interval {
            self.retained = Instant::now();
            self.partition.retain().await;
        }
    }
}

/// Reports leadership of this replica to the node, and through it to the cluster: at once when it changes,
/// since clients wait for it. Every tick also reports the progress.
async fn report(partition: &Partition) {
    let period = Duration::from_millis(partition.host.limits.reconcile_interval_ms.max(1));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut role = partition.replica.raft.server_metrics();
    let lately = Duration::from_millis(partition.host.limits.node_dead_after_ms);
    let mut told = false;
    while partition.is_running() {
        let (state, vote) = {
            let role = role.borrow_watched();
            (role.state, role.vote)
        };
        // openraft publishes the role first, and the metrics used here a moment later. And a new leader
        // accepts no writes before a majority has answered it once.
        let ready = |metrics: &RaftMetrics<TypeConfig>| {
            let same = metrics.state == state && metrics.vote == vote;
            same && (!state.is_leader() || has_quorum(metrics, lately))
        };
        let wait = partition.replica.raft.wait(None);
        tokio::select! {
            changed = role.changed() => {
                if changed.is_err() {
                    // The Raft core is gone: after a panic its last metrics remain.
                    partition.ended.store(true, Ordering::Relaxed);
                    return;
                }
                told = false;
                continue;
            }
            _ = wait.metrics(ready, "the role is known"), if !told => {}
            _ = ticks.tick() => {
                partition.look_at_pace();
                partition.tell_leadership();
                continue;
            }
        }
        partition.tell_leadership();
        told = true;
    }
}

/// Returns true if a node may lead partitions.
pub(super) fn may_lead(view: &MetadataImage, node: NodeId) -> bool {
    view.nodes
        .get(&node)
        .is_some_and(|node| node.state == NodeState::Active)
}

/// Returns the desired state of a partition in the metadata.
fn wish<'a>(view: &'a MetadataImage, partition: &Partition) -> Option<&'a PartitionImage> {
    let wish = view.partition(&partition.id.topic, partition.id.partition)?;
    (wish.group == partition.id.group).then_some(wish)
}

impl Partition {
    /// Adopts the topic's current settings.
    pub(super) fn take_settings(&self, view: &MetadataImage) {
        if let Some(topic) = view.topics.get(&self.id.topic) {
            let mut settings = self.settings.write();
            if *settings != topic.settings {
                *settings = topic.settings;
            }
        }
    }

    /// Samples the end of the log; must be called at even intervals.
    fn look_at_pace(&self) {
        let (term, last) = self
            .with_metrics(|metrics| (metrics.current_term, metrics.last_log_index.unwrap_or(0)));
        self.pace.lock().look(term, last);
    }

    /// Returns the group as this replica sees it; complete only on the leader.
    pub(super) fn group(&self) -> ReplicationStatus {
        let dead_after = Duration::from_millis(self.host.limits.node_dead_after_ms);
        let caught_up = self.pace.lock().caught_up(dead_after);
        self.with_metrics(|metrics| ReplicationStatus::see(metrics, caught_up))
    }

    /// Publishes the role of this replica: to its readers, to the metrics and to the node's leader table. The
    /// table names this replica as the leader only while a majority answers it.
    fn tell_leadership(&self) {
        let epoch = self.leading_epoch().ok();
        let mut before = epoch;
        self.leads.send_if_modified(|leads| {
            before = std::mem::replace(leads, epoch);
            before != epoch
        });
        if before != epoch {
            let metrics = &self.host.metrics;
            metrics.leaderships_lost.add(before.is_some().into());
            metrics.leaderships_won.add(epoch.is_some().into());
        }
        let lately = Duration::from_millis(self.host.limits.node_dead_after_ms);
        let followed = self.with_metrics(|metrics| has_quorum(metrics, lately));
        let Some(epoch) = epoch.filter(|_| followed) else {
            return self.host.leaders.release(self.id.group);
        };
        let in_sync = self.group().in_sync_nodes();
        let (log_start_offset, high_watermark) = {
            let machine = self.replica.view.machine();
            (machine.log_start(), machine.next_offset())
        };
        let node = self.host.node_id;
        let info = LeaderInfo {
            node,
            epoch,
            in_sync,
            log_start_offset,
            high_watermark,
            log_bytes: self.replica.view.log_bytes(),
        };
        self.host.leaders.lead(self.id.group, info);
    }

    /// Purges the log up to the newest checkpoint at or below the last segment boundary below the log start.
    async fn purge(&self) {
        // Memory is checked first, because every replica does this at every tick.
        let (purgeable, seen) = {
            let machine = self.replica.view.machine();
            (machine.purgeable_index(), machine.applied())
        };
        if self.replica.view.purged_index().unwrap_or(0) >= purgeable
            || self.purge_done.load(Ordering::Relaxed) == purgeable
        {
            return;
        }
        let limit = Duration::from_millis(self.host.limits.peer_rpc_timeout_ms);
        let is_written = *self.replica.view.applied().borrow() >= seen;
        let before = self.replica.view.log_bytes();
        let purged = self.replica.purge(limit).await;
        if purged.is_ok() && is_written {
            // No further checkpoint at or below it will be written.
            self.purge_done.store(purgeable, Ordering::Relaxed);
        }
        match purged {
            Ok(None) => {}
            Ok(Some(index)) => {
                // Concurrent appends make this a little less than the bytes purged.
                let gone = before.saturating_sub(self.replica.view.log_bytes());
                self.host.metrics.retention_bytes.add(gone);
                tracing::debug!(partition = %self.id, index, "log purged");
            }
            Err(error) => {
                if let Some(left_out) = self.host.metrics.valves.not_purged.pass() {
                    tracing::warn!(
                        partition = %self.id,
                        %error,
                        left_out,
                        "log could not be purged; retrying"
                    );
                }
            }
        }
    }
}
