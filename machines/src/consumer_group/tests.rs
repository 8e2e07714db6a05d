use bytes::Bytes;
use proptest::prelude::*;
use ropewalk_proto::v1::{
    Assigned, Fence, GroupPlace, GroupTopic, MemberJoins, MemberTopics, MembersLeave,
    PartitionsReleased, TopicsChanged,
};

use super::*;
use crate::machine::MachineError;

pub(super) const GROUP: &str = "billing";
pub(super) const TOPIC: u64 = 7;

/// Groups, checked after each command against a copy loaded from their writes.
#[derive(Default)]
pub(super) struct Bench {
    pub(super) groups: Groups,
    pub(super) disk: BTreeMap<Bytes, Bytes>,
    pub(super) now_ms: i64,
    /// Session that members' commands carry.
    pub(super) session: u64,
    /// Rules that commands carry; `None` for the newest.
    pub(super) rules: Option<u32>,
    /// Effects of the last command.
    pub(super) effects: Vec<StateWrite>,
}

/// Groups that a disk or a checkpoint holds.
pub(super) fn loaded(disk: &BTreeMap<Bytes, Bytes>) -> Result<Groups, MachineError> {
    let mut loader = Loader::default();
    for (key, value) in disk {
        assert!(is_key(key));
        loader.load(key, value)?;
    }
    loader.finish()
}

impl Bench {
    pub(super) fn apply(&mut self, kind: group_command::Kind) -> GroupReply {
        self.apply_to(GROUP, kind)
    }

    pub(super) fn apply_to(&mut self, group: &str, kind: group_command::Kind) -> GroupReply {
        let command = GroupCommand {
            leader_time_ms: self.now_ms,
            group: group.to_owned(),
            kind: Some(kind),
            rules: self.rules.unwrap_or(GROUP_RULES),
        };
        self.effects.clear();
        let reply = self.groups.apply(&command, &mut self.effects);
        let reply = reply.expect("a known kind");
        for StateWrite { key, value } in self.effects.iter().cloned() {
            let in_parts = key[0] == b'o' || key.contains(&0);
            let differs = self.disk.get(&key) != value.as_ref();
            assert!(differs || !in_parts, "{key:?} is written as it was");
            match value {
                Some(value) => drop(self.disk.insert(key, value)),
                None => drop(self.disk.remove(&key)),
            }
        }
        let read = loaded(&self.disk).expect("it was written so");
        assert_eq!(read, self.groups, "what was written is not what is");
        let mut stored = Vec::new();
        self.groups.store(&mut stored);
        let stored = stored.into_iter();
        let stored = stored.map(|effect| (effect.key, effect.value.expect("a value")));
        assert_eq!(stored.collect::<BTreeMap<_, _>>(), self.disk);
        self.check_owners(group);
        reply
    }

    /// Checks that owners and targets are members of the group.
    fn check_owners(&self, group: &str) {
        let Some(group) = self.groups.get(group) else {
            return;
        };
        for share in group.shares.values() {
            let known = |id: &String| group.members.contains_key(id);
            assert!(share.owner.iter().all(known) && share.target.iter().all(known));
        }
    }

    pub(super) fn join_as(
        &mut self,
        member_id: &str,
        instance_id: &str,
        partitions: u32,
    ) -> GroupReply {
        self.now_ms += 1;
        let member = GroupMember {
            member_id: member_id.to_owned(),
            instance_id: instance_id.to_owned(),
            ..GroupMember::default()
        };
        self.apply(group_command::Kind::Joins(MemberJoins {
            member: Some(member),
            rebalance_ms: 1_000,
            topics: vec![topic(TOPIC, partitions)],
            session: self.session,
        }))
    }

    fn join(&mut self, member_id: &str) -> GroupReply {
        self.join_as(member_id, "", 4)
    }

    /// Applies a growth of the topic; member `a` reads all of it.
    pub(super) fn grow(&mut self, growths: Vec<TopicGrowth>) {
        let partitions = growths.last().map_or(0, |growth| growth.to_partitions);
        let grown = GroupTopic {
            growths,
            ..topic(TOPIC, partitions)
        };
        self.apply(group_command::Kind::Topics(TopicsChanged {
            topics: vec![grown],
            members: vec![MemberTopics {
                member_id: "a".to_owned(),
                topic_ids: vec![TOPIC],
            }],
            gone_topic_ids: Vec::new(),
        }));
    }

