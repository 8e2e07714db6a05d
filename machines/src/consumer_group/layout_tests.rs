//! Groups in parts: their keys, the switch from groups that were written whole, and damage.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use ropewalk_proto::v1::{
    GroupMemberState, GroupShare, GroupState, GroupTopic, MemberJoins, MemberTopics, MembersLeave,
    TopicsChanged,
};

use super::keys::Key;
use super::tests::{Bench, GROUP, TOPIC, code, growth, loaded, topic};
use super::*;
use crate::machine::MachineError;

const OTHER: u64 = 9;
/// Bytes that a small change of a group may write, however large the group is.
const SMALL_BYTES: usize = 1_024;

type Disk = BTreeMap<Bytes, Bytes>;

fn joins(member: GroupMember, topics: Vec<GroupTopic>, session: u64) -> group_command::Kind {
    group_command::Kind::Joins(MemberJoins {
        member: Some(member),
        rebalance_ms: 1_000,
        topics,
        session,
    })
}

fn named(member_id: &str) -> GroupMember {
    GroupMember {
        member_id: member_id.to_owned(),
        ..GroupMember::default()
    }
}

fn leaves(member_id: &str) -> group_command::Kind {
    group_command::Kind::Leave(MembersLeave {
        member_ids: vec![member_id.to_owned()],
    })
}

fn deleted() -> group_command::Kind {
    group_command::Kind::Deleted(GroupDeleted::default())
}

fn seek(topic_id: u64, partition: u32, offset: u64) -> group_command::Kind {
    group_command::Kind::Committed(PositionsCommitted {
        positions: vec![GroupPosition {
            topic_id,
            partition,
            offset,
            ..GroupPosition::default()
        }],
        topic: Some(topic(topic_id, partition + 1)),
        create: true,
        ..PositionsCommitted::default()
    })
}

fn changed(
    topics: Vec<GroupTopic>,
    readers: &[(&str, &[u64])],
    gone: &[u64],
) -> group_command::Kind {
    let members = readers.iter().map(|(id, topic_ids)| MemberTopics {
        member_id: (*id).to_owned(),
        topic_ids: topic_ids.to_vec(),
    });
    group_command::Kind::Topics(TopicsChanged {
        topics,
        members: members.collect(),
        gone_topic_ids: gone.to_vec(),
    })
}

fn written_bytes(effects: &[StateWrite]) -> usize {
    let value = |effect: &StateWrite| effect.value.as_ref().map_or(0, Bytes::len);
    let bytes = effects
        .iter()
        .map(|effect| effect.key.len() + value(effect));
    bytes.sum()
}

/// A group as rules 1 stored it: each of its members owns one partition.
fn whole(members: u32) -> Disk {
    let id = |number: u32| format!("member-{number:04}");
    let stored = |number| GroupMemberState {
        member: Some(named(&id(number))),
        rebalance_ms: 1_000,
        topic_ids: vec![TOPIC],
        session: 1,
    };
    let share = |partition| GroupShare {
        topic_id: TOPIC,
        partition,
        owner: id(partition),
        epoch: 1,
        target: id(partition),
    };
    let state = GroupState {
        generation: u64::from(members),
        members: (0..members).map(stored).collect(),
        topics: vec![topic(TOPIC, members)],
        shares: (0..members).map(share).collect(),
        used_ms: 1,
        begun: Vec::new(),
    };
    Disk::from([(Key::Whole(GROUP).encode(), state.encode_to_vec().into())])
}

/// The same, with a member that has come back once since, under the newest rules.
fn gone_over(members: u32) -> Bench {
    let mut bench = Bench {
        disk: whole(members),
        now_ms: 2,
        ..Bench::default()
    };
    bench.groups = loaded(&bench.disk).expect("a group of rules 1");
    comes_back(&mut bench, 2);
    bench
}

fn comes_back(bench: &mut Bench, session: u64) {
    let partitions = bench.groups.get(GROUP).unwrap().topics[&TOPIC].partitions;
    let back = joins(
        named("member-0000"),
        vec![topic(TOPIC, partitions)],
        session,
    );
    bench.session = session;
    assert!(bench.apply(back).changed);
}

