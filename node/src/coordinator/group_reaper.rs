//! Background work of a coordinator. It ends expired sessions, and revokes partitions by force from members
//! that keep them too long. It updates groups after topic changes, and deletes idle groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use ropewalk_machines::consumer_group::{Groups, TopicPartitionId};
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1::{
    GroupDeleted, GroupPlace, MembersLeave, PartitionsReleased, group_command,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::compare::Compared;
use super::session_table::SessionTable;
use super::{Coordinator, resolve};
use crate::partition::Partition;

/// Interval of the checks of sessions.
const TICK: Duration = Duration::from_millis(200);
/// Interval of the searches for idle groups.
const IDLE_TICK: Duration = Duration::from_secs(30);
/// Commands of all partitions in flight at a time.
const AT_ONCE: usize = 32;

/// A command to write, with its group.
pub(super) type Due = (String, group_command::Kind);

/// A command of one partition of the internal topic, with the partition's number.
type Write = (Arc<Partition>, u32, Due);

/// A partition that a member must give up: its group, and the epoch in which it was assigned.
type Revoked = (String, TopicPartitionId, u64);

#[derive(Default)]
struct GroupReaper {
    /// Time since which each partition must be given up, by partition of the internal topic.
    revoked: BTreeMap<u32, BTreeMap<Revoked, Instant>>,
    /// Comparisons of groups with the metadata, by partition of the internal topic.
    compared: BTreeMap<u32, Compared>,
    idle_looked: Option<Instant>,
}

/// Maintains the groups that this node coordinates; never returns.
pub(super) async fn run(coordinator: &Coordinator) {
    let mut reaper = GroupReaper::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        reaper.look(coordinator).await;
    }
}

impl GroupReaper {
    async fn look(&mut self, coordinator: &Coordinator) {
        let view = coordinator.view();
        let Some(topic) = view.topics.get(GROUPS_TOPIC) else {
            return;
        };
        let idle = self.idle_looked.is_none_or(|at| at.elapsed() >= IDLE_TICK);
        if idle {
            self.idle_looked = Some(Instant::now());
        }
        let mut due: Vec<Write> = Vec::new();
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
            let (version, now) = ((view.applied, epoch), Instant::now());
            let compared = self.compared.entry(number).or_default();
            let patterns = partition.with_groups(|groups| compared.patterns(groups, version, now));
            let matching = match patterns {
                Some(patterns) => Some(resolve::matching(patterns, &view).await),
                None => None,
            };
            // The leader may have changed meanwhile, and the local state would then belong to another epoch.
            if partition.coordinates().ok() != Some(epoch) {
                continue;
            }
            partition.with_groups(|groups| {
                coordinator.expire(number, epoch, groups, &mut found);
                self.take_away(coordinator, number, groups, &mut found);
                if let Some(matching) = &matching {
                    let compared = self.compared.entry(number).or_default();
                    found.extend(compared.compare(groups, &view, matching, version, now));
                }
                if idle {
                    coordinator.find_idle(groups, &mut found);
                }
            });
            let found = found.into_iter();
            due.extend(found.map(|due| (partition.clone(), number, due)));
        }
        self.write(coordinator, due).await;
    }

    /// Writes commands. The next round finds one that failed again, here or on the next coordinator.
    async fn write(&mut self, coordinator: &Coordinator, due: Vec<Write>) {
        let writes = stream::iter(due).map(|(partition, number, due)| async move {
            let (group, kind) = due;
            let is_of_topics = matches!(kind, group_command::Kind::Topics(_));
            let written = coordinator.write(&partition, &group, kind).await;
            if let Err(error) = &written {
                tracing::debug!(group, %error, "group change not written; trying again");
            }
            is_of_topics.then_some((number, group, written.is_ok()))
        });
        let written: Vec<_> = writes.buffer_unordered(AT_ONCE).collect().await;
        for (number, group, is_written) in written.into_iter().flatten() {
            if let Some(compared) = self.compared.get_mut(&number) {
                compared.written(&group, is_written, Instant::now());
            }
        }
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
        let led = led
            .entry(number)
            .or_insert_with(|| SessionTable::new(epoch));
        led.renew(epoch);
        let now = Instant::now();
        for (name, group) in groups.iter() {
            let mut silent = Vec::new();
            for (id, member) in &group.members {
                if led.is_over(name, &member.told, id, now) {
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
        led.tidy(groups);
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
