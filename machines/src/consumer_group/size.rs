//! Upper bound of the bytes that groups take in a checkpoint of their partition. Offsets, epochs and times
//! count at their maximum length, so that an offset can advance without a change of size.

use std::collections::BTreeMap;

use ropewalk_proto::v1::{
    GroupMember, GroupPosition, GroupPositionState, GroupTopic, MemberJoins, PositionsCommitted,
    TopicGrowth, TopicsChanged, group_command::Kind,
};

use prost::Message;

use super::parts::Weigh;
use super::{Group, Groups, Member, PartitionAssignment, Topic, TopicPartitionId};

/// A pair of a checkpoint: tags and lengths of key and value.
const PAIR_BYTES: u64 = 16;
/// An empty group.
const GROUP_BYTES: u64 = 40 + PAIR_BYTES;
/// A committed offset, without its note.
const POSITION_BYTES: u64 = 40 + PAIR_BYTES;
/// A member, without its id and join request.
const MEMBER_BYTES: u64 = 40 + PAIR_BYTES;
/// One topic of a member, by its id.
const TOPIC_ID_BYTES: u64 = 10;
/// A topic, without its name and growths.
const TOPIC_BYTES: u64 = 48 + PAIR_BYTES;
/// Tag and length of a growth.
const GROWTH_BYTES: u64 = 6;
/// The number of a topic's partitions that have a start offset.
const BEGUN_BYTES: u64 = 40 + PAIR_BYTES;
/// An assignment of one partition, without the members it names.
const SHARE_BYTES: u64 = 56 + PAIR_BYTES;

/// Size of one group, updated as it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the whole group.
    bytes: u64,
    /// Length of the longest member id in bytes.
    longest: u64,
}

impl Size {
    /// Bytes of the whole group.
    pub fn bytes(self) -> u64 {
        self.bytes
    }
}

impl Weigh<TopicPartitionId> for GroupPositionState {
    fn bytes(&self, _: &TopicPartitionId) -> u64 {
        of_position(&self.note)
    }
}

impl Weigh<String> for Member {
    fn bytes(&self, _: &String) -> u64 {
        of_member(&self.told, self.topic_ids.len())
    }
}

impl Weigh<u64> for Topic {
    fn bytes(&self, _: &u64) -> u64 {
        of_topic(&self.name, &self.growths)
    }
}

/// The number of a topic's partitions that have a start offset.
impl Weigh<u64> for u32 {
    fn bytes(&self, _: &u64) -> u64 {
        BEGUN_BYTES
    }
}

/// The members it names count with [`of_share`]: they change with those of the group.
impl Weigh<TopicPartitionId> for PartitionAssignment {
    fn bytes(&self, _: &TopicPartitionId) -> u64 {
        SHARE_BYTES
    }
}

/// Size of one committed offset of a group.
fn of_position(note: &str) -> u64 {
    POSITION_BYTES + note.len() as u64
}

fn of_member(told: &GroupMember, topic_ids: usize) -> u64 {
    let id = told.member_id.len() as u64;
    MEMBER_BYTES + id + told.encoded_len() as u64 + TOPIC_ID_BYTES * topic_ids as u64
}

fn of_topic(name: &str, growths: &[TopicGrowth]) -> u64 {
    let growths = growths.iter();
    let growths = growths.map(|growth| GROWTH_BYTES + growth.encoded_len() as u64);
    TOPIC_BYTES + name.len() as u64 + growths.sum::<u64>()
}

/// Size of one partition's assignment in a group whose longest member id has this many bytes. It names at
/// most two members.
fn of_share(longest: u64) -> u64 {
    SHARE_BYTES + 2 * longest
}

impl Groups {
    /// Size of all groups together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Maximum bytes that a command adds to a group.
    pub fn growth(&self, name: &str, kind: &Kind) -> u64 {
        match kind {
            Kind::Joins(joins) => self.grown(name, |group| group.growth_by_join(name, joins)),
            Kind::Topics(topics) => self.grown(name, |group| group.growth_by_topics(name, topics)),
            Kind::Committed(committed) => self.growth_by_commit(name, committed),
            Kind::Leave(_) | Kind::Released(_) | Kind::Deleted(_) => 0,
        }
    }

    /// Maximum bytes that a commit adds to a group.
    pub fn growth_by_commit(&self, name: &str, committed: &PositionsCommitted) -> u64 {
        self.grown(name, |group| group.growth_by_commit(name, committed))
    }

    fn grown(&self, name: &str, growth: impl FnOnce(&Group) -> u64) -> u64 {
        match self.get(name) {
            Some(group) => growth(group),
            None => GROUP_BYTES + name.len() as u64 + growth(&Group::default()),
        }
    }
}

