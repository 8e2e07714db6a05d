//! Topics, settings, and moves of replicas.

use super::growth::grow;
use super::*;

#[test]
fn a_topic_is_spread_evenly_with_every_setting_filled_in() {
    let mut bench = Bench::cluster(3);
    let info = bench.create("flights", 12, 0).unwrap();
    assert_eq!(info.settings, Some(settings::defaults()));
    assert_eq!((info.ring_version, info.partitions.len()), (1, 12));
    for node in 1..=3 {
        let leads = |p: &&ropewalk_proto::v1::PartitionInfo| p.replica_node_ids[0] == node;
        assert_eq!(info.partitions.iter().filter(leads).count(), 4);
    }
    let view = bench.machine.to_view();
    let replicas = view.partitions().flat_map(|p| &p.replicas);
    let ids: std::collections::BTreeSet<_> = replicas.map(|place| place.replica).collect();
    assert_eq!(ids.len(), 36);
}

#[test]
fn a_topic_that_cannot_be_is_refused_for_what_is_wrong_with_it() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    assert_eq!(bench.create("t", 1, 3), Err(ErrorCode::TopicExists));
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str()] {
        let refused = bench.create(name, 1, 1);
        assert_eq!(refused, Err(ErrorCode::InvalidTopicName), "{name:?}");
    }
    for partitions in [0, 10_001, u32::MAX] {
        let refused = bench.create("u", partitions, 1);
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    }
    assert_eq!(bench.create("u", 1, 8), Err(ErrorCode::InvalidRequest));
    assert_eq!(bench.create("u", 1, 4), Err(ErrorCode::NotEnoughNodes));
    bench.create(&"x".repeat(249), 1, 1).unwrap();
    bench.create("...", 1, 1).unwrap();
}

#[test]
fn a_cluster_holds_only_so_many_replicas() {
    let mut bench = Bench::cluster(1);
    bench.create("t", 10_000, 1).unwrap();
    assert_eq!(bench.create("u", 1, 1), Err(ErrorCode::Overloaded));
}

#[test]
fn new_topics_avoid_nodes_that_drain_or_leave() {
    let mut bench = Bench::cluster(4);
    bench.run(set_state(1, NodeState::Draining)).unwrap();
    bench.run(set_state(2, NodeState::Decommissioning)).unwrap();
    let info = bench.create("t", 4, 2).unwrap();
    for partition in info.partitions {
        assert!(partition.replica_node_ids.iter().all(|node| *node >= 3));
    }
    assert_eq!(bench.create("u", 4, 3), Err(ErrorCode::NotEnoughNodes));
}

#[test]
fn settings_are_replaced_and_a_new_mapping_raises_the_ring_version() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let mut wanted = settings::defaults();
    wanted.retention_ms = 1_000;
    let Ok(Some(meta_reply::Kind::Topic(info))) = bench.run(alter("t", wanted)) else {
        panic!("the settings were not changed");
    };
    assert_eq!((info.settings, info.ring_version), (Some(wanted), 1));
    wanted.partitioner = Partitioner::Murmur2.into();
    let Ok(Some(meta_reply::Kind::Topic(info))) = bench.run(alter("t", wanted)) else {
        panic!("the settings were not changed");
    };
    assert_eq!(info.ring_version, 2);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let good = settings::defaults();
    assert_eq!(bench.run(alter("none", good)), Err(ErrorCode::UnknownTopic));
    let fewer = TopicSettings {
        replicas: 2,
        ..good
    };
    assert_eq!(bench.run(alter("t", fewer)), Err(ErrorCode::InvalidRequest));
    let tiny = TopicSettings {
        segment_bytes: 1,
        ..good
    };
    assert_eq!(bench.run(alter("t", tiny)), Err(ErrorCode::InvalidRequest));
}

