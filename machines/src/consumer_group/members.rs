//! Membership and assignment of one group: members join and leave, partitions are assigned and given up.
//!
//! **A partition has one owner at a time.** Its next owner gets it only once the former one has given it up,
//! has left, or has lost it by force. From then on, no commit of the former owner is accepted.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::planted_bug::{PlantedBug, is_planted};
use ropewalk_proto::v1::{
    Assigned, GroupPosition, GroupPositionState, GroupReply, GroupTopic, MemberJoins,
    PartitionsReleased, TopicGrowth, TopicsChanged,
};

use super::assign::{Subscribers, targets};
use super::{Group, Member, PartitionAssignment, Stamp, Topic, TopicPartitionId};

impl Topic {
    /// Converts the topic to its form in commands.
    pub fn told(&self, topic_id: u64) -> GroupTopic {
        GroupTopic {
            topic_id,
            name: self.name.clone(),
            partitions: self.partitions,
            growths: self.growths.clone(),
        }
    }
}

impl Member {
    /// Returns true if another join request of the member differs at most in its session.
    fn asks_for_the_same(&self, other: &Member) -> bool {
        self.told == other.told
            && self.rebalance_ms == other.rebalance_ms
            && self.topic_ids == other.topic_ids
    }
}

impl Group {
    pub(super) fn join(&mut self, joins: &MemberJoins, stamp: Stamp) -> GroupReply {
        let told = joins.member.clone().unwrap_or_default();
        let topic_ids: Vec<u64> = joins.topics.iter().map(|topic| topic.topic_id).collect();
        let mut member = Member {
            rebalance_ms: joins.rebalance_ms,
            topic_ids,
            told,
            session: joins.session,
        };
        let id = member.told.member_id.clone();
        let grown = self.learn(&joins.topics);
        if let Some(known) = self.members.get(&id) {
            let later = member.session > known.session;
            member.session = member.session.max(known.session);
            if known.asks_for_the_same(&member) && !grown {
                self.members.set(id, member);
                return GroupReply {
                    changed: later,
                    ..GroupReply::default()
                };
            }
        }
        self.generation += 1;
        self.replace_instance(&member);
        self.members.set(id, member);
        self.rebalance(stamp);
        changed()
    }

    /// Replaces the former member with the same static name.
    fn replace_instance(&mut self, member: &Member) {
        let (id, instance) = (&member.told.member_id, &member.told.instance_id);
        let former = self
            .members
            .iter()
            .find(|(other, has)| *other != id && has.told.instance_id == *instance)
            .map(|(other, _)| other.clone());
        let Some(former) = former.filter(|_| !instance.is_empty()) else {
            return;
        };
        self.members.remove(&former);
        let (former, generation) = (Some(former), self.generation);
        let named = self.shares.iter();
        let named = named.filter(|(_, share)| share.owner == former || share.target == former);
        let named: Vec<TopicPartitionId> = named.map(|(place, _)| *place).collect();
        for place in named {
            self.shares.change(&place, |share| {
                if share.owner == former {
                    share.owner = Some(id.clone());
                    share.epoch = generation;
                }
                if share.target == former {
                    share.target = Some(id.clone());
                }
            });
        }
    }

    pub(super) fn leave(&mut self, ids: &[String], stamp: Stamp) -> GroupReply {
        let left = ids.iter().filter(|id| self.members.remove(id));
        if left.count() == 0 {
            return GroupReply::default();
        }
        self.generation += 1;
        self.rebalance(stamp);
        changed()
    }

    pub(super) fn release(&mut self, released: &PartitionsReleased) -> GroupReply {
        let mut reply = GroupReply::default();
        for place in &released.partitions {
            let epoch = place.epoch;
            let place = TopicPartitionId {
                topic_id: place.topic_id,
                partition: place.partition,
            };
            let owned = self.shares.get(&place).is_some_and(|share| {
                share.owner.as_ref() == Some(&released.member_id) && share.epoch == epoch
            });
            if owned {
                self.shares.change(&place, |share| share.owner = None);
                reply.changed = true;
            }
        }
        reply.changed |= self.give_out();
        reply
    }

