//! The form of a group in storage.
//!
//! Under rules 2 and later, each part of a group has a key of its own, and an entry writes the parts that it
//! changes. Before, an entry wrote the group whole, without its committed offsets. A group that was written
//! whole is written in parts from its first change under rules 2 on, and never whole again. Rules come with
//! the command, so all replicas agree on the form.

use crate::machine::StateWrite;
use prost::Message;
use ropewalk_proto::command::GROUP_PARTS_SINCE_RULES;
use ropewalk_proto::v1::{
    GroupBegun, GroupMember, GroupMemberState, GroupShare, GroupState, GroupTopic,
};

use super::keys::Key;
use super::parts::Which;
use super::{Group, Member, PartitionAssignment, Topic, TopicPartitionId};

/// Form in which a group is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One value, and one for each committed offset.
    Whole,
    /// One value for each part.
    Parts,
}

/// The part of a group that is one value however large the group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    generation: u64,
    used_ms: i64,
}

impl Group {
    pub(super) fn header(&self) -> Header {
        Header {
            generation: self.generation,
            used_ms: self.used_ms,
        }
    }

    /// Writes all changes since the last call. `before` is the header as of then, if there was one.
    pub(super) fn write(
        &mut self,
        name: &str,
        rules: u32,
        before: Option<Header>,
        effects: &mut Vec<StateWrite>,
    ) {
        let header = before != Some(self.header());
        let changed = header
            || self.members.is_changed()
            || self.topics.is_changed()
            || self.begun.is_changed()
            || self.shares.is_changed();
        match self.layout {
            Some(Layout::Parts) => {
                if header {
                    effects.push(put(Key::Header(name), &self.header_state()));
                }
                self.store_parts(name, Which::Changed, effects);
            }
            _ if !changed => {}
            known if rules >= GROUP_PARTS_SINCE_RULES => {
                if known == Some(Layout::Whole) {
                    effects.push(remove(Key::Whole(name)));
                }
                effects.push(put(Key::Header(name), &self.header_state()));
                self.store_parts(name, Which::All, effects);
                self.layout = Some(Layout::Parts);
            }
            _ => {
                effects.push(put(Key::Whole(name), &self.to_state()));
                self.layout = Some(Layout::Whole);
            }
        }
        self.store_positions(name, Which::Changed, effects);
        self.written();
    }

    /// Forgets which parts changed.
    pub(super) fn written(&mut self) {
        self.members.written();
        self.topics.written();
        self.begun.written();
        self.shares.written();
        self.positions.written();
    }

    /// Writes all pairs of the group.
    pub(super) fn store(&self, name: &str, effects: &mut Vec<StateWrite>) {
        match self.layout {
            Some(Layout::Parts) => {
                effects.push(put(Key::Header(name), &self.header_state()));
                self.store_parts(name, Which::All, effects);
            }
            Some(Layout::Whole) | None => effects.push(put(Key::Whole(name), &self.to_state())),
        }
        self.store_positions(name, Which::All, effects);
    }

    /// Removes all pairs of the group.
    pub(super) fn remove(&self, name: &str, effects: &mut Vec<StateWrite>) {
        let first = effects.len();
        self.store(name, effects);
        for effect in effects.iter_mut().skip(first) {
            effect.value = None;
        }
    }

    fn store_parts(&self, name: &str, which: Which, effects: &mut Vec<StateWrite>) {
        let members = self.members.of(which);
        effects.extend(members.map(|(id, member)| {
            let state = member.map(|member| GroupState {
                members: vec![member.to_part()],
                ..GroupState::default()
            });
            effect(Key::Member(name, id), state.as_ref())
        }));
        effects.extend(self.topics.of(which).map(|(id, topic)| {
            let state = topic.map(|topic| GroupState {
                topics: vec![topic.told(0)],
                ..GroupState::default()
            });
            effect(Key::Topic(name, *id), state.as_ref())
        }));
        effects.extend(self.begun.of(which).map(|(id, partitions)| {
            let state = partitions.map(|partitions| GroupState {
                begun: vec![begun_state(0, *partitions)],
                ..GroupState::default()
            });
            effect(Key::Begun(name, *id), state.as_ref())
        }));
        effects.extend(self.shares.of(which).map(|(place, share)| {
            let state = share.map(|share| GroupState {
                shares: vec![share.to_state(None)],
                ..GroupState::default()
            });
            effect(Key::PartitionAssignment(name, *place), state.as_ref())
        }));
    }