#[test]
fn a_deleted_topic_is_gone_and_its_ids_are_not_used_again() {
    let mut bench = Bench::cluster(3);
    let old = bench.create("t", 2, 3).unwrap();
    let group = bench.partition("t", 1).group;
    assert_eq!(bench.run(delete("t")), Ok(None));
    assert_eq!(bench.run(delete("t")), Err(ErrorCode::UnknownTopic));
    assert_eq!(
        bench.run(moved(group, &[1, 2, 3])),
        Err(ErrorCode::UnknownPartition)
    );
    let new = bench.create("t", 2, 3).unwrap();
    assert!(new.topic_id > old.topic_id);
    assert!(bench.partition("t", 0).group > group);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut bench = Bench::cluster(1);
    let range = |first, count| {
        Ok(Some(meta_reply::Kind::ProducerIds(ProducerIds {
            first,
            count,
        })))
    };
    assert_eq!(bench.run(producers(100)), range(1, 100));
    assert_eq!(bench.run(producers(1)), range(101, 1));
    assert_eq!(bench.run(producers(0)), Err(ErrorCode::InvalidRequest));
    assert_eq!(
        bench.run(producers(u64::MAX)),
        Err(ErrorCode::InvalidRequest)
    );
}

#[test]
fn a_producers_epoch_is_given_out_once_whoever_asks() {
    let mut bench = Bench::cluster(1);
    bench.run(producers(10)).unwrap();
    let given = |producer_id, producer_epoch| {
        Ok(Some(meta_reply::Kind::RenewedProducer(RenewedProducer {
            producer_id,
            producer_epoch,
        })))
    };
    assert_eq!(bench.run(renew(4, 0)), given(4, 1));
    assert_eq!(bench.run(renew(4, 0)), given(4, 2));
    assert_eq!(bench.run(renew(5, 0)), given(5, 1));
    // A producer without an epoch left, and ids that were never allocated, become new producers.
    assert_eq!(bench.run(renew(4, i16::MAX as u32)), given(11, 0));
    assert_eq!(bench.run(renew(12, 0)), given(12, 0));
    assert_eq!(bench.run(renew(0, 3)), given(13, 0));
    assert_eq!(bench.run(producers(1)).unwrap(), {
        let ids = ProducerIds {
            first: 14,
            count: 1,
        };
        Some(meta_reply::Kind::ProducerIds(ids))
    });
}

#[test]
fn a_move_keeps_the_replicas_that_stay_and_retires_those_that_go() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 2).unwrap();
    let before = bench.partition("t", 0);
    let (stays, goes) = (before.replicas[1], before.replicas[0]);
    let other = (1..=4).find(|n| *n != stays.node.0 && *n != goes.node.0);
    let other = other.unwrap();
    let wish = [other, stays.node.0];
    assert_eq!(bench.run(moved(before.group, &wish)), Ok(None));
    let after = bench.partition("t", 0);
    assert_eq!(after.replicas[1], stays);
    assert_eq!(after.retiring, vec![goes]);
    assert!(after.replicas[0].replica > goes.replica);
    assert_eq!(after.founding, before.founding);

    // Back again, before the first move is complete: a new replica beside the old one.
    let back = [goes.node.0, stays.node.0];
    assert_eq!(bench.run(moved(before.group, &back)), Ok(None));
    let again = bench.partition("t", 0);
    assert!(again.replicas[0].replica > after.replicas[0].replica);
    assert_eq!(again.retiring, vec![goes, after.replicas[0]]);

    // The old replica has left the group. The one in between is still a member at first, and then is not.
    let wished = again.replicas.iter().map(|place| place.replica.0);
    let members = wished.clone().chain([after.replicas[0].replica.0]);
    assert_eq!(bench.run(settled(before.group, members)), Ok(None));
    assert_eq!(bench.partition("t", 0).retiring, vec![after.replicas[0]]);
    assert_eq!(bench.run(settled(before.group, wished)), Ok(None));
    assert!(bench.partition("t", 0).retiring.is_empty());
}

#[test]
fn a_membership_of_before_the_newest_wish_lets_go_of_nobody() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 2).unwrap();
    let before = bench.partition("t", 0);
    let holds = |node: &u64| before.replicas.iter().any(|place| place.node.0 == *node);
    let stays = before.replicas[1].node.0;
    for free in (1..=4).filter(|node| !holds(node)) {
        bench.run(moved(before.group, &[free, stays])).unwrap();
    }
    let retiring = bench.partition("t", 0).retiring;
    assert_eq!(retiring.len(), 2);

    // With the view of the first move, a leader may still add the replicas that it drew and the second move
    // let go.
    let members = before.replicas.iter().map(|place| place.replica.0);
    let mut fact = settled(before.group, members);
    assert_eq!(bench.run(fact.clone()), Ok(None));
    assert_eq!(bench.partition("t", 0).retiring, retiring);
    // As applied before this condition existed.
    if let Kind::SettleReplicas(fact) = &mut fact {
        fact.only_with_all_wished = false;
    }
    assert_eq!(bench.run(fact), Ok(None));
    assert_eq!(bench.partition("t", 0).retiring, [before.replicas[0]]);
}

