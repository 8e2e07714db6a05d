//! The old partitions of a topic that grows: each gets a fence in its log, and says where it stands.

use ropewalk_proto::command::Command;
use ropewalk_proto::v1::{PartitionFenced, meta_command};

use super::Partition;
use crate::cluster::view::{ClusterView, TopicView};

impl Partition {
    /// Does what the topic's ring asks of the leader of this partition; says whether that is under way.
    pub(super) async fn fence(&self, view: &ClusterView) -> bool {
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
        if !fences.any(|fence| fence.partition == self.id.partition) {
            let fact = PartitionFenced {
                group_id: self.id.group.0,
                ring_version,
                offset,
            };
            // What finds no room is told again at the next look.
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
