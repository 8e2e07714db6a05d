//! Consumer groups, as the log of a coordinator's partition defines them: members, owners of partitions, and
//! committed offsets. Pure, like every state machine. Sessions, streams and clocks belong to the coordinator,
//! which only writes their results here.
//!
//! `members` applies joins, leaves and releases, and gives partitions to owners; `assign` computes the target
//! owner of each, and `chains` evens out what single moves cannot. The others are the form on the disk.

mod assign;
mod begin;
#[cfg(test)]
mod begin_tests;
mod chains;
mod keys;
mod layout;
#[cfg(test)]
mod layout_tests;
mod load;
mod members;
mod parts;
mod size;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::machine::StateWrite;
use ropewalk_proto::command::GROUP_RULES;
use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::v1::{
    GroupCommand, GroupDeleted, GroupMember, GroupPosition, GroupPositionState, GroupReply,
    PositionError, PositionsCommitted, TopicGrowth, group_command,
};

pub use keys::is_key;
pub use layout::Layout;
pub use load::Loader;
pub use parts::Parts;
pub use size::Size;

/// One partition of a topic. The id distinguishes the topic from a later one with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartitionId {
    /// Id of the topic.
    pub topic_id: u64,
    /// Number of the partition.
    pub partition: u32,
}

/// Groups of one coordinator's partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Groups {
    by_name: BTreeMap<String, Group>,
    /// Size of all groups together.
    bytes: u64,
}

/// One group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Incremented whenever the members, or the topics they read, change.
    pub generation: u64,
    /// Members by id.
    pub members: Parts<String, Member>,
    /// Subscribed topics, by id.
    pub topics: Parts<u64, Topic>,
    /// Owner and target of each partition.
    pub shares: Parts<TopicPartitionId, PartitionAssignment>,
    /// Committed offset of each partition.
    pub positions: Parts<TopicPartitionId, GroupPositionState>,
    /// Number of partitions of a topic that have a start offset in the group, by topic id. It outlives
    /// members.
    pub begun: Parts<u64, u32>,
    /// Leader time since which the group is idle, if it has no members.
    pub used_ms: i64,
    /// Size of the group.
    pub size: Size,
    /// Form in which the group is stored, if it is.
    pub layout: Option<Layout>,
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Join request of the member.
    pub told: GroupMember,
    /// Maximum time to give up a partition, in ms.
    pub rebalance_ms: u32,
    /// Ids of the subscribed topics.
    pub topic_ids: Vec<u64>,
    /// Latest session of the member. Requests of an earlier one may arrive late.
    pub session: u64,
}

/// A topic as the group last knew it.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// Name of the topic.
    pub name: String,
    /// Number of its partitions.
    pub partitions: u32,
    /// Growths that added partitions.
    pub growths: Vec<TopicGrowth>,
}

/// Time and rules that the coordinator stamped on a command.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    now_ms: i64,
    rules: u32,
}

/// Owner and target of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionAssignment {
    /// Member that reads the partition now.
    pub owner: Option<String>,
    /// Generation in which the owner got the partition. Its commits must carry it.
    pub epoch: u64,
    /// Member that should read the partition. It becomes the owner once the former one has given it up.
    pub target: Option<String>,
}

impl Groups {
    /// Returns one group.
    pub fn get(&self, group: &str) -> Option<&Group> {
        self.by_name.get(group)
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.by_name
            .iter()
            .map(|(name, group)| (name.as_str(), group))
    }

    /// Number of groups.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Applies a command; changes to stored state go to `effects`. `None` for a command of a kind or of rules
    /// that only a newer build knows.
    pub fn apply(
        &mut self,
        command: &GroupCommand,
        effects: &mut Vec<StateWrite>,
    ) -> Option<GroupReply> {
        let kind = command.kind.as_ref()?;
        if command.rules > GROUP_RULES {
            return None;
        }
        let name = &command.group;
        let known = self.get(name);
        let header = known.map(Group::header);
        let before = known.map_or(0, |group| group.size.bytes());
        let reply = self.carry_out(command, kind, effects);
        if let Some(group) = self.by_name.get_mut(name) {
            group.measure(name);
            group.write(name, command.rules, header, effects);
        }
        let others = self.bytes.saturating_sub(before);
        self.bytes = others + self.get(name).map_or(0, |group| group.size.bytes());
        reply
    }

    /// Applies a command. Changes of a group that exists afterwards are not written yet.
    fn carry_out(
        &mut self,
        command: &GroupCommand,
        kind: &group_command::Kind,
        effects: &mut Vec<StateWrite>,
    ) -> Option<GroupReply> {
        use group_command::Kind;
        let name = &command.group;
        let stamp = Stamp {
            now_ms: command.leader_time_ms,
            rules: command.rules,
        };
        match kind {
            Kind::Deleted(deleted) => return Some(self.delete(name, deleted, effects)),
            Kind::Committed(committed) => return Some(self.commit(name, committed, stamp)),
            _ => {}
        }
        self.begin(name, kind, stamp);
        let group = self.group(name);
        let reply = match kind {
            Kind::Joins(joins) => group.join(joins, stamp),
            Kind::Leave(leave) => group.leave(&leave.member_ids, stamp),
            Kind::Released(released) => group.release(released),
            Kind::Topics(topics) => {
                group.forget(&topics.gone_topic_ids);
                group.change_topics(topics, stamp)
            }
            Kind::Deleted(_) | Kind::Committed(_) => return None,
        };
        if *group == Group::default() {
            self.by_name.remove(name);
        }
        Some(reply)
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.by_name.entry(name.to_owned()).or_default()
    }