#[test]
fn a_small_change_of_a_large_group_writes_little() {
    let mut bench = gone_over(1_000);
    let all = written_bytes(&bench.effects);
    assert!(all > 64 * SMALL_BYTES, "{all} bytes, once");
    let small = |bench: &Bench, keys: usize| {
        assert_eq!(bench.effects.len(), keys);
        assert!(written_bytes(&bench.effects) <= SMALL_BYTES);
    };
    comes_back(&mut bench, 3);
    small(&bench, 1);
    let owned = bench.owned("member-0000");
    assert_eq!(code(&bench.commit("member-0000", &owned[0], 7)), None);
    small(&bench, 1);
    assert!(
        bench.release("member-0000", &owned).changed,
        "and gets it again"
    );
    small(&bench, 1);
    let joins = |id: &str| joins(named(id), vec![topic(TOPIC, 1_000)], 3);
    bench.apply(joins("member-1000"));
    small(&bench, 2);
    bench.apply(joins("member-1000"));
    small(&bench, 0);
    bench.apply(leaves("member-0007"));
    small(&bench, 3);
    assert_eq!(bench.owned("member-1000").len(), 1);
}

#[test]
fn a_group_that_was_written_whole_is_in_parts_from_its_next_change_on() {
    let mut bench = Bench {
        disk: whole(3),
        now_ms: 2,
        session: 1,
        rules: Some(1),
        ..Bench::default()
    };
    bench.groups = loaded(&bench.disk).expect("a group of rules 1");
    let whole_key = Key::Whole(GROUP).encode();
    let owned = bench.owned("member-0001");
    bench.apply(leaves("member-0002"));
    assert!(
        bench.disk.contains_key(&whole_key),
        "by rules 1 it stays whole"
    );
    bench.rules = None;
    assert_eq!(code(&bench.commit("member-0001", &owned[0], 9)), None);
    assert!(
        bench.disk.contains_key(&whole_key),
        "an offset is apart from it"
    );
    bench.apply(leaves("member-0001"));
    assert!(!bench.disk.contains_key(&whole_key));
    // A coordinator that has not heard of all upgrades yet proposes by the rules before.
    for rules in [1, 0] {
        bench.rules = Some(rules);
        bench.join_as("late", "", 3);
        bench.leave("late");
        assert!(!bench.disk.contains_key(&whole_key), "it never goes back");
    }
}

#[test]
fn nothing_stays_of_a_deleted_group_and_one_of_its_name_begins_anew() {
    for rules in [1, GROUP_RULES] {
        let mut bench = Bench {
            rules: Some(rules),
            ..Bench::default()
        };
        let fresh = {
            bench.join_as("a", "", 3);
            bench.disk.clone()
        };
        bench.apply_to("billing2", seek(TOPIC, 0, 5));
        let other: Disk = bench.disk.clone();
        let other = other
            .into_iter()
            .filter(|(key, _)| !fresh.contains_key(key));
        let other: Disk = other.collect();
        for owned in bench.owned("a") {
            bench.commit("a", &owned, 100);
        }
        bench.join_as("b", "", 5);
        bench.leave("a");
        bench.leave("b");
        assert!(bench.apply(deleted()).changed);
        assert_eq!(bench.disk, other, "only the other group is left");
        bench.now_ms = 0;
        bench.join_as("a", "", 3);
        let again = bench
            .disk
            .iter()
            .filter(|(key, _)| !other.contains_key(*key));
        let again: Disk = again
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(again, fresh);
    }
}

/// Returns true if a key and its value parse in an older build, which knows groups as a whole only.
fn read_by_an_older_build(key: &Bytes, value: &Bytes) -> bool {
    let name = std::str::from_utf8(&key[1..]);
    key[0] != b'g' || name.is_ok() && GroupState::decode(value.clone()).is_ok()
}

#[test]
fn an_older_build_reads_on_until_it_gets_to_the_version_of_the_layout() {
    let mut bench = gone_over(3);
    bench.grow(vec![growth(2, &[0, 0, 0], 5)]);
    let kinds = bench.disk.keys().map(|key| key[0]);
    assert_eq!(
        kinds.filter(|kind| *kind == b'g').count(),
        1 + 3 + 1 + 1 + 5
    );
    for (key, value) in &bench.disk {
        assert!(read_by_an_older_build(key, value), "{key:?}");
    }
}

