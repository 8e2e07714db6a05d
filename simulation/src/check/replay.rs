//! Replay of the coordinators' logs, for the checks that judge consumer groups: it finds the accepted
//! commits. The groups are the product's own, advanced command by command. The checks judge the results.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_machines::consumer_group::Groups;
use ropewalk_proto::command::Command;
use ropewalk_proto::ids::GroupId;
use ropewalk_proto::v1::{GroupCommand, GroupTopic, group_command};
use ropewalk_raft_store::inspect::Payload;

use crate::history::Place;
use crate::load;
use crate::observe::committed_model::Committed;

/// A commit that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The group's name.
    pub group: String,
    /// Topic id and partition.
    pub at: (u64, u32),
    /// The same partition by the run's topic number, if the topic is one of the run's.
    pub place: Option<Place>,
    /// Id of the member that committed.
    pub member_id: String,
    /// Epoch in which the partition was assigned to the member.
    pub epoch: u64,
    /// The committed offset.
    pub offset: u64,
}

/// All groups, by the partition that coordinates them.
#[derive(Debug, Default)]
pub struct Replay {
    logs: BTreeMap<GroupId, (u64, Groups)>,
    /// Logs of which some entries were not seen.
    blind: BTreeSet<GroupId>,
    topics: BTreeMap<u64, u32>,
}

impl Replay {
    /// Applies the next entry of a log. Returns the commits accepted in it.
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

    /// The groups of a coordinator's log, if the replay has reached exactly this log index.
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
