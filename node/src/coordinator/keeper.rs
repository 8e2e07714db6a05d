//! Background work of a coordinator. It ends expired sessions, and revokes partitions by force from members
//! that keep them too long. It updates groups after topic changes, and deletes idle groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ropewalk_machines::consumer_group::{Group, Groups, Place};
use ropewalk_machines::meta::view::ClusterView;
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1::{
    GroupDeleted, GroupPlace, GroupTopic, MemberTopics, MembersLeave, PartitionsReleased,
    TopicsChanged, group_command,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::resolve::{self, Matching};
use super::{Coordinator, Heard, Led, first_wait};
use crate::partition::Partition;

/// Interval of the checks of sessions.
const TICK: Duration = Duration::from_millis(200);
/// Interval of the searches for idle groups.
const IDLE_TICK: Duration = Duration::from_secs(30);
/// Commands of all partitions in flight at a time.
const AT_ONCE: usize = 32;

/// A command to write, with its group.
type Due = (String, group_command::Kind);

/// A partition that a member must give up: its group, and the epoch in which it was assigned.
type Revoked = (String, Place, u64);

#[derive(Default)]
struct Keeper {
    /// Time since which each partition must be given up, by partition of the internal topic.
    revoked: BTreeMap<u32, BTreeMap<Revoked, Instant>>,
    /// Version of the metadata that groups were last compared with, and the leader epoch at that time.
    compared: BTreeMap<u32, (u64, u64)>,
    idle_looked: Option<Instant>,
}

/// Maintains the groups that this node coordinates; never returns.
pub(super) async fn run(coordinator: &Coordinator) {
    let mut keeper = Keeper::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        keeper.look(coordinator).await;
    }
}

impl Keeper {
    async fn look(&mut self, coordinator: &Coordinator) {
        let view = coordinator.view();
        let Some(topic) = view.topics.get(GROUPS_TOPIC) else {
            return;
        };
        let idle = self.idle_looked.is_none_or(|at| at.elapsed() >= IDLE_TICK);
        if idle {
            self.idle_looked = Some(Instant::now());
        }
        let mut due: Vec<(Arc<Partition>, Due)> = Vec::new();
        for at in &topic.partitions {
            let number = at.partition;
            let partition = coordinator.0.partitions.get(at.group);
            let led = partition.and_then(|partition| {
                let epoch = partition.coordinates().ok()?;
                Some((partition, epoch))
            });
            let Some((partition, epoch)) = led else {
                coordinator.0.led.lock().remove(&number);
                self.revoked.remove(&number);
                self.compared.remove(&number);
                continue;
            };
            let mut found = Vec::new();
            let compared = (view.applied, epoch);
            let matching = match self.compared.get(&number) == Some(&compared) {
                true => None,
                false => {
                    let patterns = partition.with_groups(patterns_of);
                    Some(resolve::matching(patterns, &view).await)
                }
            };
            // The leader may have changed meanwhile, and the local state would then belong to another epoch.
            if partition.coordinates().ok() != Some(epoch) {
                continue;
            }
            partition.with_groups(|groups| {
                coordinator.expire(number, epoch, groups, &mut found);
                self.take_away(coordinator, number, groups, &mut found);
                if let Some(matching) = &matching
                    && compare_topics(groups, &view, matching, &mut found)
                {
                    self.compared.insert(number, compared);
                }
                if idle {
                    coordinator.find_idle(groups, &mut found);
                }
            });
            due.extend(found.into_iter().map(|due| (partition.clone(), due)));
        }
        let written =
            stream::iter(due).for_each_concurrent(AT_ONCE, |(partition, due)| async move {
                let (group, kind) = due;
                if let Err(error) = coordinator.write(&partition, &group, kind).await {
                    // The next round finds it again, here or on the next coordinator.
                    tracing::debug!(
                        group,
                        %error,
                        "group change not written; the next round retries"
                    );
                }
            });
        written.await;
    }

