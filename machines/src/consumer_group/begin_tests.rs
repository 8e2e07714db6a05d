//! Start offsets of groups in partitions older than the group, and in those added later.

use ropewalk_proto::v1::{GroupTopic, MemberJoins, MemberTopics, TopicsChanged};

use super::tests::{Bench, GROUP, TOPIC, growth, topic};
use super::*;

const OTHER: u64 = 8;

/// Start offsets of a member in its partitions, in order; `None` if the member chooses.
fn beginnings(bench: &Bench, member_id: &str) -> Vec<Option<u64>> {
    let owned = bench.owned(member_id).into_iter();
    owned.map(|one| one.committed).collect()
}

/// Joins a member that names topics or has a pattern; `topics` are those that exist.
fn join(bench: &mut Bench, told: GroupMember, topics: Vec<GroupTopic>) -> GroupReply {
    bench.apply(group_command::Kind::Joins(MemberJoins {
        member: Some(told),
        rebalance_ms: 1_000,
        topics,
        session: 0,
    }))
}

fn named(member_id: &str, topics: &[u64]) -> GroupMember {
    GroupMember {
        member_id: member_id.to_owned(),
        topics: topics.iter().map(|id| topic(*id, 0).name).collect(),
        ..GroupMember::default()
    }
}

/// Applies a change of the topics that members read.
fn find(bench: &mut Bench, member_id: &str, topics: Vec<GroupTopic>, gone: &[u64]) {
    let topic_ids = topics.iter().map(|topic| topic.topic_id).collect();
    bench.apply(group_command::Kind::Topics(TopicsChanged {
        topics,
        members: vec![MemberTopics {
            member_id: member_id.to_owned(),
            topic_ids,
        }],
        gone_topic_ids: gone.to_vec(),
    }));
}

#[test]
fn a_partition_that_its_topic_gains_begins_at_0_and_the_others_where_members_say() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 2);
    bench.grow(vec![growth(2, &[0, 0], 4)]);
    assert_eq!(beginnings(&bench, "a"), [None, None, Some(0), Some(0)]);
    let old = bench.owned("a")[0].clone();
    bench.commit("a", &old, 5);
    bench.grow(vec![growth(2, &[0, 0], 4), growth(3, &[5, 0, 0, 0], 5)]);
    let all = [Some(5), None, Some(0), Some(0), Some(0)];
    assert_eq!(beginnings(&bench, "a"), all);
}

#[test]
fn a_partition_gained_while_nobody_was_in_the_group_begins_at_0() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 2);
    bench.leave("a");
    bench.join_as("b", "", 4);
    assert_eq!(beginnings(&bench, "b"), [None, None, Some(0), Some(0)]);
}

#[test]
fn a_group_that_meets_a_topic_after_its_growth_begins_where_members_say() {
    let mut bench = Bench::default();
    let grown = GroupTopic {
        growths: vec![growth(2, &[0], 3)],
        ..topic(TOPIC, 3)
    };
    join(&mut bench, named("a", &[TOPIC]), vec![grown]);
    assert_eq!(beginnings(&bench, "a"), [None; 3]);
    // A later subscriber was not waiting for the topic either.
    let both = vec![topic(TOPIC, 3), topic(OTHER, 1)];
    join(&mut bench, named("a", &[TOPIC, OTHER]), both);
    assert_eq!(beginnings(&bench, "a"), [None; 4]);
}

#[test]
fn a_topic_that_its_members_waited_for_begins_at_0() {
    let mut bench = Bench::default();
    let told = named("a", &[TOPIC, OTHER]);
    join(&mut bench, told.clone(), vec![topic(TOPIC, 1)]);
    let group = bench.groups.get(GROUP).unwrap();
    let missing: Vec<&str> = group.missing(&group.members["a"]).collect();
    assert_eq!(missing, ["topic-8"]);
    let both = vec![topic(TOPIC, 1), topic(OTHER, 2)];
    let mut found = Bench::default();
    join(&mut found, told.clone(), vec![topic(TOPIC, 1)]);
    find(&mut found, "a", both.clone(), &[]);
    assert_eq!(beginnings(&found, "a"), [None, Some(0), Some(0)]);
    let group = found.groups.get(GROUP).unwrap();
    assert_eq!(group.missing(&group.members["a"]).count(), 0);
    // A rejoining member may be the first to name the topic.
    join(&mut bench, told, both);
    assert_eq!(beginnings(&bench, "a"), [None, Some(0), Some(0)]);
}

