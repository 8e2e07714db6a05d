//! The table of entities: their keys, and the facts that proposers need about commands.

use std::collections::BTreeSet;

use ropewalk_proto::command::{
    COMPACTION_SINCE_VERSION, EXTERNAL_SINCE_VERSION, GROUPS_SINCE_VERSION, IDENTITY_SINCE_VERSION,
    PRODUCERS_SINCE_VERSION, RAISE_SINCE_VERSION, RINGS_SINCE_VERSION, SETTINGS_SINCE_VERSION,
    SETTLE_SINCE_VERSION, TIMESTAMPS_SINCE_VERSION,
};
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1::{Cleanup, GrowTopic, PartitionFenced};

use super::*;
use crate::meta::image::CHECKPOINTED;
use crate::meta::machine::{State, is_repeatable, since_version};

#[test]
fn no_two_entities_have_keys_with_the_same_prefix() {
    let state = State::default();
    let entities = state.entities().into_iter();
    let mut all: Vec<u8> = entities.flat_map(|one| one.prefixes().to_vec()).collect();
    all.push(CHECKPOINTED);
    let distinct: BTreeSet<u8> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(distinct, BTreeSet::from(*b"cknptu"));
}

#[test]
fn only_a_deletion_is_not_repeated_after_an_unknown_outcome() {
    assert!(!is_repeatable(&delete("t")));
    for kind in [
        found("c1", 1),
        register(1, "a:1"),
        set_state(1, NodeState::Draining),
        create("t", 1, 1),
        alter("t", settings::defaults()),
        producers(1),
        renew(1, 0),
        moved(GroupId(1), &[1]),
        settled(GroupId(1), [1]),
        damaged(GroupId(1), 1),
        raise::raise("t", 3, &[1]),
        growth::grow("t", 2),
        Kind::PartitionFenced(PartitionFenced::default()),
    ] {
        assert!(is_repeatable(&kind), "{kind:?}");
    }
}

#[test]
fn a_command_that_older_nodes_would_stop_at_has_a_later_version() {
    let compacted = Some(TopicSettings {
        cleanup: Cleanup::Compact.into(),
        ..TopicSettings::default()
    });
    let create = |settings| {
        Kind::CreateTopic(CreateTopic {
            name: "t".to_owned(),
            settings,
            ..CreateTopic::default()
        })
    };
    let alter = Kind::AlterTopic(AlterTopic {
        settings: compacted,
        ..AlterTopic::default()
    });
    assert_eq!(since_version(&create(None)), 1);
    assert_eq!(since_version(&create(compacted)), COMPACTION_SINCE_VERSION);
    assert_eq!(since_version(&alter), COMPACTION_SINCE_VERSION);
    let bounded = Some(TopicSettings {
        max_timestamp_ahead_ms: 1,
        ..TopicSettings::default()
    });
    assert_eq!(since_version(&create(bounded)), TIMESTAMPS_SINCE_VERSION);
    let single = Kind::AlterTopic(AlterTopic {
        changed: vec![2],
        ..AlterTopic::default()
    });
    assert_eq!(since_version(&single), SETTINGS_SINCE_VERSION);
    let bounded = Kind::CreateTopic(CreateTopic {
        max_replicas_per_node: 100,
        ..CreateTopic::default()
    });
    assert_eq!(since_version(&bounded), SETTINGS_SINCE_VERSION);
    let grow = Kind::GrowTopic(GrowTopic::default());
    let fenced = Kind::PartitionFenced(PartitionFenced::default());
    assert_eq!((since_version(&grow), since_version(&fenced)), (3, 3));
    let settle = |only_with_all_wished| {
        Kind::SettleReplicas(SettleReplicas {
            only_with_all_wished,
            ..SettleReplicas::default()
        })
    };
    assert_eq!(since_version(&settle(false)), 1);
    assert_eq!(since_version(&settle(true)), SETTLE_SINCE_VERSION);
    let delete = |keep_ring_version| {
        Kind::DeleteTopic(DeleteTopic {
            keep_ring_version,
            ..DeleteTopic::default()
        })
    };
    assert_eq!(since_version(&delete(false)), 1);
    assert_eq!(since_version(&delete(true)), RINGS_SINCE_VERSION);
}

#[test]
fn a_registration_has_the_version_of_its_newest_field() {
    let Kind::RegisterNode(first) = register(1, "a:1") else {
        unreachable!()
    };
    let version = |node: &RegisterNode| since_version(&Kind::RegisterNode(node.clone()));
    assert_eq!(version(&first), 1);
    let outside = RegisterNode {
        external: Some(String::new()),
        ..first
    };
    assert_eq!(version(&outside), EXTERNAL_SINCE_VERSION);
    let started = RegisterNode {
        start: Some(NodeStart::default()),
        ..outside.clone()
    };
    assert_eq!(version(&started), IDENTITY_SINCE_VERSION);
    let replaces = RegisterNode {
        in_place_of: Some(0),
        ..outside
    };
    assert_eq!(version(&replaces), IDENTITY_SINCE_VERSION);
}

#[test]
fn a_command_of_a_later_version_has_it_whatever_its_fields() {
    assert_eq!(since_version(&found("c1", 1)), 1);
    assert_eq!(since_version(&producers(1)), 1);
    assert_eq!(since_version(&set_state(1, NodeState::Removed)), 1);
    assert_eq!(since_version(&moved(GroupId(1), &[1])), 1);
    assert_eq!(since_version(&damaged(GroupId(1), 1)), 2);
    assert_eq!(
        since_version(&raise::raise("t", 3, &[])),
        RAISE_SINCE_VERSION
    );
    assert_eq!(since_version(&renew(1, 0)), PRODUCERS_SINCE_VERSION);
    let groups = create(GROUPS_TOPIC, 1, 1);
    assert_eq!(since_version(&groups), GROUPS_SINCE_VERSION);
}