    pub(super) fn leave(&mut self, member_id: &str) -> GroupReply {
        self.apply(group_command::Kind::Leave(MembersLeave {
            member_ids: vec![member_id.to_owned()],
        }))
    }

    pub(super) fn owned(&self, member_id: &str) -> Vec<Assigned> {
        self.groups
            .get(GROUP)
            .map_or_else(Vec::new, |group| group.assigned(member_id))
    }

    pub(super) fn revoked(&self, member_id: &str) -> Vec<Assigned> {
        let owned = self.owned(member_id);
        owned.into_iter().filter(|one| one.revoked).collect()
    }

    pub(super) fn release(&mut self, member_id: &str, what: &[Assigned]) -> GroupReply {
        let places = what.iter().map(|one| GroupPlace {
            topic_id: one.topic_id,
            partition: one.partition,
            epoch: one.epoch,
        });
        self.apply(group_command::Kind::Released(PartitionsReleased {
            member_id: member_id.to_owned(),
            partitions: places.collect(),
        }))
    }

    pub(super) fn commit(&mut self, member_id: &str, what: &Assigned, offset: u64) -> GroupReply {
        let committed = self.committed(member_id, what, offset);
        self.apply(group_command::Kind::Committed(committed))
    }

    fn committed(&self, member_id: &str, what: &Assigned, offset: u64) -> PositionsCommitted {
        PositionsCommitted {
            member_id: member_id.to_owned(),
            positions: vec![GroupPosition {
                topic_id: what.topic_id,
                partition: what.partition,
                epoch: what.epoch,
                offset,
                note: String::new(),
            }],
            session: self.session,
            ..PositionsCommitted::default()
        }
    }
}

pub(super) fn topic(topic_id: u64, partitions: u32) -> GroupTopic {
    GroupTopic {
        topic_id,
        name: format!("topic-{topic_id}"),
        partitions,
        growths: Vec::new(),
    }
}

/// Builds a growth with a fence at each of these offsets, from the first partition on.
pub(super) fn growth(ring_version: u32, fences: &[u64], to_partitions: u32) -> TopicGrowth {
    let fences = fences.iter().zip(0..);
    let fences: Vec<Fence> = fences
        .map(|(offset, partition)| Fence {
            partition,
            offset: *offset,
        })
        .collect();
    TopicGrowth {
        ring_version,
        from_partitions: fences.len() as u32,
        to_partitions,
        fences,
    }
}

pub(super) fn code(reply: &GroupReply) -> Option<ErrorCode> {
    let error = reply
        .error
        .as_ref()
        .or_else(|| reply.refused.first()?.error.as_ref());
    error.map(|error| ErrorCode::from_number(error.code))
}

#[test]
fn what_a_member_committed_in_an_earlier_session_is_refused_when_it_comes_late() {
    let mut bench = Bench {
        session: 5,
        ..Bench::default()
    };
    bench.join("a");
    let owned = bench.owned("a");
    let position = |bench: &Bench| {
        let group = bench.groups.get(GROUP).unwrap();
        group.positions[&TopicPartitionId::from(&GroupPosition {
            topic_id: TOPIC,
            ..GroupPosition::default()
        })]
            .offset
    };
    bench.session = 6;
    assert!(bench.join("a").changed, "the session is written down");
    assert_eq!(bench.owned("a"), owned, "and moves nothing");
    assert_eq!(code(&bench.commit("a", &owned[0], 9)), None);
    bench.session = 5;
    let late = bench.commit("a", &owned[0], 4);
    assert_eq!(code(&late), Some(ErrorCode::NotOwner));
    assert!(!bench.join("a").changed, "a join that comes late, too");
    bench.session = 6;
    assert_eq!(position(&bench), 9);
    let back = bench.commit("a", &owned[0], 4);
    assert_eq!(
        (code(&back), position(&bench)),
        (None, 4),
        "who seeks may go back"
    );
}

#[test]
fn a_partition_goes_to_its_new_owner_only_when_the_old_one_has_given_it_up() {
    let mut bench = Bench::default();
    bench.join("a");
    assert_eq!(bench.owned("a").len(), 4);
    bench.join("b");
    assert_eq!(bench.owned("b").len(), 0);
    let revoked = bench.revoked("a");
    assert_eq!(revoked.len(), 2);
    assert!(bench.release("a", &revoked).changed);
    assert_eq!(bench.owned("a").len(), 2);
    assert_eq!(bench.owned("b").len(), 2);
    assert_eq!(bench.revoked("a").len() + bench.revoked("b").len(), 0);
}