    pub(super) fn change_topics(
        &mut self,
        changed_topics: &TopicsChanged,
        stamp: Stamp,
    ) -> GroupReply {
        let named = changed_topics.topics.iter();
        let named: BTreeSet<u64> = named.map(|topic| topic.topic_id).collect();
        self.topics.retain(|id| named.contains(id));
        self.learn(&changed_topics.topics);
        let read = |member: &Member| member.topic_ids.iter().all(|id| named.contains(id));
        let losing = self.members.iter().filter(|(_, member)| !read(member));
        let losing: Vec<String> = losing.map(|(id, _)| id.clone()).collect();
        for id in losing {
            let lose = |member: &mut Member| member.topic_ids.retain(|id| named.contains(id));
            self.members.change(&id, lose);
        }
        for told in &changed_topics.members {
            let known = self.members.get(&told.member_id);
            if known.is_some_and(|member| member.topic_ids != told.topic_ids) {
                self.members.change(&told.member_id, |member| {
                    member.topic_ids.clone_from(&told.topic_ids);
                });
            }
        }
        self.generation += 1;
        self.rebalance(stamp);
        changed()
    }

    /// Deletes the committed offsets in deleted topics.
    pub(super) fn forget(&mut self, gone_topic_ids: &[u64]) {
        self.begun.retain(|id| !gone_topic_ids.contains(id));
        self.positions
            .retain(|place| !gone_topic_ids.contains(&place.topic_id));
    }

    /// Records the partitions of topics; returns true if a topic has more than before.
    fn learn(&mut self, topics: &[GroupTopic]) -> bool {
        let mut grown = false;
        for told in topics {
            let Some(known) = self.topics.get(&told.topic_id) else {
                grown |= told.partitions > 0;
                self.topics.set(told.topic_id, Topic::from(told.clone()));
                continue;
            };
            let more = told.partitions > known.partitions;
            let growths = told.growths.len() > known.growths.len();
            grown |= more;
            if more || growths {
                self.topics.change(&told.topic_id, |topic| {
                    topic.partitions = topic.partitions.max(told.partitions);
                    if growths {
                        topic.growths.clone_from(&told.growths);
                    }
                });
            }
        }
        grown
    }

    /// Computes the target assignment again, and assigns free partitions.
    fn rebalance(&mut self, stamp: Stamp) {
        let mut subscribers = Subscribers::new();
        for (id, member) in &self.members {
            for topic_id in &member.topic_ids {
                subscribers.entry(*topic_id).or_default().insert(id);
            }
        }
        self.topics.retain(|id| subscribers.contains_key(id));
        let topics = &self.topics;
        let reads = |place: &TopicPartitionId| {
            let topic = topics.get(&place.topic_id);
            topic.is_some_and(|topic| place.partition < topic.partitions)
        };
        self.shares.retain(reads);
        let places = || topics.iter().flat_map(|(id, topic)| places(*id, topic));
        let reader = |place: TopicPartitionId, id: &Option<String>| {
            let readers = subscribers.get(&place.topic_id)?;
            readers.get(id.as_deref()?).copied()
        };
        let before = places().map(|place| {
            let share = self.shares.get(&place);
            let keeper = share.and_then(|share| {
                reader(place, &share.target).or_else(|| reader(place, &share.owner))
            });
            (place, keeper)
        });
        let targets = targets(&subscribers, before, stamp.rules);
        for place in places() {
            let known = self.shares.get(&place);
            let owner = known.and_then(|share| reader(place, &share.owner));
            let target = targets.get(&place).copied();
            let same = |share: &PartitionAssignment| {
                (share.owner.as_deref(), share.target.as_deref()) == (owner, target)
            };
            if !known.is_some_and(same) {
                let share = PartitionAssignment {
                    owner: owner.map(str::to_owned),
                    epoch: known.map_or(0, |share| share.epoch),
                    target: target.map(str::to_owned),
                };
                self.shares.set(place, share);
            }
        }
        self.used_ms = stamp.now_ms;
        self.give_out();
    }