impl Group {
    /// Updates the size after changes. Each part has a key, which contains the group's name.
    pub(super) fn measure(&mut self, name: &str) {
        if self.members.is_changed() {
            let longest = self.members.keys().map(String::len).max();
            self.size.longest = longest.unwrap_or(0) as u64;
        }
        let parts = self.members.len()
            + self.topics.len()
            + self.begun.len()
            + self.shares.len()
            + self.positions.len();
        self.size.bytes = GROUP_BYTES
            + self.members.bytes()
            + self.topics.bytes()
            + self.begun.bytes()
            + self.shares.bytes()
            + 2 * self.size.longest * self.shares.len() as u64
            + self.positions.bytes()
            + name.len() as u64 * (1 + parts as u64);
    }

    fn growth_by_join(&self, name: &str, joins: &MemberJoins) -> u64 {
        let nobody = GroupMember::default();
        let told = joins.member.as_ref().unwrap_or(&nobody);
        let longest = self.size.longest;
        let longer = longest.max(told.member_id.len() as u64);
        let after = of_member(told, joins.topics.len());
        let member = match self.members.get(&told.member_id) {
            Some(known) => after.saturating_sub(known.bytes(&told.member_id)),
            None => after + name.len() as u64,
        };
        let renamed = 2 * (longer - longest) * self.shares.len() as u64;
        let topics = joins.topics.iter();
        let topics = topics.map(|topic| self.growth_by_topic(name, topic, longer));
        member + renamed + topics.sum::<u64>()
    }

    fn growth_by_topics(&self, name: &str, changed: &TopicsChanged) -> u64 {
        let longest = self.size.longest;
        let topics = changed.topics.iter();
        let topics = topics.map(|topic| self.growth_by_topic(name, topic, longest));
        let members = changed.members.iter().map(|told| {
            let before = self.members.get(&told.member_id);
            let before = before.map_or(0, |member| member.topic_ids.len());
            TOPIC_ID_BYTES * told.topic_ids.len().saturating_sub(before) as u64
        });
        topics.sum::<u64>() + members.sum::<u64>()
    }

    /// Growth by a topic that may be new here, or may have more partitions than before.
    fn growth_by_topic(&self, name: &str, topic: &GroupTopic, longest: u64) -> u64 {
        let known = self.topics.get(&topic.topic_id);
        let after = of_topic(&topic.name, &topic.growths);
        let more = match known {
            Some(known) => after.saturating_sub(known.bytes(&topic.topic_id)),
            None => after + name.len() as u64,
        };
        let partitions = known.map_or(0, |known| known.partitions);
        let shares = u64::from(topic.partitions.saturating_sub(partitions));
        let shares = shares * (of_share(longest) + name.len() as u64);
        more + shares + self.growth_by_begun(name, topic)
    }

    /// Growth by the start offsets that the group may get in a topic.
    fn growth_by_begun(&self, name: &str, topic: &GroupTopic) -> u64 {
        let begun = self.begun.get(&topic.topic_id).copied();
        let recorded = begun.map_or(BEGUN_BYTES + name.len() as u64, |_| 0);
        let first = begun.unwrap_or(0);
        if first >= topic.partitions {
            return recorded;
        }
        let of_topic = |partition| TopicPartitionId {
            topic_id: topic.topic_id,
            partition,
        };
        let there = self
            .positions
            .range(of_topic(first)..of_topic(topic.partitions));
        let new = u64::from(topic.partitions - first).saturating_sub(there.count() as u64);
        recorded + new * (of_position("") + name.len() as u64)
    }

    fn growth_by_commit(&self, name: &str, committed: &PositionsCommitted) -> u64 {
        // If a commit names a partition twice, the last offset counts.
        let notes = committed.positions.iter();
        let notes: BTreeMap<TopicPartitionId, &str> = notes
            .map(|position| (TopicPartitionId::from(position), position.note.as_str()))
            .collect();
        let size = |note: &str| of_position(note) + name.len() as u64;
        let after: u64 = notes.values().map(|note| size(note)).sum();
        let known = notes.keys().filter_map(|place| self.positions.get(place));
        let before: u64 = known.map(|known| size(&known.note)).sum();
        let begun = committed.topic.as_ref();
        let begun = begun.map_or(0, |topic| self.growth_by_begun(name, topic));
        after.saturating_sub(before) + begun
    }

    /// True if the new offset would take more bytes than the stored one.
    pub fn grows_by(&self, position: &GroupPosition) -> bool {
        let known = self.positions.get(&TopicPartitionId::from(position));
        known.is_none_or(|known| position.note.len() > known.note.len())
    }
}