#[test]
fn the_commit_of_a_former_owner_is_refused_and_the_one_of_the_new_counts() {
    let mut bench = Bench::default();
    bench.join("a");
    bench.join("b");
    let revoked = bench.revoked("a");
    assert_eq!(code(&bench.commit("a", &revoked[0], 10)), None);
    bench.release("a", &revoked);
    assert_eq!(
        code(&bench.commit("a", &revoked[0], 12)),
        Some(ErrorCode::NotOwner)
    );
    let now = &bench.owned("b")[0];
    assert_eq!(now.committed, Some(10));
    let stale = Assigned {
        epoch: now.epoch - 1,
        ..now.clone()
    };
    assert_eq!(
        code(&bench.commit("b", &stale, 13)),
        Some(ErrorCode::NotOwner)
    );
    assert_eq!(code(&bench.commit("b", now, 14)), None);
    assert_eq!(bench.owned("b")[0].committed, Some(14));
}

#[test]
fn what_a_member_that_left_owned_is_given_out_at_once() {
    let mut bench = Bench::default();
    bench.join("a");
    bench.join("b");
    assert!(bench.leave("a").changed);
    assert_eq!(bench.owned("b").len(), 4);
    assert!(!bench.leave("a").changed);
    let lost = Assigned {
        topic_id: TOPIC,
        ..Assigned::default()
    };
    assert_eq!(
        code(&bench.commit("a", &lost, 1)),
        Some(ErrorCode::NotOwner)
    );
}

#[test]
fn a_member_that_joins_again_as_it_is_changes_nothing() {
    let mut bench = Bench::default();
    bench.join("a");
    let before = bench.groups.clone();
    assert!(!bench.join("a").changed);
    assert_eq!(bench.groups, before);
}

#[test]
fn a_static_member_that_comes_back_takes_over_and_nothing_moves() {
    let mut bench = Bench::default();
    bench.join_as("a", "till-1", 4);
    bench.join_as("b", "till-2", 4);
    let moved = bench.revoked("a");
    bench.release("a", &moved);
    let others = bench.owned("b");
    let before: Vec<u32> = bench.owned("a").iter().map(|one| one.partition).collect();
    let zombie = bench.owned("a")[0].clone();
    bench.join_as("a2", "till-1", 4);
    let owned = bench.owned("a2");
    let after: Vec<u32> = owned.iter().map(|one| one.partition).collect();
    assert_eq!(after, before);
    assert!(owned.iter().all(|one| one.epoch > zombie.epoch));
    assert_eq!(bench.owned("b"), others);
    assert_eq!(
        code(&bench.commit("a", &zombie, 3)),
        Some(ErrorCode::NotOwner)
    );
}

#[test]
fn partitions_that_a_topic_gains_are_given_out_and_those_of_a_deleted_one_forgotten() {
    let mut bench = Bench::default();
    bench.join("a");
    let first = bench.owned("a")[0].clone();
    bench.commit("a", &first, 5);
    let members = vec![MemberTopics {
        member_id: "a".to_owned(),
        topic_ids: vec![TOPIC],
    }];
    bench.apply(group_command::Kind::Topics(TopicsChanged {
        topics: vec![topic(TOPIC, 6)],
        members,
        gone_topic_ids: Vec::new(),
    }));
    assert_eq!(bench.owned("a").len(), 6);
    bench.apply(group_command::Kind::Topics(TopicsChanged {
        gone_topic_ids: vec![TOPIC],
        ..TopicsChanged::default()
    }));
    assert_eq!(bench.owned("a").len(), 0);
    assert!(bench.groups.get(GROUP).unwrap().positions.is_empty());
}

#[test]
fn a_new_partition_waits_until_all_old_ones_are_read_up_to_their_fences() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 2);
    let old = bench.owned("a");
    bench.grow(vec![growth(2, &[10, 20], 4)]);
    assert_eq!(bench.owned("a"), old);
    assert!(!bench.commit("a", &old[0], 10).changed);
    assert!(!bench.commit("a", &old[1], 19).changed);
    assert_eq!(bench.owned("a").len(), 2);
    assert!(bench.commit("a", &old[1], 20).changed);
    assert_eq!(bench.owned("a").len(), 4);
}