    /// Gives partitions that came after the group their start offset.
    fn begin(&mut self, name: &str, kind: &group_command::Kind, stamp: Stamp) {
        if stamp.rules > 0 {
            self.group(name).begin(kind, stamp.now_ms);
        }
    }

    fn commit(&mut self, name: &str, committed: &PositionsCommitted, stamp: Stamp) -> GroupReply {
        let by_operator = committed.member_id.is_empty();
        if by_operator {
            if let Some(error) = self.refuse_operator(name, committed.create, stamp) {
                return refused(error);
            }
            let kind = group_command::Kind::Committed(committed.clone());
            self.begin(name, &kind, stamp);
        }
        let Some(group) = self.by_name.get_mut(name) else {
            return refused(unknown_member(name, &committed.member_id));
        };
        let member = group.members.get(&committed.member_id);
        if member.is_some_and(|member| committed.session < member.session) {
            return refused(said_late(name, &committed.member_id));
        }
        let mut reply = GroupReply::default();
        for position in &committed.positions {
            let place = TopicPartitionId::from(position);
            if !by_operator && let Err(error) = group.check_owner(&committed.member_id, position) {
                reply.refused.push(PositionError {
                    topic_id: place.topic_id,
                    partition: place.partition,
                    error: Some(error.into()),
                });
                continue;
            }
            let state = GroupPositionState {
                offset: position.offset,
                committed_ms: stamp.now_ms,
                note: position.note.clone(),
            };
            group.positions.set(place, state);
        }
        if by_operator {
            group.used_ms = stamp.now_ms;
        } else {
            // A partition that waited for this offset, behind a fence, may now be assigned.
            reply.changed = group.give_out();
        }
        reply
    }

    /// Returns the reason why an operator cannot change the group's offsets. Otherwise creates the group if
    /// it does not exist.
    fn refuse_operator(&mut self, name: &str, create: bool, stamp: Stamp) -> Option<WireError> {
        match self.by_name.get(name) {
            Some(group) if !group.members.is_empty() => Some(in_use(
                name,
                group.members.len(),
                "stop them before you set the group's positions",
            )),
            None if stamp.rules > 0 && !create => Some(unknown_group(name)),
            _ => {
                self.group(name);
                None
            }
        }
    }

    fn delete(
        &mut self,
        name: &str,
        deleted: &GroupDeleted,
        effects: &mut Vec<StateWrite>,
    ) -> GroupReply {
        let Some(group) = self.by_name.get(name) else {
            return refused(unknown_group(name));
        };
        if !group.members.is_empty() {
            return refused(in_use(name, group.members.len(), "stop them first"));
        }
        if deleted
            .idle_since_ms
            .is_some_and(|since_ms| group.used_ms > since_ms)
        {
            return GroupReply::default();
        }
        group.remove(name, effects);
        self.by_name.remove(name);
        GroupReply {
            changed: true,
            ..GroupReply::default()
        }
    }

    /// Writes all pairs to `effects`.
    pub fn store(&self, effects: &mut Vec<StateWrite>) {
        for (name, group) in self.iter() {
            group.store(name, effects);
        }
    }
}

impl From<&GroupPosition> for TopicPartitionId {
    fn from(position: &GroupPosition) -> TopicPartitionId {
        TopicPartitionId {
            topic_id: position.topic_id,
            partition: position.partition,
        }
    }
}

fn refused(error: WireError) -> GroupReply {
    GroupReply {
        error: Some(error.into()),
        ..GroupReply::default()
    }
}

/// Error for a group that does not exist.
pub fn unknown_group(name: &str) -> WireError {
    WireError::new(
        ErrorCode::UnknownGroup,
        format!("group {name} does not exist; `ropewalk group list` lists the groups"),
    )
}

/// Error for a member whose session has ended.
pub fn unknown_member(group: &str, member_id: &str) -> WireError {
    WireError::new(
        ErrorCode::UnknownMember,
        format!(
            "group {group} has no member {member_id}, or its session expired; join again under a \
             new id"
        ),
    )
}

fn said_late(group: &str, member_id: &str) -> WireError {
    WireError::new(
        ErrorCode::NotOwner,
        format!(
            "member {member_id} of group {group} has started a newer session, and only that \
             session can commit; end this one"
        ),
    )
}

fn in_use(name: &str, members: usize, advice: &str) -> WireError {
    let members = match members {
        1 => "a member".to_owned(),
        count => format!("{count} members"),
    };
    WireError::new(
        ErrorCode::GroupInUse,
        format!("group {name} has {members}; {advice}"),
    )
}
