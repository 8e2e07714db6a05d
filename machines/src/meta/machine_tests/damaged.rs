//! Damaged replicas and their replacements.

use super::*;

/// A topic of one partition with this many replicas.
fn with_replicas(replicas: u32) -> (Bench, PartitionImage) {
    let mut bench = Bench::cluster(5);
    bench.create("t", 1, replicas).unwrap();
    let partition = bench.partition("t", 0);
    (bench, partition)
}

impl Bench {
    fn damage(&mut self, replica: u64) -> PartitionImage {
        let group = self.partition("t", 0).group;
        assert_eq!(self.run(damaged(group, replica)), Ok(None));
        self.partition("t", 0)
    }

    fn settle(&mut self) -> PartitionImage {
        let now = self.partition("t", 0);
        let members = now.replicas.iter().map(|place| place.replica.0);
        assert_eq!(self.run(settled(now.group, members)), Ok(None));
        self.partition("t", 0)
    }

    fn is_lost(&self) -> bool {
        let view = self.machine.to_view();
        self.partition("t", 0).lost_majority(&view).is_some()
    }
}

#[test]
fn a_damaged_replica_gets_a_successor_on_its_node_and_stays_until_the_group_is_without_it() {
    let (mut bench, before) = with_replicas(3);
    let bad = before.replicas[1];
    let after = bench.damage(bad.replica.0);
    assert_eq!(after.replicas[1].node, bad.node);
    assert!(after.replicas[1].replica > before.replicas[2].replica);
    assert_eq!(after.retiring, [bad]);
    assert_eq!(after.damaged, [bad.replica]);
    assert_eq!(after.founding, before.founding);
    assert!(!bench.is_lost());

    let again = bench.damage(bad.replica.0);
    assert_eq!(again.replicas, after.replicas, "told twice is told once");
    let settled = bench.settle();
    assert_eq!(settled.replicas, after.replicas);
    assert!(settled.retiring.is_empty() && settled.damaged.is_empty());
    let late = bench.damage(bad.replica.0);
    assert!(
        late.damaged.is_empty(),
        "a replica that is gone is nobody's"
    );
}

#[test]
fn where_a_majority_may_be_damaged_nothing_is_wished_until_the_first_is_replaced() {
    let (mut bench, before) = with_replicas(3);
    let [first, second] = [before.replicas[0], before.replicas[1]];
    let one = bench.damage(first.replica.0);
    let two = bench.damage(second.replica.0);
    assert_eq!(two.replicas, one.replicas);
    assert_eq!(two.retiring, [first]);
    assert_eq!(two.damaged, [first.replica, second.replica]);
    assert!(bench.is_lost());
    // The group could continue after all: the first successor had its vote already.
    let settled = bench.settle();
    assert_eq!(settled.retiring, [second]);
    assert_eq!(settled.damaged, [second.replica]);
    assert_eq!(settled.replicas[1].node, second.node);
    assert_ne!(settled.replicas[1], second);
    assert!(!bench.is_lost());
}

#[test]
fn a_partition_of_one_or_two_replicas_is_not_repaired_from_nothing() {
    for replicas in [1, 2] {
        let (mut bench, before) = with_replicas(replicas);
        let after = bench.damage(before.replicas[0].replica.0);
        assert_eq!(after.replicas, before.replicas);
        assert!(after.retiring.is_empty());
        assert!(bench.is_lost());
    }
}

#[test]
fn a_successor_damaged_too_is_succeeded_in_turn_up_to_a_bound() {
    let (mut bench, before) = with_replicas(3);
    let mut now = before;
    for _ in 0..40 {
        now = bench.damage(now.replicas[0].replica.0);
    }
    assert_eq!(now.retiring.len(), 16);
    assert!(now.damaged.contains(&now.replicas[0].replica));
    let settled = bench.settle();
    let fresh = settled.replicas[0].replica;
    assert!(!settled.damaged.contains(&fresh), "{settled:?}");
}

#[test]
fn unknown_replicas_and_groups_change_nothing() {
    let (mut bench, before) = with_replicas(3);
    let after = bench.damage(before.replicas[2].replica.0 + 100);
    assert!(after.damaged.is_empty());
    assert_eq!(
        bench.run(damaged(GroupId(999), 1)),
        Err(ErrorCode::UnknownPartition)
    );
}