/// Reason for which the groups of a disk are refused.
fn refusal(disk: &Disk) -> String {
    match loaded(disk) {
        Err(MachineError::Damaged(why)) => why,
        other => panic!("it was taken: {other:?}"),
    }
}

fn put_state(disk: &mut Disk, key: Key<'_>, state: GroupState) {
    disk.insert(key.encode(), state.encode_to_vec().into());
}

#[test]
fn parts_that_do_not_fit_together_are_damage() {
    let disk = gone_over(3).disk;
    let place = TopicPartitionId {
        topic_id: TOPIC,
        partition: 1,
    };
    let without = |key: Key<'_>| {
        let mut less = disk.clone();
        assert!(less.remove(&key.encode()).is_some());
        refusal(&less)
    };
    assert!(without(Key::Header(GROUP)).contains("no header"));
    assert!(without(Key::Member(GROUP, "member-0001")).contains("no member"));
    assert!(without(Key::PartitionAssignment(GROUP, place)).contains("2 of its 3 partitions"));
    assert!(without(Key::Topic(GROUP, TOPIC)).contains("does not read"));

    let both: Disk = disk.clone().into_iter().chain(whole(3)).collect();
    assert!(refusal(&both).contains("whole and in parts"));
    let mut parts = disk.clone();
    parts.remove(&Key::Header(GROUP).encode());
    let both: Disk = parts.into_iter().chain(whole(3)).collect();
    assert!(refusal(&both).contains("whole and in parts"));

    let with = |key: Key<'_>, state: GroupState| {
        let mut more = disk.clone();
        put_state(&mut more, key, state);
        refusal(&more)
    };
    let share = TopicPartitionId {
        partition: 3,
        ..place
    };
    let one = GroupState {
        shares: vec![GroupShare::default()],
        ..GroupState::default()
    };
    assert!(with(Key::PartitionAssignment(GROUP, share), one.clone()).contains("does not read"));
    assert!(with(Key::PartitionAssignment("nobody", place), one.clone()).contains("no header"));
    assert!(with(Key::Member(GROUP, "a"), one.clone()).contains("not one value"));
    assert!(with(Key::Header(GROUP), one.clone()).contains("not one value"));
    let two = GroupState {
        shares: vec![GroupShare::default(); 2],
        ..GroupState::default()
    };
    assert!(with(Key::PartitionAssignment(GROUP, place), two).contains("not one value"));
    let more = GroupState {
        generation: 1,
        ..one
    };
    assert!(with(Key::PartitionAssignment(GROUP, place), more).contains("not one value"));
}

#[test]
fn an_offset_without_its_group_is_damage() {
    let mut bench = Bench::default();
    bench.apply(seek(TOPIC, 0, 5));
    bench.disk.retain(|key, _| key[0] == b'o');
    assert_eq!(bench.disk.len(), 1);
    assert!(refusal(&bench.disk).contains("no header"));
}

#[test]
fn a_key_of_no_part_is_damage() {
    for key in [
        "g",
        "gbilling\0",
        "gbilling\0x",
        "gbilling\0hh",
        "gbilling\0t12",
        "o",
    ] {
        let disk = Disk::from([(Bytes::from(key), Bytes::new())]);
        match key {
            "g" => drop(loaded(&disk).expect("a group without a name")),
            _ => assert!(refusal(&disk).contains("unknown consumer group key")),
        }
    }
}

fn place() -> impl Strategy<Value = TopicPartitionId> {
    (any::<u64>(), any::<u32>()).prop_map(|(topic_id, partition)| TopicPartitionId {
        topic_id,
        partition,
    })
}

