//! What the logs of coordinators say of consumer groups, for the checks that judge it: which commits
//! were accepted. The groups are the product's own, carried on command by command; what must hold of
//! what comes out is judged elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_node::group::Groups;
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::v1::{GroupCommand, GroupTopic, group_command};
use ropewalk_raft_store::inspect::Payload;

use crate::history::Place;
use crate::load;
use crate::look::truth::Committed;

/// A commit that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The group's name.
    pub group: String,
    /// The topic's id and the partition.
    pub at: (u64, u32),
    /// The same by the run's numbers, if the topic is one of the run.
    pub place: Option<Place>,
    /// Whose commit it is.
    pub member_id: String,
    /// The epoch in which the partition was given to the member.
    pub epoch: u64,
    /// The position.
    pub offset: u64,
}

/// All groups, by the partition that coordinates them.
#[derive(Debug, Default)]
pub struct Replay {
    logs: BTreeMap<GroupId, (u64, Groups)>,
    /// Where not everything was seen.
    blind: BTreeSet<GroupId>,
    topics: BTreeMap<u64, u32>,
}

impl Replay {
    /// Takes in the next entry of a log; gives back what was accepted in it.
    pub fn take(&mut self, one: &Committed) -> Vec<Accepted> {
        if one.after_a_gap {
            self.blind.insert(one.group);
        }
        let (index, groups) = self.logs.entry(one.group).or_default();
        *index = one.entry.place.index;
        let Payload::Command(Command::Group(command)) = &one.entry.payload else {
            return Vec::new();
        };
        let reply = groups.apply(command, &mut Vec::new()).unwrap_or_default();
        self.learn(command);
        let Some(group_command::Kind::Committed(committed)) = &command.kind else {
            return Vec::new();
        };
        if reply.error.is_some() || self.blind.contains(&one.group) {
            return Vec::new();
        }
        let refused = |at: (u64, u32)| {
            let mut refused = reply.refused.iter();
            refused.any(|one| (one.topic_id, one.partition) == at)
        };
        let positions = committed.positions.iter();
        let accepted =
            positions.filter(|position| !refused((position.topic_id, position.partition)));
        let accepted = accepted.map(|position| Accepted {
            group: command.group.clone(),
            at: (position.topic_id, position.partition),
            place: self.topics.get(&position.topic_id).map(|topic| Place {
                topic: *topic,
                partition: position.partition,
            }),
            member_id: committed.member_id.clone(),
            epoch: position.epoch,
            offset: position.offset,
        });
        accepted.collect()
    }

    /// The groups of a coordinator's log, if they are known after exactly this log index.
    pub fn after(&self, log: GroupId, index: u64) -> Option<&Groups> {
        let (last, groups) = self.logs.get(&log)?;
        (*last == index && !self.blind.contains(&log)).then_some(groups)
    }

    fn learn(&mut self, command: &GroupCommand) {
        let told: &[GroupTopic] = match &command.kind {
            Some(group_command::Kind::Joins(joins)) => &joins.topics,
            Some(group_command::Kind::Topics(changed)) => &changed.topics,
            _ => return,
        };
        for topic in told {
            if let Some(number) = load::topic_number(&topic.name) {
                self.topics.insert(topic.topic_id, number);
            }
        }
    }
}