    /// Revokes partitions by force from members that have not given them up in time.
    fn take_away(
        &mut self,
        coordinator: &Coordinator,
        number: u32,
        groups: &Groups,
        due: &mut Vec<Due>,
    ) {
        let known = self.revoked.entry(number).or_default();
        let mut now_revoked = BTreeSet::new();
        for (name, group) in groups.iter() {
            for (place, share) in &group.shares {
                let Some(owner) = share.owner.as_ref().filter(|_| share.owner != share.target)
                else {
                    continue;
                };
                let revoked = (name.to_owned(), *place, share.epoch);
                let since = *known.entry(revoked.clone()).or_insert_with(Instant::now);
                now_revoked.insert(revoked);
                let member = group.members.get(owner);
                let within = member.map_or(0, |member| member.rebalance_ms);
                if since.elapsed() < Duration::from_millis(within.into()) {
                    continue;
                }
                let left_out = coordinator.0.metrics.valves.taken_away.pass();
                if let Some(left_out) = left_out {
                    tracing::warn!(
                        group = name,
                        member = owner,
                        partition = place.partition,
                        left_out,
                        "member did not release a partition within the rebalance timeout: \
                         revoking it"
                    );
                }
                due.push((
                    name.to_owned(),
                    group_command::Kind::Released(PartitionsReleased {
                        member_id: owner.clone(),
                        partitions: vec![GroupPlace {
                            topic_id: place.topic_id,
                            partition: place.partition,
                            epoch: share.epoch,
                        }],
                    }),
                ));
            }
        }
        known.retain(|revoked, _| now_revoked.contains(revoked));
    }
}

impl Coordinator {
    /// Ends the sessions of members whose heartbeats stopped.
    fn expire(&self, number: u32, epoch: u64, groups: &Groups, due: &mut Vec<Due>) {
        let mut led = self.0.led.lock();
        let led = led.entry(number).or_insert_with(|| Led::new(epoch));
        led.renew(epoch);
        let now = Instant::now();
        for (name, group) in groups.iter() {
            let mut silent = Vec::new();
            for (id, member) in &group.members {
                let key = (name.to_owned(), id.clone());
                let fresh = Heard {
                    until: now + first_wait(&member.told),
                    session: u64::MAX,
                };
                if led.heard.entry(key).or_insert(fresh).until <= now {
                    if let Some(left_out) = self.0.metrics.valves.session_ended.pass() {
                        tracing::info!(
                            group = name,
                            member = %id,
                            left_out,
                            "group member's session expired"
                        );
                    }
                    silent.push(id.clone());
                }
            }
            if !silent.is_empty() {
                let leave = MembersLeave { member_ids: silent };
                due.push((name.to_owned(), group_command::Kind::Leave(leave)));
            }
        }
        // Keeps unexpired entries without a member, since that member may be about to join.
        led.heard.retain(|(group, id), heard| {
            let group = groups.get(group);
            heard.until > now || group.is_some_and(|group| group.members.contains_key(id))
        });
    }

    /// Finds groups without members that were last used before retention began.
    fn find_idle(&self, groups: &Groups, due: &mut Vec<Due>) {
        let idle_since_ms = self
            .0
            .clock
            .earliest_ms()
            .saturating_sub(self.0.limits.group_retention_ms);
        for (name, group) in groups.iter() {
            if group.members.is_empty() && group.used_ms <= idle_since_ms {
                tracing::info!(
                    group = name,
                    "group is unused past its retention: deleting it"
                );
                let deleted = GroupDeleted {
                    idle_since_ms: Some(idle_since_ms),
                };
                due.push((name.to_owned(), group_command::Kind::Deleted(deleted)));
            }
        }
    }
}

/// Returns all patterns of the groups' members.
fn patterns_of(groups: &Groups) -> BTreeSet<String> {
    let members = groups.iter().flat_map(|(_, group)| group.members.values());
    let patterns = members.map(|member| &member.told.pattern);
    let patterns = patterns.filter(|pattern| !pattern.is_empty());
    patterns.cloned().collect()
}