proptest! {
    #[test]
    fn keys_survive_their_encoding(name in "[a-z.]{1,9}", id in ".{0,9}", place in place()) {
        for key in [
            Key::Whole(&name),
            Key::Header(&name),
            Key::Member(&name, &id),
            Key::Topic(&name, place.topic_id),
            Key::Begun(&name, place.topic_id),
            Key::PartitionAssignment(&name, place),
            Key::Position(&name, place),
        ] {
            let encoded = key.encode();
            prop_assert!(is_key(&encoded));
            prop_assert_eq!(Key::decode(&encoded).unwrap(), key);
            prop_assert_eq!(key.group(), &name);
        }
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_and_never_panic(first in "g|o", rest: Vec<u8>) {
        let bytes = [first.as_bytes(), &rest].concat();
        if let Ok(key) = Key::decode(&bytes) {
            prop_assert_eq!(&key.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_damaged_disk_is_refused_or_read_and_never_panics(
        at in any::<prop::sample::Index>(),
        value in prop::option::of(any::<Vec<u8>>()),
    ) {
        let mut bench = gone_over(3);
        let owned = bench.owned("member-0000");
        bench.commit("member-0000", &owned[0], 3);
        let key = bench.disk.keys().nth(at.index(bench.disk.len())).cloned().unwrap();
        match value {
            Some(value) => drop(bench.disk.insert(key, value.into())),
            None => drop(bench.disk.remove(&key)),
        }
        match loaded(&bench.disk) {
            Ok(_) | Err(MachineError::Damaged(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// [`Bench`] compares after each command: what was written, what a checkpoint holds, and what is in memory.
    #[test]
    fn what_is_written_is_the_group_before_and_after_it_goes_over(
        steps in prop::collection::vec((0..9_u8, 0..2_usize, 0..4_usize, 0..4_u32, 0..6_u32), 1..60),
        switch in 0..60_usize,
    ) {
        let mut bench = Bench::default();
        for (at, (step, group, who, count, rules)) in steps.into_iter().enumerate() {
            let newest = if at < switch { 1 } else { GROUP_RULES };
            bench.rules = Some(rules.min(newest));
            bench.now_ms = at as i64;
            let group = [GROUP, "billing2"][group];
            let who = ["a", "b", "c", "c2"][who];
            for kind in kinds(&bench, (step, group, who, count)) {
                bench.apply_to(group, kind);
            }
            for (name, group) in bench.groups.iter() {
                let parts = bench.disk.contains_key(&Key::Header(name).encode());
                let expected = if parts { Layout::Parts } else { Layout::Whole };
                prop_assert_eq!(group.layout, Some(expected));
            }
        }
    }
}

/// Commands of one step.
fn kinds(
    bench: &Bench,
    (step, group, who, count): (u8, &str, &str, u32),
) -> Vec<group_command::Kind> {
    let member = GroupMember {
        instance_id: if who < "c" { "" } else { "till" }.to_owned(),
        ..named(who)
    };
    let known = bench.groups.get(group);
    let owned = known.map_or_else(Vec::new, |group| group.assigned(who));
    match step {
        0 => vec![joins(member, vec![topic(TOPIC, count)], 0)],
        1 => vec![joins(
            member,
            vec![topic(TOPIC, count + 1), topic(OTHER, 2)],
            count.into(),
        )],
        2 => vec![leaves(who)],
        3 => {
            let released = owned.iter().filter(|one| one.revoked || count == 0);
            let partitions = released.map(|one| ropewalk_proto::v1::GroupPlace {
                topic_id: one.topic_id,
                partition: one.partition,
                epoch: one.epoch,
            });
            vec![group_command::Kind::Released(
                ropewalk_proto::v1::PartitionsReleased {
                    member_id: who.to_owned(),
                    partitions: partitions.collect(),
                },
            )]
        }
        4 => {
            let grown = GroupTopic {
                growths: vec![growth(2, &[0, 1], 3 + count)],
                ..topic(TOPIC, 3 + count)
            };
            vec![changed(
                vec![grown, topic(OTHER, 2)],
                &[(who, &[TOPIC, OTHER])],
                &[],
            )]
        }
        5 => vec![changed(vec![topic(OTHER, 2)], &[(who, &[OTHER])], &[TOPIC])],
        6 => vec![seek(TOPIC, count, 7)],
        7 => vec![
            leaves("a"),
            leaves("b"),
            leaves("c"),
            leaves("c2"),
            deleted(),
        ],
        _ => {
            let positions = owned.iter().map(|one| GroupPosition {
                topic_id: one.topic_id,
                partition: one.partition,
                epoch: one.epoch,
                offset: count.into(),
                note: "n".repeat(count as usize),
            });
            vec![group_command::Kind::Committed(PositionsCommitted {
                member_id: who.to_owned(),
                positions: positions.collect(),
                session: 9,
                ..PositionsCommitted::default()
            })]
        }
    }
}
