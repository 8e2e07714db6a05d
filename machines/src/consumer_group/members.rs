//! Membership and assignment of one group: members join and leave, partitions are assigned and given up.
//!
//! **A partition has one owner at a time.** Its next owner gets it only once the former one has given it up,
//! has left, or has lost it by force. From then on, no commit of the former owner is accepted.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::mistake::{Mistake, made};
use ropewalk_proto::v1::{
    Assigned, GroupBegun, GroupMemberState, GroupPosition, GroupPositionState, GroupReply,
    GroupShare, GroupState, GroupTopic, MemberJoins, PartitionsReleased, TopicGrowth,
    TopicsChanged,
};

use super::assign::{Subscribers, targets};
use super::{Group, Member, Place, Share, Size, Stamp, Topic};

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
        if let Some(known) = self.members.get_mut(&id) {
            let later = member.session > known.session;
            member.session = member.session.max(known.session);
            known.session = member.session;
            if *known == member && !grown {
                return GroupReply {
                    changed: later,
                    ..GroupReply::default()
                };
            }
        }
        self.generation += 1;
        self.replace_instance(&member);
        self.members.insert(id, member);
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
        for share in self.shares.values_mut() {
            if share.owner.as_ref() == Some(&former) {
                share.owner = Some(id.clone());
                share.epoch = self.generation;
            }
            if share.target.as_ref() == Some(&former) {
                share.target = Some(id.clone());
            }
        }
    }

    pub(super) fn leave(&mut self, ids: &[String], stamp: Stamp) -> GroupReply {
        let left = ids.iter().filter(|id| self.members.remove(*id).is_some());
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
            let place = Place {
                topic_id: place.topic_id,
                partition: place.partition,
            };
            let share = self.shares.get_mut(&place);
            let owned = share.filter(|share| {
                share.owner.as_ref() == Some(&released.member_id) && share.epoch == epoch
            });
            if let Some(share) = owned {
                share.owner = None;
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
        self.topics.retain(|id, _| named.contains(id));
        self.learn(&changed_topics.topics);
        for member in self.members.values_mut() {
            member.topic_ids.retain(|id| named.contains(id));
        }
        for told in &changed_topics.members {
            if let Some(member) = self.members.get_mut(&told.member_id) {
                member.topic_ids = told.topic_ids.clone();
            }
        }
        self.generation += 1;
        self.rebalance(stamp);
        changed()
    }

    /// Deletes the committed offsets in deleted topics; returns their partitions.
    pub(super) fn forget(&mut self, name: &str, gone_topic_ids: &[u64]) -> Vec<Place> {
        self.begun.retain(|id, _| !gone_topic_ids.contains(id));
        let gone = |place: &&Place| gone_topic_ids.contains(&place.topic_id);
        let gone: Vec<Place> = self.positions.keys().filter(gone).copied().collect();
        for place in &gone {
            self.remove_position(name, *place);
        }
        gone
    }

    /// Records the partitions of topics; returns true if a topic has more than before.
    fn learn(&mut self, topics: &[GroupTopic]) -> bool {
        let mut grown = false;
        for told in topics {
            let topic = self.topics.entry(told.topic_id).or_insert_with(|| Topic {
                name: told.name.clone(),
                partitions: 0,
                growths: Vec::new(),
            });
            grown |= told.partitions > topic.partitions;
            topic.partitions = topic.partitions.max(told.partitions);
            if told.growths.len() > topic.growths.len() {
                topic.growths = told.growths.clone();
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
        self.topics.retain(|id, _| subscribers.contains_key(id));
        let mut shares: BTreeMap<Place, Share> = BTreeMap::new();
        for (topic_id, topic) in &self.topics {
            for partition in 0..topic.partitions {
                let place = Place {
                    topic_id: *topic_id,
                    partition,
                };
                let mut share = self.shares.get(&place).cloned().unwrap_or_default();
                let reads = |id: &String| {
                    let member = self.members.get(id);
                    member.is_some_and(|member| member.topic_ids.contains(topic_id))
                };
                share.owner = share.owner.filter(reads);
                share.target = share.target.filter(reads);
                shares.insert(place, share);
            }
        }
        let before = shares.iter().map(|(place, share)| {
            let keeper = share.target.as_ref().or(share.owner.as_ref());
            (
                *place,
                keeper
                    .and_then(|id| self.members.get_key_value(id))
                    .map(|(id, _)| id.as_str()),
            )
        });
        let targets = targets(&subscribers, before, stamp.rules);
        for (place, share) in &mut shares {
            share.target = targets.get(place).map(|id| (*id).to_owned());
        }
        self.shares = shares;
        self.used_ms = stamp.now_ms;
        self.give_out();
    }

    /// Assigns partitions without an owner to their targets; returns true if there were any.
    ///
    /// **A partition that a topic gained is assigned only once all old ones are read up to their fences.** Up
    /// to there, they may hold earlier records of its keys.
    pub(super) fn give_out(&mut self) -> bool {
        let mut given = false;
        for (place, share) in &mut self.shares {
            let free = share.owner.is_none() && share.target.is_some();
            let topic = self.topics.get(&place.topic_id);
            let growth = topic.and_then(|topic| growth_of(topic, place.partition));
            let ready = |growth| is_read(&self.positions, place.topic_id, growth);
            let ready = growth.is_none_or(ready) || made(Mistake::NewPartitionAtOnce);
            if free && ready {
                share.owner = share.target.clone();
                share.epoch = self.generation;
                given = true;
            }
        }
        given
    }

    /// Checks that a member may commit this offset.
    ///
    /// # Errors
    /// `NotOwner`, with the owner of the partition.
    pub fn check_owner(&self, member_id: &str, position: &GroupPosition) -> Result<(), WireError> {
        let share = self.shares.get(&Place::from(position));
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
            _ if made(Mistake::CommitWithoutOwnerCheck) => Ok(()),
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

    pub(super) fn to_state(&self) -> GroupState {
        let members = self.members.values().map(|member| GroupMemberState {
            member: Some(member.told.clone()),
            rebalance_ms: member.rebalance_ms,
            topic_ids: member.topic_ids.clone(),
            session: member.session,
        });
        let topics = self.topics.iter().map(|(id, topic)| topic.told(*id));
        let shares = self.shares.iter().map(|(place, share)| GroupShare {
            topic_id: place.topic_id,
            partition: place.partition,
            owner: share.owner.clone().unwrap_or_default(),
            epoch: share.epoch,
            target: share.target.clone().unwrap_or_default(),
        });
        let begun = self.begun.iter().map(|(id, partitions)| GroupBegun {
            topic_id: *id,
            partitions: *partitions,
        });
        GroupState {
            generation: self.generation,
            members: members.collect(),
            topics: topics.collect(),
            shares: shares.collect(),
            used_ms: self.used_ms,
            begun: begun.collect(),
        }
    }

    pub(super) fn from_state(
        state: GroupState,
        positions: BTreeMap<Place, GroupPositionState>,
    ) -> Group {
        let members = state.members.into_iter().map(|stored| {
            let told = stored.member.unwrap_or_default();
            let member = Member {
                rebalance_ms: stored.rebalance_ms,
                topic_ids: stored.topic_ids,
                session: stored.session,
                told,
            };
            (member.told.member_id.clone(), member)
        });
        let topics = state.topics.into_iter().map(|topic| {
            let known = Topic {
                name: topic.name,
                partitions: topic.partitions,
                growths: topic.growths,
            };
            (topic.topic_id, known)
        });
        let named = |id: String| (!id.is_empty()).then_some(id);
        let shares = state.shares.into_iter().map(|share| {
            let place = Place {
                topic_id: share.topic_id,
                partition: share.partition,
            };
            let kept = Share {
                owner: named(share.owner),
                epoch: share.epoch,
                target: named(share.target),
            };
            (place, kept)
        });
        let begun = state.begun.into_iter();
        let begun = begun.map(|begun| (begun.topic_id, begun.partitions));
        Group {
            generation: state.generation,
            members: members.collect(),
            topics: topics.collect(),
            shares: shares.collect(),
            positions,
            begun: begun.collect(),
            used_ms: state.used_ms,
            size: Size::default(),
        }
    }
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
    positions: &BTreeMap<Place, GroupPositionState>,
    topic_id: u64,
    growth: &TopicGrowth,
) -> bool {
    growth.fences.iter().all(|fence| {
        let place = Place {
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
