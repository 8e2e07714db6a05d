//! The old partitions of a topic that grows: the leader of each writes a fence into its log, and reports its
//! offset.

use std::time::Duration;

use ropewalk_machines::meta::view::{MetadataImage, TopicImage};
use ropewalk_proto::command::{Command, GROUPS_SINCE_VERSION};
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{PartitionFenced, meta_command};
use tokio::time::Instant;

use super::Partition;
use super::quarantine::due;

/// Interval of the reports of a fence that is not in the metadata yet. An earlier report may have been lost.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Version of a topic's first ring, which has no fence: no older ring exists.
const FIRST_RING: u32 = 1;

impl Partition {
    /// Writes or reports the fence that the topic's ring requires from the leader of this partition. Returns
    /// true while the growth is in progress. `told` is the time of the last report.
    pub(super) async fn fence(&self, view: &MetadataImage, told: &mut Option<Instant>) -> bool {
        let Some(topic) = view.topics.get(&self.id.topic) else {
            return false;
        };
        let growing = topic
            .growing()
            .filter(|growth| self.id.partition < growth.from_partitions);
        let wanted = growing.map_or(topic.ring_version, |growth| growth.ring_version);
        let (ring_version, offset) = self.replica.view.machine().fence();
        if ring_version < wanted {
            // A topic starts with its first ring, which needs no fence.
            if wanted > FIRST_RING && (growing.is_none() || self.is_awaited(topic)) {
                self.housekeeping(Command::Fence {
                    leader_time_ms: self.host.clock.now_ms(),
                    ring_version: wanted,
                })
                .await;
            }
            return growing.is_some();
        }
        let Some(growth) = growing else {
            return false;
        };
        let mut fences = growth.fences.iter();
        let is_known = fences.any(|fence| fence.partition == self.id.partition);
        if !is_known && due(told, TELL_AGAIN) {
            let fact = PartitionFenced {
                group_id: self.id.group.0,
                ring_version,
                offset,
            };
            // If the queue is full, the report is repeated.
            let _ = self
                .host
                .facts
                .try_send(meta_command::Kind::PartitionFenced(fact));
        }
        true
    }

    /// Returns the ring version to write into a batch's entry: 0 while the cluster has a node that would stop
    /// at it. Without such a node a topic may grow, and then batches of an older ring must be refused.
    ///
    /// # Errors
    /// `NoLeader` while the log may hold a fence that is not applied here.
    pub(super) fn written_ring(&self, ring_version: u32, epoch: u64) -> Result<u32, WireError> {
        let understood = self.host.view.borrow().understood;
        if ring_version == 0 || understood >= GROUPS_SINCE_VERSION {
            return Ok(ring_version);
        }
        if self.applied_epoch() != Some(epoch) {
            return Err(self.error(
                ErrorCode::NoLeader,
                "its leader was elected just now; try again shortly",
            ));
        }
        // A fence proves that all nodes understand it, even if this view lags.
        let fenced = self.replica.view.machine().fence().0 > FIRST_RING;
        Ok(if fenced { ring_version } else { 0 })
    }

    /// Returns true if all partitions of the topic have leaders. Keys wait from the first fence until the
    /// last one is known.
    fn is_awaited(&self, topic: &TopicImage) -> bool {
        let mut partitions = topic.partitions.iter();
        partitions.all(|partition| self.host.leaders.get(partition.group).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::super::cluster_tests::anonymous;
    use ropewalk_proto::ids::GroupId;
    use ropewalk_proto::v1::TopicGrowth;

    use super::super::test_cluster::{TOPIC, TestCluster, eventually, settings};
    use super::*;

    async fn produce(partition: &Arc<Partition>, batch: Bytes) -> Result<(), WireError> {
        loop {
            let written = async { partition.propose(1, batch.clone()).await?.await };
            match written.await {
                Err(error) if error.code == ErrorCode::NoLeader => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                outcome => return outcome.map(drop),
            }
        }
    }

    async fn rings(partition: &Partition) -> Vec<u32> {
        let applied = partition.replica.view.machine().applied();
        let entries = partition
            .replica
            .view
            .entries(1..applied + 1, 1 << 20)
            .await;
        let ring = |payload| match payload {
            EntryPayload::Normal(Command::Append { stamp, .. }) => Some(stamp.ring_version),
            _ => None,
        };
        let entries = entries.unwrap().into_iter();
        entries.filter_map(|entry| ring(entry.payload)).collect()
    }

    #[tokio::test]
    async fn a_ring_is_not_in_the_log_while_a_node_would_stop_at_it_unless_a_fence_is() {
        let cluster = TestCluster::start(1, settings()).await;
        let leader = cluster.leader().await;
        let older = |older| {
            cluster.view.send_modify(|view| {
                let view = Arc::make_mut(view);
                view.understood = GROUPS_SINCE_VERSION - u32::from(older);
            });
        };
        older(true);
        produce(&leader, anonymous(&[b"a"])).await.unwrap();
        older(false);
        produce(&leader, anonymous(&[b"b"])).await.unwrap();
        assert_eq!(rings(&leader).await, [0, 1]);
        // A view from before the fence.
        older(true);
        let fence = Command::Fence {
            leader_time_ms: 0,
            ring_version: 2,
        };
        leader.housekeeping(fence).await;
        let refused = produce(&leader, anonymous(&[b"c"])).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::StaleRing);
        cluster.stop().await;
    }

    #[tokio::test]
    async fn a_fence_waits_until_every_new_partition_is_led() {
        let cluster = TestCluster::start(1, settings()).await;
        let leader = cluster.leader().await;
        let new = GroupId(99);
        cluster.change(|view| {
            let topic = view.topics.get_mut(TOPIC).unwrap();
            let mut partition = topic.partitions[0].clone();
            (partition.partition, partition.group) = (1, new);
            // No node here holds a replica of it.
            partition.replicas.clear();
            partition.founding.clear();
            topic.partitions.push(partition);
            topic.growths.push(TopicGrowth {
                ring_version: 2,
                from_partitions: 1,
                to_partitions: 2,
                fences: Vec::new(),
            });
        });
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(leader.replica.view.machine().fence().0, 0);
        }
        let info = leader.host.leaders.get(leader.id.group).unwrap();
        leader.host.leaders.lead(new, info);
        eventually("a fence", || leader.replica.view.machine().fence().0 == 2).await;
        cluster.stop().await;
    }
}
