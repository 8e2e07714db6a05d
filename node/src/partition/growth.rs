//! The old partitions of a topic that grows: each gets a fence in its log, and says where it stands.

use std::time::Duration;

use ropewalk_proto::command::Command;
use ropewalk_proto::v1::{PartitionFenced, meta_command};
use tokio::time::Instant;

use super::Partition;
use super::quarantine::due;
use crate::cluster::view::{ClusterView, TopicView};

/// A fence that is not in the metadata after this long is told again: what told it may have been lost.
const TELL_AGAIN: Duration = Duration::from_secs(1);

impl Partition {
    /// Does what the topic's ring asks of the leader of this partition; says whether that is under way.
    /// `told` is when its fence was told last.
    pub(super) async fn fence(&self, view: &ClusterView, told: &mut Option<Instant>) -> bool {
        let Some(topic) = view.topics.get(&self.id.topic) else {
            return false;
        };
        let growing = topic
            .growing()
            .filter(|growth| self.id.partition < growth.from_partitions);
        let wanted = growing.map_or(topic.ring_version, |growth| growth.ring_version);
        let (ring_version, offset) = self.view.machine().fence();
        if ring_version < wanted {
            // A topic begins with its first ring, which is behind nothing.
            if wanted > 1 && (growing.is_none() || self.is_awaited(topic)) {
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
            // What finds no room is told again.
            let _ = self
                .host
                .facts
                .try_send(meta_command::Kind::PartitionFenced(fact));
        }
        true
    }

    /// Whether all partitions of the topic are led: until the last fence is known, keys wait.
    fn is_awaited(&self, topic: &TopicView) -> bool {
        let mut partitions = topic.partitions.iter();
        partitions.all(|partition| self.host.leaders.get(partition.group).is_some())
    }
}
