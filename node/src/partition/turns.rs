//! The order in which new replicas are opened: few at a time. So a topic of thousands of partitions does not
//! take processors from replicas that serve.
//!
//! Every node follows the order of replica ids. So the replicas of one partition open at about the same time,
//! and their group soon has a leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ropewalk_proto::ids::ReplicaId;
use tokio::time::Instant;

use super::replica_manager::Wanted;

/// Time that a new replica may take to learn of a leader before others no longer wait for it.
const FOUNDED_WITHIN: Duration = Duration::from_secs(3);

/// New replicas that are opening, and a flag for others that wait for them.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Opened replicas that know no leader yet, and when they were opened.
    under_way: BTreeMap<ReplicaId, Instant>,
    left: bool,
}

impl Turns {
    /// True if others wait for this replica.
    pub fn waits_for(&self, replica: ReplicaId) -> bool {
        self.under_way.contains_key(&replica)
    }

    /// True if new replicas wait for others.
    pub fn are_left(&self) -> bool {
        self.left
    }

    /// Returns the missing replicas to open now: all that were on disk before, and new ones. At most
    /// `at_once` of the new ones are without a leader at a time.
    pub fn take(
        &mut self,
        missing: Vec<Wanted>,
        on_disk: &BTreeSet<ReplicaId>,
        leaderless: &BTreeSet<ReplicaId>,
        at_once: usize,
    ) -> Vec<Wanted> {
        self.under_way.retain(|replica, opened| {
            leaderless.contains(replica) && opened.elapsed() < FOUNDED_WITHIN
        });
        let (mut turn, mut new): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|(id, _)| on_disk.contains(&id.replica));
        let room = at_once.max(1).saturating_sub(self.under_way.len());
        self.left = new.len() > room;
        new.truncate(room);
        let now = Instant::now();
        let opened = new.iter().map(|(id, _)| (id.replica, now));
        self.under_way.extend(opened);
        turn.append(&mut new);
        turn
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::GroupId;
    use ropewalk_proto::v1::TopicSettings;

    use super::*;
    use crate::partition::replica::PartitionId;

    fn wanted(replicas: std::ops::Range<u64>) -> Vec<Wanted> {
        let id = |replica| PartitionId {
            topic: "t".into(),
            partition: 0,
            group: GroupId(replica),
            replica: ReplicaId(replica),
        };
        replicas
            .map(|replica| (id(replica), TopicSettings::default()))
            .collect()
    }

    fn set(replicas: impl IntoIterator<Item = u64>) -> BTreeSet<ReplicaId> {
        replicas.into_iter().map(ReplicaId).collect()
    }

    fn taken(turn: Vec<Wanted>) -> Vec<u64> {
        turn.into_iter().map(|(id, _)| id.replica.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn new_replicas_are_opened_a_few_at_a_time_as_those_before_them_find_leaders() {
        let mut turns = Turns::default();
        let first = turns.take(wanted(0..100), &set([]), &set([]), 4);
        assert_eq!((taken(first), turns.are_left()), (vec![0, 1, 2, 3], true));
        // Two of them have a leader.
        let next = turns.take(wanted(4..100), &set(0..4), &set([1, 3]), 4);
        assert_eq!(taken(next), [4, 5]);
        assert!(turns.waits_for(ReplicaId(3)) && !turns.waits_for(ReplicaId(0)));
        let none = turns.take(wanted(6..100), &set(0..6), &set([1, 3, 4, 5]), 4);
        assert!(none.is_empty());
        // No replica waits forever for a group whose other nodes are away.
        tokio::time::advance(FOUNDED_WITHIN).await;
        let next = turns.take(wanted(6..100), &set(0..6), &set([1, 3, 4, 5]), 4);
        assert_eq!(taken(next), [6, 7, 8, 9]);
        let last = turns.take(wanted(98..100), &set(0..98), &set([]), 4);
        assert_eq!((taken(last), turns.are_left()), (vec![98, 99], false));
    }

    #[tokio::test]
    async fn what_was_on_the_disk_before_waits_for_nobody() {
        let mut turns = Turns::default();
        let turn = turns.take(wanted(0..10), &set(2..8), &set([]), 1);
        assert_eq!(taken(turn), [2, 3, 4, 5, 6, 7, 0]);
        assert!(turns.are_left());
    }
}