#[test]
fn a_topic_that_a_pattern_finds_later_begins_at_0() {
    let mut bench = Bench::default();
    let by_pattern = |member_id: &str| GroupMember {
        member_id: member_id.to_owned(),
        pattern: "topic-.*".to_owned(),
        ..GroupMember::default()
    };
    join(&mut bench, by_pattern("a"), vec![topic(TOPIC, 1)]);
    let both = vec![topic(TOPIC, 1), topic(OTHER, 1)];
    join(&mut bench, by_pattern("b"), both);
    let group = bench.groups.get(GROUP).unwrap();
    let positions: Vec<u64> = group.positions.keys().map(|place| place.topic_id).collect();
    assert_eq!(positions, [OTHER]);
}

#[test]
fn a_topic_made_again_under_its_name_begins_at_0_and_the_positions_of_the_old_one_go() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 1);
    let old = bench.owned("a")[0].clone();
    bench.commit("a", &old, 100);
    find(&mut bench, "a", vec![topic(OTHER, 2)], &[TOPIC]);
    assert_eq!(beginnings(&bench, "a"), [Some(0), Some(0)]);
    let group = bench.groups.get(GROUP).unwrap();
    assert_eq!(group.begun, [(OTHER, 2)].into());
    assert!(group.positions.keys().all(|place| place.topic_id == OTHER));
}

#[test]
fn before_rules_1_nothing_is_decided_and_what_was_read_then_is_not_begun_again() {
    let mut bench = Bench {
        rules: Some(0),
        ..Bench::default()
    };
    bench.join_as("a", "", 2);
    bench.grow(vec![growth(2, &[0, 0], 3)]);
    assert_eq!(beginnings(&bench, "a"), [None; 3]);
    let first = bench.owned("a")[0].clone();
    bench.commit("a", &first, 0);
    bench.leave("a");
    bench.rules = None;
    // The topic grew once more meanwhile: the last commit shows how many partitions it had.
    let grown = GroupTopic {
        growths: vec![growth(2, &[0, 0], 3), growth(3, &[0, 0, 0], 4)],
        ..topic(TOPIC, 4)
    };
    join(&mut bench, named("b", &[TOPIC]), vec![grown]);
    assert_eq!(
        beginnings(&bench, "b"),
        [Some(0), None, Some(0), Some(0)],
        "those that came after the highest with a position"
    );
}

#[test]
fn an_operator_that_creates_a_group_begins_it_too() {
    let mut bench = Bench::default();
    let created = PositionsCommitted {
        positions: vec![GroupPosition {
            topic_id: TOPIC,
            offset: 7,
            ..GroupPosition::default()
        }],
        topic: Some(topic(TOPIC, 2)),
        create: true,
        ..PositionsCommitted::default()
    };
    bench.apply(group_command::Kind::Committed(created));
    bench.join_as("a", "", 3);
    assert_eq!(beginnings(&bench, "a"), [Some(7), None, Some(0)]);
}

#[test]
fn a_command_of_newer_rules_is_not_carried_out() {
    let mut groups = Groups::default();
    let command = GroupCommand {
        leader_time_ms: 1,
        group: GROUP.to_owned(),
        kind: Some(group_command::Kind::Joins(MemberJoins::default())),
        rules: GROUP_RULES + 1,
    };
    assert_eq!(groups.apply(&command, &mut Vec::new()), None);
    assert_eq!(groups, Groups::default());
}
