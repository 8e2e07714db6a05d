//! Differences between an assignment and the partitions a member had. This module decides and has no effects.

use std::collections::BTreeMap;

use ropewalk_proto::v1;

/// A partition, by ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TopicPartitionId {
    pub topic_id: u64,
    pub partition: u32,
}

/// State of a member's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The member reads it, or is about to.
    Working,
    /// The member finishes the outstanding deliveries.
    GivingUp,
    /// The member has told the coordinator that it released the partition.
    Released,
}

/// Change to a partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// Start to read it.
    Gain(v1::Assigned),
    /// Finish the outstanding deliveries, and release it.
    Revoke(TopicPartitionId),
    /// Continue to read it after all.
    Keep(TopicPartitionId),
    /// Drop it: another member already has it.
    Lose(TopicPartitionId),
    /// Remove it: its release is complete.
    Forget(TopicPartitionId),
    /// Release it at once: this member never read it.
    Return(v1::Assigned),
}

/// Computes the changes from the partitions a member had (with epochs) to its new assignment. If a partition
/// comes back in another epoch, its loss comes before its gain.
pub(super) fn changes(
    had: &BTreeMap<TopicPartitionId, (u64, Standing)>,
    told: Vec<v1::Assigned>,
) -> Vec<Change> {
    let told: BTreeMap<TopicPartitionId, v1::Assigned> = told
        .into_iter()
        .map(|assigned| (place(&assigned), assigned))
        .collect();
    let mut changes = Vec::new();
    for (place, (epoch, standing)) in had {
        if told.get(place).is_none_or(|now| now.epoch != *epoch) {
            changes.push(match standing {
                Standing::Released => Change::Forget(*place),
                Standing::Working | Standing::GivingUp => Change::Lose(*place),
            });
        }
    }
    for (place, now) in told {
        let same = had.get(&place).filter(|(epoch, _)| *epoch == now.epoch);
        changes.push(match (same, now.revoked) {
            (None, false) => Change::Gain(now),
            (None, true) => Change::Return(now),
            (Some((_, Standing::Working)), true) => Change::Revoke(place),
            (Some((_, Standing::GivingUp)), false) => Change::Keep(place),
            // A release in progress is not cancelled: the coordinator assigns the freed partition again.
            (Some(_), _) => continue,
        });
    }
    changes
}

pub(super) fn place(assigned: &v1::Assigned) -> TopicPartitionId {
    TopicPartitionId {
        topic_id: assigned.topic_id,
        partition: assigned.partition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: u32) -> TopicPartitionId {
        TopicPartitionId {
            topic_id: 1,
            partition,
        }
    }

    fn told(partition: u32, epoch: u64, revoked: bool) -> v1::Assigned {
        v1::Assigned {
            topic: "t".into(),
            topic_id: 1,
            partition,
            epoch,
            revoked,
            committed: None,
        }
    }

    fn had(standing: Standing) -> BTreeMap<TopicPartitionId, (u64, Standing)> {
        BTreeMap::from([(at(0), (5, standing))])
    }

    #[test]
    fn what_stays_the_same_changes_nothing() {
        assert_eq!(
            changes(&had(Standing::Working), vec![told(0, 5, false)]),
            []
        );
        assert_eq!(
            changes(&had(Standing::GivingUp), vec![told(0, 5, true)]),
            []
        );
    }

    #[test]
    fn a_new_partition_is_gained_and_an_absent_one_lost() {
        let change = changes(&had(Standing::Working), vec![told(1, 6, false)]);
        assert_eq!(
            change,
            [Change::Lose(at(0)), Change::Gain(told(1, 6, false))]
        );
    }

    #[test]
    fn another_epoch_of_a_partition_is_a_loss_and_then_a_gain() {
        let change = changes(&had(Standing::GivingUp), vec![told(0, 6, false)]);
        assert_eq!(
            change,
            [Change::Lose(at(0)), Change::Gain(told(0, 6, false))]
        );
    }

    #[test]
    fn a_revocation_is_begun_once_and_may_be_called_back_until_the_release() {
        assert_eq!(
            changes(&had(Standing::Working), vec![told(0, 5, true)]),
            [Change::Revoke(at(0))]
        );
        assert_eq!(
            changes(&had(Standing::GivingUp), vec![told(0, 5, false)]),
            [Change::Keep(at(0))]
        );
        assert_eq!(
            changes(&had(Standing::Released), vec![told(0, 5, false)]),
            []
        );
        assert_eq!(
            changes(&had(Standing::Released), vec![]),
            [Change::Forget(at(0))]
        );
    }

    #[test]
    fn a_partition_revoked_before_it_was_known_is_returned_unread() {
        let change = changes(&BTreeMap::new(), vec![told(0, 5, true)]);
        assert_eq!(change, [Change::Return(told(0, 5, true))]);
    }
}