#[test]
fn the_same_wish_again_draws_no_new_replica() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 3).unwrap();
    let before = bench.partition("t", 0);
    let same: Vec<u64> = before.replicas.iter().map(|place| place.node.0).collect();
    bench.run(moved(before.group, &same)).unwrap();
    assert_eq!(bench.partition("t", 0).replicas, before.replicas);
    // Another order changes the preferred leader and draws no new replica.
    let turned: Vec<u64> = same.iter().rev().copied().collect();
    bench.run(moved(before.group, &turned)).unwrap();
    let after = bench.partition("t", 0);
    assert!(after.retiring.is_empty());
    assert_eq!(after.replicas[0], before.replicas[2]);
}

#[test]
fn a_move_that_makes_no_sense_is_refused() {
    let mut bench = Bench::cluster(4);
    bench.create("t", 1, 2).unwrap();
    let partition = bench.partition("t", 0);
    let holders: Vec<u64> = partition.replicas.iter().map(|p| p.node.0).collect();
    let free: Vec<u64> = (1..=4).filter(|node| !holders.contains(node)).collect();
    let group = partition.group;
    for (nodes, code) in [
        (vec![], ErrorCode::InvalidRequest),
        (vec![holders[0]], ErrorCode::InvalidRequest),
        (vec![free[0], free[0]], ErrorCode::InvalidRequest),
        (vec![free[0], 77], ErrorCode::UnknownNode),
    ] {
        assert_eq!(bench.run(moved(group, &nodes)), Err(code), "{nodes:?}");
    }
    assert_eq!(
        bench.run(moved(GroupId(999), &[1, 2])),
        Err(ErrorCode::UnknownPartition)
    );
    assert_eq!(
        bench.run(settled(GroupId(999), [1])),
        Err(ErrorCode::UnknownPartition)
    );
    bench
        .run(set_state(free[0], NodeState::Decommissioning))
        .unwrap();
    let onto_leaving = [holders[0], free[0]];
    assert_eq!(
        bench.run(moved(group, &onto_leaving)),
        Err(ErrorCode::Unsafe)
    );
}

#[test]
fn moves_that_never_settle_are_held_up_in_the_end() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 1, 1).unwrap();
    let group = bench.partition("t", 0).group;
    let mut last = Ok(None);
    for round in 0..60 {
        last = bench.run(moved(group, &[round % 3 + 1]));
    }
    assert_eq!(last, Err(ErrorCode::Overloaded));
    assert!(bench.partition("t", 0).retiring.len() <= 17);
}

#[test]
fn a_topic_created_again_begins_above_every_ring_its_name_has_had() {
    let mut bench = Bench::cluster(3);
    let ring = |info: TopicInfo| info.ring_version;
    assert_eq!(bench.create("t", 2, 3).map(ring), Ok(1));
    // The partitions may already have barriers with the new ring version.
    bench.run(grow("t", 3)).unwrap();
    bench.run(delete("t")).unwrap();
    assert_eq!(bench.create("t", 2, 3).map(ring), Ok(3));
    bench.run(delete("t")).unwrap();
    assert_eq!(bench.create("t", 2, 3).map(ring), Ok(4));

    // The state of a restored replica, and of a restarted one, continues from there.
    let checkpoint = bench.machine.checkpoint();
    bench.machine.restore(checkpoint).unwrap();
    bench.run(delete("t")).unwrap();
    assert_eq!(bench.create("t", 2, 3).map(ring), Ok(5));
    let disk = bench.disk.clone().into_iter().collect();
    bench.machine.load(bench.index, disk).unwrap();
    bench.run(delete("t")).unwrap();
    assert_eq!(bench.create("t", 2, 3).map(ring), Ok(6));
}

#[test]
fn a_deletion_that_older_nodes_apply_too_changes_nothing_that_they_do_not_keep() {
    let mut bench = Bench::cluster(3);
    bench.create("t", 2, 3).unwrap();
    bench.run(grow("t", 3)).unwrap();
    let older = DeleteTopic {
        name: "t".into(),
        keep_ring_version: false,
    };
    bench.run(Kind::DeleteTopic(older)).unwrap();
    let info = bench.create("t", 2, 3).unwrap();
    assert_eq!(info.ring_version, 1);
}
