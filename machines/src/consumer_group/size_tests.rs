//! Sizes of groups: the measured bytes, and the predicted growth of each command.

use bytes::Bytes;
use ropewalk_proto::v1::{GroupTopic, MemberJoins, MemberTopics, TopicsChanged};

use super::tests::{Bench, GROUP, TOPIC, growth, topic};
use super::*;

const MEMBERS: [&str; 3] = ["a", "bb", "a-much-longer-member-id"];

fn joins(member_id: &str, topics: Vec<GroupTopic>) -> group_command::Kind {
    let names = topics.iter().map(|topic| topic.name.clone());
    group_command::Kind::Joins(MemberJoins {
        member: Some(GroupMember {
            member_id: member_id.to_owned(),
            topics: names.collect(),
            ..GroupMember::default()
        }),
        rebalance_ms: 1_000,
        topics,
        session: 0,
    })
}

/// Commits in the first partitions that a member owns.
fn commits(
    bench: &Bench,
    member_id: &str,
    count: usize,
    offset: u64,
    note: &str,
) -> group_command::Kind {
    let owned = bench.owned(member_id).into_iter().take(count);
    let positions = owned.map(|one| GroupPosition {
        topic_id: one.topic_id,
        partition: one.partition,
        epoch: one.epoch,
        offset,
        note: note.to_owned(),
    });
    group_command::Kind::Committed(PositionsCommitted {
        member_id: member_id.to_owned(),
        positions: positions.collect(),
        ..PositionsCommitted::default()
    })
}

/// Applies a command; returns its predicted growth and the actual one.
fn apply(bench: &mut Bench, kind: group_command::Kind) -> (u64, u64) {
    let before = bench.groups.bytes();
    let said = bench.groups.growth(GROUP, &kind);
    bench.apply(kind);
    (said, bench.groups.bytes().saturating_sub(before))
}

fn stored_bytes(groups: &Groups) -> u64 {
    let mut stored = Vec::new();
    groups.store(&mut stored);
    let value = |effect: &StateWrite| effect.value.as_ref().map_or(0, Bytes::len);
    let bytes = |effect: &StateWrite| effect.key.len() + value(effect);
    stored.iter().map(bytes).sum::<usize>() as u64
}

#[test]
fn a_commit_that_only_moves_positions_adds_nothing_however_far_they_move() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 4);
    let first = commits(&bench, "a", 4, 0, "note");
    assert!(bench.groups.growth(GROUP, &first) > 0);
    bench.apply(first);
    let before = bench.groups.bytes();
    for (offset, note) in [(1, "note"), (u64::MAX / 2, "etom"), (7, "")] {
        let moved = commits(&bench, "a", 4, offset, note);
        assert_eq!(bench.groups.growth(GROUP, &moved), 0);
        bench.apply(moved);
        assert!(bench.groups.bytes() <= before);
    }
    let longer = commits(&bench, "a", 4, 7, "note");
    assert_eq!(bench.groups.growth(GROUP, &longer), 4 * 4);
}

#[test]
fn what_is_deleted_takes_no_bytes_any_more() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 4);
    let noted = commits(&bench, "a", 4, 9, &"n".repeat(1_000));
    bench.apply(noted);
    assert!(bench.groups.bytes() > 4_000);
    bench.leave("a");
    bench.apply(group_command::Kind::Deleted(GroupDeleted::default()));
    assert_eq!(bench.groups.bytes(), 0);
}

#[test]
fn what_comes_without_partitions_adds_what_was_said() {
    let mut bench = Bench::default();
    let (said, added) = apply(&mut bench, joins("a", vec![topic(TOPIC, 0)]));
    assert_eq!(said, added, "a new group");
    let (said, added) = apply(&mut bench, joins("bb", vec![topic(TOPIC, 0), topic(9, 0)]));
    assert_eq!(said, added, "a new member, and a new topic");
    let topics: Vec<GroupTopic> = (TOPIC..60).map(|id| topic(id, 0)).collect();
    let read = MemberTopics {
        member_id: "a".to_owned(),
        topic_ids: topics.iter().map(|topic| topic.topic_id).collect(),
    };
    let changed = TopicsChanged {
        topics,
        members: vec![read],
        gone_topic_ids: Vec::new(),
    };
    let (said, added) = apply(&mut bench, group_command::Kind::Topics(changed));
    assert!(added > 0);
    assert_eq!(said, added, "topics that a member finds");
}

#[test]
fn a_loss_of_topics_adds_nothing() {
    let mut bench = Bench::default();
    bench.apply(joins("a", vec![topic(TOPIC, 4), topic(9, 3)]));
    let known = bench.groups.get(GROUP).expect("a group").topics.get(&TOPIC);
    let lost = TopicsChanged {
        topics: vec![known.expect("a topic").told(TOPIC)],
        members: vec![MemberTopics {
            member_id: "a".to_owned(),
            topic_ids: vec![TOPIC],
        }],
        gone_topic_ids: vec![9],
    };
    let before = bench.groups.bytes();
    let (said, _) = apply(&mut bench, group_command::Kind::Topics(lost));
    assert_eq!(said, 0);
    assert!(bench.groups.bytes() < before);
}

#[test]
fn long_names_of_groups_and_members_count_with_each_part_that_has_them() {
    let name = "g".repeat(249);
    for member_id in ["a", &"m".repeat(249)] {
        let mut bench = Bench::default();
        bench.apply_to(&name, joins(member_id, vec![topic(TOPIC, 20)]));
        let (stored, bytes) = (stored_bytes(&bench.groups), bench.groups.bytes());
        assert!(
            stored <= bytes && bytes < 2 * stored,
            "{bytes} for {stored}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn a_group_takes_what_is_stored_at_least_and_grows_by_what_was_said_at_most(
        steps in proptest::collection::vec((0..6_u8, 0..3_usize, 1..6_u32), 1..40),
        rules in 0..=GROUP_RULES,
    ) {
        let mut bench = Bench { rules: Some(rules), ..Bench::default() };
        for (step, who, count) in steps {
            let who = MEMBERS[who];
            let (said, added) = match step {
                0 => apply(&mut bench, joins(who, vec![topic(TOPIC, count)])),
                1 => apply(&mut bench, joins(who, vec![topic(TOPIC, count), topic(9, 3)])),
                2 => {
                    bench.leave(who);
                    (0, 0)
                }
                3 => {
                    bench.grow(vec![growth(2, &[0, 0], 2 + count)]);
                    (0, 0)
                }
                _ => {
                    let note = "n".repeat(count as usize * 10);
                    let kind = commits(&bench, who, count as usize, u64::from(count) << 40, &note);
                    apply(&mut bench, kind)
                }
            };
            proptest::prop_assert!(added <= said, "{added} bytes came, {said} were said");
            proptest::prop_assert!(stored_bytes(&bench.groups) <= bench.groups.bytes());
            let sizes = bench.groups.iter().map(|(_, group)| group.size.bytes());
            proptest::prop_assert_eq!(sizes.sum::<u64>(), bench.groups.bytes());
        }
    }
}