    fn store_positions(&self, name: &str, which: Which, effects: &mut Vec<StateWrite>) {
        let positions = self.positions.of(which);
        effects.extend(positions.map(|(place, state)| effect(Key::Position(name, *place), state)));
    }

    fn header_state(&self) -> GroupState {
        GroupState {
            generation: self.generation,
            used_ms: self.used_ms,
            ..GroupState::default()
        }
    }

    fn to_state(&self) -> GroupState {
        let topics = self.topics.iter().map(|(id, topic)| topic.told(*id));
        let shares = self.shares.iter();
        let shares = shares.map(|(place, share)| share.to_state(Some(*place)));
        let begun = self.begun.iter();
        let begun = begun.map(|(id, partitions)| begun_state(*id, *partitions));
        GroupState {
            members: self.members.values().map(Member::to_state).collect(),
            topics: topics.collect(),
            shares: shares.collect(),
            begun: begun.collect(),
            ..self.header_state()
        }
    }

    /// Takes over a group that was written whole. Committed offsets stay.
    pub(super) fn take_whole(&mut self, state: GroupState) {
        self.generation = state.generation;
        self.used_ms = state.used_ms;
        for member in state.members {
            let id = member.member.as_ref();
            let id = id.map_or_else(String::new, |told| told.member_id.clone());
            self.members
                .set(id.clone(), Member::from_state(&id, member));
        }
        for topic in state.topics {
            self.topics.set(topic.topic_id, Topic::from(topic));
        }
        for share in state.shares {
            let place = TopicPartitionId {
                topic_id: share.topic_id,
                partition: share.partition,
            };
            self.shares.set(place, PartitionAssignment::from(share));
        }
        for begun in state.begun {
            self.begun.set(begun.topic_id, begun.partitions);
        }
    }

    /// Takes over a header; `None` if there is more in it.
    pub(super) fn take_header(&mut self, header: &GroupState) -> Option<()> {
        self.generation = header.generation;
        self.used_ms = header.used_ms;
        (self.header_state() == *header).then_some(())
    }
}

impl Member {
    fn to_state(&self) -> GroupMemberState {
        GroupMemberState {
            member: Some(self.told.clone()),
            rebalance_ms: self.rebalance_ms,
            topic_ids: self.topic_ids.clone(),
            session: self.session,
        }
    }

    /// Converts the member to its stored form, without the id that its key has.
    fn to_part(&self) -> GroupMemberState {
        let mut state = self.to_state();
        if let Some(told) = &mut state.member {
            told.member_id.clear();
        }
        state
    }

    pub(super) fn from_state(id: &str, state: GroupMemberState) -> Member {
        Member {
            told: GroupMember {
                member_id: id.to_owned(),
                ..state.member.unwrap_or_default()
            },
            rebalance_ms: state.rebalance_ms,
            topic_ids: state.topic_ids,
            session: state.session,
        }
    }
}

impl From<GroupTopic> for Topic {
    fn from(told: GroupTopic) -> Topic {
        Topic {
            name: told.name,
            partitions: told.partitions,
            growths: told.growths,
        }
    }
}

impl PartitionAssignment {
    /// Converts the share to its stored form, without the partition where its key has it.
    fn to_state(&self, place: Option<TopicPartitionId>) -> GroupShare {
        GroupShare {
            topic_id: place.map_or(0, |place| place.topic_id),
            partition: place.map_or(0, |place| place.partition),
            owner: self.owner.clone().unwrap_or_default(),
            epoch: self.epoch,
            target: self.target.clone().unwrap_or_default(),
        }
    }
}

impl From<GroupShare> for PartitionAssignment {
    fn from(state: GroupShare) -> PartitionAssignment {
        let named = |id: String| (!id.is_empty()).then_some(id);
        PartitionAssignment {
            owner: named(state.owner),
            epoch: state.epoch,
            target: named(state.target),
        }
    }
}

fn begun_state(topic_id: u64, partitions: u32) -> GroupBegun {
    GroupBegun {
        topic_id,
        partitions,
    }
}

fn effect(key: Key<'_>, value: Option<&impl Message>) -> StateWrite {
    match value {
        Some(value) => put(key, value),
        None => remove(key),
    }
}

fn put(key: Key<'_>, value: &impl Message) -> StateWrite {
    StateWrite {
        key: key.encode(),
        value: Some(value.encode_to_vec().into()),
    }
}

fn remove(key: Key<'_>) -> StateWrite {
    StateWrite {
        key: key.encode(),
        value: None,
    }
}