    /// Assigns partitions without an owner to their targets; returns true if there were any.
    ///
    /// **A partition that a topic gained is assigned only once all old ones are read up to their fences.** Up
    /// to there, they may hold earlier records of its keys.
    pub(super) fn give_out(&mut self) -> bool {
        let ready = |place: &TopicPartitionId| {
            let topic = self.topics.get(&place.topic_id);
            let growth = topic.and_then(|topic| growth_of(topic, place.partition));
            let ready = |growth| is_read(&self.positions, place.topic_id, growth);
            growth.is_none_or(ready) || is_planted(PlantedBug::NewPartitionAtOnce)
        };
        let free = self.shares.iter();
        let free = free.filter(|(_, share)| share.owner.is_none() && share.target.is_some());
        let free = free.map(|(place, _)| *place).filter(ready);
        let given: Vec<TopicPartitionId> = free.collect();
        let generation = self.generation;
        for place in &given {
            self.shares.change(place, |share| {
                share.owner = share.target.clone();
                share.epoch = generation;
            });
        }
        !given.is_empty()
    }

    /// Checks that a member may commit this offset.
    ///
    /// # Errors
    /// `NotOwner`, with the owner of the partition.
    pub fn check_owner(&self, member_id: &str, position: &GroupPosition) -> Result<(), WireError> {
        let share = self.shares.get(&TopicPartitionId::from(position));
        let owner = share.and_then(|share| share.owner.as_deref());
        let name = || match self.topics.get(&position.topic_id) {
            Some(topic) => format!("partition {}/{}", topic.name, position.partition),
            None => format!(
                "partition {} of a topic to which the group does not subscribe",
                position.partition
            ),
        };
        match (owner, share) {
            (Some(owner), Some(share)) if owner == member_id && share.epoch == position.epoch => {
                Ok(())
            }
            _ if is_planted(PlantedBug::CommitWithoutOwnerCheck) => Ok(()),
            (Some(owner), Some(share)) if owner == member_id => Err(not_owner(format!(
                "{} was assigned to the member again in epoch {}, and the commit is of epoch {}",
                name(),
                share.epoch,
                position.epoch
            ))),
            (Some(_), _) => Err(not_owner(format!(
                "{} is assigned to another member",
                name()
            ))),
            (None, _) => Err(not_owner(format!(
                "{} is not assigned to the member",
                name()
            ))),
        }
    }

    /// Partitions that a member owns, with their committed offsets.
    pub fn assigned(&self, member_id: &str) -> Vec<Assigned> {
        let own = self
            .shares
            .iter()
            .filter(|(_, share)| share.owner.as_deref() == Some(member_id));
        let assigned = own.map(|(place, share)| Assigned {
            topic: self
                .topics
                .get(&place.topic_id)
                .map_or_else(String::new, |topic| topic.name.clone()),
            topic_id: place.topic_id,
            partition: place.partition,
            epoch: share.epoch,
            revoked: share.owner != share.target,
            committed: self.positions.get(place).map(|position| position.offset),
        });
        assigned.collect()
    }

    /// Topics that a member names and that do not exist, as far as the group knows.
    pub fn missing<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        let read = member.topic_ids.iter();
        let read: BTreeSet<&str> = read
            .filter_map(|id| Some(self.topics.get(id)?.name.as_str()))
            .collect();
        let named = member.told.topics.iter().map(String::as_str);
        named.filter(move |name| !read.contains(name))
    }
}

/// All partitions of a topic.
fn places(topic_id: u64, topic: &Topic) -> impl Iterator<Item = TopicPartitionId> + use<> {
    (0..topic.partitions).map(move |partition| TopicPartitionId {
        topic_id,
        partition,
    })
}

/// Returns the growth that added a partition.
fn growth_of(topic: &Topic, partition: u32) -> Option<&TopicGrowth> {
    let brought =
        |growth: &&TopicGrowth| (growth.from_partitions..growth.to_partitions).contains(&partition);
    topic.growths.iter().find(brought)
}

/// Returns true if every old partition was read up to its fence. Partitions that an earlier growth added have
/// waited for that one's fences themselves.
fn is_read(
    positions: &BTreeMap<TopicPartitionId, GroupPositionState>,
    topic_id: u64,
    growth: &TopicGrowth,
) -> bool {
    growth.fences.iter().all(|fence| {
        let place = TopicPartitionId {
            topic_id,
            partition: fence.partition,
        };
        let position = positions.get(&place);
        position.map_or(0, |position| position.offset) >= fence.offset
    })
}

fn changed() -> GroupReply {
    GroupReply {
        changed: true,
        ..GroupReply::default()
    }
}

fn not_owner(what: String) -> WireError {
    WireError::new(
        ErrorCode::NotOwner,
        format!("{what}; the owner of the partition reads again from the last committed offset"),
    )
}