#[test]
fn a_partition_of_an_earlier_growth_waits_for_the_fences_of_that_one() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 1);
    let first = bench.owned("a")[0].clone();
    bench.grow(vec![growth(2, &[10], 2), growth(3, &[20, 5], 3)]);
    bench.commit("a", &first, 9);
    assert_eq!(bench.owned("a").len(), 1);
    bench.commit("a", &first, 10);
    let owned = bench.owned("a");
    assert_eq!(owned.len(), 2);
    bench.commit("a", &first, 20);
    assert_eq!(bench.owned("a").len(), 2);
    bench.commit("a", &owned[1], 5);
    assert_eq!(bench.owned("a").len(), 3);
}

#[test]
fn a_node_that_lags_makes_no_topic_smaller_and_no_fence_forgotten() {
    let mut bench = Bench::default();
    bench.join_as("a", "", 2);
    bench.grow(vec![growth(2, &[10, 20], 4)]);
    // This node knows the topic as it was before the growth.
    bench.join_as("b", "", 2);
    let group = bench.groups.get(GROUP).unwrap();
    assert_eq!(group.shares.len(), 4);
    let read = |(place, share): (&TopicPartitionId, &PartitionAssignment)| {
        share.owner.is_some().then_some(place.partition)
    };
    let read: Vec<u32> = group.shares.iter().filter_map(read).collect();
    assert_eq!(read, [0, 1], "the new ones wait");
}

#[test]
fn a_member_commits_and_gives_up_only_what_is_its_own_in_this_epoch() {
    let mut bench = Bench::default();
    bench.join("a");
    bench.join("b");
    let revoked = bench.revoked("a");
    assert!(!bench.release("b", &revoked).changed);
    let mut before = revoked.clone();
    before.iter_mut().for_each(|one| one.epoch -= 1);
    assert!(!bench.release("a", &before).changed);
    assert_eq!(bench.owned("b").len(), 0);
    assert_eq!(
        code(&bench.commit("b", &revoked[0], 7)),
        Some(ErrorCode::NotOwner)
    );
    assert!(bench.release("a", &revoked).changed);
}

#[test]
fn an_operator_moves_and_deletes_only_a_group_without_members() {
    let mut bench = Bench {
        now_ms: 5,
        ..Bench::default()
    };
    let place = Assigned {
        topic_id: TOPIC,
        partition: 1,
        ..Assigned::default()
    };
    let delete = |idle_since_ms| group_command::Kind::Deleted(GroupDeleted { idle_since_ms });
    assert_eq!(
        code(&bench.commit("", &place, 99)),
        Some(ErrorCode::UnknownGroup)
    );
    assert_eq!(bench.groups.count(), 0);
    let created = PositionsCommitted {
        create: true,
        ..bench.committed("", &place, 99)
    };
    assert_eq!(
        code(&bench.apply(group_command::Kind::Committed(created))),
        None
    );
    assert!(!bench.apply(delete(Some(4))).changed, "it was used since");
    assert_eq!(
        code(&bench.commit("nobody", &place, 1)),
        Some(ErrorCode::NotOwner)
    );
    bench.join("a");
    assert_eq!(bench.owned("a")[1].committed, Some(99));
    assert_eq!(
        code(&bench.commit("", &place, 1)),
        Some(ErrorCode::GroupInUse)
    );
    assert_eq!(
        code(&bench.apply(delete(None))),
        Some(ErrorCode::GroupInUse)
    );
    bench.leave("a");
    assert!(!bench.apply(delete(Some(bench.now_ms - 1))).changed);
    assert!(bench.apply(delete(Some(bench.now_ms))).changed);
    assert!(bench.disk.is_empty());
    assert_eq!(
        code(&bench.apply(delete(None))),
        Some(ErrorCode::UnknownGroup)
    );
}

proptest! {
    #[test]
    fn whatever_happens_owners_are_members_and_the_group_settles_even(
        steps in prop::collection::vec((0..4_u8, 0..5_usize), 1..60),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let mut bench = Bench::default();
        for (step, who) in steps {
            let who = names[who];
            match step {
                0 => drop(bench.join_as(who, "", 7)),
                1 => drop(bench.leave(who)),
                2 => drop(bench.release(who, &bench.revoked(who))),
                _ => {
                    let owned = bench.owned(who);
                    if let Some(first) = owned.first() {
                        prop_assert_eq!(code(&bench.commit(who, first, 1)), None);
                    }
                }
            }
        }
        for who in names { bench.release(who, &bench.revoked(who)); }
        let counts: Vec<usize> = names.iter().map(|who| bench.owned(who).len()).filter(|count| *count > 0).collect();
        if let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) {
            prop_assert_eq!(counts.iter().sum::<usize>(), 7);
            prop_assert!(most - least <= 1);
        }
    }
}