/// Finds groups whose topics have changed: grown, created, deleted. Returns false if a group has a member
/// whose pattern was added meanwhile; the next round compares it again.
fn compare_topics(
    groups: &Groups,
    view: &ClusterView,
    matching: &Matching,
    due: &mut Vec<Due>,
) -> bool {
    let exists: BTreeSet<u64> = view.topics.values().map(|topic| topic.id.0).collect();
    let mut all_known = true;
    for (name, group) in groups.iter() {
        match compare(group, view, matching, &exists) {
            Some(Some(changed)) => {
                due.push((name.to_owned(), group_command::Kind::Topics(changed)))
            }
            Some(None) => {}
            None => all_known = false,
        }
    }
    all_known
}

/// Returns the changes of a group's topics. Returns `None` if `matching` lacks a pattern of the group.
fn compare(
    group: &Group,
    view: &ClusterView,
    matching: &Matching,
    exists: &BTreeSet<u64>,
) -> Option<Option<TopicsChanged>> {
    let mut topics: BTreeMap<u64, GroupTopic> = BTreeMap::new();
    let mut members = Vec::new();
    let mut differs = false;
    for (id, member) in &group.members {
        let found = resolve::topics_of(&member.told, view, matching)?;
        // Topics created after this view are kept.
        let newer = member
            .topic_ids
            .iter()
            .filter(|id| **id >= view.next_topic.0);
        let mut topic_ids: Vec<u64> = found
            .iter()
            .map(|topic| topic.topic_id)
            .chain(newer.copied())
            .collect();
        topic_ids.sort_unstable();
        let mut known = member.topic_ids.clone();
        known.sort_unstable();
        differs |= known != topic_ids;
        topics.extend(found.into_iter().map(|topic| (topic.topic_id, topic)));
        members.push(MemberTopics {
            member_id: id.clone(),
            topic_ids,
        });
    }
    for (id, known) in &group.topics {
        match topics.get_mut(id) {
            Some(topic) => {
                differs |= topic.partitions > known.partitions;
                topic.partitions = topic.partitions.max(known.partitions);
            }
            None if *id >= view.next_topic.0 => {
                topics.insert(*id, known.told(*id));
            }
            None => {}
        }
    }
    let known = group.positions.keys().map(|place| place.topic_id);
    let known = known.chain(group.begun.keys().copied());
    let gone: BTreeSet<u64> = known
        .filter(|id| *id < view.next_topic.0 && !exists.contains(id))
        .collect();
    let changed = (differs || !gone.is_empty()).then(|| TopicsChanged {
        topics: topics.into_values().collect(),
        members,
        gone_topic_ids: gone.into_iter().collect(),
    });
    Some(changed)
}

#[cfg(test)]
mod tests {
    use ropewalk_proto::ids::TopicId;
    use ropewalk_proto::v1::GroupMember;

    use super::*;
    use ropewalk_machines::consumer_group::{Member, Topic};

    /// A group that reads topic 9, on a node whose metadata has all topics below this one.
    fn seen(next_topic: u64) -> Option<TopicsChanged> {
        let member = Member {
            told: GroupMember {
                topics: vec!["new".to_owned()],
                ..GroupMember::default()
            },
            rebalance_ms: 0,
            topic_ids: vec![9],
            session: 1,
        };
        let topic = Topic {
            name: "new".to_owned(),
            partitions: 2,
            growths: Vec::new(),
        };
        let place = Place {
            topic_id: 9,
            partition: 0,
        };
        let group = Group {
            members: [("a".to_owned(), member)].into(),
            topics: [(9, topic)].into(),
            positions: [(place, Default::default())].into(),
            ..Group::default()
        };
        let view = ClusterView {
            next_topic: TopicId(next_topic),
            ..ClusterView::default()
        };
        compare(&group, &view, &Matching::new(), &BTreeSet::new()).expect("no pattern")
    }

    #[test]
    fn a_topic_is_gone_only_for_who_would_know_of_it() {
        assert_eq!(seen(9), None, "it was made after this picture was taken");
        let changed = seen(10).expect("it was deleted");
        assert_eq!(changed.gone_topic_ids, [9]);
        assert_eq!(changed.members[0].topic_ids, [0; 0]);
    }
}
